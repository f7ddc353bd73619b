//! One reader, and the books on what it asked and got.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::network::{Left, World};

/// The byte of a file at an offset.
pub(crate) fn byte_at(file: usize, offset: u64) -> u8 {
    let mixed =
        (offset + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (file as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed >> 32) as u8
}

/// What a reader asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    file: usize,
    first: u64,
}

/// What a reader does about answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    ReadsAll,
    /// So many bytes at a time, whenever its turn comes.
    Reads(usize),
    Stalls,
}

pub(crate) struct Reader {
    pub(crate) link: usize,
    pub(crate) behaviour: Behaviour,
    asked: VecDeque<Asked>,
    /// Bytes of a head that is not whole.
    head: Vec<u8>,
    /// What is left of the body: file, offset, length.
    body: Option<(usize, u64, u64)>,
    /// What is left of a text that tells an error.
    text: u64,
    pub(crate) bytes: u64,
    pub(crate) answers: u64,
    /// When it last read something, or owed nothing.
    pub(crate) progress: Instant,
    /// When a reload gave it all of a shorter time once more.
    pub(crate) pardoned: Instant,
    /// A file that it has asked for became shorter.
    pub(crate) may_be_reset: bool,
    /// The server has left it, which was judged by the limits of that time.
    is_judged: bool,
    pub(crate) has_left: bool,
    pub(crate) has_ended: bool,
}

impl Reader {
    pub(crate) fn new(world: &World, random: &mut fastrand::Rng, now: Instant) -> Self {
        let capacity = [5_000, 40_000, 200_000][random.usize(..3)];
        let mut reader = Self {
            link: world.connect(capacity),
            behaviour: Behaviour::ReadsAll,
            asked: VecDeque::new(),
            head: Vec::new(),
            body: None,
            text: 0,
            bytes: 0,
            answers: 0,
            progress: now,
            pardoned: now,
            may_be_reset: false,
            is_judged: false,
            has_left: false,
            has_ended: false,
        };
        reader.change(random);
        reader
    }

    pub(crate) fn change(&mut self, random: &mut fastrand::Rng) {
        self.behaviour = match random.u8(..5) {
            0 | 1 => Behaviour::ReadsAll,
            2 | 3 => Behaviour::Reads(random.usize(1..20_000)),
            _ => Behaviour::Stalls,
        };
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.body.is_some() || !self.asked.is_empty()
    }

    pub(crate) fn asks_for(&self, file: usize) -> bool {
        self.asked.iter().any(|asked| asked.file == file) || self.body.is_some_and(|(of, ..)| of == file)
    }

    /// Asks for a file, or for the rest of it from `first` on.
    pub(crate) fn ask(&mut self, world: &World, file: usize, first: u64, random: &mut fastrand::Rng) {
        if self.has_left || self.has_ended {
            return;
        }
        let range = if first > 0 {
            format!("Range: bytes={first}-\r\n")
        } else {
            String::new()
        };
        let request = format!("GET /{file} HTTP/1.1\r\nHost: a\r\n{range}\r\n");
        // In two pieces now and then.
        let cut = random.usize(..request.len());
        world.send(self.link, &request.as_bytes()[..cut]);
        world.send(self.link, &request.as_bytes()[cut..]);
        self.asked.push_back(Asked { file, first });
    }

    /// Reads as it behaves, and checks every byte.
    pub(crate) fn read(&mut self, world: &World, now: Instant, seed: u64) {
        let most = match self.behaviour {
            Behaviour::ReadsAll => usize::MAX,
            Behaviour::Reads(most) => most,
            Behaviour::Stalls => 0,
        };
        let bytes = world.read(self.link, most);
        let is_quits = world.owed(self.link) == 0 && world.left(self.link) == Left::Open;
        if !bytes.is_empty() || is_quits {
            self.progress = now;
        }
        self.bytes += bytes.len() as u64;
        for &byte in &bytes {
            self.take(byte, seed);
        }
    }

    fn take(&mut self, byte: u8, seed: u64) {
        if self.text > 0 {
            self.text -= 1;
            return;
        }
        if let Some((file, offset, left)) = &mut self.body {
            assert_eq!(
                byte,
                byte_at(*file, *offset),
                "seed {seed}: file {file} at {offset}"
            );
            *offset += 1;
            *left -= 1;
            if *left == 0 {
                self.body = None;
                self.answers += 1;
            }
            return;
        }
        self.head.push(byte);
        if !self.head.ends_with(b"\r\n\r\n") {
            return;
        }
        let head = String::from_utf8(std::mem::take(&mut self.head)).unwrap();
        let asked = self.asked.pop_front();
        let asked = asked.unwrap_or_else(|| panic!("seed {seed}: an answer to nothing: {head}"));
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length: u64 = length
            .unwrap_or_else(|| panic!("seed {seed}: {head}"))
            .parse()
            .unwrap();
        let status = &head[9..12];
        let is_right = match status {
            "200" => asked.first == 0,
            "206" => asked.first > 0 && head.contains(&format!("Content-Range: bytes {}-", asked.first)),
            // The file became shorter than the range.
            "416" => true,
            _ => false,
        };
        assert!(is_right, "seed {seed}: {asked:?} was answered with {head}");
        if status == "416" {
            // Its text is no file: it is read as a body of no file.
            self.text = length;
            return;
        }
        if length > 0 {
            self.body = Some((asked.file, asked.first, length));
        } else {
            self.answers += 1;
        }
    }

    /// Whether it was right to be left as it was.
    pub(crate) fn check(&mut self, world: &World, now: Instant, grace: Duration, late: Duration, seed: u64) {
        if std::mem::replace(&mut self.is_judged, world.has_left(self.link)) {
            return;
        }
        let stalled = now - self.progress.max(self.pardoned);
        match world.left(self.link) {
            Left::Open => assert!(
                self.has_left || world.owed(self.link) == 0 || stalled <= grace + late,
                "seed {seed}: link {} stalled for {stalled:?} and was kept",
                self.link
            ),
            Left::InOrder => {
                let is_whole = self.body.is_none() && self.asked.is_empty() && self.head.is_empty();
                assert!(
                    self.has_left || (self.has_ended && is_whole) || world.owed(self.link) > 0,
                    "seed {seed}: link {} was closed in order in the middle of an answer",
                    self.link
                );
            }
            Left::Reset => assert!(
                self.has_left || self.may_be_reset || stalled >= grace,
                "seed {seed}: link {} was reset, {stalled:?} after its last progress",
                self.link
            ),
        }
    }
}
