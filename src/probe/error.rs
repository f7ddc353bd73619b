//! Why a probe could not be made at all. A bad server is a finding, never an error.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::probe::printable::printable;

/// What kept the probe from starting or going on; each prints as one line.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProbeError {
    /// The name of the server leads to no address.
    NoAddress {
        /// As it was typed.
        target: String,
        /// What the resolver said, when it said anything.
        source: Option<io::Error>,
    },
    /// No connection could be made.
    Unreachable {
        /// The address tried.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The first client was closed before it had an answer.
    ClosedAtOnce {
        /// The address tried.
        address: SocketAddr,
        /// How the server ended it.
        how: &'static str,
    },
    /// The first client got no answer in time.
    NoAnswer {
        /// The address tried.
        address: SocketAddr,
        /// What was sent, in words.
        sent: String,
        /// How long the probe waited.
        waited: Duration,
        /// Which step before the protocol it waited for, if one.
        waits_for: Option<String>,
    },
    /// The first client got something else than the protocol asks for.
    WrongAnswer {
        /// The address tried.
        address: SocketAddr,
        /// What is wrong with it.
        why: String,
    },
    /// It was ended before there was a result.
    Interrupted,
    /// More clients than this process may have descriptors.
    TooManyClients {
        /// Clients asked for.
        clients: usize,
        /// Descriptors needed.
        needed: u64,
        /// Descriptors allowed.
        allowed: u64,
    },
    /// A number of the plan is out of its range, or does not fit to another.
    Field {
        /// The field of the plan.
        field: &'static str,
        /// What is wrong with it, to be read after its name.
        problem: String,
    },
    /// The operating system refused something that the prober itself needs.
    System {
        /// What was tried.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

impl std::fmt::Display for ProbeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAddress {
                target,
                source: Some(source),
            } => {
                write!(
                    f,
                    "cannot resolve {target}: {source}; write HOST:PORT, such as 127.0.0.1:9000"
                )
            }
            Self::NoAddress { target, source: None } => {
                write!(
                    f,
                    "{target} leads to no address; write HOST:PORT, such as 127.0.0.1:9000"
                )
            }
            Self::Unreachable { address, source } => {
                write!(f, "cannot connect to {address}: {source}; is the server running?")
            }
            Self::ClosedAtOnce { address, how } => write!(
                f,
                "{address} closed the first client before answering it ({how}); \
                 does the server speak the protocol chosen?"
            ),
            Self::NoAnswer {
                address,
                waited,
                waits_for: Some(step),
                ..
            } => write!(
                f,
                "{address} did not get past {step} within {} s; is that what the server says first?",
                waited.as_secs_f64()
            ),
            Self::NoAnswer {
                address,
                sent,
                waited,
                waits_for: None,
            } => write!(
                f,
                "{address} did not answer {sent} within {} s; does the server speak the protocol chosen?",
                waited.as_secs_f64()
            ),
            Self::WrongAnswer { address, why } => write!(f, "{address} answered wrongly: {why}"),
            Self::TooManyClients {
                clients,
                needed,
                allowed,
            } => write!(
                f,
                "{clients} clients need {needed} descriptors, but this process may open {allowed}; \
                 ask for fewer clients, or raise the limit with `ulimit -n {needed}`"
            ),
            Self::Interrupted => f.write_str("interrupted before there was a result"),
            Self::Field { field, problem } => write!(f, "{field} {problem}"),
            Self::System { doing, source } => write!(f, "cannot {doing}: {source}"),
        }
    }
}

impl std::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoAddress { source, .. } => source.as_ref().map(|e| e as _),
            Self::Unreachable { source, .. } | Self::System { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl ProbeError {
    /// The same error; where an answer is wrong, it says to what it was the answer.
    #[must_use]
    pub(crate) fn about(self, message: &str) -> Self {
        match self {
            Self::WrongAnswer { address, why } => Self::WrongAnswer {
                address,
                why: printable(&format!("{message} got {why}")),
            },
            other => other,
        }
    }

    /// Wraps what the operating system refused.
    pub(crate) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}
