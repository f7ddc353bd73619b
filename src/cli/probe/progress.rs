//! The progress bar: live counts while a probe runs, on standard error.
//!
//! Nothing at all where standard error is no terminal. Also notices Ctrl-C.

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use highwater::probe::{Live, ProgressSink};

/// As often as something new is told.
const DRAWN_PER_SECOND: u8 = 10;
/// What a terminal writes itself when somebody presses Ctrl-C: `^C`, and the cursor behind it.
const ECHO_COLUMNS: u16 = 3;

/// A bar, and the ear for SIGINT and SIGTERM.
pub(crate) struct Progress {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl Progress {
    /// Draws nothing yet. The first signal ends the probe with what it has
    /// measured so far; a second one ends the process at once.
    pub(crate) fn start() -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // In this order: the first signal finds the flag down, raises it, and the second finds it up.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))?;
        }
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::term_like_with_hz(
                Box::new(Narrowed(Term::buffered_stderr())),
                DRAWN_PER_SECOND,
            )
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        let template = "{prefix:>10} [{bar:20}] {msg}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        Ok(Self { bar, stop })
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

impl ProgressSink for Progress {
    fn observe(&mut self, live: &Live) -> ControlFlow<()> {
        let expected = live.expected.max(live.elapsed);
        self.bar
            .set_length(u64::try_from(expected.as_millis()).unwrap_or(u64::MAX));
        self.bar
            .set_position(u64::try_from(live.elapsed.as_millis()).unwrap_or(u64::MAX));
        self.bar.set_prefix(live.phase.name());
        self.bar.set_message(counts(live, expected));
        if self.is_interrupted() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn is_interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Three short lines, so that a terminal of 80 columns holds them.
fn counts(live: &Live, expected: Duration) -> String {
    let (healthy, slow) = ("healthy", "slow");
    let clock = format!(
        "{:.1} s of about {:.0} s",
        live.elapsed.as_secs_f64(),
        expected.as_secs_f64()
    );
    let felt = format!(
        "{:.0} answers/s, longest wait {:.1} ms",
        live.messages_per_second,
        live.longest_wait.as_secs_f64() * 1e3
    );
    let fates = format!(
        "{} connected, {} full, {} gone",
        live.slow_connected, live.slow_full, live.slow_ended
    );
    format!("{clock}\n{healthy:>10}  {felt}\n{slow:>10}  {fates}")
}

/// The terminal, told a little narrower than it is. The bar is drawn to the right edge, from where
/// the echo of Ctrl-C would go on in the next line, and a part of the bar could not be taken away.
#[derive(Debug)]
struct Narrowed(Term);

impl TermLike for Narrowed {
    fn width(&self) -> u16 {
        self.0.size().1.saturating_sub(ECHO_COLUMNS)
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_up(lines)
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_down(lines)
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_right(columns)
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_left(columns)
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.0.write_line(line)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}
