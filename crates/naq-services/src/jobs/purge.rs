//! Emptying a queue: [`JobService::purge_queue`].
//!
//! Invariant: a purged job was claimed and is settled like any other, as `cancelled` with error type `purged`; what a
//! worker runs is never touched, and what cannot be read goes to the dead letters like everywhere else.

use std::{collections::HashSet, sync::Arc, time::Duration};

use naq_models::{
    DecodeError, EventType, Job, JobError, JobId, JobResult, JobStatus, Priority, QueueName, Timestamp, error_type,
    wire,
};

use super::{JobService, JobServiceError, JobServiceErrorKind, Result, change::undecodable};
use crate::storage::{
    Action, Claim, Consumer, ConsumerEvent, ConsumerOptions, DeadLetter, Demand, Lane, Lease, ResultRecord, RunningAt,
    RunningJobs, Settled, Settlement,
};

/// Jobs claimed at once; of each priority in a store that does not see across them.
const BATCH: usize = 256;
/// Without a sign of the store for so long the purge ends with an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// A purge runs nothing.
struct Nothing;

impl RunningJobs for Nothing {
    fn running(&self, _: &JobId) -> Option<RunningAt> {
        None
    }
}

impl JobService {
    /// Cancels the pending jobs of a queue and returns how many. Running, scheduled and waiting jobs stay, and so may
    /// jobs that are enqueued meanwhile.
    ///
    /// # Errors
    /// If the store fails; what was purged by then stays purged.
    ///
    /// # Cancel safety
    /// Jobs that were claimed and not yet settled when the future is dropped come back when their lease runs out.
    pub async fn purge_queue(&self, queue: &QueueName) -> Result<u64> {
        let failed = |source| JobServiceError::storage(format!("cannot purge queue {queue}"), source);
        // The bound of the work, while producers go on.
        let goal: u64 = self.queue(queue).await?.pending;
        if goal == 0 {
            return Ok(0);
        }
        let options = ConsumerOptions {
            worker_id: format!("purge-{}", JobId::generate(Timestamp::EPOCH, rand::random())),
            queues: vec![self.settings().options_of(queue)],
            running: Arc::new(Nothing),
        };
        let mut consumer = self.storage().open_consumer(options).await.map_err(failed)?;
        let purged = self.purge(queue, goal, consumer.as_mut()).await;
        let closed = consumer.close().await.map_err(failed);
        let purged = purged?;
        self.tell_queue(EventType::QueuePurged, queue, Some(purged));
        closed.map(|()| purged)
    }

    async fn purge(&self, queue: &QueueName, goal: u64, consumer: &mut dyn Consumer) -> Result<u64> {
        let (mut seen, mut purged, mut empty) = (0, 0, HashSet::new());
        consumer.demand(full());
        while seen < goal {
            let Ok(event) = tokio::time::timeout(PATIENCE, consumer.next()).await else {
                let message = format!("cannot purge queue {queue}: the store has not answered for 30 s");
                return Err(JobServiceError::new(JobServiceErrorKind::TimedOut, message));
            };
            match event {
                ConsumerEvent::Claimed(claims) => {
                    seen += claims.len() as u64;
                    empty.retain(|lane| claims.iter().all(|claim| claim.lane != *lane));
                    purged += self.purge_claims(queue, claims).await?;
                    consumer.demand(full());
                }
                ConsumerEvent::Empty(lanes) => {
                    empty.extend(lanes);
                    if empty.len() == Priority::ALL.len() {
                        break;
                    }
                }
                ConsumerEvent::Trouble(source) if source.is_transient() => {}
                ConsumerEvent::Trouble(source) => {
                    return Err(JobServiceError::storage(format!("cannot purge queue {queue}"), source));
                }
            }
        }
        Ok(purged)
    }

