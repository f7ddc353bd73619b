//! HTTP/1.1 as a server of files speaks it: request heads, byte ranges,
//! conditional requests, response heads (RFC 9110 and 9112).
//!
//! Owns what bytes mean. Refuses to know sockets, files and the clock: sizes,
//! dates and validators are arguments.

pub mod conditional;
mod fields;
pub mod limits;
pub mod range;
mod refusal;
pub mod request;
pub mod response;
pub mod target;

pub use conditional::{Precondition, Validators};
pub use range::{ByteRange, Ranges};
pub use refusal::Refusal;
pub use request::{Method, Request, head_end};
pub use response::{ResponseHead, Status};
pub use target::{Target, TargetRefusal};
