//! A subscriber, and the books that are kept on what it must get.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::books::Books;
use crate::network::World;
use crate::{CHANNELS, command};
use highwater::backpressure::Action;

const LOST: &str = "__highwater__:lost";

/// Replies that may wait beside messages, in bytes.
const REPLY_BYTES: usize = 1_000;

/// The default of the drain timeout.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Healthy,
    Slow,
    Stalled,
}

/// What is due of one channel: from a message between the two numbers of
/// `from` on, up to one between those of `to`.
#[derive(Clone, Debug)]
struct Due {
    from: (u64, u64),
    to: Option<(u64, u64)>,
    /// The next message, once the first has come.
    next: Option<u64>,
    told_first: u64,
}

pub(crate) struct Subscriber {
    link: usize,
    /// It subscribes to all channels at once, by a pattern.
    has_pattern: bool,
    pub(crate) behaviour: Behaviour,
    was_slow: bool,
    pub(crate) is_gone: bool,
    buffer: Vec<u8>,
    /// What it has asked for.
    subscribed: BTreeMap<&'static str, bool>,
    /// The last entry is the present subscription of a channel.
    due: BTreeMap<&'static str, Vec<Due>>,
    /// Confirmations that have come, by channel: which entry is current.
    current: BTreeMap<&'static str, usize>,
    pub(crate) told: u64,
    /// The latest turn in which a message was sent that has come.
    newest_turn: u64,
    /// It may have owed the limit since then.
    may_owe_limit_since: Option<Instant>,
    /// It owed nothing for certain.
    owed_nothing_at: Instant,
}

impl Subscriber {
    pub(crate) fn new(world: &World, random: &mut fastrand::Rng, now: Instant) -> Self {
        let link = world.connect(random.usize(200..5000));
        if random.bool() {
            world.send(link, &command(&["HELLO", "3"]));
        }
        world.send(link, &command(&["SUBSCRIBE", LOST]));
        Self {
            link,
            has_pattern: random.u8(..3) == 0,
            behaviour: Behaviour::Healthy,
            was_slow: false,
            is_gone: false,
            buffer: Vec::new(),
            subscribed: BTreeMap::new(),
            due: BTreeMap::new(),
            current: BTreeMap::new(),
            told: 0,
            newest_turn: 0,
            may_owe_limit_since: None,
            owed_nothing_at: now,
        }
    }

    pub(crate) fn change_behaviour(&mut self, random: &mut fastrand::Rng) {
        self.behaviour = [Behaviour::Healthy, Behaviour::Slow, Behaviour::Stalled][random.usize(..3)];
        self.was_slow |= self.behaviour != Behaviour::Healthy;
    }

    pub(crate) fn read_some(&mut self, world: &World, random: &mut fastrand::Rng) {
        if self.behaviour == Behaviour::Slow {
            self.buffer.extend(world.read(self.link, random.usize(1..2000)));
        }
    }

    pub(crate) fn read_all(&mut self, world: &World) {
        self.buffer.extend(world.read(self.link, usize::MAX));
    }

