//! What the system offers this process: descriptors and memory.
//!
//! Owns the words about it. Refuses to choose limits: `limits` has the shares.

use std::fmt;

use log::{info, warn};

use crate::kernel::machine::{self, Memory};
use crate::limits::{Limits, RESERVED_DESCRIPTORS, Resources};
use crate::units::format_rounded;

/// What the system offers.
pub(super) struct Offer {
    descriptors: usize,
    memory: Option<Memory>,
    tcp_memory_bytes: Option<u64>,
}

impl Offer {
    pub(super) fn look_up() -> Self {
        Self {
            descriptors: machine::descriptor_limit(),
            memory: machine::memory(),
            tcp_memory_bytes: machine::tcp_memory_bytes(),
        }
    }

    /// The memory budget, and the most clients, where `limits` leave them open.
    pub(super) fn defaults(&self, limits: &Limits, sockets_per_client: usize) -> (usize, usize) {
        let resources = Resources {
            descriptors: self.descriptors.saturating_sub(limits.reserved_descriptors),
            memory_bytes: self.memory.as_ref().map(|memory| memory.bytes),
            tcp_memory_bytes: self.tcp_memory_bytes,
        };
        let available = (resources.descriptors / sockets_per_client.max(1)).max(1);
        if let Some(asked) = limits.max_clients
            && asked > available
        {
            warn!(
                event = "descriptor_limit";
                "--max-clients {asked} is more than the {available} that the descriptor limit allows, \
                 with {sockets_per_client} for each; raise it with `ulimit -n`"
            );
        }
        (
            resources.memory_budget_bytes(limits),
            resources.max_clients(limits, sockets_per_client),
        )
    }

    /// These limits, with the memory budget and the most clients where they leave
    /// them open.
    pub(super) fn complete(&self, mut limits: Limits, sockets_per_client: usize) -> (Limits, usize, usize) {
        let (budget_bytes, max_clients) = self.defaults(&limits, sockets_per_client);
        if limits.reserved_descriptors > RESERVED_DESCRIPTORS {
            // Somebody counts on what is kept back.
            limits.max_clients = limits.max_clients.map(|asked| asked.min(max_clients));
        }
        (limits, budget_bytes, max_clients)
    }

    /// Writes what the system offers.
    pub(super) fn log(&self) {
        info!(
            event = "resources",
            memory_bytes = self.memory.as_ref().map(|memory| memory.bytes),
            tcp_memory_bytes = self.tcp_memory_bytes,
            descriptors = self.descriptors;
            "{self}"
        );
    }

    fn describe_memory(&self) -> String {
        let Some(memory) = &self.memory else {
            return "memory of unknown size".to_owned();
        };
        let size = format_rounded(memory.bytes);
        match &memory.limited_by {
            None => format!("{size} of memory"),
            Some(file) => format!("{size} of memory ({})", file.display()),
        }
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tcp_memory = self
            .tcp_memory_bytes
            .map_or_else(|| "an unknown share".to_owned(), format_rounded);
        write!(
            f,
            "the system offers {}, {tcp_memory} for TCP, {} descriptors",
            self.describe_memory(),
            self.descriptors
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_follow_from_the_container_whose_file_is_named() {
        let offer = Offer {
            descriptors: 1032,
            memory: Some(Memory {
                bytes: 256 << 20,
                limited_by: Some("/sys/fs/cgroup/pod/memory.max".into()),
            }),
            tcp_memory_bytes: None,
        };
        assert_eq!(offer.defaults(&Limits::default(), 1), (31_580_641, 819));
        assert_eq!(
            offer.to_string(),
            "the system offers 256.0MiB of memory (/sys/fs/cgroup/pod/memory.max), \
             an unknown share for TCP, 1032 descriptors"
        );
    }
}
