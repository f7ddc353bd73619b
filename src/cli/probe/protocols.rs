//! How a protocol is chosen on the command line: a row with its name, its help,
//! and how the arguments make it.

use std::sync::Arc;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use highwater::probe::Protocol;

/// One protocol as it is chosen on the command line.
#[derive(Debug)]
pub(crate) struct Choice<A: 'static> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) make: fn(&A) -> Arc<dyn Protocol>,
}

impl<A> Choice<A> {
    /// The protocol, with what the arguments say about it.
    pub(super) fn make(&self, args: &A) -> Arc<dyn Protocol> {
        (self.make)(args)
    }
}

/// Takes the name of a protocol and finds its row.
pub(super) fn choice_parser<A>(
    rows: &'static [Choice<A>],
) -> impl TypedValueParser<Value = &'static Choice<A>> {
    let values = rows
        .iter()
        .map(|choice| PossibleValue::new(choice.name).help(choice.help));
    PossibleValuesParser::new(values).map(move |name| {
        let chosen = rows.iter().find(|choice| choice.name == name);
        chosen.unwrap_or(&rows[0])
    })
}
