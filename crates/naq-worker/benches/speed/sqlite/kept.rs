//! A file that keeps very many results: naq on it against naq on a fresh one, and one enqueue while they are pruned.
//!
//! Invariant: the results lie as those of jobs that ended a millisecond apart, the last of them now. A file is made once
//! and used for all turns; no turn leaves fewer results than there were.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use naq_models::JobId;
use naq_services::{JobService, JobSettings, NewJob, bare::sqlite::BareSqlite};
use tokio::task::spawn_blocking;

use super::{Bench, File, QUEUE};
use crate::{
    jobs::{self, KIND, Keep, RESULT_TTL},
    other_process::{OtherProcess, Role},
    plan::Served,
    report::{Found, Report},
    rounds::{compare, quantile},
};

/// Fewer than elsewhere: what would matter here is more than a few percent.
const ROUNDS: usize = 5;
/// Pruning a million takes a minute at most.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is seen whether all are pruned.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What is to become of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// They stay.
    ForLong,
    /// They have expired as soon as their jobs had ended.
    Expired,
}

impl Bench<'_> {
    async fn keeping(&self, kept: Kept) -> Result<File> {
        let count = self.plan.kept();
        eprintln!("  SQLite, a file with {count} results is made");
        let file = self.file("kept")?.made().await?;
        let now = file.now().await?;
        let body = jobs::result(QUEUE, now)?;
        let ttl = Duration::from_secs(if kept == Kept::ForLong { RESULT_TTL } else { 0 });
        let results = (1..=count as u64).rev().map(move |millis| {
            let ended = now.saturating_sub(Duration::from_millis(millis));
            let id = JobId::generate(ended, rand::random());
            (id.as_str().to_owned(), ended.saturating_add(ttl).unix_millis())
        });
        file.bare(move |bare| Ok(bare.keep(results, &body)?)).await?;
        Ok(file)
    }

    /// Whether what is kept makes anything slower.
    pub(super) async fn flatness(&self, report: &mut Report) -> Result<()> {
        let (jobs, kept) = (self.plan.jobs(), self.keeping(Kept::ForLong).await?);
        let row = |what: &str| format!("{what}, {} results in the file", grouped(self.plan.kept()));
        let found = |compared| {
            let against = "naq, the same with a fresh file".to_owned();
            Found::Ratio { compared, against, at_least: Some(0.80) }
        };

        let what = row("enqueue in bulk");
        let compared = compare(
            &format!("SQLite, {what}"),
            ROUNDS,
            jobs,
            async |_| {
                let took = self.enqueue_into(&kept).await?;
                let (ran, _) = kept.bare(|bare| Ok(bare.run(None, 1000)?)).await?;
                ensure!(ran == jobs, "{ran} of {jobs} jobs were taken out again");
                Ok(took)
            },
            async |_| self.enqueue_into(&self.file("fresh")?).await,
        )
        .await?;
        report.add("SQLite", &what, true, found(compared));

        let what = row("run with result");
        let compared = compare(
            &format!("SQLite, {what}"),
            ROUNDS,
            jobs,
            async |_| {
                self.fill(&kept, Keep::Result).await?;
                self.run_in(&kept).await
            },
            async |_| self.run_in(&self.filled(Keep::Result).await?).await,
        )
        .await?;
        report.add("SQLite", &what, true, found(compared));
        Ok(())
    }

    /// What pruning costs a producer: the scheduler of another process prunes, as that of a worker does.
    pub(super) async fn pruning(&self, report: &mut Report) -> Result<()> {
        let file = self.keeping(Kept::Expired).await?;
        let storage = file.open().await?;
        let service = JobService::new(storage.clone(), JobSettings::default());
        let before = enqueue_one_by_one(&service, |done| done < self.plan.samples()).await?;
        let scheduler = OtherProcess::start(Role::Scheduler, Served::Sqlite(file.path()))?;
        let pruned = spawn_blocking({
            let path = file.path();
            move || pruned(path)
        });
        let during = enqueue_one_by_one(&service, |_| !pruned.is_finished()).await?;
        let took = pruned.await??;
        scheduler.stop().await?;
        storage.close().await;

        let (p50_ms, p99_ms) = (quantile(&during, 0.5), quantile(&during, 0.99));
        let note = format!(
            "the longest {:.1} ms; before, p50 {:.2} ms and p99 {:.2} ms; all pruned after {:.1} s",
            quantile(&during, 1.0),
            quantile(&before, 0.5),
            quantile(&before, 0.99),
            took.as_secs_f64(),
        );
        let what = format!("enqueue one job while {} expired results are pruned", grouped(self.plan.kept()));
        let found = Found::Latency { p50_ms, p99_ms, samples: during.len(), p50_below_ms: None, note: Some(note) };
        report.add("SQLite", &what, true, found);
        Ok(())
    }
}

/// Enqueues single jobs as long as it should go on, which gets their number; returns how long each took, in milliseconds.
async fn enqueue_one_by_one(service: &JobService, go_on: impl Fn(usize) -> bool) -> Result<Vec<f64>> {
    let args = jobs::args();
    let mut millis = Vec::new();
    while go_on(millis.len()) {
        // Of different lengths, so as not to fall in step with the pruning.
        tokio::time::sleep(Duration::from_micros(rand::random_range(1_000..9_000))).await;
        let job = NewJob::new(KIND, &args);
        let begun = Instant::now();
        service.enqueue(job).await?;
        millis.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(millis)
}

/// Waits until the file keeps no result; returns for how long.
fn pruned(path: PathBuf) -> Result<Duration> {
    let begun = Instant::now();
    let bare = BareSqlite::open(&path)?;
    while bare.keeps_results()? {
        ensure!(begun.elapsed() < PATIENCE, "the results are not pruned");
        thread::sleep(LOOK_EVERY);
    }
    Ok(begun.elapsed())
}

/// A number with its digits in groups: `1 000 000`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(" ")
}
