//! A network in memory: each connection holds a bounded number of bytes that
//! its peer has not read. What the peer has read is acknowledged.
//!
//! Shared by the simulations of services: each uses what it needs.

#![allow(dead_code, reason = "no simulation uses all of it")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use highwater::engine::{Engine, Event, Network, PeerState, PeerWindow, Stream};
use highwater::{ClientId, FileSource, Service};

/// How the server left a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It has not.
    Open,
    /// By a FIN: all bytes before it can be read.
    InOrder,
    /// By a reset: what was not read is lost.
    Reset,
}

struct Link {
    id: Option<ClientId>,
    to_server: VecDeque<u8>,
    to_peer: VecDeque<u8>,
    capacity: usize,
    /// A write was refused, so room is announced.
    is_full: bool,
    event: Event,
    left: Left,
    resets_on_close: bool,
    peer_has_reset: bool,
    peer_has_ended: bool,
    looks: Looks,
}

/// How often the server asked about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looks {
    /// What its peer has not acknowledged.
    pub(crate) owed: usize,
    /// The window of its peer.
    pub(crate) window: usize,
}

struct Inner {
    links: Vec<Link>,
    waiting: VecDeque<usize>,
    random: fastrand::Rng,
    /// Where new connections come from.
    origin: [u8; 4],
}

/// All connections.
#[derive(Clone)]
pub(crate) struct World(Rc<RefCell<Inner>>);

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            links: Vec::new(),
            waiting: VecDeque::new(),
            random: fastrand::Rng::with_seed(seed),
            origin: [127, 0, 0, 1],
        })))
    }

    /// Connections that are accepted from now on come from there.
    pub(crate) fn come_from(&self, origin: [u8; 4]) {
        self.0.borrow_mut().origin = origin;
    }

    /// A connection that holds so many bytes for its peer.
    pub(crate) fn connect(&self, capacity: usize) -> usize {
        let mut inner = self.0.borrow_mut();
        let number = inner.links.len();
        inner.links.push(Link {
            id: None,
            to_server: VecDeque::new(),
            to_peer: VecDeque::new(),
            capacity,
            is_full: false,
            event: Event::default(),
            left: Left::Open,
            resets_on_close: false,
            peer_has_reset: false,
            peer_has_ended: false,
            looks: Looks::default(),
        });
        inner.waiting.push_back(number);
        number
    }

    pub(crate) fn send(&self, number: usize, bytes: &[u8]) {
        let link = &mut self.0.borrow_mut().links[number];
        link.to_server.extend(bytes);
        link.event.readable = true;
    }

    /// The peer reads at most `most` bytes.
    pub(crate) fn read(&self, number: usize, most: usize) -> Vec<u8> {
        let link = &mut self.0.borrow_mut().links[number];
        let count = most.min(link.to_peer.len());
        let bytes = link.to_peer.drain(..count).collect();
        if link.is_full && link.to_peer.len() <= link.capacity - link.capacity / 3 {
            link.is_full = false;
            link.event.writable = true;
        }
        bytes
    }

    /// Bytes that the peer has not read.
    pub(crate) fn owed(&self, number: usize) -> usize {
        self.0.borrow().links[number].to_peer.len()
    }

    pub(crate) fn looks(&self, number: usize) -> Looks {
        self.0.borrow().links[number].looks
    }

    /// The peer resets the connection.
    pub(crate) fn reset(&self, number: usize) {
        let link = &mut self.0.borrow_mut().links[number];
        link.peer_has_reset = true;
        link.to_peer.clear();
        link.event = Event {
            readable: true,
            writable: true,
            read_again: true,
        };
    }

    /// The peer sends its FIN.
    pub(crate) fn end(&self, number: usize) {
        let link = &mut self.0.borrow_mut().links[number];
        link.peer_has_ended = true;
        link.event.readable = true;
        link.event.read_again = true;
    }

    pub(crate) fn left(&self, number: usize) -> Left {
        self.0.borrow().links[number].left
    }

    pub(crate) fn has_left(&self, number: usize) -> bool {
        self.left(number) != Left::Open
    }

    pub(crate) fn take_events(&self) -> Vec<(ClientId, Event)> {
        let links = &mut self.0.borrow_mut().links;
        let due = links
            .iter_mut()
            .filter(|link| link.event != Event::default() && link.left == Left::Open);
        due.filter_map(|link| Some((link.id?, std::mem::take(&mut link.event))))
            .collect()
    }
}

