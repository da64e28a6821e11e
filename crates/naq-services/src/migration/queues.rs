//! The jobs of queues: claimed like any worker's, carried in batches, given back if they are left.
//!
//! Invariant: nothing is taken from under a lease: a job that a dead worker holds comes when its lease has run out. Every
//! wait is bounded.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use naq_models::{JobError, JobId, JobResult, JobStatus, Priority, QueueName, error_type, wire};

use super::{
    BATCH, LeftWhat, MigrationError, MigrationErrorKind, Passage, Result, Run,
    error::storage,
    passage::{Place, entry_of},
    queues_with_jobs,
};
use crate::storage::{
    Action, Claim, Consumer, ConsumerEvent, ConsumerOptions, DeadLetter, Demand, Heartbeat, Lane, QueueOptions,
    RunningAt, RunningJobs, Settlement, StoredResult,
};

/// How long a batch waits for more of what is on its way.
const GATHER: Duration = Duration::from_millis(5);
/// How often leases and claims of others are looked after.
const LOOK: Duration = Duration::from_millis(500);
/// How long a claim of somebody else may outlast a lease.
const GRACE: Duration = Duration::from_secs(30);

/// A migration runs nothing.
struct Nothing;

impl RunningJobs for Nothing {
    fn running(&self, _: &JobId) -> Option<RunningAt> {
        None
    }
}

/// What is known of one queue while it is emptied.
struct Emptying<'a> {
    queue: &'a QueueOptions,
    heartbeat: Box<dyn Heartbeat>,
    empty: HashSet<Lane>,
    /// When a job came last.
    came: Instant,
    beaten: Instant,
}

impl Run<'_> {
    pub(super) async fn carry_queues(&mut self) -> Result<()> {
        for queue in queues_with_jobs(self.from).await? {
            self.carry_queue(&queue).await?;
        }
        Ok(())
    }

    async fn carry_queue(&mut self, queue: &QueueName) -> Result<()> {
        let failed = storage("cannot claim jobs of the source");
        // No limit of a worker's: what is left would use it up.
        let options = QueueOptions { max_ack_pending: None, ..self.from.settings().options_of(queue) };
        let source = self.from.storage();
        let heartbeat = source.open_heartbeat().await.map_err(&failed)?;
        let consumer = source.open_consumer(ConsumerOptions {
            worker_id: format!("migration-{}", self.journal.name),
            queues: vec![options.clone()],
            running: Arc::new(Nothing),
        });
        let mut consumer = consumer.await.map_err(&failed)?;
        let now = Instant::now();
        let emptying = Emptying { queue: &options, heartbeat, empty: HashSet::new(), came: now, beaten: now };
        let emptied = self.empty(emptying, consumer.as_mut()).await;
        let kept = std::mem::take(&mut self.kept);
        let given_back = source.hand_back(kept).await;
        let closed = consumer.close().await;
        emptied?;
        given_back.and(closed).map_err(failed)
    }

    async fn empty(&mut self, mut at: Emptying<'_>, consumer: &mut dyn Consumer) -> Result<()> {
        consumer.demand(full());
        loop {
            self.keep(&mut at).await;
            let all_empty = at.empty.len() == Priority::ALL.len();
            match tokio::time::timeout(LOOK, consumer.next()).await {
                Ok(ConsumerEvent::Claimed(claims)) => {
                    let claims = gather(claims, consumer, &mut at.empty).await;
                    self.carry_claims(claims).await?;
                    at.came = Instant::now();
                    consumer.demand(full());
                }
                Ok(ConsumerEvent::Empty(lanes)) => {
                    at.empty.extend(lanes);
                    if at.empty.len() == Priority::ALL.len() && self.claimed_by_others(at.queue).await? == 0 {
                        return Ok(());
                    }
                }
                Ok(ConsumerEvent::Trouble(error)) if !error.is_transient() => {
                    return Err(storage("cannot claim jobs of the source")(error));
                }
                Ok(ConsumerEvent::Trouble(_)) | Err(_) => {
                    let patience = at.queue.lease + GRACE;
                    let waits = if all_empty { self.claimed_by_others(at.queue).await? } else { 1 };
                    if waits == 0 {
                        return Ok(());
                    }
                    if at.came.elapsed() < patience {
                        continue;
                    }
                    let name = &at.queue.name;
                    if !all_empty {
                        let message = format!("queue {name} of the source gave no sign for {patience:?}");
                        return Err(MigrationError::new(MigrationErrorKind::Silent, message));
                    }
                    return self.left(
                        LeftWhat::Claimed,
                        name,
                        format!("{waits} jobs are claimed by somebody who keeps them"),
                    );
                }
            }
        }
    }

    /// Keeps the claims on jobs that are left. One that is lost comes again, and is left again.
    async fn keep(&self, at: &mut Emptying<'_>) {
        if at.beaten.elapsed() * 4 < at.queue.lease || self.kept.is_empty() {
            return;
        }
        at.beaten = Instant::now();
        at.heartbeat.extend(&self.kept).await;
    }

    /// Jobs of a queue that are claimed, but not by this migration.
    async fn claimed_by_others(&self, queue: &QueueOptions) -> Result<u64> {
        let stats = self.from.storage().queue_stats(Some(&queue.name)).await;
        let stats = stats.map_err(storage("cannot look at a queue of the source"))?;
        let running: u64 = stats.iter().map(|stats| stats.running).sum();
        Ok(running.saturating_sub(self.kept.len() as u64))
    }

    async fn carry_claims(&mut self, claims: Vec<Claim>) -> Result<()> {
        let (mut passages, mut done) = (Vec::with_capacity(claims.len()), Vec::new());
        for claim in claims {
            let job = wire::decode(&claim.body, &claim.address).ok();
            let mut clear_scheduled = false;
            if claim.doubtful {
                let review = self.from.storage().review(&claim).await.map_err(storage("cannot review a job"))?;
                let (run, generation) = job.as_ref().map_or((1, 0), |job| (job.run, job.generation));
                if review.scheduled_run.is_some_and(|waiting| waiting > run) {
                    // It has moved on, and what lies here is what is left of it.
                    done.push(end(claim, None, None, false));
                    continue;
                }
                clear_scheduled = review.scheduled_run.is_some();
                if let Some(result) = review.result.filter(|result| result.revision > generation) {
                    let letter = letter_of(&claim, &result);
                    let key = job.and_then(|job| job.key_freed_at_end());
                    done.push(end(claim, letter, key, clear_scheduled));
                    continue;
                }
            }
            let Claim { lease, address, body, .. } = claim;
            let entry = entry_of(address, body, job.as_ref(), JobStatus::Pending);
            passages.push(Passage::new(entry, job, Place::Claimed { lease, clear_scheduled }));
        }
        for settled in self.from.storage().settle(done).await {
            settled.map_err(storage("cannot finish a job that had ended"))?;
        }
        self.carry(passages).await
    }
}

