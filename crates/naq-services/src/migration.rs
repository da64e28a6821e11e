//! [`Migration`]: everything that one store holds moves to another, in whatever backends they are.
//!
//! Invariant: what moves is durable at the destination before it leaves the source. A job is *held* at the destination until
//! the source has it no more (see `passage`), so that workers of the destination may run meanwhile. A migration that was cut
//! off at any point, and is called again, loses nothing and doubles nothing; `journal` says what was under way.
//!
//! The order: what somebody may look at goes before whoever looks at it. Pause flags, dead letters and results, queues,
//! scheduled jobs, jobs that wait for jobs (each after those it waits for), keys that outlive their job, schedules.
//!
//! Not here: keeping the leader of the source away (naq-worker), reading addresses, printing. Events, progress, and how often
//! a job was suspected stay behind.

use naq_models::{JobId, JobStatus, QueueName, Timestamp};
use serde::Serialize;

use crate::{
    JobService,
    storage::{Bucket, Lease, QueueStats},
};

mod ended;
mod error;
mod journal;
mod passage;
mod queues;
mod schedules;
mod waiting;

use error::storage;
pub use error::{MigrationError, MigrationErrorKind};
use journal::Journal;
use passage::Passage;

/// The result of a call here.
pub type Result<T, E = MigrationError> = std::result::Result<T, E>;

/// So many things that cannot be moved end a migration: something is wrong with the destination as a whole.
pub const LEFT_MAX: usize = 1_000;
/// Jobs a batch. Of a queue, so many of each priority, in a store that does not see across them.
const BATCH: usize = 256;
/// Orphaned ends that are finished at once.
const ORPHANS: usize = 1_000;

/// What became of a migration, or what there is to be moved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MigrationReport {
    /// Jobs of queues.
    pub pending: u64,
    /// Delayed jobs.
    pub scheduled: u64,
    /// Jobs that wait for their next attempt.
    pub retry: u64,
    /// Jobs that wait for other jobs.
    pub waiting: u64,
    /// Dead letters.
    pub dead: u64,
    /// Results, without those of dead letters.
    pub results: u64,
    /// Recurring jobs.
    pub schedules: u64,
    /// Of these, those that the destination had already: its own stay, with their own state.
    pub schedules_there: u64,
    /// Pause flags.
    pub paused_queues: u64,
    /// Jobs whose id the destination knew already: there they stay as they are.
    pub duplicates: u64,
    /// What could not be moved and is still at the source.
    pub left: Vec<Left>,
    /// Jobs and dead letters that the source holds at the end: those left, those that producers added meanwhile, and those
    /// that are claimed by somebody.
    pub remaining: u64,
}

/// Something that could not be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// What it is.
    pub what: LeftWhat,
    /// Its id; of a claimed job that nobody gives back, its queue.
    pub id: String,
    /// Why it is left.
    pub reason: String,
}

/// See [`Left`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftWhat {
    /// A job that is pending, scheduled, or waits.
    Job,
    /// A dead letter.
    DeadLetter,
    /// A result.
    Result,
    /// Jobs of a queue that are claimed by somebody who is not registered.
    Claimed,
}

impl MigrationReport {
    fn count(&mut self, status: JobStatus) {
        match status {
            JobStatus::Scheduled => self.scheduled += 1,
            JobStatus::Retry => self.retry += 1,
            JobStatus::Waiting => self.waiting += 1,
            _ => self.pending += 1,
        }
    }

    /// How many things have been moved.
    #[must_use]
    pub fn moved(&self) -> u64 {
        let jobs = self.pending + self.scheduled + self.retry + self.waiting;
        jobs + self.dead + self.results + self.schedules + self.paused_queues
    }
}

/// Looks at the progress; called after each batch, must not block.
pub type Watcher<'a> = &'a (dyn Fn(&MigrationReport) + Send + Sync);

/// A move from one store to another. The settings of `from` say how its queues are opened.
#[derive(Debug, Clone)]
pub struct Migration {
    from: JobService,
    to: JobService,
}

impl Migration {
    /// A migration; nothing is touched yet.
    #[must_use]
    pub fn new(from: JobService, to: JobService) -> Self {
        Self { from, to }
    }

