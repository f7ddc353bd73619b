//! The system calls: the simulated network and its streams, as the engine
//! sees them.
//!
//! Owns what each call answers. What the engine does to a stream is entered
//! into the books of the model. Refuses to know the engine.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use highwater::engine::{Network, PeerState, PeerWindow, Spliced, Stream};
use highwater::limits::{READ_BUFFER_BYTES, SMALLEST_READ_BYTES, TURN_BUDGET_BYTES};
use highwater::{ClientId, Limits};

use super::introduction::Header;
use super::link::Connecting;
use super::plan::{Kind, Trouble};
use super::world::{Shared, World, longest_retransmissions};

/// The table of open files is full (accept(2)).
const EMFILE: i32 = 24;
/// Too many watches (epoll_ctl(2)).
const ENOSPC: i32 = 28;

impl World {
    fn call(&mut self) {
        self.calls += 1;
        self.work.calls += 1;
        self.check_work();
    }

    fn interrupted(&mut self) -> bool {
        // After a fault nothing may keep the engine in a loop.
        self.model.fault.is_none()
            && self.has(Trouble::Interrupts)
            && (self.all_interrupted || self.rng.u8(..32) == 0)
    }

    fn nudge(&mut self, number: usize) {
        if self.has(Trouble::MidTurn) && self.rng.u8(..8) == 0 {
            self.act_on(number);
        }
    }

    fn read(&mut self, number: usize, buffer: &mut [u8]) -> io::Result<usize> {
        self.call();
        self.check_usable(number);
        if self.interrupted() {
            self.links[number].interrupted_turn = self.turn;
            return Err(ErrorKind::Interrupted.into());
        }
        self.nudge(number);
        let result = self.read_now(number, buffer);
        self.nudge(number);
        result
    }

    fn read_now(&mut self, number: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let to = self.destination(number);
        let link = &mut self.links[number];
        let mut count = link.waiting().min(buffer.len() as u64);
        match link.urgent_at {
            Some(at) if at > link.read => count = count.min(at - link.read),
            // A read begins at the mark, and goes on past it.
            _ => link.urgent_at = None,
        }
        let count = count as usize;
        if link.connecting != Connecting::Made {
            return Err(ErrorKind::WouldBlock.into());
        }
        if count > 0 {
            buffer[..count].copy_from_slice(link.content.at(link.read, count));
            link.read += count as u64;
            link.read_in_turn += count;
            if count < buffer.len() && link.waiting() == 0 {
                link.dry_turn = self.turn;
            }
            // The last read before a close timeout is small.
            let most = TURN_BUDGET_BYTES + READ_BUFFER_BYTES + SMALLEST_READ_BYTES;
            let greedy = link.read_in_turn > most;
            self.model.read(number, count, to, &self.links[number].content);
            note!(self, 13, number, count, "read {count} from link {number}");
            if greedy {
                self.model
                    .accuse(|| format!("link {number}: read past the budget of a turn"));
            }
            return Ok(count);
        }
        if link.reset {
            if std::mem::replace(&mut link.reset_told, true) {
                link.end_read = true;
                self.model.read_end(number, to);
                return Ok(0);
            }
            note!(self, 14, number, 0, "read of link {number} fails");
            self.model.fail(number);
            return Err(ErrorKind::ConnectionReset.into());
        }
        if link.peer_ended {
            link.end_read = true;
            link.read_on = false;
            note!(self, 15, number, 0, "read the end of link {number}");
            self.model.read_end(number, to);
            return Ok(0);
        }
        link.dry_turn = self.turn;
        link.read_on = false;
        note!(self, 16, number, 0, "nothing to read from link {number}");
        Err(ErrorKind::WouldBlock.into())
    }

    fn write(&mut self, number: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.call();
        self.check_usable(number);
        self.links[number].tried_turn = self.turn;
        if self.interrupted() {
            // What could not be written directly waits from here on.
            self.model.settle();
            return Err(ErrorKind::Interrupted.into());
        }
        self.write_now(number, slices)
    }

    fn write_now(&mut self, number: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.nudge(number);
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let link = &mut self.links[number];
        if link.reset {
            link.reset_told = true;
            note!(self, 17, number, 0, "write to link {number} fails");
            self.model.fail(number);
            return Err(ErrorKind::BrokenPipe.into());
        }
        if link.ended {
            self.model
                .accuse(|| format!("link {number}: written to after its end"));
        }
        let room = (self.plan.kernel_bytes as u64).saturating_sub(link.in_kernel()) as usize;
        let room = if link.connecting == Connecting::Made {
            room
        } else {
            0
        };
        let mut count = offered.min(room);
        if count > 1 && self.has(Trouble::ShortWrites) && self.rng.u8(..4) == 0 {
            count = self.rng.usize(1..=count);
        }
        let link = &mut self.links[number];
        link.refused |= count < offered;
        note!(
            self,
            18,
            number,
            count,
            "write {count} of {offered} to link {number}"
        );
        if count > 0 {
            self.check_bytes(number, slices, count);
            self.links[number].taken += count as u64;
            self.model.take(number, count);
        }
        if count < offered {
            self.model.settle();
        }
        if self.links[number].connecting == Connecting::Made {
            self.announce_room(number);
        }
        self.nudge(number);
        if count == 0 && offered > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(count)
    }

