//! Unique jobs from the command line: one job to a key, in receipts, exit codes and bulk files, and while a worker runs it.

use std::fs;

use anyhow::Result;
use naq_tests::ServerVersion;
use serde_json::{Value, json};

use crate::{
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, anonymous, envelope, on_every_server, on_every_store, with},
};

on_every_store!(
    the_job_that_has_the_key_answers_or_is_replaced,
    a_bulk_file_stores_each_key_once,
    a_running_job_has_its_key_unless_it_was_for_the_start,
    a_job_that_waits_for_others_has_its_key
);
on_every_server!(a_job_that_was_stored_without_its_key_does_not_run);

async fn enqueue(site: &Site, id: &str, flags: &[&str]) -> Result<Value> {
    site.json(&[&["job", "enqueue", "naq.echo", "--job-id", id, "--unique-key", "order 17"], flags].concat()).await
}

async fn the_job_that_has_the_key_answers_or_is_replaced(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let first = json!({"job_id": "first", "queue": "default", "status": "scheduled", "duplicate": false});
    assert_eq!(enqueue(&site, "first", &["--delay", "1h"]).await?, first);
    let answer = json!({"job_id": "first", "queue": "default", "status": "scheduled", "duplicate": true});
    assert_eq!(enqueue(&site, "second", &[]).await?, answer);
    assert_eq!(enqueue(&site, "second", &["--queue", "other", "--on-conflict", "existing"]).await?, answer);

    let flags = ["job", "enqueue", "naq.echo", "--unique-key", "order 17", "--on-conflict", "error"];
    let refused = site.run(&flags).await?;
    assert_eq!(refused.code(), Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("first"), "{refused:#?}");

    let replacing = enqueue(&site, "second", &["--on-conflict", "replace"]).await?;
    assert_eq!((&replacing["job_id"], &replacing["duplicate"]), (&json!("second"), &json!(false)));
    let replaced = site.json(&["job", "status", "first"]).await?;
    assert_eq!((&replaced["status"], &replaced["error"]["error_type"]), (&json!("cancelled"), &json!("replaced")));
    assert!(replaced["error"]["message"].as_str().unwrap_or_default().contains("second"), "{replaced}");
    site.burst(&[], COMMAND_LIMIT).await?;
    assert_eq!(site.json(&["job", "status", "second"]).await?["status"], "completed");

    let timed = enqueue(&site, "third", &["--unique-ttl", "1h"]).await?;
    assert_eq!(timed["duplicate"], false, "the end of a job frees its key");
    site.burst(&[], COMMAND_LIMIT).await?;
    let answer = json!({"job_id": "third", "queue": "default", "status": "completed", "duplicate": true});
    assert_eq!(enqueue(&site, "fourth", &[]).await?, answer, "a key for a time outlives its job");

    for flags in [
        ["--unique-while", "pending"],
        ["--unique-ttl", "5s"],
        ["--on-conflict", "replace"],
        ["--unique-key", ""],
        ["--unique-key=k", "--unique-while=ttl"],
        ["--unique-key=k", "--unique-while=never"],
        ["--unique-key=k", "--on-conflict=ignore"],
    ] {
        let refused = site.run(&[&["job", "enqueue", "naq.echo"], &flags[..]].concat()).await?;
        assert_eq!(refused.code(), Some(2), "{flags:?}: {refused:#?}");
    }
    Ok(())
}

async fn a_bulk_file_stores_each_key_once(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let keyed = |n: usize| {
        let unique = json!({"unique": {"key": format!("k{}", n % 10)}});
        format!("{}\n", with(anonymous("naq.echo", json!({"n": n})), unique))
    };
    let file = site.path("jobs.jsonl");
    fs::write(&file, (0..40).map(keyed).collect::<String>() + &anonymous("naq.echo", json!({})).to_string())?;
    let path = file.to_string_lossy();
    let from = ["job", "enqueue", "--from", &path];
    assert_eq!(site.json(&from).await?, json!({"enqueued": 11, "duplicates": 30, "failed": 0}));
    let refused = site.run(&[&from[..], &["--on-conflict", "error"]].concat()).await?;
    assert_eq!(refused.code(), Some(1), "{refused:#?}");
    assert_eq!(refused.json()?, json!({"enqueued": 1, "duplicates": 0, "failed": 40}));
    let replaced = site.json(&[&from[..], &["--on-conflict", "replace"]].concat()).await?;
    assert_eq!(replaced, json!({"enqueued": 41, "duplicates": 0, "failed": 0}));
    assert_eq!(site.queue("default").await?["pending"], 13, "ten keys and three jobs without one");
    site.burst(&[], COMMAND_LIMIT).await?;
    assert_eq!(site.ids("default", "completed").await?.len(), 13);
    assert_eq!(site.ids("default", "cancelled").await?.len(), 40);
    Ok(())
}

