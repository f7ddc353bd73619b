//! What servers do with their clients.
//!
//! Each service sees only [`Actions`](crate::Actions): no socket,
//! no mio, no clock.

#[cfg(feature = "admin")]
pub mod admin;
pub mod broadcast;
mod echo;
#[cfg(feature = "serve")]
pub mod files;
mod framed_echo;
#[cfg(feature = "tunnel")]
mod tunnel;

#[cfg(feature = "admin")]
pub use admin::{Admin, AdminConfig};
pub use broadcast::Broadcast;
pub use echo::Echo;
#[cfg(feature = "serve")]
pub use files::{Files, FilesConfig, Folder};
pub use framed_echo::{FrameLimitError, FramedEcho};
#[cfg(feature = "tunnel")]
pub use tunnel::{AddressRange, AddressRangeError, ProxyProtocol, Target, TargetError, Tunnel};
