//! One measured figure, and what several measurements need for theirs.
//!
//! Owns the form in which figures, ratios and progress are shown. Refuses to
//! measure.

use std::net::SocketAddr;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::generator::Generator;
use crate::load::Work;
use crate::procfs;
use crate::server::Server;
use crate::statistics::Quartiles;

/// One measured figure.
pub(crate) struct Figure {
    pub(crate) label: String,
    pub(crate) what: &'static str,
    pub(crate) value: String,
}

impl Figure {
    pub(crate) fn new(label: &str, what: &'static str, value: String) -> Self {
        Self {
            label: label.to_owned(),
            what,
            value,
        }
    }
}

pub(crate) const MESSAGE: Work = Work::Ping {
    size: 64,
    in_flight: 1,
};

/// Time for a server to notice that its clients have gone and to give memory back.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);

/// Stands for the far end of a tunnel where there is none.
pub(crate) fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

/// A median with its quartiles, as all ratios are told.
pub(crate) fn ratio(of: Quartiles) -> String {
    format!("{:.3} ({:.3}-{:.3})", of.median, of.low, of.high)
}

/// A progress bar for so many cycles.
pub(crate) fn progress(name: &str, cycles: usize) -> ProgressBar {
    let bar = ProgressBar::new(cycles as u64).with_message(name.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{msg:16} [{bar:40}] {pos}/{len} cycles, {eta} left") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// What the kernel holds for the server's own sockets: those of its clients and,
/// for a tunnel, those towards the far end.
pub(crate) fn server_side_bytes(server: &Server, generator: &Generator) -> Result<u64, String> {
    let clients = procfs::kernel_bytes("sport", server.address().port())?;
    let upstream = procfs::kernel_bytes("dport", generator.backend().port())?;
    Ok(clients + upstream)
}

pub(crate) const CALLGRIND: [&str; 3] = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];

/// What callgrind says it counted.
pub(crate) fn collected(output: &str) -> Result<f64, String> {
    let count = output.rsplit_once("Collected : ").map(|(_, rest)| rest);
    let word = count.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .ok_or_else(|| "callgrind told no count".into())
}
