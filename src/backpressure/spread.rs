//! Many clients have their time once more, and must not go together.
//!
//! Owns by how much later each of them begins. Refuses to know why.

use std::time::Duration;

use crate::limits::TOGETHER_CLIENTS;

/// By how much later the client at this place of `count` begins than the first.
/// Up to [`TOGETHER_CLIENTS`] begin together; more are spread over `time`.
#[must_use]
pub(crate) fn share_of(time: Duration, at: usize, count: usize) -> Duration {
    if count <= TOGETHER_CLIENTS {
        return Duration::ZERO;
    }
    let nanos = time.as_nanos().saturating_mul(at as u128) / count as u128;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_clients_begin_together_and_more_within_one_such_time() {
        let second = Duration::from_secs(1);
        assert_eq!(share_of(second, 99, 100), Duration::ZERO);
        let shares: Vec<Duration> = (0..200).map(|at| share_of(second, at, 200)).collect();
        assert_eq!(shares[0], Duration::ZERO);
        assert!(shares.is_sorted_by(|one, next| *next == *one + second / 200));
        assert!(shares[199] < second);
        assert!(share_of(Duration::MAX, 1, 200) > second, "no overflow");
    }
}
