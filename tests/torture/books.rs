//! The books: what the log says against what the clients have lived.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::member::{DRAIN_TIMEOUT_GRACES, End, Record};

/// A visit comes a little after the instant that it stands for.
const CLOCKS: Duration = Duration::from_millis(250);

/// Whom the log says it disconnected, and its line.
fn evictions(log: &str) -> HashMap<SocketAddr, &str> {
    let mut found = HashMap::new();
    for line in log.lines().filter(|line| line.contains("disconnecting")) {
        let (_, address) = line.rsplit_once('(').unwrap();
        let address = address.trim_end_matches(')').parse().unwrap();
        assert!(
            found.insert(address, line).is_none(),
            "disconnected twice: {line}"
        );
    }
    found
}

/// Every disconnect was owed, and every one that was owed came. Answers how
/// many there were.
pub(crate) fn balance(log: &str, records: &[Record], grace: Duration) -> usize {
    assert!(!log.contains("log lines lost"), "the books are not complete");
    let evictions = evictions(log);
    let known: HashMap<_, _> = records.iter().map(|record| (record.address, record)).collect();
    assert_eq!(known.len(), records.len(), "every client has its own address");
    for (address, line) in &evictions {
        let record = known
            .get(address)
            .unwrap_or_else(|| panic!("disconnected, but not of the crowd: {line}"));
        let mut least = grace;
        if line.contains("not drained") {
            least = DRAIN_TIMEOUT_GRACES * grace;
            assert!(line.contains(&format!("not empty for {least:?},")), "{line}");
        }
        assert!(
            record.longest_stall + CLOCKS >= least,
            "stalled for {:?} at most, but disconnected: {line}\n{record:?}",
            record.longest_stall
        );
    }
    for record in records {
        let evicted = evictions.get(&record.address);
        if record.role.is_owed_a_disconnect() || record.end == End::Reset {
            assert!(
                evicted.is_some() && record.end == End::Reset,
                "reset without a line, or not at all: {record:?} {evicted:?}"
            );
        }
    }
    evictions.len()
}

/// The lines that a reader of the log saw, and those that it was told it lost.
pub(crate) fn lines_seen_and_lost(text: &str) -> (usize, usize) {
    let (reports, seen): (Vec<_>, Vec<_>) = text
        .lines()
        .partition(|line| line.contains(" log lines lost here"));
    let lost = reports.iter().map(|line| {
        let (front, _) = line.split_once(" log lines lost").unwrap();
        let count = front.rsplit(' ').next().unwrap();
        count.parse::<usize>().unwrap()
    });
    (seen.len(), lost.sum())
}
