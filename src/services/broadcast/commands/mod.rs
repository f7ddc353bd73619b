//! What clients may say: finds commands in their input and runs them.
//!
//! Owns the table of commands, and the order in which Redis checks one: does
//! it exist, has it the right number of arguments, is the client logged in,
//! may it be said now, is it queued. Refuses to know what a command does.

mod catalogue;
mod client;
mod config;
mod connection;
mod info;
mod pubsub;
mod transaction;

use super::Broadcast;
use super::channels::Kind;
use super::session::{Input, Replies};
use crate::Actions;
use crate::limits::broadcast::{COMMAND_EXTRA_BYTES, MAX_ARGUMENTS, MAX_CHANNEL_BYTES};
use crate::protocol::resp::{Arguments, CommandLimits, Version};

/// Runs a command of the client in this slot.
type Handler = fn(&mut Broadcast, usize, Arguments<'_>, &mut Actions<'_>);

/// The same for a command that exists for channels, patterns and shard
/// channels.
type KindHandler = fn(&mut Broadcast, usize, Kind, Arguments<'_>, &mut Actions<'_>);

/// What runs a command.
#[derive(Clone, Copy)]
enum Run {
    Alone(Handler),
    For(Kind, KindHandler),
}

/// One row of the table of commands.
pub(super) struct Command {
    /// Its name in lower case; of a subcommand `container|name`.
    name: &'static str,
    /// The number of its parts, itself included; negative: at least so many.
    arity: i32,
    run: Run,
    /// A client that has not logged in may say it.
    needs_no_login: bool,
    /// A subscriber that speaks version 2 may say it.
    in_subscription: bool,
    /// It runs at once, also after MULTI.
    in_transaction: bool,
}

const fn command(name: &'static str, arity: i32, run: Handler) -> Command {
    Command::new(name, arity, Run::Alone(run))
}

const fn command_for(kind: Kind, name: &'static str, arity: i32, run: KindHandler) -> Command {
    Command::new(name, arity, Run::For(kind, run))
}

impl Command {
    const fn new(name: &'static str, arity: i32, run: Run) -> Self {
        Self {
            name,
            arity,
            run,
            needs_no_login: false,
            in_subscription: false,
            in_transaction: false,
        }
    }

    fn run(&self, this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, actions: &mut Actions<'_>) {
        match self.run {
            Run::Alone(run) => run(this, slot, arguments, actions),
            Run::For(kind, run) => run(this, slot, kind, arguments, actions),
        }
    }

    const fn without_login(mut self) -> Self {
        self.needs_no_login = true;
        self
    }

    const fn in_subscription(mut self) -> Self {
        self.in_subscription = true;
        self
    }

    const fn in_transaction(mut self) -> Self {
        self.in_transaction = true;
        self
    }
}

/// Every command.
pub(super) const COMMANDS: &[Command] = &[
    command_for(Kind::Channel, "publish", 3, pubsub::publish),
    command_for(Kind::Shard, "spublish", 3, pubsub::publish),
    command_for(Kind::Channel, "subscribe", -2, pubsub::subscribe).in_subscription(),
    command_for(Kind::Channel, "unsubscribe", -1, pubsub::unsubscribe).in_subscription(),
    command_for(Kind::Pattern, "psubscribe", -2, pubsub::subscribe).in_subscription(),
    command_for(Kind::Pattern, "punsubscribe", -1, pubsub::unsubscribe).in_subscription(),
    command_for(Kind::Shard, "ssubscribe", -2, pubsub::subscribe).in_subscription(),
    command_for(Kind::Shard, "sunsubscribe", -1, pubsub::unsubscribe).in_subscription(),
    command_for(Kind::Channel, "pubsub|channels", -2, pubsub::channels),
    command_for(Kind::Channel, "pubsub|numsub", -2, pubsub::subscriber_counts),
    command("pubsub|numpat", 2, pubsub::pattern_count),
    command_for(Kind::Shard, "pubsub|shardchannels", -2, pubsub::channels),
    command_for(Kind::Shard, "pubsub|shardnumsub", -2, pubsub::subscriber_counts),
    command("pubsub|help", 2, catalogue::pubsub_help),
    command("ping", -1, connection::ping).in_subscription(),
    command("echo", 2, connection::echo),
    command("time", 1, connection::time),
    command("select", 2, connection::select),
    command("quit", -1, connection::quit)
        .without_login()
        .in_subscription()
        .in_transaction(),
    command("reset", 1, connection::reset)
        .without_login()
        .in_subscription()
        .in_transaction(),
    command("auth", -2, connection::auth).without_login(),
    command("hello", -1, connection::hello).without_login(),
    command("client|id", 2, client::id),
    command("client|info", 2, client::info),
    command("client|list", -2, client::list),
    command("client|getname", 2, client::get_name),
    command("client|setname", 3, client::set_name),
    command("client|setinfo", 4, client::set_info),
    command("client|kill", -3, client::kill),
    command("client|reply", 3, client::reply),
    command("client|no-evict", 3, client::no_evict),
    command("client|help", 2, catalogue::client_help),
    command("config|get", -3, config::get),
    command("config|set", -4, config::set),
    command("config|resetstat", 2, config::reset_statistics),
    command("config|help", 2, catalogue::config_help),
    command("info", -1, info::info),
    command("command", -1, catalogue::list),
    command("command|count", 2, catalogue::count),
    command("command|docs", -2, catalogue::docs),
    command("multi", 1, transaction::multi).in_transaction(),
    command("exec", 1, transaction::exec).in_transaction(),
    command("discard", 1, transaction::discard).in_transaction(),
    command("watch", -2, transaction::watch).in_transaction(),
    command("unwatch", 1, transaction::unwatch),
    command("flushall", -1, config::flush),
    command("function|flush", -2, config::flush),
];

/// Why no command was found.
enum NotFound {
    Command,
    Subcommand,
    /// A container without the name of a subcommand.
    Arity(String),
}

fn find(arguments: Arguments<'_>) -> Result<&'static Command, NotFound> {
    let is = |row: &Command, name: &[u8]| row.name.as_bytes().eq_ignore_ascii_case(name);
    let name = arguments.at(0);
    let container = |row: &&Command| {
        row.name
            .split_once('|')
            .is_some_and(|(first, _)| first.as_bytes().eq_ignore_ascii_case(name))
    };
    if arguments.len() >= 2 && name.len() <= 8 && COMMANDS.iter().any(|row| container(&row)) {
        let full = [name, b"|", arguments.at(1)].concat();
        if let Some(found) = COMMANDS.iter().find(|row| is(row, &full)) {
            return Ok(found);
        }
        return Err(NotFound::Subcommand);
    }
    match COMMANDS.iter().find(|row| is(row, name)) {
        Some(found) => Ok(found),
        None => match COMMANDS.iter().find(container) {
            Some(_) => Err(NotFound::Arity(String::from_utf8_lossy(name).to_lowercase())),
            None => Err(NotFound::Command),
        },
    }
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
