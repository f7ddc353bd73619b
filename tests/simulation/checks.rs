//! What must hold at every system call and after every turn.
//!
//! Owns the checks that the connections themselves allow: the right bytes, all
//! of them, no FIN behind a truncated stream, and no client forgotten. Refuses
//! to keep books: the model does.

use std::io::IoSlice;

use super::content::{LONGEST_PIECE_BYTES, piece};
use super::link::Connecting;
use super::plan::Kind;
use super::world::{World, longest_retransmissions};

impl World {
    /// The loop may not wait while there is work that no event will announce.
    pub(crate) fn check_nobody_forgotten(&mut self) {
        for at in 0..self.model.alive().len() {
            let number = self.model.alive()[at];
            if let Some(what) = self.forgotten(number) {
                let link = format!("{:?}; {:?}", self.links[number], self.model.ledgers[number]);
                self.model
                    .accuse(|| format!("link {number} is forgotten: {what}; {link}"));
            }
        }
        let can_accept = self.open_streams < self.descriptors();
        if !self.backlog.is_empty()
            && !self.listener_edge
            && self.listening
            && !self.accept_failed
            && can_accept
        {
            self.model
                .accuse(|| "connections are left waiting in the backlog".to_owned());
        }
    }

    /// The kernel repeats what is lost as often as the graces in force ask for.
    pub(crate) fn check_retransmissions(&mut self) {
        let (of_clients, of_upstreams) = longest_retransmissions(&self.plan.limits);
        let other = self.open.iter().copied().find(|&number| {
            let link = &self.links[number];
            let owed = if link.is_upstream {
                of_upstreams
            } else {
                of_clients
            };
            let is_other = link.longest_retransmission.is_some_and(|longest| longest != owed);
            is_other && !link.closed
        });
        if let Some(number) = other {
            let longest = self.links[number].longest_retransmission;
            self.model
                .accuse(|| format!("link {number}: {longest:?} between two retransmissions"));
        }
    }