    async fn purge_claims(&self, queue: &QueueName, claims: Vec<Claim>) -> Result<u64> {
        let failed = |source| JobServiceError::storage(format!("cannot purge queue {queue}"), source);
        let now = self.store_time().await?;
        let (mut settlements, mut back, mut refused) = (Vec::with_capacity(claims.len()), Vec::new(), None);
        for claim in claims {
            let lease = claim.lease.clone();
            match self.purge_settlement(claim, now).await {
                Ok(settlement) => settlements.push(settlement),
                Err(error) => {
                    back.push(lease);
                    refused = Some(error);
                }
            }
        }
        let leases: Vec<(Lease, JobId)> =
            settlements.iter().map(|settlement| (settlement.lease.clone(), settlement.address.id.clone())).collect();
        let mut purged = Vec::new();
        let outcomes = self.storage().settle(settlements).await;
        for ((lease, id), outcome) in leases.into_iter().zip(outcomes) {
            match outcome {
                Ok(Settled::Done) => purged.push(id),
                Ok(Settled::AlreadyEnded | Settled::LeaseLost) => {}
                Err(source) => {
                    back.push(lease);
                    refused = Some(failed(source));
                }
            }
        }
        if !back.is_empty() {
            self.storage().hand_back(back).await.map_err(failed)?;
        }
        let count = purged.len() as u64;
        let error = JobError::new(error_type::PURGED, format!("purged from queue {queue}"), now);
        self.tell_cancelled(purged.into_iter().map(|id| (id, queue.clone())), &error);
        refused.map_or(Ok(count), Err)
    }

    async fn purge_settlement(&self, claim: Claim, now: Timestamp) -> Result<Settlement> {
        let id = claim.address.id.clone();
        let job = match wire::decode(&claim.body, &claim.address) {
            Ok(job) => Ok(job),
            Err(cause @ DecodeError::BincodeNotBuilt) => return Err(undecodable("purge", &id, cause)),
            Err(cause) => Err(cause),
        };
        let mut clear_scheduled = false;
        if claim.doubtful {
            let review = self.storage().review(&claim).await;
            let review = review.map_err(|source| JobServiceError::storage(format!("cannot purge job {id}"), source))?;
            let run = job.as_ref().map_or(0, |job| job.run);
            if review.scheduled_run.is_some_and(|waiting| waiting > run) {
                // It has moved on, and what lies here is what is left of it.
                let action = Action::End { result: None, dead_letter: None, unique_key: None };
                let Claim { lease, address, .. } = claim;
                return Ok(Settlement { lease, address, action, fenced: false, clear_scheduled: false });
            }
            clear_scheduled = review.scheduled_run.is_some();
        }
        let action = match job {
            Ok(job) => {
                let (result, unique_key) = (self.purged_result(&job, now), job.key_freed_at_end());
                Action::End { result, dead_letter: None, unique_key }
            }
            Err(cause) => self.undecodable_end(&claim, &cause, now),
        };
        let Claim { lease, address, .. } = claim;
        Ok(Settlement { lease, address, action, fenced: false, clear_scheduled })
    }

    fn purged_result(&self, job: &Job, now: Timestamp) -> Option<ResultRecord> {
        let error = JobError::new(error_type::PURGED, format!("purged from queue {}", job.queue), now);
        self.cancelled_result(job, error.permanent())
    }

    fn undecodable_end(&self, claim: &Claim, cause: &DecodeError, now: Timestamp) -> Action {
        let address = claim.address.clone();
        let error = JobError::new(error_type::DECODE, cause.to_string(), now).permanent();
        let result = JobResult {
            id: address.id.clone(),
            status: JobStatus::Failed,
            result: None,
            error: Some(error.clone()),
            job: None,
            kind: String::new(),
            queue: address.queue.clone(),
            attempt: 1,
            worker_id: None,
            run_at: None,
            enqueued_at: address.stored_at,
            started_at: None,
            finished_at: now,
        };
        let ttl = self.settings().defaults.result_ttl;
        let record = (!ttl.is_zero()).then(|| ResultRecord {
            status: JobStatus::Failed,
            body: result.encode().into(),
            generation: 0,
            ttl,
        });
        Action::End {
            result: record,
            dead_letter: Some(DeadLetter { address, body: claim.body.clone(), error, kind: None }),
            unique_key: None,
        }
    }
}

fn full() -> Demand {
    let lanes = Priority::ALL.map(|priority| (Lane { queue: 0, priority }, BATCH));
    Demand { lanes: lanes.to_vec() }
}
