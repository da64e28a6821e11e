//! The generated parts of pages under docs/operating, and the pictures beside them.
//!
//! Invariant: only what stands between the two markers is written anew.

use std::fs;

use anyhow::{Context, Result};

use super::{
    machine::Machine,
    plot::{self, Panel},
    table,
};
use crate::process::root;

const BEGIN: &str = "<!-- begin: cargo xtask bench --write -->\n";
const END: &str = "<!-- end -->\n";

pub(super) fn write_speed(report: &table::Report, machine: &Machine) -> Result<()> {
    let mut text = format!("{}.\n", machine.line());
    for store in &report.stores {
        text += &format!("{}: {}.\n", store.version, store.durability);
    }
    text += &format!("\n{}", table::render(report));
    let bars = report.bars();
    if !bars.is_empty() {
        let panel = Panel::Bars { y: "naq to a bare loop; the red line is the budget".into(), bars };
        write_plot("ratios", &plot::svg("Ratios to bare loops", &[panel])?)?;
        text += "\n![The ratios of the table, as bars](plots/ratios.svg)\n";
    }
    write("speed.md", &text)
}

pub(super) fn write(page: &str, text: &str) -> Result<()> {
    let path = root().join("docs/operating").join(page);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let page = replaced(&page, text).with_context(|| format!("{} has lost its markers", path.display()))?;
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// Pages say `plots/<name>.svg`.
pub(super) fn write_plot(name: &str, svg: &str) -> Result<()> {
    let folder = root().join("docs/operating/plots");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(format!("{name}.svg"));
    fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))
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
