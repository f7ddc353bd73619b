//! The documents keep up with the program: `docs/options.md` lists exactly the
//! options that `--help` lists, with the same values and defaults; every
//! relative link leads somewhere; and every file and function that the maps
//! name exists.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    reason = "a test or a helper that fails should say so at once"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::server::{BINARY, Server};

/// The table whose rows a section may take over, by linking to it.
const SHARED: &str = "Serving options";

/// What is said of one option.
#[derive(Clone, Debug, Default, PartialEq)]
struct Described {
    /// The name of its value.
    value: String,
    /// Its default, where there is one.
    default: Option<String>,
    /// The values it takes, where they are listed; in a document the whole row.
    choices: Vec<String>,
}

type Options = BTreeMap<String, Described>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn help(subcommand: Option<&str>) -> String {
    let output = Command::new(BINARY)
        .args(subcommand)
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success(), "{subcommand:?} has no help");
    String::from_utf8(output.stdout).unwrap()
}

/// The subcommands that `highwater --help` lists, but for clap's own.
fn subcommands() -> Vec<String> {
    let help = help(None);
    let listed = help.split_once("Commands:").unwrap().1;
    let listed = listed.split_once("\n\n").unwrap().0;
    let names = listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|&name| name != "help").map(str::to_owned).collect()
}

/// The options in a help text: each begins a line with its name, and what
/// follows up to the next is about it.
fn options_of_help(help: &str) -> Options {
    let mut options = Options::new();
    let mut current: Option<(String, String, String)> = None;
    for line in help.lines().chain(["--end-of-help"]) {
        // Deeper lines are about an option, also where one begins with another's name.
        let is_head = line.len() - line.trim_start().len() <= 6;
        let line = line.trim_start();
        let line = line
            .split_once(", ")
            .filter(|(short, _)| short.len() == 2)
            .map_or(line, |(_, long)| long);
        let head = line.strip_prefix("--").filter(|_| is_head);
        let Some(rest) = head else {
            if let Some((_, _, about)) = &mut current {
                about.push_str(line.trim_end());
                about.push('\n');
            }
            continue;
        };
        if let Some((name, value, about)) = current.take() {
            let default = about
                .split_once("[default: ")
                .and_then(|(_, rest)| rest.split_once(']'));
            let default = default.map(|(default, _)| default.to_owned());
            let choices = choices(&about);
            let described = Described {
                value,
                default,
                choices,
            };
            options.insert(name, described);
        }
        let head = rest.split_once("  ").map_or(rest, |(head, _)| head);
        let (name, value) = head.split_once(' ').unwrap_or((head, ""));
        let value = value.replace("...", "").replace(['<', '>'], "");
        current = Some((name.to_owned(), value, String::new()));
    }
    options.remove("help");
    options.remove("version");
    options
}

/// The values that an option takes, if the text about it lists them.
fn choices(about: &str) -> Vec<String> {
    let listed = about
        .split_once("Possible values:\n")
        .map_or("", |(_, list)| list);
    let long = listed.lines().filter_map(|line| line.strip_prefix("- "));
    let long = long.filter_map(|line| line.split(':').next());
    let short = about
        .split_once("[possible values: ")
        .map_or("", |(_, list)| list);
    let short = short.split_once(']').map_or("", |(list, _)| list);
    let short = short
        .split(',')
        .map(str::trim)
        .filter(|choice| !choice.is_empty());
    long.chain(short).map(str::to_owned).collect()
}

/// The sections of a document, by heading.
fn sections(document: &str) -> BTreeMap<&str, &str> {
    let parts = document.split("\n## ").skip(1);
    parts.filter_map(|part| part.split_once('\n')).collect()
}

/// The rows of a section whose first cell is an option.
fn options_of_section(section: &str) -> Options {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `--"));
    rows.map(|row| {
        // A bar inside a cell is escaped.
        let row = row.replace("\\|", "|");
        let mut cells = row.split(" | ");
        let head = cells.next().unwrap().trim_end_matches('`');
        let (name, value) = head.split_once(' ').unwrap_or((head, ""));
        let described = Described {
            value: value.to_owned(),
            default: cells.next().map(str::to_owned),
            choices: vec![row.to_owned()],
        };
        (name.to_owned(), described)
    })
    .collect()
}

