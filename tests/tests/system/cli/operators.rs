//! What an operator sees and does: workers, queues, dead letters.

use std::fs;

use anyhow::Result;
use naq_tests::{Signal, eventually};
use serde_json::{Value, json};

use super::{assert_fields, assert_time};
use crate::{
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, envelope, on_every_store, with},
};

on_every_store!(
    workers_are_listed_with_what_they_run,
    queues_are_counted_paused_and_resumed,
    dead_letters_are_shown_retried_and_purged,
    queues_are_served_in_order_or_by_weight
);

async fn workers_are_listed_with_what_they_run(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    assert_eq!(site.json(&["worker", "list"]).await?, json!([]));
    let log = RunLog::at(site.path("runs"));
    let worker = site.worker("w1", &["mail:3", "default", "--concurrency", "7"]).await?;
    let args = json!({"file": log.path(), "until": site.path("release")});
    site.enqueue("t.log_sleep", &args, &["--job-id", "long"]).await?;
    log.wait("start", 1, None, COMMAND_LIMIT).await?;
    let busy = eventually(COMMAND_LIMIT, "the worker says that it runs a job", async || {
        let workers = site.json(&["worker", "status"]).await.ok()?;
        (workers[0]["running_count"] == 1).then(|| workers[0].clone())
    });
    let busy = busy.await?;
    assert_eq!((&busy["name"], &busy["pid"], &busy["concurrency"]), (&json!("w1"), &json!(worker.pid()), &json!(7)));
    assert_eq!(busy["queues"][0], "mail:3", "{busy}");
    assert_eq!(busy["running"][0]["id"], "long", "{busy}");
    assert_time(&busy["started_at"]);
    let listed = site.json(&["worker", "list"]).await?;
    assert_eq!(listed[0]["id"], busy["id"]);
    assert_eq!(site.json(&["job", "status", "long"]).await?["worker_id"], busy["id"]);

    fs::write(site.path("release"), "")?;
    site.drained("default", COMMAND_LIMIT).await?;
    worker.signal(Signal::TERM)?;
    assert_eq!(worker.wait(COMMAND_LIMIT).await?.code(), Some(0));
    assert_eq!(site.json(&["worker", "list"]).await?, json!([]), "a worker that stops leaves the list at once");
    Ok(())
}

async fn queues_are_counted_paused_and_resumed(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    assert_eq!(site.json(&["queue", "list"]).await?, json!([]));
    let _worker = site.worker("only", &["mail", "default"]).await?;
    let change = |paused: bool, changed: bool| json!({"queue": "mail", "paused": paused, "changed": changed});
    assert_eq!(site.json(&["queue", "pause", "mail"]).await?, change(true, true));
    assert_eq!(site.json(&["queue", "pause", "mail"]).await?, change(true, false));
    let jobs = (0..8).map(|n| {
        let job = envelope(format!("job-{n}"), "t.count", json!({"file": log.path()}));
        with(job, json!({"queue": "mail", "priority": n % 4}))
    });
    site.enqueue_all(jobs).await?;
    // A job of the other queue, enqueued later, shows that the worker works.
    site.json(&["job", "enqueue", "naq.echo", "--wait", "20s"]).await?;
    // What a pull that was open before the pause has brought goes back.
    let back = eventually(COMMAND_LIMIT, "all jobs of the paused queue are pending", async || {
        let numbers = site.queue("mail").await.ok()?;
        (numbers["pending"] == 8).then_some(numbers)
    });
    let numbers = back.await?;
    let fields = [
        "queue",
        "paused",
        "pending",
        "pending_by_priority",
        "running",
        "scheduled",
        "retry",
        "waiting",
        "failed",
        "oldest_pending",
    ];
    assert_fields(&numbers, &fields);
    assert_eq!((&numbers["paused"], &numbers["running"]), (&json!(true), &json!(0)), "{numbers}");
    assert_eq!(numbers["pending_by_priority"], json!([2, 2, 2, 2]));
    assert_time(&numbers["oldest_pending"]);
    assert_eq!(log.lines()?.len(), 0, "a job of a paused queue ran");
    let list = site.json(&["queue", "list"]).await?;
    let names: Vec<&Value> = list.as_array().into_iter().flatten().map(|queue| &queue["queue"]).collect();
    assert_eq!(names, ["default", "mail"]);

    assert_eq!(site.json(&["queue", "resume", "mail"]).await?, change(false, true));
    log.wait("end", 8, None, COMMAND_LIMIT).await?;
    site.drained("mail", COMMAND_LIMIT).await?;
    assert_eq!(site.json(&["queue", "resume", "mail"]).await?, change(false, false));
    site.enqueue("naq.echo", &json!({}), &["--queue", "unserved"]).await?;
    let purged = site.json(&["queue", "purge", "unserved", "--yes"]).await?;
    assert_eq!(purged, json!({"queue": "unserved", "purged": 1}));
    Ok(())
}

