//! Two thousand subscribers that come, go, stall and change what they
//! subscribe to, beside witnesses that check every number they get.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::client::{Client, command};
use crate::support::wait_until;
use crate::{number_of, payload, start};

const MEMBERS: usize = 2000;

/// Steps of all members together. They bound the test, not the time.
const STEPS: usize = 25_000;

const LOST: &str = "__highwater__:lost";

/// What witnesses listen to, by action; the crowd listens too.
const WATCHED: [&str; 3] = ["keep", "drop", "value"];

/// What members subscribe to, each with the word for it.
const NAMES: [(&str, &str); 8] = [
    ("SUBSCRIBE", "keep"),
    ("SUBSCRIBE", "drop"),
    ("SUBSCRIBE", "value"),
    ("SUBSCRIBE", "wait"),
    ("PSUBSCRIBE", "*"),
    ("PSUBSCRIBE", "[dv]*"),
    ("SSUBSCRIBE", "keep"),
    ("SUBSCRIBE", LOST),
];

/// One of the crowd. It reads now and then, or never again.
struct Member {
    stream: TcpStream,
    is_stalled: bool,
}

impl Member {
    fn join(address: SocketAddr, random: &mut fastrand::Rng) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut member = Self {
            stream,
            is_stalled: false,
        };
        if random.bool() {
            member.say(&["HELLO", "3"]);
        }
        member.subscribe(random);
        member
    }

    /// A socket that takes nothing, or is closed, is the member's own trouble.
    fn say(&mut self, parts: &[&str]) {
        let _ = self.stream.write(&command(parts));
    }

    fn subscribe(&mut self, random: &mut fastrand::Rng) {
        let (word, name) = NAMES[random.usize(..NAMES.len())];
        self.say(&[word, name]);
    }

    fn unsubscribe(&mut self, random: &mut fastrand::Rng) {
        let (word, name) = NAMES[random.usize(..NAMES.len())];
        let word = word.replace("SUB", "UNSUB");
        match random.bool() {
            true => self.say(&[&word, name]),
            false => self.say(&[&word]),
        }
    }

    /// Reads a little or all; answers whether the connection is still there.
    fn read(&mut self, random: &mut fastrand::Rng) -> bool {
        let mut sink = vec![0; 1 << random.u32(4..17)];
        loop {
            match self.stream.read(&mut sink) {
                Ok(0) => return false,
                Ok(_) if random.u8(..4) == 0 => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

/// Takes random steps with a crowd of its own.
fn crowd(address: SocketAddr, seed: u64, members: usize, steps: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut crowd: Vec<Member> = (0..members).map(|_| Member::join(address, &mut random)).collect();
    for _ in 0..steps {
        let index = random.usize(..crowd.len());
        let member = &mut crowd[index];
        let stays = match random.u8(..16) {
            0 => false,
            1 => {
                member.is_stalled = true;
                true
            }
            2 | 3 => {
                member.subscribe(&mut random);
                true
            }
            4 | 5 => {
                member.unsubscribe(&mut random);
                true
            }
            6 => {
                member.say(&["PUBLISH", "wait", "from the crowd"]);
                true
            }
            7 => {
                // Half a command, whose rest never comes in most cases.
                let _ = member.stream.write(b"*2\r\n$4\r\nPI");
                true
            }
            _ => member.is_stalled || member.read(&mut random),
        };
        if !stays {
            *member = Member::join(address, &mut random);
        }
    }
}

/// Publishes numbers to what the witnesses listen to until `done`. Answers
/// nothing; `count` has how many there were of each.
fn publish(address: SocketAddr, done: &AtomicBool, count: &AtomicUsize) {
    let mut publisher = Client::connect(address);
    let mut number = 0;
    while !done.load(Ordering::Relaxed) {
        for _ in 0..8 {
            for channel in WATCHED {
                publisher.send(&["PUBLISH", channel, &payload(number, 600)]);
            }
            number += 1;
        }
        (0..8 * WATCHED.len()).for_each(|_| drop(publisher.next()));
        count.store(number, Ordering::Relaxed);
        thread::sleep(std::time::Duration::from_millis(4));
    }
}

/// Checks every number of a channel until `end` comes: in order, and each
/// missing one told.
fn witness(mut client: Client, channel: &str) -> usize {
    let mut expected = 0;
    loop {
        let value = client.next();
        let Some((from, data)) = value.message() else {
            continue;
        };
        if from == LOST {
            let (lost, count) = data.rsplit_once(' ').unwrap();
            assert_eq!(lost, channel);
            assert_ne!(lost, "keep", "nothing of it may be lost");
            expected += count.parse::<usize>().unwrap();
        } else if data == "end" {
            return expected;
        } else {
            assert_eq!(number_of(data), expected, "of {channel}");
            expected += 1;
        }
    }
}

#[test]
fn two_thousand_who_come_go_and_stall_leave_no_trace_and_cost_no_witness_a_message() {
    highwater::raise_descriptor_limit().unwrap();
    let server = start(&[
        "--slow-for=drop=drop-oldest",
        "--slow-for=value=latest",
        "--slow-for=wait=pause",
        "--drain-timeout=6s",
    ]);
    let address = server.address();
    let witnesses = WATCHED.map(|channel| {
        let mut client = Client::connect(address);
        client.subscribe(channel);
        client.subscribe(LOST);
        thread::spawn(move || witness(client, channel))
    });
    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| publish(address, &done, &count));
        let crowds = [1, 2].map(|seed| scope.spawn(move || crowd(address, seed, MEMBERS / 2, STEPS / 2)));
        for crowd in crowds {
            crowd.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut publisher = Client::connect(address);
    for channel in WATCHED {
        publisher.send(&["PUBLISH", channel, "end"]);
        publisher.next();
    }
    for (witness, channel) in witnesses.into_iter().zip(WATCHED) {
        // The end may have taken the place of the last values.
        let seen = witness.join().unwrap();
        assert_eq!(seen, count.load(Ordering::Relaxed), "of {channel}");
    }
    wait_until("nothing is left of the crowd", || {
        let memory = publisher.ask(&["INFO", "memory"]);
        let clients = publisher.ask(&["INFO", "clients"]);
        memory.text().contains("waiting_bytes:0\r\n") && clients.text().contains("connected_clients:1\r\n")
    });
    let left = publisher.ask(&["PUBSUB", "CHANNELS"]);
    assert_eq!(left, crate::client::Value::Array(Vec::new()));
}
