//! One client of the crowd: what it has in mind, how far it is, and how it
//! ended.
//!
//! Owns one socket that never blocks, and does a little at each visit. Judges
//! what it can see by itself: a wrong byte, an end that came too early, a
//! disconnect that is overdue.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use fastrand::Rng;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::faults::Faults;
use crate::stream;

/// The most that a client reads or writes at one visit, in bytes.
const VISIT_BYTES: usize = 256 * 1024;

/// Beyond the grace a stalled client is waited for so long: the visits are
/// far apart, the machine may be busy, and after a fault the kernel tries
/// again ever later to get through what waited.
const OVERDUE: Duration = Duration::from_secs(15);

/// An orderly client that is not through after this much undisturbed time
/// has been forgotten.
const FORGOTTEN: Duration = Duration::from_secs(45);

/// The drain timeout, in graces.
pub(crate) const DRAIN_TIMEOUT_GRACES: u32 = 2;

/// What a client has in mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sends, reads all of it back, half-closes and reads the end.
    Talk,
    /// As `Talk`, but for a while it sends on without reading.
    Nap(Duration),
    /// Sends and never reads; it stays until it is thrown out.
    Stall,
    /// Sends less than brings it over the limit, half-closes, and reads
    /// nothing. The server has nothing of it unread, so that only a reset on
    /// purpose frees what the kernel holds.
    Forget,
    /// Half-closes after little, reads nothing, and goes some time.
    HalfCloseAndLeave,
    /// Goes in the middle of what it sends.
    Leave,
    /// The same, with a reset.
    Reset,
}

impl Role {
    fn random(random: &mut Rng, grace: Duration) -> Self {
        match random.u32(..100) {
            0..=9 => Self::Stall,
            10..=24 => Self::Nap(grace.mul_f64(0.1 + 0.4 * random.f64())),
            25..=27 => Self::HalfCloseAndLeave,
            28..=29 => Self::Forget,
            30..=39 => Self::Leave,
            40..=54 => Self::Reset,
            _ => Self::Talk,
        }
    }

    const fn never_reads(self) -> bool {
        matches!(self, Self::Stall | Self::Forget | Self::HalfCloseAndLeave)
    }

    /// Whether the server has to throw it out, sooner or later.
    pub(crate) const fn is_owed_a_disconnect(self) -> bool {
        matches!(self, Self::Stall | Self::Forget)
    }

    fn bytes(self, random: &mut Rng) -> usize {
        match self {
            Self::Stall => usize::MAX,
            Self::Nap(_) => 300_000 + random.usize(..300_000),
            Self::HalfCloseAndLeave => random.usize(1..40_000),
            // The kernel takes 20 KB of it, with these buffers.
            Self::Forget => random.usize(60_000..84_000),
            _ => 1 + random.usize(..200_000) / (1 << random.u32(..12)),
        }
    }

    /// Small buffers for who stalls, so that little fits into the kernel;
    /// for the others such that a slow reader's progress is no leap.
    fn buffer_bytes(self) -> (usize, usize) {
        match self {
            Self::Stall | Self::Forget => (4 * 1024, 16 * 1024),
            _ => (64 * 1024, 64 * 1024),
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything came back, and then the end.
    Complete,
    /// It went by itself.
    Left,
    /// The server has reset it. The log has to say why.
    Reset,
}

/// What is left of a client.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) address: SocketAddr,
    pub(crate) role: Role,
    pub(crate) end: End,
    /// The longest time for which it did not read while something of its own
    /// was on the way, without the times for which the server was stopped.
    pub(crate) longest_stall: Duration,
    pub(crate) bytes_back: usize,
}

pub(crate) struct Member {
    number: u32,
    address: SocketAddr,
    socket: TcpStream,
    connected: bool,
    role: Role,
    grace: Duration,
    to_send: usize,
    sent: usize,
    received: usize,
    half_closed: bool,
    began: Instant,
    last_progress: Instant,
    last_read: Instant,
    longest_stall: Duration,
    nap_over: Option<Instant>,
    leave_at: Instant,
}

impl Member {
    /// Begins to connect. Every client has an address of its own, which is
    /// its name in the log and leaves ports enough to all.
    pub(crate) fn connect(
        number: u32,
        server: SocketAddr,
        grace: Duration,
        random: &mut Rng,
        now: Instant,
    ) -> Self {
        let role = Role::random(random, grace);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        let (receive, send) = role.buffer_bytes();
        socket.set_recv_buffer_size(receive).unwrap();
        socket.set_send_buffer_size(send).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        let [_, high, middle, low] = number.to_be_bytes();
        let ip = Ipv4Addr::new(127, 1 + high, middle, low);
        socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => panic!("{address} cannot connect: {error}"),
        }
        Self {
            number,
            address,
            socket: TcpStream::from(socket),
            connected: false,
            role,
            grace,
            to_send: role.bytes(random),
            sent: 0,
            received: 0,
            half_closed: false,
            began: now,
            last_progress: now,
            last_read: now,
            longest_stall: Duration::ZERO,
            nap_over: None,
            leave_at: now + Duration::from_millis(random.u64(..2 * grace.as_millis() as u64)),
        }
    }

