//! Taking one key: who has it, whether that still counts, and what to do once the job is stored or refused.
//!
//! Invariant: a key is written by create, or by compare-and-set on the very value that was judged. A failure after the job is
//! stored is no failure of the enqueue: what it leaves undone is made up for by others (see the module above).

use bytes::Bytes;
use naq_models::{JobId, JobStatus, OnConflict, Timestamp, UniqueHolder, UniqueWhile, error_type};

use super::{STALE, Want, taken};
use crate::{
    StorageErrorKind,
    jobs::{
        JobService, JobServiceError, JobServiceErrorKind, Receipt, Result, enqueue::duplicate_receipt, sight::Trace,
    },
    storage::{Bucket, KvEntry, crash::crash_point},
};

/// How often a key is tried that changes at each look.
const TRIES: usize = 8;

/// What came of asking for a key.
pub(super) enum Take {
    /// It names this job now.
    Held(Hold),
    /// Another job has it, and that is the answer.
    Taken(Receipt),
    /// It names a job that is not there yet.
    Wait,
}

/// A key that names this job.
pub(super) struct Hold {
    mine: UniqueHolder,
    revision: u64,
    /// This call has written it; otherwise another call did for the same job.
    fresh: bool,
    /// What it said of the live job that is to be replaced.
    before: Option<Bytes>,
}

/// Whether the key of another job can be had.
enum Judged {
    Free,
    /// It names this job in this life.
    Mine,
    Wait,
    /// This job has it.
    Held(Receipt),
}

/// Where the life stands that a key speaks of.
enum Life {
    Live(Trace),
    Ended(Option<Trace>),
    Absent,
}

impl JobService {
    pub(super) async fn take(&self, want: &Want) -> Result<Take> {
        let failed = |source| JobServiceError::storage(format!("cannot take the unique key {:?}", want.key), source);
        for _ in 0..TRIES {
            let now = self.store_time().await?;
            let mine = want.holder(now);
            let created = self.storage().kv_create(Bucket::Unique, &want.place, mine.encode().into(), want.ttl).await;
            match created {
                Ok(revision) => {
                    crash_point("jobs.unique.key");
                    return Ok(Take::Held(Hold { mine, revision, fresh: true, before: None }));
                }
                Err(source) if source.kind() == StorageErrorKind::Conflict => {}
                Err(source) => return Err(failed(source)),
            }
            let Some(found) = self.storage().kv_get(Bucket::Unique, &want.place).await.map_err(failed)? else {
                continue;
            };
            let holder = UniqueHolder::decode(&found.value).map_err(|source| unreadable(want, source))?;
            let (replaced, before) = match self.judge(want, &holder, now).await? {
                Judged::Wait => return Ok(Take::Wait),
                Judged::Mine => {
                    return Ok(Take::Held(Hold { mine: holder, revision: found.revision, fresh: false, before: None }));
                }
                Judged::Free => (None, None),
                Judged::Held(receipt) => match want.on_conflict {
                    OnConflict::Replace if can_be_replaced(receipt.status) => {
                        (Some(receipt.job_id), Some(found.value.clone()))
                    }
                    OnConflict::Existing | OnConflict::Replace => return Ok(Take::Taken(receipt)),
                    OnConflict::Error => return Err(taken(want, &receipt)),
                },
            };
            let mine = UniqueHolder { replaces: replaced, ..mine };
            if let Some(revision) = self.take_over(want, &found, &mine).await.map_err(failed)? {
                crash_point("jobs.unique.takeover");
                return Ok(Take::Held(Hold { mine, revision, fresh: true, before }));
            }
        }
        Ok(Take::Wait)
    }

