//! The walls of the house, kept by tests: who may import whom, how long a file
//! may be, where `unsafe` may stand, what the library may not know, and that the
//! known faults still fit.
//!
//! Production code counts: a file up to its first `#[cfg(test)]`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod imports;
mod source;

use std::path::Path;
use std::process::Command;

use imports::{Graph, Import};
use source::{SourceFile, read_tree};

/// Folders and files directly in `src`, from the ground up. A module imports
/// from lower floors only, or from its own module.
const FLOORS: &[&[&str]] = &[
    &["protocol", "units", "test_time"],
    &["limits", "log_limit"],
    &["backpressure"],
    &["error"],
    &["engine"],
    &["kernel"],
    &["event_loop"],
    &["services", "probe"],
    &["lib"],
    &["cli"],
    &["main"],
];

/// What services may see besides the names at the root of the crate.
const SEEN_BY_SERVICES: [&str; 5] = ["protocol", "limits", "units", "log_limit", "backpressure"];

/// The longest file, in production lines.
const LONGEST_FILE_LINES: usize = 400;

fn floor_of(module: &str) -> usize {
    FLOORS
        .iter()
        .position(|floor| floor.contains(&module))
        .unwrap_or_else(|| {
            panic!("src/{module} stands on no floor: name it in FLOORS of tests/architecture/main.rs")
        })
}

fn library() -> Vec<SourceFile> {
    read_tree("src")
}

fn assert_none(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

#[test]
fn every_import_points_to_a_lower_floor() {
    let files = library();
    let graph = Graph::of(&files);
    let wrong: Vec<String> = graph
        .imports
        .iter()
        .filter(|import| {
            let (from, to) = (import.source_room(), import.target_room());
            from != to && floor_of(to) >= floor_of(from)
        })
        .map(Import::to_string)
        .collect();
    assert_none("imports that point up or sideways", &wrong);
}

#[test]
fn services_see_the_names_at_the_root_and_a_few_pure_modules() {
    let files = library();
    let graph = Graph::of(&files);
    let wrong: Vec<String> = graph
        .imports
        .iter()
        .filter(|import| import.source_room() == "services" && import.target_room() != "services")
        .filter(|import| !import.is_root_name && !SEEN_BY_SERVICES.contains(&import.target_room()))
        .map(Import::to_string)
        .collect();
    assert_none("a service imports more than a user of the library could", &wrong);
}

#[test]
fn pure_modules_know_no_socket_file_log_or_clock() {
    const IMPURE: [&str; 9] = [
        "std::net",
        "std::fs",
        "std::thread",
        "std::process",
        "mio::",
        "socket2::",
        "rustix::",
        "log::",
        "libc::",
    ];
    let mut wrong = Vec::new();
    for file in library() {
        if !["protocol", "backpressure", "units", "log_limit"].contains(&file.room()) {
            continue;
        }
        for (number, line) in file.code_lines() {
            // An address is a value; a socket is not.
            let line = line
                .replace("std::net::SocketAddr", "")
                .replace("std::net::IpAddr", "");
            if let Some(word) = IMPURE.iter().find(|word| mentions(&line, word)) {
                wrong.push(format!("{}:{number} mentions {word}", file.path));
            }
        }
    }
    assert_none("pure modules", &wrong);
}

/// Whether `line` has this path, and not as the end of a longer name such as
/// `catalog::`.
fn mentions(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn files_import_each_other_without_a_circle() {
    let circles: Vec<String> = ["src", "benches/compare"]
        .iter()
        .flat_map(|tree| Graph::of(&read_tree(tree)).circles())
        .collect();
    assert_none("circles", &circles);
}

#[test]
fn no_file_is_too_long_to_live_in() {
    let long: Vec<String> = library()
        .iter()
        .filter(|file| file.production_lines() > LONGEST_FILE_LINES)
        .map(|file| format!("{}: {} production lines", file.path, file.production_lines()))
        .collect();
    assert_none(&format!("files of more than {LONGEST_FILE_LINES} lines"), &long);
}

#[test]
fn unsafe_code_stands_in_the_kernel_folder_only() {
    let mut wrong = Vec::new();
    for file in library().iter().filter(|file| file.room() != "kernel") {
        for (number, line) in file.code_lines() {
            if line.contains("unsafe ") || line.contains("unsafe_code") {
                wrong.push(format!("{}:{number}", file.path));
            }
        }
    }
    assert_none("unsafe code outside kernel/", &wrong);
}

/// Log lines that name an option and whose words scripts read: `docs/log.md`.
/// What shadow mode recommends is options, as one types them.
const FROZEN_OPTIONS: [(&str, &str); 8] = [
    ("src/engine/shadow.rs", "--limit"),
    ("src/engine/shadow.rs", "--grace"),
    ("src/engine/shadow.rs", "--drain-timeout"),
    ("src/engine/shadow.rs", "--upstream-grace"),
    ("src/engine/refusals.rs", "--max-clients"),
    ("src/engine/refusals.rs", "--max-clients-per-address"),
    ("src/event_loop/offer.rs", "--max-clients"),
    ("src/services/tunnel/connecting.rs", "--max-clients"),
];

#[test]
fn the_library_names_no_option_of_the_command_line() {
    let mut wrong = Vec::new();
    for file in library()
        .iter()
        .filter(|file| !["cli", "main"].contains(&file.room()))
    {
        for (number, line) in file.lines_with_docs() {
            let named: Vec<&str> = options_in(line).collect();
            if named.is_empty()
                || named
                    .iter()
                    .all(|option| FROZEN_OPTIONS.contains(&(file.path.as_str(), *option)))
            {
                continue;
            }
            wrong.push(format!("{}:{number} {}", file.path, named.join(" ")));
        }
    }
    assert_none("options of the command line in the library", &wrong);
}

/// Words such as `--max-clients`. Lines of commands, which name tools of others
/// such as `cargo --release`, have none of ours.
fn options_in(line: &str) -> impl Iterator<Item = &str> {
    let is_command = line.contains("cargo ") || line.contains("ss --");
    line.match_indices("--")
        .filter(move |_| !is_command)
        .filter(|&(at, _)| at == 0 || !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-'))
        .map(|(at, _)| {
            let word = &line[at..];
            let end = word
                .find(|c: char| !(c.is_ascii_lowercase() || c == '-'))
                .unwrap_or(word.len());
            &word[..end]
        })
        .filter(|word| word.len() > 3 && word.as_bytes()[2].is_ascii_lowercase())
}

/// `make prove` takes an hour; that its patches still fit is known at once.
#[test]
fn every_known_fault_can_still_be_put_into_the_code() {
    let patch = |file: &Path| {
        Command::new("patch")
            .args(["--dry-run", "--silent", "--strip=1", "--fuzz=3", "--input"])
            .arg(file)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults");
    let mut wrong = Vec::new();
    for entry in folder.read_dir().expect("tests/faults") {
        let file = entry.expect("an entry of tests/faults").path();
        match patch(&file) {
            Ok(output) if output.status.success() => {}
            Ok(output) => wrong.push(format!(
                "{}: {}",
                file.display(),
                String::from_utf8_lossy(&output.stdout)
            )),
            Err(error) => return eprintln!("skipped: cannot run patch: {error}"),
        }
    }
    assert_none("faults that do not apply any more", &wrong);
}
