//! A trace: destinations with their marks, and steps that are done to them.
//!
//! Owns the form in which a trace is written, drawn at random and made
//! shorter. Knows neither Node nor our own queue.
//!
//! A trace is one line: its kind, the marks, the steps.
//!
//! ```text
//! writable 4 w0:5 t0:1 .
//! pipe 16384,4v p0 p1 a9000 a9000 t0:2 t1:1 z
//! ```
//!
//! A mark with a `v` belongs to a destination that gathers: what waited behind
//! a chunk is given to the sink as one (Node's `writev`). Kind `writable` is
//! observed at once after each step, kind `pipe` once everything that Node put
//! off to a later tick has run.

use std::fmt;

use fastrand::Rng;

/// The longest chunk that a trace may write.
pub(crate) const LONGEST_CHUNK_BYTES: usize = 1 << 20;

/// The most steps of a random trace.
pub(crate) const MOST_STEPS: usize = 40;

/// The most steps after an end.
const STEPS_AFTER_END: usize = 6;

/// Enough credit for every chunk of any trace.
const ALWAYS: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Writable,
    Pipe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) bytes: usize,
    pub(crate) gathers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write so many bytes to a destination, past any pipe.
    Write(usize, usize),
    /// The sink takes the chunk that it holds, if any, and so many in all as
    /// soon as they are offered.
    Take(usize, usize),
    /// The sink takes nothing more.
    Shut(usize),
    /// End a destination.
    End(usize),
    /// At the next drain that has no task yet, write so many bytes.
    WriteOnDrain(usize, usize),
    /// At the next drain that has no task yet, end the destination.
    EndOnDrain(usize),
    /// So many bytes arrive at the source.
    Arrive(usize),
    /// The source ends.
    SourceEnds,
    /// Pipe the source to a destination, except where Node would forget that
    /// another one holds the source.
    Pipe(usize),
    /// The same without that exception.
    PipeAnyway(usize),
    Unpipe(usize),
    /// What waits is read and written to the only destination although that
    /// one holds the source.
    ReadThoughHeld,
    /// Let run what Node put off to a later tick.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) kind: Kind,
    pub(crate) marks: Vec<Mark>,
    pub(crate) steps: Vec<Step>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Write(to, count) => write!(f, "w{to}:{count}"),
            Self::Take(to, count) => write!(f, "t{to}:{count}"),
            Self::Shut(to) => write!(f, "x{to}"),
            Self::End(to) => write!(f, "e{to}"),
            Self::WriteOnDrain(to, count) => write!(f, "d{to}:{count}"),
            Self::EndOnDrain(to) => write!(f, "f{to}"),
            Self::Arrive(count) => write!(f, "a{count}"),
            Self::SourceEnds => f.write_str("z"),
            Self::Pipe(to) => write!(f, "p{to}"),
            Self::PipeAnyway(to) => write!(f, "q{to}"),
            Self::Unpipe(to) => write!(f, "u{to}"),
            Self::ReadThoughHeld => f.write_str("r"),
            Self::Tick => f.write_str("."),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Writable => "writable",
            Kind::Pipe => "pipe",
        })?;
        for (index, mark) in self.marks.iter().enumerate() {
            let before = if index == 0 { ' ' } else { ',' };
            write!(f, "{before}{}{}", mark.bytes, if mark.gathers { "v" } else { "" })?;
        }
        self.steps.iter().try_for_each(|step| write!(f, " {step}"))
    }
}

impl Step {
    fn parse(text: &str) -> Option<Self> {
        let mut letters = text.chars();
        let verb = letters.next()?;
        let mut numbers = letters.as_str().split(':').map(str::parse::<usize>);
        let mut number = || numbers.next()?.ok();
        Some(match verb {
            'w' => Self::Write(number()?, number()?),
            't' => Self::Take(number()?, number()?),
            'x' => Self::Shut(number()?),
            'e' => Self::End(number()?),
            'd' => Self::WriteOnDrain(number()?, number()?),
            'f' => Self::EndOnDrain(number()?),
            'a' => Self::Arrive(number()?),
            'z' => Self::SourceEnds,
            'p' => Self::Pipe(number()?),
            'q' => Self::PipeAnyway(number()?),
            'u' => Self::Unpipe(number()?),
            'r' => Self::ReadThoughHeld,
            '.' => Self::Tick,
            _ => return None,
        })
    }

