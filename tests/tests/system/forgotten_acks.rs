//! nats-server 2.9 forgets acknowledged deletions when it is killed: the jobs come back, and must do no harm.

use std::time::Duration;

use anyhow::Result;
use naq_tests::ServerVersion;
use serde_json::json;

use crate::{
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, envelope, on_every_server, with},
};

on_every_server!(jobs_that_come_back_neither_run_again_nor_lie_in_the_way);

const COMPLETED: usize = 1_000;
const FAILED: usize = 20;
const WITHOUT_RESULT: usize = 50;
const LIMIT: Duration = Duration::from_secs(60);

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
    std::fs::write(&again, lines)?;
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
