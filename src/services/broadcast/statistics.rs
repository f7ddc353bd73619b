//! What the broadcast service has counted.
//!
//! Owns the numbers. Refuses to name them for monitoring: `measures` does.

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Statistics {
    pub(super) connections: u64,
    pub(super) commands: u64,
    pub(super) lost_messages: u64,
    /// The same by action, in the order of `Action::ALL`.
    pub(super) lost_by_action: [u64; 4],
    pub(super) messages: u64,
    pub(super) publisher_pauses: u64,
    pub(super) deliveries: u64,
    pub(super) subscriptions: usize,
    pub(super) slow_clients: u64,
}
