//! The matrix: what is true of each server beside what the prober says, and the sums.

use std::fmt::Write;
use std::process::ExitCode;

use highwater::probe::FINDINGS;

use crate::row::Truth;
use crate::trial::{Judged, Outcome, Trial};

/// One in so many findings that could be told may be `unknown`.
const MOST_UNKNOWN_PART: f64 = 0.1;
/// Fewer findings than this make no part of anything.
const LEAST_TELLABLE: usize = 100;

/// Short names of the findings, in their order.
const HEADS: [&str; 10] = [
    "stalled",
    "in time",
    "talkers",
    "trickle",
    "paused",
    "steady",
    "served",
    "unaffected",
    "memory",
    "kernel",
];

/// What a verdict looks like; a wrong one with a mark of exclamation.
fn cell(judged: &Judged) -> String {
    let sign = match judged.verdict.as_str() {
        "pass" => "ok",
        "fail" => "FAIL",
        "unknown" => "?",
        _ => "-",
    };
    let mark = if judged.contradiction().is_some() { "!" } else { "" };
    format!("{sign}{mark}")
}

/// One line as a row ends.
pub(crate) fn line(trial: &Trial) -> String {
    let name = trial.row.name;
    let seconds = trial.seconds;
    let state = match &trial.outcome {
        Outcome::Skipped(needs) => return format!("zoo: {name}: skipped, as {needs} is not installed"),
        Outcome::Broken(why) => format!("broken: {why}"),
        Outcome::Refused { line, .. } => format!("refused: {line}"),
        Outcome::Reported { verdict, .. } => verdict.clone(),
    };
    let wrong = trial.wrong();
    let mut text = format!("zoo: {name}: {state} ({seconds:.1} s)");
    for wrong in &wrong {
        let known = if trial.row.known_wrong.is_some() {
            "known to be wrong"
        } else {
            "WRONG"
        };
        let _ = write!(text, "\n     {known}: {wrong}");
    }
    if wrong.is_empty() && trial.row.known_wrong.is_some() {
        text.push_str("\n     RIGHT, though it is marked as known to be wrong: remove the mark");
    }
    text
}

pub(crate) fn print(trials: &[Trial], is_verbose: bool) {
    println!("{}", table(trials));
    if is_verbose {
        for trial in trials {
            println!(
                "{}: {} [{}]",
                trial.row.name,
                trial.row.what,
                trial.row.command().join(" ")
            );
            if let Outcome::Reported { findings, .. } = &trial.outcome {
                for judged in findings.iter().filter(|judged| judged.truth != Truth::Untested) {
                    println!(
                        "  {:<24} {:<10} {:?}: {}; truth: {}",
                        judged.finding,
                        cell(judged),
                        judged.truth,
                        judged.reason,
                        judged.why
                    );
                }
            }
        }
    }
    for trial in trials {
        // As cargo's own test programs say it, so that whoever counts those counts these.
        let state = match &trial.outcome {
            Outcome::Skipped(_) => "ignored",
            _ if trial.wrong().is_empty() == trial.row.known_wrong.is_none() => "ok",
            _ => "FAILED",
        };
        println!("test {} ... {state}", trial.row.name);
    }
    println!("{}", sums(trials));
}

fn table(trials: &[Trial]) -> String {
    let mut text = format!("{:<22} {:<8}", "server", "verdict");
    for head in HEADS {
        let _ = write!(text, " {head:<10}");
    }
    for trial in trials {
        let _ = write!(text, "\n{:<22} ", trial.row.name);
        match &trial.outcome {
            Outcome::Reported { verdict, findings } => {
                let _ = write!(text, "{verdict:<8}");
                for judged in findings {
                    let _ = write!(text, " {:<10}", cell(judged));
                }
            }
            Outcome::Skipped(needs) => {
                let _ = write!(text, "skipped: {needs} is not installed");
            }
            Outcome::Refused { line, .. } => {
                let _ = write!(text, "refused: {line}");
            }
            Outcome::Broken(why) => {
                let _ = write!(text, "broken: {why}");
            }
        }
    }
    text
}

