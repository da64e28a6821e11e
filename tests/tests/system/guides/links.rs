//! Links between the files of the repository. Those that lead out of it are not followed: a test needs no network.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::markdown::{anchors, links};

/// The links of `files`, paths from `root`, that lead to no file or to no heading.
pub(crate) fn broken(root: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for file in files {
        let text = fs::read_to_string(root.join(file))?;
        for (line, target) in links(&text) {
            if let Some(why) = why_broken(&root.join(file), &target)? {
                broken.push(format!("{}:{line}: `{target}`: {why}", file.display()));
            }
        }
    }
    Ok(broken)
}

fn why_broken(page: &Path, target: &str) -> Result<Option<&'static str>> {
    if ["https://", "http://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return Ok(None);
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let folder = page.parent().context("a page lies in a folder")?;
    let path = if path.is_empty() { page.to_owned() } else { folder.join(path) };
    if !path.exists() {
        return Ok(Some("no such file"));
    }
    let Some(anchor) = anchor else { return Ok(None) };
    let found = path.is_file() && anchors(&fs::read_to_string(path)?).iter().any(|own| own == anchor);
    Ok((!found).then_some("no such heading"))
}

#[test]
fn a_link_to_no_file_or_no_heading_is_found() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("b.md"), "# One `two`: three\n\n```sh\n# not a heading\n```\n## Same\n## Same\n")?;
    let page = "[ok](b.md) [ok](b.md#one-two-three) [ok](b.md#same-1) [ok](#here) [ok](https://x.org/#y)\n\
        # Here\n[bad](c.md)\n`[code](c.md)` [`bad`](b.md#not-a-heading)\n```sh\n[code](c.md)\n```\n[bad](#b)\n[ref]: c.md\n";
    fs::write(dir.path().join("a.md"), page)?;
    let broken = broken(dir.path(), &["a.md".into(), "b.md".into()])?;
    let places: Vec<_> = broken.iter().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(places, ["a.md:3", "a.md:4", "a.md:8", "a.md:9"], "{broken:?}");
    Ok(())
}
