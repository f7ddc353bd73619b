//! Starts programs on one core, such that none outlives this one.
//!
//! Between the fork and the server stands this program again, for a moment: it
//! moves to the core, asks to be killed with its parent, and becomes the server.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;
use rustix::thread::CpuSet;

/// The first word of a command line that asks for [`run`].
pub(crate) const LAUNCH: &str = "--launch-on-core";

/// Where the clients and everything else run.
pub(crate) const LOAD_CORE: usize = 0;

/// Where the servers run, and nothing else.
pub(crate) const SERVER_CORE: usize = 1;

/// Before other programs, where one may: what else runs would be measured too.
const PRIORITY: i32 = -20;

/// Keeps the calling thread, and what it starts from now on, to one core.
pub(crate) fn keep_to(core: usize) -> Result<(), String> {
    let mut cores = CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).map_err(|error| {
        format!("cannot keep to core {core}: {error}; a comparison takes two cores, one for the servers")
    })
}

/// A command that runs `program` on `core`, for no longer than this process lives.
pub(crate) fn command(core: usize, program: &str, arguments: &[String]) -> Result<Command, String> {
    let this = std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    let mut command = Command::new(this);
    command
        .arg(LAUNCH)
        .arg(core.to_string())
        .arg(program)
        .args(arguments);
    Ok(command)
}

/// Becomes the program named by `words`: the core, the program, its arguments.
pub(crate) fn run(mut words: impl Iterator<Item = String>) -> Result<(), String> {
    let core = words
        .next()
        .and_then(|core| core.parse().ok())
        .ok_or("no core was given")?;
    let program = words.next().ok_or("no program was given")?;
    keep_to(core)?;
    // A session, and so a group, of its own: servers that fork can be counted
    // and ended whole, and the scheduler weighs them by themselves.
    rustix::process::setsid().map_err(|error| format!("no session for {program}: {error}"))?;
    go_first();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("cannot tie {program} to its parent: {error}"))?;
    let error = Command::new(&program).args(words).exec();
    Err(format!("cannot start {program}: {error}"))
}

/// Asks to run before whatever else is busy here. Only root is heard; without it
/// the ratios spread wider, and are no less true.
fn go_first() {
    // Where sessions are weighed as a whole, a priority counts only inside one
    // (sched(7), the autogroup feature).
    let _ = fs::write("/proc/self/autogroup", PRIORITY.to_string());
    let _ = rustix::process::setpriority_process(None, PRIORITY);
}
