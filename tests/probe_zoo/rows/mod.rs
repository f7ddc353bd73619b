//! All rows of the zoo.

mod bad;
mod brokers;
mod defended;
mod echo;
mod http;
mod programs;
mod push;
mod reach;

use crate::row::Row;

pub(crate) fn all() -> Vec<Row> {
    [
        http::rows(),
        push::rows(),
        brokers::rows(),
        echo::rows(),
        reach::rows(),
        defended::rows(),
        bad::rows(),
        programs::rows(),
    ]
    .concat()
}
