//! The quiet stalled client: it never reads, yet the server has read all that it sent.
//!
//! A socket that is closed with unread input resets by itself (tcp(7), RFC 2525
//! section 2.17), so a server that forgets to reset looks right after any
//! flood. This client sends only as much as the server passes on, step by step,
//! and so finds out what a plain close leaves in the kernel. That takes a look
//! at the server's own socket, so it works only on the server's machine; a
//! thread of its own does it, as it looks some hundred times a second.
//!
//! A server with a limit holds less than that limit for such a client and need
//! not disconnect it: it counts only for what is left in the kernel.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::kernel::tcp_info;
use crate::kernel::threads;
use crate::probe::clients::opening::Opening;
use crate::probe::driver::clock;
use crate::probe::driver::socket::{self, Buffers};
use crate::probe::kind::Disconnect;
use crate::probe::kind::SlowKind;
use crate::probe::protocol::Wire;
use crate::probe::report::measurement::SlowClientSeen;
use crate::probe::server::{LastLook, ServerSocket, SocketTables};

/// Length of the steps while far from full: some twenty looks for what a kernel hides by default.
const LONG_STEP_BYTES: u64 = 256 << 10;
/// Length of the steps near the end: no more than any server reads at once.
pub(crate) const SHORT_STEP_BYTES: u64 = 4 << 10;
/// How far before the expected end steps become short: what a kernel takes more or less from one time to the next.
const NEAR_BYTES: u64 = 128 << 10;
/// Nothing moves for this long: the server has stopped.
const STILL: Duration = Duration::from_millis(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Between two looks once it is full.
const WATCH_EVERY: Duration = Duration::from_millis(50);
/// Connections tried, each with a better guess of where the end is.
pub(crate) const MOST_ATTEMPTS: usize = 3;
/// How long one attempt may take to fill up.
const FILL_PATIENCE: Duration = Duration::from_secs(6);
/// How long after its time it is still waited for.
const MARGIN: Duration = Duration::from_millis(500);
/// The small receive buffer of a client that never reads.
const RECEIVE_BUFFER_BYTES: usize = 4 << 10;

/// What of the bytes sent is where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    /// Sent by the client in all.
    pub(crate) sent: u64,
    /// Not yet taken by the server's kernel.
    pub(crate) on_the_way: u64,
    /// In the server's receive queue: not read by the server.
    pub(crate) server_unread: u64,
    /// In the server's send queue.
    pub(crate) server_send: u64,
    /// In the client's own receive queue.
    pub(crate) client_unread: u64,
}

impl Whereabouts {
    /// Bytes that the server has read and not written: its own queue.
    pub(crate) fn held(&self) -> u64 {
        let elsewhere = self.on_the_way + self.server_unread + self.server_send + self.client_unread;
        self.sent.saturating_sub(elsewhere)
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// All was passed on: send this much.
    Send(u64),
    /// Things still move.
    Wait,
    /// The server has read everything and holds the rest: quiet and stalled.
    Full,
    /// The server has stopped reading with input left: one step too many.
    TooMuch,
}

/// Decides step by step; pure.
#[derive(Debug)]
pub(crate) struct StepFiller {
    expected_end: u64,
    last: Option<(Whereabouts, Instant)>,
}

impl StepFiller {
    /// `expected_end` is where the server is thought to stop; 0 when not known.
    pub(crate) fn new(expected_end: u64) -> Self {
        Self {
            expected_end,
            last: None,
        }
    }

    /// What to do, seeing this now. Ask again soon.
    pub(crate) fn next(&mut self, seen: Whereabouts, now: Instant) -> Next {
        if seen.on_the_way == 0 && seen.server_unread == 0 && seen.held() == 0 {
            self.last = None;
            if self.expected_end == 0 {
                return Next::Send(LONG_STEP_BYTES);
            }
            let far = self.expected_end.saturating_sub(NEAR_BYTES + seen.sent);
            return Next::Send(far.clamp(SHORT_STEP_BYTES, LONG_STEP_BYTES));
        }
        let since = match self.last {
            Some((last, since)) if last == seen => since,
            _ => {
                self.last = Some((seen, now));
                now
            }
        };
        if now.saturating_duration_since(since) < STILL {
            Next::Wait
        } else if seen.server_unread == 0 && seen.on_the_way == 0 {
            Next::Full
        } else {
            Next::TooMuch
        }
    }
}

/// The thread with its clients.
pub(crate) struct QuietClients {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Vec<SlowClientSeen>>>,
}

/// Ends the clients, without waiting until they have ended.
impl Drop for QuietClients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    settled: AtomicBool,
    ports: Mutex<Vec<u16>>,
}

