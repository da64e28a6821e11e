//! nats-server 2.9 forgets acknowledged deletions when it is killed: the jobs come back, and must do no harm.

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use naq_tests::{ServerVersion, eventually};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, envelope, on_every_server, with},
};

on_every_server!(jobs_that_come_back_neither_run_again_nor_lie_in_the_way);

const COMPLETED: usize = 1_000;
const FAILED: usize = 20;
const WITHOUT_RESULT: usize = 50;
const LIMIT: Duration = Duration::from_secs(60);
/// Within this, a server has written to its files what its consumers know; one that is asked to end does not always do it.
const WRITTEN: Duration = Duration::from_secs(1);
/// The lane of the usual priority.
const LANE: &str = "naq_queue_default.p2";

async fn jobs_that_come_back_neither_run_again_nor_lie_in_the_way(version: ServerVersion) -> Result<()> {
    let mut site = Site::start(Backend::Nats(version)).await?;
    let log = RunLog::at(site.path("runs"));
    let args = json!({"file": log.path()});
    let counting = |id: String| envelope(id, "t.count", args.clone());
    let forgetful = |id: String| with(counting(id), json!({"result_ttl": 0}));
    let worker = site.worker("only", &["--concurrency", "20"]).await?;
    site.enqueue_all((0..WITHOUT_RESULT).map(|n| forgetful(format!("none-{n}")))).await?;
    site.enqueue_all((0..FAILED).map(|n| envelope(format!("dead-{n}"), "t.second_life", json!({})))).await?;
    site.enqueue_all((0..COMPLETED).map(|n| counting(format!("job-{n}")))).await?;
    log.wait("end", COMPLETED + WITHOUT_RESULT, None, LIMIT).await?;
    site.drained("default", LIMIT).await?;

    site.nats()?.kill()?;
    site.nats()?.restart().await?;
    // The worker that was there goes on, and a new one starts from what it finds.
    let newcomer = site.worker("newcomer", &["--concurrency", "20"]).await?;
    site.drained("default", LIMIT).await?;
    let kept = |counts: &std::collections::BTreeMap<String, usize>| {
        counts.iter().filter(|(id, _)| id.starts_with("job-")).all(|(_, count)| *count == 1)
    };
    assert!(kept(&log.counts("end")?), "a completed job ran again");
    assert_eq!(site.ids("default", "completed").await?.len(), COMPLETED);
    assert_eq!(site.ids("default", "failed").await?.len(), FAILED);

    // Their ids behave: kept results answer, ended ones without a result start anew, dead ones come back to life.
    let again = site.path("again.jsonl");
    let lines: String = (0..COMPLETED).map(|n| format!("{}\n", counting(format!("job-{n}")))).collect();
    fs::write(&again, lines)?;
    let report = site.json(&["job", "enqueue", "--from", &again.to_string_lossy()]).await?;
    assert_eq!(report, json!({"enqueued": 0, "duplicates": COMPLETED, "failed": 0}));
    let before = log.counts("end")?;
    site.enqueue_all((0..WITHOUT_RESULT).map(|n| forgetful(format!("none-{n}")))).await?;
    let dead: Vec<String> = (0..FAILED).map(|n| format!("dead-{n}")).collect();
    let ids: Vec<&str> = dead.iter().map(String::as_str).collect();
    let retried = site.run(&[&["job", "retry"], &ids[..]].concat()).await?;
    assert_eq!(retried.code(), Some(0), "{retried:#?}");
    site.enqueue_all((0..100).map(|n| counting(format!("new-{n}")))).await?;
    site.drained("default", LIMIT).await?;

    let after = log.counts("end")?;
    for n in 0..WITHOUT_RESULT {
        let id = format!("none-{n}");
        assert!(after[&id] > before[&id], "{id} was enqueued again and did not run");
    }
    assert!(kept(&after), "a completed job ran again");
    assert_eq!(site.ids("default", "completed").await?.len(), COMPLETED + FAILED + 100);
    assert_eq!(site.ids("default", "failed").await?, [""; 0]);
    for id in &ids {
        let result = site.json(&["job", "result", id]).await?;
        assert_eq!((&result["status"], &result["result"]), (&json!("completed"), &json!("alive")), "{id}");
    }
    drop((worker, newcomer));
    let stopped = site.burst(&[], COMMAND_LIMIT).await?;
    assert!(!stopped.stderr.contains("panicked"), "{stopped:#?}");
    Ok(())
}

