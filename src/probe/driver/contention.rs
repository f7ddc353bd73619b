//! How long this thread was ready to run and had no processor.

use std::time::Duration;

use crate::probe::report::measurement::{Healthy, PhaseFigures};

/// The kernel's sum of such times at the beginning of each phase, and at the end of the last.
#[derive(Debug, Default)]
pub(crate) struct Contention {
    marks: Vec<Duration>,
}

impl Contention {
    /// A phase begins, or the last one ends.
    pub(crate) fn mark(&mut self) {
        self.marks.push(run_delay().unwrap_or_default());
    }

    /// Writes the part of each phase into its figures.
    pub(crate) fn tell(&self, healthy: &mut Healthy) {
        let phases = [&mut healthy.before, &mut healthy.during, &mut healthy.after];
        for (phase, marks) in phases.into_iter().zip(self.marks.windows(2)) {
            if let Some(PhaseFigures {
                seconds,
                prober_waited_percent,
                ..
            }) = phase
            {
                let waited = marks[1].saturating_sub(marks[0]).as_secs_f64();
                *prober_waited_percent = waited / seconds.max(1e-9) * 100.0;
            }
        }
    }
}

/// `run_delay` of `/proc/thread-self/schedstat`, in nanoseconds there.
fn run_delay() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}
