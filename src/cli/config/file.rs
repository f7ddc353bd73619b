//! A file of options: one flat TOML table with the names of the options.
//!
//! Owns where each entry stands, and the checks of names, types and values.
//! Refuses to know what an option does: clap does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::builder::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction};
use toml::{Spanned, Value};

/// The subcommands that take a file; each ignores the options of the others.
pub(super) const SERVICES: [&str; 4] = ["echo", "tunnel", "broadcast", "serve"];

/// One option in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Entry {
    pub(in crate::cli) key: String,
    pub(in crate::cli) line: usize,
    /// As they would be typed; one for most options.
    pub(in crate::cli) values: Vec<String>,
    /// The option is a switch: it has no value, and is there or not.
    pub(in crate::cli) is_switch: bool,
}

impl Entry {
    /// The option as it would be typed.
    pub(in crate::cli) fn typed(&self) -> Vec<String> {
        if self.is_switch {
            let is_on = self.values == ["true"];
            return is_on.then(|| format!("--{}", self.key)).into_iter().collect();
        }
        let value = |value: &String| format!("--{}={value}", self.key);
        self.values.iter().map(value).collect()
    }
}

/// A file that was read and is right.
#[derive(Clone, Debug)]
pub(in crate::cli) struct ConfigFile {
    pub(in crate::cli) path: PathBuf,
    pub(in crate::cli) entries: Vec<Entry>,
}

/// An option of a service by the name that is typed behind two dashes.
pub(super) fn option<'a>(service: &'a Command, key: &str) -> Option<&'a Arg> {
    let is_own = |arg: &&Arg| arg.get_long() == Some(key) && !["help", "version", "config"].contains(&key);
    service.get_arguments().find(is_own)
}

impl ConfigFile {
    /// Reads and checks a file; `whole` is the whole command line.
    ///
    /// # Errors
    ///
    /// One line with file, line, key and what would be right.
    pub(in crate::cli) fn read(path: &Path, whole: &Command) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!(
                "--config {}: {error}; name a file that can be read",
                path.display()
            )
        })?;
        let entries =
            parse(&text, whole).map_err(|(line, why)| format!("{}:{line}: {why}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            entries,
        })
    }
}

type Refusal = (usize, String);

fn parse(text: &str, whole: &Command) -> Result<Vec<Entry>, Refusal> {
    let line_of = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let table: BTreeMap<Spanned<String>, Spanned<Value>> = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        let key = line_text(text, line).split('=').next().unwrap_or_default().trim();
        let hint = match error.message() {
            message if message.contains("duplicate key") => {
                format!("`{key}` stands twice: leave one of them out")
            }
            message => format!("{message}; write lines like grace = \"5s\""),
        };
        (line, hint)
    })?;
    let mut entries = Vec::new();
    for (key, value) in table {
        let line = line_of(key.span().start);
        let entry = entry(key.into_inner(), value.into_inner(), line, whole).map_err(|why| (line, why))?;
        check_value(&entry, whole).map_err(|why| (line, why))?;
        entries.push(entry);
    }
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn line_text(text: &str, line: usize) -> &str {
    text.lines().nth(line - 1).unwrap_or_default()
}

fn services(whole: &Command) -> impl Iterator<Item = &Command> {
    SERVICES.iter().filter_map(|name| whole.find_subcommand(name))
}

