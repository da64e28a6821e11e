//! Public items of the libraries name neither async-nats nor rusqlite.
//!
//! Whoever uses naq must not be tied to the version of either. An item counts as public when it is `pub` without a
//! restriction, which the lint `unreachable_pub` makes true; bodies of functions are free. Names that a file imports
//! from one of the two, and its private aliases of them, count as naming it. Macros that make items are not expanded.

use std::collections::HashSet;

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Fields, ImplItem, Item, ItemImpl, ItemTrait, TraitItem, Type, UseTree, Visibility};

use super::{Finding, Source};

const FOREIGN: &[&str] = &["async_nats", "rusqlite"];

pub(super) fn check<'a>(sources: impl Iterator<Item = &'a Source>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut files = Vec::new();
    for source in sources {
        match syn::parse_file(&source.text) {
            Ok(file) => files.push((&source.path, file)),
            Err(error) => {
                let line = error.span().start().line;
                findings.push(Finding::new(&source.path, line, "syntax", error.to_string(), "mend it"));
            }
        }
    }
    let mut public = HashSet::new();
    for (_, file) in &files {
        collect_public(&file.items, &mut public);
    }
    for (path, file) in &files {
        let mut check = Check { path, public: &public, foreign: HashSet::new(), findings: &mut findings };
        check.scope(&file.items);
    }
    findings
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn collect_public(items: &[Item], names: &mut HashSet<String>) {
    for item in items {
        let (visibility, name) = match item {
            Item::Struct(item) => (&item.vis, &item.ident),
            Item::Enum(item) => (&item.vis, &item.ident),
            Item::Trait(item) => (&item.vis, &item.ident),
            Item::Mod(module) => {
                if let Some((_, items)) = &module.content {
                    collect_public(items, names);
                }
                continue;
            }
            _ => continue,
        };
        if is_public(visibility) {
            names.insert(name.to_string());
        }
    }
}

struct Check<'a> {
    path: &'a str,
    /// Public types and traits of all libraries.
    public: &'a HashSet<String>,
    /// Names in this scope that stand for something foreign.
    foreign: HashSet<String>,
    findings: &'a mut Vec<Finding>,
}

impl Check<'_> {
    fn scope(&mut self, items: &[Item]) {
        self.foreign = FOREIGN.iter().map(|&name| name.to_owned()).collect();
        for item in items {
            match item {
                Item::Use(item) => imported(&item.tree, false, &mut self.foreign),
                Item::Type(item)
                    if !is_public(&item.vis) && self.first_foreign(item.ty.to_token_stream()).is_some() =>
                {
                    self.foreign.insert(item.ident.to_string());
                }
                _ => {}
            }
        }
        for item in items {
            self.item(item);
        }
        for item in items {
            if let Item::Mod(module) = item
                && let Some((_, items)) = &module.content
            {
                self.scope(items);
            }
        }
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Fn(item) if is_public(&item.vis) => self.look(item.sig.to_token_stream()),
            Item::Struct(item) if is_public(&item.vis) => {
                self.look(item.generics.to_token_stream());
                self.look(item.generics.where_clause.to_token_stream());
                self.fields(&item.fields);
            }
            Item::Enum(item) if is_public(&item.vis) => {
                self.look(item.generics.to_token_stream());
                for variant in &item.variants {
                    self.look(variant.fields.to_token_stream());
                }
            }
            Item::Type(item) if is_public(&item.vis) => self.look(item.to_token_stream()),
            Item::Const(item) if is_public(&item.vis) => self.look(item.ty.to_token_stream()),
            Item::Static(item) if is_public(&item.vis) => self.look(item.ty.to_token_stream()),
            Item::Use(item) if is_public(&item.vis) => self.look(item.tree.to_token_stream()),
            Item::Trait(item) if is_public(&item.vis) => self.trait_items(item),
            Item::Impl(item) => self.implementation(item),
            _ => {}
        }
    }

    fn fields(&mut self, fields: &Fields) {
        for field in fields.iter().filter(|field| is_public(&field.vis)) {
            self.look(field.ty.to_token_stream());
        }
    }

    fn trait_items(&mut self, item: &ItemTrait) {
        self.look(item.generics.to_token_stream());
        self.look(item.supertraits.to_token_stream());
        for item in &item.items {
            match item {
                TraitItem::Fn(item) => self.look(item.sig.to_token_stream()),
                TraitItem::Const(item) => self.look(item.ty.to_token_stream()),
                TraitItem::Type(item) => self.look(item.to_token_stream()),
                _ => {}
            }
        }
    }

    fn implementation(&mut self, item: &ItemImpl) {
        let Some((_, name, _)) = &item.trait_ else {
            for item in &item.items {
                match item {
                    ImplItem::Fn(item) if is_public(&item.vis) => self.look(item.sig.to_token_stream()),
                    ImplItem::Const(item) if is_public(&item.vis) => self.look(item.ty.to_token_stream()),
                    _ => {}
                }
            }
            return;
        };
        let trait_is_public = name.segments.last().is_some_and(|last| self.public.contains(&last.ident.to_string()));
        if !self.is_public_type(&item.self_ty) && !trait_is_public {
            return;
        }
        self.look(name.to_token_stream());
        self.look(item.self_ty.to_token_stream());
        for item in &item.items {
            if let ImplItem::Type(item) = item {
                self.look(item.ty.to_token_stream());
            }
        }
    }

    fn is_public_type(&self, ty: &Type) -> bool {
        match ty {
            Type::Path(path) => {
                path.path.segments.last().is_some_and(|last| self.public.contains(&last.ident.to_string()))
            }
            Type::Reference(reference) => self.is_public_type(&reference.elem),
            _ => false,
        }
    }

    fn look(&mut self, tokens: TokenStream) {
        if let Some(ident) = self.first_foreign(tokens) {
            let line = ident.span().start().line;
            let instead = "keep it in a private field, or map it with a private function";
            self.findings.push(Finding::new(
                self.path,
                line,
                "public-api",
                format!("`{ident}` in a public item"),
                instead,
            ));
        }
    }

    fn first_foreign(&self, tokens: TokenStream) -> Option<Ident> {
        tokens.into_iter().find_map(|token| match token {
            TokenTree::Ident(ident) => self.foreign.contains(&ident.to_string()).then_some(ident),
            TokenTree::Group(group) => self.first_foreign(group.stream()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => None,
        })
    }
}

