//! Source files as the walls see them: production lines, without tests.

use std::path::Path;

/// One file of Rust.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// From the root of the project, such as `src/engine/turn.rs`.
    pub(crate) path: String,
    /// Its module, such as `["engine", "turn"]`; empty for the crate's root.
    pub(crate) module: Vec<String>,
    /// Up to the first `#[cfg(test)]` of a module.
    production: String,
}

/// All files below `root`, in order of their paths.
pub(crate) fn read_tree(root: &str) -> Vec<SourceFile> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders = vec![base.join(root)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(base).unwrap().to_str().unwrap().to_owned();
                files.push(SourceFile::new(root, path, &text));
            }
        }
    }
    assert!(!files.is_empty(), "no source files below {root}");
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

impl SourceFile {
    fn new(root: &str, path: String, text: &str) -> Self {
        let tests = text.find("\n#[cfg(test)]\nmod ").map_or(text.len(), |at| at + 1);
        let inner = path[root.len() + 1..].trim_end_matches(".rs");
        let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        if module.len() == 1 && ["lib", "main"].contains(&module[0].as_str()) {
            module.clear();
        }
        Self {
            path,
            module,
            production: text[..tests].to_owned(),
        }
    }

    /// The first word of its module, or `lib` or `main`.
    pub(crate) fn room(&self) -> &str {
        match self.module.first() {
            Some(first) => first,
            None if self.path.ends_with("main.rs") => "main",
            None => "lib",
        }
    }

    pub(crate) fn production_lines(&self) -> usize {
        self.production.lines().count()
    }

    /// Production lines with their numbers, comments included.
    pub(crate) fn lines_with_docs(&self) -> impl Iterator<Item = (usize, &str)> {
        self.production
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// Production lines with their numbers, without lines of comment.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines_with_docs()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The code without comments.
    pub(crate) fn code(&self) -> String {
        let lines: Vec<&str> = self
            .code_lines()
            .map(|(_, line)| line.split(" // ").next().unwrap_or(line))
            .collect();
        lines.join("\n")
    }
}
