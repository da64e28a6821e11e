//! What `doctor` asks of this store.
//!
//! Invariant: bounded work, and nothing is changed.

use std::path::Path;

use rusqlite::Connection;

use super::Synchronous;
use crate::storage::{Finding, Severity};

/// Checking a file of 1 GiB takes seconds; a larger one is not checked.
const MAX_CHECKED_BYTES: u64 = 1 << 30;
/// A write-ahead log of this size means that a reader holds it up.
const LARGE_LOG_BYTES: u64 = 256 << 20;

fn finding(severity: Severity, subject: &str, message: String, advice: &str) -> Finding {
    Finding { severity, subject: subject.into(), message, advice: advice.into() }
}

pub(super) fn diagnose(
    conn: &Connection,
    path: Option<&Path>,
    synchronous: Synchronous,
) -> rusqlite::Result<Vec<Finding>> {
    let mut findings = vec![durability(path, synchronous)];
    if let Some(path) = path {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let (file, log) = (size(path), size(Path::new(&log)));
        let held_up = log > LARGE_LOG_BYTES;
        findings.push(finding(
            if held_up { Severity::Warning } else { Severity::Ok },
            "size",
            format!("file {file} bytes, write-ahead log {log} bytes"),
            if held_up { "look for a program that keeps a read transaction open" } else { "" },
        ));
        findings.push(integrity(conn, file)?);
    }
    Ok(findings)
}

fn durability(path: Option<&Path>, synchronous: Synchronous) -> Finding {
    let subject = "durability";
    match (path, synchronous) {
        (None, _) => finding(
            Severity::Warning,
            subject,
            "everything is in memory and ends with the process".into(),
            "name a file for jobs that must survive",
        ),
        (_, Synchronous::Full) => {
            finding(Severity::Ok, subject, "every acknowledged job is on the disk (synchronous=FULL)".into(), "")
        }
        (_, Synchronous::Normal) => finding(
            Severity::Warning,
            subject,
            "a power cut can lose the last acknowledged jobs (synchronous=NORMAL)".into(),
            "use synchronous=full unless the jobs can be enqueued again",
        ),
    }
}

fn integrity(conn: &Connection, size: u64) -> rusqlite::Result<Finding> {
    let subject = "integrity";
    if size > MAX_CHECKED_BYTES {
        let message = format!("not checked: the file is larger than {MAX_CHECKED_BYTES} bytes");
        return Ok(finding(Severity::Ok, subject, message, "run `PRAGMA quick_check` with the sqlite3 program"));
    }
    let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok(if found == "ok" {
        finding(Severity::Ok, subject, "the file is sound".into(), "")
    } else {
        let advice = "stop every naq on it, keep a copy, and recover with `sqlite3 FILE .recover`";
        finding(Severity::Error, subject, found, advice)
    })
}
