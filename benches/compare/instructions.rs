//! Instructions per message, counted by callgrind.

use std::time::Duration;

use crate::figure::{CALLGRIND, MESSAGE, collected};
use crate::generator::Generator;
use crate::peer::Workshop;

pub(crate) const INSTRUCTIONS: &str = "instructions per message, kernel excluded";

/// Counts with callgrind: exact, and the same on a noisy machine. The
/// difference of two runs removes the cost of starting and connecting. Answers
/// how many a message takes.
pub(crate) fn instructions(
    workshop: &Workshop,
    peer: &str,
    arguments: &[&str],
    clients: usize,
) -> Result<f64, String> {
    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_millis(1500);
    let count = |length: Duration| -> Result<(f64, f64), String> {
        let mut generator = Generator::start(MESSAGE, clients)?;
        let label = format!("instructions-{peer}");
        let server = workshop.start_under(&CALLGRIND, peer, arguments, generator.backend(), &label)?;
        generator.open(server.address())?;
        let done = generator.slice(length)?.done;
        drop(generator);
        Ok((collected(&server.finish()?)?, done as f64))
    };
    let (few, short) = count(SHORT)?;
    let (many, long) = count(LONG)?;
    Ok((many - few) / (long - short))
}
