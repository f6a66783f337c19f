//! Events as a text of JSON in the footer, as Rezolus' viewer reads them:
//! `{"events": [{"timestamp": 1778598000000000000, "description": "…", "kind": "mark",
//! "labels": {"wall_offset_ns": "…"}}]}`.
//!
//! Invariant: an event that was written is read back equal.

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::exporter::Event;

/// The key of the events.
pub(super) const KEY: &str = "events";
/// The text of no events; they stand at the comma.
const FRAME: &str = r#"{"events":[,]}"#;

/// The most bytes of that text.
pub(super) const BYTES_MAX: usize = 16 << 20;

/// Events that wait for the footer, as text.
#[derive(Debug, Default)]
pub(super) struct Events {
    text: String,
}

impl Events {
    /// Adds an event.
    ///
    /// # Errors
    /// `TooLarge` if its text is too long, or if there are too many events.
    pub(super) fn push(&mut self, event: &Event) -> Result<()> {
        event.check()?;
        let object = json!({
            "timestamp": event.wall_ns(),
            "description": event.text,
            "kind": event.kind.name(),
            "labels": { "wall_offset_ns": event.wall_offset_ns.to_string() },
        });
        let (object, before) = (object.to_string(), self.text.len());
        let bytes = before + object.len() + FRAME.len();
        Error::check("the number of bytes of all events of a Parquet file", bytes, BYTES_MAX)?;
        self.text.push_str(if before > 0 { "," } else { "" });
        self.text.push_str(&object);
        Ok(())
    }

    /// Returns the text for the footer.
    pub(super) fn text(&self) -> String {
        FRAME.replacen(',', &self.text, 1)
    }
}

/// Returns the events of a text; `None` if it is not as [`Events::text`] makes it.
pub(super) fn read(text: &str) -> Option<Vec<Event>> {
    if text.len() > BYTES_MAX {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let events = value.get("events")?.as_array()?.iter().map(|event| {
        let wall_ns = event.get("timestamp")?.as_u64()?;
        let offset = event.get("labels")?.get("wall_offset_ns")?.as_str()?;
        let wall_offset_ns = offset.parse().ok()?;
        let (kind, text) = (event.get("kind")?.as_str()?, event.get("description")?.as_str()?);
        Some(Event::at_wall(wall_ns, wall_offset_ns, kind, text))
    });
    events.collect()
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
            event(EventKind::Mark, "a\n\"b\u{0}\u{1f600}"),
            event(EventKind::Trigger, ""),
            event(EventKind::Other("later".into()), "]}"),
        ];
        let text_of = |events: &[Event]| {
            let mut waiting = Events::default();
            events.iter().for_each(|event| waiting.push(event).expect("the texts are short"));
            waiting.text()
        };
        let text = text_of(&events);
        assert!(text.starts_with(r#"{"events":[{"description":"a\n\"b"#), "{text}");
        assert_eq!(read(&text), Some(events.to_vec()));
        assert_eq!(read(&text_of(&[])), Some(Vec::new()));
        for wrong in ["", "[]", "{}", "{\"events\":[{}]}", "{\"events\":[1]}", "{\"events\":{}}"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn there_are_only_so_many_events() {
        let text = "\u{0}".repeat(10_000);
        let kind = EventKind::Mark;
        let event = Event { monotonic_ns: 0, wall_offset_ns: 0, kind, text };
        let mut waiting = Events::default();
        let pushed = (0..1000).take_while(|_| waiting.push(&event).is_ok()).count();
        assert_eq!(read(&waiting.text()).map(|events| events.len()), Some(pushed));
        assert!(pushed > 200 && pushed < 300, "{pushed}");
    }
}