    /// The new revision of the key; `None` if it has changed.
    async fn take_over(
        &self,
        want: &Want,
        found: &KvEntry,
        mine: &UniqueHolder,
    ) -> crate::storage::Result<Option<u64>> {
        let (value, revision) = (mine.encode().into(), found.revision);
        match self.storage().kv_update(Bucket::Unique, &want.place, value, revision, want.ttl).await {
            Ok(revision) => Ok(Some(revision)),
            Err(source) if source.kind() == StorageErrorKind::Conflict => Ok(None),
            Err(source) => Err(source),
        }
    }

    async fn judge(&self, want: &Want, holder: &UniqueHolder, now: Timestamp) -> Result<Judged> {
        if holder.id == want.id && holder.generation == want.generation {
            return Ok(Judged::Mine);
        }
        if holder.expires_at.is_some_and(|end| end <= now) {
            return Ok(Judged::Free);
        }
        match self.life(&holder.id, holder.generation).await? {
            Life::Live(trace) => return Ok(Judged::Held(duplicate_receipt(&trace))),
            Life::Ended(trace) if holder.holds == UniqueWhile::Ttl => {
                let receipt = trace.map_or_else(|| want.receipt_of_gone(holder), |trace| duplicate_receipt(&trace));
                return Ok(Judged::Held(receipt));
            }
            Life::Ended(_) => return Ok(Judged::Free),
            Life::Absent => {}
        }
        if holder.stored {
            return Ok(Judged::Held(want.receipt_of_gone(holder)));
        }
        // A time to come is a foreign producer's wrong clock: it says nothing.
        if now.since(holder.since) < STALE && holder.since.since(now) < STALE {
            return Ok(Judged::Wait);
        }
        // Its producer died before it stored the job, and before it ended the one whose place the job was to take.
        if let Some(replaced) = &holder.replaces
            && let Life::Live(trace) = self.life(replaced, 0).await?
        {
            return Ok(Judged::Held(duplicate_receipt(&trace)));
        }
        Ok(Judged::Free)
    }

    async fn life(&self, id: &JobId, generation: u64) -> Result<Life> {
        let traces = match self.traces(id).await {
            Ok(traces) => traces,
            Err(error) if error.kind() == JobServiceErrorKind::NotFound => return Ok(Life::Absent),
            // It has a result, whatever that says.
            Err(error) if error.kind() == JobServiceErrorKind::Undecodable => return Ok(Life::Ended(None)),
            Err(error) => return Err(error),
        };
        Ok(match Trace::newest(traces) {
            None => Life::Absent,
            Some(trace @ (Trace::Queued { .. } | Trace::Scheduled { .. })) => Life::Live(trace),
            Some(Trace::Ended { revision, .. }) if revision <= generation => Life::Absent,
            Some(Trace::Dead { job: Ok(job), .. }) if job.generation < generation => Life::Absent,
            Some(trace) => Life::Ended(Some(trace)),
        })
    }

    /// What follows the attempt to store the job of a held key.
    pub(super) async fn after_storing(&self, want: &Want, hold: &Hold, stored: &Result<Receipt>) {
        match stored {
            Ok(receipt) if !receipt.duplicate => {
                if want.holds == UniqueWhile::Ttl {
                    self.note_stored(want, hold).await;
                }
                self.end_replaced(want, hold).await;
            }
            // The id is taken. If the job that has it has the key too, it was stored by a call for the same job.
            Ok(_) if !hold.fresh || self.lives_with_key(want).await => self.end_replaced(want, hold).await,
            Ok(_) => self.give_back(want, hold).await,
            Err(error) if hold.fresh && is_refusal(error.kind()) => self.give_back(want, hold).await,
            // Stored or not: the key tells in half a minute.
            Err(_) => {}
        }
    }

    /// What follows if the job of a held key is not stored for certain, whoever has its id.
    pub(super) async fn after_refusal(&self, want: &Want, hold: &Hold) {
        if hold.fresh && !self.lives_with_key(want).await {
            self.give_back(want, hold).await;
        }
    }

