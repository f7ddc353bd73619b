//! Why a client was closed, a connection not begun, a server not started.
//!
//! Owns the reasons that log, counters and tests share. Refuses to log: the
//! place that decides logs once.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::backpressure::SlowReason;
use crate::limits::LimitsError;

/// Why a client was closed.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// Both sides ended in order, and everything sent has arrived.
    Finished,
    /// Too slow, by the named rule.
    Slow(SlowReason),
    /// An operation on the client's socket failed; most often the peer reset
    /// it.
    Failed(Operation, io::Error),
    /// The service rejected the client; the sentence says why.
    Rejected(Cow<'static, str>),
    /// The real address of the client has as many clients as it may have.
    AddressFull,
    /// The service reset the client, since the other end of its pair is gone.
    Reset,
    /// Everything was sent and FIN announced, but the peer did not acknowledge
    /// the last bytes within the grace.
    NotAcknowledged,
    /// The server stopped before the client's queue was empty, or while its
    /// stream was not at its end.
    Stopped,
    /// The upstream did not accept the connection in time.
    ConnectTimedOut(Duration),
    /// Nothing was queued and nothing moved either way for this long.
    Idle(Duration),
    /// One direction had ended, and nothing moved in the other for this long.
    HalfClosed(Duration),
    /// A frame, or a part of its header, brought less than 1 KiB/s.
    FrameTimeout(LateFrame),
}

/// A frame that came too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateFrame {
    /// Bytes of it that have come.
    pub frame_bytes: usize,
    /// How many of these came lately: less than 1 KiB for each second of
    /// [`within`](Self::within).
    pub late_bytes: u64,
    /// The time that counts: that of pauses and of a stopped server is left out.
    pub within: Duration,
}

/// Why a connection to another server was not begun: the answer of
/// [`Actions::connect`](crate::engine::Actions::connect).
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The server is stopping and begins no new connections.
    Stopping,
    /// The client that the connection was for is gone.
    ClientGone,
    /// Descriptors ran out, of this process or of the machine (`EMFILE`,
    /// `ENFILE`). No other address would help.
    OutOfDescriptors(io::Error),
    /// The kernel refused the connection at once.
    Io(io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str("the server is stopping and begins no new connections"),
            Self::ClientGone => f.write_str("the client is gone"),
            Self::OutOfDescriptors(error) | Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::OutOfDescriptors(error) | Self::Io(error) => Some(error),
            Self::Stopping | Self::ClientGone => None,
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => Self::OutOfDescriptors(error),
            _ => Self::Io(error),
        }
    }
}

/// The operation on a socket that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Connecting to another server.
    Connect,
    /// Announcing the end of the stream (FIN).
    ShutDown,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Connect => "connect",
            Self::ShutDown => "end",
        })
    }
}

impl CloseReason {
    /// Whether the peer must see a reset: always except after an orderly end,
    /// so that a truncated stream never looks complete.
    #[must_use]
    pub const fn is_reset(&self) -> bool {
        !matches!(self, Self::Finished)
    }
}

/// The words of reasons other than slowness.
mod word {
    pub(super) const FINISHED: &str = "finished";
    pub(super) const FAILED: &str = "failed";
    pub(super) const REJECTED: &str = "rejected";
    pub(super) const RESET: &str = "reset";
    pub(super) const ADDRESS_FULL: &str = "address full";
    pub(super) const NOT_ACKNOWLEDGED: &str = "end not acknowledged";
    pub(super) const STOPPED: &str = "server stopped";
    pub(super) const CONNECT_FAILED: &str = "connect failed";
    pub(super) const IDLE: &str = "idle";
    pub(super) const HALF_CLOSED: &str = "half-closed";
    pub(super) const FRAME_TIMEOUT: &str = "frame timeout";
}

impl CloseReason {
    /// The reason in a word or a few, without the numbers and the error: what
    /// metrics and a log in JSON call it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Finished => word::FINISHED,
            Self::Slow(reason) => reason.word(),
            Self::Failed(Operation::Connect, _) | Self::ConnectTimedOut(_) => word::CONNECT_FAILED,
            Self::Failed(..) => word::FAILED,
            Self::Rejected(_) => word::REJECTED,
            Self::Reset => word::RESET,
            Self::AddressFull => word::ADDRESS_FULL,
            Self::NotAcknowledged => word::NOT_ACKNOWLEDGED,
            Self::Stopped => word::STOPPED,
            Self::Idle(_) => word::IDLE,
            Self::HalfClosed(_) => word::HALF_CLOSED,
            Self::FrameTimeout(_) => word::FRAME_TIMEOUT,
        }
    }

    /// Every [`word`](Self::word), the slow ones first.
    pub fn words() -> impl Iterator<Item = &'static str> {
        SlowReason::ALL.into_iter().map(SlowReason::word).chain([
            word::NOT_ACKNOWLEDGED,
            word::REJECTED,
            word::IDLE,
            word::HALF_CLOSED,
            word::FRAME_TIMEOUT,
            word::STOPPED,
            word::RESET,
            word::ADDRESS_FULL,
            word::FAILED,
            word::CONNECT_FAILED,
            word::FINISHED,
        ])
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Slow(reason) => reason.fmt(f),
            Self::Failed(operation, error) => write!(f, "{operation} failed: {error}"),
            Self::Rejected(why) => f.write_str(why),
            Self::AddressFull => f.write_str("too many clients of its address"),
            Self::Reset => f.write_str("reset"),
            Self::NotAcknowledged => f.write_str("end not acknowledged"),
            Self::Stopped => f.write_str("server stopped"),
            Self::Idle(_) => f.write_str("idle"),
            Self::HalfClosed(_) => f.write_str("half-closed"),
            Self::FrameTimeout(_) => f.write_str(word::FRAME_TIMEOUT),
            Self::ConnectTimedOut(after) => {
                write!(f, "connect timed out after {:.3} s", after.as_secs_f64())
            }
        }
    }
}

/// Why a server could not start, or had to end.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// Limits contradict each other.
    Limits(LimitsError),
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The event loop cannot be set up or cannot go on.
    EventLoop(&'static str, io::Error),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limits(error) => error.fmt(f),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::EventLoop(step, error) => write!(f, "the event loop cannot {step}: {error}"),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Limits(error) => Some(error),
            Self::Listen(_, error) | Self::EventLoop(_, error) => Some(error),
        }
    }
}

impl From<LimitsError> for ServerError {
    fn from(error: LimitsError) -> Self {
        Self::Limits(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_descriptors_is_told_from_an_address_that_refuses() {
        for (number, is_ours) in [
            (libc::EMFILE, true),
            (libc::ENFILE, true),
            (libc::ECONNREFUSED, false),
            (libc::EADDRNOTAVAIL, false),
        ] {
            let error = ConnectError::from(io::Error::from_raw_os_error(number));
            assert_eq!(
                matches!(error, ConnectError::OutOfDescriptors(_)),
                is_ours,
                "{error}"
            );
        }
    }
}
