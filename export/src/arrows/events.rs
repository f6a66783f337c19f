//! Events as the custom metadata of a batch.
//!
//! Invariant: an event that was written is read back equal; keys that are not of events are
//! ignored.

use crate::exporter::Event;
use crate::limits::MAX_WAITING_EVENTS;

/// Returns the keys and texts of events.
pub(super) fn write(events: &[Event]) -> Vec<(String, String)> {
    let pairs = events.iter().enumerate().flat_map(|(number, event)| {
        [
            ("time_ns", event.wall_ns().to_string()),
            ("wall_offset_ns", event.wall_offset_ns.to_string()),
            ("kind", event.kind.name().to_owned()),
            ("text", event.text.clone()),
        ]
        .map(|(key, text)| (format!("event.{number}.{key}"), text))
    });
    pairs.collect()
}

/// Returns the events of these keys and texts; `None` if one is incomplete or there are too many.
pub(super) fn read(pairs: &[(String, String)]) -> Option<Vec<Event>> {
    let mut events = Vec::new();
    // A writer writes the four of each event together and in this order.
    let mut of_events = pairs.iter().filter_map(|(key, text)| {
        let (number, key) = key.strip_prefix("event.")?.split_once('.')?;
        Some((number.parse::<usize>().ok()?, key, text))
    });
    while let Some((number, key, text)) = of_events.next() {
        if number != events.len() || key != "time_ns" || number >= MAX_WAITING_EVENTS {
            return None;
        }
        let mut next = |wanted| {
            let (its, key, text) = of_events.next()?;
            (its == number && key == wanted).then_some(text)
        };
        let wall_ns: u64 = text.parse().ok()?;
        let wall_offset_ns: i64 = next("wall_offset_ns")?.parse().ok()?;
        events.push(Event::at_wall(wall_ns, wall_offset_ns, next("kind")?, next("text")?));
    }
    Some(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporter::EventKind;

    #[test]
    fn events_survive_the_way_there_and_back() {
        let event = |kind, text: &str| Event {
            monotonic_ns: 5,
            wall_offset_ns: 1_000,
            kind,
            text: text.into(),
        };
        let events = [
            event(EventKind::Mark, "a\nb"),
            event(EventKind::Trigger, ""),
            event(EventKind::Other("later".into()), "event.0.kind"),
        ];
        let mut pairs = write(&events);
        assert_eq!(pairs[0], ("event.0.time_ns".into(), "1005".into()));
        pairs.push(("something".into(), "else".into()));
        assert_eq!(read(&pairs), Some(events.to_vec()));
        assert_eq!(read(&[]), Some(Vec::new()));
        for wrong in 0..12 {
            let mut pairs = pairs.clone();
            pairs.remove(wrong);
            assert_eq!(read(&pairs), None, "without pair {wrong}");
        }
    }
}
