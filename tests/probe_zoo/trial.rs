//! One row put to the test: its server started, probed as a user would, and judged.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::programs::Running;
use highwater::probe::FINDINGS;

use crate::row::{Row, Server, Truth};

/// What the prober said of one finding, and what is true.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) finding: &'static str,
    pub(crate) truth: Truth,
    pub(crate) why: &'static str,
    pub(crate) verdict: String,
    pub(crate) reason: String,
}

impl Judged {
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        self.truth.contradiction(&self.verdict)
    }
}

pub(crate) enum Outcome {
    /// The server is not installed here.
    Skipped(&'static str),
    /// No report, and the last line on standard error.
    Refused {
        code: Option<i32>,
        line: String,
    },
    Reported {
        verdict: String,
        findings: Vec<Judged>,
    },
    /// The row itself is broken.
    Broken(String),
}

pub(crate) struct Trial {
    pub(crate) row: Row,
    pub(crate) outcome: Outcome,
    pub(crate) seconds: f64,
    /// The first time it was judged wrongly, beside others.
    pub(crate) tried_again: bool,
}

impl Trial {
    pub(crate) fn run(row: &Row) -> Self {
        let begun = std::time::Instant::now();
        let outcome = outcome(row).unwrap_or_else(Outcome::Broken);
        Self {
            row: row.clone(),
            outcome,
            seconds: begun.elapsed().as_secs_f64(),
            tried_again: false,
        }
    }

    /// Whether it is judged wrongly, and load could be the reason: never that of a false pass.
    pub(crate) fn may_be_the_load(&self) -> bool {
        let wrong = self.wrong();
        !wrong.is_empty()
            && self.row.known_wrong.is_none()
            && !wrong.iter().any(|wrong| wrong.contains("pass"))
    }

    /// Everything in which the prober contradicts the truth.
    pub(crate) fn wrong(&self) -> Vec<String> {
        match &self.outcome {
            Outcome::Skipped(_) => Vec::new(),
            Outcome::Broken(why) => vec![why.clone()],
            Outcome::Refused { code, line } => {
                let is_right = *code == Some(2) && self.row.refused.is_some_and(|word| line.contains(word));
                if is_right {
                    Vec::new()
                } else {
                    vec![format!("no report, exit code {code:?}: {line}")]
                }
            }
            Outcome::Reported { verdict, findings } => {
                if self.row.refused.is_some() {
                    return vec![format!("it should have been refused, and has verdict {verdict}")];
                }
                let mut wrong: Vec<String> = findings
                    .iter()
                    .filter_map(|judged| {
                        let contradiction = judged.contradiction()?;
                        Some(format!(
                            "{}: {contradiction}: {} (truth: {})",
                            judged.finding, judged.reason, judged.why
                        ))
                    })
                    .collect();
                wrong.extend(self.wrong_verdict(verdict));
                wrong
            }
        }
    }

    /// Whatever the findings are, a bad server never passes, and one without a fault never fails,
    /// unless options say what is wanted.
    fn wrong_verdict(&self, verdict: &str) -> Option<String> {
        if let Some((expected, why)) = self.row.verdict {
            let wrong = format!("verdict: {verdict} instead of {expected} (truth: {why})");
            return (verdict != expected).then_some(wrong);
        }
        let truths = FINDINGS.map(|finding| self.row.truth(finding).0);
        let is_bad = truths
            .iter()
            .any(|truth| matches!(truth, Truth::Bad | Truth::BadUnseen));
        let may_fail = is_bad || truths.contains(&Truth::Open);
        match verdict {
            "pass" if is_bad => Some("verdict: false pass".into()),
            "fail" if !may_fail => Some("verdict: false fail".into()),
            _ => None,
        }
    }
}

fn outcome(row: &Row) -> Result<Outcome, String> {
    let running = match &row.server {
        Server::Small(_) if row.is_elsewhere => match Running::elsewhere(row.name)? {
            Some(running) => running,
            None => return Ok(Outcome::Skipped("root, ip and unshare")),
        },
        Server::Small(_) => Running::small(row.name)?,
        Server::Program(program) => match program.start()? {
            Some(running) => running,
            None => return Ok(Outcome::Skipped(program.needs)),
        },
    };
    let output = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .arg("probe")
        .arg(SocketAddr::from((running.host, running.port)).to_string())
        .args(row.command())
        .arg("--json")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    read(row, &output)
}

fn read(row: &Row, output: &Output) -> Result<Outcome, String> {
    let Ok(report) = serde_json::from_slice::<Value>(&output.stdout) else {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().last().unwrap_or_default().to_owned();
        return Ok(Outcome::Refused {
            code: output.status.code(),
            line,
        });
    };
    let verdict = report["verdict"].as_str().unwrap_or_default().to_owned();
    if (output.status.code() == Some(0)) != (verdict == "pass") {
        return Err(format!("verdict {verdict}, but {}", output.status));
    }
    let said = report["findings"].as_array().cloned().unwrap_or_default();
    let findings = FINDINGS.map(|finding| {
        let (truth, why) = row.truth(finding);
        let said = said.iter().find(|said| said["name"] == finding);
        let field = |name: &str| {
            said.and_then(|said| said[name].as_str())
                .unwrap_or("missing")
                .to_owned()
        };
        Judged {
            finding,
            truth,
            why,
            verdict: field("verdict"),
            reason: field("reason"),
        }
    });
    Ok(Outcome::Reported {
        verdict,
        findings: findings.to_vec(),
    })
}
