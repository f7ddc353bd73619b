//! Bytes in, messages out; each parser with a maximum.
//!
//! Pure: no sockets, no files, no log and no clock in here.

pub mod frame;
pub mod glob;
#[cfg(feature = "serve")]
pub mod http1;
#[cfg(feature = "tunnel")]
pub mod proxy;
pub mod resp;
