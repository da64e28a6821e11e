//! Rows that somebody wrote to the file with SQL: they stop nobody's jobs, and the doctor tells of them.

use anyhow::{Context as _, Result, ensure};
use naq_tests::{Signal, eventually};
use serde_json::{Value, json};

use super::assert_no_panic;
use crate::{
    python,
    site::{Backend, COMMAND_LIMIT, Site, WORKER_LIMIT},
};

/// Of `jobs`: seq, id, queue, priority, status, run, generation, revision, `run_at`, `stored_at`, lost, body. Each is what its
/// name says and could be read but for that. The first ones lie before every job, the later ones behind.
const ROWS: &str = "
import sqlite3
db = sqlite3.connect('jobs.db')
for row in [
    (-7, 'an id with spaces', 1, 2, 2, 1, 0, 0, None, 0, 0, b'{}'),
    (901, 'ready, in front', 1, 2, 2, 1, 0, 0, None, 0, 0, b'{}'),
    (902, 'priority-9', 1, 9, 2, 1, 0, 0, None, 0, 0, b'{}'),
    (903, 'status-9', 1, 2, 9, 1, 0, 0, None, 0, 0, b'{}'),
    (904, 'due, first', 1, 2, 0, 1, 0, 0, 5, 0, 0, b'{}'),
    (905, 'due-at-no-time', 1, 2, 0, 1, 0, 0, None, 0, 0, b'{}'),
    (906, 'due-with-priority-9', 1, 9, 4, 1, 0, 0, 5, 0, 0, b'{}'),
    (907, 'due-in-no-queue', 77, 2, 4, 1, 0, 0, 5, 0, 0, b'{}'),
    (908, 'due-in-run-minus-1', 1, 2, 0, -1, 0, 0, 5, 0, 0, b'{}'),
    (909, 'waits for others', 1, 2, 1, 1, 0, 0, None, 0, 0, b'{}'),
    (910, 'in-a-queue-with-spaces', 5, 2, 2, 1, 0, 0, None, 0, 0, b'{}'),
]:
    db.execute('INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)', row)
ready = [((1 * 4 + 2) << 44) | seq for seq in (0, 901, 999)] + [((5 * 4 + 2) << 44) | 910]
db.executemany('INSERT INTO ready VALUES (?)', [(key,) for key in ready])
# The first that is ready is not the first that was enqueued.
db.execute(\"UPDATE jobs SET seq = 950 WHERE id = 'good'\")
db.execute('UPDATE ready SET key = ? WHERE key = ?', (((1 * 4 + 2) << 44) | 950, ((1 * 4 + 2) << 44) | 1))
db.execute(\"INSERT INTO queues VALUES (5, 'with spaces')\")
db.execute(\"INSERT INTO leases VALUES (998, 1, 9, 5, 0, 0, 'nobody')\")
db.execute(\"INSERT INTO dead VALUES (1, 'no-json', 1, 2, 0, 'k', 'no json', x'00')\")
db.execute(\"INSERT INTO dead VALUES (2, 'a dead one', 1, 2, 0, 'k', '{}', x'00')\")
db.execute(\"INSERT INTO results VALUES (5000, 'a result', 1, 5, 99999999999999, x'00')\")
db.execute(\"INSERT INTO kv SELECT value, 'a key *', 1, NULL, NULL, x'00ff' FROM json_each('[0,1,2,3,4,5]')\")
db.execute(\"INSERT INTO events (first_at, last_at, upto, jobs, body) VALUES (1, 99999999999999, 5, x'00ff', x'00ff')\")
db.commit()";
/// How many of them the doctor tells of: those in `jobs`, the queue, the dead letters, the result. Places and leases of no job are
/// gone once a worker has been there.
const STRANGE: usize = 15;

#[tokio::test]
async fn rows_of_a_stranger_stop_nobody() -> Result<()> {
    let site = Site::start(Backend::Sqlite).await?;
    site.enqueue("naq.echo", &json!({}), &["--job-id", "good"]).await?;
    site.enqueue("naq.echo", &json!({}), &["--job-id", "later", "--delay", "300ms"]).await?;
    site.enqueue("naq.echo", &json!({}), &["--job-id", "last", "--depends-on", "later"]).await?;
    python::run(site.dir(), ROWS, &[]).await?;
    let worker = site.worker_of(&site.naq()?, "w", &[]).await?;
    let done = eventually(WORKER_LIMIT, "the last job has completed", async || {
        let last = site.json(&["job", "status", "last"]).await.ok()?;
        (last["status"] == "completed").then_some(())
    });
    done.await.with_context(|| worker.stderr())?;
    worker.signal(Signal::TERM)?;
    let worker = worker.wait(WORKER_LIMIT).await?;
    ensure!(worker.code() == Some(0), "{worker:#?}");
    assert_no_panic(&worker);

    let jobs = site.json(&["job", "list", "--limit", "100"]).await?;
    for id in ["good", "later", "last"] {
        let listed = |job: &Value| job["job_id"] == id && job["status"] == "completed";
        ensure!(jobs.as_array().into_iter().flatten().any(listed), "{id} is not among {jobs}");
    }
    for command in
        ["job list --limit 1", "dead list", "queue list", "worker list", "events stats", "queue stats default"]
    {
        let args: Vec<&str> = command.split(' ').collect();
        let finished = site.run(&args).await?;
        ensure!(finished.code() == Some(0), "`naq {command}`: {finished:#?}");
    }
    let found = site.naq()?.run(&["system", "doctor", "--output", "json"], COMMAND_LIMIT).await?;
    let found = found.json()?;
    let finding = found["findings"].as_array().into_iter().flatten().find(|one| one["subject"] == "rows");
    let finding = finding.with_context(|| found.to_string())?;
    let said = finding["message"].as_str().unwrap_or_default();
    ensure!(finding["severity"] == "error" && said.contains(&format!(": {STRANGE};")), "{finding}");
    Ok(())
}