/// What `docs/options.md` says of a subcommand.
fn documented(document: &str, subcommand: &str) -> Options {
    let sections = sections(document);
    let heading = format!("highwater {subcommand}");
    let section = sections.get(heading.as_str()).unwrap_or_else(|| {
        panic!("docs/options.md has no section `## {heading}`: add one with a row for each option")
    });
    let mut options = options_of_section(section);
    if section.contains("](#serving-options)") {
        // What a subcommand says of a shared option goes before.
        for (name, told) in options_of_section(sections[SHARED]) {
            options.entry(name).or_insert(told);
        }
    }
    options
}

/// Every difference between what the help and the document say, one sentence each.
fn differences(subcommand: &str, help: &Options, document: &Options) -> Vec<String> {
    let mut found = Vec::new();
    for (name, told) in help {
        let Some(written) = document.get(name) else {
            found.push(format!("{subcommand} --{name} has no row in docs/options.md"));
            continue;
        };
        if written.value != told.value {
            let (told, written) = (&told.value, &written.value);
            found.push(format!(
                "{subcommand} --{name} takes {told}, docs/options.md says {written}"
            ));
        }
        for choice in &told.choices {
            if !written
                .choices
                .iter()
                .any(|row| row.contains(&format!("`{choice}`")))
            {
                found.push(format!(
                    "{subcommand} --{name} takes `{choice}`, which docs/options.md does not name"
                ));
            }
        }
        let written = written.default.as_deref().unwrap_or_default();
        // A default that is a sentence may be worded otherwise.
        let exact = told
            .default
            .as_deref()
            .filter(|default| !default.contains(char::is_whitespace));
        if let Some(default) =
            exact.filter(|default| !written.to_lowercase().contains(&default.to_lowercase()))
        {
            found.push(format!(
                "{subcommand} --{name} is {default} by default, docs/options.md says {written}"
            ));
        }
    }
    let unknown = document.keys().filter(|name| !help.contains_key(*name));
    found.extend(unknown.map(|name| format!("{subcommand} has no --{name}, but docs/options.md has")));
    found
}

#[test]
fn every_option_of_every_subcommand_is_documented_with_its_value_and_default() {
    let document = fs::read_to_string(root().join("docs/options.md")).unwrap();
    let subcommands = subcommands();
    assert!(subcommands.iter().any(|name| name == "echo"), "{subcommands:?}");
    let mut found = Vec::new();
    for name in &subcommands {
        let told = options_of_help(&help(Some(name)));
        found.extend(differences(name, &told, &documented(&document, name)));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_missing_a_surplus_and_a_changed_option_would_be_noticed() {
    let help = "Options:\n      --grace <TIME>\n          How long [default: 5s]\n\n      --json\n          \
                JSON\n  -h, --help\n          Help\n";
    let help = options_of_help(help);
    assert_eq!(help.keys().collect::<Vec<_>>(), ["grace", "json"]);
    assert_eq!(
        choices("Possible values:\n- echo: all\n- http:\n"),
        ["echo", "http"]
    );
    assert_eq!(choices("[possible values: v1, v2]"), ["v1", "v2"]);
    let right = "| `--grace TIME` | 5s | How long |\n| `--json` | off | JSON |\n";
    assert_eq!(differences("x", &help, &options_of_section(right)), [""; 0]);
    for (wrong, complaint) in [
        ("| `--grace TIME` | 5s | How long |\n", "--json has no row"),
        (&right.replace("5s", "6s"), "5s by default"),
        (&right.replace("TIME", "SIZE"), "takes TIME"),
        (&format!("{right}| `--old` | off | gone |\n"), "no --old"),
    ] {
        let found = differences("x", &help, &options_of_section(wrong));
        assert!(found.len() == 1 && found[0].contains(complaint), "{found:?}");
    }
}

/// All Markdown files that belong to the project.
fn markdown_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            markdown_files(&path, files);
        } else if name.ends_with(".md") {
            files.push(path);
        }
    }
}

/// The text outside of code, where brackets and hashes mean something else.
fn without_code(text: &str) -> String {
    let mut is_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            prose.extend(line.split('`').step_by(2));
        }
        prose.push('\n');
    }
    prose
}

