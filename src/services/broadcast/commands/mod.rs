//! What clients may say: finds commands in their input and runs them.
//!
//! Owns the order in which Redis checks a command: does it exist, has it the
//! right number of arguments, is the client logged in, may it be said now, is
//! it queued. Which commands there are is said in `table`.

mod catalogue;
mod client;
mod config;
mod connection;
mod info;
mod pubsub;
mod table;
mod transaction;

pub(super) use self::config::BufferLimits;
use self::table::{COMMANDS, Command, NotFound, find};
use super::Broadcast;
use super::session::{Input, Replies};
use crate::Actions;
use crate::limits::broadcast::{COMMAND_EXTRA_BYTES, MAX_ARGUMENTS, MAX_CHANNEL_BYTES};
use crate::protocol::resp::{Arguments, CommandLimits, Version};

/// The table, for the commands that are rows of it and look into it.
const fn all_commands() -> &'static [Command] {
    COMMANDS
}

/// The row of a command, for those that run others.
fn find_command(arguments: Arguments<'_>) -> Result<&'static Command, NotFound> {
    find(arguments)
}

impl Broadcast {
    /// Runs all commands that are complete with `data`, which the client sent.
    pub(super) fn take_input(&mut self, slot: usize, data: &[u8], actions: &mut Actions<'_>) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if session.is_closing {
            return;
        }
        // Taken out, so that a command may change its session.
        let mut input = std::mem::take(&mut session.input);
        if input.bytes.is_empty() {
            // Mostly nothing is left over, and nothing is copied.
            let used = self.run_commands(slot, &mut input, data, actions);
            input.bytes.extend_from_slice(&data[used..]);
        } else {
            input.bytes.extend_from_slice(data);
            let bytes = std::mem::take(&mut input.bytes);
            let used = self.run_commands(slot, &mut input, &bytes, actions);
            input.bytes = bytes;
            input.bytes.drain(..used);
        }
        if input.bytes.is_empty() {
            input = Input::default();
        }
        if let Some(session) = self.sessions.get_mut(slot) {
            session.input = input;
            if session.is_closing {
                session.input = Input::default();
                let has_said_all = session.turn.marks.is_empty() && !session.outgoing.is_behind();
                if has_said_all {
                    actions.close(session.id);
                }
            }
            let session = &self.sessions[slot];
            actions.hold(session.id, session.held_bytes());
        }
        self.bound_replies(slot, actions);
    }

    /// Runs the commands of `bytes`. Answers how many bytes they took.
    fn run_commands(
        &mut self,
        slot: usize,
        input: &mut Input,
        bytes: &[u8],
        actions: &mut Actions<'_>,
    ) -> usize {
        let mut used = 0;
        loop {
            let Some(session) = self.sessions.get(slot) else {
                return bytes.len();
            };
            if session.is_closing {
                return bytes.len();
            }
            if session.held_since.is_some() {
                return used;
            }
            let limits = self.command_limits(slot);
            match input.parser.advance(&bytes[used..], &limits) {
                Ok(Some(length)) => {
                    let arguments = input.parser.arguments(&bytes[used..]);
                    if !arguments.is_empty() {
                        self.run_command(slot, arguments, actions);
                    }
                    input.parser.next();
                    used += length;
                }
                Ok(None) => return used,
                Err(error) => {
                    self.sessions[slot].replies = Replies::On;
                    self.error(slot, &format!("ERR Protocol error: {error}"));
                    self.sessions[slot].is_closing = true;
                    return bytes.len();
                }
            }
        }
    }

    fn command_limits(&self, slot: usize) -> CommandLimits {
        CommandLimits {
            max_argument_bytes: self.settings.max_message_bytes,
            max_arguments: MAX_ARGUMENTS,
            max_line_bytes: MAX_CHANNEL_BYTES,
            max_command_bytes: self
                .settings
                .max_message_bytes
                .saturating_add(COMMAND_EXTRA_BYTES),
            is_stranger: !self.sessions[slot].is_authenticated,
        }
    }

    /// A client whose replies wait is not read on, until it has taken them. One
    /// that only owes messages is: UNSUBSCRIBE is its way out.
    fn bound_replies(&mut self, slot: usize, actions: &mut Actions<'_>) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let reply_bytes = session.outgoing.reply_bytes + session.turn.bytes.len();
        if reply_bytes >= self.settings.high_water_mark_bytes && session.held_since.is_none() {
            self.deliver(actions);
            let session = &mut self.sessions[slot];
            if session.outgoing.reply_bytes >= self.settings.high_water_mark_bytes {
                session.awaits_drain = true;
                actions.pause(session.id);
            }
        }
    }

    fn run_command(&mut self, slot: usize, arguments: Arguments<'_>, actions: &mut Actions<'_>) {
        self.statistics.commands += 1;
        self.sessions[slot].last_command_at = actions.now();
        match find(arguments) {
            Ok(row) => self.run_found(slot, row, arguments, actions),
            Err(not_found) => {
                self.abort_transaction(slot);
                let sentence = unknown(&not_found, arguments);
                self.reply(slot, |reply| reply.error(&sentence));
            }
        }
        let session = &mut self.sessions[slot];
        session.replies = match session.replies {
            Replies::SkipNext => Replies::Skip,
            Replies::Skip => Replies::On,
            other => other,
        };
    }

    fn run_found(
        &mut self,
        slot: usize,
        row: &'static Command,
        arguments: Arguments<'_>,
        actions: &mut Actions<'_>,
    ) {
        let count = i32::try_from(arguments.len()).unwrap_or(i32::MAX);
        let has_right_number = if row.arity > 0 {
            count == row.arity
        } else {
            count >= -row.arity
        };
        if !has_right_number {
            self.abort_transaction(slot);
            return self.error(slot, &wrong_number(row.name));
        }
        let session = &self.sessions[slot];
        if !session.is_authenticated && !row.needs_no_login {
            self.abort_transaction(slot);
            return self.error(slot, "NOAUTH Authentication required.");
        }
        let is_subscriber = session.all_subscriptions() > 0;
        if is_subscriber && session.version == Version::Resp2 && !row.in_subscription {
            self.abort_transaction(slot);
            return self.error(
                slot,
                &format!(
                    "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                    row.name
                ),
            );
        }
        if session.transaction.is_some() && !row.in_transaction {
            return self.queue_command(slot, arguments);
        }
        let session = &mut self.sessions[slot];
        if session.last_command != row.name {
            row.name.clone_into(&mut session.last_command);
        }
        row.run(self, slot, arguments, actions);
    }
}

