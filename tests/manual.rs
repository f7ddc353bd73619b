//! What `highwater man` and `highwater completions` print is taken by the
//! programs that it is for, without a warning.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_highwater");

const SUBCOMMANDS: [&str; 8] = [
    "echo",
    "tunnel",
    "broadcast",
    "serve",
    "probe",
    "config",
    "completions",
    "man",
];

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

fn printed(arguments: &[&str]) -> String {
    let output = run(BINARY, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    text(&output.stdout)
}

/// Whether a program is installed. Says so if not, since its test is skipped.
fn is_installed(program: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .any(|folder| folder.join(program).is_file());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Each page, in a file of its own.
fn pages(folder: &Path) -> Vec<String> {
    let whole = (Vec::new(), "highwater".to_owned());
    let others = SUBCOMMANDS.map(|name| (vec![name], format!("highwater-{name}")));
    let pages = [whole].into_iter().chain(others);
    pages
        .map(|(subcommand, name)| {
            let path = folder.join(name + ".1").to_str().unwrap().to_owned();
            fs::write(&path, printed(&[vec!["man"], subcommand].concat())).unwrap();
            path
        })
        .collect()
}

#[test]
fn pages_have_a_date_a_version_and_the_pages_of_all_subcommands() {
    let page = printed(&["man"]);
    let title = page.lines().find(|line| line.starts_with(".TH")).unwrap();
    assert!(
        title.contains("202") && title.contains(env!("CARGO_PKG_VERSION")),
        "{title}"
    );
    for name in SUBCOMMANDS {
        let escaped = format!("highwater\\-{name}(1)");
        assert!(page.contains(&escaped), "{escaped} is missing in:\n{page}");
    }
    let unknown = run(BINARY, &["man", "tunel"]);
    assert_eq!(unknown.status.code(), Some(2));
    let line = text(&unknown.stderr);
    assert!(
        line.contains("`tunel` is no subcommand") && line.lines().count() == 1,
        "{line}"
    );
}

#[test]
fn groff_and_mandoc_take_every_page_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let pages = pages(folder.path());
    let checks: [(&str, &[&str]); 2] = [
        ("groff", &["-ww", "-man", "-Tutf8", "-z"]),
        ("mandoc", &["-Tlint", "-Wwarning"]),
    ];
    for (program, arguments) in checks.into_iter().filter(|(program, _)| is_installed(program)) {
        for page in &pages {
            let output = run(program, &[arguments, &[page]].concat());
            let complaints = text(&output.stdout) + &text(&output.stderr);
            assert!(complaints.is_empty(), "{program} {page}:\n{complaints}");
        }
        // It would have complained of a page that is wrong.
        let wrong = folder.path().join("wrong.1");
        fs::write(&wrong, ".TH x 1 2026-01-01\n.SH NAME\nx \\- y\n.XX\n\\fZq\n").unwrap();
        let output = run(program, &[arguments, &[wrong.to_str().unwrap()]].concat());
        assert!(
            !output.stdout.is_empty() || !output.stderr.is_empty(),
            "{program} finds nothing"
        );
    }
}

#[test]
fn each_shell_takes_its_completions_and_bash_completes_an_option() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = folder.path().join(shell);
        fs::write(&script, printed(&["completions", shell])).unwrap();
        if is_installed(shell) {
            let output = run(shell, &["-n", script.to_str().unwrap()]);
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{shell}: {output:?}"
            );
        }
    }
    if is_installed("bash") {
        let line = format!(
            "source {}; COMP_WORDS=(highwater tunnel --upst); COMP_CWORD=2; \
             _highwater highwater --upst tunnel; echo \"${{COMPREPLY[@]}}\"",
            folder.path().join("bash").display()
        );
        let output = run("bash", &["-c", &line]);
        assert_eq!(text(&output.stdout).trim(), "--upstream-grace", "{output:?}");
    }
    let unknown = run(BINARY, &["completions", "csh"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("bash"), "{unknown:?}");
}
