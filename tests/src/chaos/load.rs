//! The load: jobs of every sort, drawn by a producer that writes down what it asks for and what it is told.
//!
//! Invariant: what a job shall do is in the history before the store hears of it. A producer that gets no answer asks again
//! with the same id, as a user would; only of a job that keeps no result nobody could tell that it had run already.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use naq_services::{CancellationToken, JobService, NewJob};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::faults::{Event, Plan, Recorder};

/// Jobs that others may depend on are remembered up to this many.
const REMEMBERED: usize = 50;
/// Between two tries to enqueue the same job.
const AGAIN: Duration = Duration::from_millis(200);

/// One of a producer's tasks.
#[derive(Debug)]
pub struct Load {
    /// Unique among all producers that ever lived.
    pub name: String,
    /// Where everything is written down.
    pub history: PathBuf,
    /// Decides what is enqueued.
    pub seed: u64,
    /// From one job to the next.
    pub pace: Duration,
}

/// What a job does beside its [`Plan`].
#[derive(Debug, Default)]
struct Manner {
    /// Milliseconds that its handler works.
    work: u64,
    delay: Option<Duration>,
}

impl Load {
    /// Enqueues until it is told to stop. What is under way then is finished.
    ///
    /// # Errors
    /// If the history cannot be written.
    pub async fn run(&self, jobs: &JobService, recorder: &Recorder, stop: &CancellationToken) -> Result<()> {
        let mut dice = StdRng::seed_from_u64(self.seed);
        let mut known: Vec<String> = Vec::new();
        for number in 0_u64.. {
            let next = Instant::now() + self.pace;
            let id = format!("{}-{number}", self.name);
            let (plan, manner) = draw(&mut dice, &self.name, number, &known);
            recorder.record(Event::Enqueue { job: id.clone(), plan: plan.clone() })?;
            let job = || self.job(&id, &plan, &manner);
            if enqueue(jobs, job, &id, !plan.keeps_no_result, recorder, stop).await? && !plan.keeps_no_result {
                known.push(id);
                if known.len() > REMEMBERED {
                    known.remove(0);
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep_until(next)).await.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn job(&self, id: &str, plan: &Plan, manner: &Manner) -> NewJob {
        let args = json!({"history": self.history, "ms": manner.work, "fails": plan.fails});
        let mut job = NewJob::new("t.recorded", args)
            .job_id(id)
            .max_retries(plan.max_retries)
            .retry_delay(Duration::from_millis(200))
            .depends_on(&plan.depends_on);
        if plan.keeps_no_result {
            job = job.result_ttl(Duration::ZERO);
        }
        if let Some(delay) = manner.delay {
            job = job.delay(delay);
        }
        match &plan.unique_key {
            Some(key) => job.unique(key.as_str()),
            None => job,
        }
    }
}

/// Whether the store has taken this very job.
async fn enqueue(
    jobs: &JobService,
    job: impl Fn() -> NewJob,
    id: &str,
    again: bool,
    recorder: &Recorder,
    stop: &CancellationToken,
) -> Result<bool> {
    loop {
        match jobs.enqueue(job()).await {
            Ok(handle) => {
                let instead = (handle.id().as_str() != id).then(|| handle.id().to_string());
                let own = instead.is_none();
                recorder.record(Event::Acknowledged { job: id.to_owned(), instead })?;
                return Ok(own);
            }
            Err(error) => {
                tell(&format!("{id} was not enqueued: {error:?}"));
                if !again || stop.run_until_cancelled(sleep(AGAIN)).await.is_none() {
                    return Ok(false);
                }
            }
        }
    }
}

/// Plain jobs, jobs that fail now and then or for good, jobs without results, jobs that wait for others, and jobs of which only one
/// of a key may be alive.
fn draw(dice: &mut StdRng, name: &str, number: u64, known: &[String]) -> (Plan, Manner) {
    let plan = match dice.random_range(0..100) {
        0..12 => Plan { fails: dice.random_range(1..=2), max_retries: 3, ..Plan::default() },
        12..18 => Plan { fails: 9, max_retries: dice.random_range(0..=1), ..Plan::default() },
        18..26 => Plan { keeps_no_result: true, ..Plan::default() },
        26..30 => Plan { keeps_no_result: true, fails: 1, max_retries: 2, ..Plan::default() },
        30..44 if !known.is_empty() => {
            let mut some: Vec<String> =
                (0..dice.random_range(1..=3)).map(|_| known[dice.random_range(0..known.len())].clone()).collect();
            some.sort_unstable();
            some.dedup();
            Plan { depends_on: some, ..Plan::default() }
        }
        44..56 => Plan { unique_key: Some(format!("{name}-{}", number / 20)), ..Plan::default() },
        _ => Plan::default(),
    };
    // Now and then longer than a lease.
    let work = match dice.random_range(0..100) {
        0..40 => 5,
        40..80 => 60,
        80..97 => 600,
        _ => 5_000,
    };
    let delay = dice.random_bool(0.15).then(|| Duration::from_millis(dice.random_range(1..4_000)));
    (plan, Manner { work, delay })
}

/// Several loads in one process, until `stop`.
///
/// # Errors
/// If the history cannot be written.
pub async fn produce(loads: Vec<Load>, jobs: JobService, stop: CancellationToken) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for load in loads {
        let (jobs, stop) = (jobs.clone(), stop.clone());
        let recorder = Recorder::open(&load.history)?;
        tasks.spawn(async move { load.run(&jobs, &recorder, &stop).await });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a producer's own log")]
fn tell(text: &str) {
    eprintln!("{text}");
}
