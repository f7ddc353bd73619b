//! A TCP server toolkit in which no slow client can hurt the others.

pub mod backpressure;
pub mod error;
pub mod event_loop;
pub mod limits;
pub mod services;
pub mod units;
