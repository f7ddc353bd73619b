//! Lines that a client can cause at will: at most so many of one kind a
//! second; the others are counted, and their sum is written.
//!
//! Owns the counts of each kind; the kind of a line is its place in the
//! source. Debug and trace lines are not limited: who asks for them wants all.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::kv::Value;
use log::{Level, Log, Metadata, Record};

use highwater::limits::LOG_REPEAT_INTERVAL;

/// Time over which lines of one kind are counted.
const SECOND: Duration = Duration::from_secs(1);

/// Longest part of the last line that a sum repeats.
const LONGEST_EXAMPLE_CHARS: usize = 160;

/// A place in the source: module and line.
type Place = (Option<&'static str>, Option<u32>);

/// How often one kind of line was written, and what was not.
#[derive(Debug, Default)]
struct Kind {
    /// When the lines of the last second were written, from the oldest on.
    written: VecDeque<Duration>,
    unwritten: Option<Unwritten>,
}

/// Lines of one kind that were not written.
#[derive(Debug)]
struct Unwritten {
    lines: u64,
    since: Duration,
    level: Level,
    module: Option<&'static str>,
    last: String,
}

/// The limit of every kind. Knows no clock: `now` is the time since the start.
#[derive(Debug, Default)]
struct Repeats {
    lines_per_second: usize,
    kinds: HashMap<Place, Kind>,
}

impl Repeats {
    /// Whether a line of this kind is written now. If not, count it with
    /// [`count`](Self::count).
    fn admit(&mut self, place: Place, now: Duration) -> bool {
        let kind = self.kinds.entry(place).or_default();
        while kind
            .written
            .front()
            .is_some_and(|&written| written + SECOND <= now)
        {
            kind.written.pop_front();
        }
        if kind.written.len() >= self.lines_per_second {
            return false;
        }
        kind.written.push_back(now);
        true
    }

    /// Counts a line that is not written.
    fn count(&mut self, place: Place, record: &Record<'_>, now: Duration) {
        let kind = self.kinds.entry(place).or_default();
        let unwritten = kind.unwritten.get_or_insert_with(|| Unwritten {
            lines: 0,
            since: now,
            level: record.level(),
            module: record.module_path_static(),
            last: String::new(),
        });
        unwritten.lines += 1;
        unwritten.last.clear();
        let _ = write!(unwritten.last, "{}", record.args());
    }

    /// Takes what has waited since `before` or longer.
    fn take(&mut self, before: Duration) -> Vec<Unwritten> {
        let is_due = |unwritten: &mut Unwritten| unwritten.since <= before;
        let kinds = self.kinds.values_mut();
        let mut sums: Vec<_> = kinds.filter_map(|kind| kind.unwritten.take_if(is_due)).collect();
        sums.sort_by_key(|sum| sum.since);
        sums
    }

    /// Since when the oldest line has waited for its sum.
    fn oldest(&self) -> Option<Duration> {
        let unwritten = self.kinds.values().filter_map(|kind| kind.unwritten.as_ref());
        unwritten.map(|unwritten| unwritten.since).min()
    }
}

impl Unwritten {
    /// The line that sums up.
    fn sentence(&self, now: Duration) -> String {
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        let example: String = self.last.chars().take(LONGEST_EXAMPLE_CHARS).collect();
        format!("{} more lines like this in {seconds:.1} s: {example}", self.lines)
    }
}

/// A logger with the limit in front.
pub(super) struct LimitedLogger {
    inner: Box<dyn Log>,
    started: Instant,
    repeats: Mutex<Repeats>,
    counted: Condvar,
}

impl LimitedLogger {
    /// Starts the thread that writes the sums. The logger lives as long as the
    /// program, as the `log` crate asks.
    #[expect(clippy::disallowed_methods, reason = "a log has a clock of its own")]
    pub(super) fn start(inner: Box<dyn Log>, lines_per_second: usize) -> io::Result<&'static Self> {
        let limited: &'static Self = Box::leak(Box::new(Self {
            inner,
            started: Instant::now(),
            repeats: Mutex::new(Repeats {
                lines_per_second,
                kinds: HashMap::new(),
            }),
            counted: Condvar::new(),
        }));
        if lines_per_second > 0 {
            let builder = thread::Builder::new().name("log sums".into());
            builder.spawn(|| limited.sum_up_in_time())?;
        }
        Ok(limited)
    }

    /// Writes the sums of all lines that were not written so far.
    pub(super) fn sum_up(&self) {
        let sums = self.repeats().take(Duration::MAX);
        self.write(&sums);
    }

    /// Writes every sum at most [`LOG_REPEAT_INTERVAL`] after its first line.
    fn sum_up_in_time(&self) {
        let mut repeats = self.repeats();
        loop {
            let wait = match repeats.oldest() {
                None => {
                    let woken = self.counted.wait(repeats);
                    repeats = woken.unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Some(since) => (since + LOG_REPEAT_INTERVAL).saturating_sub(self.now()),
            };
            drop(repeats);
            thread::sleep(wait);
            let sums = self
                .repeats()
                .take(self.now().saturating_sub(LOG_REPEAT_INTERVAL));
            self.write(&sums);
            repeats = self.repeats();
        }
    }

    fn write(&self, sums: &[Unwritten]) {
        for sum in sums {
            let sentence = sum.sentence(self.now());
            let module = sum.module.unwrap_or("highwater");
            self.inner.log(
                &Record::builder()
                    .level(sum.level)
                    .target(module)
                    .module_path(Some(module))
                    .args(format_args!("{sentence}"))
                    .key_values(&[("event", "repeat".into()), ("lines", Value::from(sum.lines))])
                    .build(),
            );
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this line is written; if not, it is counted.
    fn admit(&self, record: &Record<'_>) -> bool {
        let mut repeats = self.repeats();
        if record.level() > Level::Info || repeats.lines_per_second == 0 {
            return true;
        }
        let place = (record.module_path_static(), record.line());
        let now = self.now();
        if repeats.admit(place, now) {
            return true;
        }
        repeats.count(place, record, now);
        self.counted.notify_one();
        false
    }
}

impl Log for LimitedLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.admit(record) {
            self.inner.log(record);
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = (Some("highwater::engine"), Some(1));
    const OTHER: Place = (Some("highwater::engine"), Some(2));

    fn repeats() -> Repeats {
        Repeats {
            lines_per_second: 10,
            kinds: HashMap::new(),
        }
    }

    fn count(repeats: &mut Repeats, text: &str, now: Duration) {
        let mut record = Record::builder();
        let record = record
            .level(Level::Warn)
            .module_path_static(Some("highwater::engine"));
        repeats.count(PLACE, &record.args(format_args!("{text}")).build(), now);
    }

    #[test]
    fn no_second_has_more_than_ten_lines_of_one_kind_wherever_it_begins() {
        let mut repeats = repeats();
        let step = Duration::from_millis(7);
        let written: Vec<_> = (0..1000)
            .map(|number| step * number)
            .filter(|&now| repeats.admit(PLACE, now))
            .collect();
        assert!(
            written.len() >= 60,
            "{}: ten in each of seven seconds",
            written.len()
        );
        for lines in written.windows(11) {
            assert!(lines[10] - lines[0] >= SECOND, "{lines:?}");
        }
    }

    #[test]
    fn another_kind_has_a_limit_of_its_own() {
        let mut repeats = repeats();
        let admitted =
            |repeats: &mut Repeats, place| (0..50).filter(|_| repeats.admit(place, SECOND)).count();
        assert_eq!(admitted(&mut repeats, PLACE), 10);
        assert_eq!(admitted(&mut repeats, OTHER), 10);
    }

    #[test]
    fn the_others_are_summed_up_once_with_their_number_and_the_last_of_them() {
        let mut repeats = repeats();
        for number in 0..7 {
            count(
                &mut repeats,
                &format!("client {number} disconnecting"),
                SECOND * number,
            );
        }
        assert_eq!(repeats.oldest(), Some(Duration::ZERO));
        let sums = repeats.take(Duration::ZERO);
        assert_eq!(sums.len(), 1);
        let sentence = sums[0].sentence(Duration::from_secs(10));
        assert_eq!(
            sentence,
            "7 more lines like this in 10.0 s: client 6 disconnecting"
        );
        assert_eq!(repeats.oldest(), None);
        assert!(repeats.take(Duration::MAX).is_empty(), "once");
    }

    #[test]
    fn a_sum_is_not_taken_before_its_time_except_at_the_end() {
        let mut repeats = repeats();
        count(&mut repeats, "late", Duration::from_secs(5));
        assert!(repeats.take(Duration::from_secs(4)).is_empty());
        assert_eq!(repeats.take(Duration::MAX).len(), 1);
    }
}
