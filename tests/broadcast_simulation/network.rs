//! A network in memory: each connection holds a bounded number of bytes that
//! its peer has not read.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use highwater::ClientId;
use highwater::engine::{Event, Network, PeerState, Stream};

#[derive(Default)]
struct Link {
    id: Option<ClientId>,
    to_server: VecDeque<u8>,
    to_peer: VecDeque<u8>,
    capacity: usize,
    /// A write was refused, so room is announced.
    is_full: bool,
    event: Event,
    is_closed: bool,
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

    /// A connection that holds so many bytes for its peer.
    pub(crate) fn connect(&self, capacity: usize) -> usize {
        let mut inner = self.0.borrow_mut();
        let number = inner.links.len();
        inner.links.push(Link {
            capacity,
            ..Link::default()
        });
        inner.waiting.push_back(number);
        number
    }

    /// Connections that are accepted from now on come from there.
    pub(crate) fn come_from(&self, origin: [u8; 4]) {
        self.0.borrow_mut().origin = origin;
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

    pub(crate) fn is_closed(&self, number: usize) -> bool {
        self.0.borrow().links[number].is_closed
    }

    pub(crate) fn take_events(&self) -> Vec<(ClientId, Event)> {
        let links = &mut self.0.borrow_mut().links;
        let due = links
            .iter_mut()
            .filter(|link| link.event != Event::default() && !link.is_closed);
        due.filter_map(|link| Some((link.id?, std::mem::take(&mut link.event))))
            .collect()
    }
}

pub(crate) struct SimulatedNetwork(World);

impl SimulatedNetwork {
    pub(crate) fn new(world: &World) -> Self {
        Self(world.clone())
    }
}

impl Network for SimulatedNetwork {
    type Stream = SimulatedStream;

    fn accept(&mut self) -> io::Result<(SimulatedStream, SocketAddr)> {
        let number = self
            .0
            .0
            .borrow_mut()
            .waiting
            .pop_front()
            .ok_or(ErrorKind::WouldBlock)?;
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

impl Read for SimulatedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let link = &mut self.world.0.borrow_mut().links[self.number];
        if link.to_server.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        link.to_server.read(buffer)
    }
}

impl Write for SimulatedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.world.0.borrow_mut();
        let Inner { links, random, .. } = &mut *inner;
        let link = &mut links[self.number];
        let room = link.capacity.saturating_sub(link.to_peer.len());
        // A kernel may take less than it has room for.
        let most = if random.u8(..4) == 0 {
            random.usize(..=room.min(4096))
        } else {
            room
        };
        let count = most.min(bytes.len());
        if count < bytes.len() {
            link.is_full = true;
            // With room left, the edge comes by itself.
            if count < room {
                link.is_full = false;
                link.event.writable = true;
            }
        }
        link.to_peer.extend(&bytes[..count]);
        if count == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(count)
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

    fn reset_on_close(&mut self) {}

    fn is_settled(&self) -> bool {
        self.world.0.borrow().links[self.number].to_peer.is_empty()
    }

    fn peer_state(&self) -> PeerState {
        PeerState::Unknown
    }
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        self.world.0.borrow_mut().links[self.number].is_closed = true;
    }
}
