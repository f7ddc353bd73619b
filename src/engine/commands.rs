//! What a service may ask for, each command in the file of its verb.
//!
//! Owns the table of commands. Refuses logic.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use super::actions::{Commands, Slowness};
use super::client::{Client, ClientName};
use super::client_table::ClientId;
use super::core::{Core, Successor};
use super::file::FilePart;
use super::network::{Network, Stream};
use crate::backpressure::{Answer, SlowReason};
use crate::error::{ConnectError, LateFrame};

impl<N: Network> Commands for Core<N> {
    fn write(&mut self, id: ClientId, data: &[u8]) -> Answer {
        Self::write(self, id, data)
    }

    fn write_shared(&mut self, id: ClientId, data: &Bytes) -> Answer {
        Self::write_shared(self, id, data)
    }

    fn offer(&mut self, id: ClientId, data: &[u8]) -> usize {
        Self::offer(self, id, data)
    }

    fn call_when_writable(&mut self, id: ClientId) {
        Self::call_when_writable(self, id);
    }

    fn try_again(&mut self, id: ClientId) {
        Self::try_again(self, id);
    }

    fn disconnect(&mut self, id: ClientId, reason: SlowReason, slow: Slowness, detail: &str) -> bool {
        Self::disconnect_slow(self, id, reason, slow, detail);
        !self.is_shadowed(reason)
    }

    fn recovered(&mut self, id: ClientId, reason: SlowReason, slow: Slowness) {
        self.shadow_recovery(id, reason, slow);
    }

    fn memory_left(&self) -> usize {
        self.budget.left_bytes()
    }

    fn send_file(&mut self, id: ClientId, parts: Vec<FilePart>) {
        Self::send_file(self, id, parts);
    }

    fn resume_file(&mut self, id: ClientId) {
        Self::resume_file(self, id);
    }

    fn expect_progress(&mut self, id: ClientId) {
        Self::expect_progress(self, id);
    }

    fn acknowledged(&self, id: ClientId) -> u64 {
        Self::acknowledged(self, id)
    }

    fn sent(&self, id: ClientId) -> u64 {
        self.clients.get(id).map_or(0, |client| client.sent_bytes)
    }

    fn pause(&mut self, id: ClientId) {
        Self::pause(self, id);
    }

    fn resume(&mut self, id: ClientId) {
        Self::resume(self, id);
    }

    fn pipe(&mut self, from: ClientId, to: ClientId) {
        Self::pipe(self, from, to);
    }

    fn end(&mut self, id: ClientId) {
        Self::end(self, id);
    }

    fn close(&mut self, id: ClientId) {
        Self::close(self, id);
    }

    fn reject(&mut self, id: ClientId, why: Cow<'static, str>) {
        Self::reject(self, id, why);
    }

    fn reset(&mut self, id: ClientId) {
        Self::reset(self, id);
    }

    fn connect(&mut self, address: SocketAddr, for_client: ClientId) -> Result<ClientId, ConnectError> {
        Self::connect(self, address, for_client)
    }

    fn hold(&mut self, id: ClientId, held_bytes: usize) {
        Self::hold(self, id, held_bytes);
    }

    fn hold_anew(&mut self, id: ClientId, held_bytes: usize) {
        Self::hold_anew(self, id, held_bytes);
    }

    fn time_out_frame(&mut self, id: ClientId, frame: LateFrame) {
        Self::time_out_frame(self, id, frame);
    }

    fn room(&self, id: ClientId) -> usize {
        self.clients.get(id).map_or(0, |client| client.queue.room())
    }

    fn queued(&self, id: ClientId) -> usize {
        self.clients.get(id).map_or(0, |client| client.queue.len())
    }

    fn peer(&self, id: ClientId) -> Option<SocketAddr> {
        self.clients.get(id).map(|client| client.peer)
    }

    fn local(&self, id: ClientId) -> Option<SocketAddr> {
        self.clients.get(id).and_then(|client| client.stream.local_addr())
    }

    fn name(&self, id: ClientId) -> Option<ClientName> {
        self.clients.get(id).map(Client::name)
    }

    fn set_peer(&mut self, id: ClientId, peer: SocketAddr) -> bool {
        Self::set_peer(self, id, peer)
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn stop(&mut self) {
        Self::stop(self, Successor::None);
    }
}