async fn a_running_job_has_its_key_unless_it_was_for_the_start(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let (log, release) = (RunLog::at(site.path("runs")), site.path("release"));
    let args = json!({"file": log.path(), "until": release}).to_string();
    let enqueue = async |id: &str, key: &str, holds: &str, answer: &str| {
        let job = ["job", "enqueue", "t.log_sleep", "--args", &args, "--job-id", id];
        let flags = ["--unique-key", key, "--unique-while", holds, "--on-conflict", answer];
        site.json(&[&job[..], &flags[..]].concat()).await
    };
    let _worker = site.worker("w", &["--concurrency", "8"]).await?;
    enqueue("active", "a", "active", "existing").await?;
    enqueue("started", "b", "pending", "existing").await?;
    log.wait("start", 2, None, COMMAND_LIMIT).await?;
    for answer in ["existing", "replace"] {
        let receipt = enqueue("other", "a", "active", answer).await?;
        assert_eq!((&receipt["job_id"], &receipt["status"]), (&json!("active"), &json!("running")), "{answer}");
    }
    assert_eq!(enqueue("next", "b", "pending", "error").await?["duplicate"], false, "the first has started");
    log.wait("start", 3, None, COMMAND_LIMIT).await?;
    fs::write(&release, "")?;
    site.drained("default", COMMAND_LIMIT).await?;
    assert_eq!(enqueue("other", "a", "active", "error").await?["duplicate"], false);
    site.drained("default", COMMAND_LIMIT).await?;
    assert_eq!(site.ids("default", "completed").await?, ["active", "next", "other", "started"]);
    Ok(())
}

async fn a_job_that_waits_for_others_has_its_key(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    site.enqueue("t.fail", &json!({"times": 9}), &["--job-id", "bad", "--max-retries", "0"]).await?;
    assert_eq!(enqueue(&site, "waits", &["--depends-on", "bad"]).await?["status"], "waiting");
    let answer = json!({"job_id": "waits", "queue": "default", "status": "waiting", "duplicate": true});
    assert_eq!(enqueue(&site, "next", &[]).await?, answer);
    site.burst(&[], COMMAND_LIMIT).await?;
    let waits = site.json(&["job", "status", "waits"]).await?;
    assert_eq!((&waits["status"], &waits["error"]["error_type"]), (&json!("cancelled"), &json!("dependency_failed")));
    assert_eq!(enqueue(&site, "next", &["--on-conflict", "error"]).await?["duplicate"], false);
    Ok(())
}

/// What a producer in another language does that writes the envelope and does not take the key.
async fn a_job_that_was_stored_without_its_key_does_not_run(version: ServerVersion) -> Result<()> {
    let site = Site::start(Backend::Nats(version)).await?;
    enqueue(&site, "owner", &["--delay", "1h"]).await?;
    site.enqueue("naq.noop", &json!({}), &[]).await?;
    let intruder = with(envelope("intruder", "naq.echo", json!({})), json!({"unique": {"key": "order 17"}}));
    let ack = site.raw().await?.request_json("naq.queue.default.2.intruder", &intruder).await?;
    assert_eq!(ack["stream"], "naq_queue_default", "{ack}");
    site.burst(&[], COMMAND_LIMIT).await?;
    let status = site.json(&["job", "status", "intruder"]).await?;
    assert_eq!((&status["status"], &status["error"]["error_type"]), (&json!("cancelled"), &json!("replaced")));
    assert_eq!(site.json(&["job", "status", "owner"]).await?["status"], "scheduled");
    Ok(())
}
