//! CONFIG: what can be read and changed while the server runs.
//!
//! Owns `client-output-buffer-limit`, whose class `pubsub` is the hard limit,
//! the limit and the grace of subscribers. Refuses options that mean nothing
//! here, as Redis refuses those that it does not know.

use std::fmt;
use std::time::Duration;

use super::super::session::Clocks;
use super::super::{Broadcast, Settings, Statistics};
use crate::Actions;
use crate::protocol::glob;
use crate::protocol::resp::{Arguments, parse_integer};

/// What CONFIG GET shows of a class that means nothing here: clients that are
/// no subscribers are not read while replies wait for them.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct BufferLimits {
    hard: usize,
    soft: usize,
    seconds: u64,
}

impl BufferLimits {
    /// Redis's defaults of the classes `normal` and `replica`.
    pub(in super::super) const DEFAULTS: [Self; 2] = [
        Self {
            hard: 0,
            soft: 0,
            seconds: 0,
        },
        Self {
            hard: 256 << 20,
            soft: 64 << 20,
            seconds: 60,
        },
    ];
}

impl fmt::Display for BufferLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.hard, self.soft, self.seconds)
    }
}

impl Broadcast {
    fn options(&self) -> Vec<(&'static str, String)> {
        let settings = &self.settings;
        let yes_or_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let password = settings.password.as_deref().unwrap_or_default();
        let max_clients = settings.max_clients.map_or(0, |max_clients| max_clients);
        vec![
            (
                "client-output-buffer-limit",
                format!(
                    "normal {} slave {} pubsub {} {} {}",
                    self.other_classes[0],
                    self.other_classes[1],
                    settings.hard_limit_bytes,
                    settings.limit_bytes,
                    settings.grace.as_secs(),
                ),
            ),
            ("appendonly", "no".to_owned()),
            ("databases", "1".to_owned()),
            ("maxclients", max_clients.to_string()),
            ("proto-max-bulk-len", settings.max_message_bytes.to_string()),
            ("protected-mode", yes_or_no(settings.is_protected)),
            ("requirepass", String::from_utf8_lossy(password).into_owned()),
            // Nothing is stored here; benchmarks ask for it.
            ("save", String::new()),
        ]
    }
}

pub(super) fn get(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    let patterns: Vec<Vec<u8>> = arguments.from(2).map(<[u8]>::to_ascii_lowercase).collect();
    let mut found = this.options();
    found.retain(|(name, _)| {
        patterns
            .iter()
            .any(|pattern| glob::matches(pattern, name.as_bytes()))
    });
    this.reply(slot, |reply| {
        reply.map(found.len());
        for (name, value) in &found {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
    });
}

pub(super) fn set(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    if !arguments.len().is_multiple_of(2) {
        return this.error(slot, "ERR syntax error");
    }
    let pairs: Vec<&[u8]> = arguments.from(2).collect();
    // All or nothing, as in Redis.
    let mut changed = this.settings.clone();
    let mut classes = this.other_classes;
    for pair in pairs.chunks(2) {
        let (name, value) = (String::from_utf8_lossy(pair[0]).to_lowercase(), pair[1]);
        let outcome = match &*name {
            "client-output-buffer-limit" => parse_buffer_limits(value, &mut changed, &mut classes),
            "protected-mode" => match &*value.to_ascii_lowercase() {
                b"yes" => {
                    changed.is_protected = true;
                    Ok(())
                }
                b"no" => {
                    changed.is_protected = false;
                    Ok(())
                }
                _ => Err("argument must be 'yes' or 'no'".to_owned()),
            },
            "save" if value.is_empty() => Ok(()),
            "requirepass" => {
                changed.password = (!value.is_empty()).then(|| value.to_vec());
                Ok(())
            }
            "appendonly" | "databases" | "maxclients" | "proto-max-bulk-len" => {
                Err("can't set immutable config".to_owned())
            }
            _ => {
                let name = String::from_utf8_lossy(pair[0]);
                return this.error(
                    slot,
                    &format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'"),
                );
            }
        };
        if let Err(why) = outcome {
            let name = String::from_utf8_lossy(pair[0]);
            return this.error(
                slot,
                &format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"),
            );
        }
    }
    let has_new_limits = (changed.hard_limit_bytes, changed.limit_bytes, changed.grace)
        != (
            this.settings.hard_limit_bytes,
            this.settings.limit_bytes,
            this.settings.grace,
        );
    this.settings = changed;
    this.other_classes = classes;
    if has_new_limits {
        this.restart_clocks();
    }
    this.ok(slot);
}

/// `CLASS HARD SOFT SECONDS`, any number of times.
fn parse_buffer_limits(
    value: &[u8],
    settings: &mut Settings,
    other_classes: &mut [BufferLimits; 2],
) -> Result<(), String> {
    const WRONG_NUMBER: &str = "Wrong number of arguments in buffer limit configuration.";
    let words: Vec<&[u8]> = value
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err(WRONG_NUMBER.to_owned());
    }
    for row in words.chunks(4) {
        let class = row[0].to_ascii_lowercase();
        if ![&b"normal"[..], b"slave", b"replica", b"pubsub"].contains(&&*class) {
            return Err("Invalid client class specified in buffer limit configuration.".to_owned());
        }
        let numbers = (parse_memory(row[1]), parse_memory(row[2]), parse_integer(row[3]));
        let (Some(hard), Some(soft), Some(seconds @ 0..)) = numbers else {
            return Err(
                "Error in hard, soft or soft_seconds setting in buffer limit configuration.".to_owned(),
            );
        };
        let seconds = seconds.unsigned_abs().min(u64::from(u32::MAX));
        if class == b"pubsub" {
            settings.hard_limit_bytes = hard;
            settings.limit_bytes = soft;
            settings.grace = Duration::from_secs(seconds);
        } else {
            other_classes[usize::from(class != b"normal")] = BufferLimits { hard, soft, seconds };
        }
    }
    Ok(())
}

/// A size as Redis reads one: `1024`, `1k` (1000), `1kb` (1024), `1mb`.
fn parse_memory(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number: usize = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    let unit = match &*text[digits..].to_ascii_lowercase() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

impl Broadcast {
    /// New limits act on clients that are connected, with a fresh clock.
    fn restart_clocks(&mut self) {
        for (_, session) in &mut self.sessions {
            let clocks = &mut session.outgoing.clocks;
            *clocks = Clocks {
                over_limit_since: None,
                tried_again: false,
                ..*clocks
            };
        }
        self.patrol.look_at_all();
    }
}

pub(super) fn reset_statistics(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    let subscriptions = this.statistics.subscriptions;
    this.statistics = Statistics {
        subscriptions,
        ..Statistics::default()
    };
    this.ok(slot);
}

/// FLUSHALL and FUNCTION FLUSH: there are no keys and no functions to remove.
pub(super) fn flush(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    this.ok(slot);
}

#[cfg(test)]
mod tests {
    use super::parse_memory;

    #[test]
    fn sizes_are_read_as_redis_reads_them() {
        assert_eq!(parse_memory(b"32mb"), Some(32 << 20));
        assert_eq!(parse_memory(b"1k"), Some(1000));
        assert_eq!(parse_memory(b"0"), Some(0));
        assert_eq!(parse_memory(b""), None);
        assert_eq!(parse_memory(b"-1"), None);
        assert_eq!(parse_memory(b"5 mb"), None);
    }
}
