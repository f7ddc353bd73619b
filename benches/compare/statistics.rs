//! Medians, quartiles and other percentiles.

/// The middle of many measurements, and the range that holds half of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quartiles {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

/// Quartiles of `values`, interpolated between neighbours; zeros when there are none.
pub(crate) fn quartiles(mut values: Vec<f64>) -> Quartiles {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let at = |share: f64| -> f64 {
        let Some(last) = values.len().checked_sub(1) else {
            return 0.0;
        };
        let place = share * last as f64;
        let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
        below + (above - below) * place.fract()
    };
    Quartiles {
        low: at(0.25),
        median: at(0.5),
        high: at(0.75),
    }
}

/// The median alone.
pub(crate) fn median(values: Vec<f64>) -> f64 {
    quartiles(values).median
}

/// The smallest value that so large a share of all does not exceed; zero when
/// there are none.
pub(crate) fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * share) as usize;
    values.get(place).copied().unwrap_or(0.0)
}