    fn destination(&self) -> Option<usize> {
        match *self {
            Self::Write(to, _)
            | Self::Take(to, _)
            | Self::Shut(to)
            | Self::End(to)
            | Self::WriteOnDrain(to, _)
            | Self::EndOnDrain(to)
            | Self::Pipe(to)
            | Self::PipeAnyway(to)
            | Self::Unpipe(to) => Some(to),
            Self::Arrive(_) | Self::SourceEnds | Self::ReadThoughHeld | Self::Tick => None,
        }
    }

    fn count_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::Write(_, count) | Self::WriteOnDrain(_, count) | Self::Take(_, count) => Some(count),
            // Node does not take a chunk of nothing as having arrived.
            Self::Arrive(count) if *count > 1 => Some(count),
            _ => None,
        }
    }
}

impl Trace {
    /// Reads a trace from the line that `Display` writes.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = match words.next()? {
            "writable" => Kind::Writable,
            "pipe" => Kind::Pipe,
            _ => return None,
        };
        let mark = |text: &str| {
            let bytes = text.trim_end_matches('v');
            Some(Mark {
                bytes: bytes.parse().ok()?,
                gathers: bytes.len() < text.len(),
            })
        };
        Some(Self {
            kind,
            marks: words.next()?.split(',').map(mark).collect::<Option<_>>()?,
            steps: words.map(Step::parse).collect::<Option<_>>()?,
        })
    }

    /// Draws a trace.
    pub(crate) fn draw(kind: Kind, rng: &mut Rng) -> Self {
        let destinations = match kind {
            Kind::Writable => 1,
            Kind::Pipe => *pick(rng, &[1, 1, 2, 3]),
        };
        let marks: Vec<_> = (0..destinations).map(|_| draw_mark(rng)).collect();
        let mut steps = Vec::new();
        // Most pipes begin with all their destinations; some gain them later.
        if kind == Kind::Pipe && rng.u8(..) < 200 {
            steps.extend((0..destinations).map(Step::Pipe));
        }
        // Sinks that take at once, later, and never.
        let style = rng.usize(..3);
        if style == 0 {
            steps.push(Step::Take(0, ALWAYS));
        }
        let mut left = rng.usize(1..=MOST_STEPS - steps.len());
        while left > 0 {
            left -= 1;
            let to = rng.usize(..destinations);
            let takes = style < 2 || (kind == Kind::Pipe && to > 0);
            steps.push(match kind {
                Kind::Writable => draw_writable_step(rng, marks[0].bytes, takes),
                Kind::Pipe => draw_pipe_step(rng, to, marks[to].bytes, takes),
            });
            // Little happens after an end.
            if matches!(steps.last(), Some(Step::End(_) | Step::SourceEnds)) {
                left = left.min(STEPS_AFTER_END);
            }
        }
        Self { kind, marks, steps }
    }

    /// Shorter and simpler traces that might show the same thing.
    pub(crate) fn simpler(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut width = self.steps.len();
        while width > 0 {
            for from in (0..self.steps.len()).step_by(width) {
                let mut less = self.clone();
                less.steps.drain(from..(from + width).min(self.steps.len()));
                all.push(less);
            }
            width /= 2;
        }
        for index in 0..self.steps.len() {
            for change in [|_| 0, |count| count / 2, |count| count - 1] {
                let mut less = self.clone();
                if let Some(count) = less.steps[index].count_mut() {
                    let floor = usize::from(matches!(self.steps[index], Step::Arrive(_)));
                    *count = change((*count).max(1)).max(floor);
                    all.push(less);
                }
            }
        }
        for index in 0..self.marks.len() {
            for change in [|bytes| bytes / 2, |bytes: usize| bytes.saturating_sub(1)] {
                let mut less = self.clone();
                less.marks[index].bytes = change(less.marks[index].bytes);
                all.push(less);
            }
            let mut less = self.clone();
            less.marks[index].gathers = false;
            all.push(less);
        }
        // A mark and the sizes around it often have to shrink together.
        for change in [|count| count / 2, |count: usize| count.saturating_sub(1)] {
            let mut less = self.clone();
            less.marks
                .iter_mut()
                .for_each(|mark| mark.bytes = change(mark.bytes));
            for count in less.steps.iter_mut().filter_map(Step::count_mut) {
                *count = change(*count).max(1);
            }
            all.push(less);
        }
        if let Some(last) = self.marks.len().checked_sub(1).filter(|&last| last > 0)
            && self.steps.iter().all(|step| step.destination() != Some(last))
        {
            let mut less = self.clone();
            less.marks.pop();
            all.push(less);
        }
        all.retain(|less| less.weight() < self.weight());
        all
    }

    /// How much a reader has to take in: steps first, then destinations, then
    /// numbers.
    pub(crate) fn weight(&self) -> (usize, usize, usize) {
        let marks = self
            .marks
            .iter()
            .map(|mark| mark.bytes + usize::from(mark.gathers));
        let counts = self
            .steps
            .iter()
            .map(|step| step.clone().count_mut().map_or(0, |count| *count));
        (self.steps.len(), self.marks.len(), marks.chain(counts).sum())
    }
}

