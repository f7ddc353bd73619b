//! The healthy clients: they always read, so nothing that happens to the
//! others may reach them.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::stream;
use crate::support::sockets::connect;

/// The most that a witness has under way, in bytes.
const LARGEST_BYTES: usize = 100_000;

/// Between two exchanges, so that the witnesses leave the machine to others.
const PAUSE: Duration = Duration::from_millis(15);

/// What one has seen.
pub(crate) struct Testimony {
    pub(crate) bytes: usize,
    pub(crate) longest_wait: Duration,
}

/// Sends and verifies on one connection until `done`.
pub(crate) fn watch(address: SocketAddr, seed: u64, done: &AtomicBool) -> Testimony {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = connect(address);
    let mut seen = Testimony {
        bytes: 0,
        longest_wait: Duration::ZERO,
    };
    let number = random.u32(..1_000_000);
    let mut back = vec![0; LARGEST_BYTES];
    while !done.load(Ordering::Relaxed) {
        let length = 1 + random.usize(..LARGEST_BYTES) / (1 << random.u32(..8));
        let piece = stream::piece(number, seen.bytes, length);
        let began = Instant::now();
        // More than the kernel holds would need a reader at the same time.
        for part in piece.chunks(30_000) {
            client.write_all(part).unwrap();
            client.read_exact(&mut back[..part.len()]).unwrap();
            assert!(&back[..part.len()] == part, "a witness got other bytes back");
        }
        seen.bytes += length;
        seen.longest_wait = seen.longest_wait.max(began.elapsed());
        thread::sleep(PAUSE);
    }
    seen
}
