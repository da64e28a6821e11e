//! [`admit`]: the last look at its unique key before a job starts.
//!
//! Invariant: of two live jobs that want one key, the one that the key does not name does not start. A key that holds until
//! the first start (`while = pending`) is freed here, before the handler is called; from then on its job minds no other,
//! also when it is snoozed or delivered again, so that only one which the key calls replaced is kept from starting. A job
//! without a key is not looked at, nor is a later attempt of one whose key is freed by then.

use naq_models::{Job, JobId, UniqueHolder, UniqueWhile};

use crate::{
    jobs::sight::Trace,
    storage::{Bucket, Result, Storage, StorageErrorKind, crash::crash_point},
};

/// How often a key is tried that changes under its release.
const TRIES: usize = 4;

/// Whether a job may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Start,
    /// Another live job has its key: it has taken this one's place, or this one was stored without having the key.
    Superseded {
        /// The other job.
        by: JobId,
    },
}

/// Looks whether a job that is about to start has its key, and frees a key that holds until then.
///
/// # Errors
/// If the store fails; the same call again is safe.
pub async fn admit(storage: &dyn Storage, job: &Job) -> Result<Admission> {
    let Some(unique) = &job.unique else { return Ok(Admission::Start) };
    match unique.holds {
        UniqueWhile::Ttl => return Ok(Admission::Start),
        UniqueWhile::Pending if job.attempt > 1 => return Ok(Admission::Start),
        UniqueWhile::Pending | UniqueWhile::Active => {}
    }
    let place = unique.place();
    for _ in 0..TRIES {
        let Some(held) = storage.kv_get(Bucket::Unique, &place).await? else { return Ok(Admission::Start) };
        let Ok(holder) = UniqueHolder::decode(&held.value) else { return Ok(Admission::Start) };
        if holder.id != job.id {
            if unique.holds == UniqueWhile::Pending && holder.replaces.as_ref() != Some(&job.id) {
                return Ok(Admission::Start);
            }
            let live = is_live(storage, &holder.id).await?;
            return Ok(if live { Admission::Superseded { by: holder.id } } else { Admission::Start });
        }
        if unique.holds == UniqueWhile::Active {
            return Ok(Admission::Start);
        }
        if storage.kv_delete(Bucket::Unique, &place, Some(held.revision)).await? {
            crash_point("jobs.unique.start");
            return Ok(Admission::Start);
        }
    }
    Ok(Admission::Start)
}

async fn is_live(storage: &dyn Storage, id: &JobId) -> Result<bool> {
    let seen = match storage.get_job(id).await {
        Ok(seen) => seen,
        Err(error) if error.kind() == StorageErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // A result that cannot be read is one.
    let traces: Vec<Trace> = seen.into_iter().filter_map(|sighting| Trace::read(sighting).ok()).collect();
    Ok(Trace::newest(traces).is_some_and(|trace| !trace.status().is_terminal()))
}
