//! The send queue against a plain `Vec<u8>`, with the checks that the tests of
//! the model use: content, order, length, drains and memory pinned.

#![no_main]

#[path = "../../tests/send_queue_model/pair.rs"]
mod pair;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pair::{Pair, Way};

/// More steps teach nothing new and cost time.
const MOST_STEPS: usize = 200;

#[derive(Arbitrary, Debug)]
enum Step {
    Copy(u16),
    Share(u16),
    Send(u16),
    /// So many bytes less than what waits.
    SendAllBut(u8),
    Discard,
}

#[derive(Arbitrary, Debug)]
struct Input {
    mark: u16,
    ends: bool,
    steps: Vec<Step>,
}

fuzz_target!(|input: Input| {
    let mut pair = Pair::new(usize::from(input.mark));
    for step in input.steps.iter().take(MOST_STEPS) {
        match *step {
            Step::Copy(length) => pair.write(usize::from(length), Way::Copied),
            Step::Share(length) => pair.write(usize::from(length), Way::Shared),
            Step::Send(length) => pair.send(usize::from(length)),
            Step::SendAllBut(length) => pair.send(pair.waits.len().saturating_sub(usize::from(length))),
            Step::Discard => pair.discard(),
        }
    }
    if input.ends {
        pair.end();
    }
    pair.empty(pair.waits.len() / 8 + 1);
});
