//! Why a client was closed, and why a server could not start.
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
}

/// Whether an operation failed because descriptors ran out, of this process or
/// of the machine (`EMFILE`, `ENFILE`).
#[must_use]
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// The server is stopping and begins no new connections: the answer of
/// [`Actions::connect`](crate::event_loop::Actions::connect).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping;

impl fmt::Display for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server is stopping and begins no new connections")
    }
}

impl std::error::Error for Stopping {}

/// Whether a connection was not begun because the server is [`Stopping`].
#[must_use]
pub fn is_stopping(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Stopping>())
}

/// The operation on a socket that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Slow(reason) => reason.fmt(f),
            Self::Failed(operation, error) => write!(f, "{operation} failed: {error}"),
            Self::Rejected(why) => f.write_str(why),
            Self::Reset => f.write_str("reset"),
            Self::NotAcknowledged => f.write_str("end not acknowledged"),
            Self::Stopped => f.write_str("server stopped"),
            Self::ConnectTimedOut(after) => {
                write!(f, "connect timed out after {:.3} s", after.as_secs_f64())
            }
        }
    }
}

/// Why a server could not start, or had to end.
#[derive(Debug)]
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
            Self::Listen(address, error) => {
                write!(f, "cannot listen on {address}: {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        f.write_str("; stop the program that has the port, or choose another with --port (0 takes a free one)")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        f.write_str("; --host must be an address of this machine, such as 127.0.0.1, ::1 or 0.0.0.0")
                    }
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; ports below 1024 need a privilege: choose a higher one with --port")
                    }
                    _ => Ok(()),
                }
            }
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
