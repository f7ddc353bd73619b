//! Which file uses names of which other file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::source::SourceFile;

/// One file uses a name that another defines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    pub(crate) from: String,
    pub(crate) to: String,
    /// It is named at the root of the crate, as a user would name it.
    pub(crate) is_root_name: bool,
    rooms: (String, String),
    name: String,
}

impl Import {
    pub(crate) fn source_room(&self) -> &str {
        &self.rooms.0
    }

    pub(crate) fn target_room(&self) -> &str {
        &self.rooms.1
    }

    fn is_to_ancestor(&self) -> bool {
        let folder = self.to.trim_end_matches("mod.rs").trim_end_matches(".rs");
        self.from
            .starts_with(&format!("{}/", folder.trim_end_matches('/')))
    }
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} uses {} of {}", self.from, self.name, self.to)
    }
}

/// All imports of a tree of files, each once.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) imports: BTreeSet<Import>,
}

impl Graph {
    pub(crate) fn of(files: &[SourceFile]) -> Self {
        let tree = Tree::of(files);
        let mut imports = BTreeSet::new();
        for file in files {
            for path in tree.paths_used_by(file) {
                let Some((to, name)) = tree.resolve(&path) else {
                    continue;
                };
                if to.path != file.path {
                    imports.insert(Import {
                        from: file.path.clone(),
                        to: to.path.clone(),
                        is_root_name: path.len() == 1 && tree.is_exported_at_root(&path[0]),
                        rooms: (file.room().to_owned(), to.room().to_owned()),
                        name,
                    });
                }
            }
        }
        Self { imports }
    }

    /// Each circle of files as one line. A module and the modules inside it
    /// are one thing to Rust, so a child may use what its parent defines.
    pub(crate) fn circles(&self) -> Vec<String> {
        let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for import in self.imports.iter().filter(|import| !import.is_to_ancestor()) {
            edges.entry(&import.from).or_default().insert(&import.to);
        }
        let mut done = BTreeSet::new();
        let mut found = Vec::new();
        for &start in edges.keys() {
            walk(start, &edges, &mut Vec::new(), &mut done, &mut found);
        }
        found
    }
}

fn walk<'a>(
    file: &'a str,
    edges: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    way: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
    found: &mut Vec<String>,
) {
    if let Some(at) = way.iter().position(|&earlier| earlier == file) {
        found.push(format!("{} > {file}", way[at..].join(" > ")));
        return;
    }
    if done.contains(file) {
        return;
    }
    way.push(file);
    for &next in edges.get(file).into_iter().flatten() {
        walk(next, edges, way, done, found);
    }
    way.pop();
    done.insert(file);
}

/// The modules of a tree, and what they export again.
struct Tree<'a> {
    by_module: BTreeMap<Vec<String>, &'a SourceFile>,
    /// A module and a name in it, to the path where that name really is.
    exported_again: BTreeMap<(Vec<String>, String), Vec<String>>,
}

impl<'a> Tree<'a> {
    fn of(files: &'a [SourceFile]) -> Self {
        let mut by_module = BTreeMap::new();
        // main.rs of a library's command comes after lib.rs and must not hide it.
        for file in files.iter().rev() {
            by_module.insert(file.module.clone(), file);
        }
        let mut tree = Self {
            by_module,
            exported_again: BTreeMap::new(),
        };
        for file in files {
            for statement in use_statements(&file.code()) {
                if !statement.is_public {
                    continue;
                }
                for (path, name) in &statement.paths {
                    if let Some(path) = tree.absolute(file, path) {
                        tree.exported_again
                            .insert((file.module.clone(), name.clone()), path);
                    }
                }
            }
        }
        tree
    }

    fn is_exported_at_root(&self, name: &str) -> bool {
        self.exported_again.contains_key(&(Vec::new(), name.to_owned()))
    }

    /// All paths into the tree that a file uses, but for what it only exports
    /// again.
    fn paths_used_by(&self, file: &SourceFile) -> BTreeSet<Vec<String>> {
        let code = file.code();
        let mut used = BTreeSet::new();
        let mut rest = code.clone();
        for statement in use_statements(&code) {
            rest = rest.replace(&statement.text, "");
            if !statement.is_public {
                used.extend(
                    statement
                        .paths
                        .iter()
                        .filter_map(|(path, _)| self.absolute(file, path)),
                );
            }
        }
        used.extend(
            inline_paths(&rest)
                .iter()
                .filter_map(|path| self.absolute(file, path)),
        );
        used
    }