fn entry(key: String, value: Value, line: usize, whole: &Command) -> Result<Entry, String> {
    let Some(arg) = services(whole).find_map(|service| option(service, &key)) else {
        return Err(unknown(&key, whole));
    };
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    let wrong = |right: &str| Err(format!("`{key}` has the wrong type: write {right}"));
    let values = match (value, is_switch, is_list) {
        (Value::Boolean(is_on), true, _) => vec![is_on.to_string()],
        (_, true, _) => return wrong(&format!("{key} = true or {key} = false")),
        (Value::Array(items), _, true) => {
            let texts: Option<Vec<String>> = items.into_iter().map(scalar).collect();
            match texts {
                Some(texts) => texts,
                None => return wrong(&format!("{key} = [\"...\", \"...\"]")),
            }
        }
        (value, _, _) => match scalar(value) {
            Some(text) => vec![text],
            None if is_list => return wrong(&format!("{key} = [\"...\", \"...\"]")),
            None => return wrong(&format!("{key} = \"...\", or a whole number")),
        },
    };
    Ok(Entry {
        key,
        line,
        values,
        is_switch,
    })
}

fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What to write in place of a key that no service has.
fn unknown(key: &str, whole: &Command) -> String {
    let similar = services(whole).find_map(|service| {
        let line = [service.get_name().to_owned(), format!("--{key}")];
        let error = service.clone().try_get_matches_from(line).err()?;
        match error.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(option)) => Some(option.trim_start_matches('-').to_owned()),
            _ => None,
        }
    });
    match similar {
        Some(option) => format!("unknown key `{key}`: did you mean `{option}`?"),
        None => format!(
            "unknown key `{key}`: keys are the options that `highwater SUBCOMMAND --help` lists, without dashes"
        ),
    }
}

/// Whether every service that has this option takes the value.
fn check_value(entry: &Entry, whole: &Command) -> Result<(), String> {
    for service in services(whole).filter(|service| option(service, &entry.key).is_some()) {
        let line = std::iter::once(service.get_name().to_owned()).chain(entry.typed());
        if let Err(error) = service.clone().try_get_matches_from(line)
            && matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue)
        {
            return Err(format!("`{}`: {}", entry.key, first_line(&error)));
        }
    }
    Ok(())
}

/// The sentence of an error of clap, without its notes.
pub(in crate::cli) fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default().trim();
    first.trim_start_matches("error: ").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command_line;

    fn refusal(text: &str) -> Refusal {
        parse(text, &command_line()).unwrap_err()
    }

    #[test]
    fn a_file_is_read_as_if_it_were_typed() {
        let text = "# comment\ngrace = \"8s\"\nport = 9100\nshadow = true\nhost = [\"127.0.0.1\", \"::1\"]\n\
                    no-protected-mode = false\nupstream-grace = \"90s\"\n";
        let entries = parse(text, &command_line()).unwrap();
        let typed: Vec<String> = entries.iter().flat_map(Entry::typed).collect();
        assert_eq!(
            typed,
            [
                "--grace=8s",
                "--port=9100",
                "--shadow",
                "--host=127.0.0.1",
                "--host=::1",
                "--upstream-grace=90s"
            ]
        );
        assert_eq!(entries[0].line, 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_is_right() {
        for (text, line, words) in [
            ("port = 1\ngrce = \"5s\"\n", 2, "did you mean `grace`?"),
            ("utterly = 1\n", 1, "unknown key `utterly`"),
            ("grace = \"5s\"\n\ngrace = \"6s\"\n", 3, "`grace` stands twice"),
            ("shadow = \"yes\"\n", 1, "write shadow = true or shadow = false"),
            ("grace = true\n", 1, "write grace = \"...\""),
            ("grace = 5\n", 1, "a unit is missing: write 5s or 5ms"),
            ("grace = 1.5\n", 1, "wrong type"),
            ("host = [1.5]\n", 1, "write host = [\"...\", \"...\"]"),
            ("[echo]\ngrace = \"5s\"\n", 1, "unknown key `echo`"),
            ("config = \"other\"\n", 1, "unknown key `config`"),
            ("grace = 5s\n", 1, "write lines like grace = \"5s\""),
            ("log-format = \"xml\"\n", 1, "xml"),
        ] {
            let (at, why) = refusal(text);
            assert_eq!(at, line, "{text}: {why}");
            assert!(why.contains(words), "{text}: {why}");
        }
    }
}
