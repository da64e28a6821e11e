//! `naq events …`: what happened, live and afterwards, as operators see it.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{Signal, eventually};
use serde_json::{Value, json};

use super::{assert_fields, assert_time};
use crate::site::{Backend, COMMAND_LIMIT, Site, on_every_store};

on_every_store!(
    a_stream_shows_what_happens_within_300_ms,
    the_history_of_a_job_tells_its_steps,
    stats_and_workers_count_what_happened,
    wrong_input_of_events_is_refused
);

/// Catches: a stream that polls, starts late, shows what its filter leaves out, or prints what is no line of JSON.
async fn a_stream_shows_what_happens_within_300_ms(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let worker = site.worker("w1", &[]).await?;
    site.json(&["job", "enqueue", "naq.echo", "--job-id", "before", "--wait", "20s"]).await?;
    let args = ["events", "stream", "--type", "started", "--tail", "1", "--follow", "--output", "json"];
    let stream = site.naq()?.spawn(&args)?;
    // What was there shows that it follows.
    let lines =
        |text: String| -> Vec<Value> { text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect() };
    eventually(COMMAND_LIMIT, "the stream begins with what was there", async || {
        (lines(stream.stdout()).len() == 1).then_some(())
    })
    .await?;
    let mut delays = Vec::new();
    for n in 0..5 {
        let marker = site.path(&format!("started-{n}"));
        let id = format!("live-{n}");
        let job = json!({"file": marker});
        site.enqueue("t.count", &job, &["--job-id", &id]).await?;
        eventually(COMMAND_LIMIT, "the job has started", async || marker.exists().then_some(())).await?;
        let started = Instant::now();
        eventually(COMMAND_LIMIT, "the stream shows it", async || {
            lines(stream.stdout()).iter().any(|event| event["job_id"] == *id).then_some(())
        })
        .await?;
        delays.push(started.elapsed());
    }
    delays.sort();
    ensure!(delays[2] < Duration::from_millis(300), "shown after {delays:?}");
    let shown = lines(stream.stdout());
    ensure!(shown.iter().all(|event| event["type"] == "started"), "{shown:?}");
    let ids: Vec<&Value> = shown.iter().map(|event| &event["job_id"]).collect();
    assert_eq!(ids, ["before", "live-0", "live-1", "live-2", "live-3", "live-4"], "each once, in order");
    stream.signal(Signal::TERM)?;
    worker.signal(Signal::TERM)?;
    Ok(())
}

/// Catches: steps that are missing or out of order, durations that are wrong, and tables that hide them.
async fn the_history_of_a_job_tells_its_steps(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    fs::write(site.path("naq.yaml"), "handlers:\n  flop: { exec: [\"sh\", \"-c\", \"echo broken >&2; exit 1\"] }\n")?;
    let flags = ["--max-retries", "1", "--retry-delay", "100ms"];
    let id = site.enqueue("flop", &json!({}), &flags).await?;
    let worker = site.worker_of(&site.naq()?, "w1", &[]).await?;
    let told = eventually(COMMAND_LIMIT, "the end of the job is told", async || {
        let history = site.json(&["events", "history", &id]).await.ok()?;
        (history[5]["type"] == "dead_lettered").then_some(history)
    });
    let history = told.await?;
    worker.signal(Signal::TERM)?;
    worker.wait(COMMAND_LIMIT).await?;
    let steps: Vec<&Value> = history.as_array().context("an array")?.iter().map(|event| &event["type"]).collect();
    assert_eq!(steps, ["enqueued", "started", "retry_scheduled", "started", "failed", "dead_lettered"]);
    for event in history.as_array().context("an array")? {
        assert_time(&event["time"]);
        assert_eq!(
            (&event["job_id"], &event["queue"], &event["kind"]),
            (&json!(id), &json!("default"), &json!("flop"))
        );
    }
    assert_fields(&history[1], &["id", "time", "type", "job_id", "queue", "kind", "attempt", "worker_id", "details"]);
    let retried = &history[2]["details"];
    ensure!(retried["duration"].as_f64().is_some_and(|ran| ran > 0.0 && ran < 10.0), "{retried}");
    assert_time(&retried["run_at"]);
    ensure!(retried["error_type"].is_string() && history[4]["attempt"] == 2, "{history}");

    let table = site.naq()?.run(&["events", "history", &id], COMMAND_LIMIT).await?;
    for text in ["retry_scheduled", "2 runs took", "attempt 2", "waited"] {
        ensure!(table.stdout.contains(text), "no {text:?} in\n{}", table.stdout);
    }
    site.json(&["dead", "retry", &id]).await?;
    let history = site.json(&["events", "history", &id]).await?;
    assert_eq!(history[6]["type"], "requeued", "a new life is told although an old result is there: {history}");
    Ok(())
}

