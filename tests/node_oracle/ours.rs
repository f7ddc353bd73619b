//! The same steps on `SendQueue` and `Pipe`.
//!
//! Owns a sink that, as Node's, takes whole chunks: it is tried first, and
//! only what it does not take at once goes into the queue. Observes what
//! oracle.js observes, in the same words.

use std::collections::VecDeque;
use std::fmt::Write as _;

use bytes::Bytes;
use highwater::Answer;
use highwater::backpressure::{Flow, Pipe, SendQueue, Sent};

use super::trace::{Kind, LONGEST_CHUNK_BYTES, MOST_STEPS, Mark, Step, Trace};

/// As long as all chunks of a trace together, which may arrive in one read.
static ZEROS: [u8; LONGEST_CHUNK_BYTES * MOST_STEPS] = [0; LONGEST_CHUNK_BYTES * MOST_STEPS];

/// What was observed after each step.
pub(crate) fn run(trace: &Trace) -> Vec<String> {
    let mut machine = Machine::new(trace);
    trace.steps.iter().map(|&step| machine.take_step(step)).collect()
}

#[derive(Clone, Copy)]
enum OnDrain {
    Write(usize),
    End,
}

/// One destination: our queue before a sink of whole chunks.
pub(crate) struct Destination {
    pub(crate) queue: SendQueue,
    gathers: bool,
    /// How many more chunks the sink takes when offered.
    credit: usize,
    /// The chunk that the sink has been offered and has not taken yet.
    held: Option<usize>,
    /// The chunks behind that one.
    waiting: VecDeque<usize>,
    on_drain: VecDeque<OnDrain>,
    /// How much of the chunk that is held was sent byte by byte.
    pub(crate) part_sent: usize,
    log: String,
}

impl Destination {
    pub(crate) fn new(mark: Mark) -> Self {
        Self {
            queue: SendQueue::new(mark.bytes),
            gathers: mark.gathers,
            credit: 0,
            held: None,
            waiting: VecDeque::new(),
            on_drain: VecDeque::new(),
            part_sent: 0,
            log: String::new(),
        }
    }

    /// A step that concerns one destination; says whether drain was said.
    pub(crate) fn take_step(&mut self, step: Step) -> bool {
        match step {
            Step::Write(_, count) => self.write_unless_ended(count),
            Step::Take(_, chunks) => return self.take(chunks),
            Step::Shut(_) => self.credit = 0,
            Step::End(_) => self.end(),
            Step::WriteOnDrain(_, count) => self.on_drain.push_back(OnDrain::Write(count)),
            Step::EndOnDrain(_) => self.on_drain.push_back(OnDrain::End),
            Step::Tick => {}
            other => panic!("{other} is not a step of one destination"),
        }
        false
    }

    pub(crate) fn write(&mut self, count: usize) -> Answer {
        let rest = if self.held.is_some() {
            self.waiting.push_back(count);
            count
        } else if self.credit > 0 {
            self.credit -= 1;
            0
        } else {
            self.held = Some(count);
            count
        };
        // Both ways into the queue have to answer alike.
        let answer = if count.is_multiple_of(2) {
            self.queue.write(&ZEROS[..rest])
        } else {
            self.queue.write_shared(Bytes::from_static(&ZEROS[..rest]))
        };
        self.log.push(match answer {
            Answer::Continue => '+',
            Answer::Pause => '-',
        });
        answer
    }

    /// A write that is not allowed after the end, as in Node.
    fn write_unless_ended(&mut self, count: usize) {
        if self.queue.is_ended() {
            self.log.push('_');
        } else {
            self.write(count);
        }
    }

    fn end(&mut self) {
        if self.queue.is_ended() {
            self.log.push('_');
        } else {
            self.queue.end();
        }
    }

    /// The sink takes up to `chunks` more; says whether drain was said.
    pub(crate) fn take(&mut self, chunks: usize) -> bool {
        self.credit += chunks;
        let mut drained = false;
        while self.credit > 0
            && let Some(chunk) = self.held.take()
        {
            self.credit -= 1;
            let rest = chunk - std::mem::take(&mut self.part_sent);
            if self.queue.sent(rest) == Sent::Drained {
                assert!(!drained, "drain was said twice for one pause");
                drained = true;
            }
            self.held = self.next_offer();
        }
        if drained {
            self.log.push('D');
            match self.on_drain.pop_front() {
                Some(OnDrain::Write(count)) => self.write_unless_ended(count),
                Some(OnDrain::End) => self.end(),
                None => {}
            }
        }
        drained
    }

    /// The sink takes a part of what it holds, never all of it.
    pub(crate) fn take_part(&mut self, count: usize) -> Sent {
        assert!(count < self.held_bytes(), "a part is less than the whole");
        self.part_sent += count;
        self.queue.sent(count)
    }

