//! Strings that must not stand in any tracked file: paths of one machine and hosts of package registries.
//!
//! Both tie the repository to where it was written. The lock file is exempt: its registry address is cargo's own
//! constant name for the default registry.

use super::{Finding, Source};

/// Written in halves, as this file is checked too.
const HOSTS: &[&str] = &[
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("//crates", ".io"),
    concat!("registry.npm", "js.org"),
    concat!("deb.deb", "ian.org"),
    concat!("security.deb", "ian.org"),
    concat!("proxy.gol", "ang.org"),
];
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if source.path == "Cargo.lock" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for host in HOSTS.iter().filter(|host| line.contains(**host)) {
            let instead = "name the package and let its ordinary client know where it comes from";
            findings.push(Finding::new(&source.path, index + 1, "registry-host", *host, instead));
        }
        for path in MACHINE_PATHS.iter().filter(|path| has_absolute(line, path)) {
            let instead = "use a path relative to the repository, or a temporary folder";
            findings.push(Finding::new(&source.path, index + 1, "machine-path", *path, instead));
        }
    }
    findings
}

/// Whether `path` occurs where a path begins, and not in the middle of one.
fn has_absolute(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | '-' | '.' | '}' | '*'))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{rules, source_of};
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(&'static str, usize)> {
        rules(&check(&source_of(path, text)))
    }

    #[test]
    fn every_registry_host_is_found_with_its_line() {
        for host in HOSTS {
            assert_eq!(
                found("docs/a.md", &format!("fine\nget it from https:{host}/x")),
                [("registry-host", 2)],
                "{host}"
            );
        }
    }

    #[test]
    fn a_machine_path_is_found_only_where_a_path_begins() {
        for path in MACHINE_PATHS {
            assert_eq!(found("a.rs", &format!("let p = \"{path}naq\";")), [("machine-path", 1)]);
            assert_eq!(found("a.rs", &format!("see crates{path}src")), []);
        }
    }

    #[test]
    fn the_lock_file_is_exempt() {
        assert_eq!(found("Cargo.lock", HOSTS[0]), []);
    }
}
