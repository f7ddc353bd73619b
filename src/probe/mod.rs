//! `highwater probe`: does a server survive slow clients?
//!
//! Drives healthy and slow clients at any TCP server from one thread and says,
//! with evidence, whether slow ones are stopped and healthy ones unharmed.
//!
//! Start reading at [`Plan`] (what is to be done) and [`Report`] (what came of
//! it); [`probe`] leads from one to the other. Pure parts: `pattern`, `pace`,
//! `tally`, the wires (`echo`, `framed`, ...), `verdict`, `report`, `table`.
//! `driver` owns the poll, `healthy_clients` and `slow_clients` the sockets,
//! `clock` the clock, and `server_process` reads `/proc`. For benchmarks there is [`Load`]: the healthy
//! clients alone, on connections that stay open between slices.

mod args;
mod clock;
pub mod command;
mod driver;
mod echo;
mod error;
mod fast;
mod framed;
mod healthy_clients;
mod http;
mod load;
mod measurement;
mod moment;
mod pace;
mod pattern;
mod plan;
mod plot;
mod preflight;
mod progress;
mod publisher;
mod push;
mod quiet;
mod ready_list;
mod report;
mod seen;
mod server_process;
mod slow;
mod slow_clients;
mod socket;
mod table;
mod tally;
mod verdict;
mod waiting;
mod watcher;
mod wire;
mod wires;

pub use args::ProbeArgs;
pub use error::ProbeError;
pub use fast::End;
pub use load::{Load, LoadCounts, LoadSlice, LostClient};
pub use measurement::{Healthy, Measurement, PhaseFigures, PublisherSeen, ServerSeen, Slice, SlowClientSeen};
pub use pace::Pace;
pub use pattern::Pattern;
pub use plan::{
    BULK_MESSAGE_BYTES, BULK_PIPELINE_MESSAGES, FILL_BYTES, LARGEST_MESSAGE_BYTES, MOST_PIPELINED_MESSAGES,
    PUBLISH_RATE_BYTES, Plan, Protocol,
};
pub use plot::plot;
pub use report::{Report, SCHEMA, SlowGroup, Spread};
pub use slow::Kind;
pub use table::table;
pub use verdict::{
    Finding, HARMLESS_WAIT_US, LEAST_LEFT, LEAST_RATE_KEPT, LONGEST_WAIT_US, MOST_P99_GROWTH,
    MOST_PUT_DOWN_TO_OTHERS, Outcome, RSS_ALLOWANCE_BYTES, RSS_PER_SLOW_CLIENT_BYTES,
};
pub use watcher::{Live, NoWatcher, Phase, Watcher};

/// Makes one probe and judges it. Takes some 15 s with the plan's defaults.
///
/// # Errors
///
/// When no probe can be made: the plan does not fit together, the server cannot
/// be reached or does not speak the protocol, or this process may not open
/// enough descriptors. What a server does to its clients is never an error.
pub fn probe(plan: &Plan, target: &str, watcher: &mut dyn Watcher) -> Result<Report, ProbeError> {
    plan.check()?;
    preflight::ensure_descriptors(plan.fast + plan.slow())?;
    let mut wires = wires::Wires::new(plan);
    preflight::meet(plan, &mut wires)?;
    let observer = server_process::Observer::of(plan.address, plan.pid);
    let seen = driver::Driver::new(plan, &wires, observer)?.run(watcher)?;
    Ok(Report::new(plan, target, seen))
}
