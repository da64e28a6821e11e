//! Rules about crates: who may depend on whom, who may name which library, and what a small build must not contain.
//!
//! Arrows and homes are read from what each manifest declares, of every kind (normal, build, dev). Trees are what cargo
//! resolves for one set of features.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding;

/// Which naq crates a crate may depend on. A member that is not here may depend on any.
const ARROWS: &[(&str, &[&str])] = &[
    ("naq-models", &[]),
    ("naq-macros", &[]),
    ("naq-config", &["naq-models"]),
    ("naq-telemetry", &["naq-models", "naq-config", "naq-services"]),
    ("naq-services", &["naq-models", "naq-config"]),
    ("naq-queue", &["naq-models", "naq-config", "naq-services"]),
    ("naq-worker", &["naq-models", "naq-config", "naq-services"]),
    ("naq-testing", &["naq-models", "naq-config", "naq-services", "naq-queue", "naq-worker"]),
    ("naq-cli", &["naq-models", "naq-config", "naq-services", "naq-queue", "naq-worker", "naq-telemetry"]),
    (
        "naq",
        &[
            "naq-models",
            "naq-config",
            "naq-services",
            "naq-queue",
            "naq-worker",
            "naq-telemetry",
            "naq-macros",
            "naq-testing",
            "naq-cli",
        ],
    ),
];

/// Libraries that have one home. deny.toml holds the same for what the lock file resolves.
const HOMES: &[(&str, &[&str])] = &[
    ("async-nats", &["naq-services"]),
    ("rusqlite", &["naq-services"]),
    ("libsqlite3-sys", &["naq-services"]),
    ("clap", &["naq-cli", "xtask"]),
    ("clap_complete", &["naq-cli"]),
    ("clap_mangen", &["naq-cli"]),
    ("figment", &["naq-config"]),
    ("bincode", &["naq-models"]),
    ("tracing-subscriber", &["naq-telemetry"]),
    ("axum", &["naq-telemetry"]),
    ("prometheus-client", &["naq-telemetry"]),
    ("opentelemetry", &["naq-telemetry"]),
    ("opentelemetry-otlp", &["naq-telemetry"]),
    ("opentelemetry_sdk", &["naq-telemetry"]),
    ("tracing-opentelemetry", &["naq-telemetry"]),
];

/// What a build with some features must not contain.
pub(super) struct Tree {
    /// Arguments of `cargo tree`; the first is the option and the second the package.
    pub(super) selection: &'static [&'static str],
    forbidden: &'static [&'static str],
    /// So many crates, of all versions, with naq's own. Raise it only for a crate that is worth the build time of everybody.
    at_most: usize,
    why: &'static str,
}

pub(super) const TREES: &[Tree] = &[
    Tree {
        selection: &["--package", "naq", "--no-default-features", "--features", "queue,nats"],
        forbidden: &["rusqlite", "libsqlite3-sys", "clap", "axum", "naq-worker", "naq-cli", "tracing-subscriber"],
        at_most: 170,
        why: "a web process that only enqueues to NATS compiles neither worker, nor SQLite, nor the command line",
    },
    Tree {
        selection: &["--package", "naq", "--no-default-features", "--features", "queue,sqlite"],
        forbidden: &["async-nats", "clap", "axum", "naq-worker", "naq-cli", "tracing-subscriber"],
        at_most: 93,
        why: "a web process that only enqueues to SQLite compiles neither worker, nor NATS, nor the command line",
    },
    Tree {
        selection: &["--package", "naq-models", "--all-features"],
        forbidden: &["tokio", "rand", "async-nats", "rusqlite"],
        at_most: 32,
        why: "naq-models is pure: no I/O, no runtime, no randomness",
    },
];

impl Tree {
    /// `listing` is what `cargo tree --prefix none` printed: one `name vX.Y.Z …` a line.
    pub(super) fn check(&self, listing: &str) -> Vec<Finding> {
        let names: Vec<&str> = listing.lines().filter_map(|line| line.split(' ').next()).collect();
        let path = format!("crates/{}/Cargo.toml", self.selection[1]);
        let breach = |name| {
            let found = format!("`{name}` in `cargo tree {}`", self.selection.join(" "));
            Finding::new(&path, 1, "lean-build", found, self.why)
        };
        let mut findings: Vec<_> = self.forbidden.iter().filter(|name| names.contains(name)).map(breach).collect();
        let crates = self.count(listing);
        if crates > self.at_most {
            let found = format!("{crates} crates in `cargo tree {}`", self.selection.join(" "));
            findings.push(Finding::new(&path, 1, "lean-build", found, format!("at most {}", self.at_most)));
        }
        findings
    }

    /// How many crates a build has.
    fn count(&self, listing: &str) -> usize {
        // `name vX.Y.Z`, whatever follows: a crate that is there twice in the tree is built once.
        let crates = listing.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>());
        crates.collect::<HashSet<_>>().len()
    }
}

/// What is used of `cargo metadata --no-deps`.
#[derive(Deserialize)]
pub(super) struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

impl Dependency {
    /// Tests of the crates that generated code names need the macro; their users do not get it from there.
    fn is_macro_for_tests(&self) -> bool {
        self.name == "naq-macros" && self.kind.as_deref() == Some("dev")
    }
}

