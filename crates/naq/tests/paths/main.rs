//! Every path of NAQ and OmniQ, and every name of the facade, is the same item as in its home.
//!
//! The table is checked twice. The compiler proves each line: two glob imports may only give one name if both mean the same
//! item. And the lines are compared with what the facade's sources re-export, so that none is missing and none too many.
#![deny(ambiguous_glob_imports, reason = "it is what proves the lines of the table")]
#![cfg(all(
    feature = "cli",
    feature = "metrics",
    feature = "nats",
    feature = "otel",
    feature = "sqlite",
    feature = "testing"
))]

use std::{collections::BTreeSet, fs, path::Path};

use quote::ToTokens as _;
use syn::{Item, ItemMod, UseTree, Visibility};

mod table;

/// Proves that both paths of each line mean the same item, and keeps the lines as text.
macro_rules! same {
    ($(
        $module:ident { $($path:path = $home:path;)* }
    )*) => {
        $(#[expect(unused_imports, reason = "what is looked at is whether they can be imported")]
        mod $module { $(
            const _: () = {
                mod old { pub(super) use $path as item; }
                mod home { pub(super) use $home as item; }
                use old::*;
                use home::*;
                use item as _the_same;
            };
        )* })*
        pub(crate) const LINES: &[(&str, &str)] = &[$($((stringify!($path), stringify!($home)),)*)*];
    };
}
use same;

/// Paths and their homes.
type Lines = BTreeSet<(String, String)>;

/// What the facade re-exports by name, as `naq::path = home`, and by `*`, as `naq::module::* = home::*`.
#[derive(Default)]
struct Facade {
    named: Lines,
    globs: Lines,
}

impl Facade {
    fn read(&mut self, file: &str, module: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.items(&syn::parse_file(&text).expect("the crate compiles").items, module);
    }

    fn items(&mut self, items: &[Item], module: &str) {
        for item in items {
            match item {
                // `old` gives its modules to the root, where its lines are found.
                Item::Mod(ItemMod { ident, content: None, .. }) if ident == "old" => self.read("old.rs", module),
                Item::Mod(ItemMod { attrs, .. })
                    if attrs.iter().any(|a| a.to_token_stream().to_string().contains("doctest")) => {}
                Item::Mod(ItemMod { ident, content: None, .. }) => {
                    self.read(&format!("{ident}.rs"), &format!("{module}::{ident}"))
                }
                Item::Mod(ItemMod { ident, content: Some((_, items)), .. }) => {
                    self.items(items, &format!("{module}::{ident}"))
                }
                Item::Use(item) if matches!(item.vis, Visibility::Public(_)) => self.uses(&item.tree, "", module),
                Item::Use(_) => {}
                other => panic!("the facade has no logic, but {module} has {}", other.to_token_stream()),
            }
        }
    }

    fn uses(&mut self, tree: &UseTree, home: &str, module: &str) {
        let join =
            |name: &dyn std::fmt::Display| if home.is_empty() { name.to_string() } else { format!("{home}::{name}") };
        match tree {
            UseTree::Path(path) => self.uses(&path.tree, &join(&path.ident), module),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.uses(tree, home, module)),
            UseTree::Name(name) => self.add(format!("{module}::{}", name.ident), join(&name.ident)),
            UseTree::Rename(name) => self.add(format!("{module}::{}", name.rename), join(&name.ident)),
            UseTree::Glob(_) => {
                self.globs.insert((format!("{module}::*"), format!("{home}::*")));
            }
        }
    }

    fn add(&mut self, path: String, home: String) {
        // The modules of `old` at the root are no items of their own; what they hold is listed where it stands.
        if home.strip_prefix("old::").is_some_and(|rest| !rest.contains("::")) {
            return;
        }
        // `old::settings::X` and `self::models::X` are `naq::settings::X` and `naq::models::X`, whose line says the home.
        let home = home.replacen("old::", "naq::", 1).replacen("self::", "naq::", 1);
        self.named.insert((path, home));
    }

    /// Follows homes within the facade to the crate that the item comes from.
    fn resolved(self) -> (Lines, Lines) {
        let home_of = |path: &str| {
            let found = self.named.iter().find(|(known, _)| known == path);
            found.map_or_else(|| panic!("{path} is not re-exported by name"), |(_, home)| home.clone())
        };
        let named = self.named.iter().map(|(path, home)| {
            let home = if home.starts_with("naq::") { home_of(home) } else { home.clone() };
            (path.clone(), home)
        });
        (named.collect(), self.globs.clone())
    }
}

/// A path as the table writes it: `stringify!` may put spaces.
fn listed(lines: &[(&str, &str)]) -> Lines {
    let clean = |text: &str| text.split_whitespace().collect::<String>();
    lines.iter().map(|(path, home)| (clean(path), clean(home))).collect()
}

#[test]
fn the_table_lists_every_name_of_the_facade() {
    let mut facade = Facade::default();
    facade.read("lib.rs", "naq");
    let (named, globs) = facade.resolved();
    let table = listed(table::LINES);
    let missing: Vec<_> = named.difference(&table).collect();
    let extra: Vec<_> = table.difference(&named).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing in the table: {missing:#?}\nin the table alone: {extra:#?}"
    );
    assert_eq!(globs, listed(table::GLOBS));
}

#[test]
fn every_free_function_has_a_blocking_twin() {
    let homes: BTreeSet<String> = listed(table::LINES).into_iter().map(|(_, home)| home).collect();
    let functions = homes.iter().filter_map(|home| home.strip_prefix("naq_queue::")).filter(|name| {
        let is_module = name.contains("::");
        !is_module && name.starts_with(char::is_lowercase) && !name.ends_with("_sync")
    });
    let without: Vec<_> = functions.filter(|name| !homes.contains(&format!("naq_queue::{name}_sync"))).collect();
    assert!(without.is_empty(), "{without:?}");
}
