//! The log in JSON: one object a line.
//!
//! Owns the names and the order of the fields. Refuses to add facts of its own:
//! a line has those that the place which logs it gives.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::Value as Json;
use simplelog::{Config, SharedLogger};
use time::OffsetDateTime;

use super::TIME;

/// The event of a line that names none.
const OTHER: &str = "note";

/// Writes each line as an object, the same to each sink.
pub(super) struct JsonLogger {
    sinks: Mutex<Vec<Box<dyn Write + Send>>>,
}

impl JsonLogger {
    pub(super) fn new(sinks: Vec<Box<dyn Write + Send>>) -> Box<Self> {
        Box::new(Self {
            sinks: Mutex::new(sinks),
        })
    }
}

impl Log for JsonLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("highwater")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut facts = Facts::default();
        let _ = record.key_values().visit(&mut facts);
        let event = facts.event.as_deref().unwrap_or(OTHER);
        let message = record.args().to_string();
        let line = line(record.level(), &message, event, &facts.text);
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        for sink in sinks.iter_mut() {
            let _ = sink.write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

impl SharedLogger for JsonLogger {
    fn level(&self) -> LevelFilter {
        LevelFilter::Trace
    }

    fn config(&self) -> Option<&Config> {
        None
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}

/// One line. `facts` are further fields, each behind a comma.
pub(super) fn line(level: Level, message: &str, event: &str, facts: &str) -> String {
    let time = OffsetDateTime::now_utc().format(TIME).unwrap_or_default();
    format!(
        "{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":{},\"event\":{}{facts}}}\n",
        Json::from(message),
        Json::from(event),
    )
}

/// What a line says beside its text, as fields of an object.
#[derive(Default)]
struct Facts {
    event: Option<String>,
    text: String,
}

impl<'kvs> VisitSource<'kvs> for Facts {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        if key.as_str() == "event" {
            self.event = Some(value.to_string());
        } else if let Some(value) = json(&value) {
            let _ = write!(self.text, ",{}:{value}", Json::from(key.as_str()));
        }
        Ok(())
    }
}

/// A value as JSON; `None` for one that is not there.
fn json(value: &Value<'_>) -> Option<Json> {
    if let Some(number) = value.to_u64() {
        Some(number.into())
    } else if let Some(number) = value.to_i64() {
        Some(number.into())
    } else if let Some(number) = value.to_f64() {
        // Milliseconds, as the text has them.
        Some(((number * 1000.0).round() / 1000.0).into())
    } else if let Some(is_so) = value.to_bool() {
        Some(is_so.into())
    } else {
        let text = value.to_string();
        (text != "None").then(|| text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::kv::Source;

    fn facts(pairs: &[(&str, Value<'_>)]) -> Facts {
        let mut facts = Facts::default();
        pairs.visit(&mut facts).unwrap();
        facts
    }

    #[test]
    fn a_line_is_an_object_whatever_its_text_holds() {
        let facts = facts(&[
            ("event", "disconnect".into()),
            ("slow_seconds", 5.000_4.into()),
            ("queued_bytes", 65_536_u64.into()),
            ("upstream", Value::from_debug(&None::<i32>)),
        ]);
        let line = line(
            Level::Warn,
            "a \"quote\"\nand a line",
            facts.event.as_deref().unwrap(),
            &facts.text,
        );
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
        let object: Json = serde_json::from_str(&line).unwrap();
        assert_eq!(object["message"], "a \"quote\"\nand a line");
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["event"], "disconnect");
        assert_eq!(object["slow_seconds"], 5.0);
        assert_eq!(object["queued_bytes"], 65_536);
        assert!(object.get("upstream").is_none(), "{line}");
        let time = object["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    }
}