/// What the thread needs to know.
pub(crate) struct QuietPlan {
    pub(crate) address: SocketAddr,
    /// Where the server's sockets are looked at while a client fills up.
    pub(crate) tables: SocketTables,
    /// Where they are looked at afterwards, at no further cost.
    pub(crate) last_look: LastLook,
    /// One for each client and each of its [`MOST_ATTEMPTS`].
    pub(crate) wires: Vec<Wire>,
    /// The steps before the protocol, of a client at this address.
    pub(crate) openings: Box<dyn Fn(Option<SocketAddr>) -> Opening + Send>,
    /// The most that one of them sends.
    pub(crate) offer: u64,
    pub(crate) within: Duration,
    /// When the probe began.
    pub(crate) epoch: Instant,
}

impl QuietClients {
    /// Starts the thread; `None` where the system refuses one.
    pub(crate) fn start(plan: QuietPlan) -> Option<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = threads::spawn("quiet clients", move || run(plan, &for_thread)).ok()?;
        let thread = Some(thread);
        Some(Self { shared, thread })
    }

    /// Whether nothing more has to be waited for.
    pub(crate) fn is_settled(&self) -> bool {
        self.shared.settled.load(Ordering::Relaxed)
            || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The ports of the clients so far.
    pub(crate) fn ports(&self) -> Vec<u16> {
        lock(&self.shared.ports).clone()
    }

    /// Ends the clients and returns what became of them.
    pub(crate) fn finish(mut self) -> Vec<SlowClientSeen> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        ended.and_then(Result::ok).unwrap_or_default()
    }
}

fn lock(ports: &Mutex<Vec<u16>>) -> MutexGuard<'_, Vec<u16>> {
    ports.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(mut plan: QuietPlan, shared: &Shared) -> Vec<SlowClientSeen> {
    let mut clients = Vec::new();
    let mut expected_end = 0;
    let mut wires = std::mem::take(&mut plan.wires).into_iter();
    let plan = &plan;
    for _ in 0..wires.len() / MOST_ATTEMPTS {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        for (attempt, wire) in wires
            .by_ref()
            .take(MOST_ATTEMPTS)
            .collect::<Vec<_>>()
            .into_iter()
            .enumerate()
        {
            let Ok(mut client) = QuietClient::connect(plan, wire) else {
                break;
            };
            let outcome = client.fill(plan, shared, expected_end);
            if outcome == Next::TooMuch && attempt + 1 < MOST_ATTEMPTS {
                expected_end = client.stopped_at;
                continue;
            }
            lock(&shared.ports).push(client.port);
            clients.push(client);
            break;
        }
    }
    while !shared.stop.load(Ordering::Relaxed) {
        let mut settled = true;
        for client in &mut clients {
            client.watch(plan);
            settled &= client.is_settled(plan);
        }
        shared.settled.store(settled, Ordering::Relaxed);
        std::thread::sleep(WATCH_EVERY);
    }
    clients.iter().map(|client| client.seen(plan.epoch)).collect()
}

struct QuietClient {
    stream: TcpStream,
    port: u16,
    wire: Wire,
    filler: StepFiller,
    joined: Instant,
    sent: u64,
    stopped_at: u64,
    full_at: Option<Instant>,
    end: Option<(Instant, Disconnect)>,
    left_bytes: u64,
    met: bool,
    watched: bool,
}

