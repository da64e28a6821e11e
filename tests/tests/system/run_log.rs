//! The run log: what the test jobs say they did, in the order in which it reached the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use naq_tests::{eventually, whole_lines};

/// One line. A last line that a killed process left unfinished is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) pid: u32,
    pub(crate) priority: u8,
}

/// A run log that jobs write to.
pub(crate) struct RunLog(PathBuf);

impl RunLog {
    pub(crate) fn at(path: PathBuf) -> RunLog {
        RunLog(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// All lines; none if no job has run yet.
    pub(crate) fn lines(&self) -> Result<Vec<Line>> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        whole_lines(&text).map(|line| parse(line).with_context(|| format!("a line of the run log: {line:?}"))).collect()
    }

    /// The lines that say `what`.
    pub(crate) fn said(&self, what: &str) -> Result<Vec<Line>> {
        Ok(self.lines()?.into_iter().filter(|line| line.what == what).collect())
    }

    /// How often each id says `what`.
    pub(crate) fn counts(&self, what: &str) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for line in self.said(what)? {
            *counts.entry(line.id).or_default() += 1;
        }
        Ok(counts)
    }

    /// Waits until `count` different jobs have said `what` (in the process `pid`, if one is given).
    pub(crate) async fn wait(&self, what: &str, count: usize, pid: Option<u32>, limit: Duration) -> Result<()> {
        let mut seen = 0;
        let waited = eventually(limit, format!("{count} jobs say {what}"), async || {
            let lines = self.said(what).ok()?;
            let ids: BTreeSet<_> =
                lines.iter().filter(|line| pid.is_none_or(|pid| line.pid == pid)).map(|line| &line.id).collect();
            seen = ids.len();
            (seen >= count).then_some(())
        });
        waited.await.with_context(|| format!("{seen} did"))
    }
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let (what, id) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (attempt, pid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Line { what, id, attempt, pid, priority: words.next()?.parse().ok()? })
}

/// The ids that a producer was told are stored, from the file that it writes.
pub(crate) fn answered_ok(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    whole_lines(&text).filter_map(|line| line.strip_prefix("ok ").map(str::to_owned)).collect()
}
