//! Starts programs on one core, so that none outlives this one.
//!
//! Between the fork and the server this program runs once more for a moment: it
//! moves to the core, asks to be killed with its parent, and becomes the
//! server.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;
use rustix::thread::CpuSet;

/// The first word of a command line that asks for [`run`].
pub(crate) const LAUNCH: &str = "--launch-on-core";

/// The core of the clients and of everything else.
pub(crate) const LOAD_CORE: usize = 0;

/// The core of the servers alone.
pub(crate) const SERVER_CORE: usize = 1;

/// Priority before other programs, if this process may set it: their work would
/// be measured too.
const PRIORITY: i32 = -20;

/// Keeps the calling thread, and all that it starts from now on, on one core.
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
    // A session, and so a group, of its own. A server that forks is then
    // counted and ended whole, and the scheduler weighs it by itself.
    rustix::process::setsid().map_err(|error| format!("no session for {program}: {error}"))?;
    go_first();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("cannot tie {program} to its parent: {error}"))?;
    let error = Command::new(&program).args(words).exec();
    Err(format!("cannot start {program}: {error}"))
}

/// Asks to run before other busy programs. Only root may; without it the ratios
/// spread wider, and are no less true.
fn go_first() {
    // If the kernel weighs sessions as a whole, a priority counts only inside
    // one (sched(7), the autogroup feature).
    let _ = fs::write("/proc/self/autogroup", PRIORITY.to_string());
    let _ = rustix::process::setpriority_process(None, PRIORITY);
}