    fn take_error(&mut self, number: usize) -> Option<io::Error> {
        self.call();
        self.check_usable(number);
        let link = &mut self.links[number];
        if !link.reset || std::mem::replace(&mut link.reset_told, true) {
            return None;
        }
        note!(self, 29, number, 0, "link {number} tells its error");
        self.model.fail(number);
        Some(ErrorKind::ConnectionReset.into())
    }

    /// Read and written in one call, and what was refused is given back. A
    /// pipe may be full long before the socket is empty.
    fn splice(&mut self, from: usize, to: usize, rest: &mut [u8]) -> io::Result<Spliced> {
        let pipe_bytes = match self.rng.bool() {
            true => rest.len(),
            false => self.rng.usize(1..=rest.len()),
        };
        let link = &self.links[from];
        if link.urgent_at == Some(link.read) && link.waiting() > 0 {
            // Only a read gets past the mark of urgent data.
            self.call();
            note!(self, 30, from, 0, "splice stops at the mark of link {from}");
            // The kernel takes it for the end once the FIN is there.
            return match self.links[from].peer_ended {
                true => Ok(Spliced {
                    taken_bytes: 0,
                    sent: Ok(0),
                }),
                false => Err(ErrorKind::WouldBlock.into()),
            };
        }
        let taken_bytes = self.read(from, &mut rest[..pipe_bytes])?;
        if taken_bytes == 0 {
            return Ok(Spliced {
                taken_bytes,
                sent: Ok(0),
            });
        }
        self.call();
        self.check_usable(to);
        self.links[to].tried_turn = self.turn;
        let sent = match self.write_now(to, &[IoSlice::new(&rest[..taken_bytes])]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        };
        let sent_bytes = *sent.as_ref().unwrap_or(&taken_bytes);
        self.spliced_bytes += sent_bytes as u64;
        rest.copy_within(sent_bytes..taken_bytes, 0);
        Ok(Spliced { taken_bytes, sent })
    }

    fn shut_down_write(&mut self, number: usize) -> io::Result<()> {
        self.call();
        self.check_usable(number);
        self.model.settle();
        note!(self, 19, number, 0, "shut down link {number}");
        if !self.model.ledgers[number].ended {
            self.model.end_silent(number);
        }
        let ledger = &self.model.ledgers[number];
        let (ended, queue, alive) = (ledger.ended, ledger.queue(), ledger.is_alive());
        if self.links[number].connecting != Connecting::Made {
            self.model.accuse(|| {
                format!("link {number}: ended before its connection was made, which breaks it off")
            });
        } else if self.links[number].ended {
            self.model.accuse(|| format!("link {number}: ended twice"));
        } else if (!ended || queue > 0 || !alive) && self.plan.kind != Kind::Meddler {
            self.model
                .accuse(|| format!("link {number}: ended with {queue} bytes queued, asked for: {ended}"));
        }
        self.check_whole(number);
        let link = &mut self.links[number];
        if link.reset {
            link.reset_told = true;
            self.model.fail(number);
            return Err(ErrorKind::NotConnected.into());
        }
        link.ended = true;
        Ok(())
    }

    fn finish_connect(&mut self, number: usize) -> io::Result<bool> {
        note!(self, 20, number, 0, "ask whether link {number} is connected");
        match self.links[number].connecting {
            // Asking in vain is not counted as work.
            Connecting::Pending => Ok(false),
            Connecting::Refused => {
                self.model.fail(number);
                Err(ErrorKind::ConnectionRefused.into())
            }
            Connecting::Made => {
                self.call();
                self.model.settle();
                let link = &mut self.links[number];
                if link.reset && !std::mem::replace(&mut link.reset_told, true) {
                    // Its error is taken, and tells of the reset as well.
                    self.model.fail(number);
                    return Err(ErrorKind::ConnectionReset.into());
                }
                self.model.connected(number);
                Ok(true)
            }
        }
    }

