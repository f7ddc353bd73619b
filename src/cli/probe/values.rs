//! What single options of `highwater probe` take, and the refusal of anything else.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::cli::parse::unescape;

/// What `--format` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and findings for people
    Text,
    /// ::error and ::warning lines for GitHub Actions
    Github,
}

/// Where `--json` leads.
pub(crate) enum JsonTo<'a> {
    Nowhere,
    StandardOutput,
    File(&'a PathBuf),
}

/// What `--method` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum MethodName {
    /// Heads and bodies
    Get,
    /// Heads only
    Head,
}

/// What `--proxy-protocol` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProxyName {
    /// One line of text
    V1,
    /// A binary header
    V2,
}

/// A header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field(pub(super) String, pub(super) String);

pub(super) fn parse_field(typed: &str) -> Result<Field, String> {
    let refuse = |why: &str| {
        format!(
            "`{}` is not a header field: {why}; write 'Name: value'",
            typed.escape_debug()
        )
    };
    if typed.contains(['\r', '\n', '\0']) {
        return Err(refuse("it has a line end"));
    }
    let (name, value) = typed.split_once(':').ok_or_else(|| refuse("it has no colon"))?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(refuse("its name is not one word"));
    }
    Ok(Field(name.to_owned(), value.trim().to_owned()))
}

pub(super) fn parse_status(typed: &str) -> Result<u16, String> {
    let status = typed
        .trim()
        .parse()
        .ok()
        .filter(|status| (200..600).contains(status));
    status.ok_or_else(|| format!("`{typed}` is not a status: write numbers from 200 to 599, such as 200,206"))
}

/// Bytes as they were typed with escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line(pub(crate) Vec<u8>);

pub(super) fn parse_line(typed: &str) -> Result<Line, String> {
    unescape(typed).map(Line)
}

pub(super) fn parse_path(typed: &str) -> Result<String, String> {
    if !typed.starts_with('/') || typed.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(format!(
            "`{}` is not a path: it begins with / and has no blanks",
            typed.escape_debug()
        ));
    }
    Ok(typed.to_owned())
}
