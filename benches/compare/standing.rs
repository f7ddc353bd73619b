//! One server in all runs of a scenario that count.

use crate::generator::Latency;
use crate::load::Work;
use crate::slices::Sample;
use crate::statistics::{Quartiles, quartiles};

/// One server in all runs of a scenario that count.
pub(crate) struct Standing {
    pub(crate) label: &'static str,
    pub(crate) work: Work,
    pub(crate) samples: Vec<Sample>,
    pub(crate) latency: Option<Latency>,
    pub(crate) resident_bytes: u64,
}

impl Standing {
    pub(crate) fn quartiles(&self, of: fn(&Sample) -> f64) -> Quartiles {
        quartiles(self.samples.iter().map(of).collect())
    }

    /// Rate to the base's, each cycle for itself.
    pub(crate) fn rate_ratio(&self) -> Quartiles {
        self.quartiles(|sample| sample.rate_ratio)
    }

    /// Cost to the base's, each cycle for itself.
    pub(crate) fn cost_ratio(&self) -> Quartiles {
        self.quartiles(|sample| sample.cost_ratio)
    }
}
