//! Commands about the connection itself: PING, HELLO, AUTH, QUIT and others.

use std::time::{SystemTime, UNIX_EPOCH};

use super::super::Broadcast;
use super::super::session::{Pending, Replies};
use super::client::is_valid_name;
use crate::Actions;
use crate::protocol::resp::{Arguments, Version, parse_integer};

/// The version of Redis whose words these are.
pub(super) const REDIS_VERSION: &str = "7.0.15";

pub(super) fn ping(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    if arguments.len() > 2 {
        return this.error(slot, "ERR wrong number of arguments for 'ping' command");
    }
    let session = &this.sessions[slot];
    let in_subscription = session.version == Version::Resp2 && session.all_subscriptions() > 0;
    this.reply(slot, |reply| {
        if in_subscription {
            reply.array(2);
            reply.bulk(b"pong");
            reply.bulk(arguments.at(1));
        } else if arguments.len() == 1 {
            reply.simple("PONG");
        } else {
            reply.bulk(arguments.at(1));
        }
    });
}

pub(super) fn echo(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    this.reply(slot, |reply| reply.bulk(arguments.at(1)));
}

pub(super) fn time(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the client asks for the time of day, by which nothing is decided"
    )]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    this.reply(slot, |reply| {
        reply.array(2);
        reply.bulk(now.as_secs().to_string().as_bytes());
        reply.bulk(now.subsec_micros().to_string().as_bytes());
    });
}

pub(super) fn select(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    match parse_integer(arguments.at(1)).and_then(|number| i32::try_from(number).ok()) {
        Some(0) => this.ok(slot),
        Some(_) => this.error(slot, "ERR DB index is out of range"),
        None => this.error(slot, "ERR value is not an integer or out of range"),
    }
}

pub(super) fn quit(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    this.ok(slot);
    this.sessions[slot].is_closing = true;
}

pub(super) fn reset(this: &mut Broadcast, slot: usize, _: Arguments<'_>, actions: &mut Actions<'_>) {
    // What was published before it still comes to those who subscribe now.
    this.deliver(actions);
    this.leave_all_topics(slot);
    let is_open = this.settings.password.is_none();
    let session = &mut this.sessions[slot];
    session.transaction = None;
    session.name = Vec::new();
    session.replies = Replies::On;
    session.is_authenticated = is_open;
    this.speak(slot, Version::Resp2);
    this.reply(slot, |reply| reply.simple("RESET"));
}

pub(super) fn auth(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    if arguments.len() > 3 {
        return this.error(slot, "ERR syntax error");
    }
    if arguments.len() == 2 && this.settings.password.is_none() {
        return this.error(
            slot,
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        );
    }
    let (user, password) = match arguments.len() {
        2 => (&b"default"[..], arguments.at(1)),
        _ => (arguments.at(1), arguments.at(2)),
    };
    if this.log_in(slot, user, password) {
        this.ok(slot);
    } else {
        this.error(slot, WRONG_PASSWORD);
    }
}

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

pub(super) fn hello(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    let version = match arguments.len() {
        1 => None,
        _ => match parse_integer(arguments.at(1)) {
            None => return this.error(slot, "ERR Protocol version is not an integer or out of range"),
            Some(2) => Some(Version::Resp2),
            Some(3) => Some(Version::Resp3),
            Some(_) => return this.error(slot, "NOPROTO unsupported protocol version"),
        },
    };
    let mut at = 2;
    let mut name = None;
    let mut login = None;
    while at < arguments.len() {
        let (option, left) = (arguments.at(at), arguments.len() - at - 1);
        if option.eq_ignore_ascii_case(b"auth") && left >= 2 {
            login = Some((arguments.at(at + 1), arguments.at(at + 2)));
            at += 3;
        } else if option.eq_ignore_ascii_case(b"setname") && left >= 1 {
            name = Some(arguments.at(at + 1));
            if !is_valid_name(arguments.at(at + 1)) {
                return this.error(
                    slot,
                    "ERR Client names cannot contain spaces, newlines or special characters.",
                );
            }
            at += 2;
        } else {
            let option = String::from_utf8_lossy(option);
            return this.error(slot, &format!("ERR Syntax error in HELLO option '{option}'"));
        }
    }
    if let Some((user, password)) = login
        && !this.log_in(slot, user, password)
    {
        return this.error(slot, WRONG_PASSWORD);
    }
    if !this.sessions[slot].is_authenticated {
        return this.error(
            slot,
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        );
    }
    if let Some(name) = name {
        this.sessions[slot].name = name.to_vec();
    }
    if let Some(version) = version {
        this.speak(slot, version);
    }
    this.greet(slot);
}

impl Broadcast {
    fn greet(&mut self, slot: usize) {
        let session = &self.sessions[slot];
        let (number, version) = (session.number, session.version);
        self.reply(slot, |reply| {
            reply.map(7);
            for (key, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
                reply.bulk(key.as_bytes());
                reply.bulk(value.as_bytes());
            }
            reply.bulk(b"proto");
            reply.integer(if version == Version::Resp2 { 2 } else { 3 });
            reply.bulk(b"id");
            reply.integer(number);
            for (key, value) in [("mode", "standalone"), ("role", "master")] {
                reply.bulk(key.as_bytes());
                reply.bulk(value.as_bytes());
            }
            reply.bulk(b"modules");
            reply.array(0);
        });
    }

    /// Changes the version of the protocol, behind all that waits.
    fn speak(&mut self, slot: usize, version: Version) {
        let sequence = self.next_sequence();
        let is_behind = self.states[slot].is_behind;
        self.states[slot].speaks_version_3 = version == Version::Resp3;
        let session = &mut self.sessions[slot];
        session.version = version;
        if is_behind {
            session
                .outgoing
                .pending
                .insert(sequence, Pending::Version(version));
        } else {
            session.sent_version = version;
        }
    }

    /// Whether user and password are right; logs the client in if they are.
    fn log_in(&mut self, slot: usize, user: &[u8], password: &[u8]) -> bool {
        let is_right = user == b"default"
            && match &self.settings.password {
                // Without a password the default user has any.
                None => true,
                Some(right) => is_same(right, password),
            };
        if is_right {
            self.sessions[slot].is_authenticated = true;
        }
        is_right
    }
}

/// Compares in a time that depends on the lengths only.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    let differences = left.iter().zip(right).fold(0, |found, (a, b)| found | (a ^ b));
    left.len() == right.len() && differences == 0
}
