//! The modules of a crate, read from its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syn::{Item, UseTree, Visibility};

/// A module with its items, those for tests left out.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) is_public: bool,
    pub(crate) items: Vec<Item>,
    pub(crate) children: BTreeMap<String, Module>,
}

/// What a `pub use` brings: a path from the root of the crate, and the name.
pub(crate) type Export = (Vec<String>, String);

impl Module {
    /// Reads the file and those of its child modules.
    pub(crate) fn read(file: &Path) -> Self {
        let stem = file.file_stem().unwrap().to_str().unwrap();
        let folder = if ["lib", "mod"].contains(&stem) {
            file.parent().unwrap().to_owned()
        } else {
            file.with_extension("")
        };
        let parsed = syn::parse_file(&std::fs::read_to_string(file).unwrap()).unwrap();
        Self::of_items(parsed.items, &folder, true)
    }

    fn of_items(all: Vec<Item>, folder: &Path, is_public: bool) -> Self {
        let (mut items, mut children) = (Vec::new(), BTreeMap::new());
        for item in all.into_iter().filter(|item| !is_for_tests(item)) {
            let Item::Mod(module) = item else {
                items.push(item);
                continue;
            };
            let name = module.ident.to_string();
            let is_public = matches!(module.vis, Visibility::Public(_));
            let mut child = match module.content {
                Some((_, inner)) => Self::of_items(inner, &folder.join(&name), is_public),
                None => Self::read(&file_of(folder, &name)),
            };
            child.is_public = is_public;
            children.insert(name, child);
        }
        Self {
            is_public,
            items,
            children,
        }
    }

    /// The module at this path.
    pub(crate) fn at(&self, path: &[String]) -> Option<&Self> {
        path.iter()
            .try_fold(self, |module, name| module.children.get(name))
    }

    /// All that the module at `here` exports again with `pub use`.
    pub(crate) fn exports(&self, here: &[String]) -> Vec<Export> {
        let mut found = Vec::new();
        for item in &self.items {
            if let Item::Use(statement) = item
                && matches!(statement.vis, Visibility::Public(_))
            {
                expand(&statement.tree, &[], here, &mut found);
            }
        }
        found
    }
}

fn file_of(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(format!("{name}.rs"));
    if file.exists() {
        file
    } else {
        folder.join(name).join("mod.rs")
    }
}

fn is_for_tests(item: &Item) -> bool {
    let attributes = match item {
        Item::Mod(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .meta
                .require_list()
                .is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

fn expand(tree: &UseTree, prefix: &[String], here: &[String], found: &mut Vec<Export>) {
    match tree {
        UseTree::Path(path) => {
            let mut prefix = prefix.to_vec();
            prefix.push(path.ident.to_string());
            expand(&path.tree, &prefix, here, found);
        }
        UseTree::Name(name) => found.push((
            absolute(prefix, &name.ident.to_string(), here),
            name.ident.to_string(),
        )),
        UseTree::Rename(name) => found.push((
            absolute(prefix, &name.ident.to_string(), here),
            name.rename.to_string(),
        )),
        UseTree::Group(group) => {
            for tree in &group.items {
                expand(tree, prefix, here, found);
            }
        }
        UseTree::Glob(_) => panic!("`pub use …::*` hides what is exported"),
    }
}

fn absolute(prefix: &[String], name: &str, here: &[String]) -> Vec<String> {
    let mut path = match prefix.first().map(String::as_str) {
        Some("crate") => prefix[1..].to_vec(),
        Some("super") => [&here[..here.len() - 1], &prefix[1..]].concat(),
        Some("self") => [here, &prefix[1..]].concat(),
        _ => [here, prefix].concat(),
    };
    path.push(name.to_owned());
    path
}
