//! The steps of a fire, for whoever leads: look at the last run, advance, publish, note as published.
//!
//! Invariant: in this order. Advancing records the fires by compare-and-set, so that one of two leaders owns them;
//! publishing enqueues them under the ids of their runs, so that twice stores once; only what is stored (or can never
//! be) is noted as published. A crash between any two leaves fires in `pending`, which the next leader publishes.

use naq_models::{
    ScheduleId, ScheduleRecord, Timestamp,
    schedule::{LastRun, MIN_RESULT_TTL, TOLERANCE},
};

use super::{ROUNDS, Result, SchedulerService, SchedulerServiceError, SchedulerServiceErrorKind, StoredSchedule};
use crate::{JobServiceError, JobServiceErrorKind, StorageErrorKind};

/// What became of fires that were to be published.
#[derive(Debug)]
#[must_use]
pub struct Published {
    /// Those that are stored, or refused for good (which is logged).
    pub done: Vec<Timestamp>,
    /// Why the others are not; they stay pending.
    pub trouble: Option<JobServiceError>,
}

impl SchedulerService {
    /// What is known of the last run of a schedule; asks the store only if the schedule's policy looks at it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn last_run(&self, record: &ScheduleRecord) -> Result<LastRun> {
        let Some(id) = record.last_run_id.as_ref().filter(|_| record.definition.looks_at_last_run()) else {
            return Ok(LastRun::Unknown);
        };
        match self.jobs.status(id).await {
            Ok(view) if view.status.is_terminal() => Ok(LastRun::Ended(view.finished_at.unwrap_or(view.enqueued_at))),
            Ok(_) => Ok(LastRun::Live),
            Err(error) if error.kind() == JobServiceErrorKind::NotFound => Ok(LastRun::Unknown),
            // It ended, whenever: what is unreadable does not run.
            Err(error) if error.kind() == JobServiceErrorKind::Undecodable => Ok(LastRun::Unknown),
            Err(error) => Err(SchedulerServiceError::job(format!("cannot look at run {id}"), error)),
        }
    }

    /// Records what is due at `now` and moves on, by compare-and-set. `None` if somebody else changed the schedule
    /// first, or it was removed; the same record if nothing was due.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn advance(
        &self,
        stored: &StoredSchedule,
        now: Timestamp,
        last_run: LastRun,
    ) -> Result<Option<StoredSchedule>> {
        let next = stored.record.advance(now, last_run, TOLERANCE).record;
        if next == stored.record {
            return Ok(Some(stored.clone()));
        }
        match self.write(&next, Some(stored.revision)).await {
            Ok(revision) => Ok(Some(StoredSchedule { record: next, revision })),
            Err(source) if is_lost(source.kind()) => Ok(None),
            Err(source) => {
                Err(SchedulerServiceError::storage(format!("cannot advance schedule {}", stored.record.id), source))
            }
        }
    }

    /// Enqueues the runs of these due times. What is in the store already is done too.
    pub async fn publish(&self, record: &ScheduleRecord, fires: &[Timestamp]) -> Published {
        let id = &record.id;
        let mut published = Published { done: Vec::new(), trouble: None };
        let now = match self.jobs.storage().now().await {
            Ok(now) => now,
            Err(source) => {
                published.trouble = Some(JobServiceError::storage("cannot ask the store for its time", source));
                return published;
            }
        };
        let runs = fires.iter().map(|due| {
            let mut run = record.job(*due, now);
            // Whoever publishes a second time, late, is to find the result of the first.
            run.result_ttl = run.result_ttl.max(MIN_RESULT_TTL);
            run
        });
        let outcomes = self.jobs.enqueue_raw_many(runs.collect()).await;
        for (due, outcome) in fires.iter().zip(outcomes) {
            match outcome {
                Ok(receipt) => {
                    tracing::debug!(schedule = %id, job = %receipt.job_id, duplicate = receipt.duplicate, "fired");
                    if !receipt.duplicate {
                        self.tell_fired(record, &receipt.job_id, *due);
                    }
                    published.done.push(*due);
                }
                Err(error) if is_for_good(&error) => {
                    let cause = &error as &dyn std::error::Error;
                    tracing::error!(schedule = %id, %due, error = cause, "a run can never be enqueued and is left out");
                    self.tell_error(id, &error);
                    published.done.push(*due);
                }
                Err(error) => published.trouble = Some(error),
            }
        }
        published
    }

    /// Notes fires as published, whatever else has changed meanwhile. `None` if the schedule is gone.
    ///
    /// # Errors
    /// If the store fails, or the schedule keeps changing.
    pub async fn published(&self, id: &ScheduleId, done: &[Timestamp]) -> Result<Option<ScheduleRecord>> {
        let stored = self.read(id).await?;
        Ok(match stored {
            Some(stored) => self.published_from(stored, done).await?.map(|stored| stored.record),
            None => None,
        })
    }

    /// The same for who knows the record; reads it only if it has changed.
    ///
    /// # Errors
    /// As [`published`](Self::published).
    pub async fn published_from(
        &self,
        mut stored: StoredSchedule,
        done: &[Timestamp],
    ) -> Result<Option<StoredSchedule>> {
        let id = stored.record.id.clone();
        for _ in 0..ROUNDS {
            let next = stored.record.published(done);
            if next == stored.record {
                return Ok(Some(stored));
            }
            match self.write(&next, Some(stored.revision)).await {
                Ok(revision) => return Ok(Some(StoredSchedule { record: next, revision })),
                Err(source) if is_lost(source.kind()) => {}
                Err(source) => {
                    let message = format!("cannot note the runs of schedule {id} as enqueued");
                    return Err(SchedulerServiceError::storage(message, source));
                }
            }
            match self.read(&id).await? {
                Some(fresh) => stored = fresh,
                None => return Ok(None),
            }
        }
        let message = format!("cannot note the runs of schedule {id} as enqueued: it keeps changing");
        Err(SchedulerServiceError::new(SchedulerServiceErrorKind::Conflict, message))
    }
}

fn is_lost(kind: StorageErrorKind) -> bool {
    matches!(kind, StorageErrorKind::Conflict | StorageErrorKind::NotFound)
}

/// Whether trying again can never help.
fn is_for_good(error: &JobServiceError) -> bool {
    matches!(error.kind(), JobServiceErrorKind::InvalidJob | JobServiceErrorKind::TooLarge)
}