impl QuietClient {
    fn connect(plan: &QuietPlan, wire: Wire) -> io::Result<Self> {
        let buffers = Buffers {
            receive: Some(RECEIVE_BUFFER_BYTES),
            send: None,
        };
        let mut stream = socket::connect(plan.address, buffers, FILL_PATIENCE)?;
        let mut opening = (plan.openings)(stream.local_addr().ok());
        let deadline = clock::now() + FILL_PATIENCE;
        while !opening.drive(&mut stream)? {
            if clock::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(Self {
            port: stream.local_addr()?.port(),
            stream,
            wire,
            filler: StepFiller::new(0),
            joined: clock::now(),
            sent: 0,
            stopped_at: 0,
            full_at: None,
            end: None,
            left_bytes: 0,
            met: false,
            watched: false,
        })
    }

    fn fill(&mut self, plan: &QuietPlan, shared: &Shared, expected_end: u64) -> Next {
        self.filler = StepFiller::new(expected_end);
        let deadline = self.joined + FILL_PATIENCE;
        while !shared.stop.load(Ordering::Relaxed) && clock::now() < deadline && self.end.is_none() {
            let server = plan
                .tables
                .look()
                .into_iter()
                .find(|socket| socket.client_port == self.port);
            match self.step(plan, server) {
                Next::Wait => std::thread::sleep(LOOK_EVERY),
                Next::Send(_) if self.sent < plan.offer => {}
                done => return done,
            }
        }
        Next::Wait
    }

    /// Goes on where more is taken, and sees whether the connection stands.
    fn watch(&mut self, plan: &QuietPlan) {
        let server = plan.last_look.socket(self.port);
        // A look from before this connection says nothing about it.
        self.watched |= server.is_some();
        if self.end.is_some() {
            return;
        }
        if self.watched {
            self.step(plan, server);
        } else if matches!(self.stream.take_error(), Ok(Some(_))) {
            self.end = Some((clock::now(), Disconnect::Reset));
        }
    }

    fn step(&mut self, plan: &QuietPlan, server: Option<ServerSocket>) -> Next {
        let now = clock::now();
        self.met |= server.is_some();
        self.note_end(server, now);
        let (Some(server), None) = (server, self.end) else {
            return Next::Wait;
        };
        let seen = Whereabouts {
            sent: self.sent,
            on_the_way: tcp_info::unacknowledged_bytes(&self.stream).unwrap_or(0),
            server_unread: server.receive_queue,
            server_send: server.send_queue,
            client_unread: tcp_info::unread_bytes(&self.stream).unwrap_or(0),
        };
        let next = self.filler.next(seen, now);
        match next {
            Next::Send(bytes) if self.sent < plan.offer => self.send(bytes),
            Next::Full if self.full_at.is_none() => self.full_at = Some(now),
            Next::TooMuch => self.stopped_at = seen.server_send + seen.client_unread,
            _ => {}
        }
        next
    }

    fn send(&mut self, bytes: u64) {
        let mut buffer = vec![0; bytes as usize];
        self.wire.fill(self.sent, &mut buffer);
        // A step fits into any send buffer; what does not is simply not sent.
        self.sent += self.stream.write(&buffer).unwrap_or(0) as u64;
        self.full_at = None;
    }

    fn note_end(&mut self, server: Option<ServerSocket>, now: Instant) {
        if matches!(self.stream.take_error(), Ok(Some(_))) {
            self.end = Some((now, Disconnect::Reset));
        } else if let Some(orphan) = server.filter(|socket| socket.orphan) {
            self.left_bytes = orphan.send_queue;
            self.end = Some((now, Disconnect::LeftInKernel));
        } else if server.is_none() && self.met {
            self.end = Some((now, Disconnect::EndOfFile));
        }
    }

    fn is_settled(&self, plan: &QuietPlan) -> bool {
        let now = clock::now();
        self.end.is_some()
            || now.saturating_duration_since(self.full_at.unwrap_or(self.joined + FILL_PATIENCE))
                > plan.within + MARGIN
    }

    fn seen(&self, epoch: Instant) -> SlowClientSeen {
        let seconds = |at: Instant| at.saturating_duration_since(epoch).as_secs_f64();
        SlowClientSeen {
            joined_at: seconds(self.joined),
            full_at: self.full_at.map(seconds),
            ended_at: self.end.map(|(at, _)| seconds(at)),
            end: self.end.map(|(_, end)| end),
            seconds_to_end: match (self.full_at, self.end) {
                (Some(full), Some((at, _))) => Some(at.saturating_duration_since(full).as_secs_f64()),
                _ => None,
            },
            connected_at: Some(seconds(self.joined)),
            left_bytes: self.left_bytes,
            absorbed_bytes: self.sent,
            ..SlowClientSeen::new(SlowKind::Quiet, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed_on(sent: u64) -> Whereabouts {
        Whereabouts {
            sent,
            on_the_way: 0,
            server_unread: 0,
            server_send: sent,
            client_unread: 0,
        }
    }

    #[test]
    fn it_goes_on_while_all_is_passed_on_and_shortens_its_steps_near_the_end() {
        let now = clock::now();
        let end = 1 << 20;
        let mut filler = StepFiller::new(end);
        assert_eq!(filler.next(passed_on(1000), now), Next::Send(LONG_STEP_BYTES));
        assert_eq!(
            filler.next(passed_on(end - NEAR_BYTES - 10_000), now),
            Next::Send(10_000)
        );
        assert_eq!(
            filler.next(passed_on(end - NEAR_BYTES), now),
            Next::Send(SHORT_STEP_BYTES)
        );
        assert_eq!(filler.next(passed_on(end + 1), now), Next::Send(SHORT_STEP_BYTES));
        assert_eq!(
            StepFiller::new(0).next(passed_on(1 << 30), now),
            Next::Send(LONG_STEP_BYTES)
        );
    }

    #[test]
    fn it_is_full_only_when_nothing_moves_and_the_server_holds_what_it_read() {
        let now = clock::now();
        let mut filler = StepFiller::new(0);
        let held = Whereabouts {
            server_send: 900,
            ..passed_on(1000)
        };
        assert_eq!(filler.next(held, now), Next::Wait);
        let moved = Whereabouts {
            server_send: 950,
            ..held
        };
        assert_eq!(filler.next(moved, now + STILL), Next::Wait);
        assert_eq!(filler.next(moved, now + STILL + STILL), Next::Full);
        let unread = Whereabouts {
            server_unread: 50,
            ..moved
        };
        assert_eq!(filler.next(unread, now + 3 * STILL), Next::Wait);
        assert_eq!(filler.next(unread, now + 4 * STILL), Next::TooMuch);
    }
}
