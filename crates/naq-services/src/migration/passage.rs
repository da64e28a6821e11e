//! [`Passage`]: one job on its way, and the four steps that a batch of them takes.
//!
//! Invariant: held at the destination, removed at the source, released at the destination, in this order. A held job is an
//! entry of the scheduled store that is due in the year 9999, so that no worker starts it while the source has it too, and
//! it counts as there for jobs that wait for it and for producers of its id. So a job is never in neither store, and never
//! runs in both; who finds it held and gone from the source releases it.

use bytes::Bytes;
use naq_models::{Address, Job, JobId, JobStatus, Timestamp, UniqueHolder, WireFormat, wire};

use super::{
    Result, Run,
    error::{job as job_error, storage},
    journal::is_held,
};
use crate::{
    StorageErrorKind,
    patterns::gather_with_concurrency,
    storage::{
        Action, Bucket, Ended, Ending, Enqueued, Entry, Lease, Promotion, Settled, Settlement, Sighting, Storage,
        StorageError, crash::crash_point,
    },
};

/// 9999-12-31T23:59:59.999Z, in milliseconds since 1970.
pub(super) const HELD_UNTIL: i64 = 253_402_300_799_999;
/// Calls for single jobs that are under way at once.
pub(super) const CONCURRENT: usize = 64;

/// A job on its way.
#[derive(Debug)]
pub(super) struct Passage {
    /// As it is to be at the destination.
    pub(super) entry: Entry,
    /// `None` if it cannot be decoded; then its bytes go as they are.
    pub(super) job: Option<Job>,
    pub(super) place: Place,
}

/// Where a job lies at the source.
#[derive(Debug)]
pub(super) enum Place {
    /// In its queue, claimed by this migration.
    Claimed { lease: Lease, clear_scheduled: bool },
    /// In the scheduled store.
    Scheduled,
}

impl Passage {
    /// A job as it lies at the source.
    pub(super) fn new(entry: Entry, job: Option<Job>, place: Place) -> Self {
        Self { entry, job, place }
    }

    pub(super) fn id(&self) -> &JobId {
        &self.entry.address.id
    }

    /// What its life at the source began from.
    pub(super) fn generation(&self) -> u64 {
        self.job.as_ref().map_or(0, |job| job.generation)
    }

    fn key(&self) -> Option<String> {
        Some(self.job.as_ref()?.unique.as_ref()?.place())
    }

    fn held(&self) -> Entry {
        let run_at = Timestamp::from_unix_millis(HELD_UNTIL);
        Entry { status: JobStatus::Scheduled, run_at, ..self.entry.clone() }
    }
}

/// An entry of the place where bytes lie, with what can be read of them.
pub(super) fn entry_of(address: Address, body: Bytes, job: Option<&Job>, status: JobStatus) -> Entry {
    Entry {
        address,
        status,
        run_at: None,
        kind: job.map(|job| job.kind.clone()).unwrap_or_default(),
        run: job.map_or(1, |job| job.run),
        generation: job.map_or(0, |job| job.generation),
        body,
    }
}