    /// Subscribes or unsubscribes; answers the channels.
    pub(crate) fn change_subscription(
        &mut self,
        world: &World,
        random: &mut fastrand::Rng,
        processed: &BTreeMap<&'static str, u64>,
    ) -> Vec<&'static str> {
        if world.has_left(self.link) {
            return Vec::new();
        }
        let mut channels = vec![CHANNELS[random.usize(..CHANNELS.len())].0];
        if self.has_pattern {
            channels = CHANNELS.map(|(name, _)| name).to_vec();
        }
        let is_subscribed = self.subscribed.get(channels[0]).copied().unwrap_or_default();
        let word = match (self.has_pattern, is_subscribed) {
            (true, true) => "PUNSUBSCRIBE",
            (true, false) => "PSUBSCRIBE",
            (false, true) => "UNSUBSCRIBE",
            (false, false) => "SUBSCRIBE",
        };
        let name = if self.has_pattern { "*" } else { channels[0] };
        world.send(self.link, &command(&[word, name]));
        for channel in &channels {
            self.change_books(channel, processed[channel]);
        }
        channels
    }

    fn change_books(&mut self, channel: &'static str, before: u64) {
        let is_subscribed = self.subscribed.entry(channel).or_default();
        let due = self.due.entry(channel).or_default();
        if *is_subscribed {
            due.last_mut().unwrap().to = Some((before, u64::MAX));
        } else {
            due.push(Due {
                from: (before, u64::MAX),
                to: None,
                next: None,
                told_first: 0,
            });
        }
        *is_subscribed = !*is_subscribed;
    }

    /// The change was processed, at the latest with this message.
    pub(crate) fn changed(&mut self, channel: &'static str, after: u64) {
        let due = self.due.get_mut(channel).unwrap().last_mut().unwrap();
        match &mut due.to {
            Some(to) => to.1 = after,
            None => due.from.1 = after,
        }
    }

    /// Checks everything that has come and is complete.
    pub(crate) fn check(&mut self, world: &World, books: &Books, now: Instant, seed: u64) {
        let was_gone = std::mem::replace(&mut self.is_gone, world.has_left(self.link));
        if self.is_gone && !was_gone {
            self.check_reason(books, now, seed);
        }
        assert!(
            !self.is_gone || self.was_slow,
            "seed {seed}: a healthy subscriber was disconnected"
        );
        let mut used = 0;
        while let Some((parts, length)) = parse(&self.buffer[used..]) {
            used += length;
            self.take(&parts, books, seed);
        }
        self.buffer.drain(..used);
        self.follow_debt(books, now);
    }

    /// What it may owe at most of the channels that count to the limit.
    fn owed_bytes(&self, books: &Books, channel: &str) -> usize {
        let Some(all) = self.due.get(channel) else {
            return 0;
        };
        let current = self.current.get(channel).copied().unwrap_or(0);
        let ranges = all.iter().skip(current).map(|due| {
            let from = due.next.unwrap_or(due.from.0);
            (from, due.to.map_or(u64::MAX, |to| to.1))
        });
        ranges
            .map(|(from, to)| books.bytes_between(channel, from, to))
            .sum()
    }

    fn follow_debt(&mut self, books: &Books, now: Instant) {
        let owed = self.owed_bytes(books, "keep") + self.owed_bytes(books, "wait");
        if owed + REPLY_BYTES < books.limit_bytes {
            self.may_owe_limit_since = None;
        } else {
            self.may_owe_limit_since.get_or_insert(now);
        }
        if owed == 0 && self.behaviour == Behaviour::Healthy {
            self.owed_nothing_at = now;
        }
    }

    /// The grace became shorter: it has all of that from now on.
    pub(crate) fn pardon(&mut self, now: Instant) {
        self.may_owe_limit_since = self.may_owe_limit_since.and(Some(now));
    }

    /// It was disconnected: for the limit, for the drain timeout, or because a
    /// publisher waited for it.
    fn check_reason(&self, books: &Books, now: Instant, seed: u64) {
        let over = self
            .may_owe_limit_since
            .map_or(Duration::ZERO, |since| now - since);
        let has_held = self.owed_bytes(books, "wait") > 0;
        let was_behind = now - self.owed_nothing_at;
        assert!(
            over >= books.grace || has_held || was_behind >= DRAIN_TIMEOUT,
            "seed {seed}: disconnected though it was over the limit for {over:?}, and behind for {was_behind:?}"
        );
    }

    /// A message that was published before another has come must not come
    /// behind it. A value under `latest` takes the place of an older one, so
    /// it may come before others, and never behind.
    fn check_place(&mut self, channel: &str, number: u64, sent_in: u64, books: &Books, seed: u64) {
        let processed_in = books.processed_in(channel, number);
        assert!(
            processed_in >= self.newest_turn,
            "seed {seed}: message {number} of {channel}, published in turn {processed_in}, came behind one of turn {}",
            self.newest_turn
        );
        if channel != "value" {
            self.newest_turn = self.newest_turn.max(sent_in);
        }
    }

    fn take(&mut self, parts: &[String], books: &Books, seed: u64) {
        let name = |text: &str| CHANNELS.iter().map(|(name, _)| *name).find(|name| *name == text);
        match parts.first().map(String::as_str) {
            Some("subscribe" | "psubscribe") => {
                for channel in channels_of(&parts[1]) {
                    let count = self.current.get(channel).map_or(0, |index| index + 1);
                    self.current.insert(channel, count);
                }
            }
            Some("unsubscribe" | "punsubscribe") => {
                for channel in channels_of(&parts[1]) {
                    self.check_interval(channel, self.current[channel], None, seed);
                }
            }
            Some("message") if parts[1] == LOST => {
                let (channel, count) = parts[2].rsplit_once(' ').unwrap();
                let channel = name(channel).unwrap();
                let action = CHANNELS.iter().find(|(name, _)| *name == channel).unwrap().1;
                assert!(
                    matches!(action, Action::DropOldest | Action::Latest),
                    "seed {seed}: {channel} lost messages"
                );
                let count: u64 = count.parse().unwrap();
                self.told += count;
                let due = self.present(channel);
                match &mut due.next {
                    Some(next) => *next += count,
                    None => due.told_first += count,
                }
            }
            Some("message" | "pmessage") => {
                let [.., channel, payload] = parts else {
                    panic!("seed {seed}: {parts:?}")
                };
                let channel = name(channel).unwrap();
                let mut words = payload.split(' ').map(|word| word.parse::<u64>());
                let number = words.next().unwrap().unwrap();
                let sent_in = words.next().unwrap().unwrap();
                self.check_place(channel, number, sent_in, books, seed);
                let due = self.present(channel);
                let first = number.wrapping_sub(due.told_first);
                match due.next {
                    Some(next) => assert_eq!(number, next, "seed {seed}: {channel} is not in order"),
                    None => assert!(
                        (due.from.0..=due.from.1).contains(&first),
                        "seed {seed}: {channel} begins with {first}, not in {:?}",
                        due.from
                    ),
                }
                due.next = Some(number + 1);
            }
            _ => {}
        }
    }

    fn present(&mut self, channel: &'static str) -> &mut Due {
        let index = self.current[channel];
        &mut self.due.get_mut(channel).unwrap()[index]
    }

    /// A subscription is over, or everything has been read: nothing of it may
    /// be missing.
    fn check_interval(&self, channel: &'static str, index: usize, processed: Option<u64>, seed: u64) {
        let due = &self.due[channel][index];
        let to = processed.map_or_else(|| due.to.unwrap(), |processed| (processed, processed));
        match due.next {
            Some(next) => assert!(
                (to.0..=to.1).contains(&next),
                "seed {seed}: {channel} ends with {next}, not in {to:?}"
            ),
            None => {
                let least = to.0.saturating_sub(due.from.1);
                let most = to.1 - due.from.0;
                let told = due.told_first;
                assert!(
                    (least..=most).contains(&told),
                    "seed {seed}: {channel} told {told}, not {least} to {most}"
                );
            }
        }
    }

    pub(crate) fn check_end(&self, processed: &BTreeMap<&'static str, u64>, seed: u64) {
        if self.is_gone {
            return;
        }
        assert!(self.buffer.is_empty(), "seed {seed}: a message is not complete");
        for (&channel, &is_subscribed) in &self.subscribed {
            if is_subscribed {
                self.check_interval(channel, self.current[channel], Some(processed[channel]), seed);
            }
        }
    }
}