    pub(crate) fn forgotten(&self, number: usize) -> Option<&'static str> {
        let link = &self.links[number];
        let ledger = &self.model.ledgers[number];
        if link.connecting != Connecting::Made {
            let decided = link.connecting == Connecting::Refused;
            return (decided && !link.edge_out).then_some("its connection was refused");
        }
        if ledger.connecting_since.is_some() {
            return (!link.edge_out).then_some("its connection has been made");
        }
        if link.reset && !link.reset_told && !link.edge_in && ledger.is_alive() {
            return Some("it has reset");
        }
        let to = self.destination(number);
        if link.unread() && !link.edge_in && self.model.may_be_read(number, to) {
            return Some("it has sent something");
        }
        if ledger.queue() > 0 && !link.refused && !link.edge_out {
            return Some("its socket has room");
        }
        let quiet = !link.unread() && !link.edge_in && !link.edge_out;
        if (link.end_read || ledger.closing) && link.ended && quiet && link.is_settled() {
            return Some("both sides have ended");
        }
        None
    }

    /// Every byte must be the right one for its place.
    pub(crate) fn check_bytes(&mut self, number: usize, slices: &[IoSlice<'_>], count: usize) {
        let mut left = count;
        let mut offset = self.links[number].taken;
        for slice in slices {
            let mut part = &slice[..left.min(slice.len())];
            left -= part.len();
            while !part.is_empty() {
                let chunk = part.len().min(LONGEST_PIECE_BYTES);
                let matched = match self.plan.kind {
                    Kind::Herald => self.match_told(number, &part[..chunk]),
                    Kind::Tunnel => self.links[number]
                        .partner
                        .map_or(0, |from| self.match_link(from, offset, &part[..chunk])),
                    Kind::Echo | Kind::FramedEcho => self.match_link(number, offset, &part[..chunk]),
                    Kind::Meddler => chunk,
                };
                if matched == 0 {
                    self.model
                        .accuse(|| format!("link {number}: wrong bytes from {offset} on"));
                    return;
                }
                offset += matched as u64;
                part = &part[matched..];
            }
        }
    }

    pub(crate) fn match_link(&self, from: usize, offset: u64, data: &[u8]) -> usize {
        let source = &self.links[from];
        let expected = source.content.at(source.header_bytes + offset, data.len());
        if expected == data { data.len() } else { 0 }
    }

    pub(crate) fn match_told(&mut self, number: usize, data: &[u8]) -> usize {
        let told = &mut self.links[number].told;
        let Some((at, length)) = told.front_mut() else {
            return 0;
        };
        let count = data.len().min(*length);
        if piece(*at, count) != &data[..count] {
            return 0;
        }
        *at += count;
        *length -= count;
        if *length == 0 {
            told.pop_front();
        }
        count
    }

    pub(crate) fn check_usable(&mut self, number: usize) {
        if self.links[number].closed {
            self.model
                .accuse(|| format!("link {number}: used after it was closed"));
        }
    }

    /// A FIN tells the peer that its stream is complete. A stopping server may
    /// truncate a stream only by a reset.
    pub(crate) fn check_whole(&mut self, number: usize) {
        let ledger = &self.model.ledgers[number];
        if !ledger.stopped || ledger.cut_short || self.links[number].reset {
            return;
        }
        let from = match self.plan.kind {
            Kind::Echo | Kind::FramedEcho => number,
            Kind::Tunnel => match self.links[number].partner {
                Some(from) => from,
                None => return,
            },
            Kind::Herald | Kind::Meddler => return,
        };
        let (source, ledger) = (&self.links[from], &self.model.ledgers[from]);
        let all_said = from == number || ledger.end_read;
        // Input after the last read does not count.
        let looked = source.dry_turn >= self.model.ledgers[number].stopped_turn;
        let unread = if looked { 0 } else { source.waiting() };
        let lost = source.read - source.header_bytes.min(source.read) - self.links[number].taken;
        let half_frame = if self.plan.kind == Kind::FramedEcho && ledger.end_read {
            ledger.read - ledger.frames.whole_bytes
        } else {
            0
        };
        if unread > 0 || lost > half_frame || !all_said {
            self.model.accuse(|| {
                format!(
                    "link {number}: a clean end, though {unread} bytes were not read and {lost} not sent on"
                )
            });
        }
    }

    pub(crate) fn check_orderly_close(&mut self, number: usize) {
        let link = &self.links[number];
        let ledger = &self.model.ledgers[number];
        let both_ended = ledger.ended && (ledger.end_read || ledger.closing);
        let unread = link.waiting() > 0 && !link.edge_in;
        let may_close = ledger.is_alive() || ledger.is_dismissed();
        let in_order = both_ended && may_close || self.plan.kind == Kind::Meddler;
        if ledger.queue() > 0 || !link.is_settled() || !in_order || unread {
            let fault = format!("link {number}: closed without a reset, though {link:?}; {ledger:?}");
            self.model.accuse(|| fault);
        }
        self.check_complete(number);
        self.check_whole(number);
    }

    /// Once both sides have ended in order, everything has arrived.
    pub(crate) fn check_complete(&mut self, number: usize) {
        let from = match self.plan.kind {
            Kind::Echo | Kind::FramedEcho => Some(number),
            Kind::Tunnel => self.links[number].partner,
            Kind::Herald | Kind::Meddler => None,
        };
        let Some(from) = from else { return };
        let source = &self.model.ledgers[from];
        if !source.end_read || source.thrown > 0 || source.cut_short || self.links[from].reset {
            return;
        }
        let owed = match self.plan.kind {
            Kind::FramedEcho => source.frames.whole_bytes,
            _ => self.links[from].sent - self.links[from].header_bytes.min(self.links[from].sent),
        };
        let (taken, read) = (self.links[number].taken, self.links[from].read);
        if taken != owed {
            self.model.accuse(|| {
                format!("link {number}: ended in order with {taken} of {owed} bytes, {read} read")
            });
        }
    }
}