    /// A path from the root of the tree, or `None` for another crate's.
    fn absolute(&self, file: &SourceFile, path: &[String]) -> Option<Vec<String>> {
        let mut module = file.module.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => {
                module.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|word| word == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                // A child module may be named without `self`.
                let mut child = module.clone();
                child.push(first.to_owned());
                if !self.by_module.contains_key(&child) {
                    return None;
                }
            }
        }
        module.extend(rest.iter().cloned());
        Some(module)
    }

    /// The file that defines what a path names, and the name.
    fn resolve(&self, path: &[String]) -> Option<(&'a SourceFile, String)> {
        let mut path = path.to_vec();
        for _ in 0..8 {
            let depth = (0..=path.len())
                .rev()
                .find(|&depth| self.by_module.contains_key(&path[..depth]))?;
            let Some(name) = path.get(depth) else {
                // A module itself: its own file stands for it.
                return Some((
                    self.by_module[&path[..depth]],
                    path.last().cloned().unwrap_or_default(),
                ));
            };
            match self.exported_again.get(&(path[..depth].to_vec(), name.clone())) {
                Some(real) if *real != path => {
                    let tail = path[depth + 1..].to_vec();
                    path = real.clone();
                    path.extend(tail);
                }
                _ => return Some((self.by_module[&path[..depth]], name.clone())),
            }
        }
        None
    }
}

/// One `use` statement.
struct Use {
    text: String,
    is_public: bool,
    /// Each path with the name that it has here.
    paths: Vec<(Vec<String>, String)>,
}

fn use_statements(code: &str) -> Vec<Use> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = code[at..].find("use ").map(|offset| at + offset) {
        let line_start = code[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let before = code[line_start..start].trim();
        at = start + 4;
        if !(before.is_empty() || before.starts_with("pub")) {
            continue;
        }
        let Some(end) = code[start..].find(';').map(|offset| start + offset) else {
            break;
        };
        let tree: String = code[start + 4..end]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let mut paths = Vec::new();
        expand(&tree, &[], &mut paths);
        found.push(Use {
            text: code[line_start..=end].to_owned(),
            is_public: before.starts_with("pub"),
            paths,
        });
        at = end;
    }
    found
}

/// Expands `a::{b, c as d}` to its paths.
fn expand(tree: &str, prefix: &[String], paths: &mut Vec<(Vec<String>, String)>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut prefix = prefix.to_vec();
        prefix.extend(words(&tree[..open]));
        let inner = tree[open + 1..].trim_end().trim_end_matches('}');
        let inner = &tree[open + 1..open + 1 + matching(&tree[open + 1..]).unwrap_or(inner.len())];
        for part in split_outside_braces(inner) {
            expand(part, &prefix, paths);
        }
        return;
    }
    if tree.is_empty() {
        return;
    }
    let (path, alias) = tree
        .split_once(" as ")
        .map_or((tree, None), |(path, alias)| (path, Some(alias)));
    let mut full = prefix.to_vec();
    full.extend(
        words(path)
            .into_iter()
            .filter(|word| word != "self" || prefix.is_empty()),
    );
    if let Some(last) = full.last().cloned() {
        let name = alias.map_or(last, str::to_owned);
        paths.push((full, name));
    }
}

fn words(path: &str) -> Vec<String> {
    path.split("::")
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Where the brace closes that was opened just before.
fn matching(text: &str) -> Option<usize> {
    let mut depth = 1;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn split_outside_braces(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Paths that begin with `crate::` or `super::` outside of `use`.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| {
                c.is_alphanumeric() || c == '_' || c == ':' || c == '(' && is_visibility(code, at)
            }) {
                continue;
            }
            let path: String = code[at..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
                .collect();
            found.push(words(&path));
        }
    }
    found
}

/// Whether this is the inside of `pub(in …)`.
fn is_visibility(code: &str, at: usize) -> bool {
    code[..at].ends_with("pub(")
}

#[test]
fn nested_braces_and_other_names_are_understood() {
    let found = use_statements("use crate::a::{self, b::{C, d as e}};\npub use super::f::G;\n");
    let paths: Vec<String> = found
        .iter()
        .flat_map(|u| &u.paths)
        .map(|(p, n)| format!("{}={n}", p.join("/")))
        .collect();
    assert_eq!(
        paths,
        ["crate/a=a", "crate/a/b/C=C", "crate/a/b/d=e", "super/f/G=G"]
    );
    assert!(!found[0].is_public && found[1].is_public);
}

#[test]
fn a_path_in_the_middle_of_code_counts() {
    let found = inline_paths("let x = crate::engine::now(); mycrate::no(); super::up::<T>()");
    assert_eq!(found, [vec!["crate", "engine", "now"], vec!["super", "up"]]);
}
