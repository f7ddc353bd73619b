//! COMMAND and the HELP of each container: what there is to say.

use super::super::Broadcast;
use super::all_commands;
use crate::Actions;
use crate::protocol::resp::Arguments;

/// Commands as COMMAND lists them: containers once.
fn top_level() -> Vec<(&'static str, i32)> {
    let mut rows: Vec<(&'static str, i32)> = Vec::new();
    for row in all_commands() {
        let (name, arity) = match row.name.split_once('|') {
            Some((container, _)) => (container, -2),
            None => (row.name, row.arity),
        };
        if !rows.iter().any(|(known, _)| *known == name) {
            rows.push((name, arity));
        }
    }
    rows
}

pub(super) fn list(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    if arguments.len() > 1 {
        return this.error(slot, "ERR syntax error");
    }
    let rows = top_level();
    this.reply(slot, |reply| {
        reply.array(rows.len());
        for (name, arity) in rows {
            // Name, arity, flags, and no keys.
            reply.array(6);
            reply.bulk(name.as_bytes());
            reply.integer(i64::from(arity));
            reply.array(0);
            (0..3).for_each(|_| reply.integer(0));
        }
    });
}

pub(super) fn count(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    let count = top_level().len();
    this.reply(slot, |reply| reply.integer(count as i64));
}

pub(super) fn docs(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    let mut rows = top_level();
    if arguments.len() > 2 {
        rows.retain(|(name, _)| {
            arguments
                .from(2)
                .any(|asked| asked.eq_ignore_ascii_case(name.as_bytes()))
        });
    }
    this.reply(slot, |reply| {
        reply.map(rows.len());
        for (name, _) in rows {
            reply.bulk(name.as_bytes());
            reply.map(2);
            reply.bulk(b"summary");
            reply.bulk(b"As in Redis 7.0");
            reply.bulk(b"group");
            reply.bulk(b"pubsub");
        }
    });
}

fn help(this: &mut Broadcast, slot: usize, container: &str, lines: &[&str]) {
    let title = format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    this.reply(slot, |reply| {
        reply.array(lines.len() + 3);
        reply.simple(&title);
        lines.iter().for_each(|line| reply.simple(line));
        reply.simple("HELP");
        reply.simple("    Prints this help.");
    });
}

pub(super) fn pubsub_help(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    help(
        this,
        slot,
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Return the currently active channels matching a <pattern> (default: '*').",
            "NUMPAT",
            "    Return number of subscriptions to patterns.",
            "NUMSUB [<channel> ...]",
            "    Return the number of subscribers for the specified channels, excluding",
            "    pattern subscriptions(default: no channels).",
            "SHARDCHANNELS [<pattern>]",
            "    Return the currently active shard level channels matching a <pattern> (default: '*').",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Return the number of subscribers for the specified shard level channel(s)",
        ],
    );
}

pub(super) fn client_help(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    help(
        this,
        slot,
        "CLIENT",
        &[
            "GETNAME | SETNAME <name> | SETINFO <option> <value>",
            "    Return or set the name of this connection, or what library it uses.",
            "ID | INFO",
            "    Return the number of this connection, or what is known of it.",
            "KILL <ip:port> | KILL <option> <value> [<option> <value> ...]",
            "    Disconnect clients by ID, ADDR, LADDR, TYPE or USER.",
            "LIST [TYPE <type> | ID <id> ...]",
            "    Return what is known of clients; omem is what each is owed, lost what it lost.",
            "NO-EVICT (ON|OFF) | REPLY (ON|OFF|SKIP)",
            "    Accepted as in Redis; control the replies of this connection.",
        ],
    );
}

pub(super) fn config_help(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    help(
        this,
        slot,
        "CONFIG",
        &[
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "SET <directive> <value>",
            "    Set the configuration <directive> to <value>.",
            "RESETSTAT",
            "    Reset statistics reported by the INFO command.",
        ],
    );
}
