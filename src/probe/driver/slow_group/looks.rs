//! Looks at slow clients, tick by tick: how far each has come, and what it does by the clock.

use std::time::Instant;

use super::SlowClients;
use crate::kernel::tcp_info;
use crate::probe::clients::fullness::Look;
use crate::probe::driver::socket::ClientStream;
use crate::probe::server::ServerMonitor;

/// Most clients looked at in one tick, in turn. Each costs some 3 µs of system calls; all of
/// a thousand at every tick would take a fifth of the time that the healthy clients need.
const CLIENTS_PER_TICK: usize = 200;

/// Most clients that mind the clock and are looked at in every tick, whatever the number of others:
/// a pause of seconds must not grow with it.
const MINDED_PER_TICK: usize = 128;
/// How many of these send in one tick without waiting for their turn, 64 KiB each.
const SENDS_PER_TICK: usize = 8;

impl<S: ClientStream> SlowClients<'_, S> {
    /// Looks at the next few of them.
    pub(crate) fn look_at_some(&mut self, now: Instant, monitor: Option<&ServerMonitor>, buffer: &mut [u8]) {
        let mut minding = std::mem::take(&mut self.minding);
        for &index in minding.iter().take(MINDED_PER_TICK) {
            self.look_at(index, now, monitor, buffer);
        }
        for &index in minding.iter().take(SENDS_PER_TICK) {
            self.send_out_of_turn(index, now, buffer);
        }
        let others_next = SENDS_PER_TICK.min(minding.len());
        minding.rotate_left(others_next);
        self.minding = minding;
        let clients = &self.clients;
        self.minding.retain(|&index| clients[index].minds_the_clock());
        for _ in 0..self.clients.len().min(CLIENTS_PER_TICK) {
            let index = self.next_looked_at % self.clients.len();
            self.next_looked_at = index + 1;
            self.look_at(index, now, monitor, buffer);
        }
    }

    /// One that has to fill up before its pause begins does not wait behind thousands that fill up, too.
    fn send_out_of_turn(&mut self, index: usize, now: Instant, buffer: &mut [u8]) {
        let client = &mut self.clients[index];
        if client.may_send() {
            let turn = client.send(now, buffer);
            self.follow(index, turn, buffer);
        }
    }

    /// Notes how far a client has come, and goes on with what it does by the clock.
    fn look_at(&mut self, index: usize, now: Instant, monitor: Option<&ServerMonitor>, buffer: &mut [u8]) {
        if self.clients[index].is_due_back(now) {
            return self.come_back(index, now);
        }
        let client = &mut self.clients[index];
        if client.is_over() || !client.is_connected() {
            return;
        }
        let look = Look {
            unacknowledged: tcp_info::unacknowledged_bytes(client.stream().tcp()).unwrap_or(0),
            unread: tcp_info::unread_bytes(client.stream().tcp()).unwrap_or(0),
            server: monitor.and_then(|monitor| monitor.queues(self.ports[index])),
        };
        client.note(look, now);
        // Reading keeps to a pace, so it does not wait for its turn; sending may.
        let turn = client.read(now, buffer);
        if client.may_send() {
            self.more.push(index);
        }
        self.follow(index, turn, buffer);
    }

    /// A server that closes without a reset cannot be seen doing so by a client with a full receive buffer.
    pub(crate) fn note_orphans(&mut self, monitor: &ServerMonitor, now: Instant) {
        for (client, port) in self.clients.iter_mut().zip(&self.ports) {
            client.set_held(monitor.held_at(*port));
            // A server of whole answers may linger behind its last one; what it sent tells.
            let left = if client.knows_its_end() {
                monitor.closed_bytes(*port)
            } else {
                monitor.orphan_bytes(*port)
            };
            if let Some(bytes) = left {
                client.was_left(now, bytes);
            }
        }
    }
}
