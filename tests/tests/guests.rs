//! Real guests of our own, sampled: known values, counters that only grow, vCPUs that come and go.

mod guests {
    mod known;
    mod moving;
    mod raw;
    mod roster;
}
