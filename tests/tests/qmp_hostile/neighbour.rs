//! Another client is not affected.

use super::harm;
use super::latency::others_hardly_notice;

#[test]
fn of_garbage() {
    others_hardly_notice("garbage", harm::garbage);
}

#[test]
fn of_a_string_of_100_mb() {
    others_hardly_notice("endless-string", harm::endless_string);
}

#[test]
fn of_10_000_nested_lists() {
    others_hardly_notice("nested", harm::nested);
}

#[test]
fn of_half_requests() {
    others_hardly_notice("halves", harm::halves);
}

#[test]
fn of_a_million_unread_replies() {
    others_hardly_notice("unread", harm::unread);
}

#[test]
fn of_those_who_leave() {
    others_hardly_notice("leaves", harm::leaves_anywhere);
}

#[test]
fn of_a_crowd() {
    others_hardly_notice("crowd", harm::crowd);
}

#[test]
fn of_a_slow_reader() {
    others_hardly_notice("slow-reader", harm::slow_reader);
}
