//! The report for people, as plain text of at most 80 columns.

use std::fmt::{self, Write};

use crate::probe::kind::{Reading, SlowKind};
use crate::probe::report::measurement::PhaseFigures;
use crate::probe::report::verdict::finding::Outcome;
use crate::probe::report::{Report, SlowGroup, Spread};

/// Columns of a common terminal.
const WIDTH: usize = 80;
/// Where the title of a finding begins, and its reason where that needs lines of its own.
const REASON_COLUMN: usize = 14;

/// The report as lines of text; `colour` adds terminal colours to the outcomes.
#[must_use]
pub fn table(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_report(&mut text, report, colour);
    text
}

fn write_report(out: &mut String, report: &Report, colour: bool) -> fmt::Result {
    writeln!(
        out,
        "{} ({}), {:.1} s",
        report.target, report.protocol, report.measured.seconds
    )?;
    if report.measured.interrupted {
        writeln!(out, "ended early: what follows is what was measured until then")?;
    }
    write_healthy(out, report)?;
    write_slow(out, report)?;
    write_pushed(out, report)?;
    write_server(out, report)?;
    writeln!(out)?;
    for finding in &report.findings {
        let outcome = painted(finding.outcome, colour);
        writeln!(out, "  {outcome}  {}", wrapped(&finding.title, &finding.reason))?;
    }
    writeln!(out, "\nverdict: {}", painted(report.verdict, colour).trim_end())
}

/// A title with its reason, on one line if both fit, else on lines of their own.
fn wrapped(title: &str, reason: &str) -> String {
    if REASON_COLUMN + title.len() + 2 + reason.len() <= WIDTH {
        return format!("{title}: {reason}");
    }
    let mut text = format!("{title}:");
    let mut column = WIDTH;
    for word in reason.split(' ') {
        if column + 1 + word.len() > WIDTH {
            text.push_str(&format!("\n{:REASON_COLUMN$}{word}", ""));
            column = REASON_COLUMN + word.len();
        } else {
            text.push_str(&format!(" {word}"));
            column += 1 + word.len();
        }
    }
    text
}

fn write_healthy(out: &mut String, report: &Report) -> fmt::Result {
    let healthy = &report.measured.healthy;
    if healthy.clients == 0 {
        return Ok(());
    }
    writeln!(out, "\n{} healthy clients", healthy.clients)?;
    writeln!(
        out,
        "  {:<8}{:>6}{:>12}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "phase", "s", "answers/s", "MiB/s", "p50", "p99", "p99.9", "max"
    )?;
    for (name, phase) in [
        ("before", healthy.before),
        ("during", healthy.during),
        ("after", healthy.after),
    ] {
        if let Some(phase) = phase {
            write_phase(out, name, &phase)?;
        }
    }
    Ok(())
}

fn write_phase(out: &mut String, name: &str, phase: &PhaseFigures) -> fmt::Result {
    writeln!(
        out,
        "  {name:<8}{:>6.1}{:>12.0}{:>10.1}{:>10}{:>10}{:>10}{:>10}",
        phase.seconds,
        phase.messages_per_second,
        phase.bytes_per_second / f64::from(1 << 20),
        wait(phase.p50_us),
        wait(phase.p99_us),
        wait(phase.p999_us),
        wait(phase.max_us)
    )
}

fn write_slow(out: &mut String, report: &Report) -> fmt::Result {
    if report.groups.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nslow clients")?;
    writeln!(
        out,
        "  {:<8}{:>6}{:>6}{:>6}{:>5}{:>5}{:>7}{:>17}{:>18}",
        "kind", "count", "full", "reset", "eof", "left", "stayed", "s full to end", "MiB absorbed"
    )?;
    for group in &report.groups {
        write_group(out, group)?;
    }
    Ok(())
}