    fn close(&mut self, number: usize) {
        self.call();
        let is_reset = self.links[number].close_is_reset;
        note!(
            self,
            21,
            number,
            u64::from(is_reset),
            "close link {number}, reset: {is_reset}"
        );
        let link = &mut self.links[number];
        if link.closed {
            self.model.accuse(|| format!("link {number}: closed twice"));
        }
        let link = &mut self.links[number];
        link.closed = true;
        self.open_streams -= 1;
        let Some(id) = link.id else {
            if !link.close_is_reset {
                self.model
                    .accuse(|| format!("link {number}: turned away without a reset"));
            }
            if !self.links[number].unregistered {
                self.check_refused(number);
            }
            return;
        };
        self.stale.push(id);
        self.model.end_silent(number);
        // To one whose connection was never made nothing was said.
        let was_made = self.model.ledgers[number].connecting_since.is_none();
        if !self.links[number].close_is_reset && was_made {
            self.check_orderly_close(number);
        }
    }

    /// A client was refused: all seats are taken, and no seat was given up
    /// before it came.
    fn check_refused(&mut self, number: usize) {
        let (served, most) = (self.served(), self.plan.max_clients);
        let of_address = self.seats_of(self.peer_address(number), |_| true);
        let is_address_full =
            !self.plan.proxied && self.most_of_address().is_some_and(|most| of_address >= most);
        self.model.seen.refused += u64::from(served >= most);
        self.model.seen.address_refused += u64::from(served < most && is_address_full);
        if served < most && !is_address_full {
            self.model.accuse(|| {
                format!(
                    "link {number}: refused, with {served} of {most} clients, {of_address} of its address"
                )
            });
        }
        let given_up = std::mem::take(&mut self.links[number].given_up_before);
        let left = given_up.into_iter().find(|&gone| {
            let gives_seat =
                served >= most || !self.plan.proxied && self.peer_address(gone) == self.peer_address(number);
            gives_seat && !self.links[gone].closed
        });
        if let Some(gone) = left
            && !self.stop_asked
        {
            self.model
                .accuse(|| format!("link {number}: refused, though link {gone} had left before it came"));
        }
    }

    /// Clients that were accepted and are still there.
    fn served(&self) -> usize {
        let alive = self.model.alive().iter();
        alive.filter(|&&number| !self.links[number].is_upstream).count()
    }

    const fn most_of_address(&self) -> Option<usize> {
        self.plan.limits.max_clients_per_address
    }

