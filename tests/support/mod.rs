//! What the tests share: the real server as a process, sockets to drive it
//! with, and what the kernel says of both.
//!
//! Owns the waiting: every wait here ends, at the latest with a panic that
//! says what was waited for. Refuses fixed ports and files: the server takes
//! a free port and logs to a file that vanishes with it.
#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails its test; the lint's exemption does not reach helpers"
)]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

pub(crate) mod kernel;
pub(crate) mod server;
pub(crate) mod sockets;
pub(crate) mod tunnel;

use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long anything may take that ought to happen at once. Generous, for a
/// machine that does other things too; a test that passes never waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until `condition` holds, and panics with `what` if it does not come
/// to hold within [`PATIENCE`].
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, condition), "waited in vain until {what}");
}

/// Whether `condition` comes to hold within `time`.
pub(crate) fn holds_within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let give_up = Instant::now() + time;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= give_up {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until the other side has read all that `sender` sent. What a server
/// has not read yet when it is told to stop is a matter of luck.
pub(crate) fn wait_until_all_is_read(sender: &TcpStream) {
    let (ours, theirs) = (sender.local_addr().unwrap(), sender.peer_addr().unwrap());
    wait_until("everything is read", || {
        let sent = kernel::connection(ours, theirs);
        let received = kernel::connection(theirs, ours);
        sent.is_some_and(|end| end.send_queue_bytes == 0)
            && received.is_some_and(|end| end.receive_queue_bytes == 0)
    });
}

/// Bytes that tell where in a stream they stand: no two pieces of a test's
/// stream look alike, so loss, doubling and disorder all show.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    pattern_at(0, length)
}

/// The same stream from `offset` on.
pub(crate) fn pattern_at(offset: usize, length: usize) -> Vec<u8> {
    let period = PERIOD.get_or_init(|| {
        let mut random = fastrand::Rng::with_seed(42);
        (0..PERIOD_BYTES).map(|_| random.u8(..)).collect()
    });
    let mut piece = Vec::with_capacity(length);
    while piece.len() < length {
        let rest = &period[(offset + piece.len()) % PERIOD_BYTES..];
        piece.extend_from_slice(&rest[..rest.len().min(length - piece.len())]);
    }
    piece
}

/// A prime, so that no buffer's length divides it.
const PERIOD_BYTES: usize = 1_048_573;

static PERIOD: OnceLock<Vec<u8>> = OnceLock::new();
