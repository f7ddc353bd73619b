//! What only Linux can answer.
//!
//! Owns sockets, their raw options, kernel timers, threads, and what this
//! machine allows. Here and only here stands `unsafe`. Refuses to decide.

pub(crate) mod allocator;
mod cgroup;
pub(crate) mod code_pages;
pub(crate) mod machine;
mod network;
mod splice_pipe;
mod stream;
pub(crate) mod tcp_facts;
pub(crate) mod tcp_info;
#[cfg(feature = "probe")]
pub(crate) mod threads;
#[cfg(feature = "probe")]
pub(crate) mod timer;

pub(crate) use network::KernelNetwork;
#[cfg(test)]
pub(crate) use stream::KernelStream;
