//! `cargo xtask tidy`: the house rules, each reported with file, line, rule and what to write instead.
//!
//! The rules are pure functions over text and over what `cargo metadata` says; only this file reads the repository.
//! What rustc, clippy and cargo-deny can say is left to them.

mod api;
mod graph;
mod source;
mod strings;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::process::{cargo, output, root};
use graph::Metadata;

/// One breach of one rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Relative to the root of the repository.
    path: String,
    /// From 1.
    line: usize,
    rule: &'static str,
    found: String,
    instead: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, found: impl Into<String>, instead: impl Into<String>) -> Self {
        Finding { path: path.to_owned(), line, rule, found: found.into(), instead: instead.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}; {}", self.path, self.line, self.rule, self.found, self.instead)
    }
}

/// A text file of the repository.
pub(crate) struct Source {
    path: String,
    text: String,
}

pub(crate) fn run() -> Result<()> {
    let root = root();
    let sources = tracked(&root)?;
    let metadata: Metadata =
        serde_json::from_str(&output(&mut cargo(["metadata", "--format-version", "1", "--no-deps"]))?)
            .context("cargo metadata said something unexpected")?;

    let mut findings = Vec::new();
    for source in &sources {
        findings.extend(strings::check(source));
        if source.path.ends_with(".rs") {
            findings.extend(source::check(source));
        }
    }
    findings.extend(api::check(sources.iter().filter(|source| in_library(&source.path))));
    findings.extend(graph::check_members(&metadata, &root)?);
    for tree in graph::TREES {
        let listing = output(cargo(["tree", "--prefix", "none", "--edges", "normal"]).args(tree.selection))?;
        findings.extend(tree.check(&listing));
    }

    findings.sort();
    findings.dedup();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} breaches of the house rules", findings.len());
    }
    println!("tidy: {} files keep the house rules", sources.len());
    Ok(())
}

fn in_library(path: &str) -> bool {
    path.starts_with("crates/") && path.contains("/src/") && path.ends_with(".rs")
}

/// Every text file that git tracks or would track.
fn tracked(root: &Path) -> Result<Vec<Source>> {
    let listing = output(std::process::Command::new("git").current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut sources = Vec::new();
    for path in listing.split_terminator('\0') {
        let full = root.join(path);
        // Deleted but not yet committed, or a link to elsewhere.
        if !full.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        let bytes = fs::read(&full).with_context(|| format!("cannot read {path}"))?;
        // What is not UTF-8 is no text, and no rule is about it.
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source { path: path.to_owned(), text });
        }
    }
    Ok(sources)
}

#[cfg(test)]
fn rules(findings: &[Finding]) -> Vec<(&'static str, usize)> {
    findings.iter().map(|finding| (finding.rule, finding.line)).collect()
}

#[cfg(test)]
fn source_of(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}
