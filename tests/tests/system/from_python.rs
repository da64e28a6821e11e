//! `naq system migrate --from-system …`: what Python has queued is run by a stock worker of naq; what cannot be read stays.
//!
//! What each record becomes is tested in naq-services (`tests/foreign`); here is the command.

use anyhow::Result;
use naq_tests::{NaqBinary, ServerVersion};
use serde_json::json;

use crate::{
    python,
    run_log::RunLog,
    site::{Backend, Site, WORKER_LIMIT, on_every_server},
};

on_every_server!(jobs_of_the_python_naq_run_here, each_runs_once_though_the_command_is_killed_after_each_write);

const QUEUED: &str = r#"
import asyncio, json, pickle, sys
import nats
from nats.js.api import RetentionPolicy, StorageType

async def main(url):
    client = await nats.connect(url)
    js = client.jetstream()
    await js.add_stream(name="naq_jobs", subjects=["naq.queue.*"], storage=StorageType.FILE, retention=RetentionPolicy.WORK_QUEUE)
    job = {"job_id": "from-python", "enqueue_time": 0.0, "function": "mails:send_mail", "args": ["a@b.c", 2], "kwargs": {},
        "max_retries": 0, "retry_delay": 0, "queue_name": "default"}
    await js.publish("naq.queue.default", json.dumps(job).encode())
    await js.publish("naq.queue.default", pickle.dumps(job, protocol=5))
    await client.close()

asyncio.run(main(sys.argv[1]))
"#;

async fn jobs_of_the_python_naq_run_here(version: ServerVersion) -> Result<()> {
    let server = Site::start(Backend::Nats(version)).await?;
    python::run_with_modules(server.dir(), QUEUED, &[&server.url]).await?;
    let site = server.beside("naq2")?;
    let migrate = async |more: &[&str]| {
        let url = site.url.as_str();
        let command =
            ["system", "migrate", "--from-system", "naq-python", "--from", url, "--to", url, "--output", "json"];
        let kind = ["--kind", "mails:send_mail=naq.echo"];
        site.naq()?.run(&[&command, &kind[..], more].concat(), WORKER_LIMIT).await
    };
    assert_eq!(migrate(&["--to-prefix", "naq"]).await?.code(), Some(1), "under NAQ's own names");
    let foreseen = migrate(&["--dry-run"]).await?;
    assert_eq!((foreseen.code(), &foreseen.json()?["pending"]), (Some(0), &json!(1)), "{foreseen:?}");
    let moved = migrate(&[]).await?;
    assert_eq!(moved.code(), Some(1), "something stays there: {moved:?}");
    let report = moved.json()?;
    assert_eq!((&report["dry_run"], &report["pending"]), (&json!(false), &json!(1)));
    let left = &report["left"][0];
    assert_eq!((&left["reason"], &left["count"]), (&json!("not_json"), &json!(1)), "{report}");
    assert_eq!(left["examples"][0]["place"], "naq_jobs 2");
    site.burst(&[], WORKER_LIMIT).await?;
    assert_eq!(site.json(&["job", "result", "from-python"]).await?["result"], json!(["a@b.c", 2]));
    assert_eq!(migrate(&[]).await?.json()?["left"][0]["count"], json!(1), "it is still there");
    Ok(())
}

const COUNTED: &str = r#"
import asyncio, json, pickle, sys, time
import nats
from nats.js.api import RetentionPolicy, StorageType

async def main(url, log):
    client = await nats.connect(url)
    js = client.jetstream()
    await js.add_stream(name="naq_jobs", subjects=["naq.queue.*"], storage=StorageType.FILE, retention=RetentionPolicy.WORK_QUEUE)
    kv = await js.create_key_value(bucket="naq_scheduled_jobs")
    job = lambda id: json.dumps({"job_id": id, "function": "t.count", "args": [], "kwargs": {"file": log}, "queue_name": "default"}).encode()
    for number in range(5):
        await js.publish("naq.queue.default", job(f"job-{number}"))
    await kv.put("beat", pickle.dumps({"job_id": "beat", "status": "active", "cron": None, "interval_seconds": 86400.0, "repeat": None,
        "next_run_utc": time.time() - 60, "_orig_job_payload": job("beat")}, protocol=5))
    await client.close()

asyncio.run(main(*sys.argv[1:]))
"#;