fn pick<'all, T>(rng: &mut Rng, all: &'all [T]) -> &'all T {
    &all[rng.usize(..all.len())]
}

fn draw_mark(rng: &mut Rng) -> Mark {
    let small = [0, 1, 2, 3, 7, 8, 16, 255, 256, 257, 1000];
    let large = [4096, 16 * 1024, 16 * 1024 + 1, 64 * 1024];
    Mark {
        bytes: if rng.u8(..8) == 0 {
            *pick(rng, &large)
        } else {
            *pick(rng, &small)
        },
        gathers: rng.u8(..3) == 0,
    }
}

fn draw_count(rng: &mut Rng, mark: usize) -> usize {
    let count = match rng.u8(..10) {
        0 => 0,
        1 => 1,
        2 => mark.saturating_sub(1),
        3 => mark,
        4 => mark + 1,
        5 => mark * rng.usize(2..12),
        _ => rng.usize(0..=mark / 2 + 1),
    };
    count.min(LONGEST_CHUNK_BYTES)
}

fn draw_take(rng: &mut Rng) -> usize {
    match rng.u8(..24) {
        0 => ALWAYS,
        1..16 => 1,
        _ => rng.usize(2..6),
    }
}

fn draw_writable_step(rng: &mut Rng, mark: usize, takes: bool) -> Step {
    match rng.u8(..40) {
        0 => Step::End(0),
        1 if rng.bool() => Step::EndOnDrain(0),
        1..5 => Step::WriteOnDrain(0, draw_count(rng, mark)),
        5..9 => Step::Tick,
        9 if takes => Step::Shut(0),
        10..20 if takes => Step::Take(0, draw_take(rng)),
        _ => Step::Write(0, draw_count(rng, mark)),
    }
}

fn draw_pipe_step(rng: &mut Rng, to: usize, mark: usize, takes: bool) -> Step {
    match rng.u8(..40) {
        0 => Step::SourceEnds,
        1 | 2 => Step::Unpipe(to),
        3..6 => Step::Pipe(to),
        6..9 => Step::Write(to, draw_count(rng, mark)),
        9 => Step::WriteOnDrain(to, draw_count(rng, mark)),
        10 | 11 => Step::ReadThoughHeld,
        12 if takes => Step::Shut(to),
        13..25 if takes => Step::Take(to, draw_take(rng)),
        _ => Step::Arrive(draw_count(rng, mark).max(1)),
    }
}