/// More claims, as far as they are on their way.
async fn gather(mut claims: Vec<Claim>, consumer: &mut dyn Consumer, empty: &mut HashSet<Lane>) -> Vec<Claim> {
    empty.retain(|lane| claims.iter().all(|claim| claim.lane != *lane));
    while claims.len() < BATCH {
        match tokio::time::timeout(GATHER, consumer.next()).await {
            Ok(ConsumerEvent::Claimed(more)) => {
                empty.retain(|lane| more.iter().all(|claim| claim.lane != *lane));
                claims.extend(more);
            }
            Ok(ConsumerEvent::Empty(lanes)) => empty.extend(lanes),
            // Trouble comes again if it lasts.
            Ok(ConsumerEvent::Trouble(_)) | Err(_) => break,
        }
    }
    claims
}

/// Completes the end of a job that has a result.
fn end(claim: Claim, dead_letter: Option<DeadLetter>, unique_key: Option<String>, clear_scheduled: bool) -> Settlement {
    let action = Action::End { result: None, dead_letter, unique_key };
    let Claim { lease, address, .. } = claim;
    Settlement { lease, address, action, fenced: false, clear_scheduled }
}

/// The dead letter that a failure asks for.
fn letter_of(claim: &Claim, result: &StoredResult) -> Option<DeadLetter> {
    let ended = JobResult::decode(&result.body).ok().filter(|ended| ended.status == JobStatus::Failed)?;
    let unexplained = || JobError::new(error_type::ERROR, "the job failed", ended.finished_at).permanent();
    Some(DeadLetter {
        address: claim.address.clone(),
        body: claim.body.clone(),
        error: ended.error.clone().unwrap_or_else(unexplained),
        kind: (!ended.kind.is_empty()).then(|| ended.kind.clone()),
    })
}

fn full() -> Demand {
    let lanes = Priority::ALL.map(|priority| (Lane { queue: 0, priority }, BATCH));
    Demand { lanes: lanes.to_vec() }
}