/// The targets of all links and pictures.
fn links(text: &str) -> Vec<String> {
    let prose = without_code(text);
    let rests = prose.split("](").skip(1);
    rests
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// The anchors that a renderer gives to the headings of a document.
fn anchors(text: &str) -> Vec<String> {
    let mut is_code = false;
    let headings = text.lines().filter(|line| {
        is_code ^= line.trim_start().starts_with("```");
        !is_code && line.starts_with('#')
    });
    let anchor = |heading: &str| -> String {
        let kept = |char: &char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_');
        let kept: String = heading
            .trim_start_matches('#')
            .trim()
            .chars()
            .filter(kept)
            .collect();
        kept.to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// Why a link of this file leads nowhere.
fn broken(file: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let led = if path.is_empty() {
        file.to_owned()
    } else {
        file.parent().unwrap().join(path)
    };
    let name = file.strip_prefix(root()).unwrap().display();
    if !led.exists() {
        return Some(format!("{name}: {target} does not exist"));
    }
    let is_there = anchor.is_empty()
        || anchors(&fs::read_to_string(led).unwrap_or_default())
            .iter()
            .any(|heading| heading == anchor);
    (!is_there).then(|| format!("{name}: {target} names no heading"))
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let mut files = Vec::new();
    markdown_files(&root(), &mut files);
    let mut found = Vec::new();
    let mut count = 0;
    for file in &files {
        let links = links(&fs::read_to_string(file).unwrap());
        count += links.len();
        found.extend(links.iter().filter_map(|target| broken(file, target)));
    }
    assert!(count > 20, "only {count} links in {} files", files.len());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_link_to_a_missing_file_or_heading_would_be_noticed() {
    let file = root().join("README.md");
    assert_eq!(links("[a](b.md) `[no](code)` ![c](d.svg)"), ["b.md", "d.svg"]);
    assert_eq!(
        anchors("# Exit codes, all\n```\n# code\n```\n## A `b`: c-d"),
        ["exit-codes-all", "a-b-c-d"]
    );
    assert!(broken(&file, "no-such-file.md").is_some());
    assert!(broken(&file, "docs/probe.md#no-such-heading").is_some());
    assert_eq!(broken(&file, "docs/probe.md"), None);
    assert_eq!(broken(&file, "https://example.org/nowhere"), None);
}

#[test]
fn the_index_of_the_documents_lists_every_page() {
    let folder = root().join("docs");
    let index = fs::read_to_string(folder.join("README.md")).unwrap();
    let listed = links(&index);
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let is_page = name.ends_with(".md") && name != "README.md";
        assert!(
            !is_page || listed.contains(&name),
            "docs/README.md does not list {name}"
        );
    }
}

#[test]
fn the_chat_in_the_readme_is_the_example_line_by_line() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let example = fs::read_to_string(root().join("examples/chat.rs")).unwrap();
    let shown = readme
        .split_once("```rust\n")
        .unwrap()
        .1
        .split_once("```")
        .unwrap()
        .0;
    let solid = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        lines.map(str::to_owned).collect()
    };
    let (shown, example) = (solid(shown), solid(&example));
    let is_there = example.windows(shown.len()).any(|lines| lines == shown);
    assert!(is_there, "README.md shows another chat than examples/chat.rs");
}

/// The text inside single backticks.
fn code_spans(text: &str) -> Vec<&str> {
    let lines = text.lines();
    lines
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

/// Why a code span that looks like a path of ours, or like `Type::function`, names nothing.
fn unknown(span: &str, sources: &str) -> Option<String> {
    let is_word = |char: char| char.is_alphanumeric() || "_-./:".contains(char);
    if !span.chars().all(is_word) || span.starts_with(['/', '-', '.']) {
        return None;
    }
    if span.contains('/') {
        let places = [
            root().join(span),
            root().join("src").join(span),
            root().join("target").join(span),
        ];
        return (!places.iter().any(|place| place.exists())).then(|| format!("no file `{span}`"));
    }
    let is_name = span.contains('_') && span.chars().all(|char| char.is_ascii_lowercase() || char == '_');
    if is_name && !sources.contains(span) {
        return Some(format!("nothing is called `{span}`"));
    }
    let (owner, item) = span.split_once("::")?;
    let defined = |name: &str, keywords: &[&str]| {
        let mut keywords = keywords.iter();
        keywords.any(|keyword| sources.contains(&format!("{keyword} {name}")))
    };
    let is_ours = defined(owner, &["struct", "enum", "trait"]);
    let is_there = is_ours && (defined(item, &["fn"]) || sources.contains(&format!("    {item}")));
    (!is_there).then(|| format!("no `{span}`"))
}

fn all_sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all_sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_file_and_function_named_in_the_maps_exists() {
    let mut sources = String::new();
    all_sources(&root().join("src"), &mut sources);
    assert_eq!(unknown("Engine::turn", &sources), None);
    assert!(unknown("Engine::no_such_function", &sources).is_some());
    assert!(unknown("engine/no_such_file.rs", &sources).is_some());
    assert!(unknown("no_such_function", &sources).is_some());
    let mut found = Vec::new();
    for name in ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/testing.md"] {
        let text = fs::read_to_string(root().join(name)).unwrap();
        let spans = code_spans(&text);
        found.extend(
            spans
                .iter()
                .filter_map(|span| unknown(span, &sources))
                .map(|what| format!("{name}: {what}")),
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The longest fixed part of each line that the program logs, with its file.
fn logged_words() -> Vec<(String, String)> {
    fn visit(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                visit(&path, found);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let production = text.split("#[cfg(test)]").next().unwrap();
            let file = path.strip_prefix(root()).unwrap().display().to_string();
            for level in ["info!(", "warn!(", "error!(", "debug!(", "about!("] {
                let calls = production.split(level).skip(1);
                let formats = calls.filter_map(format_of);
                found.extend(formats.filter_map(|format| Some((file.clone(), longest_part(format)?))));
            }
        }
    }
    let mut found = Vec::new();
    visit(&root().join("src"), &mut found);
    found
}

/// The format string of a call: first in it, or behind the facts of the line.
fn format_of(call: &str) -> Option<&str> {
    let call = call.trim_start();
    let behind_facts = || {
        let end = call.find([';', ']'])?;
        Some(call[end + 1..].trim_start_matches(',').trim_start())
    };
    if call.starts_with('"') {
        call.strip_prefix('"')
    } else {
        behind_facts()?.strip_prefix('"')
    }
}

/// The longest part of a format string, which ends at its quote, without a placeholder.
fn longest_part(format: &str) -> Option<String> {
    let format = format.split('"').next()?;
    let lines: Vec<&str> = format.split("\\\n").map(str::trim_start).collect();
    let joined = lines.concat();
    let parts = joined
        .split('{')
        .map(|part| part.split_once('}').map_or(part, |(_, fixed)| fixed));
    let longest = parts.max_by_key(|part| part.len())?.trim();
    (longest.len() > 5).then(|| longest.to_owned())
}

#[test]
fn every_line_of_the_log_is_documented() {
    assert_eq!(
        longest_part("{name} is \\\n    here, {n} times\"").as_deref(),
        Some("is here,")
    );
    let document = fs::read_to_string(root().join("docs/log.md")).unwrap();
    let words = logged_words();
    assert!(words.len() > 30, "only {} lines found in src", words.len());
    let missing = words
        .iter()
        .filter(|(_, words)| !document.contains(words.as_str()));
    let missing: Vec<String> = missing.map(|(file, words)| format!("{file}: {words}")).collect();
    assert!(
        missing.is_empty(),
        "docs/log.md does not have these lines:\n{}",
        missing.join("\n")
    );
}

/// The names of all fields in a JSON value, at any depth.
fn fields(value: &serde_json::Value, names: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, inner) in object {
                names.insert(name.clone());
                fields(inner, names);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| fields(item, names)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_probes_report_is_documented() {
    let server = Server::echo(&["--grace", "200ms"]);
    let port = server.port().to_string();
    let options = "--fast 1 --stalled 1 --quiet 0 --talkers 0 --paused 0 --steady 0 --within 2s --baseline 200ms --json";
    let output = Command::new(BINARY)
        .args(["probe", "--port", &port])
        .args(options.split(' '))
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap();
    let mut names = BTreeSet::new();
    fields(&report, &mut names);
    assert!(names.len() > 60, "only {} fields", names.len());
    let document = fs::read_to_string(root().join("docs/probe.md")).unwrap();
    let is_missing = |name: &&String| {
        !document.contains(&format!("`{name}`")) && !document.contains(&format!("`{name}[]`"))
    };
    let missing: Vec<&String> = names.iter().filter(is_missing).collect();
    assert!(
        missing.is_empty(),
        "docs/probe.md does not have the fields {missing:?}"
    );
}
