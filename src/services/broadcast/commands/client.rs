//! CLIENT: who is connected, under which name, and how much waits for each.

use std::fmt::Write;
use std::time::Instant;

use super::super::Broadcast;
use super::super::channels::Kind;
use super::super::session::Replies;
use crate::Actions;
use crate::protocol::resp::{Arguments, Version, parse_integer};

pub(super) fn id(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    let number = this.sessions[slot].number;
    this.reply(slot, |reply| reply.integer(number));
}

pub(super) fn info(this: &mut Broadcast, slot: usize, _: Arguments<'_>, actions: &mut Actions<'_>) {
    let line = this.describe(slot, actions.now());
    this.reply(slot, |reply| reply.verbatim(&(line + "\n")));
}

pub(super) fn list(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, actions: &mut Actions<'_>) {
    let mut kind: Option<&[u8]> = None;
    let mut numbers: Option<Vec<i64>> = None;
    if arguments.len() == 4 && arguments.at(2).eq_ignore_ascii_case(b"type") {
        kind = Some(arguments.at(3));
    } else if arguments.len() > 3 && arguments.at(2).eq_ignore_ascii_case(b"id") {
        let parsed: Option<Vec<i64>> = arguments.from(3).map(parse_integer).collect();
        let Some(parsed) = parsed else {
            return this.error(slot, "ERR Invalid client ID");
        };
        numbers = Some(parsed);
    } else if arguments.len() != 2 {
        return this.error(slot, "ERR syntax error");
    }
    if let Some(kind) = kind
        && ![&b"normal"[..], b"pubsub", b"replica", b"slave", b"master"]
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known))
    {
        return this.error(
            slot,
            &format!("ERR Unknown client type '{}'", String::from_utf8_lossy(kind)),
        );
    }
    let mut text = String::new();
    let mut slots: Vec<usize> = this.sessions.iter().map(|(slot, _)| slot).collect();
    slots.sort_unstable_by_key(|&slot| this.sessions[slot].number);
    for other in slots {
        let session = &this.sessions[other];
        let is_pubsub = session.all_subscriptions() > 0;
        let is_asked = kind
            .is_none_or(|kind| kind.eq_ignore_ascii_case(if is_pubsub { b"pubsub" } else { b"normal" }))
            && numbers
                .as_ref()
                .is_none_or(|numbers| numbers.contains(&session.number));
        if is_asked {
            text.push_str(&this.describe(other, actions.now()));
            text.push('\n');
        }
    }
    this.reply(slot, |reply| reply.verbatim(&text));
}

pub(super) fn get_name(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    let name = this.sessions[slot].name.clone();
    this.reply(slot, |reply| {
        if name.is_empty() {
            reply.null()
        } else {
            reply.bulk(&name)
        }
    });
}

pub(super) fn set_name(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    if !is_valid_name(arguments.at(2)) {
        return this.error(
            slot,
            "ERR Client names cannot contain spaces, newlines or special characters.",
        );
    }
    this.sessions[slot].name = arguments.at(2).to_vec();
    this.ok(slot);
}

/// Whether CLIENT LIST could show this name.
pub(super) fn is_valid_name(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

pub(super) fn set_info(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    let (attribute, value) = (arguments.at(2), arguments.at(3));
    let session = &mut this.sessions[slot];
    let shown = String::from_utf8_lossy(attribute).into_owned();
    let place = if attribute.eq_ignore_ascii_case(b"lib-name") {
        &mut session.library_name
    } else if attribute.eq_ignore_ascii_case(b"lib-ver") {
        &mut session.library_version
    } else {
        return this.error(slot, &format!("ERR Unrecognized option '{shown}'"));
    };
    if !is_valid_name(value) {
        return this.error(
            slot,
            &format!("ERR {shown} cannot contain spaces, newlines or special characters."),
        );
    }
    *place = value.to_vec();
    this.ok(slot);
}

pub(super) fn reply(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    let mode = arguments.at(2);
    if mode.eq_ignore_ascii_case(b"on") {
        this.sessions[slot].replies = Replies::On;
        this.ok(slot);
    } else if mode.eq_ignore_ascii_case(b"off") {
        this.sessions[slot].replies = Replies::Off;
    } else if mode.eq_ignore_ascii_case(b"skip") {
        let session = &mut this.sessions[slot];
        if session.replies != Replies::Off {
            session.replies = Replies::SkipNext;
        }
    } else {
        this.error(slot, "ERR syntax error");
    }
}

pub(super) fn no_evict(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    let mode = arguments.at(2);
    let is_evictable = mode.eq_ignore_ascii_case(b"off");
    if !is_evictable && !mode.eq_ignore_ascii_case(b"on") {
        return this.error(slot, "ERR syntax error");
    }
    this.sessions[slot].is_evictable = is_evictable;
    this.ok(slot);
}

/// Whom CLIENT KILL means.
#[derive(Default)]
struct Filter<'a> {
    number: Option<i64>,
    peer: Option<&'a [u8]>,
    local: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    spares_me: bool,
}

