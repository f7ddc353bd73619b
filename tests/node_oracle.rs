//! Node's own streams as the oracle for `SendQueue` and `Pipe`.
//!
//! Random traces run on both sides and have to agree step by step: what a
//! write answers, the length, the need for drain, when drain comes, and
//! whether a source is read. Traces recorded from Node are checked everywhere;
//! where `node` is installed, fresh ones are drawn as well. The number of
//! those is `HIGHWATER_ORACLE_TRACES` of each kind, their seed
//! `HIGHWATER_ORACLE_SEED`.
//!
//! To record anew: `cargo test --test node_oracle -- --ignored record`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the exemption for tests misses helper functions of a test"
)]

mod node_oracle {
    pub(crate) mod node;
    pub(crate) mod ours;
    pub(crate) mod trace;
}

use std::io::Write;
use std::sync::Once;

use fastrand::Rng;
use highwater::Answer;
use highwater::backpressure::Sent;
use node_oracle::node::{Absent, Node, answer};
use node_oracle::ours::{self, Destination};
use node_oracle::trace::{Kind, Step, Trace};

const RECORDED: &str = include_str!("node_oracle/recorded.txt");
const RECORDED_FROM: &str = "# Recorded from Node v20.20.2";

/// Fresh traces of each kind in one run of the test.
const FRESH_TRACES: usize = 10_000;

/// Random traces of each kind that are kept.
const RECORDED_TRACES: usize = 400;

/// Kept besides: traces that each show one rule, most of them the shortest
/// that told a deliberately broken rule from Node's.
const SHORT_TRACES: [&str; 22] = [
    // Below, at and over the mark; nothing; a mark of nothing.
    "writable 4 w0:3 w0:1 t0:9",
    "writable 4 w0:4 w0:0 t0:1 w0:0",
    "writable 4 w0:40 w0:40 t0:1 t0:1",
    "writable 0 w0:0 t0:1 w0:1 w0:0 t0:2",
    "writable 0 t0:2 w0:1 w0:1 w0:1 t0:1",
    // The need for drain stands though a later write continues.
    "writable 3 w0:1 w0:2 t0:1 w0:0 t0:2",
    // Drain comes with the last chunk, at once, and once.
    "writable 2 w0:2 w0:2 w0:2 t0:3 . t0:1 .",
    "writable 2v w0:2 w0:2 w0:2 t0:2 . t0:1 .",
    // Drain starts the next write, which pauses again, or the end.
    "writable 2 d0:5 d0:1 w0:2 t0:1 t0:1 t0:1",
    "writable 2 f0 w0:2 t0:1 w0:1",
    // No drain after the end.
    "writable 1 w0:1 e0 t0:1 .",
    "pipe 1 p0 w0:1 z t0:1",
    // A pause holds the source until drain, whatever is answered meanwhile.
    "pipe 2 p0 a2 a1 t0:1 a1",
    "pipe 5 a1 w0:4 p0 a1 t0:1 r t0:9",
    // The slowest sets the pace.
    "pipe 2,1 p0 p1 a1 t0:1 t1:1",
    "pipe 1,1 p0 p1 a1 a1 t0:1 t1:1",
    // One that is taken away no longer holds the source; the others do.
    "pipe 1,1 p0 p1 a1 a1 u1 u0 p1 a1",
    "pipe 1,9 p0 p1 a1 a1 u0",
    // One that needs drain already holds the source from the start.
    "pipe 2 w0:2 p0 a1 t0:1",
    "pipe 2,2 p0 w1:2 p1 a1 t1:1 t1:1",
    "pipe 1,1 p0 a1 w1:1 p1 a1 t1:1 t0:1",
    // The end of the source ends its destinations, once it is read.
    "pipe 1,9 p0 p1 a1 z t0:1 t1:1",
];

/// Traces that one question to Node holds.
const BATCH_TRACES: usize = 500;

/// Traces whose sink takes parts of chunks.
const TRACES_WITH_PARTS: usize = 2_000;

/// How often a trace that shows a mismatch is made simpler, at most.
const MOST_SHRINKS: usize = 1_000;

/// Where the two sides first differ, if they do.
fn first_difference(trace: &Trace, node: &[String]) -> Option<usize> {
    let ours = ours::run(trace);
    assert_eq!(node.len(), trace.steps.len(), "node skipped a step of {trace}");
    (0..ours.len()).find(|&index| ours[index] != node[index])
}

fn report(trace: &Trace, node: &[String], at: usize) -> String {
    let ours = ours::run(trace);
    let mut text = format!("{trace}\n{:>16}  {:24} {:24}\n", "step", "node", "ours");
    for (index, step) in trace.steps.iter().enumerate().take(at + 1) {
        let differs = if index == at { "  <-- differs" } else { "" };
        let step = step.to_string();
        text += &format!("{step:>16}  {:24} {:24}{differs}\n", node[index], ours[index]);
    }
    text
}

