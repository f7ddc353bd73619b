//! What servers do with their clients.
//!
//! Each service sees only [`Actions`](crate::Actions): no socket,
//! no mio, no clock.

mod echo;
mod framed_echo;
#[cfg(feature = "tunnel")]
mod tunnel;

pub use echo::Echo;
pub use framed_echo::{FrameLimitError, FramedEcho};
#[cfg(feature = "tunnel")]
pub use tunnel::{ProxyProtocol, Target, TargetError, Tunnel};
