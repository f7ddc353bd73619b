//! Options in a file: what counts first, what is refused, and what is printed.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]

mod support;

use std::path::PathBuf;
use std::process::{Command, Output};

use support::server::{BINARY, Server};
use tempfile::TempDir;

fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("highwater.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

fn highwater(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn the_command_line_goes_before_the_file_and_the_file_before_the_default() {
    let (_directory, path) =
        file("grace = \"8s\"\nhigh-water-mark = \"128KiB\"\nmax-clients = 7\nto = \"other:1\"\n");
    let server = Server::echo(&["--config", path.to_str().unwrap(), "--grace", "3s"]);
    let line = server.wait_for_line("limits in force:");
    for part in [
        "high-water mark 128KiB",
        "grace 3s",
        "max clients 7",
        "stop timeout 5s",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
fn a_wrong_file_is_named_with_line_and_key_and_nothing_starts() {
    for (text, words) in [
        (
            "port = 0\ngrce = \"5s\"\n",
            ":2: unknown key `grce`: did you mean `grace`?",
        ),
        ("grace = \"5s\"\ngrace = \"6s\"\n", ":2: `grace` stands twice"),
        (
            "shadow = \"yes\"\n",
            ":1: `shadow` has the wrong type: write shadow = true or shadow = false",
        ),
        ("grace = 5\n", ":1: `grace`: invalid value '5'"),
    ] {
        let (_directory, path) = file(text);
        let path = path.to_str().unwrap();
        for arguments in [
            &["config", "check", path][..],
            &["echo", "--config", path],
            &["config", "print", "echo", "--config", path],
        ] {
            let output = highwater(arguments);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", told(&output));
            assert!(
                told(&output).contains(&format!("{path}{words}")),
                "{}",
                told(&output)
            );
            assert_eq!(told(&output).trim_end().lines().count(), 1, "{}", told(&output));
        }
    }
    let output = highwater(&["config", "check", "/nowhere/highwater.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        told(&output).contains("/nowhere/highwater.toml"),
        "{}",
        told(&output)
    );
}

#[test]
fn what_is_printed_is_a_file_that_is_right_with_the_source_of_each_value() {
    let (_directory, path) =
        file("# mine\ngrace = \"8s\"\nhost = [\"127.0.0.1\", \"::1\"]\nslow = \"latest\"\n");
    let path = path.to_str().unwrap();
    assert!(highwater(&["config", "check", path]).status.success());
    let output = highwater(&[
        "config",
        "print",
        "tunnel",
        "--to",
        "redis:6379",
        "--config",
        path,
        "--port",
        "0",
    ]);
    let text = told(&output);
    assert!(output.status.success(), "{text}");
    for line in [
        format!("grace = \"8s\" # {path}:2"),
        format!("host = [\"127.0.0.1\", \"::1\"] # {path}:3"),
        "port = 0 # command line".to_owned(),
        "to = \"redis:6379\" # command line".to_owned(),
        "high-water-mark = \"64KiB\" # default".to_owned(),
        "shadow = false # default".to_owned(),
        "# limit is not set".to_owned(),
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line}: {text}");
    }
    assert!(!text.contains("slow ="), "the tunnel has no such option: {text}");
    let (_directory, printed) = file(&text);
    let again = highwater(&["config", "check", printed.to_str().unwrap()]);
    assert!(again.status.success(), "{}", told(&again));
}

#[test]
fn a_check_names_options_that_cancel_each_other_where_every_subcommand_that_is_meant_refuses_them() {
    for (text, words) in [
        (
            "to = \"other:1\"\ngrace = \"2m\"\n\ndrain-timeout = \"1m\"\n",
            ":4: --drain-timeout 1m is below --grace 2m",
        ),
        (
            "to = \"other:1\"\nlimit = \"128KiB\"\n",
            ":2: --limit 128KiB is above --high-water-mark 64KiB",
        ),
        (
            "framing = \"none\"\nmax-frame = \"1KiB\"\n",
            ":2: --max-frame bounds frames, and there are none",
        ),
        (
            "slow = \"pause\"\nslowest-reader = \"64KiB/s\"\n",
            ":2: --slowest-reader is not for broadcast",
        ),
        (
            "listing = true\nrequest-timeout = \"0\"\n",
            ":2: --request-timeout 0 would close",
        ),
        (
            "log-file = \"a\"\nlog-level = \"off\"\n",
            ":2: --log-level off leaves --log-file",
        ),
    ] {
        let (_directory, path) = file(text);
        let path = path.to_str().unwrap();
        let output = highwater(&["config", "check", path]);
        assert_eq!(output.status.code(), Some(2), "{text}: {}", told(&output));
        let named = format!("{path}{words}");
        assert!(told(&output).contains(&named), "{named}: {}", told(&output));
        assert_eq!(told(&output).trim_end().lines().count(), 1, "{}", told(&output));
    }
}

#[test]
fn a_check_for_one_subcommand_and_a_file_for_several_are_told_apart() {
    // A queue of broadcast reaches a limit above the mark, all others do not.
    let (_directory, path) = file("limit = \"128KiB\"\nadmin-token-file = \"token\"\n");
    let path = path.to_str().unwrap();
    let output = highwater(&["config", "check", path]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(
        told(&output).contains("2 options, all right\nnot for `highwater echo`: "),
        "{}",
        told(&output)
    );
    assert!(
        highwater(&["config", "check", path, "broadcast"])
            .status
            .success()
    );
    let output = highwater(&["config", "check", path, "echo"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    let output = highwater(&["config", "check", path, "ecko"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        told(&output).contains("`ecko` is no subcommand that serves"),
        "{}",
        told(&output)
    );
}
