//! One ordeal from beginning to end: warm up, measure, torture, measure again.

use std::env;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use highwater::raise_descriptor_limit;
use rustix::process::{Resource, Rlimit, prlimit};

use crate::books;
use crate::crowd::Crowd;
use crate::faults::{Faults, address_space_bytes};
use crate::member::{DRAIN_TIMEOUT_GRACES, End, Record, Role};
use crate::support::kernel::half_dead;
use crate::support::server::Server;
use crate::support::{holds_within, wait_until};
use crate::witness::{self, Testimony};

/// Threads that drive the crowd.
const CROWD_THREADS: usize = 2;

/// Healthy clients beside the crowd.
const WITNESSES: usize = 4;

/// Descriptors that the server may have open when it is not starved.
const DESCRIPTORS: usize = 20_000;

/// Address space left to the server beyond what it has when it begins:
/// generous for its queues, of which no more than a tenth of the crowd has one.
const SPARE_ADDRESS_SPACE_BYTES: u64 = 1 << 30;

/// What a warm server may have more than at the start, beyond the tenth: the
/// allocator's rounding, and lines kept for the log reader that is asleep.
const RESIDENT_ALLOWANCE_BYTES: usize = 1 << 20;

/// How long memory may take to be given back (twice a second, at most) and
/// the last sockets to close.
const SETTLE: Duration = Duration::from_secs(5);

/// The size of an ordeal.
pub(crate) struct Ordeal {
    clients: usize,
    grace: Duration,
    warm_up: Duration,
    /// Quiet time between two faults.
    between: Duration,
    stop: Duration,
    starve: Duration,
    starvations: usize,
    rounds: usize,
    seed: u64,
}

fn from_environment<T: std::str::FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

fn seed() -> u64 {
    from_environment("TORTURE_SEED", fastrand::u64(..1_000_000_000))
}

impl Ordeal {
    /// A few seconds.
    pub(crate) fn short() -> Self {
        Self {
            clients: 200,
            grace: Duration::from_millis(1200),
            warm_up: Duration::from_secs(1),
            between: Duration::from_millis(500),
            stop: Duration::from_secs(2),
            starve: Duration::from_millis(300),
            starvations: 2,
            rounds: 1,
            seed: seed(),
        }
    }

    /// Minutes: `TORTURE_CLIENTS` at a time, and every fault `TORTURE_ROUNDS`
    /// times.
    pub(crate) fn long() -> Self {
        Self {
            clients: from_environment("TORTURE_CLIENTS", 10_000),
            grace: Duration::from_secs(5),
            warm_up: Duration::from_secs(15),
            between: Duration::from_secs(3),
            stop: Duration::from_secs(10),
            starve: Duration::from_secs(1),
            starvations: 4,
            rounds: from_environment("TORTURE_ROUNDS", 3),
            seed: seed(),
        }
    }

    /// Runs it, and panics with what went wrong.
    pub(crate) fn run(&self) {
        println!(
            "seed {}: TORTURE_SEED={} repeats the choices",
            self.seed, self.seed
        );
        raise_descriptor_limit().unwrap();
        // The reader of standard error sleeps to the end.
        let (asleep, stderr) = std::io::pipe().unwrap();
        let grace = format!("{}ms", self.grace.as_millis());
        let drain_timeout = format!("{}ms", (DRAIN_TIMEOUT_GRACES * self.grace).as_millis());
        let server = Server::echo_writing_to(
            &[
                "--grace",
                &grace,
                "--drain-timeout",
                &drain_timeout,
                "--log-level",
                "debug",
            ],
            Stdio::null(),
            Stdio::from(stderr),
        );
        limit_address_space(&server);
        let idle = server.descriptors();
        let next_number = AtomicU32::new(1);
        let crowd = |main: &(dyn Fn(&Faults) + Sync)| self.with_crowd(&server, &next_number, main);

        let (mut records, _) = crowd(&|_| thread::sleep(self.warm_up));
        wait_until("all have gone", || server.descriptors() == idle);
        thread::sleep(Duration::from_secs(1));
        let before = server.resident_bytes();

        let began = Instant::now();
        let (more, testimonies) = crowd(&|faults| self.torture(&server, faults));
        records.extend(more);
        let time = began.elapsed();
        wait_until("all have gone", || server.descriptors() == idle);
        let bound = before + before / 10 + RESIDENT_ALLOWANCE_BYTES;
        let settled = holds_within(SETTLE, || server.resident_bytes() <= bound);
        let after = server.resident_bytes();
        wait_until("no orphan is left", || half_dead(server.port()) == 0);

        let evicted = books::balance(&server.log(), &records, self.grace);
        self.report(&records, &testimonies, evicted, time);
        println!(
            "resident {:.2} MiB before, {:.2} after; {idle} descriptors; {:?} of processor time",
            before as f64 / 1_048_576.0,
            after as f64 / 1_048_576.0,
            server.cpu_time()
        );
        assert!(settled, "{before} bytes resident before, {after} after");
        assert!(!server.lines_with("cannot accept").is_empty(), "never starved");
        assert!(!server.lines_with("did not run for").is_empty(), "never stopped");
        let reading = thread::spawn(move || std::io::read_to_string(asleep).unwrap());
        server.stop();
        let (seen, lost) = books::lines_seen_and_lost(&reading.join().unwrap());
        let written = server.lines_with("").len();
        println!(
            "log: {written} lines in the file; the reader that slept saw {seen}, {lost} are counted as lost"
        );
        assert_eq!(seen + lost, written, "every line is seen or counted");
    }