fn write_group(out: &mut String, group: &SlowGroup) -> fmt::Result {
    let kind = group.kind.name();
    writeln!(
        out,
        "  {kind:<8}{:>6}{:>6}{:>6}{:>5}{:>5}{:>7}{:>17}{:>18}",
        group.clients,
        group.full,
        group.reset,
        group.end_of_file,
        group.left_in_kernel,
        group.never,
        spread(group.seconds_to_end, 1.0),
        spread(group.absorbed_bytes, f64::from(1 << 20))
    )
}

/// What a server that sends by itself sent, and who made it do so.
fn write_pushed(out: &mut String, report: &Report) -> fmt::Result {
    let is_quiet = |kind: SlowKind| kind.row().reading == Reading::NeverInSteps;
    let slow = report.measured.slow.iter();
    let pushed: Vec<_> = slow
        .filter(|client| client.connected && !is_quiet(client.kind))
        .collect();
    let is_verified = pushed.iter().any(|client| client.intact.is_some());
    let is_pushed = pushed.iter().any(|client| client.intact.is_none());
    let bytes = pushed.iter().map(|client| client.output_bytes as f64).collect();
    if let Some(spread) = Spread::of(bytes).filter(|_| is_pushed) {
        let unverified = if is_verified { "" } else { ", unverified" };
        writeln!(
            out,
            "  pushed to each slow client: {} to {} bytes{unverified}",
            spread.minimum, spread.maximum
        )?;
    }
    if let Some(publisher) = &report.measured.publisher {
        let end = if publisher.ended {
            ", then it was disconnected"
        } else {
            ""
        };
        writeln!(out, "  published: {} lines{end}", publisher.messages)?;
    }
    Ok(())
}

fn write_server(out: &mut String, report: &Report) -> fmt::Result {
    let Some(server) = &report.measured.server else {
        return Ok(());
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let pids: Vec<String> = server.pids.iter().map(ToString::to_string).collect();
    writeln!(out, "\nserver {} (process {})", server.name, pids.join(", "))?;
    writeln!(
        out,
        "  memory {:.1} MiB before, {:.1} at most, {:.1} after",
        mib(server.rss_before_bytes),
        mib(server.rss_peak_bytes),
        mib(server.rss_after_bytes)
    )?;
    writeln!(
        out,
        "  processor {:.0} % before, {:.0} % during, {:.0} % after",
        server.cpu_before_percent, server.cpu_during_percent, server.cpu_after_percent
    )?;
    writeln!(
        out,
        "  kernel queues of slow clients, at most: {:.1} MiB to send, {:.1} MiB received",
        mib(server.kernel_send_queue_peak_bytes),
        mib(server.kernel_receive_queue_peak_bytes)
    )?;
    writeln!(
        out,
        "  left behind: {} connections, {:.1} MiB",
        server.orphans,
        mib(server.orphan_bytes)
    )
}

fn spread(spread: Option<Spread>, unit: f64) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |s| {
            format!(
                "{:.2}/{:.2}/{:.2}",
                s.minimum / unit,
                s.median / unit,
                s.maximum / unit
            )
        },
    )
}

fn wait(us: f64) -> String {
    if us >= 1e6 {
        format!("{:.2} s", us / 1e6)
    } else if us >= 1e3 {
        format!("{:.1} ms", us / 1e3)
    } else {
        format!("{us:.0} us")
    }
}

fn painted(outcome: Outcome, colour: bool) -> String {
    let (word, code) = match outcome {
        Outcome::Pass => ("pass      ", "32"),
        Outcome::Fail => ("FAIL      ", "31"),
        Outcome::Unknown => ("unknown   ", "33"),
        Outcome::NotTested => ("not tested", "2"),
    };
    if colour {
        format!("\x1b[{code}m{word}\x1b[0m")
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_finding_is_longer_than_a_terminal_is_wide() {
        assert_eq!(wrapped("a title", "a reason"), "a title: a reason");
        let reason = "one of these words after the other ".repeat(9);
        let text = format!("{:REASON_COLUMN$}{}", "", wrapped("a title", reason.trim_end()));
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() > 4 && lines[0].ends_with("a title:"), "{text}");
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(text.split_whitespace().count(), 2 + 9 * 7);
    }
}
