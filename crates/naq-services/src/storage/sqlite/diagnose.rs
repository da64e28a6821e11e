//! What `doctor` asks of this store.
//!
//! Invariant: bounded work, and nothing is changed.

use std::path::Path;

use naq_models::JobStatus;
use rusqlite::{Connection, Row, types::ValueRef};

use super::{
    Synchronous,
    clock::Moment,
    error::foreign_value,
    results,
    rows::{self, JOB_COLUMNS, SEQ_BITS},
};
use crate::storage::{Finding, Severity, Sighting};

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
        if file <= MAX_CHECKED_BYTES {
            findings.push(foreign_rows(conn)?);
        }
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

/// Whether all rows are such as naq writes. What it cannot read it passes over, so that nobody else would tell.
fn foreign_rows(conn: &Connection) -> rusqlite::Result<Finding> {
    let (mut found, mut first) = (0_u64, None);
    let mut look = |table: &str, sql: &str, read: &dyn Fn(&Row<'_>) -> rusqlite::Result<()>| -> rusqlite::Result<()> {
        let mut statement = conn.prepare(sql)?;
        let last = statement.column_count() - 1;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Err(error) = read(row) {
                found += 1;
                first = first.take().or(Some(format!("{table}, {}: {error}", row.get::<_, i64>(last)?)));
            }
        }
        Ok(())
    };
    // Bodies may be anything, and are large.
    let without_body = |columns: &str, body: &str| columns.replace(body, "x''");
    let stranger = |what: &'static str| Err(foreign_value(0, Stranger(what)));

    look("queues", "SELECT queue, name, queue FROM queues", &|row| rows::queue(row, 1).map(drop))?;
    let jobs = format!(
        "SELECT {}, r.key, j.seq FROM jobs j LEFT JOIN queues q ON q.queue = j.queue LEFT JOIN leases l ON l.seq = j.seq \
         LEFT JOIN ready r ON r.key = (j.queue * 4 + j.priority) << {SEQ_BITS} | j.seq",
        without_body(JOB_COLUMNS, "j.body")
    );
    look("jobs", &jobs, &|row| match rows::job(row, Moment { wall: 0, boot: 0 }, 0)? {
        Sighting::Queued { .. } if is_null(row, 8)? && is_null(row, 13)? => stranger("it is neither ready nor claimed"),
        Sighting::Scheduled(entry) if entry.run_at.is_none() && entry.status != JobStatus::Waiting => {
            stranger("it waits for no time")
        }
        _ => Ok(()),
    })?;
    let orphans = "SELECT l.seq FROM leases l LEFT JOIN jobs j USING (seq) WHERE j.seq IS NULL";
    look("leases", orphans, &|_| stranger("there is no such job"))?;
    let dead = without_body(results::DEAD_COLUMNS, "d.body");
    let dead = format!("SELECT {dead}, d.seq FROM dead d LEFT JOIN queues q USING (queue)");
    look("dead", &dead, &|row| results::dead_letter(row).map(drop))?;
    look("results", "SELECT id, expires_at, revision FROM results", &|row| {
        rows::id(row, 0).and(rows::time(row, 1)).map(drop)
    })?;

    let subject = "rows";
    Ok(match first {
        None => finding(Severity::Ok, subject, "every row is one that naq wrote".into(), ""),
        Some(first) => finding(
            Severity::Error,
            subject,
            format!("rows that no naq wrote, which are passed over: {found}; first: {first}"),
            "look at them with the sqlite3 program, and remove or mend them",
        ),
    })
}

fn is_null(row: &Row<'_>, column: usize) -> rusqlite::Result<bool> {
    Ok(row.get_ref(column)? == ValueRef::Null)
}

/// Why a row whose values can all be read is yet none of naq's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Stranger(&'static str);

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
