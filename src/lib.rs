//! A TCP server toolkit in which no slow client can hurt the others.

pub mod backpressure;
pub mod limits;
pub mod units;
