//! The crowd: so many clients at a time, each visited now and then by one
//! thread, and replaced when it has gone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::faults::Faults;
use crate::member::{Member, Record};

/// Visits a second by one thread: enough to keep the crowd lively, few enough
/// to leave the machine to others.
const VISITS_PER_S: usize = 8_000;

/// Visits to one client are at least so far apart on average.
const SHORTEST_PAUSE: Duration = Duration::from_millis(40);

/// First arrivals a second, of one thread: a backlog that overflows would
/// keep some waiting for tens of seconds, as the kernel retries ever later.
const ARRIVALS_PER_S: usize = 1_000;

/// What all threads of a crowd share.
pub(crate) struct Crowd<'a> {
    pub(crate) server: SocketAddr,
    pub(crate) grace: Duration,
    pub(crate) faults: &'a Faults,
    /// Clients are numbered through, over all threads.
    pub(crate) next_number: &'a AtomicU32,
    /// No client is replaced from here on.
    pub(crate) closing: &'a AtomicBool,
}

impl Crowd<'_> {
    /// Keeps `size` clients busy until the crowd closes and the last of them
    /// has gone; answers what became of each.
    pub(crate) fn run(&self, size: usize, seed: u64) -> Vec<Record> {
        let mut random = Rng::with_seed(seed);
        let pause = SHORTEST_PAUSE.max(Duration::from_secs(1) * size as u32 / VISITS_PER_S as u32);
        let mut seats: Vec<Option<Member>> = (0..size).map(|_| None).collect();
        let mut records = Vec::new();
        let now = Instant::now();
        let arrive = Duration::from_secs(1) * size as u32 / ARRIVALS_PER_S as u32;
        let mut visits: BinaryHeap<_> = (0..size)
            .map(|seat| Reverse((now + arrive.mul_f64(random.f64()), seat)))
            .collect();
        while let Some(Reverse((due, seat))) = visits.pop() {
            let now = Instant::now();
            if due > now {
                thread::sleep(due - now);
            }
            let now = Instant::now();
            match &mut seats[seat] {
                Some(member) => {
                    if let Some(record) = member.visit(self.faults, &mut random, now) {
                        records.push(record);
                        seats[seat] = None;
                    }
                }
                None if self.closing.load(Ordering::Relaxed) => continue,
                empty => {
                    let number = self.next_number.fetch_add(1, Ordering::Relaxed);
                    let member = Member::connect(number, self.server, self.grace, &mut random, now);
                    *empty = Some(member);
                }
            }
            visits.push(Reverse((now + 2 * pause.mul_f64(random.f64()), seat)));
        }
        records
    }
}
