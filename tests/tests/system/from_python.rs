//! `naq system migrate --from-system …`: what Python has queued is run by a stock worker of naq; what cannot be read stays.
//!
//! What each record becomes is tested in naq-services (`tests/foreign`); here is the command.

use anyhow::Result;
use naq_tests::ServerVersion;
use serde_json::json;

use crate::{
    python,
    site::{Backend, Site, WORKER_LIMIT, on_every_server},
};

on_every_server!(jobs_of_the_python_naq_run_here);

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
