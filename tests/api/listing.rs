//! The public names, a line each.

use std::collections::BTreeSet;

use quote::ToTokens;
use syn::{Fields, ImplItem, Item, Signature, TraitItem, Type, Visibility};

use crate::crate_tree::Module;

/// Every public item by each path under which a user can name it, with its
/// fields, variants and methods; sorted.
pub(crate) fn of(root: &Module) -> String {
    let mut listing = Listing {
        root,
        lines: BTreeSet::new(),
    };
    listing.module(root, &[]);
    listing.lines.into_iter().map(|line| line + "\n").collect()
}

struct Listing<'a> {
    root: &'a Module,
    lines: BTreeSet<String>,
}

impl Listing<'_> {
    fn module(&mut self, module: &Module, path: &[String]) {
        for (name, child) in module.children.iter().filter(|(_, child)| child.is_public) {
            let path = [path, std::slice::from_ref(name)].concat();
            self.lines.insert(format!("pub mod {}", join(&path)));
            self.module(child, &path);
        }
        for item in &module.items {
            self.item(item, path, path, None);
        }
        for (target, name) in module.exports(path) {
            self.export(&target, &name, path, 0);
        }
    }

    /// An item that is exported again, maybe through several modules.
    fn export(&mut self, target: &[String], name: &str, path: &[String], depth: usize) {
        assert!(depth < 8, "{} is exported in a circle", join(target));
        let (last, parents) = target.split_last().unwrap();
        let Some(module) = self.root.at(parents) else {
            return;
        };
        if let Some(child) = module.children.get(last) {
            return self.module(child, &[path, &[name.to_owned()]].concat());
        }
        for item in &module.items {
            if name_of(item).is_some_and(|own| own == *last) {
                self.item(item, parents, path, Some(name));
            }
        }
        for (further, exported) in module.exports(parents) {
            if exported == *last && further != target {
                self.export(&further, name, path, depth + 1);
            }
        }
    }

    fn item(&mut self, item: &Item, defined_in: &[String], path: &[String], exported_as: Option<&str>) {
        let Some(own) = name_of(item) else { return };
        let name = exported_as.map_or(own.clone(), str::to_owned);
        let full = join(&[path, &[name]].concat());
        match item {
            Item::Struct(item) if is_public(&item.vis) => {
                self.lines.insert(format!(
                    "pub struct {full}{}{}",
                    tokens(&item.generics),
                    growth(&item.attrs)
                ));
                self.fields(&full, &item.fields);
                self.methods(&own, defined_in, &full);
            }
            Item::Enum(item) if is_public(&item.vis) => {
                self.lines.insert(format!(
                    "pub enum {full}{}{}",
                    tokens(&item.generics),
                    growth(&item.attrs)
                ));
                for variant in &item.variants {
                    let fields = match &variant.fields {
                        Fields::Unit => String::new(),
                        fields => tokens(fields),
                    };
                    self.lines
                        .insert(format!("pub enum {full}::{}{fields}", variant.ident));
                }
                self.methods(&own, defined_in, &full);
            }
            Item::Trait(item) if is_public(&item.vis) => {
                self.lines
                    .insert(format!("pub trait {full}{}", tokens(&item.generics)));
                for method in &item.items {
                    if let TraitItem::Fn(method) = method {
                        let default = if method.default.is_some() {
                            " { default }"
                        } else {
                            ""
                        };
                        self.method(&full, &method.sig, default);
                    }
                }
            }
            Item::Fn(item) if is_public(&item.vis) => {
                self.method(full.rsplit_once("::").unwrap().0, &item.sig, "")
            }
            Item::Const(item) if is_public(&item.vis) => {
                self.lines
                    .insert(format!("pub const {full}: {}", tokens(&item.ty)));
            }
            Item::Type(item) if is_public(&item.vis) => {
                self.lines
                    .insert(format!("pub type {full} = {}", tokens(&item.ty)));
            }
            _ => {}
        }
    }

    fn fields(&mut self, full: &str, fields: &Fields) {
        for (index, field) in fields
            .iter()
            .enumerate()
            .filter(|(_, field)| is_public(&field.vis))
        {
            let name = field
                .ident
                .as_ref()
                .map_or(index.to_string(), ToString::to_string);
            self.lines
                .insert(format!("pub struct {full}.{name}: {}", tokens(&field.ty)));
        }
    }

    /// Public methods of all `impl` blocks of a type, and the traits it has.
    /// Two rooms may have types of the same name, so only its own room counts.
    fn methods(&mut self, own: &str, defined_in: &[String], full: &str) {
        let room = defined_in.first().and_then(|room| self.root.children.get(room));
        let mut modules = vec![room.unwrap_or(self.root)];
        let mut found = Vec::new();
        while let Some(module) = modules.pop() {
            modules.extend(module.children.values());
            for item in &module.items {
                if let Item::Impl(block) = item
                    && matches!(&*block.self_ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == own))
                {
                    found.push(block);
                }
            }
        }
        for block in found {
            if let Some((_, of, _)) = &block.trait_ {
                self.lines.insert(format!("impl {} for {full}", tokens(of)));
                continue;
            }
            for item in &block.items {
                match item {
                    ImplItem::Fn(method) if is_public(&method.vis) => self.method(full, &method.sig, ""),
                    ImplItem::Const(item) if is_public(&item.vis) => {
                        self.lines
                            .insert(format!("pub const {full}::{}: {}", item.ident, tokens(&item.ty)));
                    }
                    _ => {}
                }
            }
        }
    }

    fn method(&mut self, of: &str, signature: &Signature, behind: &str) {
        let mut signature = signature.clone();
        let name = signature.ident.clone();
        signature.ident = syn::Ident::new("NAME", name.span());
        let text = tokens(&signature).replacen("fn NAME", &format!("fn {of}::{name}"), 1);
        self.lines.insert(format!("pub {text}{behind}"));
    }
}

fn name_of(item: &Item) -> Option<String> {
    Some(match item {
        Item::Struct(item) => item.ident.to_string(),
        Item::Enum(item) => item.ident.to_string(),
        Item::Trait(item) => item.ident.to_string(),
        Item::Fn(item) => item.sig.ident.to_string(),
        Item::Const(item) => item.ident.to_string(),
        Item::Type(item) => item.ident.to_string(),
        _ => return None,
    })
}

const fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn growth(attributes: &[syn::Attribute]) -> &'static str {
    let grows = attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("non_exhaustive"));
    if grows { " (non_exhaustive)" } else { "" }
}

fn join(path: &[String]) -> String {
    std::iter::once("highwater")
        .chain(path.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join("::")
}

/// Source text on one line, without attributes and the blanks that tokens leave.
fn tokens(of: &impl ToTokens) -> String {
    let mut text = of.to_token_stream().to_string();
    while let Some(start) = text.find("# [") {
        let end = text[start..].find(']').map_or(text.len(), |end| start + end + 1);
        text.replace_range(start..end, "");
    }
    for (wide, narrow) in [
        (" :: ", "::"),
        (" < ", "<"),
        (" > ", "> "),
        (" >", ">"),
        (" ,", ","),
        ("& ", "&"),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" : ", ": "),
        (" ;", ";"),
        ("' ", "'"),
        ("[ ", "["),
        (" ]", "]"),
        ("- >", "->"),
        (" <", "<"),
        ("> (", ">("),
    ] {
        text = text.replace(wide, narrow);
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