async fn dead_letters_are_shown_retried_and_purged(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let dead = (0..6).map(|n| {
        let job = envelope(format!("dead-{n}"), "t.second_life", json!({}));
        with(job, json!({"queue": if n < 4 { "default" } else { "other" }, "x-unknown": [n]}))
    });
    site.enqueue_all(dead).await?;
    site.burst(&["default", "other"], COMMAND_LIMIT).await?;
    let letters = site.json(&["dead", "list"]).await?;
    assert_eq!(letters.as_array().map(Vec::len), Some(6));
    assert_fields(&letters[0], &["job_id", "kind", "queue", "attempt", "failed_at", "error", "size"]);
    let listed = site.json(&["dead", "list", "--queue", "other", "--limit", "1"]).await?;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    let shown = site.json(&["dead", "show", "dead-5"]).await?;
    assert_eq!((&shown["kind"], &shown["queue"]), (&json!("t.second_life"), &json!("other")));
    assert_time(&shown["failed_at"]);
    let body: Value = serde_json::from_str(shown["body"].as_str().unwrap_or_default())?;
    assert_eq!((&body["id"], &body["x-unknown"]), (&json!("dead-5"), &json!([5])), "a field that nobody knows is kept");

    let retried = site.json(&["dead", "retry", "dead-0"]).await?;
    assert_eq!(retried, json!({"job_id": "dead-0", "queue": "default", "status": "pending", "duplicate": false}));
    assert_eq!(
        site.json(&["dead", "retry", "--all", "--queue", "default"]).await?,
        json!({"retried": 3, "refused": 0})
    );
    site.burst(&["default", "other"], COMMAND_LIMIT).await?;
    assert_eq!(site.ids("default", "completed").await?, ["dead-0", "dead-1", "dead-2", "dead-3"]);
    assert_eq!(site.json(&["job", "result", "dead-0"]).await?["result"], "alive");

    assert_eq!(site.run(&["dead", "purge"]).await?.code(), Some(2), "it needs --yes");
    assert_eq!(site.json(&["dead", "purge", "--queue", "default", "--yes"]).await?, json!({"purged": 0}));
    assert_eq!(site.json(&["dead", "purge", "--yes"]).await?, json!({"purged": 2}));
    assert_eq!(site.json(&["dead", "list"]).await?, json!([]));
    assert_eq!(site.run(&["dead", "retry", "dead-5"]).await?.code(), Some(3));
    Ok(())
}

async fn queues_are_served_in_order_or_by_weight(backend: Backend) -> Result<()> {
    let mut site = Site::start(backend).await?;
    site.set("NAQ_QUEUES__ACK_WAIT", "30s");
    let log = RunLog::at(site.path("runs"));
    let fill = async |prefix: &str, count: usize| {
        let jobs = ["second", "first"].into_iter().flat_map(|queue| (0..count).map(move |n| (queue, n)));
        let jobs = jobs.map(|(queue, n)| {
            let job = envelope(format!("{prefix}-{queue}-{n:03}"), "t.count", json!({"file": log.path()}));
            with(job, json!({"queue": queue}))
        });
        site.enqueue_all(jobs).await
    };
    fill("strict", 40).await?;
    site.burst(&["first", "second", "--concurrency", "1"], COMMAND_LIMIT).await?;
    let order: Vec<bool> = log.said("end")?.iter().map(|line| line.id.contains("first")).collect();
    assert_eq!(order.len(), 80);
    assert!(order[..40].iter().all(|first| *first), "the first queue comes first: {order:?}");

    fill("shared", 60).await?;
    site.burst(&["first:3", "second:1", "--concurrency", "1"], COMMAND_LIMIT).await?;
    let order: Vec<bool> = log.said("end")?[80..].iter().map(|line| line.id.contains("first")).collect();
    let early = order[..60].iter().filter(|first| **first).count();
    assert!((38..=52).contains(&early), "3:1 of the first 60 jobs is 45, not {early}: {order:?}");
    Ok(())
}
