//! The table of commands.
//!
//! Owns their names, how many arguments each has, and when it may be said.
//! Refuses to know what a command does.

use super::super::Broadcast;
use super::super::channels::Kind;
use super::{catalogue, client, config, connection, info, pubsub, transaction};
use crate::Actions;
use crate::protocol::resp::Arguments;

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
    pub(super) name: &'static str,
    /// The number of its parts, itself included; negative: at least so many.
    pub(super) arity: i32,
    run: Run,
    /// A client that has not logged in may say it.
    pub(super) needs_no_login: bool,
    /// A subscriber that speaks version 2 may say it.
    pub(super) in_subscription: bool,
    /// It runs at once, also after MULTI.
    pub(super) in_transaction: bool,
    /// It may stand alone, or be followed by the name of a subcommand.
    has_subcommands: bool,
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
            has_subcommands: false,
        }
    }

    pub(super) fn run(
        &self,
        this: &mut Broadcast,
        slot: usize,
        arguments: Arguments<'_>,
        actions: &mut Actions<'_>,
    ) {
        match self.run {
            Run::Alone(run) => run(this, slot, arguments, actions),
            Run::For(kind, run) => run(this, slot, kind, arguments, actions),
        }
    }

    const fn with_subcommands(mut self) -> Self {
        self.has_subcommands = true;
        self
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
    command("command", -1, catalogue::list).with_subcommands(),
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
pub(super) enum NotFound {
    Command,
    Subcommand,
    /// A container without the name of a subcommand.
    Arity(String),
}

pub(super) fn find(arguments: Arguments<'_>) -> Result<&'static Command, NotFound> {
    let is = |row: &Command, name: &[u8]| row.name.as_bytes().eq_ignore_ascii_case(name);
    let name = arguments.at(0);
    // PUBLISH is the first row, and found at once.
    let alone = COMMANDS.iter().find(|row| is(row, name));
    if let Some(found) = alone
        && (arguments.len() < 2 || !found.has_subcommands)
    {
        return Ok(found);
    }
    let is_container = COMMANDS.iter().any(|row| {
        let container = row.name.split_once('|').map(|(container, _)| container);
        container.is_some_and(|container| container.as_bytes().eq_ignore_ascii_case(name))
    });
    if !is_container {
        return Err(NotFound::Command);
    }
    if arguments.len() < 2 {
        return Err(NotFound::Arity(String::from_utf8_lossy(name).to_lowercase()));
    }
    let full = [name, b"|", arguments.at(1)].concat();
    let found = COMMANDS.iter().find(|row| is(row, &full));
    found.ok_or(NotFound::Subcommand)
}
