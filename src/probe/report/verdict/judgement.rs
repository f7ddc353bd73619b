//! From findings to the verdict.

use crate::probe::error::ProbeError;
use crate::probe::kind::KINDS;
use crate::probe::report::verdict::finding::{Finding, Outcome};

/// The names of all findings, in the order of the report.
pub const FINDINGS: [&str; 10] = [
    "stalled-disconnected",
    "stalled-in-time",
    "talkers-disconnected",
    "tricklers-disconnected",
    "paused-kept",
    "steady-kept",
    "healthy-served",
    "healthy-unaffected",
    "memory-bounded",
    "nothing-left-in-kernel",
];

/// Which findings decide the verdict, beside those that fail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Findings that must pass, by name: one that was not tested fails the probe, and one that
    /// is unknown leaves it unknown.
    pub require: Vec<String>,
    /// A finding about slow clients, or healthy ones beside them, may be unknown.
    pub allow_unknown: bool,
}

impl Judgement {
    /// Whether there are such findings.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Field`] names the first that there is not.
    pub fn check(&self) -> Result<(), ProbeError> {
        let is_known = |name: &&String| FINDINGS.contains(&name.as_str());
        match self.require.iter().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => Err(ProbeError::Field {
                field: "require",
                problem: format!("{name}: no such finding; there are {}", FINDINGS.join(", ")),
            }),
        }
    }

    /// Fail when a finding failed or a required one was not tested; unknown when one about slow
    /// clients that took part, or a required one, is; pass when one passed. A probe that was
    /// ended early does not pass.
    #[must_use]
    pub(crate) fn verdict(&self, findings: &[Finding], interrupted: bool) -> Outcome {
        let is_required = |finding: &Finding| self.require.iter().any(|name| name == finding.name);
        let fails = |finding: &Finding| match finding.outcome {
            Outcome::Fail => true,
            Outcome::NotTested => is_required(finding) && !interrupted,
            _ => false,
        };
        let is_open = |finding: &Finding| {
            let decides = is_required(finding) || !self.allow_unknown && is_about_slow(finding.name);
            finding.outcome == Outcome::Unknown && decides
        };
        if findings.iter().any(fails) {
            Outcome::Fail
        } else if interrupted || findings.iter().any(is_open) {
            Outcome::Unknown
        } else if findings.iter().any(|finding| finding.outcome == Outcome::Pass) {
            Outcome::Pass
        } else {
            Outcome::Unknown
        }
    }
}

/// Whether a finding is about what becomes of slow clients, or of healthy ones beside them.
fn is_about_slow(finding: &str) -> bool {
    let others = ["stalled-in-time", "healthy-unaffected"];
    others.contains(&finding) || KINDS.iter().any(|row| row.finding == Some(finding))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::report::verdict::finding::Question;

    fn verdict(judgement: &Judgement, unknown: &'static str) -> Outcome {
        let answer = |name| {
            let outcome = if name == unknown {
                Outcome::Unknown
            } else {
                Outcome::Pass
            };
            Question::new(name, name, "").answer(outcome, None, "")
        };
        judgement.verdict(&FINDINGS.map(answer), false)
    }

    #[test]
    fn what_slow_clients_do_to_others_must_be_known_to_pass() {
        let usual = Judgement::default();
        for decides in [
            "stalled-disconnected",
            "stalled-in-time",
            "paused-kept",
            "healthy-unaffected",
        ] {
            assert_eq!(verdict(&usual, decides), Outcome::Unknown, "{decides}");
        }
        for beside in ["memory-bounded", "nothing-left-in-kernel"] {
            assert_eq!(verdict(&usual, beside), Outcome::Pass, "{beside}");
        }
        let lax = Judgement {
            allow_unknown: true,
            ..Judgement::default()
        };
        assert_eq!(verdict(&lax, "healthy-unaffected"), Outcome::Pass);
    }
}