pub(crate) struct SimulatedNetwork(pub(crate) World);

impl Network for SimulatedNetwork {
    type Stream = SimulatedStream;

    fn accept(&mut self) -> io::Result<(SimulatedStream, SocketAddr)> {
        let next = self.0.0.borrow_mut().waiting.pop_front();
        let number = next.ok_or(ErrorKind::WouldBlock)?;
        let stream = SimulatedStream {
            world: self.0.clone(),
            number,
        };
        let origin = self.0.0.borrow().origin;
        Ok((stream, (origin, number as u16 + 1).into()))
    }

    fn register(&mut self, stream: &mut SimulatedStream, id: ClientId) -> io::Result<()> {
        self.0.0.borrow_mut().links[stream.number].id = Some(id);
        Ok(())
    }

    fn connect(&mut self, _: SocketAddr) -> io::Result<SimulatedStream> {
        Err(ErrorKind::Unsupported.into())
    }

    fn stop_listening(&mut self) {}
}

pub(crate) struct SimulatedStream {
    world: World,
    number: usize,
}

impl SimulatedStream {
    fn with<T>(&self, act: impl FnOnce(&mut Link, &mut fastrand::Rng) -> T) -> T {
        let mut inner = self.world.0.borrow_mut();
        let Inner { links, random, .. } = &mut *inner;
        act(&mut links[self.number], random)
    }
}

impl Read for SimulatedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|link, _| {
            if link.peer_has_reset {
                return Err(ErrorKind::ConnectionReset.into());
            }
            if link.to_server.is_empty() && !link.peer_has_ended {
                return Err(ErrorKind::WouldBlock.into());
            }
            link.to_server.read(buffer)
        })
    }
}

impl Write for SimulatedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|link, random| {
            if link.peer_has_reset {
                return Err(ErrorKind::BrokenPipe.into());
            }
            if random.u8(..16) == 0 {
                return Err(ErrorKind::Interrupted.into());
            }
            let room = link.capacity.saturating_sub(link.to_peer.len());
            // A kernel may take less than it has room for.
            let is_short = random.u8(..4) == 0;
            let most = if is_short {
                random.usize(..=room.min(4096))
            } else {
                room
            };
            let count = most.min(bytes.len());
            if count == room {
                link.is_full = true;
            } else if count < bytes.len() {
                // With room left, the edge comes by itself.
                link.event.writable = true;
            }
            link.to_peer.extend(&bytes[..count]);
            if count == 0 && !bytes.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(count)
        })
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.write(&all)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for SimulatedStream {
    fn descriptor(&self) -> i32 {
        self.number as i32
    }

    fn finish_connect(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    fn shut_down_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reset_on_close(&mut self) {
        self.with(|link, _| link.resets_on_close = true);
    }

    fn unacknowledged_bytes(&self) -> u64 {
        self.with(|link, _| {
            link.looks.owed += 1;
            link.to_peer.len() as u64
        })
    }

    fn peer_window(&self) -> Option<PeerWindow> {
        self.with(|link, _| link.looks.window += 1);
        None
    }

    fn send_file(&mut self, file: &dyn FileSource, offset: u64, count: usize) -> io::Result<usize> {
        let mut buffer = vec![0; count];
        match file.read_at(offset, &mut buffer)? {
            0 => Ok(0),
            length => self.write(&buffer[..length]),
        }
    }

    fn is_settled(&self) -> bool {
        self.with(|link, _| link.to_peer.is_empty())
    }

    fn peer_state(&self) -> PeerState {
        PeerState::Unknown
    }
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        self.with(|link, _| {
            link.left = if link.resets_on_close {
                Left::Reset
            } else {
                Left::InOrder
            };
            if link.resets_on_close {
                link.to_peer.clear();
            }
        });
    }
}

/// Accepts who waits, hands the engine what happened in the world, and lets it take a turn.
pub(crate) fn take_turn<S: Service>(world: &World, engine: &mut Engine<SimulatedNetwork, S>, now: Instant) {
    engine.handle_listener();
    for (id, event) in world.take_events() {
        engine.handle_event(id, event);
    }
    engine.turn(now);
}

/// Lets time go on, with a turn every 25 ms.
pub(crate) fn pass<S: Service>(
    world: &World,
    engine: &mut Engine<SimulatedNetwork, S>,
    now: &mut Instant,
    time: Duration,
) {
    let until = *now + time;
    while *now < until {
        *now += Duration::from_millis(25).min(until - *now);
        take_turn(world, engine, *now);
    }
}