/// The simplest trace found that still shows a difference.
fn shrink(mut trace: Trace, node: &mut Node) -> (Trace, Vec<String>, usize) {
    let mut seen = node.run(std::slice::from_ref(&trace)).remove(0);
    let mut at = first_difference(&trace, &seen).expect("node answers the same twice");
    for _ in 0..MOST_SHRINKS {
        trace.steps.truncate(at + 1);
        seen.truncate(at + 1);
        let candidates = trace.simpler();
        let answers = node.run(&candidates);
        let simplest = candidates
            .into_iter()
            .zip(answers)
            .filter_map(|(trace, seen)| {
                let at = first_difference(&trace, &seen)?;
                Some((trace, seen, at))
            })
            .min_by_key(|(trace, _, _)| trace.weight());
        match simplest {
            Some(simpler) => (trace, seen, at) = simpler,
            None => break,
        }
    }
    (trace, seen, at)
}

/// Says once, and so that it is seen although the tests pass, what was not run.
fn say_skipped(why: &str) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let line = format!("node_oracle: fresh traces were skipped, only recorded ones were run: {why}");
        let _ = writeln!(std::io::stderr(), "{line}");
    });
}

fn start_node() -> Option<Node> {
    match Node::start() {
        Ok(node) => Some(node),
        Err(Absent::NotInstalled) => {
            say_skipped("`node` is not installed");
            None
        }
        Err(Absent::OtherRule(version)) => {
            say_skipped(&format!(
                "node {version} judges a write before its sink was tried, unlike Node 20.20"
            ));
            None
        }
    }
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

fn fresh_traces_agree(kind: Kind) {
    let Some(mut node) = start_node() else { return };
    let count =
        number_from_environment("HIGHWATER_ORACLE_TRACES").map_or(FRESH_TRACES, |count| count as usize);
    let seed = number_from_environment("HIGHWATER_ORACLE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let mut rng = Rng::with_seed(seed);
    let (mut left, mut steps) = (count, 0);
    while left > 0 {
        let traces: Vec<_> = (0..left.min(BATCH_TRACES))
            .map(|_| Trace::draw(kind, &mut rng))
            .collect();
        left -= traces.len();
        let answers = node.run(&traces);
        for (trace, seen) in traces.into_iter().zip(answers) {
            steps += trace.steps.len();
            if first_difference(&trace, &seen).is_some() {
                let (trace, seen, at) = shrink(trace, &mut node);
                panic!(
                    "node {} and we differ (HIGHWATER_ORACLE_SEED={seed}); the shortest trace found:\n{}",
                    node.version,
                    report(&trace, &seen, at)
                );
            }
        }
    }
    println!(
        "{count} traces, {steps} steps, node {}, seed {seed}",
        node.version
    );
}

#[test]
fn a_queue_does_what_a_writable_of_node_does_on_fresh_traces() {
    fresh_traces_agree(Kind::Writable);
}

#[test]
fn a_pipe_does_what_a_pipe_of_node_does_on_fresh_traces() {
    fresh_traces_agree(Kind::Pipe);
}

fn recorded() -> Vec<(Trace, Vec<String>)> {
    let lines: Vec<_> = RECORDED.lines().filter(|line| !line.starts_with('#')).collect();
    lines
        .chunks_exact(2)
        .map(|pair| {
            let trace = Trace::parse(pair[0]).unwrap_or_else(|| panic!("not a trace: {}", pair[0]));
            (trace, answer(pair[1]))
        })
        .collect()
}

#[test]
fn queue_and_pipe_do_what_was_recorded_from_node() {
    assert!(RECORDED.starts_with(RECORDED_FROM));
    let recorded = recorded();
    for kind in [Kind::Writable, Kind::Pipe] {
        let of_kind = recorded.iter().filter(|(trace, _)| trace.kind == kind);
        assert!(of_kind.count() >= RECORDED_TRACES);
    }
    let shortest = recorded
        .iter()
        .filter_map(|(trace, seen)| Some((first_difference(trace, seen)?, trace, seen)))
        .min_by_key(|&(at, _, _)| at);
    if let Some((at, trace, seen)) = shortest {
        panic!("we differ from what was recorded:\n{}", report(trace, seen, at));
    }
}

#[test]
fn recorded_traces_show_every_outcome() {
    let recorded = recorded();
    let shown = |outcome: fn(&str) -> bool| {
        let shows = |seen: &Vec<String>| seen.iter().flat_map(|seen| seen.split('|')).any(outcome);
        recorded.iter().filter(|(_, seen)| shows(seen)).count()
    };
    assert!(shown(|seen| seen == "+:0") > 20, "taken at once");
    assert!(
        shown(|seen| seen.starts_with('+') && !seen.ends_with('0')) > 20,
        "below the mark"
    );
    assert!(shown(|seen| seen.starts_with('-')) > 20, "at or over the mark");
    assert!(
        shown(|seen| seen.starts_with('+') && seen.ends_with('n')) > 20,
        "the need stands"
    );
    assert!(shown(|seen| seen.starts_with('D')) > 20, "drain");
    assert!(
        shown(|seen| seen.starts_with("D-")) > 20,
        "drain starts a write that pauses"
    );
    assert!(shown(|seen| seen.starts_with('H')) > 20, "a source is held");
    assert!(shown(|seen| seen.starts_with('R')) > 20, "a source is read");
    assert!(shown(|seen| seen.starts_with('E')) > 20, "a source has ended");
    // A write that pauses leaves something to wait, and drain is said once.
    assert_eq!(shown(|seen| seen == "-:0" || seen.contains("DD")), 0);
}

#[test]
#[ignore = "writes the file of recorded traces"]
fn record() {
    let mut node = start_node().expect("recording needs node");
    let mut rng = Rng::with_seed(20);
    let mut text = format!(
        "# Recorded from Node {}. A trace, and what was observed after each of its steps; see trace.rs.\n",
        node.version
    );
    let mut traces: Vec<_> = SHORT_TRACES
        .iter()
        .map(|line| Trace::parse(line).expect("a trace"))
        .collect();
    for kind in [Kind::Writable, Kind::Pipe] {
        traces.extend((0..RECORDED_TRACES).map(|_| Trace::draw(kind, &mut rng)));
    }
    for (trace, seen) in traces.iter().zip(node.run(&traces)) {
        text += &format!("{trace}\n{}\n", seen.join(" "));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node_oracle/recorded.txt");
    std::fs::write(path, text).expect("the file can be written");
}

/// What Node 20 says of a trace, confirmed where it can be asked.
fn confirmed(trace: &Trace, of_node_20: [&str; 4]) -> [String; 4] {
    if let Some(mut node) = start_node()
        && node.version.starts_with("v20.")
    {
        let seen = node.run(std::slice::from_ref(trace)).remove(0);
        assert_eq!(seen, of_node_20, "node {} on {trace}", node.version);
    }
    of_node_20.map(str::to_owned)
}

#[test]
fn a_partly_sent_chunk_is_credited_byte_by_byte_where_node_counts_it_whole() {
    let trace = Trace::parse("writable 8 w0:10 w0:0 w0:0 t0:1").unwrap();
    confirmed(&trace, ["-:10n", "-:10n", "-:10n", "D:0"]);
    let mut ours = Destination::new(trace.marks[0]);
    assert_eq!(ours.write(10), Answer::Pause);
    assert_eq!(ours.take_part(2), Sent::Waiting);
    assert_eq!(ours.write(0), Answer::Pause, "8 left, exactly at the mark");
    assert_eq!(ours.take_part(1), Sent::Waiting);
    assert_eq!(ours.write(0), Answer::Continue, "7 left, below the mark");
    assert!(ours.queue.needs_drain(), "drain is owed all the same");
    assert!(ours.take(1));
}

#[test]
fn credit_byte_by_byte_only_ever_makes_us_kinder_than_node() {
    let mut rng = Rng::with_seed(1);
    let (mut parts, mut kinder_answers) = (0, 0);
    for _ in 0..TRACES_WITH_PARTS {
        let mut trace = Trace::draw(Kind::Writable, &mut rng);
        // What a drain starts would differ where we owe no drain.
        trace
            .steps
            .retain(|step| !matches!(step, Step::WriteOnDrain(..) | Step::EndOnDrain(_)));
        let mut ours = Destination::new(trace.marks[0]);
        for (step, whole) in trace.steps.iter().zip(ours::run(&trace)) {
            if ours.held_bytes() > 1 && rng.bool() {
                let part = rng.usize(1..ours.held_bytes());
                assert_eq!(ours.take_part(part), Sent::Waiting);
                parts += 1;
            }
            ours.take_step(*step);
            let seen = ours.observe();
            let (whole_log, whole_length) = whole.split_once(':').unwrap();
            let whole_length: usize = whole_length.trim_end_matches('n').parse().unwrap();
            assert_eq!(ours.queue.len() + ours.part_sent, whole_length, "{trace}");
            for outcome in ['-', 'D', 'n'] {
                assert!(
                    !seen.contains(outcome) || whole.contains(outcome),
                    "{trace}: {seen} for {whole}"
                );
            }
            kinder_answers += usize::from(seen.contains('+') && whole_log.contains('-'));
        }
    }
    assert!(
        parts > TRACES_WITH_PARTS && kinder_answers > 100,
        "{parts} parts, {kinder_answers} kinder answers"
    );
}

#[test]
fn a_destination_that_holds_the_source_still_does_when_another_is_added_where_node_forgets_it() {
    let trace = Trace::parse("pipe 4,4 p0 a5 q1 a1").unwrap();
    let seen = confirmed(&trace, [":0|:0|R0", "-:5n|:0|H0", ":5n|:0|R0", "-:6n|+:1|H0"]);
    let ours = ours::run(&trace);
    assert_eq!(ours[..2], seen[..2]);
    assert_eq!(ours[2..], [":5n|:0|H0", ":5n|:0|H1"]);
}