impl Run<'_> {
    /// Moves a batch.
    pub(super) async fn carry(&mut self, passages: Vec<Passage>) -> Result<()> {
        if passages.is_empty() {
            return Ok(());
        }
        self.journal.note(self.from, &passages).await?;
        crash_point("migration.noted");
        let passages = self.adapt(passages).await?;
        let (held, elsewhere) = self.hold(passages).await?;
        crash_point("migration.held");
        let gone = self.remove(held).await?;
        let doubled = self.remove(elsewhere).await?;
        self.report.duplicates += doubled.len() as u64;
        crash_point("migration.removed");
        for passage in &gone {
            self.report.count(passage.entry.status);
        }
        self.release(gone.into_iter().map(|passage| passage.entry).collect()).await?;
        crash_point("migration.released");
        self.tell();
        Ok(())
    }

    /// Takes unique keys, and makes lives that began from a result begin from that of the destination.
    async fn adapt(&mut self, passages: Vec<Passage>) -> Result<Vec<Passage>> {
        let mut adapted = Vec::with_capacity(passages.len());
        for mut passage in passages {
            if passage.generation() > 0
                && let Some(job) = &passage.job
            {
                let found = self.to.storage().get_result(passage.id()).await;
                let found = found.map_err(storage("cannot look at a result of the destination"))?;
                let job = Job { generation: found.map_or(0, |result| result.revision), ..job.clone() };
                let body = wire::encode(&job, WireFormat::Json).expect("JSON is always built in");
                passage.entry = Entry { generation: job.generation, body: body.into(), ..passage.entry };
            }
            match self.take_key(&passage).await? {
                None => adapted.push(passage),
                Some(reason) => self.leave(passage, reason)?,
            }
        }
        Ok(adapted)
    }

    /// Takes the unique key that a job has at the source; why it cannot be had, otherwise.
    async fn take_key(&self, passage: &Passage) -> Result<Option<String>> {
        let failed = storage("cannot move a unique key");
        let (Some(key), Some(job)) = (passage.key(), &passage.job) else { return Ok(None) };
        let Some(held) = self.from.storage().kv_get(Bucket::Unique, &key).await.map_err(&failed)? else {
            return Ok(None);
        };
        let Ok(holder) = UniqueHolder::decode(&held.value) else { return Ok(None) };
        if holder.id != job.id {
            return Ok(None);
        }
        let now = self.now().await?;
        let ttl = holder.expires_at.map(|end| end.since(now));
        let value = UniqueHolder { generation: passage.entry.generation, ..holder }.encode();
        match self.to.storage().kv_create(Bucket::Unique, &key, value.into(), ttl).await {
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == StorageErrorKind::Conflict => {}
            Err(error) => return Err(failed(error)),
        }
        let there = self.to.storage().kv_get(Bucket::Unique, &key).await.map_err(&failed)?;
        if there.is_some_and(|there| UniqueHolder::names(&there.value, &job.id)) {
            return Ok(None);
        }
        let job = Job { generation: passage.entry.generation, ..job.clone() };
        let taken = self.to.take_key_for_newcomer(&job).await.map_err(job_error("cannot take a unique key"))?;
        Ok((!taken).then(|| "another job has its unique key at the destination".to_owned()))
    }

    /// Stores jobs at the destination so that they cannot start; returns them, and those whose ids live or have lived there.
    async fn hold(&mut self, passages: Vec<Passage>) -> Result<(Vec<Passage>, Vec<Passage>)> {
        let outcomes = self.to.storage().enqueue(passages.iter().map(Passage::held).collect()).await;
        let (mut held, mut elsewhere) = (Vec::with_capacity(passages.len()), Vec::new());
        for (passage, outcome) in passages.into_iter().zip(outcomes) {
            match outcome {
                Ok(Enqueued::Stored) => held.push(passage),
                Ok(Enqueued::Duplicate) if self.is_held(passage.id()).await? => held.push(passage),
                Ok(Enqueued::Duplicate) => elsewhere.push(passage),
                Err(error) if is_refusal(&error) => self.leave(passage, error.to_string())?,
                Err(error) => return Err(storage("cannot store jobs at the destination")(error)),
            }
        }
        Ok((held, elsewhere))
    }

    async fn is_held(&self, id: &JobId) -> Result<bool> {
        let found = self.to.storage().get_scheduled(std::slice::from_ref(id)).await;
        let found = found.map_err(storage("cannot look at the destination"))?;
        Ok(found.into_iter().flatten().any(|entry| is_held(entry.run_at)))
    }

    /// Removes jobs at the source; returns those that are gone from there without having ended.
    async fn remove(&mut self, passages: Vec<Passage>) -> Result<Vec<Passage>> {
        let (claimed, waiting): (Vec<_>, Vec<_>) =
            passages.into_iter().partition(|passage| matches!(passage.place, Place::Claimed { .. }));
        let settled = self.from.storage().settle(claimed.iter().filter_map(settlement).collect()).await;
        let settled = settled.into_iter().map(|outcome| outcome.map(|settled| settled == Settled::Done));
        let ends = waiting.iter().map(|passage| self.from.storage().end(ending(passage)));
        let ended = gather_with_concurrency(ends, CONCURRENT)
            .await
            .into_iter()
            .map(|outcome| outcome.map(|ended| ended == Ended::Done));
        let removed = settled.chain(ended).collect::<Result<Vec<bool>, _>>();
        let removed = removed.map_err(storage("cannot remove jobs from the source"))?;
        self.without_ended(claimed.into_iter().chain(waiting).zip(removed).collect()).await
    }

    /// Of jobs with whether this call has removed them from the source, those that did not end there.
    async fn without_ended(&mut self, passages: Vec<(Passage, bool)>) -> Result<Vec<Passage>> {
        let looks = (0..passages.len()).map(|n| self.has_ended(passages[n].0.id(), passages[n].0.generation()));
        let ended = gather_with_concurrency(looks, CONCURRENT).await;
        let mut gone = Vec::with_capacity(passages.len());
        for ((passage, removed), ended) in passages.into_iter().zip(ended) {
            if !removed && lives(&**self.from.storage(), passage.id()).await? {
                // The lease ran out on the way: it is held, and will be claimed again.
                continue;
            }
            if ended? || !removed {
                self.end_with_source(passage.id(), &passage.entry.address).await?;
            } else {
                gone.push(passage);
            }
        }
        Ok(gone)
    }

    async fn has_ended(&self, id: &JobId, generation: u64) -> Result<bool> {
        let found =
            self.from.storage().get_result(id).await.map_err(storage("cannot look at a result of the source"))?;
        Ok(found.is_some_and(|result| result.revision > generation))
    }

    /// A job was cancelled at the source while it was held: it does not live at the destination either.
    async fn end_with_source(&mut self, id: &JobId, address: &Address) -> Result<()> {
        if self.is_held(id).await? {
            let ending = Ending { address: address.clone(), result: None, dead_letter: None, unique_key: None };
            self.to.storage().end(ending).await.map_err(storage("cannot remove a job that was cancelled"))?;
        }
        let found = self.from.storage().get_result(id).await.map_err(storage("cannot read a result"))?;
        self.carry_results(found.into_iter().collect()).await
    }

    /// Lets jobs that are held be what they are.
    async fn release(&self, entries: Vec<Entry>) -> Result<()> {
        let failed = storage("cannot release jobs at the destination");
        let ids: Vec<JobId> = entries.iter().map(|entry| entry.address.id.clone()).collect();
        let held = self.to.storage().get_scheduled(&ids).await.map_err(&failed)?;
        let (mut promotions, mut changes) = (Vec::new(), Vec::new());
        for (entry, held) in entries.into_iter().zip(held) {
            // What is not held any more has been released, or changed by a person.
            let Some(held) = held.filter(|held| is_held(held.run_at)) else { continue };
            match entry.status {
                JobStatus::Pending => promotions.push(Promotion { revision: held.revision, entry }),
                _ => changes.push((entry, held.revision)),
            }
        }
        for promoted in self.to.storage().promote(promotions).await {
            promoted.map_err(&failed)?;
        }
        let changes = changes.into_iter().map(|(entry, revision)| self.to.storage().reschedule(entry, revision));
        for changed in gather_with_concurrency(changes, CONCURRENT).await {
            match changed {
                Err(error) if error.kind() == StorageErrorKind::Conflict => {}
                other => other.map_err(&failed)?,
            }
        }
        Ok(())
    }

    /// Finishes what a migration that was cut off had under way and had removed from the source.
    pub(super) async fn recover(&mut self, moving: Vec<super::journal::Moving>) -> Result<()> {
        let failed = storage("cannot look at what was under way");
        for batch in moving.chunks(super::BATCH) {
            let ids: Vec<JobId> = batch.iter().map(|moving| moving.id.clone()).collect();
            let found = self.to.storage().get_scheduled(&ids).await.map_err(&failed)?;
            let mut entries = Vec::new();
            for (moving, held) in batch.iter().zip(found) {
                let Some(held) = held.filter(|held| is_held(held.run_at)) else { continue };
                if lives(&**self.from.storage(), &moving.id).await? {
                    continue;
                }
                if self.has_ended(&moving.id, moving.generation).await? {
                    self.end_with_source(&moving.id, &held.address).await?;
                    continue;
                }
                let job = wire::decode(&held.body, &held.address).ok();
                let entry = entry_of(held.address, held.body, job.as_ref(), moving.status);
                entries.push(Entry { run_at: moving.run_at, run: held.run, ..entry });
            }
            for entry in &entries {
                self.report.count(entry.status);
            }
            self.release(entries).await?;
        }
        Ok(())
    }
}

fn settlement(passage: &Passage) -> Option<Settlement> {
    let Place::Claimed { lease, clear_scheduled } = &passage.place else { return None };
    let action = Action::End { result: None, dead_letter: None, unique_key: passage.key() };
    let address = passage.entry.address.clone();
    Some(Settlement { lease: lease.clone(), address, action, fenced: false, clear_scheduled: *clear_scheduled })
}

fn ending(passage: &Passage) -> Ending {
    let address = passage.entry.address.clone();
    Ending { address, result: None, dead_letter: None, unique_key: passage.key() }
}

/// Whether a store will not take this at any time.
pub(super) fn is_refusal(error: &StorageError) -> bool {
    matches!(error.kind(), StorageErrorKind::TooLarge | StorageErrorKind::Refused)
}

/// Whether a job waits or runs in a store.
pub(super) async fn lives(store: &dyn Storage, id: &JobId) -> Result<bool> {
    match store.get_job(id).await {
        Ok(seen) => Ok(seen.iter().any(|seen| matches!(seen, Sighting::Queued { .. } | Sighting::Scheduled(_)))),
        Err(error) if error.kind() == StorageErrorKind::NotFound => Ok(false),
        Err(error) => Err(storage("cannot look at a job")(error)),
    }
}
