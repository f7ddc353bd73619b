//! A TCP server toolkit in which no slow client can hurt the others.

pub mod backpressure;
pub mod cli;
pub mod command;
pub mod error;
pub mod event_loop;
pub mod limits;
pub mod log_backlog;
pub mod probe;
pub mod protocol;
pub mod services;
pub mod units;