    /// Moves everything. Nobody else may lead the source's scheduler meanwhile (`naq_worker::LockHold`), and no worker
    /// may serve the source; producers should write to the destination already.
    ///
    /// # Errors
    /// If workers are registered at the source, if both are one store, if a migration of the source to another
    /// destination was cut off, or if a store fails. Called again, it goes on.
    ///
    /// # Cancel safety
    /// Dropping the future is as good as a kill: call it again. Claimed jobs are free again when their lease has run out.
    pub async fn run(&self, watcher: Watcher<'_>) -> Result<MigrationReport> {
        let (from, to) = (&self.from, &self.to);
        check_unserved(from).await?;
        let failed = storage("cannot finish cancels that were cut off");
        while from.storage().finish_orphans(ORPHANS).await.map_err(&failed)? > 0 {}
        let (journal, moving) = Journal::open(from, to).await?;
        let mut run = Run { from, to, journal, watcher, report: MigrationReport::default(), kept: Vec::new() };
        run.recover(moving).await?;
        run.fire_pending().await?;
        run.carry_pauses().await?;
        run.carry_dead_letters().await?;
        run.carry_all_results().await?;
        run.carry_queues().await?;
        run.carry_scheduled().await?;
        // What ended meanwhile, or whose end was completed when it was claimed.
        run.carry_dead_letters().await?;
        run.carry_all_results().await?;
        run.carry_waiting().await?;
        run.carry_keys().await?;
        run.carry_schedules().await?;
        run.report.remaining = remaining(from).await?;
        if run.report.remaining == 0 {
            run.remove_pauses().await?;
        }
        let Run { journal, report, .. } = run;
        journal.close(from, to).await?;
        Ok(report)
    }
}

/// What there is to be moved. Claimed jobs count as pending.
///
/// # Errors
/// If the source fails.
pub async fn count(from: &JobService) -> Result<MigrationReport> {
    let mut report = MigrationReport::default();
    let failed = storage("cannot look at the source");
    let source = from.storage();
    for stats in source.queue_stats(None).await.map_err(&failed)? {
        report.pending += stats.pending.iter().sum::<u64>() + stats.running;
        report.scheduled += stats.scheduled;
        report.retry += stats.retry;
        report.waiting += stats.waiting;
        report.dead += stats.failed;
        report.remaining += stats.jobs();
    }
    report.results = ended::count(from).await?;
    report.schedules = source.kv_list(Bucket::Schedules, "").await.map_err(&failed)?.len() as u64;
    let flags = source.kv_list(Bucket::Control, crate::jobs::PAUSE_PREFIX).await.map_err(&failed)?;
    report.paused_queues = flags.len() as u64;
    Ok(report)
}

/// A migration under way.
struct Run<'a> {
    from: &'a JobService,
    to: &'a JobService,
    journal: Journal,
    watcher: Watcher<'a>,
    report: MigrationReport,
    /// Claims on jobs of the present queue that are left: given back at its end, so that they do not come again at once.
    kept: Vec<Lease>,
}

impl Run<'_> {
    fn tell(&self) {
        (self.watcher)(&self.report);
    }

    async fn now(&self) -> Result<Timestamp> {
        self.from.storage().now().await.map_err(storage("cannot ask the source for its time"))
    }

    /// Notes what stays at the source, once.
    fn left(&mut self, what: LeftWhat, id: impl ToString, reason: impl Into<String>) -> Result<()> {
        let left = Left { what, id: id.to_string(), reason: reason.into() };
        if self.report.left.iter().any(|known| known.what == what && known.id == left.id) {
            return Ok(());
        }
        if self.report.left.len() == LEFT_MAX {
            let message =
                format!("more than {LEFT_MAX} things cannot be moved; the last, {}: {}", left.id, left.reason);
            return Err(MigrationError::new(MigrationErrorKind::TooManyLeft, message));
        }
        self.report.left.push(left);
        Ok(())
    }

    /// Leaves a job where it is.
    fn leave(&mut self, passage: Passage, reason: String) -> Result<()> {
        let id: JobId = passage.id().clone();
        if let passage::Place::Claimed { lease, .. } = passage.place {
            self.kept.push(lease);
        }
        self.left(LeftWhat::Job, id, reason)
    }
}

async fn check_unserved(from: &JobService) -> Result<()> {
    let workers = from.storage().kv_list(Bucket::Workers, "").await.map_err(storage("cannot look for workers"))?;
    if workers.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = workers.iter().map(|worker| worker.key.as_str()).take(5).collect();
    let message = format!("{} workers serve the source: {}", workers.len(), names.join(", "));
    Err(MigrationError::new(MigrationErrorKind::Occupied, message)
        .with_hint("stop them; one that was killed is forgotten after workers.ttl"))
}

/// Jobs and dead letters of a store.
async fn remaining(jobs: &JobService) -> Result<u64> {
    let stats = jobs.storage().queue_stats(None).await.map_err(storage("cannot count the jobs of the source"))?;
    Ok(stats.iter().map(QueueStats::jobs).sum())
}

/// Queues that hold jobs.
async fn queues_with_jobs(from: &JobService) -> Result<Vec<QueueName>> {
    let stats = from.storage().queue_stats(None).await.map_err(storage("cannot look at the queues of the source"))?;
    let busy = stats.into_iter().filter(|stats| stats.running > 0 || stats.pending.iter().any(|count| *count > 0));
    Ok(busy.map(|stats| stats.queue).collect())
}
