//! One question about a server and its answer.

use serde::Serialize;

/// What a finding or the whole probe comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// Not as it should be.
    Fail,
    /// Tested, but what was seen decides nothing.
    Unknown,
    /// The plan did not ask for it.
    NotTested,
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Its stable name.
    pub name: &'static str,
    /// What is asked, in words.
    pub title: String,
    /// The answer; `verdict` in the JSON.
    #[serde(rename = "verdict")]
    pub outcome: Outcome,
    /// One sentence with the number that decides.
    pub reason: String,
    /// That number, where there is one.
    pub value: Option<f64>,
    /// What it was held against.
    pub threshold: Option<f64>,
    /// The unit of both.
    pub unit: &'static str,
}

pub(super) struct Question {
    name: &'static str,
    title: String,
    unit: &'static str,
    threshold: Option<f64>,
}

impl Question {
    pub(super) fn new(name: &'static str, title: impl Into<String>, unit: &'static str) -> Self {
        Self {
            name,
            title: title.into(),
            unit,
            threshold: None,
        }
    }

    pub(super) fn held_against(mut self, threshold: f64) -> Self {
        self.threshold = Some(threshold);
        self
    }

    pub(super) fn answer(self, outcome: Outcome, value: Option<f64>, reason: impl Into<String>) -> Finding {
        Finding {
            name: self.name,
            title: self.title,
            outcome,
            reason: reason.into(),
            value,
            threshold: self.threshold,
            unit: self.unit,
        }
    }

    pub(super) fn not_tested(self, why: &str) -> Finding {
        self.answer(Outcome::NotTested, None, why)
    }

    pub(super) fn unknown(self, why: impl Into<String>) -> Finding {
        self.answer(Outcome::Unknown, None, why)
    }
}

pub(super) fn all(clients: usize) -> String {
    if clients == 1 {
        "the only one was".to_owned()
    } else {
        format!("all {clients} were")
    }
}

pub(super) fn micros(us: f64) -> String {
    if us >= 1e6 {
        format!("{:.2} s", us / 1e6)
    } else if us >= 1e3 {
        format!("{:.1} ms", us / 1e3)
    } else {
        format!("{us:.0} us")
    }
}
