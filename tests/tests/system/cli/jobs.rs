//! `naq job …`: enqueue, status, result, cancel, retry, reschedule, list, purge; and two processes on one store.

use std::time::Duration;

use anyhow::Result;
use naq_tests::{Finished, Signal, eventually};
use serde_json::{Value, json};

use super::{assert_fields, assert_time};
use crate::{
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, envelope, on_every_store},
};

on_every_store!(
    a_job_from_enqueue_to_result,
    waiting_prints_the_result_and_tells_by_its_exit_code,
    a_failing_job_is_tried_again_and_then_a_dead_letter,
    a_delayed_job_is_scheduled_moved_and_run_in_time,
    a_pending_and_a_running_job_are_cancelled,
    ids_are_taken_once,
    lists_filter_and_purge_empties,
    a_job_of_an_unknown_kind_waits_for_a_worker_that_knows_it,
    usage_errors_exit_with_2_and_unknown_ids_with_3
);

const STATUS_FIELDS: [&str; 11] = [
    "job_id",
    "kind",
    "queue",
    "status",
    "attempt",
    "enqueued_at",
    "run_at",
    "started_at",
    "finished_at",
    "worker_id",
    "error",
];
const RESULT_FIELDS: [&str; 4] = ["job_id", "status", "result", "error"];
const ERROR_FIELDS: [&str; 6] = ["error_type", "message", "backtrace", "retry_count", "is_retryable", "timestamp"];

