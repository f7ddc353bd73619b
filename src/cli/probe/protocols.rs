//! The protocols that `--protocol` knows, as a table.

use std::sync::Arc;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use highwater::probe::{Echo, Framed, Protocol, Resp};

use super::args::ProbeArgs;

/// One protocol as it is chosen on the command line.
#[derive(Debug)]
pub(crate) struct Choice {
    name: &'static str,
    help: &'static str,
    make: fn(&ProbeArgs) -> Arc<dyn Protocol>,
}

impl Choice {
    /// The protocol, with what the arguments say about it.
    pub(super) fn make(&self, args: &ProbeArgs) -> Arc<dyn Protocol> {
        (self.make)(args)
    }
}

/// What `--protocol` takes: one row for each protocol.
static PROTOCOLS: &[Choice] = &[
    Choice {
        name: "echo",
        help: "The server returns every byte",
        make: |_| Arc::new(Echo),
    },
    Choice {
        name: "framed",
        help: "The server returns frames: 4-byte big-endian length, then payload",
        make: |_| Arc::new(Framed),
    },
    Choice {
        name: "http",
        help: "GET repeatedly on a kept connection; see --path",
        make: |args| Arc::new(args.http()),
    },
    Choice {
        name: "push",
        help: "The server sends by itself after --send; see also --publish",
        make: |args| Arc::new(args.push()),
    },
    Choice {
        name: "resp",
        help: "Redis: PING for healthy clients, ECHO of 16 KiB for slow ones",
        make: |_| Arc::new(Resp),
    },
];

/// Takes the name of a protocol and finds its row.
pub(super) fn protocol_parser() -> impl TypedValueParser<Value = &'static Choice> {
    let values = PROTOCOLS
        .iter()
        .map(|choice| PossibleValue::new(choice.name).help(choice.help));
    PossibleValuesParser::new(values).map(|name| {
        let chosen = PROTOCOLS.iter().find(|choice| choice.name == name);
        chosen.unwrap_or(&PROTOCOLS[0])
    })
}