on_every_server!(a_claim_of_a_job_that_is_gone_keeps_no_ended_job_in_the_queue);

async fn a_claim_of_a_job_that_is_gone_keeps_no_ended_job_in_the_queue(version: ServerVersion) -> Result<()> {
    back_between_claims(version, &[1, 4]).await
}

on_every_server!(a_claim_of_a_job_that_runs_again_keeps_an_ended_one_only_until_it_ends);

async fn a_claim_of_a_job_that_runs_again_keeps_an_ended_one_only_until_it_ends(version: ServerVersion) -> Result<()> {
    back_between_claims(version, &[4]).await
}

/// What a killed server may know: of four jobs the third has another priority and waits, the others were delivered, the second
/// was acknowledged and is back, and of the other two, which count as claimed, these are gone. nats-server 2.9 gives up such a
/// claim only when no older message is there, and then leaves its floor where it was.
async fn back_between_claims(version: ServerVersion, gone: &[u64]) -> Result<()> {
    const JOBS: [(&str, u8); 4] = [("claimed-1", 2), ("back-2", 2), ("waiting-3", 3), ("gone-4", 2)];
    let mut site = Site::start(Backend::Nats(version)).await?;
    let log = RunLog::at(site.path("runs"));
    for (id, priority) in JOBS {
        let job = envelope(id, "t.count", json!({"file": log.path()}));
        site.enqueue_all([with(job, json!({"result_ttl": 0, "priority": priority}))]).await?;
    }
    let mut raw = site.raw().await?;
    for _ in 0..3 {
        raw.request(&format!("$JS.API.CONSUMER.MSG.NEXT.{LANE}"), b"1").await?;
    }
    let (store, delivered, acknowledged) =
        (site.nats()?.store_dir(), site.path("delivered"), site.path("acknowledged"));
    let claims = store.join("jetstream/$G/streams/naq_queue_default/obs");
    sleep(WRITTEN).await;
    site.nats()?.stop().await?;
    copy(&store, &delivered)?;

    site.nats()?.restart().await?;
    site.raw().await?.request(&format!("$JS.ACK.{LANE}.1.2.2.0.0"), b"+ACK").await?;
    sleep(WRITTEN).await;
    site.nats()?.stop().await?;
    copy(&claims, &acknowledged)?;

    fs::remove_dir_all(&store)?;
    copy(&delivered, &store)?;
    site.nats()?.restart().await?;
    for sequence in gone {
        let body = json!({"seq": sequence, "no_erase": true});
        site.raw().await?.request_json("$JS.API.STREAM.MSG.DELETE.naq_queue_default", &body).await?;
    }
    site.nats()?.stop().await?;
    copy(&acknowledged, &claims)?;
    site.nats()?.restart().await?;
    let expected = 3 - gone.len() as u64;
    let looked_through = eventually(COMMAND_LIMIT, "the server has looked through its claims", async || {
        (claimed(&site).await.ok()? == Some(expected)).then_some(())
    });
    looked_through.await?;
    assert!(site.ids("default", "pending").await?.contains(&JOBS[1].0.to_owned()), "what had ended is not back");

    let worker = site.worker("only", &[]).await?;
    let forgotten = eventually(COMMAND_LIMIT, "what had ended is forgotten", async || {
        (claimed(&site).await.ok()? == Some(0) && site.jobs("default", "pending").await.ok()?.is_empty()).then_some(())
    });
    forgotten.await?;
    let expected = if gone.contains(&1) { vec!["waiting-3"] } else { vec!["claimed-1", "waiting-3"] };
    assert_eq!(log.counts("end")?.keys().collect::<Vec<_>>(), expected);
    drop(worker);
    Ok(())
}

/// How many messages count as delivered and not acknowledged.
async fn claimed(site: &Site) -> Result<Option<u64>> {
    let info = site.raw().await?.request_json(&format!("$JS.API.CONSUMER.INFO.{LANE}"), &json!(null)).await?;
    Ok(info["num_ack_pending"].as_u64())
}

/// Copies a folder over another one.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