async fn a_job_from_enqueue_to_result(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let receipt = site.json(&["job", "enqueue", "naq.echo", "--args", r#"{"hello":"wörld"}"#, "--meta", "a=b"]).await?;
    assert_fields(&receipt, &["job_id", "queue", "status", "duplicate"]);
    let id = receipt["job_id"].as_str().unwrap_or_default();
    assert_eq!((id.len(), &receipt["queue"]), (32, &json!("default")));
    assert_eq!((&receipt["status"], &receipt["duplicate"]), (&json!("pending"), &json!(false)));

    let status = site.json(&["job", "status", id]).await?;
    assert_fields(&status, &STATUS_FIELDS);
    assert_time(&status["enqueued_at"]);
    let known = json!({"job_id": id, "kind": "naq.echo", "queue": "default", "status": "pending", "attempt": 1,
        "enqueued_at": status["enqueued_at"], "run_at": null, "started_at": null, "finished_at": null,
        "worker_id": null, "error": null});
    assert_eq!(status, known);
    let unfinished = site.run(&["job", "result", id]).await?;
    assert_eq!(unfinished.code(), Some(5), "{unfinished:#?}");
    assert_eq!(unfinished.json()?, json!({"job_id": id, "status": "pending", "result": null, "error": null}));

    let worker = site.worker_of(&site.naq()?, "stock", &[]).await?;
    let result = site.json(&["job", "result", id, "--wait", "20s"]).await?;
    assert_eq!(result, json!({"job_id": id, "status": "completed", "result": {"hello": "wörld"}, "error": null}));
    let status = site.json(&["job", "status", id]).await?;
    assert_fields(&status, &STATUS_FIELDS);
    for time in ["enqueued_at", "started_at", "finished_at"] {
        assert_time(&status[time]);
    }
    assert_eq!(status["status"], "completed");
    assert!(status["worker_id"].is_string(), "{status}");
    worker.signal(Signal::TERM)?;
    assert_eq!(worker.wait(COMMAND_LIMIT).await?.code(), Some(0));
    Ok(())
}

async fn waiting_prints_the_result_and_tells_by_its_exit_code(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let _worker = site.worker("only", &["default"]).await?;
    let wait = async |args: &[&str]| site.run(&[&["job", "enqueue"], args].concat()).await;

    let done = wait(&["naq.echo", "--args", "[1,2]", "--wait"]).await?;
    assert_eq!(done.code(), Some(0), "{done:#?}");
    assert_fields(&done.json()?, &RESULT_FIELDS);
    assert_eq!((&done.json()?["status"], &done.json()?["result"]), (&json!("completed"), &json!([1, 2])));
    let failed = wait(&["t.fail", "--args", r#"{"times":9}"#, "--max-retries", "0", "--wait", "20s"]).await?;
    assert_eq!(failed.code(), Some(1), "{failed:#?}");
    let said = failed.json()?;
    assert_fields(&said, &RESULT_FIELDS);
    assert_fields(&said["error"], &ERROR_FIELDS);
    assert_eq!((&said["status"], &said["error"]["error_type"]), (&json!("failed"), &json!("boom")));
    let late = wait(&["naq.sleep", "--args", r#"{"seconds":30}"#, "--wait", "300ms"]).await?;
    assert_eq!(late.code(), Some(5), "{late:#?}");
    let nobody = wait(&["naq.echo", "--queue", "nobody", "--wait", "300ms"]).await?;
    assert_eq!(nobody.code(), Some(5), "{nobody:#?}");
    let refused = wait(&["naq.echo", "--result-ttl", "0", "--wait"]).await?;
    assert!(refused.code().is_some_and(|code| code == 1 || code == 2), "{refused:#?}");
    assert!(refused.stderr.contains("no_result_kept"), "{}", refused.stderr);

    let table = site.naq()?.run(&["job", "enqueue", "naq.echo", "--args", "[3]", "--wait"], COMMAND_LIMIT).await?;
    assert_eq!((table.code(), table.stdout.trim()), (Some(0), "[3]"), "{table:#?}");
    Ok(())
}

async fn a_failing_job_is_tried_again_and_then_a_dead_letter(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let _worker = site.worker("only", &[]).await?;
    let flags = ["--max-retries", "2", "--retry-delay", "100ms,200ms", "--job-id"];
    site.enqueue("t.fail", &json!({"times": 2}), &[&flags[..], &["recovers"]].concat()).await?;
    site.enqueue("t.fail", &json!({"times": 9}), &[&flags[..], &["gives-up"]].concat()).await?;
    let recovered = site.json(&["job", "result", "recovers", "--wait", "20s"]).await?;
    assert_eq!(recovered["result"], 3, "it worked on the third attempt");
    let dead = site.run(&["job", "result", "gives-up", "--wait", "20s"]).await?;
    assert_eq!(dead.code(), Some(1));
    assert_eq!(dead.json()?["error"]["retry_count"], 2);
    let status = site.json(&["job", "status", "gives-up"]).await?;
    assert_eq!((&status["status"], &status["attempt"]), (&json!("failed"), &json!(3)));

    site.enqueue("t.fail", &json!({"times": 9}), &["--retry-delay", "1h", "--job-id", "waits"]).await?;
    let waiting = eventually(COMMAND_LIMIT, "the job waits for its second attempt", async || {
        let status = site.json(&["job", "status", "waits"]).await.ok()?;
        (status["status"] == "retry").then_some(status)
    });
    let waiting = waiting.await?;
    assert_eq!((&waiting["attempt"], &waiting["error"]["error_type"]), (&json!(2), &json!("boom")));
    assert_time(&waiting["run_at"]);
    assert_eq!(site.queue("default").await?["retry"], 1);
    Ok(())
}

async fn a_delayed_job_is_scheduled_moved_and_run_in_time(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    let args = json!({"file": log.path()});
    let args = args.to_string();
    let receipt =
        site.json(&["job", "enqueue", "t.count", "--args", &args, "--delay", "1h", "--job-id", "later"]).await?;
    assert_eq!(receipt["status"], "scheduled");
    let status = site.json(&["job", "status", "later"]).await?;
    assert_eq!(status["status"], "scheduled");
    assert_time(&status["run_at"]);
    let _worker = site.worker("only", &[]).await?;
    // Wait for a leader, so that what is measured is the firing.
    site.json(&["job", "enqueue", "naq.noop", "--delay", "1ms", "--wait", "20s"]).await?;
    let moved = site.json(&["job", "reschedule", "later", "--delay", "500ms"]).await?;
    assert_fields(&moved, &["job_id", "queue", "status", "duplicate"]);
    site.json(&["job", "result", "later", "--wait", "5s"]).await?;
    assert_eq!(log.said("end")?.len(), 1);
    let status = site.json(&["job", "status", "later"]).await?;
    assert!(status["started_at"].as_str() >= status["run_at"].as_str(), "it ran too early: {status}");

    let conflict = site.run(&["job", "reschedule", "later", "--delay", "1s"]).await?;
    assert_eq!(conflict.code(), Some(1), "{conflict:#?}");
    let at = site.json(&["job", "enqueue", "naq.noop", "--at", "2020-01-01T00:00:00Z", "--wait", "20s"]).await?;
    assert_eq!(at["status"], "completed", "a time that has passed means now");
    Ok(())
}

async fn a_pending_and_a_running_job_are_cancelled(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    site.enqueue("naq.echo", &json!({}), &["--queue", "parked", "--job-id", "pending"]).await?;
    let cancelled = site.json(&["job", "cancel", "pending", "--reason", "not needed"]).await?;
    assert_eq!(cancelled, json!({"job_id": "pending", "outcome": "cancelled", "was": "pending"}));
    let result = site.run(&["job", "result", "pending"]).await?;
    assert_eq!(result.code(), Some(1));
    let error = &result.json()?["error"];
    assert_eq!((&error["error_type"], &error["message"]), (&json!("cancelled"), &json!("not needed")));
    assert_eq!(site.queue("parked").await?["pending"], 0);
    assert_eq!(site.run(&["job", "cancel", "pending"]).await?.code(), Some(1), "it had ended before");

    let worker = site.worker("only", &[]).await?;
    let args = json!({"file": log.path(), "until": site.path("never")});
    site.enqueue("t.log_sleep", &args, &["--job-id", "running"]).await?;
    log.wait("start", 1, None, COMMAND_LIMIT).await?;
    let running = site.json(&["job", "status", "running"]).await?;
    assert_eq!(running["status"], "running");
    assert_time(&running["started_at"]);
    assert!(running["worker_id"].is_string(), "{running}");
    let cancelled = site.json(&["job", "cancel", "running"]).await?;
    assert_eq!(cancelled["was"], "running");
    log.wait("stop", 1, Some(worker.pid()), Duration::from_secs(5)).await?;
    assert_eq!(site.json(&["job", "status", "running"]).await?["status"], "cancelled");
    site.drained("default", COMMAND_LIMIT).await?;

    // A cancelled job can be brought back by hand.
    std::fs::write(site.path("never"), "")?;
    site.json(&["job", "retry", "running"]).await?;
    let result = site.json(&["job", "result", "running", "--wait", "20s"]).await?;
    assert_eq!(result["status"], "completed");
    Ok(())
}

async fn ids_are_taken_once(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let enqueue =
        async |queue: &str| site.json(&["job", "enqueue", "naq.echo", "--job-id", "mine", "--queue", queue]).await;
    assert_eq!(
        enqueue("one").await?,
        json!({"job_id": "mine", "queue": "one", "status": "pending", "duplicate": false})
    );
    let again = json!({"job_id": "mine", "queue": "one", "status": "pending", "duplicate": true});
    assert_eq!(enqueue("one").await?, again);
    assert_eq!(enqueue("two").await?, again, "ids are unique across queues");
    site.burst(&["one", "two"], COMMAND_LIMIT).await?;
    let ended = json!({"job_id": "mine", "queue": "one", "status": "completed", "duplicate": true});
    assert_eq!(enqueue("two").await?, ended, "its result is kept");
    assert_eq!(site.queue("two").await?["pending"], 0);
    Ok(())
}

async fn lists_filter_and_purge_empties(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let many =
        (0..30).map(|n| envelope(format!("job-{n:02}"), if n % 3 == 0 { "naq.noop" } else { "naq.echo" }, json!({})));
    site.enqueue_all(many).await?;
    site.enqueue("naq.echo", &json!({}), &["--queue", "other", "--delay", "1h", "--job-id", "late"]).await?;
    let list = async |flags: &[&str]| -> Result<usize> {
        let jobs = site.json(&[&["job", "list"], flags].concat()).await?;
        jobs.as_array().into_iter().flatten().for_each(|job| assert_fields(job, &STATUS_FIELDS));
        Ok(jobs.as_array().map_or(0, Vec::len))
    };
    assert_eq!(list(&[]).await?, 31);
    assert_eq!(list(&["--queue", "default"]).await?, 30);
    assert_eq!(list(&["--status", "scheduled"]).await?, 1);
    assert_eq!(list(&["--status", "scheduled", "--status", "pending"]).await?, 31);
    assert_eq!(list(&["--kind", "naq.noop"]).await?, 10);
    assert_eq!(list(&["--kind", "naq.noop", "--limit", "4"]).await?, 4);
    assert_eq!(list(&["--queue", "unknown"]).await?, 0);

    assert_eq!(site.run(&["job", "purge", "default"]).await?.code(), Some(2), "it needs --yes");
    assert_eq!(site.json(&["job", "purge", "default", "--yes"]).await?, json!({"queue": "default", "purged": 30}));
    let cancelled = site.jobs("default", "cancelled").await?;
    assert_eq!(cancelled.len(), 30);
    assert!(cancelled.iter().all(|job| job["error"]["error_type"] == "purged"), "{:?}", cancelled.first());
    assert_eq!(site.queue("default").await?["pending"], 0);
    assert_eq!(list(&["--status", "scheduled"]).await?, 1, "the other queue is not touched");
    Ok(())
}

async fn a_job_of_an_unknown_kind_waits_for_a_worker_that_knows_it(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let stock = site.worker_of(&site.naq()?, "stock", &[]).await?;
    site.enqueue("t.big_result", &json!({"bytes": 3}), &["--job-id", "strange"]).await?;
    let waiting = eventually(COMMAND_LIMIT, "the stock worker puts it back", async || {
        let status = site.json(&["job", "status", "strange"]).await.ok()?;
        (status["error"]["error_type"] == "unknown_kind").then_some(status)
    });
    let waiting = waiting.await?;
    assert_eq!(
        (&waiting["status"], &waiting["attempt"]),
        (&json!("scheduled"), &json!(1)),
        "no attempt is used: {waiting}"
    );
    stock.signal(Signal::TERM)?;
    stock.wait(COMMAND_LIMIT).await?;
    let _knows = site.worker("knows", &[]).await?;
    let result = site.json(&["job", "result", "strange", "--wait", "25s"]).await?;
    assert_eq!(result["result"], "xxx");
    Ok(())
}

async fn usage_errors_exit_with_2_and_unknown_ids_with_3(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let wrong: [&[&str]; 11] = [
        &["job", "enqueue"],
        &["job", "enqueue", "k", "--args", "{\"a\":"],
        &["job", "enqueue", "k", "--args", "\"text\""],
        &["job", "enqueue", "k", "--priority", "4"],
        &["job", "enqueue", "k", "--delay", "soon"],
        &["job", "enqueue", "k", "--at", "tomorrow"],
        &["job", "enqueue", "k", "--delay", "1s", "--at", "2030-01-01T00:00:00Z"],
        &["job", "enqueue", "k", "--meta", "novalue"],
        &["job", "enqueue", "--from", "absent.jsonl"],
        &["job", "list", "--status", "done"],
        &["worker", "start", "q:0"],
    ];
    for args in wrong {
        let finished = site.run(args).await?;
        assert_eq!((finished.code(), finished.stdout.as_str()), (Some(2), ""), "{args:?}: {finished:#?}");
        assert!(!finished.stderr.is_empty());
    }
    let position = site.run(wrong[1]).await?;
    assert!(position.stderr.contains("line 1 column"), "{}", position.stderr);
    let unknown: [&[&str]; 6] = [
        &["job", "status", "nobody"],
        &["job", "result", "nobody"],
        &["job", "cancel", "nobody"],
        &["job", "retry", "nobody"],
        &["job", "reschedule", "nobody", "--delay", "1s"],
        &["dead", "show", "nobody"],
    ];
    for args in unknown {
        let Finished { status, stdout, stderr } = site.run(args).await?;
        assert_eq!((status.code(), stdout.as_str()), (Some(3), ""), "{args:?}: {stderr}");
        assert!(stderr.contains("nobody"), "{stderr}");
    }
    assert_eq!(site.json(&["queue", "list"]).await?, Value::Array(Vec::new()), "a look made a queue");
    Ok(())
}
