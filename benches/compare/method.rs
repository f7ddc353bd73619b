//! How a comparison is carried out.

use std::time::Duration;

use crate::figure::progress;

/// How a comparison is carried out.
pub(crate) struct Method {
    pub(crate) cycles: usize,
    pub(crate) bulk_cycles: usize,
    pub(crate) slice: Duration,
    pub(crate) tries: usize,
    pub(crate) seed: u64,
}

/// Measures each of so many entries once in every round, in a new random order each time, with a
/// progress bar. Answers the samples of each entry.
pub(crate) fn in_rounds<T>(
    name: &str,
    entries: usize,
    rounds: usize,
    seed: u64,
    mut measure: impl FnMut(usize) -> Result<T, String>,
) -> Result<Vec<Vec<T>>, String> {
    let mut samples: Vec<Vec<T>> = (0..entries).map(|_| Vec::new()).collect();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut order: Vec<usize> = (0..entries).collect();
    let bar = progress(name, rounds);
    for _ in 0..rounds {
        random.shuffle(&mut order);
        for &place in &order {
            samples[place].push(measure(place)?);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(samples)
}
