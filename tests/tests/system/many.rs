//! Many jobs, many workers: each runs once, and the urgent ones run first.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::{
    gate,
    run_log::{Line, RunLog},
    site::{Backend, Site, envelope, on_every_store, with},
};

on_every_store!(each_of_20_000_runs_once_and_urgent_ones_first, one_slot_runs_strictly_in_order);

const JOBS: usize = 20_000;
const WORKERS: usize = 4;
const CONCURRENCY: usize = 10;
/// Jobs of a queue that may run out of order, of 10 000. Usually it is what the workers hold at the three borders, under 200.
/// But a lane that does not answer within a second is passed by until it does, so on a machine that stalls a second may
/// count twice, at some 400 jobs a second. Without any order it would be 7 500.
const SLACK: usize = JOBS / 2 / 5;
const LIMIT: Duration = Duration::from_secs(200);

async fn each_of_20_000_runs_once_and_urgent_ones_first(backend: Backend) -> Result<()> {
    let _alone = gate::heavy().await;
    let mut site = Site::start(backend).await?;
    site.set("NAQ_QUEUES__ACK_WAIT", "30s");
    let logs = ["left", "right"].map(|queue| (queue, RunLog::at(site.path(queue))));
    let queue_of = |n: usize| &logs[n % 2];
    // The least urgent first: the order of arrival must not help.
    let jobs = (0..JOBS).map(|n| {
        let (queue, log) = queue_of(n);
        let priority = 3 - n * 4 / JOBS;
        let job = envelope(format!("job-{n}"), "t.count", json!({"file": log.path()}));
        with(job, json!({"queue": queue, "priority": priority}))
    });
    site.enqueue_all(jobs).await?;
    let concurrency = CONCURRENCY.to_string();
    let mut workers = Vec::new();
    for n in 0..WORKERS {
        let name = format!("worker-{n}");
        let args = ["worker", "start", "left", "right", "--name", &name, "--concurrency", &concurrency];
        workers.push(site.test_worker().spawn(&args)?);
    }
    for (queue, log) in &logs {
        log.wait("end", JOBS / 2, None, LIMIT).await?;
        site.drained(queue, LIMIT).await?;
        let ran = log.counts("end")?;
        assert_eq!(ran.len(), JOBS / 2);
        let twice: Vec<_> = ran.iter().filter(|(_, count)| **count != 1).collect();
        assert!(twice.is_empty(), "ran more than once: {twice:?}");
        let stray = out_of_place(&log.lines()?);
        assert!(stray <= SLACK, "in {queue}, {stray} jobs did not run in the order of their priority");
    }
    let done = site.ids("left", "completed").await?.len() + site.ids("right", "completed").await?.len();
    assert_eq!(done, JOBS);
    assert_eq!(site.results_written().await?.unwrap_or(JOBS as u64), JOBS as u64, "a job was settled twice");
    drop(workers);
    Ok(())
}

/// How many jobs ran in another quarter than the one of their priority, each of which holds as many jobs.
fn out_of_place(lines: &[Line]) -> usize {
    let place = |(at, line): &(usize, &Line)| usize::from(line.priority) != at * 4 / lines.len();
    lines.iter().enumerate().filter(place).count()
}

async fn one_slot_runs_strictly_in_order(backend: Backend) -> Result<()> {
    let mut site = Site::start(backend).await?;
    site.set("NAQ_QUEUES__ACK_WAIT", "30s");
    let log = RunLog::at(site.path("runs"));
    let jobs = (0..200).map(|n| {
        let job = envelope(format!("job-{n:03}"), "t.count", json!({"file": log.path()}));
        with(job, json!({"priority": (n * 7 + 3) % 4}))
    });
    site.enqueue_all(jobs).await?;
    site.burst(&["--concurrency", "1"], LIMIT).await?;
    let ran: Vec<(u8, String)> = log.said("end")?.into_iter().map(|line| (line.priority, line.id)).collect();
    let mut in_order = ran.clone();
    in_order.sort();
    assert_eq!(ran.len(), 200);
    assert_eq!(ran, in_order, "by priority, and by age within one");
    Ok(())
}