/// The names that an import brings into scope from one of the foreign crates.
fn imported(tree: &UseTree, below_foreign: bool, names: &mut HashSet<String>) {
    let mut leaf = |name: &Ident| {
        if below_foreign && name != "self" && name != "_" {
            names.insert(name.to_string());
        }
    };
    match tree {
        UseTree::Path(path) => {
            imported(&path.tree, below_foreign || FOREIGN.contains(&path.ident.to_string().as_str()), names);
        }
        UseTree::Name(name) => leaf(&name.ident),
        UseTree::Rename(renamed) => {
            if below_foreign || FOREIGN.contains(&renamed.ident.to_string().as_str()) {
                names.insert(renamed.rename.to_string());
            }
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| imported(tree, below_foreign, names)),
        UseTree::Glob(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::source_of;
    use super::*;

    fn lines(code: &str) -> Vec<usize> {
        let source = source_of("crates/naq-services/src/nats.rs", code);
        let findings = check([&source].into_iter());
        assert!(findings.iter().all(|finding| finding.rule == "public-api"), "{findings:?}");
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn each_kind_of_public_item_is_found() {
        for item in [
            "pub fn f() -> async_nats::Client { loop {} }",
            "pub async fn f(c: &rusqlite::Connection) {}",
            "pub struct S(pub async_nats::Client);",
            "pub struct S<T: rusqlite::ToSql> { t: T }",
            "pub struct S<T> where T: rusqlite::ToSql { t: T }",
            "pub enum E { Sql(rusqlite::Error) }",
            "pub type C = async_nats::Client;",
            "pub const C: Option<rusqlite::Error> = None;",
            "pub use async_nats::Client;",
            "pub trait T { fn f(&self) -> rusqlite::Result<()>; }",
            "pub trait T: rusqlite::ToSql {}",
        ] {
            assert_eq!(lines(&format!("\n{item}")), [2], "{item}");
        }
    }

    #[test]
    fn implementations_are_found_for_public_types() {
        assert_eq!(lines("pub struct S;\nimpl S {\npub fn f(&self) -> rusqlite::Error { loop {} } }"), [3]);
        assert_eq!(lines("pub struct S;\nimpl From<async_nats::Error> for S {}"), [2]);
        assert_eq!(lines("pub struct S;\nimpl Iterator for S { type Item = async_nats::Message; }"), [2]);
        assert_eq!(lines("pub trait T {}\nimpl T for async_nats::Client {}"), [2]);
    }

    #[test]
    fn imported_names_and_aliases_count() {
        assert_eq!(lines("use async_nats::jetstream::{self, Context as Js};\npub fn f(js: Js) {}"), [2]);
        assert_eq!(lines("use rusqlite as sql;\npub fn f(c: sql::Connection) {}"), [2]);
        assert_eq!(lines("type Row = rusqlite::Row<'static>;\npub fn f(row: Row) {}"), [2]);
        assert_eq!(lines("mod a {\nuse rusqlite::Row;\npub fn f(row: Row) {} }"), [3]);
    }

    #[test]
    fn what_is_private_is_free() {
        for item in [
            "use async_nats::Client; pub struct S { client: Client }",
            "pub(crate) fn f() -> async_nats::Client { loop {} }",
            "pub fn f() { let c: async_nats::Client; }",
            "struct S; impl From<rusqlite::Error> for S {}",
            "pub struct S; impl S { fn f(e: rusqlite::Error) {} }",
            "/// Not `async_nats::Client`.\npub struct S;",
            "mod a { use rusqlite::Row; } pub struct Row; pub fn f(row: Row) {}",
        ] {
            assert_eq!(lines(item), [] as [usize; 0], "{item}");
        }
    }
}