async fn each_runs_once_though_the_command_is_killed_after_each_write(version: ServerVersion) -> Result<()> {
    let (server, site) = (Site::start(Backend::Nats(version)).await?, Site::start(Backend::Sqlite).await?);
    let log = RunLog::at(site.path("runs"));
    python::run_with_modules(site.dir(), COUNTED, &[&server.url, &log.path().to_string_lossy()]).await?;
    let command = [
        "system",
        "migrate",
        "--from-system",
        "naq-python",
        "--from",
        &server.url,
        "--to",
        &site.url,
        "--output",
        "json",
    ];
    let migrate = async |binary: NaqBinary| binary.run(&command, WORKER_LIMIT).await;
    // The record of the recurring job comes first, in a page of its own.
    for point in ["foreign.overdue", "foreign.stored", "foreign.removed", "foreign.stored"] {
        let killed = migrate(site.test_worker().env("NAQ_TEST_CRASH", format!("{point}:1"))).await?;
        assert_eq!(killed.code(), None, "nothing died at {point}: {killed:?}");
        // What is here runs before the command is called again.
        site.burst(&[], WORKER_LIMIT).await?;
    }
    let last = migrate(site.test_worker()).await?;
    assert_eq!((last.code(), &last.json()?["already_here"]), (Some(0), &json!(5)), "{last:?}");
    site.burst(&[], WORKER_LIMIT).await?;
    let runs = log.counts("end")?;
    assert!(runs.len() == 6 && runs.values().all(|count| *count == 1), "{runs:?}");
    assert!(runs.keys().any(|id| id.starts_with("beat_")), "the run that was overdue: {runs:?}");
    let beat = site.json(&["scheduler", "show", "beat"]).await?;
    assert_eq!(beat["status"], "active", "{beat}");
    let nothing = migrate(site.test_worker()).await?;
    assert_eq!((nothing.code(), &nothing.json()?["already_here"]), (Some(0), &json!(0)), "{nothing:?}");
    Ok(())
}

const TASKS: &str = r#"
import json, os, sys
os.makedirs("tasks/queue")
task = {"id": "5b6f5d1a-2b3c-4d5e-8f90-a1b2c3d4e5f6", "func_path": "mails.send_mail", "args": [], "kwargs": {"to": "a@b.c"}, "status": "PENDING",
    "schedule": {}, "max_retries": 3, "timeout": None, "attempts": 0, "created_at": "2026-11-22T10:00:00Z",
    "updated_at": "2026-11-22T10:00:00Z", "last_attempt_at": None}
with open("tasks/queue/" + task["id"] + ".task", "w") as file:
    json.dump(task, file)
"#;

#[tokio::test]
async fn tasks_of_omniq_run_here() -> Result<()> {
    let site = Site::start(Backend::Sqlite).await?;
    python::run(site.dir(), TASKS, &[]).await?;
    let tasks = format!("sqlite:{}", site.path("tasks").display());
    let migrate =
        ["system", "migrate", "--from-system", "omniq", "--from", &tasks, "--to", &site.url, "--output", "json"];
    let foreseen = site.naq()?.run(&[&migrate[..], &["--dry-run"]].concat(), WORKER_LIMIT).await?;
    assert_eq!((foreseen.code(), &foreseen.json()?["pending"]), (Some(0), &json!(1)), "{foreseen:?}");
    assert!(!site.path("jobs.db").exists(), "to look makes nothing");
    let moved =
        site.naq()?.run(&[&migrate[..], &["--kind", "mails.send_mail=naq.echo"]].concat(), WORKER_LIMIT).await?;
    assert_eq!((moved.code(), &moved.json()?["pending"]), (Some(0), &json!(1)), "{moved:?}");
    site.burst(&[], WORKER_LIMIT).await?;
    let result = site.json(&["job", "result", "5b6f5d1a-2b3c-4d5e-8f90-a1b2c3d4e5f6"]).await?;
    assert_eq!(result["result"], json!({"to": "a@b.c"}));
    // `--kind` renames functions, which a store of naq does not have.
    let senseless = site
        .naq()?
        .run(&["system", "migrate", "--from", &tasks, "--to", &site.url, "--kind", "a=b"], WORKER_LIMIT)
        .await?;
    assert_eq!(senseless.code(), Some(2));
    Ok(())
}
