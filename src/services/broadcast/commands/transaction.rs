//! MULTI, EXEC, DISCARD, WATCH: commands that run together.
//!
//! Owns the queue of a transaction and its limits. WATCH has no keys to watch
//! here, and is accepted because clients send it.

use super::super::Broadcast;
use super::super::session::{QueuedCommand, Transaction};
use super::find_command;
use crate::Actions;
use crate::limits::broadcast::MAX_QUEUED_COMMANDS;
use crate::protocol::resp::Arguments;

pub(super) fn multi(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    if this.sessions[slot].transaction.is_some() {
        return this.error(slot, "ERR MULTI calls can not be nested");
    }
    this.sessions[slot].transaction = Some(Transaction::default());
    this.ok(slot);
}

pub(super) fn discard(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    match this.sessions[slot].transaction.take() {
        Some(_) => this.ok(slot),
        None => this.error(slot, "ERR DISCARD without MULTI"),
    }
}

pub(super) fn watch(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    if this.sessions[slot].transaction.is_some() {
        return this.error(slot, "ERR WATCH inside MULTI is not allowed");
    }
    this.ok(slot);
}

pub(super) fn unwatch(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    this.ok(slot);
}

pub(super) fn exec(this: &mut Broadcast, slot: usize, _: Arguments<'_>, actions: &mut Actions<'_>) {
    let Some(transaction) = this.sessions[slot].transaction.take() else {
        return this.error(slot, "ERR EXEC without MULTI");
    };
    if transaction.is_aborted {
        return this.error(
            slot,
            "EXECABORT Transaction discarded because of previous errors.",
        );
    }
    this.reply(slot, |reply| reply.array(transaction.commands.len()));
    this.in_exec = true;
    for queued in &transaction.commands {
        let arguments = Arguments::new(&queued.bytes, &queued.ranges);
        if let Ok(row) = find_command(arguments) {
            row.run(this, slot, arguments, actions);
        }
    }
    this.in_exec = false;
}

impl Broadcast {
    /// A command of a transaction was wrong, so none of it will run.
    pub(super) fn abort_transaction(&mut self, slot: usize) {
        if let Some(transaction) = &mut self.sessions[slot].transaction {
            transaction.is_aborted = true;
        }
    }

    pub(super) fn queue_command(&mut self, slot: usize, arguments: Arguments<'_>) {
        let Some(transaction) = &mut self.sessions[slot].transaction else {
            return;
        };
        if transaction.commands.len() >= MAX_QUEUED_COMMANDS {
            transaction.is_aborted = true;
            return self.error(slot, "ERR a transaction may have 10000 commands and has as many");
        }
        if !transaction.is_aborted {
            let queued = queue(arguments);
            transaction.bytes +=
                queued.bytes.len() + size_of_val(&*queued.ranges) + size_of::<QueuedCommand>();
            transaction.commands.push(queued);
        }
        self.reply(slot, |reply| reply.simple("QUEUED"));
    }
}

fn queue(arguments: Arguments<'_>) -> QueuedCommand {
    let (mut bytes, mut ranges) = (Vec::new(), Vec::with_capacity(arguments.len()));
    for part in arguments.from(0) {
        ranges.push(bytes.len()..bytes.len() + part.len());
        bytes.extend_from_slice(part);
    }
    QueuedCommand {
        bytes: bytes.into(),
        ranges: ranges.into(),
    }
}