/// Catches: numbers that do not add up, failures without their type, and workers that are not told apart.
async fn stats_and_workers_count_what_happened(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    site.enqueue_all((0..50).map(|n| json!({"v": 1, "id": format!("e-{n}"), "kind": "naq.echo", "args": {}}))).await?;
    site.enqueue("naq.nothing_knows_this", &json!({}), &["--queue", "other"]).await?;
    site.burst(&[], COMMAND_LIMIT).await?;
    let stats = site.json(&["events", "stats", "--window", "10m"]).await?;
    assert_eq!((&stats["types"]["completed"], &stats["types"]["enqueued"]), (&json!(50), &json!(51)), "{stats}");
    assert_eq!((&stats["run"]["count"], &stats["wait"]["count"]), (&json!(50), &json!(50)), "{stats}");
    assert_eq!((&stats["kinds"][0]["kind"], &stats["kinds"][0]["completed"]), (&json!("naq.echo"), &json!(50)));
    ensure!(stats["rates"]["completed"].as_f64().is_some_and(|rate| rate > 0.0), "{stats}");
    let of_other = site.json(&["events", "stats", "--queue", "other"]).await?;
    assert_eq!((&of_other["events"], &of_other["types"]["enqueued"]), (&json!(1), &json!(1)), "{of_other}");
    let workers = site.json(&["events", "workers"]).await?;
    let worker = workers.as_array().context("an array")?.iter().find(|worker| worker["completed"] == 50);
    let worker = worker.with_context(|| format!("no worker completed 50 jobs: {workers}"))?;
    assert_eq!((&worker["last_state"], worker["started"].as_u64()), (&json!("worker_stopped"), Some(50)));
    assert_time(&worker["stopped_at"]);
    let table = site.naq()?.run(&["events", "stats"], COMMAND_LIMIT).await?;
    ensure!(table.stdout.contains("P99") && table.stdout.contains("naq.echo"), "{}", table.stdout);
    Ok(())
}

async fn wrong_input_of_events_is_refused(backend: Backend) -> Result<()> {
    let mut site = Site::start(backend).await?;
    for (args, code, text) in [
        (&["events", "history", "no-such-job"][..], 3, "no event of job no-such-job is kept"),
        (&["events", "history", "a.b"], 2, "job id"),
        (&["events", "stream", "--type", "complete", "--tail", "1"], 2, "did you mean completed?"),
        (&["events", "stats", "--window", "soon"], 2, "soon"),
        (&["events", "stream", "--tail", "many"], 2, "--tail"),
    ] {
        let finished = site.run(args).await?;
        ensure!(finished.code() == Some(code) && finished.stderr.contains(text), "{args:?}: {finished:#?}");
    }
    // An empty log is no mistake, and neither is one that nobody writes to.
    site.set("NAQ_EVENTS_ENABLED", "false");
    site.enqueue("naq.echo", &json!({}), &["--job-id", "silent"]).await?;
    let shown = site.run(&["events", "stream", "--tail", "10"]).await?;
    assert_eq!((shown.code(), shown.stdout.as_str()), (Some(0), ""), "nothing is recorded when events are off");
    assert_eq!(site.json(&["events", "stats"]).await?["events"], 0);
    Ok(())
}