    /// Does `main` while the crowd and the witnesses are at it.
    fn with_crowd(
        &self,
        server: &Server,
        next_number: &AtomicU32,
        main: &(dyn Fn(&Faults) + Sync),
    ) -> (Vec<Record>, Vec<Testimony>) {
        let (closing, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let faults = Faults::default();
        let crowd = Crowd {
            server: server.address(),
            grace: self.grace,
            faults: &faults,
            next_number,
            closing: &closing,
        };
        let address: SocketAddr = server.address();
        thread::scope(|scope| {
            let witnesses: Vec<_> = (0..WITNESSES as u64)
                .map(|number| {
                    let done = &done;
                    scope.spawn(move || witness::watch(address, self.seed + number, done))
                })
                .collect();
            let threads: Vec<_> = (0..CROWD_THREADS as u64)
                .map(|number| {
                    let crowd = &crowd;
                    scope.spawn(move || crowd.run(self.clients / CROWD_THREADS, self.seed ^ (number + 1)))
                })
                .collect();
            main(&faults);
            closing.store(true, Ordering::Relaxed);
            let records: Vec<Vec<Record>> = threads
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|panic| {
                        done.store(true, Ordering::Relaxed);
                        show_what_the_log_says(server, panic.downcast_ref::<String>());
                        std::panic::resume_unwind(panic)
                    })
                })
                .collect();
            done.store(true, Ordering::Relaxed);
            let seen = witnesses.into_iter().map(|witness| witness.join().unwrap());
            (records.concat(), seen.collect())
        })
    }

    fn torture(&self, server: &Server, faults: &Faults) {
        for _ in 0..self.rounds {
            thread::sleep(self.between);
            faults.stop(server, self.stop);
            for _ in 0..self.starvations {
                thread::sleep(self.between);
                faults.starve(server, self.starve, DESCRIPTORS);
            }
            // Those that stall from here on are thrown out in peace.
            thread::sleep(self.between);
        }
    }

    fn report(&self, records: &[Record], testimonies: &[Testimony], evicted: usize, time: Duration) {
        let of = |role: fn(&Role) -> bool| records.iter().filter(|record| role(&record.role)).count();
        let complete = records
            .iter()
            .filter(|record| record.end == End::Complete)
            .count();
        let back: usize = records.iter().map(|record| record.bytes_back).sum();
        let verified: usize = testimonies.iter().map(|seen| seen.bytes).sum();
        let longest = testimonies.iter().map(|seen| seen.longest_wait).max().unwrap();
        println!(
            "{} clients, {} at a time: {complete} complete, {} stalled, {} napped, {evicted} disconnected, {:.1} MB verified",
            records.len(),
            self.clients,
            of(|role| role.is_owed_a_disconnect()),
            of(|role| matches!(role, Role::Nap(_))),
            back as f64 / 1e6,
        );
        println!(
            "{WITNESSES} witnesses in {time:.1?}: {:.1} MB verified, longest wait {longest:.3?} (the server slept for {:?})",
            verified as f64 / 1e6,
            self.stop
        );
    }
}

/// What a member complains of begins with its address.
fn show_what_the_log_says(server: &Server, complaint: Option<&String>) {
    let name = complaint.and_then(|text| text.split(' ').next()).unwrap_or("?");
    println!("of {name} the log says: {:#?}", server.lines_with(name));
}

fn limit_address_space(server: &Server) {
    let limit = Rlimit {
        current: Some(address_space_bytes(server.pid()) + SPARE_ADDRESS_SPACE_BYTES),
        maximum: None,
    };
    prlimit(Some(server.pid()), Resource::As, limit).unwrap();
}
