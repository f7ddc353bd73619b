//! The link: takes packets from one TUN device and gives them to the other,
//! slowly, late, and not all of them.
//!
//! Owns both devices and one thread. Each direction has a rate, a delay, a
//! bounded queue in front of the rate, and a share of packets that get lost.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The longest wait for a packet, so that a link that is dropped ends soon.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// Losses repeat from run to run as far as the kernel's timing does.
const SEED: u64 = 7;

/// What one direction is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    pub(crate) bytes_per_s: u32,
    pub(crate) delay: Duration,
    /// The share of packets that get lost.
    pub(crate) loss: f64,
    /// What may wait for its turn; more is thrown away.
    pub(crate) queue_bytes: usize,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    cut: AtomicBool,
    carried: AtomicUsize,
    lost: AtomicUsize,
    overflowed: AtomicUsize,
}

/// A link that works until it is dropped.
pub(crate) struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Begins to carry packets between the two devices.
    pub(crate) fn start(server: File, client: File, down: Quality, up: Quality) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || carry(&server, &client, down, up, &of_thread));
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// From here on every packet is lost, also those that are under way.
    pub(crate) fn cut(&self) {
        self.shared.cut.store(true, Ordering::Relaxed);
    }

    /// The end of that.
    pub(crate) fn mend(&self) {
        self.shared.cut.store(false, Ordering::Relaxed);
    }

    /// Packets lost at random.
    pub(crate) fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} packets carried, {} lost, {} overflowed",
            self.shared.carried.load(Ordering::Relaxed),
            self.lost(),
            self.shared.overflowed.load(Ordering::Relaxed)
        )
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Direction<'a> {
    from: &'a File,
    to: &'a File,
    quality: Quality,
    /// When the last packet that waits will have left the bottleneck.
    busy_until: Instant,
    /// Packets and the instants at which they arrive.
    under_way: VecDeque<(Instant, Vec<u8>)>,
}

impl<'a> Direction<'a> {
    fn new(from: &'a File, to: &'a File, quality: Quality) -> Self {
        Self {
            from,
            to,
            quality,
            busy_until: Instant::now(),
            under_way: VecDeque::new(),
        }
    }

    fn take_in(&mut self, shared: &Shared, random: &mut Rng, now: Instant) {
        let mut buffer = [0; 2048];
        let rate = f64::from(self.quality.bytes_per_s);
        while let Ok(length) = (&mut &*self.from).read(&mut buffer) {
            if shared.cut.load(Ordering::Relaxed) {
                continue;
            }
            if random.f64() < self.quality.loss {
                shared.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let waiting = self.busy_until.saturating_duration_since(now).as_secs_f64() * rate;
            if waiting as usize + length > self.quality.queue_bytes {
                shared.overflowed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.busy_until = self.busy_until.max(now) + Duration::from_secs_f64(length as f64 / rate);
            let arrival = self.busy_until + self.quality.delay;
            self.under_way.push_back((arrival, buffer[..length].to_vec()));
        }
    }

    fn deliver(&mut self, shared: &Shared, now: Instant) {
        while self.under_way.front().is_some_and(|(arrival, _)| *arrival <= now) {
            if let Some((_, packet)) = self.under_way.pop_front()
                && !shared.cut.load(Ordering::Relaxed)
                && (&mut &*self.to).write(&packet).is_ok()
            {
                shared.carried.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        self.under_way.front().map(|(arrival, _)| *arrival)
    }
}

fn carry(server: &File, client: &File, down: Quality, up: Quality, shared: &Shared) {
    let mut random = Rng::with_seed(SEED);
    let mut directions = [
        Direction::new(server, client, down),
        Direction::new(client, server, up),
    ];
    while !shared.ended.load(Ordering::Relaxed) {
        let now = Instant::now();
        let next = directions.iter().filter_map(Direction::next).min();
        let wait = next.map_or(LONGEST_WAIT, |at| {
            at.saturating_duration_since(now).min(LONGEST_WAIT)
        });
        let mut devices = [
            PollFd::new(server, PollFlags::IN),
            PollFd::new(client, PollFlags::IN),
        ];
        let _ = poll(&mut devices, Timespec::try_from(wait).ok().as_ref());
        let now = Instant::now();
        for direction in &mut directions {
            direction.take_in(shared, &mut random, now);
            direction.deliver(shared, now);
        }
    }
}

/// Opens the TUN device `name` of this thread's network namespace, making it.
/// Reads never block, and bring one bare IP packet each
/// (Documentation/networking/tuntap.rst of the kernel).
#[expect(unsafe_code, reason = "no safe call attaches a TUN device")]
pub(crate) fn open_tun(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: `ifreq` is plain old data for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, &from) in request.ifr_name.iter_mut().zip(name.as_bytes()).take(15) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and the request outlives the call.
    let outcome = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}