pub(super) fn check_members(metadata: &Metadata, root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let manifest = fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("cannot read {}", package.manifest_path))?;
        let path = Path::new(&package.manifest_path);
        let path = path.strip_prefix(root).unwrap_or(path).to_string_lossy();
        findings.extend(package.check(&path, &manifest));
    }
    Ok(findings)
}

impl Package {
    fn check(&self, path: &str, manifest: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !inherits_lints(manifest) {
            let instead = "write `[lints]` and `workspace = true`";
            findings.push(Finding::new(path, 1, "lints", "the workspace's lints are not inherited", instead));
        }
        let arrows: HashMap<_, _> = ARROWS.iter().copied().collect();
        let homes: HashMap<_, _> = HOMES.iter().copied().collect();
        for dependency in &self.dependencies {
            let name = dependency.name.as_str();
            if let Some(allowed) = arrows.get(self.name.as_str())
                && (name == "naq" || name.starts_with("naq-"))
                && !allowed.contains(&name)
                && !dependency.is_macro_for_tests()
            {
                let instead = match *allowed {
                    [] => "it depends on no naq crate".to_owned(),
                    allowed => format!("it may depend on {}", allowed.join(", ")),
                };
                let found = format!("{} depends on {name}", self.name);
                findings.push(Finding::new(path, line_of(manifest, name), "arrow", found, instead));
            }
            if let Some(home) = homes.get(name)
                && !home.contains(&self.name.as_str())
            {
                let found = format!("{} depends on {name}", self.name);
                let instead = format!("its home is {}: use what that offers", home.join(", "));
                findings.push(Finding::new(path, line_of(manifest, name), "home", found, instead));
            }
        }
        findings
    }
}

/// The line on which the manifest declares a dependency; 1 if it is renamed there.
fn line_of(manifest: &str, dependency: &str) -> usize {
    let declares = |line: &str| {
        line.strip_prefix(dependency).is_some_and(|rest| rest.starts_with([' ', '.', '=']))
            || line.starts_with('[') && line.trim_end().ends_with(&format!("dependencies.{dependency}]"))
    };
    manifest.lines().position(declares).map_or(1, |index| index + 1)
}

fn inherits_lints(manifest: &str) -> bool {
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section == "[lints]" && line.replace(' ', "") == "workspace=true" {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::rules;
    use super::*;

    const LINTS: &str = "[lints]\nworkspace = true\n";

    fn found(package: &str, dependencies: &[&str]) -> Vec<(&'static str, usize)> {
        let dependencies_of =
            dependencies.iter().map(|name| Dependency { name: (*name).to_owned(), kind: None }).collect::<Vec<_>>();
        let package = Package { name: package.to_owned(), manifest_path: String::new(), dependencies: dependencies_of };
        let declared: String = dependencies.iter().map(|name| format!("{name}.workspace = true\n")).collect();
        rules(&package.check("Cargo.toml", &format!("{LINTS}[dependencies]\n{declared}")))
    }

    #[test]
    fn queue_and_worker_never_see_each_other() {
        assert_eq!(found("naq-queue", &["naq-worker"]), [("arrow", 4)]);
        assert_eq!(found("naq-worker", &["naq-models", "naq-queue"]), [("arrow", 5)]);
    }

    #[test]
    fn models_see_no_naq_crate_and_nothing_below_the_facade_sees_it() {
        assert_eq!(found("naq-models", &["naq-config"]), [("arrow", 4)]);
        for package in ["naq-models", "naq-config", "naq-services", "naq-queue", "naq-worker", "naq-testing", "naq-cli"]
        {
            assert_eq!(found(package, &["naq"]), [("arrow", 4)], "{package}");
        }
    }

    #[test]
    fn allowed_arrows_pass() {
        for (package, allowed) in ARROWS {
            assert_eq!(found(package, allowed), [], "{package}");
        }
        assert_eq!(found("naq-tests", &["naq", "naq-queue", "naq-worker"]), []);
    }

    #[test]
    fn a_library_outside_its_home_is_found() {
        for (library, home) in HOMES {
            assert_eq!(found("naq", &[library]), [("home", 4)], "{library}");
            assert_eq!(found(home[0], &[library]), [], "{library}");
        }
    }

    #[test]
    fn a_member_without_the_lints_is_found() {
        let package = Package { name: "naq".to_owned(), manifest_path: String::new(), dependencies: Vec::new() };
        assert_eq!(rules(&package.check("Cargo.toml", "[package]\nworkspace = true\n")), [("lints", 1)]);
        assert_eq!(rules(&package.check("Cargo.toml", "[lints.rust]\nunsafe_code = \"forbid\"\n")), [("lints", 1)]);
        assert_eq!(package.check("Cargo.toml", LINTS), []);
    }

    #[test]
    fn what_a_lean_build_must_not_contain_is_found() {
        for tree in TREES {
            let own = format!("{} v0.1.0 (here)\nserde v1.0.0\n", tree.selection[1]);
            assert_eq!(tree.check(&own), []);
            for name in tree.forbidden {
                assert_eq!(rules(&tree.check(&format!("{own}{name} v1.0.0 (*)\n"))), [("lean-build", 1)], "{name}");
            }
            let many = |n: usize| (0..n).map(|n| format!("c{n} v1.0.0\nc{n} v1.0.0 (*)\n")).collect::<String>();
            assert_eq!(tree.check(&many(tree.at_most)), []);
            assert_eq!(rules(&tree.check(&many(tree.at_most + 1))), [("lean-build", 1)]);
        }
    }
}