    async fn lives_with_key(&self, want: &Want) -> bool {
        match self.life(&want.id, want.generation).await {
            Ok(Life::Live(trace)) => {
                let unique = trace.job().and_then(|job| job.unique.as_ref());
                unique.is_some_and(|unique| unique.place() == want.place)
            }
            Ok(Life::Ended(_) | Life::Absent) => false,
            // Not to know is to leave the key: it is free in half a minute, if it has no job.
            Err(_) => true,
        }
    }

    /// From here on the key holds for its time, whether or not anything is left of the job.
    async fn note_stored(&self, want: &Want, hold: &Hold) {
        let stored = UniqueHolder { stored: true, ..hold.mine.clone() };
        self.rewrite(want, hold, &stored).await;
        crash_point("jobs.unique.stored");
    }

    /// Writes another value into a held key for the rest of its time. To fail is to leave a key that is free when its job
    /// has gone, or is not there for half a minute.
    async fn rewrite(&self, want: &Want, hold: &Hold, value: &UniqueHolder) {
        let written = async {
            let left = match value.expires_at {
                Some(end) => Some(end.since(self.storage().now().await?)),
                None => None,
            };
            let value = value.encode().into();
            self.storage().kv_update(Bucket::Unique, &want.place, value, hold.revision, left).await
        };
        if let Err(error) = written.await {
            tracing::debug!(job = %want.id, %error, "a unique key could not be rewritten");
        }
    }

    async fn end_replaced(&self, want: &Want, hold: &Hold) {
        let Some(replaced) = &hold.mine.replaces else { return };
        let reason = format!("replaced by job {} (unique key {:?})", want.id, want.key);
        match self.cancel_as(replaced, error_type::REPLACED, &reason).await {
            Ok(_) => {}
            Err(error) if error.kind() == JobServiceErrorKind::NotFound => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(job = %replaced, error, "a replaced job could not be cancelled; its worker will do it");
            }
        }
    }

    /// Undoes the taking of a key whose job is not stored.
    async fn give_back(&self, want: &Want, hold: &Hold) {
        let before = hold.before.as_ref().and_then(|value| UniqueHolder::decode(value).ok());
        match before {
            Some(before) => self.rewrite(want, hold, &before).await,
            None => {
                if let Err(error) = self.storage().kv_delete(Bucket::Unique, &want.place, Some(hold.revision)).await {
                    tracing::debug!(job = %want.id, %error, "a unique key stays for half a minute");
                }
            }
        }
    }
}

impl Want {
    fn holder(&self, now: Timestamp) -> UniqueHolder {
        UniqueHolder {
            id: self.id.clone(),
            since: now,
            expires_at: self.ttl.map(|ttl| now.saturating_add(ttl)),
            holds: self.holds,
            queue: Some(self.queue.clone()),
            generation: self.generation,
            replaces: None,
            stored: false,
        }
    }

    /// The receipt for a job that has the key and is gone without a trace: it has ended well, or has been forgotten.
    fn receipt_of_gone(&self, holder: &UniqueHolder) -> Receipt {
        Receipt {
            job_id: holder.id.clone(),
            queue: holder.queue.clone().unwrap_or_else(|| self.queue.clone()),
            status: JobStatus::Completed,
            duplicate: true,
        }
    }
}

fn can_be_replaced(status: JobStatus) -> bool {
    !status.is_terminal() && status != JobStatus::Running
}

/// Whether the store has taken nothing for certain.
fn is_refusal(kind: JobServiceErrorKind) -> bool {
    matches!(
        kind,
        JobServiceErrorKind::TooLarge
            | JobServiceErrorKind::Unsupported
            | JobServiceErrorKind::Storage(StorageErrorKind::Refused | StorageErrorKind::Full)
    )
}

fn unreadable(want: &Want, source: serde_json::Error) -> JobServiceError {
    let message = format!("what holds the unique key {:?} cannot be read", want.key);
    JobServiceError::new(JobServiceErrorKind::Undecodable, message)
        .with_hint("another program has written it; see docs/protocol.md")
        .with_source(source)
}
