//! `highwater probe`: does a server survive slow clients?
//!
//! Drives healthy and slow clients at any TCP server from one thread and says,
//! with evidence, whether slow ones are stopped and healthy ones unharmed.
//!
//! Start reading at [`Plan`] (what to do) and [`Report`] (what came of it); [`probe`] leads from one to the other. `protocol/` says what clients send
//! and checks what comes back, `clients/` what each kind of client does,
//! `report/` what it means: these know no socket and no clock. `driver/` owns
//! the poll, the sockets and the clock, and `server/` reads `/proc`. For
//! benchmarks there is [`Load`]: the healthy clients alone, on connections that
//! stay open between slices.

mod clients;
mod driver;
mod error;
mod kind;
mod load;
mod plan;
mod printable;
mod protocol;
mod report;
mod server;
#[cfg(feature = "tls")]
mod trust;
mod watcher;

pub use clients::opening::Step;
pub use clients::pace::Pace;
pub use driver::addresses::choose_address;
pub use error::ProbeError;
pub use kind::{Disconnect, Fate, KINDS, KindRow, Reading, SlowKind};
pub use load::{Load, LoadCounts, LoadSlice, LostClient};
pub use plan::{
    BULK_MESSAGE_BYTES, BULK_PIPELINE_MESSAGES, FILL_BYTES, Group, Groups, LARGEST_MESSAGE_BYTES,
    MOST_PIPELINED_MESSAGES, PUBLISH_RATE_BYTES, Plan, ProxyVersion, TIMEOUT,
};
pub use protocol::echo::{Echo, EchoConversation};
pub use protocol::framed::Framed;
pub use protocol::http::{Http, Method};
pub use protocol::pattern::Pattern;
pub use protocol::push::Push;
pub use protocol::push::numbers::{NUMBER_BYTES, NUMBER_PLACEHOLDER};
pub use protocol::resp::Resp;
pub use protocol::{
    Conversation, Conversations, Corruption, FIRST_CLIENT, FirstExchange, Protocol, Publishing, Traits, Wire,
};
pub use report::measurement::{
    Healthy, Measurement, PhaseFigures, PublisherSeen, ServerSeen, Slice, SlowClientSeen,
};
#[cfg(feature = "plot")]
pub use report::plot::{plot, svg};
pub use report::table::table;
pub use report::verdict::finding::{Finding, Outcome};
pub use report::verdict::judgement::{FINDINGS, Judgement};
pub use report::verdict::{
    HARMLESS_WAIT_US, LEAST_LEFT, LEAST_RATE_KEPT, LONGEST_WAIT_US, MOST_P99_GROWTH, MOST_PUT_DOWN_TO_OTHERS,
    RSS_ALLOWANCE_BYTES, RSS_PER_SLOW_CLIENT_BYTES,
};
pub use report::{Report, SCHEMA, SlowGroup, Spread};
#[cfg(feature = "tls")]
pub use trust::{Tls, Trust};
pub use watcher::{Live, NoProgress, Phase, ProgressSink};

/// Makes one probe and judges it. Takes some 15 s with the plan's defaults.
///
/// # Errors
///
/// When no probe can be made: the plan does not fit together, the server cannot
/// be reached or does not speak the protocol, or this process may not open
/// enough descriptors. What a server does to its clients is never an error.
pub fn probe(plan: &Plan, target: &str, sink: &mut dyn ProgressSink) -> Result<Report, ProbeError> {
    plan.check()?;
    server::check_pid(plan.pid)?;
    driver::preflight::ensure_descriptors(plan.fast + plan.slow.clients())?;
    let conversations = driver::preflight::first_exchange(plan, sink)?;
    let monitor = server::ServerMonitor::of(plan.address, plan.pid);
    let seen = drive(plan, &*conversations, monitor, sink)?;
    Ok(Report::new(plan, target, seen))
}

fn drive(
    plan: &Plan,
    conversations: &dyn Conversations,
    monitor: Option<server::ServerMonitor>,
    sink: &mut dyn ProgressSink,
) -> Result<Measurement, ProbeError> {
    #[cfg(feature = "tls")]
    if plan.tls.is_some() {
        type Stream = driver::tls::TlsStream<mio::net::TcpStream>;
        return driver::Driver::<Stream>::new(plan, conversations, monitor)?.run(sink);
    }
    driver::Driver::<driver::socket::DirectStream>::new(plan, conversations, monitor)?.run(sink)
}