fn wrong_number(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// As Redis says it, which quotes at most 128 bytes.
fn unknown(not_found: &NotFound, arguments: Arguments<'_>) -> Vec<u8> {
    const QUOTED_BYTES: usize = 128;
    let quoted = |part: &[u8], most: usize| {
        let part = part.split(|&byte| byte == 0).next().unwrap_or_default();
        part[..part.len().min(most)].to_vec()
    };
    match not_found {
        NotFound::Arity(name) => wrong_number(name).into_bytes(),
        NotFound::Subcommand => {
            let container = String::from_utf8_lossy(arguments.at(0)).to_uppercase();
            let subcommand = quoted(arguments.at(1), QUOTED_BYTES);
            [
                b"ERR unknown subcommand '",
                &subcommand[..],
                b"'. Try ",
                container.as_bytes(),
                b" HELP.",
            ]
            .concat()
        }
        NotFound::Command => {
            let mut begins = Vec::new();
            for part in arguments.from(1) {
                if begins.len() >= QUOTED_BYTES {
                    break;
                }
                let part = quoted(part, QUOTED_BYTES - begins.len());
                begins.push(b'\'');
                begins.extend_from_slice(&part);
                begins.extend_from_slice(b"' ");
            }
            let name = quoted(arguments.at(0), QUOTED_BYTES);
            [
                b"ERR unknown command '",
                &name[..],
                b"', with args beginning with: ",
                &begins,
            ]
            .concat()
        }
    }
}
