//! Measurements that run one server after the other: bytes, system calls,
//! instructions. They do not swing with the machine as rates do.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::admin;
use crate::deadlines;
use crate::figure::{Figure, MESSAGE, SETTLE, nowhere, server_side_bytes};
use crate::generator::Generator;
use crate::instructions::{INSTRUCTIONS, instructions};
use crate::load::Work;
use crate::peer::Workshop;
use crate::prober;
use crate::procfs;
use crate::scenario::Trial;

/// Fast traffic before a stall, which makes the kernel's own buffers grow.
const FAST_TRAFFIC: Duration = Duration::from_millis(300);

/// Time in which system calls are counted. The pace of the load decides how
/// many events one wait brings, and changes from one tenth of a second to the
/// next.
const COUNT_FOR: Duration = Duration::from_secs(2);

/// Runs one trial.
pub(crate) fn run(trial: &Trial, workshop: &Workshop, is_quick: bool) -> Result<Vec<Figure>, String> {
    match trial {
        Trial::Idle { clients } => idle(workshop, *clients),
        Trial::Stalled { peers, clients } => {
            let mut figures = Vec::new();
            for (peer, arguments) in peers.iter().filter(|(peer, _)| workshop.has(peer)) {
                figures.extend(stalled(workshop, peer, arguments, *clients)?);
            }
            Ok(figures)
        }
        Trial::Instructions { peers, clients } => {
            let peers = peers.iter().filter(|peer| workshop.has(peer));
            peers
                .map(|peer| {
                    let each = instructions(workshop, peer, &[], *clients)?;
                    Ok(Figure::new(peer, INSTRUCTIONS, format!("{each:.0}")))
                })
                .chain([prober::instructions(workshop, *clients)])
                .collect()
        }
        Trial::Deadlines { peers, clients } => deadlines::run(workshop, peers, *clients),
        Trial::Admin { scraped, listed } => admin::run(workshop, *scraped, *listed),
        Trial::Prober { clients } => prober::run(workshop, *clients),
        Trial::Calls { peers, clients } => {
            let most = if is_quick { 2 } else { peers.len() };
            let mut figures = Vec::new();
            for peer in peers.iter().filter(|peer| workshop.has(peer)).take(most) {
                figures.extend(calls(workshop, peer, *clients)?);
            }
            Ok(figures)
        }
    }
}

fn idle(workshop: &Workshop, clients: usize) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for peer in ["floor", "highwater"] {
        let server = workshop.start(peer, &[], nowhere(), &format!("idle-{peer}"))?;
        let empty = server.resident_bytes();
        let mut generator = Generator::start(MESSAGE, clients)?;
        generator.open(server.address())?;
        std::thread::sleep(SETTLE);
        let full = server.resident_bytes();
        generator.slice(FAST_TRAFFIC)?;
        let used = server.resident_bytes();
        drop(generator);
        std::thread::sleep(SETTLE);
        let left = server.resident_bytes();
        let each = |bytes: u64| format!("{:.0} B", bytes.saturating_sub(empty) as f64 / clients as f64);
        figures.push(Figure::new(peer, "resident, no client", mebibytes(empty)));
        figures.push(Figure::new(peer, "resident per idle client", each(full)));
        figures.push(Figure::new(peer, "the same after each was served", each(used)));
        figures.push(Figure::new(
            peer,
            "left of it after they closed",
            mebibytes(left.saturating_sub(empty)),
        ));
    }
    Ok(figures)
}

fn stalled(
    workshop: &Workshop,
    peer: &str,
    arguments: &[&str],
    clients: usize,
) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for (is_warm, kernel, both, resident, took) in [
        (
            false,
            "kernel memory per stalled client",
            "with the client's end",
            "resident",
            "taken from each",
        ),
        (
            true,
            "kernel memory after fast traffic",
            "with the client's end, after fast traffic",
            "resident, after fast traffic",
            "taken from each, after fast traffic",
        ),
    ] {
        let mut generator = Generator::start(Work::Flood, if is_warm { clients } else { 0 })?;
        let server = workshop.start(peer, arguments, generator.backend(), &format!("stalled-{peer}"))?;
        generator.open(server.address())?;
        let empty = server.resident_bytes();
        if is_warm {
            generator.slice(FAST_TRAFFIC)?;
            generator.stop_reading()?;
        }
        let tcp = procfs::tcp_bytes();
        let sent = if is_warm { 0 } else { generator.stall(clients)? };
        let each = |bytes: u64| format!("{:.0} KB", bytes as f64 / clients as f64 / 1000.0);
        let held = server_side_bytes(&server, &generator)?;
        figures.push(Figure::new(peer, kernel, each(held)));
        if !is_warm {
            figures.push(Figure::new(
                peer,
                both,
                each(procfs::tcp_bytes().saturating_sub(tcp)),
            ));
            figures.push(Figure::new(peer, took, each(sent)));
        }
        figures.push(Figure::new(
            peer,
            resident,
            each(server.resident_bytes().saturating_sub(empty)),
        ));
    }
    Ok(figures)
}

/// Counts with perf(1), which does not slow the server down as tracing would.
fn calls(workshop: &Workshop, peer: &str, clients: usize) -> Result<Vec<Figure>, String> {
    const ALL: &str = "raw_syscalls:sys_enter";
    const WAITS: [&str; 3] = [
        "syscalls:sys_enter_epoll_wait",
        "syscalls:sys_enter_epoll_pwait",
        "syscalls:sys_enter_epoll_pwait2",
    ];
    let mut generator = Generator::start(MESSAGE, clients)?;
    let server = workshop.start(peer, &[], generator.backend(), &format!("calls-{peer}"))?;
    generator.open(server.address())?;
    let events = format!("{ALL},{}", WAITS.join(","));
    let pid = server.pid().to_string();
    // perf counts while its own command runs. That command is a cat: once it
    // has returned a line it surely runs, and it ends with its input.
    let fail = |error| format!("cannot run perf: {error}; Debian's package is linux-perf");
    let mut perf = Command::new("perf")
        .args(["stat", "-x", ";", "-e", &events, "-p", &pid, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    let (Some(mut to), Some(from)) = (perf.stdin.take(), perf.stdout.as_mut()) else {
        return Err("perf has no pipes".into());
    };
    to.write_all(b"\n").map_err(fail)?;
    from.read_exact(&mut [0]).map_err(fail)?;
    let slice = generator.slice(COUNT_FOR)?;
    drop(to);
    let output = perf
        .wait_with_output()
        .map_err(|error| format!("perf was lost: {error}"))?;
    let listing = String::from_utf8_lossy(&output.stderr);
    let count = |event: &str| -> Option<f64> {
        let line = listing
            .lines()
            .find(|line| line.split(';').nth(2) == Some(event))?;
        line.split(';').next()?.parse().ok()
    };
    let all = count(ALL).ok_or("perf cannot count system calls here; it takes root and tracefs")?;
    let waits: f64 = WAITS.iter().filter_map(|wait| count(wait)).sum();
    let done = slice.done as f64;
    Ok(vec![
        Figure::new(peer, "system calls per message", format!("{:.3}", all / done)),
        Figure::new(peer, "of these epoll_wait", format!("{:.3}", waits / done)),
    ])
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / f64::from(1 << 20))
}
