//! OmniQ: the tables of its SQLite file, and the files of its directory.

use naq_models::{JobStatus, ScheduleId};
use naq_services::{StorageErrorKind, foreign::ForeignErrorKind};

use super::*;

/// Fills a file, or a directory, as OmniQ does. Every task of the table is one of the directory too.
const SETUP: &str = r#"
import json, os, pickle, sqlite3, sys
from datetime import datetime, timedelta, timezone

now = datetime.now(timezone.utc)
later = (now + timedelta(hours=1)).isoformat()

def task(id, status="PENDING", schedule={}, **fields):
    return {**dict(id=id, func_path="mails.send_mail", args=["a@b.c"], kwargs={}, status=status, schedule=schedule, max_retries=3,
        timeout=None, attempts=0, created_at=now.isoformat(), updated_at=now.isoformat(), last_attempt_at=None, error=None), **fields}

tasks = [
    task("plain"),
    task("delayed", schedule={"eta": later}),
    task("beat", schedule={"eta": later, "interval": {"type": "timedelta", "total_seconds": 60.0}}),
    task("retried", attempts=1),
    task("failed", "FAILED", attempts=4),
    task("running", "RUNNING", attempts=1),
    task("done", "SUCCESS", attempts=1),
    task("both", kwargs={"to": "x"}),
]
base = sys.argv[1]
if sys.argv[2] == "table":
    db = sqlite3.connect(base)
    db.executescript("""
        PRAGMA journal_mode=WAL;
        CREATE TABLE tasks (id TEXT PRIMARY KEY, func_path TEXT NOT NULL, args TEXT NOT NULL, kwargs TEXT NOT NULL, status TEXT NOT NULL,
            schedule TEXT NOT NULL, eta TEXT, max_retries INTEGER NOT NULL, timeout INTEGER, attempts INTEGER NOT NULL DEFAULT 0,
            created_at TEXT NOT NULL, updated_at TEXT NOT NULL, last_attempt_at TEXT, error TEXT);
        CREATE TABLE results (task_id TEXT PRIMARY KEY, status TEXT NOT NULL, result TEXT, error TEXT, finished_at TEXT NOT NULL,
            attempts INTEGER NOT NULL, last_attempt_at TEXT, FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE);
    """)
    for t in tasks:
        json_columns = {name: json.dumps(t[name]) for name in ("args", "kwargs", "schedule", "error")}
        row = {**t, **json_columns, "eta": t["schedule"].get("eta")}
        db.execute("INSERT INTO tasks VALUES (:id, :func_path, :args, :kwargs, :status, :schedule, :eta, :max_retries, :timeout, :attempts,"
            " :created_at, :updated_at, :last_attempt_at, :error)", row)
    for id, error in (("retried", "once"), ("failed", "boom"), ("done", None)):
        db.execute("INSERT INTO results VALUES (?, 'FAILED', NULL, ?, ?, 1, NULL)", (id, error, now.isoformat()))
    db.commit()
else:
    for name in ("queue", "results"):
        os.makedirs(os.path.join(base, name))
    ends = {"RUNNING": "running", "SUCCESS": "done", "FAILED": "done"}
    for t in tasks:
        # A task that is done keeps the status that it had when it ran.
        if t["status"] == "SUCCESS":
            t = {**t, "status": "RUNNING"}
            end = "done"
        else:
            end = ends.get(t["status"], "task")
        with open(os.path.join(base, "queue", f"{t['id']}.{end}"), "w") as file:
            json.dump(t, file)
    with open(os.path.join(base, "queue", "pickled.task"), "wb") as file:
        pickle.dump(tasks[0], file)
    with open(os.path.join(base, "results", "failed.result"), "w") as file:
        json.dump({"task_id": "failed", "status": "FAILED", "result": None, "error": "boom"}, file)
"#;

const ROWS: &str = "import sqlite3, sys\nfor row in sqlite3.connect(sys.argv[1]).execute('SELECT id FROM tasks ORDER BY id'): print(row[0])";

async fn all_is_here(to: &SchedulerService, report: &ForeignReport) {
    assert_eq!((report.pending, report.scheduled, report.recurring, report.failed), (2, 1, 1, 1), "{report:?}");
    for (id, stands) in [
        ("plain", JobStatus::Pending),
        ("retried", JobStatus::Pending),
        ("delayed", JobStatus::Scheduled),
        ("failed", JobStatus::Failed),
    ] {
        assert_eq!(status(to, id).await.status, stands, "{id}");
    }
    assert_eq!(status(to, "plain").await.kind, "mails.send_mail");
    assert_eq!(status(to, "failed").await.error.unwrap().message, "boom");
    assert!(to.get(&ScheduleId::new("beat").unwrap()).await.unwrap().next.is_some());
    // A dead letter that can be given a new life.
    let receipt = to.jobs().dead_retry(&JobId::new("failed").unwrap()).await.unwrap();
    assert_eq!(receipt.status, JobStatus::Pending);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tasks_of_a_file_come_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("omniq.db").display().to_string();
    let url = format!("sqlite://{path}");
    python(SETUP, &[&path, "table"]);
    let to = services("memory://omniq-table", &NaqConfig::default()).await;
    let foreseen = foresee(ForeignSystem::OmniQ, &url, &to).await;
    let report = bring_over(ForeignSystem::OmniQ, &url, &to).await;
    assert_eq!(foreseen, report);
    all_is_here(&to, &report).await;
    assert_eq!(left(&report), [(LeftReason::ArgsOfBothKinds, 1), (LeftReason::Running, 1)]);
    assert_eq!(python(ROWS, &[&path]).split_whitespace().collect::<Vec<_>>(), ["both", "done", "running"]);
    let again = bring_over(ForeignSystem::OmniQ, &url, &to).await;
    assert_eq!((left(&again), again.already_here), (left(&report), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tasks_of_a_directory_come_over() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().display().to_string();
    python(SETUP, &[&base, "files"]);
    let to = services("memory://omniq-files", &NaqConfig::default()).await;
    let report = bring_over(ForeignSystem::OmniQ, &format!("sqlite:{base}"), &to).await;
    all_is_here(&to, &report).await;
    let expected = [(LeftReason::ArgsOfBothKinds, 1), (LeftReason::NotJson, 1), (LeftReason::Running, 1)];
    assert_eq!(left(&report), expected);
    let names = std::fs::read_dir(dir.path().join("queue")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["both.task", "done.done", "pickled.task", "running.running"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_store_of_omniq_is_refused_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let (text, none) = (dir.path().join("text.db"), dir.path().join("none.db"));
    std::fs::write(&text, "no database, but a text of some length").unwrap();
    let naq = dir.path().join("naq.db");
    services(&format!("sqlite://{}", naq.display()), &NaqConfig::default()).await.jobs().storage().close().await;
    for (path, kind) in [
        (&text, StorageErrorKind::Incompatible),
        (&naq, StorageErrorKind::Incompatible),
        (&none, StorageErrorKind::Unreachable),
        (&dir.path().to_owned(), StorageErrorKind::Incompatible),
    ] {
        let url = StoreUrl::Sqlite { path: path.clone() };
        let opened = ForeignStore::open(ForeignSystem::OmniQ, &url, &NaqConfig::default()).await;
        assert_eq!(opened.unwrap_err().kind(), ForeignErrorKind::Source(kind), "{}", path.display());
    }
    assert!(!none.exists());
}
