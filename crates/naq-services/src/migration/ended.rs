//! What is left of jobs that have ended: dead letters with their results, and the other results.
//!
//! Invariant: stored at the destination, then the result removed at the source, then the dead letter, so that whoever comes
//! again finds the letter as long as anything is to be done. A result keeps the rest of its time.

use naq_models::{Address, JobResult, JobStatus, Priority, Timestamp, wire};

use super::{
    BATCH, LeftWhat, Result, Run,
    error::storage,
    passage::{CONCURRENT, is_refusal, lives},
};
use crate::{
    JobService, StorageErrorKind,
    patterns::gather_with_concurrency,
    storage::{
        DeadLetter, ListFilter, Remains, ResultRecord, Sighting, StorageError, StoredResult, crash::crash_point,
    },
};

/// Every result, whatever it says.
const RESULTS: [JobStatus; 2] = [JobStatus::Completed, JobStatus::Cancelled];

/// What has one of some states, page by page.
pub(super) struct Pages<'a> {
    from: &'a JobService,
    /// What to ask for next; `None` at the end.
    next: Option<ListFilter>,
}

impl<'a> Pages<'a> {
    pub(super) fn of(from: &'a JobService, statuses: &[JobStatus]) -> Self {
        let next = ListFilter { queue: None, statuses: statuses.to_vec(), limit: BATCH, cursor: None };
        Self { from, next: Some(next) }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<Sighting>>> {
        let Some(filter) = self.next.take() else { return Ok(None) };
        let found = self.from.storage().list(&filter).await.map_err(storage("cannot list the jobs of the source"))?;
        self.next = found.next.map(|cursor| ListFilter { cursor: Some(cursor), ..filter });
        Ok(Some(found.items))
    }
}

/// How many results there are, without those of dead letters.
pub(super) async fn count(from: &JobService) -> Result<u64> {
    let is_failure =
        |result: &StoredResult| JobResult::decode(&result.body).is_ok_and(|result| result.status == JobStatus::Failed);
    let (mut count, mut pages) = (0, Pages::of(from, &RESULTS));
    while let Some(items) = pages.next().await? {
        let others = items.iter().filter(|item| matches!(item, Sighting::Ended(result) if !is_failure(result)));
        count += others.count() as u64;
    }
    Ok(count)
}

/// A result as the destination takes it; `None` if it cannot be read.
fn readdressed(result: &StoredResult, now: Timestamp) -> Option<(Address, ResultRecord)> {
    let ended = JobResult::decode(&result.body).ok()?;
    let address = Address {
        id: result.id.clone(),
        queue: ended.queue,
        priority: Priority::default(),
        stored_at: ended.enqueued_at,
    };
    let ttl = result.expires_at.since(now);
    Some((address, ResultRecord { status: ended.status, body: result.body.clone(), generation: 0, ttl }))
}

impl Run<'_> {
    pub(super) async fn carry_dead_letters(&mut self) -> Result<()> {
        let mut pages = Pages::of(self.from, &[JobStatus::Failed]);
        while let Some(items) = pages.next().await? {
            let letters = items.into_iter().filter_map(|item| match item {
                Sighting::Dead(letter) => Some(letter),
                _ => None,
            });
            self.carry_letters(letters.collect()).await?;
        }
        Ok(())
    }

