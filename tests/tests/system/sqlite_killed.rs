//! Every process that uses the file is killed in the middle of its writes, again and again: the file stays whole.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use naq_tests::eventually;
use serde_json::{Value, json};

use crate::{
    run_log::{RunLog, answered_ok},
    site::{Backend, COMMAND_LIMIT, Site},
};

const ROUNDS: usize = 10;
/// More than any round gets to.
const JOBS_A_ROUND: &str = "100000";
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_missing() -> Result<()> {
    let site = Site::start(Backend::Sqlite).await?;
    let log = RunLog::at(site.path("runs"));
    let acknowledged = site.path("acknowledged");
    let args = json!({"file": log.path()}).to_string();
    let mut known = 0;
    for round in 0..ROUNDS {
        let prefix = format!("r{round}-");
        let producing = ["t.count", &args, "default", &prefix, JOBS_A_ROUND, "16", &acknowledged.to_string_lossy()];
        let mut producer = site.producer().spawn(&producing)?;
        let mut worker = site.test_worker().spawn(&["worker", "start", "--concurrency", "8"])?;
        let busy = eventually(COMMAND_LIMIT, "jobs are acknowledged in this round", async || {
            (answered_ok(&acknowledged).len() > known + 20).then_some(())
        });
        busy.await?;
        // A different moment in each round.
        tokio::time::sleep(Duration::from_millis(37 * (round as u64 + 1) % 200)).await;
        if round % 2 == 0 {
            producer.kill().await?;
            worker.kill().await?;
        } else {
            worker.kill().await?;
            producer.kill().await?;
        }

        let ok = answered_ok(&acknowledged);
        known = ok.len();
        let jobs = site.json(&["job", "list", "--limit", "100000"]).await?;
        let there: BTreeSet<&str> =
            jobs.as_array().into_iter().flatten().filter_map(|job| job["job_id"].as_str()).collect();
        let missing: Vec<_> = ok.iter().filter(|id| !there.contains(id.as_str())).collect();
        assert!(missing.is_empty(), "round {round}: {} of {known} are gone: {:?}", missing.len(), missing.first());
    }

    let findings = site.json(&["system", "doctor"]).await?;
    let bad = |finding: &&Value| finding["severity"] == "error";
    assert!(!findings["findings"].as_array().into_iter().flatten().any(|f| bad(&f)), "{findings}");
    site.burst(&["--concurrency", "8"], LIMIT).await?;
    let completed: BTreeSet<String> = site.ids("default", "completed").await?.into_iter().collect();
    let missing: Vec<_> = answered_ok(&acknowledged).difference(&completed).cloned().collect();
    assert!(missing.is_empty(), "{} acknowledged jobs did not complete: {:?}", missing.len(), missing.first());
    Ok(())
}
