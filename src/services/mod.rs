//! What servers do with their clients.
//!
//! Each service sees only [`Actions`](crate::Actions): no socket,
//! no mio, no clock.

mod echo;
mod framed_echo;
mod tunnel;

pub use echo::Echo;
pub use framed_echo::FramedEcho;
pub use tunnel::{ProxyProtocol, Target, Tunnel};