    /// What the sink was offered and has not sent yet.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.unwrap_or(0) - self.part_sent
    }

    fn next_offer(&mut self) -> Option<usize> {
        if self.gathers && !self.waiting.is_empty() {
            Some(self.waiting.drain(..).sum())
        } else {
            self.waiting.pop_front()
        }
    }

    pub(crate) fn observe(&mut self) -> String {
        // After its end a queue owes no drain, whatever was answered before.
        let owes_drain = self.queue.needs_drain() && !self.queue.is_ended();
        let seen = format!(
            "{}:{}{}",
            self.log,
            self.queue.len(),
            if owes_drain { "n" } else { "" }
        );
        self.log.clear();
        seen
    }
}

struct Machine {
    kind: Kind,
    destinations: Vec<Destination>,
    pipe: Pipe<usize>,
    /// Chunks that arrived and were not read yet.
    unread: VecDeque<usize>,
    end_arrived: bool,
    end_read: bool,
    skipped: bool,
}

impl Machine {
    fn new(trace: &Trace) -> Self {
        Self {
            kind: trace.kind,
            destinations: trace.marks.iter().map(|&mark| Destination::new(mark)).collect(),
            pipe: Pipe::default(),
            unread: VecDeque::new(),
            end_arrived: false,
            end_read: false,
            skipped: false,
        }
    }

    fn take_step(&mut self, step: Step) -> String {
        match step {
            Step::Write(to, _)
            | Step::Take(to, _)
            | Step::Shut(to)
            | Step::End(to)
            | Step::WriteOnDrain(to, _)
            | Step::EndOnDrain(to) => {
                if self.destinations[to].take_step(step) {
                    self.pipe.drained(to);
                }
            }
            Step::Arrive(count) if !self.end_arrived => self.unread.push_back(count),
            Step::SourceEnds if !self.end_arrived => self.end_arrived = true,
            Step::Arrive(_) | Step::SourceEnds => self.skipped = true,
            Step::Pipe(to) => self.add(to, false),
            Step::PipeAnyway(to) => self.add(to, true),
            Step::Unpipe(to) => self.remove(to),
            Step::ReadThoughHeld => self.read_though_held(),
            Step::Tick => {}
        }
        self.read_on();
        self.observe()
    }

    fn reads(&self) -> bool {
        !self.pipe.is_empty() && self.pipe.flow() == Flow::Read
    }

    fn add(&mut self, to: usize, anyway: bool) {
        let held = !self.pipe.is_empty() && !self.reads();
        let needs_drain = self.destinations[to].queue.needs_drain();
        if self.end_arrived || self.pipe.contains(to) || (held && !needs_drain && !anyway) {
            self.skipped = true;
            return;
        }
        self.pipe.add(to);
        if needs_drain {
            self.pipe.answered(to, Answer::Pause);
        }
    }

    fn remove(&mut self, to: usize) {
        if self.end_read || !self.pipe.contains(to) {
            self.skipped = true;
        } else {
            self.pipe.remove(to);
        }
    }

    fn read_though_held(&mut self) {
        let possible = self.pipe.len() == 1 && !self.reads() && !self.end_arrived;
        if possible && !self.unread.is_empty() {
            let all = self.unread.drain(..).sum();
            self.write_to_all(all);
        } else {
            self.skipped = true;
        }
    }

    /// Reads while nothing holds the source. An end that had arrived before
    /// the last chunk was read is read together with it, as in Node; one that
    /// arrives while the source is held waits until it is read again.
    fn read_on(&mut self) {
        while self.reads() && !self.end_read {
            match self.unread.pop_front() {
                Some(chunk) => self.write_to_all(chunk),
                None if self.end_arrived => {}
                None => return,
            }
            if self.unread.is_empty() && self.end_arrived {
                self.end_read = true;
                for to in self.pipe.names() {
                    self.destinations[to].queue.end();
                }
            }
        }
    }

    fn write_to_all(&mut self, chunk: usize) {
        for to in self.pipe.names().collect::<Vec<_>>() {
            let answer = self.destinations[to].write(chunk);
            self.pipe.answered(to, answer);
        }
    }

    fn observe(&mut self) -> String {
        let mut seen = String::new();
        for (index, destination) in self.destinations.iter_mut().enumerate() {
            seen.push_str(if index == 0 { "" } else { "|" });
            seen.push_str(&destination.observe());
        }
        if self.kind == Kind::Pipe {
            let state = match (self.end_read, self.reads()) {
                (true, _) => 'E',
                (false, true) => 'R',
                (false, false) => 'H',
            };
            let skipped = if std::mem::take(&mut self.skipped) {
                "_"
            } else {
                ""
            };
            let unread: usize = self.unread.iter().sum();
            write!(seen, "|{skipped}{state}{unread}").expect("a string takes everything");
        }
        seen
    }
}