    fn accept(&mut self) -> io::Result<(usize, SocketAddr)> {
        self.call();
        if self.interrupted() {
            return Err(ErrorKind::Interrupted.into());
        }
        if self.open_streams >= self.descriptors() {
            self.accept_failed = true;
            self.refused_accepts += 1;
            note!(self, 22, 0, 0, "accept fails");
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        self.accept_failed = false;
        if self.has(Trouble::MidTurn) && self.has(Trouble::Resets) && self.rng.u8(..4) == 0 {
            self.swap_peers();
        }
        self.work.comers += 1;
        let Some(number) = self.backlog.pop_front() else {
            note!(self, 23, 0, 0, "nobody to accept");
            return Err(ErrorKind::WouldBlock.into());
        };
        if self.links[number].reset && self.rng.bool() {
            self.links[number].closed = true;
            return Err(ErrorKind::ConnectionAborted.into());
        }
        note!(self, 24, number, 0, "accept link {number}");
        self.links[number].longest_retransmission = Some(self.longest_retransmissions.0);
        self.open_streams += 1;
        Ok((number, self.peer_address(number)))
    }

    fn connect(&mut self) -> io::Result<usize> {
        self.call();
        if self.open_streams >= self.descriptors() {
            self.no_descriptor_turn = self.turn;
            self.model.connect_failed();
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let number = self.new_link(Connecting::Pending);
        self.work.comers += 1;
        self.links[number].is_upstream = true;
        self.links[number].longest_retransmission = Some(self.longest_retransmissions.1);
        note!(self, 25, number, 0, "connect link {number}");
        self.unnamed.push(number);
        self.open_streams += 1;
        Ok(number)
    }

    fn register(&mut self, number: usize, id: ClientId) -> io::Result<()> {
        self.call();
        if self.has(Trouble::FailedAccepts) && self.rng.u8(..32) == 0 {
            note!(self, 26, number, 0, "link {number} cannot be registered");
            self.links[number].unregistered = true;
            self.accept_failed = true;
            if self.links[number].is_upstream {
                self.model.connect_failed();
            }
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        note!(self, 27, number, id.to_token(), "link {number} is {id:?}");
        let token = id.to_token();
        let index = token & 0xffff_ffff;
        if self.places.len() <= index {
            self.places.resize(index + 1, (usize::MAX, usize::MAX));
        }
        self.places[index] = (token, number);
        let link = &mut self.links[number];
        let connecting = link.connecting != Connecting::Made;
        link.id = Some(id);
        link.edge_out = !connecting;
        link.edge_in = link.unread();
        self.model.admit(number, index as u32, connecting);
        let link = &self.links[number];
        if let Some(header) = link.header {
            self.model
                .expect_header(number, link.header_bytes, header == Header::Wrong);
        }
        self.model.seen.served += u64::from(!self.links[number].is_upstream);
        let (served, most) = (self.served(), self.plan.max_clients);
        // Who is there already stays when fewer are admitted.
        if served > most && !self.links[number].is_upstream {
            self.model
                .accuse(|| format!("{served} clients are served, at most {most} should be"));
        }
        if !connecting || self.links[number].edge_in {
            self.queue(number);
        }
        Ok(())
    }
}

/// The simulated network, as the engine sees it.
pub(crate) struct SimulatedNetwork(pub(crate) Shared);

impl Network for SimulatedNetwork {
    type Stream = SimulatedStream;

    fn accept(&mut self) -> io::Result<(SimulatedStream, SocketAddr)> {
        let (number, peer) = self.0.borrow_mut().accept()?;
        let world = Rc::clone(&self.0);
        Ok((SimulatedStream { world, number }, peer))
    }

    fn register(&mut self, stream: &mut SimulatedStream, id: ClientId) -> io::Result<()> {
        self.0.borrow_mut().register(stream.number, id)
    }

    fn connect(&mut self, _: SocketAddr) -> io::Result<SimulatedStream> {
        let number = self.0.borrow_mut().connect()?;
        let world = Rc::clone(&self.0);
        Ok(SimulatedStream { world, number })
    }

    fn splice(
        &mut self,
        from: &mut SimulatedStream,
        to: &mut SimulatedStream,
        rest: &mut [u8],
    ) -> Option<io::Result<Spliced>> {
        let mut world = self.0.borrow_mut();
        Some(world.splice(from.number, to.number, rest))
    }

    fn limits_changed(&mut self, limits: &Limits) {
        self.0.borrow_mut().longest_retransmissions = longest_retransmissions(limits);
    }

    fn stop_listening(&mut self) {
        let mut world = self.0.borrow_mut();
        if !std::mem::replace(&mut world.listening, false) {
            world.model.accuse(|| "stopped listening twice".to_owned());
        }
        let is_left = !world.backlog.is_empty() && !world.accept_failed;
        if is_left && !world.has(Trouble::Interrupts) && !world.model.hands_over {
            world
                .model
                .accuse(|| "stopped listening with connections in the backlog".to_owned());
        }
        for number in std::mem::take(&mut world.backlog) {
            world.links[number].closed = true;
        }
    }
}

/// The engine's end of one link.
pub(crate) struct SimulatedStream {
    world: Shared,
    number: usize,
}

impl Read for SimulatedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.world.borrow_mut().read(self.number, buffer)
    }
}

impl Write for SimulatedStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.world.borrow_mut().write(self.number, &[IoSlice::new(data)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.world.borrow_mut().write(self.number, slices)
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
        self.world.borrow_mut().finish_connect(self.number)
    }

    fn shut_down_write(&mut self) -> io::Result<()> {
        self.world.borrow_mut().shut_down_write(self.number)
    }

    fn reset_on_close(&mut self) {
        self.world.borrow_mut().links[self.number].close_is_reset = true;
    }

    fn bound_retransmissions(&mut self, longest: Duration) {
        self.world.borrow_mut().links[self.number].longest_retransmission = Some(longest);
    }

    fn is_settled(&self) -> bool {
        let mut world = self.world.borrow_mut();
        world.call();
        world.links[self.number].is_settled()
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.world.borrow_mut().take_error(self.number)
    }

    fn peer_state(&self) -> PeerState {
        PeerState::WindowClosed
    }

    /// Where the engine should look, a window that changes from look to look,
    /// and is closed half of the time.
    fn peer_window(&self) -> Option<PeerWindow> {
        let mut world = self.world.borrow_mut();
        world.plan.limits.slowest_reader_bytes_per_s?;
        let looks = world.model.window_looks(self.number)?;
        let largest = [1_000, 60_000, 400_000][self.number % 3];
        let seed = world.plan.seed ^ (self.number as u64) << 40 ^ looks << 20;
        let mut rng = fastrand::Rng::with_seed(seed);
        let window_bytes = if rng.bool() { 0 } else { rng.u32(..largest) };
        let is_withdrawn = window_bytes == 0 && rng.u8(..16) == 0;
        world.model.window_told(self.number, window_bytes, is_withdrawn);
        Some(PeerWindow {
            window_bytes,
            round_trip: Duration::from_micros(rng.u64(..4_000)),
            is_withdrawn,
        })
    }

    fn check_acknowledgements(&mut self, _: Duration) -> bool {
        self.world.borrow_mut().model.check_acknowledgements(self.number);
        self.number.is_multiple_of(2)
    }
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        self.world.borrow_mut().close(self.number);
    }
}
