//! The public names of the library stand in `docs/api.txt`, so that no change
//! to them goes unseen. `make api` writes the file anew.
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]

mod crate_tree;
mod listing;

use std::path::Path;

/// Set to write the file instead of comparing with it.
const WRITE: &str = "HIGHWATER_WRITE_API";

#[test]
fn the_public_names_are_those_of_docs_api_txt() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("docs/api.txt");
    let present = listing::of(&crate_tree::Module::read(&root.join("src/lib.rs")));
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, present).unwrap();
        return;
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let (mut added, mut gone) = (Vec::new(), Vec::new());
    for line in present
        .lines()
        .filter(|line| !known.lines().any(|other| other == *line))
    {
        added.push(format!("+ {line}"));
    }
    for line in known
        .lines()
        .filter(|line| !present.lines().any(|other| other == *line))
    {
        gone.push(format!("- {line}"));
    }
    let changes: Vec<String> = gone.into_iter().chain(added).collect();
    assert!(
        changes.is_empty() && present == known,
        "the public names changed; if that is meant, run `make api` and say so in CHANGELOG.md:\n{}",
        changes.join("\n")
    );
}

#[test]
fn nobody_can_name_a_private_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let present = listing::of(&crate_tree::Module::read(&root.join("src/lib.rs")));
    for private in [
        "highwater::kernel",
        "highwater::event_loop",
        "highwater::log_limit",
    ] {
        assert!(!present.contains(private), "{private}");
    }
    assert!(
        present.contains("pub struct highwater::EventLoop"),
        "the listing is empty:\n{present}"
    );
}
