//! What is kept for operators, and how long a service manager and a successor
//! are waited for.

use std::time::Duration;

/// Clients that have left and are kept for an operator, for each reason. One
/// takes some 200 bytes: all reasons together at most 3 MB.
pub const GONE_CLIENTS: usize = 1000;

/// Most clients that may go together when a limit was lowered. More of them are
/// spread over a second such time: each disconnect costs the kernel 15 us, and
/// they come back together.
pub const TOGETHER_CLIENTS: usize = 100;

/// Clients that would have been disconnected in shadow mode, and whose end is
/// remembered. One takes some 100 bytes.
pub const SHADOW_ENDINGS: usize = 1000;

/// Most clients that an operator's question looks at in one turn. Each costs up
/// to two system calls of 0.6 us.
pub const INSPECTED_CLIENTS_PER_TURN: usize = 128;

/// Time between two beats of a loop that is watched; how late one comes is the
/// loop's lag.
pub const BEAT_INTERVAL: Duration = Duration::from_millis(100);

/// Longest time between two messages to the service manager about how many
/// clients are served.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Longest wait until the service manager takes a message that must not be
/// lost. The event loop never waits for it.
pub const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait of a reload until the event loop has the new limits in force.
pub const RELOAD_TIMEOUT: Duration = Duration::from_secs(2);

/// Most listening sockets that a service manager or a predecessor may pass.
pub const MAX_PASSED_SOCKETS: usize = 64;

/// Longest wait for the other side's next message when listening sockets change
/// hands.
pub const TAKE_OVER_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time from the listening sockets to the message that the successor
/// accepts on them.
pub const TAKE_OVER_START_TIMEOUT: Duration = Duration::from_secs(60);

/// Most programs that may ask for the listening sockets at the same time.
pub const MAX_TAKE_OVER_CALLERS: usize = 4;