/// The channels that a subscription to this name is for.
fn channels_of(name: &str) -> impl Iterator<Item = &'static str> {
    let channels = CHANNELS.map(|(channel, _)| channel).into_iter();
    channels.filter(move |channel| name == "*" || name == *channel)
}

/// One reply or push that consists of bulk strings and numbers, and its
/// length; maps and lines come out empty.
fn parse(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let (line, mut at) = line(bytes, 0)?;
    let count: usize = match line.as_bytes()[0] {
        b'*' | b'>' => line[1..].parse().unwrap(),
        b'%' => 2 * line[1..].parse::<usize>().unwrap(),
        _ => return Some((Vec::new(), at)),
    };
    let mut parts = Vec::new();
    for _ in 0..count {
        let (header, behind) = self::line(bytes, at)?;
        at = behind;
        if let Some(length) = header
            .strip_prefix('$')
            .and_then(|length| length.parse::<usize>().ok())
        {
            let part = bytes.get(at..at + length)?;
            bytes.get(at + length + 1)?;
            parts.push(String::from_utf8_lossy(part).into_owned());
            at += length + 2;
        } else {
            parts.push(header);
        }
    }
    Some((parts, at))
}

fn line(bytes: &[u8], from: usize) -> Option<(String, usize)> {
    let rest = bytes.get(from..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    Some((String::from_utf8_lossy(&rest[..end]).into_owned(), from + end + 2))
}
