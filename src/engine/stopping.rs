//! Stopping: nobody new is accepted, conversations go on until they end, and
//! what is left after the stop timeout is reset.
//!
//! Owns the steps of a stop, and when a client has nothing more to say.
//! Refuses signals: the program hears them.

use std::time::Instant;

use log::info;

use super::actions::Actions;
use super::client::readiness::Event;
use super::client::{Ending, Input, Phase};
use super::client_table::ClientId;
use super::core::{Core, Engine, Stop, Successor};
use super::network::{Network, Stream};
use super::service::Service;
use crate::error::CloseReason;
use crate::limits::{BACKLOG_CONNECTIONS, FAREWELL, STOP_SILENCE};
use crate::units::format_time;

impl<N: Network, S: Service> Engine<N, S> {
    /// Takes the next step of a stop, if somebody asked for one.
    pub(super) fn advance_stop(&mut self) {
        match self.core.stop {
            Stop::No => return,
            Stop::Asked(successor) => self.begin_stop(successor),
            Stop::Draining { by, .. } if self.core.now >= by => {
                for id in self.core.ids() {
                    self.core.mark_closed(id, CloseReason::Stopped);
                }
            }
            Stop::Draining { by, successor } => {
                let closes_silent = self.core.closes_silent(by, successor);
                for id in self.core.ids() {
                    self.core.advance_end(id);
                    if closes_silent {
                        self.close_if_silent(id);
                    }
                }
            }
        }
        self.sweep();
    }

    fn begin_stop(&mut self, successor: Successor) {
        match successor {
            Successor::None => self.accept_backlog(),
            // Its own newcomers are in no backlog any more.
            Successor::Accepts => self.seat_newcomers_at_once(),
        }
        let time = self.core.limits.stop_timeout;
        if !self.has_role() {
            info!(
                event = "stopping",
                clients = self.core.client_count();
                "stopping: {} clients have {} to finish",
                self.core.client_count(),
                format_time(time)
            );
        }
        self.core.stop = Stop::Draining {
            by: self.core.now + time,
            successor,
        };
        self.core.network.stop_listening();
        self.acceptor.stop();
        self.core.refusals.stop(self.core.now);
        self.service.stopping(&mut Actions::new(&mut self.core));
    }

    /// Serves clients whose connection the kernel has already made for us: to
    /// them the server is there.
    fn accept_backlog(&mut self) {
        self.acceptor.announce();
        self.seat_newcomers_at_once();
        for _ in 0..BACKLOG_CONNECTIONS {
            if !self.acceptor.is_due(self.core.now) {
                return;
            }
            self.accept_one();
            self.seat_newcomers_at_once();
        }
    }

    /// Closes a client that is done: it has been answered and says nothing.
    /// Pairs and clients that wait for an upstream end by themselves.
    fn close_if_silent(&mut self, id: ClientId) {
        let now = self.core.now;
        if !self.core.is_done(id, now) {
            return;
        }
        if let Some(client) = self.core.clients.get_mut(id) {
            // Something may have come that no event has announced yet.
            client.readiness.announce(Event {
                readable: true,
                ..Event::default()
            });
        }
        self.read(id);
        if self.core.is_done(id, now) {
            self.core.close_for_stop(id);
            // Before the service is told of others, and writes to this one.
            self.sweep();
        } else {
            self.core.list_if_work(id);
        }
    }
}

impl<N: Network> Core<N> {
    pub(super) fn is_stopping(&self) -> bool {
        self.stop != Stop::No
    }

    /// Asks for a stop in order. Further calls change nothing.
    pub(super) fn stop(&mut self, successor: Successor) {
        if self.stop == Stop::No {
            self.stop = Stop::Asked(successor);
        }
    }

    /// Whether a client that has been silent is closed now. Where another
    /// process goes on accepting there is no hurry: a client whose first bytes
    /// come late, because its machine is busy, is answered all the same.
    fn closes_silent(&self, by: Instant, successor: Successor) -> bool {
        match successor {
            Successor::None => true,
            Successor::Accepts => self.now + FAREWELL >= by,
        }
    }

    /// Whether a client has nothing queued and nothing unread, and has been
    /// silent for long enough.
    fn is_done(&mut self, id: ClientId, now: Instant) -> bool {
        let Some(client) = self.clients.get(id) else {
            return false;
        };
        let is_own = |other: &ClientId| *other == id;
        let is_alone = !client.is_upstream()
            && client.pipe.names().all(|to| is_own(&to))
            && client.sources.as_slice().iter().all(is_own);
        let is_waiting = client.input == Input::Paused;
        if client.phase != Phase::Open || !is_alone || is_waiting {
            return false;
        }
        let silence = self.silence.of(id, client, now);
        client.queue.is_empty() && !client.may_have_unread() && silence >= STOP_SILENCE
    }

    /// Ends a client that is done. If the service still holds bytes of it, an
    /// unfinished frame say, its stream is not complete.
    fn close_for_stop(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        let is_ended = client.queue.is_ended();
        if client.held_bytes == 0 && !is_ended {
            client.phase = Phase::Closing(Ending::IfNothingElseCame);
            client.queue.end();
            self.advance_end(id);
        } else if client.stream.is_settled() {
            // A client to which its service has said its last word loses nothing.
            let is_complete = client.held_bytes == 0;
            let reason = if is_complete {
                CloseReason::Finished
            } else {
                CloseReason::Stopped
            };
            self.mark_closed(id, reason);
        }
    }
}
