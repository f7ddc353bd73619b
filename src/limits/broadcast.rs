//! Limits of `highwater broadcast`.

/// Longest argument of a command, and so longest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Most arguments of a command.
pub const MAX_ARGUMENTS: usize = 1024;

/// Longest name of a channel or pattern, and longest inline command, in bytes.
pub const MAX_CHANNEL_BYTES: usize = 64 * 1024;

/// Most bytes of a command beyond its longest message.
pub const COMMAND_EXTRA_BYTES: usize = 1024 * 1024;

/// Most channels and patterns that one client subscribes to.
pub const MAX_SUBSCRIPTIONS_PER_CLIENT: usize = 100_000;

/// Most subscriptions of all clients together.
pub const MAX_SUBSCRIPTIONS: usize = 1_000_000;

/// Memory of a channel or pattern, beside its name and its subscribers
/// (measured: with one subscriber 571 B).
pub const TOPIC_BYTES: usize = 480;

/// Memory of one subscription.
pub const SUBSCRIPTION_BYTES: usize = 96;

/// Most commands between MULTI and EXEC.
pub const MAX_QUEUED_COMMANDS: usize = 10_000;

/// Hard limit of a subscriber, in bytes. Redis has the same.
pub const HARD_LIMIT_BYTES: usize = 32 * 1024 * 1024;
