//! Leaders that die or sleep while much is to be fired: recurring jobs, delayed jobs, jobs that wait for others.

use std::time::Duration;

use anyhow::{Context as _, Result};
use naq_tests::{NaqProcess, Signal, eventually};
use serde_json::json;

use crate::{
    gate,
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, envelope, on_every_store, with},
};

/// How many runs there are in all: some fifteen seconds of them, past three changes of the leader.
const RUNS: usize = 60;
const PERIOD: Duration = Duration::from_millis(250);

on_every_store!(each_run_starts_once_whoever_leads, twenty_kills_lose_and_double_nothing);

fn leads(process: &NaqProcess) -> bool {
    process.stderr().contains("leads the scheduler")
}

/// Takes the one that leads out of some of which one will.
async fn leader(candidates: &mut Vec<NaqProcess>) -> Result<NaqProcess> {
    let found = eventually(COMMAND_LIMIT, "somebody leads", async || candidates.iter().position(leads));
    let found = found.await?;
    Ok(candidates.remove(found))
}

async fn each_run_starts_once_whoever_leads(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    let worker = site.worker("runs", &["--no-scheduler"]).await?;
    let start = || site.naq()?.spawn(&["scheduler", "start"]);
    let mut candidates = vec![start()?, start()?, start()?];
    let first = site.every("often", "t.count", &json!({"file": log.path()}), PERIOD, RUNS).await?;

    log.wait("end", 4, None, COMMAND_LIMIT).await?;
    leader(&mut candidates).await?.kill().await?;
    let asleep = leader(&mut candidates).await?;
    log.wait("end", 16, None, COMMAND_LIMIT).await?;
    // It sleeps past its lease, and wakes up while another leads.
    asleep.signal(Signal::STOP)?;
    candidates.push(start()?);
    let mut third = leader(&mut candidates).await?;
    log.wait("end", 36, None, COMMAND_LIMIT).await?;
    asleep.signal(Signal::CONT)?;
    log.wait("end", 42, None, COMMAND_LIMIT).await?;
    third.kill().await?;
    log.wait("end", RUNS, None, COMMAND_LIMIT).await?;

    let done = eventually(COMMAND_LIMIT, "the schedule has completed", async || {
        let shown = site.json(&["scheduler", "show", "often"]).await.ok()?;
        (shown["status"] == "completed" && shown["pending"] == 0).then_some(shown)
    });
    let shown = done.await?;
    assert_eq!((&shown["runs"], &shown["skipped"]), (&json!(RUNS), &json!(0)));
    site.drained("default", COMMAND_LIMIT).await?;
    let expected = (0..RUNS as i64)
        .map(|n| (format!("often_{}", first.unix_millis() + n * PERIOD.as_millis() as i64), 1))
        .collect();
    assert_eq!(log.counts("end")?, expected, "each due time once");
    worker.signal(Signal::TERM)?;
    let ended = worker.wait(Duration::from_secs(30)).await?;
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    Ok(())
}

const KILLS: usize = 20;
/// Delayed jobs, due one after the other while leaders die.
const DELAYED: usize = 2_000;
const DELAYED_OVER: i64 = 25_000;
/// Chains of jobs that wait for one another.
const CHAINS: usize = 20;
const LINKS: usize = 20;

async fn twenty_kills_lose_and_double_nothing(backend: Backend) -> Result<()> {
    let _alone = gate::heavy().await;
    let mut site = Site::start(backend).await?;
    site.set("NAQ_SCHEDULER__LOCK_TTL", "1s");
    site.set("NAQ_SCHEDULER__LOCK_RENEW_INTERVAL", "300ms");
    site.set("NAQ_QUEUES__ACK_WAIT", "30s");
    let log = RunLog::at(site.path("runs"));
    let worker = site.worker("runs", &["--no-scheduler", "--concurrency", "20"]).await?;
    let args = json!({"file": log.path()});
    let first = site.every("often", "t.count", &args, PERIOD, 100).await?;
    let due = |n: usize| {
        let after = DELAYED_OVER * n as i64 / DELAYED as i64;
        naq::Timestamp::from_unix_millis(first.unix_millis() + after).map(|time| time.to_string())
    };
    let delayed = (0..DELAYED)
        .map(|n| with(envelope(format!("delayed-{n}"), "t.count", args.clone()), json!({"run_at": due(n)})));
    let chains = (0..CHAINS * LINKS).map(|n| {
        // The last link of each chain first, and the first one not before leaders have begun to die.
        let (chain, link) = (n % CHAINS, LINKS - 1 - n / CHAINS);
        let job = envelope(format!("link-{chain}-{link}"), "t.count", args.clone());
        match link {
            0 => with(job, json!({"run_at": due(DELAYED / 20)})),
            _ => with(job, json!({"depends_on": [format!("link-{chain}-{}", link - 1)]})),
        }
    });
    site.enqueue_all(delayed.chain(chains)).await?;

    let start = || site.naq()?.spawn(&["scheduler", "start"]);
    let mut candidates = vec![start()?, start()?, start()?];
    for _ in 0..KILLS {
        let mut led = leader(&mut candidates).await?;
        // It is killed in the middle of its work, or late in a pause of it.
        let ran = log.counts("end")?.len();
        log.wait("end", ran + 5, None, COMMAND_LIMIT).await.with_context(|| {
            let all = candidates.iter().chain([&led]).map(NaqProcess::stderr);
            format!("what the schedulers said:\n{}", all.collect::<Vec<_>>().join("\n--\n"))
        })?;
        led.kill().await?;
        candidates.push(start()?);
    }
    let all = DELAYED + CHAINS * LINKS + 100;
    log.wait("end", all, None, COMMAND_LIMIT).await?;
    site.drained("default", COMMAND_LIMIT).await?;
    let counts = log.counts("end")?;
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "ran more than once: {twice:?}");
    assert_eq!(counts.len(), all);
    for chain in 0..CHAINS {
        let order: Vec<String> = log
            .said("end")?
            .into_iter()
            .map(|line| line.id)
            .filter(|id| id.starts_with(&format!("link-{chain}-")))
            .collect();
        assert_eq!(order, (0..LINKS).map(|link| format!("link-{chain}-{link}")).collect::<Vec<_>>());
    }
    worker.signal(Signal::TERM)?;
    let ended = worker.wait(Duration::from_secs(30)).await?;
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    Ok(())
}
