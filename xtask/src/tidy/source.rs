//! Rules about one Rust file: its header, its size, its name, and macros that mark unfinished work.
//!
//! Code is read as tokens, so that comments and strings may say what code may not.

use proc_macro2::{Spacing, TokenStream, TokenTree};

use super::{Finding, Source};

/// Lines in one file, tests included.
const LINES_MAX: usize = 800;
const MACROS: &[(&str, &str)] = &[
    ("todo", "write it, or leave it out"),
    ("unimplemented", "write it, or make the case unrepresentable"),
    ("dbg", "use tracing, or assert it in a test"),
];
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "manager", "managers"];
const EMPTY_SUFFIXES: &[&str] = &["Util", "Utils", "Helper", "Helpers", "Manager", "Managers"];
/// Names that the design fixes.
const TYPE_EXCEPTIONS: &[&str] = &["ServiceManager"];
const MODULE_EXCEPTIONS: &[(&str, &str)] = &[("crates/naq/src/", "utils"), ("crates/naq-services/src/", "manager")];
const CONCRETE: &str = "name the concrete thing it holds (lease, delivery, topology)";

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let path = &source.path;
    let mut findings = Vec::new();
    if !source.text.starts_with("//!") {
        let instead = "begin with `//!`: what this is, the invariant it keeps, what it does not do";
        findings.push(Finding::new(path, 1, "header", "no header", instead));
    }
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        let instead = format!("split it by reason to change; the ceiling is {LINES_MAX}");
        findings.push(Finding::new(path, LINES_MAX + 1, "size", format!("{lines} lines"), instead));
    }
    if let Some(name) = file_module(path).filter(|name| is_empty_name(path, name)) {
        findings.push(Finding::new(path, 1, "module-name", format!("module `{name}`"), CONCRETE));
    }
    match source.text.parse::<TokenStream>() {
        Ok(tokens) => check_tokens(path, tokens, &mut findings),
        Err(error) => {
            let line = error.span().start().line;
            findings.push(Finding::new(
                path,
                line,
                "syntax",
                "not Rust",
                "mend it, or give the file another extension",
            ));
        }
    }
    findings
}

/// The module that a file is: its name, or that of its folder for `mod.rs`.
fn file_module(path: &str) -> Option<&str> {
    let stem = path.strip_suffix(".rs")?;
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    stem.rsplit('/').next()
}

fn is_empty_name(path: &str, name: &str) -> bool {
    EMPTY_NAMES.contains(&name)
        && !MODULE_EXCEPTIONS.iter().any(|(folder, module)| path.starts_with(folder) && name == *module)
}

fn check_tokens(path: &str, tokens: TokenStream, findings: &mut Vec<Finding>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => check_tokens(path, group.stream(), findings),
            TokenTree::Ident(ident) => {
                let line = ident.span().start().line;
                let word = ident.to_string();
                if let Some((name, instead)) = MACROS.iter().find(|(name, _)| word == *name)
                    && is_call(tokens.get(index + 1))
                {
                    findings.push(Finding::new(path, line, "unfinished", format!("`{name}!`"), *instead));
                }
                if let Some(TokenTree::Ident(named)) = tokens.get(index + 1) {
                    check_name(path, line, &word, &named.to_string(), findings);
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// A lone `!`, and not the first half of `!=`.
fn is_call(next: Option<&TokenTree>) -> bool {
    matches!(next, Some(TokenTree::Punct(punct)) if punct.as_char() == '!' && punct.spacing() == Spacing::Alone)
}

fn check_name(path: &str, line: usize, keyword: &str, name: &str, findings: &mut Vec<Finding>) {
    match keyword {
        "mod" if is_empty_name(path, name) => {
            findings.push(Finding::new(path, line, "module-name", format!("module `{name}`"), CONCRETE));
        }
        "struct" | "enum" | "trait"
            if EMPTY_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) && !TYPE_EXCEPTIONS.contains(&name) =>
        {
            let instead = "say its duty (Lease, Delivery, Topology)";
            findings.push(Finding::new(path, line, "type-name", format!("type `{name}`"), instead));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::{rules, source_of};
    use super::*;

    fn found(path: &str, code: &str) -> Vec<(&'static str, usize)> {
        rules(&check(&source_of(path, code)))
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        assert_eq!(found("a.rs", "fn main() {}"), [("header", 1)]);
        assert_eq!(found("a.rs", "//! A header.\nfn main() {}"), []);
    }

    #[test]
    fn a_file_over_the_ceiling_is_found_and_one_at_it_is_not() {
        let lines = |n: usize| format!("//! A header.\n{}", "\n".repeat(n - 1));
        assert_eq!(found("a.rs", &lines(800)), []);
        assert_eq!(found("a.rs", &lines(801)), [("size", 801)]);
    }

    #[test]
    fn unfinished_macros_are_found_in_code_but_not_in_comments_strings_or_comparisons() {
        for name in ["todo", "unimplemented", "dbg"] {
            let code =
                format!("//! {name}!()\n// {name}!()\nfn f() {{\n  g(\"{name}!()\"); {name} != 1; m!({name}!());\n}}");
            assert_eq!(found("a.rs", &code), [("unfinished", 4)], "{name}");
            assert_eq!(found("a.rs", &format!("//! H.\nfn f() {{ std::{name}!(1) }}")), [("unfinished", 2)], "{name}");
        }
    }

    #[test]
    fn modules_named_for_nothing_are_found_as_file_folder_and_item() {
        for name in EMPTY_NAMES {
            assert_eq!(found(&format!("crates/naq-queue/src/{name}.rs"), "//! H."), [("module-name", 1)]);
            assert_eq!(found(&format!("crates/naq-queue/src/{name}/mod.rs"), "//! H."), [("module-name", 1)]);
            assert_eq!(found("a.rs", &format!("//! H.\npub mod {name};")), [("module-name", 2)]);
        }
    }

    #[test]
    fn the_old_module_path_of_the_facade_may_stay_and_only_there() {
        assert_eq!(found("crates/naq/src/utils.rs", "//! H."), []);
        assert_eq!(found("crates/naq/src/lib.rs", "//! H.\npub mod utils {}"), []);
        assert_eq!(found("crates/naq/src/lib.rs", "//! H.\npub mod common {}"), [("module-name", 2)]);
        assert_eq!(found("crates/naq-queue/src/lib.rs", "//! H.\nmod utils {}"), [("module-name", 2)]);
    }

    #[test]
    fn types_named_for_nothing_are_found() {
        assert_eq!(
            found("a.rs", "//! H.\nstruct JobHelper;\nenum StreamManager {}"),
            [("type-name", 2), ("type-name", 3)]
        );
        assert_eq!(found("a.rs", "//! H.\nstruct ServiceManager;"), []);
    }

    #[test]
    fn text_that_is_not_rust_is_found() {
        assert_eq!(found("a.rs", "//! H.\nfn f() { ("), [("syntax", 2)]);
    }
}
