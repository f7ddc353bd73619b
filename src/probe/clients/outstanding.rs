//! The messages of one client that have no answer yet.
//!
//! Pure. Messages that became due at the same moment are counted together, so
//! that the one message of a client without a pipeline costs no memory of its own.

use std::collections::VecDeque;

use crate::probe::clients::moment::Moment;

/// Messages without an answer, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    messages: u32,
    /// Those that became due first, and when; none only where all have their answers.
    oldest_messages: u32,
    oldest_due: Moment,
    later: VecDeque<Run>,
}

/// Messages that became due at the same moment.
#[derive(Debug, Clone, Copy)]
struct Run {
    messages: u32,
    due: Moment,
}

impl Outstanding {
    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.messages
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// When each of them became due, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Moment> {
        let oldest = Run {
            messages: self.oldest_messages,
            due: self.oldest_due,
        };
        std::iter::once(oldest)
            .chain(self.later.iter().copied())
            .flat_map(|run| std::iter::repeat_n(run.due, run.messages as usize))
    }

    /// One more, which became due no earlier than those before it.
    #[inline]
    pub(crate) fn push(&mut self, due: Moment) {
        self.messages += 1;
        match self.later.back_mut() {
            Some(last) if last.due == due => last.messages += 1,
            None if self.oldest_messages == 0 || self.oldest_due == due => {
                self.oldest_messages += 1;
                self.oldest_due = due;
            }
            _ => self.later.push_back(Run { messages: 1, due }),
        }
    }

    /// The oldest has its answer. When it became due; `None` where there is none.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Moment> {
        let due = self.oldest_due;
        self.messages = self.messages.checked_sub(1)?;
        self.oldest_messages -= 1;
        if self.oldest_messages == 0
            && let Some(next) = self.later.pop_front()
        {
            self.oldest_messages = next.messages;
            self.oldest_due = next.due;
        }
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn messages_come_out_as_they_went_in_whatever_their_moments() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut waiting = Outstanding::default();
        let mut expected = VecDeque::new();
        let mut time = Duration::ZERO;
        for _ in 0..10_000 {
            if random.bool() {
                time += Duration::from_millis(random.u64(0..3));
                waiting.push(Moment::at(time));
                expected.push_back(Moment::at(time));
            } else {
                assert_eq!(waiting.pop(), expected.pop_front());
            }
            assert_eq!(waiting.len() as usize, expected.len());
            assert_eq!(waiting.is_empty(), expected.is_empty());
            assert!(waiting.iter().eq(expected.iter().copied()));
        }
    }
}
