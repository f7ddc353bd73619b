//! What a machine, or the container in it, has to offer, and the limits that
//! follow where none was chosen.
//!
//! Owns the shares. Refuses to ask the system: the resources come in.

use super::{
    KERNEL_CLIENT_BYTES, KERNEL_OWN_RECEIVE_BYTES, KERNEL_OWN_UNSENT_BYTES, LEAST_MEMORY_BUDGET_BYTES,
    Limits, MEMORY_BUDGET_FALLBACK_BYTES, MEMORY_BUDGET_SHARE, QUEUES_AND_KERNEL_SHARE,
};

/// What a process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Descriptors that it may open for clients.
    pub descriptors: usize,
    /// Bytes of memory: those of the machine, or of the smallest control group
    /// that holds it; `None` if unknown.
    pub memory_bytes: Option<u64>,
    /// Bytes of memory for all TCP sockets of the machine (`tcp_mem`, tcp(7));
    /// `None` if unknown.
    pub tcp_memory_bytes: Option<u64>,
}

impl Resources {
    /// The memory budget in bytes that limits without one get. All queues take at
    /// most a quarter of memory; with what the kernel holds for their clients at
    /// most half of it; and the kernel holds no more than it has for TCP.
    #[must_use]
    pub fn memory_budget_bytes(&self, limits: &Limits) -> usize {
        let Some(memory_bytes) = self.memory_bytes else {
            return MEMORY_BUDGET_FALLBACK_BYTES;
        };
        let mark_bytes = limits.high_water_mark_bytes as u64;
        let kernel_bytes = limits.kernel_bytes_of_stalled();
        let queues_bytes = memory_bytes / MEMORY_BUDGET_SHARE as u64;
        let both_bytes = scaled(
            memory_bytes / QUEUES_AND_KERNEL_SHARE as u64,
            mark_bytes,
            mark_bytes + kernel_bytes,
        );
        let tcp_bytes = self
            .tcp_memory_bytes
            .map_or(u64::MAX, |bytes| scaled(bytes, mark_bytes, kernel_bytes));
        let budget_bytes = queues_bytes.min(both_bytes).min(tcp_bytes);
        saturated(budget_bytes).max(LEAST_MEMORY_BUDGET_BYTES)
    }

    /// The most clients that limits without a number get, with so many sockets
    /// for each. Each socket may hold what the kernel takes before any queue
    /// counts it: together at most a quarter of memory, and all that the kernel
    /// has for TCP.
    #[must_use]
    pub fn max_clients(&self, limits: &Limits, sockets_per_client: usize) -> usize {
        let each_bytes = limits.kernel_bytes_unseen();
        let quarter_bytes = self.memory_bytes.map(|bytes| bytes / MEMORY_BUDGET_SHARE as u64);
        let bounds = [quarter_bytes, self.tcp_memory_bytes].into_iter().flatten();
        let sockets = bounds.map(|bytes| saturated(bytes / each_bytes));
        let sockets = sockets.min().unwrap_or(usize::MAX).min(self.descriptors);
        (sockets / sockets_per_client.max(1)).max(1)
    }
}

impl Limits {
    /// Bytes that the kernel holds for a client that reads nothing while its
    /// queue is empty or below the mark.
    fn kernel_bytes_unseen(&self) -> u64 {
        let unsent_bytes = match self.unsent_bytes {
            0 => KERNEL_OWN_UNSENT_BYTES,
            bytes => bytes,
        };
        (unsent_bytes + KERNEL_CLIENT_BYTES) as u64
    }

    /// Bytes that it holds once the source of the client is paused, too. The
    /// kernel doubles the receive buffer that it is given.
    fn kernel_bytes_of_stalled(&self) -> u64 {
        let receive_bytes = match self.receive_buffer_bytes {
            0 => KERNEL_OWN_RECEIVE_BYTES,
            bytes => bytes * 2,
        };
        self.kernel_bytes_unseen() + receive_bytes as u64
    }
}

/// `bytes * part / whole`.
fn scaled(bytes: u64, part: u64, whole: u64) -> u64 {
    let scaled = u128::from(bytes) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn saturated(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn machine(memory_bytes: u64, tcp_memory_bytes: Option<u64>) -> Resources {
        Resources {
            descriptors: 1_000_000,
            memory_bytes: Some(memory_bytes),
            tcp_memory_bytes,
        }
    }

    #[test]
    fn queues_and_what_the_kernel_holds_for_stalled_clients_fit_into_half_of_memory() {
        let limits = Limits::default();
        for memory_bytes in [GIB / 4, GIB, 64 * GIB] {
            let budget_bytes = machine(memory_bytes, None).memory_budget_bytes(&limits) as u64;
            let stalled = budget_bytes / limits.high_water_mark_bytes as u64;
            let held_bytes = budget_bytes + stalled * limits.kernel_bytes_of_stalled();
            assert!(held_bytes <= memory_bytes / 2, "{held_bytes} of {memory_bytes}");
            assert!(held_bytes > memory_bytes / 3, "{held_bytes} of {memory_bytes}");
        }
    }

    #[test]
    fn clients_that_nobody_sees_to_be_slow_fit_into_a_quarter_of_memory() {
        let limits = Limits::default();
        let container = machine(GIB / 4, None);
        let clients = container.max_clients(&limits, 1);
        assert!(
            clients as u64 * limits.kernel_bytes_unseen() <= GIB / 16,
            "{clients}"
        );
        assert!((500..2000).contains(&clients), "{clients}");
        assert_eq!(
            container.max_clients(&limits, 2),
            clients / 2,
            "a pair has two sockets"
        );
    }

    #[test]
    fn the_kernels_memory_for_tcp_bounds_both() {
        let limits = Limits::default();
        let (wide, narrow) = (machine(64 * GIB, None), machine(64 * GIB, Some(GIB / 4)));
        assert!(narrow.memory_budget_bytes(&limits) < wide.memory_budget_bytes(&limits) / 10);
        assert!(narrow.max_clients(&limits, 1) < wide.max_clients(&limits, 1) / 10);
    }

    #[test]
    fn without_bounds_in_the_kernel_fewer_clients_fit() {
        let (bounded, mut unbounded) = (Limits::default(), Limits::default());
        unbounded.unsent_bytes = 0;
        unbounded.receive_buffer_bytes = 0;
        let machine = machine(GIB, None);
        assert!(machine.max_clients(&unbounded, 1) < machine.max_clients(&bounded, 1) / 10);
        assert!(machine.memory_budget_bytes(&unbounded) < machine.memory_budget_bytes(&bounded) / 10);
    }

    #[test]
    fn descriptors_bound_the_clients_and_nothing_known_leaves_the_rest_open() {
        let unknown = Resources {
            descriptors: 1000,
            memory_bytes: None,
            tcp_memory_bytes: None,
        };
        assert_eq!(unknown.max_clients(&Limits::default(), 1), 1000);
        assert_eq!(unknown.max_clients(&Limits::default(), 0), 1000);
        assert_eq!(unknown.max_clients(&Limits::default(), 3000), 1);
        assert_eq!(
            unknown.memory_budget_bytes(&Limits::default()),
            MEMORY_BUDGET_FALLBACK_BYTES
        );
        let tiny = machine(1 << 20, Some(0));
        assert_eq!(
            tiny.memory_budget_bytes(&Limits::default()),
            LEAST_MEMORY_BUDGET_BYTES
        );
        assert_eq!(tiny.max_clients(&Limits::default(), 1), 1);
    }
}
