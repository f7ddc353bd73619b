//! A TCP server toolkit in which no slow client can hurt the others.

pub mod probe;
pub mod units;