    /// Does what is next. `Some` is the end of it.
    pub(crate) fn visit(&mut self, faults: &Faults, random: &mut Rng, now: Instant) -> Option<Record> {
        if !self.connected {
            if let Some(error) = self.socket.take_error().unwrap() {
                panic!("{} cannot connect: {error}", self.address);
            }
            self.connected = self.socket.peer_addr().is_ok();
        }
        if !self.connected {
            assert!(
                faults.undisturbed(self.began, now) < FORGOTTEN,
                "{} was not let in",
                self.address
            );
            return None;
        }
        if self.sent > self.received {
            let stall = faults.awake(self.last_read, now);
            self.longest_stall = self.longest_stall.max(stall);
        }
        let end = self
            .send(random, now)
            .and_then(|()| self.read(now))
            .and_then(|()| self.may_leave(faults, now));
        let end = end.err()?;
        if self.role == Role::Reset && end == End::Left {
            SockRef::from(&self.socket)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        Some(self.record(end))
    }

    fn record(&self, end: End) -> Record {
        Record {
            address: self.address,
            role: self.role,
            end,
            longest_stall: self.longest_stall,
            bytes_back: self.received,
        }
    }

    fn send(&mut self, random: &mut Rng, now: Instant) -> Result<(), End> {
        let piece_bytes = match self.role {
            Role::Stall | Role::Nap(_) => 64 * 1024,
            _ => 1 + random.usize(..32 * 1024),
        };
        let mut left = VISIT_BYTES.min(self.to_send - self.sent);
        while left > 0 {
            let piece = stream::piece(self.number, self.sent, left.min(piece_bytes));
            match self.socket.write(piece) {
                Ok(count) => {
                    self.sent += count;
                    left -= count;
                    self.last_progress = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(self.broken(&error)),
            }
            if !matches!(self.role, Role::Stall | Role::Nap(_)) {
                break;
            }
        }
        let orderly = !matches!(self.role, Role::Stall | Role::Leave | Role::Reset);
        if orderly && self.sent == self.to_send && !self.half_closed {
            self.half_closed = true;
            return self.socket.shutdown(Shutdown::Write).map_err(|_| End::Reset);
        }
        Ok(())
    }

    fn read(&mut self, now: Instant) -> Result<(), End> {
        if let Role::Nap(time) = self.role {
            let over = *self.nap_over.get_or_insert(now + time);
            if now < over {
                return Ok(());
            }
        }
        if self.role.never_reads() {
            return match self.socket.take_error().unwrap() {
                Some(error) => Err(self.broken(&error)),
                None => Ok(()),
            };
        }
        self.last_read = now;
        let mut buffer = [0; 16 * 1024];
        let before = self.received;
        while self.received - before < VISIT_BYTES {
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    assert!(
                        self.half_closed && self.received == self.sent,
                        "{} {:?} saw the end after {} of {} bytes",
                        self.address,
                        self.role,
                        self.received,
                        self.sent
                    );
                    return Err(End::Complete);
                }
                Ok(count) => {
                    assert!(
                        self.received + count <= self.sent
                            && buffer[..count] == *stream::piece(self.number, self.received, count),
                        "{} {:?}: wrong bytes in the {count} after {}",
                        self.address,
                        self.role,
                        self.received
                    );
                    self.received += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.broken(&error)),
            }
        }
        Ok(())
    }

    fn broken(&self, error: &std::io::Error) -> End {
        let reset = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        assert!(reset, "{} {:?}: {error}", self.address, self.role);
        End::Reset
    }

    fn may_leave(&self, faults: &Faults, now: Instant) -> Result<(), End> {
        match self.role {
            Role::Leave | Role::Reset | Role::HalfCloseAndLeave if now >= self.leave_at => Err(End::Left),
            Role::Stall | Role::Forget => {
                let at_most = DRAIN_TIMEOUT_GRACES * self.grace + OVERDUE;
                assert!(
                    faults.undisturbed(self.last_progress, now) < at_most,
                    "{} stalls, sent nothing for {:?}, and is still there",
                    self.address,
                    now - self.last_progress
                );
                Ok(())
            }
            _ => {
                assert!(
                    faults.undisturbed(self.began, now) < FORGOTTEN,
                    "{} {:?} is not through: {} of {} bytes back, {} to send",
                    self.address,
                    self.role,
                    self.received,
                    self.sent,
                    self.to_send - self.sent
                );
                Ok(())
            }
        }
    }
}
