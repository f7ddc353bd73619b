//! The ways to make a server send: what a client says, and whether what comes back is right.
//!
//! Pure: bytes out, bytes in. One file for each protocol. Knows neither sockets nor time.

pub(crate) mod echo;
pub(crate) mod framed;
pub(crate) mod http;
pub(crate) mod pattern;
pub(crate) mod push;
pub(crate) mod wire;
pub(crate) mod wires;
