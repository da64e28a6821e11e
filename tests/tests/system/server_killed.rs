//! The server dies in the middle of everything: what it had acknowledged is done in the end.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::Result;
use naq_tests::{ServerVersion, eventually};
use serde_json::{Value, json};

use crate::{
    gate,
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, on_every_server},
};

on_every_server!(every_acknowledged_job_ends_completed);

const JOBS: usize = 5_000;
/// Jobs enqueued and run before the kill: both are in full flow then.
const BEFORE: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(120);

async fn every_acknowledged_job_ends_completed(version: ServerVersion) -> Result<()> {
    let _alone = gate::heavy().await;
    let mut site = Site::start(Backend::Nats(version)).await?;
    let log = RunLog::at(site.path("runs"));
    let acknowledged = site.path("acknowledged");
    let worker = site.worker("only", &["--concurrency", "20"]).await?;
    let args = json!({"file": log.path()}).to_string();
    let count = JOBS.to_string();
    let producing = ["t.count", &args, "default", "j", &count, "32", &acknowledged.to_string_lossy()];
    let producer = site.producer().spawn(&producing)?;
    log.wait("end", BEFORE, None, LIMIT).await?;

    site.nats()?.kill()?;
    let enqueued_before = answers(&acknowledged)?.0.len();
    assert!(enqueued_before < JOBS, "the server was killed too late: all {JOBS} were enqueued");
    // Long enough that calls fail or wait, and that nothing can be taken for a short stall.
    tokio::time::sleep(Duration::from_secs(1)).await;
    site.nats()?.restart().await?;

    let finished = producer.wait(LIMIT).await?;
    assert_eq!(finished.code(), Some(0), "{finished:#?}");
    let (ok, refused) = answers(&acknowledged)?;
    assert_eq!(ok.len() + refused.len(), JOBS, "a caller got no answer");
    assert!(ok.len() > enqueued_before, "nothing could be enqueued after the restart");

    site.drained("default", LIMIT).await?;
    let completed: BTreeSet<String> = site.ids("default", "completed").await?.into_iter().collect();
    let lost: Vec<_> = ok.difference(&completed).collect();
    assert!(lost.is_empty(), "{} acknowledged jobs did not complete, for example {:?}", lost.len(), &lost[..1]);
    assert_eq!(site.queue("default").await?["failed"], 0);
    let ran = log.counts("end")?;
    assert!(ok.iter().all(|id| ran.contains_key(id)), "a job completed that never ran");
    drop(worker);
    Ok(())
}

/// The ids that were acknowledged, and those that were refused.
fn answers(path: &std::path::Path) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let text = fs::read_to_string(path)?;
    let of = |word: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(' ')).filter(|(answer, _)| *answer == word);
        lines.filter_map(|(_, rest)| rest.split(' ').next().map(str::to_owned)).collect()
    };
    Ok((of("ok"), of("error")))
}

on_every_server!(a_worker_outlives_a_server_that_is_silent);

/// A server that is connected but answers nothing, for longer than a lease, and then goes on.
async fn a_worker_outlives_a_server_that_is_silent(version: ServerVersion) -> Result<()> {
    let mut site = Site::start(Backend::Nats(version)).await?;
    let log = RunLog::at(site.path("runs"));
    let worker = site.worker("only", &["--concurrency", "5"]).await?;
    let args = json!({"file": log.path(), "ms": 500});
    for n in 0..5 {
        site.enqueue("t.log_sleep", &args, &["--job-id", &format!("job-{n}")]).await?;
    }
    log.wait("start", 5, None, COMMAND_LIMIT).await?;
    site.nats()?.signal(naq_tests::Signal::STOP)?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    site.nats()?.signal(naq_tests::Signal::CONT)?;

    let ended = eventually(LIMIT, "all five have completed", async || {
        (site.ids("default", "completed").await.ok()?.len() == 5).then_some(())
    });
    ended.await?;
    site.drained("default", COMMAND_LIMIT).await?;
    worker.signal(naq_tests::Signal::TERM)?;
    assert_eq!(worker.wait(COMMAND_LIMIT).await?.code(), Some(0));
    assert_eq!(site.results_written().await?, Some(5), "a job was settled twice");
    Ok(())
}

on_every_server!(a_killed_server_brings_back_nothing_that_was_removed);

/// A killed server knows what was removed from a stream by its sequence, but brings back what had been replaced before, if
/// others of its block are still there: jobs would run again.
async fn a_killed_server_brings_back_nothing_that_was_removed(version: ServerVersion) -> Result<()> {
    const JOBS: usize = 8;
    let mut site = Site::start(Backend::Nats(version)).await?;
    let log = RunLog::at(site.path("runs"));
    let worker = site.worker("only", &[]).await?;
    let args = json!({"file": log.path()});
    site.enqueue("t.count", &args, &["--queue", "later", "--delay", "1h"]).await?;
    for n in 0..JOBS {
        let id = format!("job-{n}");
        site.enqueue("t.count", &args, &["--job-id", &id, "--delay", "1h", "--result-ttl", "0"]).await?;
        site.json(&["job", "reschedule", &id, "--delay", "1s"]).await?;
    }
    log.wait("end", JOBS, None, COMMAND_LIMIT).await?;
    site.drained("default", COMMAND_LIMIT).await?;
    worker.signal(naq_tests::Signal::TERM)?;
    assert_eq!(worker.wait(COMMAND_LIMIT).await?.code(), Some(0));

    site.nats()?.restart().await?;
    let mut raw = site.raw().await?;
    let info = raw.request_json("$JS.API.STREAM.INFO.KV_naq_scheduled_jobs", &Value::Null).await?;
    assert_eq!(info["state"]["messages"], 1, "{info:#}");
    let _worker = site.worker("next", &[]).await?;
    site.drained("default", COMMAND_LIMIT).await?;
    let runs = log.counts("end")?;
    assert!(runs.len() == JOBS && runs.values().all(|runs| *runs == 1), "{runs:?}");
    Ok(())
}

on_every_server!(a_killed_server_forgets_none_that_is_left);

/// After a kill nats-server 2.9 counts messages that were overwritten as present. Once one of them comes first, the next
/// that is stored makes all before it vanish.
async fn a_killed_server_forgets_none_that_is_left(version: ServerVersion) -> Result<()> {
    const JOBS: usize = 8;
    let mut site = Site::start(Backend::Nats(version)).await?;
    let later =
        async |site: &Site, id: &str| site.enqueue("naq.noop", &json!({}), &["--job-id", id, "--delay", "1h"]).await;
    for n in 0..JOBS {
        later(&site, &format!("job-{n}")).await?;
    }
    // So that the next message that is stored writes the index.
    tokio::time::sleep(Duration::from_secs(1)).await;
    later(&site, "indexed").await?;
    site.json(&["job", "cancel", "job-2"]).await?;
    site.nats()?.restart().await?;
    for id in ["job-0", "job-1"] {
        site.json(&["job", "cancel", id]).await?;
    }
    later(&site, "after").await?;
    let left = ["after", "indexed", "job-3", "job-4", "job-5", "job-6", "job-7"];
    assert_eq!(site.ids("default", "scheduled").await?, left);
    assert_eq!(site.queue("default").await?["scheduled"], left.len());
    Ok(())
}
