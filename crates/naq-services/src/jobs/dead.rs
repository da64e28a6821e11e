//! The dead letters: list, show, retry, purge.
//!
//! Invariant: a dead letter's bytes are never changed and never parsed for anything but showing and retrying it; it
//! goes only when somebody says so.

use std::{collections::HashSet, time::Duration};

use naq_models::{JobError, JobId, JobStatus, QueueName, Timestamp, wire};
use serde::Serialize;
use tokio::time::Instant;

use super::{JobService, JobServiceError, JobServiceErrorKind, Receipt, Result};
use crate::storage::{DeadLetter, ListFilter, Sighting};

/// Dead letters per call of the store.
const BATCH: usize = 256;
/// How far the store's clock, as it is asked, may be from the times that it writes on letters.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);
/// Refusals that a [`RetryReport`] names.
const MAX_EXAMPLES: usize = 20;

/// A dead letter for lists: what `naq dead list` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadLetterView {
    /// The job.
    pub job_id: JobId,
    /// Its kind; `None` if its bytes are not a job.
    pub kind: Option<String>,
    /// The queue it came from.
    pub queue: QueueName,
    /// The attempt that was its last; `None` if its bytes are not a job.
    pub attempt: Option<u32>,
    /// When it became a dead letter.
    pub failed_at: Timestamp,
    /// Why.
    pub error: JobError,
    /// The length of its bytes.
    pub size: usize,
}

impl From<&DeadLetter> for DeadLetterView {
    fn from(letter: &DeadLetter) -> Self {
        let job = wire::decode(&letter.body, &letter.address).ok();
        Self {
            job_id: letter.address.id.clone(),
            kind: letter.kind.clone().or_else(|| job.as_ref().map(|job| job.kind.clone())),
            queue: letter.address.queue.clone(),
            attempt: job.map(|job| job.attempt),
            failed_at: letter.address.stored_at,
            error: letter.error.clone(),
            size: letter.body.len(),
        }
    }
}

/// One page of dead letters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeadPage {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// What became of retrying many dead letters.
#[derive(Debug, Default)]
pub struct RetryReport {
    /// Jobs that started a new life.
    pub retried: u64,
    /// Jobs that could not be retried; they stay with the dead letters.
    pub refused: u64,
    /// The first of them, at most 20, each with the reason.
    pub examples: Vec<(JobId, JobServiceError)>,
}

impl JobService {
    /// One page of the dead letters, of one queue or of all; `limit` counts at least 1.
    ///
    /// # Errors
    /// If the store fails or does not know the cursor.
    pub async fn dead_list(&self, queue: Option<&QueueName>, limit: usize, cursor: Option<String>) -> Result<DeadPage> {
        let filter =
            ListFilter { queue: queue.cloned(), statuses: vec![JobStatus::Failed], limit: limit.max(1), cursor };
        let found = self.storage().list(&filter).await;
        let found = found.map_err(|source| JobServiceError::storage("cannot list the dead letters", source))?;
        let letters = found.items.into_iter().filter_map(|sighting| match sighting {
            Sighting::Dead(letter) => Some(letter),
            _ => None,
        });
        Ok(DeadPage { letters: letters.collect(), next: found.next })
    }

    /// The dead letter of a job, byte for byte.
    ///
    /// # Errors
    /// [`JobServiceErrorKind::NotFound`] if there is none.
    pub async fn dead_show(&self, id: &JobId) -> Result<DeadLetter> {
        let sightings = match self.storage().get_job(id).await {
            Ok(sightings) => sightings,
            Err(source) => {
                return Err(JobServiceError::storage(format!("cannot show the dead letter of {id}"), source));
            }
        };
        let letter = sightings.into_iter().find_map(|sighting| match sighting {
            Sighting::Dead(letter) => Some(letter),
            _ => None,
        });
        letter.ok_or_else(|| no_dead_letter(id))
    }

    /// Starts a new life of a dead job, first attempt, at once.
    ///
    /// # Errors
    /// [`JobServiceErrorKind::NotFound`] if it has no dead letter; else as [`retry`](Self::retry).
    pub async fn dead_retry(&self, id: &JobId) -> Result<Receipt> {
        self.dead_show(id).await?;
        self.retry(id).await
    }

    /// Starts new lives of all jobs that are dead now, of one queue or of all. Those that die again meanwhile are left.
    ///
    /// # Errors
    /// If the store fails; what was retried by then stays retried.
    pub async fn dead_retry_all(&self, queue: Option<&QueueName>) -> Result<RetryReport> {
        let latest = self.store_time().await?.saturating_add(CLOCK_TOLERANCE);
        // A job that dies again gets a letter that passes for an old one only if it was retried before this.
        let remember_until = Instant::now() + 2 * CLOCK_TOLERANCE;
        let mut retried = HashSet::new();
        let (mut report, mut cursor) = (RetryReport::default(), None);
        loop {
            let page = self.dead_list(queue, BATCH, cursor).await?;
            for letter in page.letters.iter().filter(|letter| letter.address.stored_at <= latest) {
                let id = &letter.address.id;
                if retried.contains(id) {
                    continue;
                }
                match self.retry(id).await {
                    Ok(_) => {
                        report.retried += 1;
                        if Instant::now() < remember_until {
                            retried.insert(id.clone());
                        }
                    }
                    // Somebody else retried or purged it.
                    Err(error) if error.kind() == JobServiceErrorKind::NotFound => {}
                    Err(error) if matches!(error.kind(), JobServiceErrorKind::Storage(_)) => return Err(error),
                    Err(error) => {
                        report.refused += 1;
                        if report.examples.len() < MAX_EXAMPLES {
                            report.examples.push((id.clone(), error));
                        }
                    }
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(report);
            }
        }
    }

    /// Removes the dead letter of a job for good. Its result, if kept, stays.
    ///
    /// # Errors
    /// [`JobServiceErrorKind::NotFound`] if there is none.
    pub async fn dead_purge(&self, id: &JobId) -> Result<()> {
        match self.storage().remove_dead_letter(id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(no_dead_letter(id)),
            Err(source) => Err(JobServiceError::storage(format!("cannot purge the dead letter of {id}"), source)),
        }
    }

    /// Removes all dead letters that are there now, of one queue or of all, for good; returns how many.
    ///
    /// # Errors
    /// If the store fails; what was removed by then stays removed.
    pub async fn dead_purge_all(&self, queue: Option<&QueueName>) -> Result<u64> {
        let latest = self.store_time().await?.saturating_add(CLOCK_TOLERANCE);
        let (mut purged, mut cursor) = (0, None);
        loop {
            let page = self.dead_list(queue, BATCH, cursor).await?;
            for letter in page.letters.iter().filter(|letter| letter.address.stored_at <= latest) {
                match self.dead_purge(&letter.address.id).await {
                    Ok(()) => purged += 1,
                    Err(error) if error.kind() == JobServiceErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(purged);
            }
        }
    }
}

fn no_dead_letter(id: &JobId) -> JobServiceError {
    JobServiceError::new(JobServiceErrorKind::NotFound, format!("job {id} has no dead letter"))
        .with_hint("`naq dead list` shows those that have one")
}
