//! The table in docs/operating/speed.md.
//!
//! Invariant: only what stands between the two markers is written anew.

use std::fs;

use anyhow::{Context, Result};

use super::{machine::Machine, table};
use crate::process::root;

const BEGIN: &str = "<!-- begin: cargo xtask bench --write -->\n";
const END: &str = "<!-- end -->\n";

pub(super) fn write(report: &table::Report, machine: &Machine) -> Result<()> {
    let path = root().join("docs/operating/speed.md");
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut text = format!("{}.\n", machine.line());
    for store in &report.stores {
        text += &format!("{}: {}.\n", store.version, store.durability);
    }
    text += &format!("\n{}", table::render(report));
    let page = replaced(&page, &text).with_context(|| format!("{} has lost its markers", path.display()))?;
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

fn replaced(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{text}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marked_part_changes() {
        let page = format!("# Speed\n{BEGIN}old\n{END}rest\n");
        assert_eq!(replaced(&page, "new\n").unwrap(), format!("# Speed\n{BEGIN}new\n{END}rest\n"));
        assert!(replaced("# Speed\n", "new\n").is_none());
    }
}