/// The matrix as a page of the documentation.
pub(crate) fn page(trials: &[Trial]) -> String {
    let mut text = String::from(PAGE_HEAD);
    let _ = writeln!(text, "\n{}\n", sums(trials));
    let _ = writeln!(text, "| server | what it is | {} |", HEADS.join(" | "));
    let _ = writeln!(text, "| --- | --- |{}", " --- |".repeat(HEADS.len()));
    for trial in trials {
        let what = trial.row.what.replace('|', "\\|");
        let cells = match &trial.outcome {
            Outcome::Reported { findings, .. } => {
                findings.iter().map(page_cell).collect::<Vec<_>>().join(" | ")
            }
            Outcome::Skipped(_) => vec!["not run"; HEADS.len()].join(" | "),
            _ => vec!["refused"; HEADS.len()].join(" | "),
        };
        let _ = writeln!(text, "| {} | {what} | {cells} |", trial.row.name);
    }
    let _ = writeln!(
        text,
        "\n## Why\n\nWhat is true where it is not as it should be, or cannot be told.\n"
    );
    for trial in trials {
        let reasons: Vec<String> = FINDINGS
            .iter()
            .zip(HEADS)
            .filter_map(|(finding, head)| {
                let (truth, why) = trial.row.truth(finding);
                let is_told = !matches!(truth, Truth::Good | Truth::Untested);
                is_told.then(|| format!("{head}: {}, {why}", words(truth)))
            })
            .collect();
        if !reasons.is_empty() {
            let _ = writeln!(text, "- **{}**: {}", trial.row.name, reasons.join("; "));
        }
    }
    text
}

const PAGE_HEAD: &str = "\
# The zoo: servers whose truth is known

Each row is a server that `make zoo` starts and probes. The table shows what `highwater probe` says of it; a mark of
exclamation would show where that contradicts what is true. `tests/probe_zoo/` has the servers, the options of each
probe, and the reasons. This page is written by `make zoo`.

| sign | the prober says |
| --- | --- |
| ok, FAIL | `pass`, `fail` |
| ? | `unknown`: the evidence decides nothing |
| - | `not_tested`: no such client took part |
";

fn page_cell(judged: &Judged) -> String {
    let cell = cell(judged);
    if cell == "FAIL" { "**FAIL**".into() } else { cell }
}

fn words(truth: Truth) -> &'static str {
    match truth {
        Truth::Good => "good",
        Truth::Bad => "bad",
        Truth::BadUnseen => "bad, though a probe need not see it",
        Truth::Unknowable => "nobody can tell",
        Truth::Untested => "not asked",
        Truth::Open => "no rule says",
    }
}

/// What all rows come to.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    rows: usize,
    skipped: usize,
    right: usize,
    /// Wrong, and not known to be.
    wrong: usize,
    /// Wrong, as their mark says.
    known_wrong: usize,
    /// Right, though their mark says that they are wrong.
    mended: usize,
    tried_again: usize,
    false_passes: usize,
    false_fails: usize,
    tellable: usize,
    unknown: usize,
}

pub(crate) fn sums(trials: &[Trial]) -> Sums {
    let mut sums = Sums::default();
    for trial in trials {
        sums.rows += 1;
        sums.tried_again += usize::from(trial.tried_again);
        let is_wrong = !trial.wrong().is_empty();
        match (&trial.outcome, is_wrong, trial.row.known_wrong.is_some()) {
            (Outcome::Skipped(_), ..) => sums.skipped += 1,
            (_, true, true) => sums.known_wrong += 1,
            (_, true, false) => sums.wrong += 1,
            (_, false, true) => sums.mended += 1,
            (_, false, false) => sums.right += 1,
        }
        if let Outcome::Reported { findings, .. } = &trial.outcome {
            for judged in findings {
                let contradicts = judged.contradiction().is_some();
                sums.false_passes += usize::from(contradicts && judged.verdict == "pass");
                sums.false_fails += usize::from(contradicts && judged.verdict == "fail");
                sums.tellable += usize::from(judged.truth.is_tellable());
                sums.unknown += usize::from(judged.truth.is_tellable() && judged.verdict == "unknown");
            }
        }
    }
    sums
}

impl Sums {
    fn unknown_part(&self) -> f64 {
        self.unknown as f64 / self.tellable.max(1) as f64
    }

    fn hides_too_much(&self) -> bool {
        self.tellable >= LEAST_TELLABLE && self.unknown_part() > MOST_UNKNOWN_PART
    }

    pub(crate) fn verdict(&self) -> ExitCode {
        let failed = self.wrong + self.mended + usize::from(self.hides_too_much());
        let passed = self.right + self.known_wrong;
        let state = if failed == 0 { "ok" } else { "FAILED" };
        println!(
            "test result: {state}. {passed} passed; {failed} failed; {} ignored",
            self.skipped
        );
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

impl std::fmt::Display for Sums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} rows ({} not installed here, {} tried again alone): {} judged right, {} wrong, {} wrong as known; {} false passes, {} false \
             fails; {} of {} findings that could be told are unknown ({:.1} %).",
            self.rows,
            self.skipped,
            self.tried_again,
            self.right + self.mended,
            self.wrong,
            self.known_wrong,
            self.false_passes,
            self.false_fails,
            self.unknown,
            self.tellable,
            self.unknown_part() * 100.0
        )
    }
}
