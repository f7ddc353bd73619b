//! The clients of `highwater probe`: they send messages, wait for the echo, and
//! verify every byte of it.

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use highwater::probe;

use super::Slice;

/// The settings that all clients share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    /// Bytes of a message, or of the payload of a frame.
    pub(super) size: usize,
    /// Messages in flight, for each client.
    pub(super) in_flight: u32,
    pub(super) is_framed: bool,
    /// The unit of the count: bytes, or else messages.
    pub(super) counts_bytes: bool,
}

/// All such clients of one server.
pub(super) struct Probing {
    exchange: Exchange,
    count: usize,
    /// Absent until the clients are connected, and if there are none.
    load: Option<probe::Load>,
    latency: Option<Histogram<u64>>,
}

impl Probing {
    pub(super) fn new(count: usize, exchange: Exchange) -> Self {
        Self {
            exchange,
            count,
            load: None,
            latency: None,
        }
    }

    pub(super) fn open(&mut self, server: SocketAddr) -> Result<(), String> {
        let Exchange {
            size,
            in_flight,
            is_framed,
            ..
        } = self.exchange;
        if self.count > 0 {
            let load = probe::Load::connect(server, self.count, size, in_flight, is_framed);
            self.load = Some(load.map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    pub(super) fn slice(&mut self, length: Duration) -> Result<Slice, String> {
        let load = self.load.as_mut().ok_or("there are no clients")?;
        let slice = load.run_for(length).map_err(|error| error.to_string())?;
        if let Some(first) = slice.lost.first() {
            return Err(format!(
                "{} of {} clients were lost: {first}",
                slice.lost.len(),
                self.count
            ));
        }
        match &mut self.latency {
            Some(latency) => latency
                .add(&slice.waits)
                .map_err(|error| format!("waits out of bounds: {error}"))?,
            None => self.latency = Some(slice.waits),
        }
        let all = slice.to_last_answer;
        Ok(Slice {
            done: if self.exchange.counts_bytes {
                all.bytes
            } else {
                all.messages
            },
            elapsed: all.elapsed,
        })
    }

    pub(super) fn take_latency(&mut self) -> Option<Histogram<u64>> {
        self.latency.take()
    }
}