    async fn carry_letters(&mut self, letters: Vec<DeadLetter>) -> Result<()> {
        let failed = storage("cannot read what is left of dead jobs");
        let (now, source) = (self.now().await?, self.from.storage());
        let mut moving = Vec::with_capacity(letters.len());
        for letter in letters {
            let id = letter.address.id.clone();
            if lives(&**source, &id).await? {
                // It was retried, and who did it died before the letter was removed.
                source.remove_dead_letter(&id).await.map_err(&failed)?;
                continue;
            }
            let result = source.get_result(&id).await.map_err(&failed)?;
            let record = result.as_ref().and_then(|result| readdressed(result, now)).map(|(_, record)| record);
            let address = letter.address.clone();
            moving.push((Remains { address, result: record, dead_letter: Some(letter) }, result));
        }
        let outcomes =
            self.to.storage().store_remains(moving.iter().map(|(remains, _)| remains.clone()).collect()).await;
        crash_point("migration.remains");
        for ((remains, result), outcome) in moving.into_iter().zip(outcomes) {
            let id = &remains.address.id;
            if !self.is_stored(LeftWhat::DeadLetter, id, outcome.map(drop))? {
                continue;
            }
            let failed = storage("cannot remove a dead letter from the source");
            if let (Some(result), Some(_)) = (result, &remains.result) {
                source.remove_result(id, result.revision).await.map_err(&failed)?;
            }
            source.remove_dead_letter(id).await.map_err(&failed)?;
            self.report.dead += 1;
        }
        self.tell();
        Ok(())
    }

    pub(super) async fn carry_all_results(&mut self) -> Result<()> {
        let mut pages = Pages::of(self.from, &RESULTS);
        while let Some(items) = pages.next().await? {
            let mut results = Vec::with_capacity(items.len());
            for item in items {
                let Sighting::Ended(result) = item else { continue };
                if !self.belongs_to_a_letter(&result).await? {
                    results.push(result);
                }
            }
            self.carry_results(results).await?;
        }
        Ok(())
    }

    /// Whether a result has to go with a dead letter: one that is left, or one that nobody has written yet. That of a failed
    /// job which still lies in its queue is made when the job is claimed, of this result.
    async fn belongs_to_a_letter(&self, result: &StoredResult) -> Result<bool> {
        if JobResult::decode(&result.body).is_ok_and(|ended| ended.status != JobStatus::Failed) {
            return Ok(false);
        }
        let seen = match self.from.storage().get_job(&result.id).await {
            Ok(seen) => seen,
            Err(error) if error.kind() == StorageErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(storage("cannot look at a job that failed")(error)),
        };
        let is_bound = |seen: &Sighting| match seen {
            Sighting::Dead(_) => true,
            Sighting::Queued { address, body, .. } => {
                wire::decode(body, address).map_or(0, |job| job.generation) < result.revision
            }
            _ => false,
        };
        Ok(seen.iter().any(is_bound))
    }

    pub(super) async fn carry_results(&mut self, results: Vec<StoredResult>) -> Result<()> {
        let now = self.now().await?;
        let (mut moving, mut remains) = (Vec::with_capacity(results.len()), Vec::with_capacity(results.len()));
        for result in results {
            match readdressed(&result, now) {
                Some((address, record)) => {
                    remains.push(Remains { address, result: Some(record), dead_letter: None });
                    moving.push(result);
                }
                None => self.left(LeftWhat::Result, &result.id, "it cannot be read")?,
            }
        }
        let outcomes = self.to.storage().store_remains(remains).await;
        crash_point("migration.results");
        let mut stored = Vec::with_capacity(moving.len());
        for (result, outcome) in moving.into_iter().zip(outcomes) {
            if self.is_stored(LeftWhat::Result, &result.id, outcome.map(drop))? {
                stored.push(result);
            }
        }
        let remove = |n: usize| self.from.storage().remove_result(&stored[n].id, stored[n].revision);
        for removed in gather_with_concurrency((0..stored.len()).map(remove), CONCURRENT).await {
            removed.map_err(storage("cannot remove a result from the source"))?;
        }
        self.report.results += stored.len() as u64;
        self.tell();
        Ok(())
    }

    /// Whether the destination has it now; what it refuses is left.
    fn is_stored(&mut self, what: LeftWhat, id: impl ToString, outcome: Result<(), StorageError>) -> Result<bool> {
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if is_refusal(&error) => self.left(what, id, error.to_string()).map(|()| false),
            Err(error) => Err(storage("cannot store what is left of jobs at the destination")(error)),
        }
    }
}
