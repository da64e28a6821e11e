//! The power goes while jobs are enqueued and run: what of the file was not synced is gone.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use naq_tests::{PowerCut, eventually};
use serde_json::json;

use crate::{
    run_log::{RunLog, answered_ok},
    site::{Backend, COMMAND_LIMIT, Site},
};

const ROUNDS: usize = 3;
/// Jobs that are acknowledged in a round before the power goes.
const ENOUGH: usize = 200;
const LIMIT: Duration = Duration::from_secs(120);

/// Cuts the power a few times; how many acknowledged jobs were gone afterwards. The file is whole each time, and what is left of
/// it is done.
async fn lost(synchronous: &str) -> Result<usize> {
    let mut site = Site::start(Backend::Sqlite).await?;
    site.set("NAQ_STORAGE__SYNCHRONOUS", synchronous);
    let power = PowerCut::prepare(site.dir(), &site.path("jobs.db"))?;
    let log = RunLog::at(site.path("runs"));
    let answers = site.path("acknowledged");
    let args = json!({"file": log.path()}).to_string();
    let mut gone = BTreeSet::new();
    for round in 0..ROUNDS {
        power.settle()?;
        let known = answered_ok(&answers).len();
        let producing =
            ["t.count", &args, "default", &format!("r{round}-"), "100000", "16", &answers.to_string_lossy()];
        let mut producer = site.producer().envs(power.env()).spawn(&producing)?;
        let mut worker = site.test_worker().envs(power.env()).spawn(&["worker", "start", "--concurrency", "8"])?;
        let busy = eventually(COMMAND_LIMIT, "jobs are acknowledged in this round", async || {
            (answered_ok(&answers).len() > known + ENOUGH).then_some(())
        });
        busy.await?;
        tokio::time::sleep(Duration::from_millis(29 * round as u64)).await;
        // A stopped process syncs nothing more; killed one after the other, the second could still say what the first had written.
        for process in [&producer, &worker] {
            process.signal(naq_tests::Signal::STOP)?;
        }
        producer.kill().await?;
        worker.kill().await?;
        power.cut()?;

        let jobs = site.json(&["job", "list", "--limit", "100000"]).await?;
        let there: BTreeSet<&str> =
            jobs.as_array().into_iter().flatten().filter_map(|job| job["job_id"].as_str()).collect();
        gone.extend(answered_ok(&answers).into_iter().filter(|id| !there.contains(id.as_str())));
        let found = site.json(&["system", "doctor"]).await?;
        let errors =
            found["findings"].as_array().into_iter().flatten().filter(|one| one["severity"] == "error").count();
        ensure!(errors == 0, "{found}");
    }
    site.burst(&["--concurrency", "8"], LIMIT).await?;
    let completed: BTreeSet<String> = site.ids("default", "completed").await?.into_iter().collect();
    let undone = answered_ok(&answers).into_iter().find(|id| !gone.contains(id) && !completed.contains(id));
    ensure!(undone.is_none(), "{undone:?} did not complete");
    Ok(gone.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_takes_nothing_that_was_acknowledged() -> Result<()> {
    assert_eq!(lost("full").await?, 0);
    Ok(())
}

/// What the setting says, and that the test above can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_takes_back_the_last_jobs_but_no_file_with_synchronous_normal() -> Result<()> {
    assert_ne!(lost("normal").await?, 0);
    Ok(())
}
