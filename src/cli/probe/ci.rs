//! The report for machines that build and test: JUnit's XML, and the annotations of GitHub.

use std::fmt::Write;

use highwater::probe::{Outcome, Report};

/// A test case for each finding: failures as such; what is unknown or not tested is skipped.
pub(super) fn junit(report: &Report) -> String {
    let count = |outcomes: &[Outcome]| {
        let matching = report
            .findings
            .iter()
            .filter(|finding| outcomes.contains(&finding.outcome));
        matching.count()
    };
    let suite = format!("highwater probe {} ({})", report.target, report.protocol);
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{:.3}\">\n",
        escaped(&suite),
        report.findings.len(),
        count(&[Outcome::Fail]),
        count(&[Outcome::Unknown, Outcome::NotTested]),
        report.measured.seconds
    );
    for finding in &report.findings {
        let (name, title, reason) = (finding.name, escaped(&finding.title), escaped(&finding.reason));
        // Writing to a string cannot fail.
        let _ = write!(
            xml,
            "    <testcase classname=\"highwater.probe\" name=\"{name}\" time=\"0\""
        );
        let _ = match finding.outcome {
            Outcome::Fail => writeln!(xml, "><failure message=\"{title}: {reason}\"/></testcase>"),
            Outcome::Unknown => writeln!(xml, "><skipped message=\"unknown: {reason}\"/></testcase>"),
            Outcome::NotTested => writeln!(xml, "><skipped message=\"not tested: {reason}\"/></testcase>"),
            Outcome::Pass => writeln!(xml, "><system-out>{title}: {reason}</system-out></testcase>"),
        };
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

fn escaped(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '&' => xml.push_str("&amp;"),
            '"' => xml.push_str("&quot;"),
            // XML 1.0 has no way to write these.
            char if char.is_control() => xml.push('?'),
            char => xml.push(char),
        }
    }
    xml
}

/// An error for each finding that failed, a warning for each that is unknown, and the verdict.
pub(super) fn github(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let command = match finding.outcome {
            Outcome::Fail => "error",
            Outcome::Unknown => "warning",
            Outcome::Pass | Outcome::NotTested => continue,
        };
        let message = command_data(&format!("{}: {}", finding.title, finding.reason));
        let _ = writeln!(
            text,
            "::{command} title=highwater probe {}::{message}",
            finding.name
        );
    }
    let verdict = match report.verdict {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Unknown | Outcome::NotTested => "unknown",
    };
    let target = command_data(&report.target);
    let _ = writeln!(text, "highwater probe {target} ({}): {verdict}", report.protocol);
    text
}

/// As workflow commands want their data.
fn command_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_and_workflow_commands_mean_otherwise_is_escaped() {
        assert_eq!(escaped("a<b>&\"c\"\u{1}"), "a&lt;b&gt;&amp;&quot;c&quot;?");
        assert_eq!(command_data("50 %\n::error::x"), "50 %25%0A::error::x");
    }
}