pub(super) fn kill(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, actions: &mut Actions<'_>) {
    let is_old_form = arguments.len() == 3;
    let filter = if is_old_form {
        Filter {
            peer: Some(arguments.at(2)),
            ..Filter::default()
        }
    } else {
        match parse_filter(arguments) {
            Ok(filter) => filter,
            Err(sentence) => return this.error(slot, &sentence),
        }
    };
    let killed: Vec<usize> = this
        .sessions
        .iter()
        .map(|(other, _)| other)
        .filter(|&other| this.is_meant(other, slot, &filter))
        .collect();
    if is_old_form {
        if killed.is_empty() {
            return this.error(slot, "ERR No such client");
        }
        this.ok(slot);
    } else {
        this.reply(slot, |reply| reply.integer(killed.len() as i64));
    }
    for other in killed {
        if other == slot {
            // It still gets this reply.
            this.sessions[slot].is_closing = true;
        } else {
            let (id, is_behind) = (this.sessions[other].id, this.states[other].is_behind);
            this.sessions[other].is_closing = true;
            this.forget_pending(other);
            if is_behind {
                // An orderly end would make a stream that is cut look whole.
                actions.reset(id);
            } else {
                actions.close(id);
            }
        }
    }
}

fn parse_filter(arguments: Arguments<'_>) -> Result<Filter<'_>, String> {
    let mut filter = Filter {
        spares_me: true,
        ..Filter::default()
    };
    let parts: Vec<&[u8]> = arguments.from(2).collect();
    if !parts.len().is_multiple_of(2) {
        return Err("ERR syntax error".into());
    }
    for pair in parts.chunks(2) {
        let (option, value) = (pair[0].to_ascii_lowercase(), pair[1]);
        match &*option {
            b"id" => {
                let number = parse_integer(value).filter(|&number| number > 0);
                filter.number = Some(number.ok_or("ERR client-id should be greater than 0")?);
            }
            b"addr" => filter.peer = Some(value),
            b"laddr" => filter.local = Some(value),
            b"type" => {
                let known = [&b"normal"[..], b"pubsub", b"replica", b"slave", b"master"];
                if !known.iter().any(|known| value.eq_ignore_ascii_case(known)) {
                    return Err(format!(
                        "ERR Unknown client type '{}'",
                        String::from_utf8_lossy(value)
                    ));
                }
                filter.kind = Some(value);
            }
            b"user" if value == b"default" => filter.user = Some(value),
            b"user" => return Err(format!("ERR No such user '{}'", String::from_utf8_lossy(value))),
            b"skipme" if value.eq_ignore_ascii_case(b"yes") => filter.spares_me = true,
            b"skipme" if value.eq_ignore_ascii_case(b"no") => filter.spares_me = false,
            _ => return Err("ERR syntax error".into()),
        }
    }
    Ok(filter)
}

impl Broadcast {
    fn is_meant(&self, other: usize, killer: usize, filter: &Filter<'_>) -> bool {
        let session = &self.sessions[other];
        let kind: &[u8] = if session.all_subscriptions() > 0 {
            b"pubsub"
        } else {
            b"normal"
        };
        !session.is_closing
            && filter.number.is_none_or(|number| number == session.number)
            && filter.peer.is_none_or(|peer| peer == session.peer.as_bytes())
            && filter.local.is_none_or(|local| local == session.local.as_bytes())
            && filter.kind.is_none_or(|asked| asked.eq_ignore_ascii_case(kind))
            && filter.user.is_none_or(|_| session.is_authenticated)
            && !(filter.spares_me && other == killer)
    }

    /// A client as CLIENT LIST shows it. `omem` is what it is owed; what its
    /// messages really take is shared with others, and INFO shows that.
    fn describe(&self, slot: usize, now: Instant) -> String {
        let session = &self.sessions[slot];
        let owed = self.owed(slot);
        let age = |since: Instant| now.saturating_duration_since(since).as_secs();
        let flags = match (session.all_subscriptions() > 0, session.transaction.is_some()) {
            (true, _) => "P",
            (false, true) => "x",
            (false, false) => "N",
        };
        let (held, buffered) = (session.held_bytes(), session.turn.bytes.capacity());
        let mut line = format!(
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db=0",
            session.number,
            session.peer,
            session.local,
            session.descriptor,
            String::from_utf8_lossy(&session.name),
            age(session.connected_at),
            age(session.last_command_at),
        );
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            " sub={} psub={} ssub={} multi={} qbuf={} qbuf-free={} argv-mem=0 multi-mem={} rbs={buffered} rbp=0 obl=0 oll={} omem={} tot-mem={} events={} cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={} lost={}",
            session.topics[Kind::Channel as usize].len(),
            session.topics[Kind::Pattern as usize].len(),
            session.topics[Kind::Shard as usize].len(),
            session
                .transaction
                .as_ref()
                .map_or(-1, |transaction| transaction.commands.len() as i64),
            session.input.bytes.len(),
            session.input.bytes.capacity() - session.input.bytes.len(),
            session
                .transaction
                .as_ref()
                .map_or(0, |transaction| transaction.bytes),
            owed.pieces,
            owed.bytes(),
            owed.bytes() + held + buffered + size_of_val(session),
            if session.outgoing.is_behind() { "rw" } else { "r" },
            if session.last_command.is_empty() {
                "NULL"
            } else {
                &session.last_command
            },
            if session.version == Version::Resp2 { 2 } else { 3 },
            String::from_utf8_lossy(&session.library_name),
            String::from_utf8_lossy(&session.library_version),
            self.lost_of(slot),
        );
        line
    }
}
