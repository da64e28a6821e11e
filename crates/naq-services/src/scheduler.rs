//! [`SchedulerService`]: everything that can be asked of and done to recurring jobs, on any store.
//!
//! Invariant: a schedule is one record under its id in [`Bucket::Schedules`], changed by compare-and-set only, a bounded
//! number of rounds; what a change makes of a record is decided by the pure transitions of
//! [`naq_models::schedule`]. A definition that is stored makes jobs that can be stored.
//!
//! Not here: when something is due and who leads (naq-worker).

use bytes::Bytes;
use naq_models::{
    EventType, JobId, OnConflict, Schedule, ScheduleDefinition, ScheduleError, ScheduleId, ScheduleRecord,
    ScheduleStatus, Timestamp,
    schedule::{Refused, Upsert},
};
use serde::Serialize;

use crate::{
    JobService, NewJob, StorageErrorKind,
    manager::{Service, ServiceError, ServiceManager},
    storage::{Bucket, KvEntry},
};

mod declared;
mod error;
mod firing;
mod introduced;
mod tell;
mod view;

pub use declared::{Declared, DeclaredOutcome};
pub use error::{SchedulerServiceError, SchedulerServiceErrorKind};
pub use firing::Published;
pub use view::ScheduleView;

/// How often a change is made anew after somebody else changed the schedule under it.
const ROUNDS: usize = 16;
/// The most characters of a kind in an id that is made of it.
const KIND_IN_ID: usize = 80;

/// The result of a call of the [`SchedulerService`].
pub type Result<T, E = SchedulerServiceError> = std::result::Result<T, E>;

/// Recurring jobs on a store. Cheap to clone; holds no state.
///
/// A dropped future leaves the store in one of the states before or after the call, and the caller does not learn
/// which.
#[derive(Debug, Clone)]
pub struct SchedulerService {
    jobs: JobService,
}

/// A record as it lies in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSchedule {
    /// The record.
    pub record: ScheduleRecord,
    /// For compare-and-set.
    pub revision: u64,
}

impl StoredSchedule {
    /// Reads an entry of [`Bucket::Schedules`].
    ///
    /// # Errors
    /// [`SchedulerServiceErrorKind::Undecodable`] if it is no record, or one of a later version.
    pub fn read(entry: &KvEntry) -> Result<Self> {
        let record = serde_json::from_slice(&entry.value).map_err(|source| {
            let message = format!("the stored schedule {} cannot be read", entry.key);
            SchedulerServiceError::new(SchedulerServiceErrorKind::Undecodable, message)
                .with_hint("a newer naq may have written it: use one that is as new")
                .with_source(source)
        })?;
        Ok(Self { record, revision: entry.revision })
    }
}

/// What defining a schedule found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UpsertOutcome {
    /// There was none, or a cancelled one.
    Created,
    /// It existed with another definition.
    Updated,
    /// It existed as it is; nothing was stored.
    Unchanged,
}

/// A schedule that was defined.
#[derive(Debug, Clone, PartialEq)]
pub struct Upserted {
    /// What was found.
    pub outcome: UpsertOutcome,
    /// The schedule as it stands now.
    pub record: ScheduleRecord,
}

/// A schedule after a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// Whether anything had to change.
    pub changed: bool,
    /// The schedule as it stands now.
    pub record: ScheduleRecord,
}

/// An extra run.
#[derive(Debug, Clone, PartialEq)]
pub struct Triggered {
    /// The run.
    pub job_id: JobId,
    /// Its due time.
    pub due: Timestamp,
    /// Whether it is in its queue already; if not, it is recorded, and the leader enqueues it.
    pub enqueued: bool,
    /// The schedule as it stands now.
    pub record: ScheduleRecord,
}

/// All schedules of a store.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScheduleList {
    /// By id.
    pub schedules: Vec<ScheduleRecord>,
    /// The ids of those that cannot be read, for example because a later version wrote them.
    pub unreadable: Vec<String>,
}

/// What a step of a change makes of the present record: what to store, if anything, and what to tell.
type Step<T> = Result<(Option<ScheduleRecord>, T)>;

impl SchedulerService {
    /// A service over the store of a job service.
    #[must_use]
    pub fn new(jobs: JobService) -> Self {
        Self { jobs }
    }

    /// The jobs of the same store.
    #[must_use]
    pub fn jobs(&self) -> &JobService {
        &self.jobs
    }

    /// A definition of `job`, recurring by `schedule`, with this service's defaults for what the job leaves out. An id
    /// of the job's own is not part of it. Asks nothing of the store.
    ///
    /// # Errors
    /// [`SchedulerServiceErrorKind::Invalid`] if the schedule or the job cannot be used, or the job waits for a time of
    /// its own.
    pub fn define<R>(&self, job: NewJob<R>, schedule: Schedule) -> Result<ScheduleDefinition> {
        let invalid = |message: &str| SchedulerServiceError::new(SchedulerServiceErrorKind::Invalid, message);
        if job.has_time() {
            return Err(invalid("a recurring job cannot have a delay or a time of its own")
                .with_hint("say when it begins with the schedule's start"));
        }
        if job.conflict_answer().is_some_and(|answer| answer != OnConflict::Existing) {
            return Err(invalid("the runs of a schedule cannot replace other jobs or fail because of them")
                .with_hint("leave on_conflict out: a run whose key is taken is left out"));
        }
        let any = JobId::generate(Timestamp::EPOCH, [0; 10]);
        let job = job
            .into_job(any, Timestamp::EPOCH, &self.jobs.settings().defaults)
            .map_err(|source| invalid("cannot use the job of the schedule").with_source(source))?;
        schedule.build(job).map_err(|source| {
            let error = invalid("cannot use the schedule");
            let error = match source {
                ScheduleError::Cron(_) => error.with_hint(
                    "the fields are minute, hour, day of month, month, day of week (and second in front, if there are \
                     six): \"30 3 * * MON-FRI\", or @daily",
                ),
                _ => error,
            };
            error.with_source(source)
        })
    }

    /// Defines a schedule, whether it exists or not; the same definition again changes nothing, so that every deploy
    /// can repeat it. A cancelled schedule starts anew.
    ///
    /// # Errors
    /// If its job could not be enqueued, or the store fails.
    pub async fn upsert(&self, id: &ScheduleId, definition: ScheduleDefinition) -> Result<Upserted> {
        self.check(id, &definition)?;
        let upsert = |existing: Option<&ScheduleRecord>, now| {
            let (next, outcome) = defined(existing, id.clone(), definition.clone(), now);
            // Whoever defines it by hand takes it over from the configuration.
            let next = declared::without_origin(next);
            let store = (existing != Some(&next)).then(|| next.clone());
            Ok((store, Upserted { outcome, record: next }))
        };
        let upserted = self.change(id, "define", upsert).await?;
        self.tell_defined(upserted.outcome, &upserted.record);
        Ok(upserted)
    }

    /// Defines the schedule of a job. Its id is the one that the job was given (`job_id`); without one it is made of the
    /// job's kind, queue and args, so that the same call is the same schedule, whatever its timing.
    ///
    /// # Errors
    /// As [`define`](Self::define) and [`upsert`](Self::upsert).
    pub async fn schedule<R>(&self, job: NewJob<R>, schedule: Schedule) -> Result<Upserted> {
        let chosen = job.chosen_id().cloned();
        let definition = self.define(job, schedule)?;
        let id = match chosen {
            Some(id) => ScheduleId::new(id.as_str()).map_err(|source| {
                SchedulerServiceError::new(SchedulerServiceErrorKind::Invalid, "cannot use the id of the schedule")
                    .with_source(source)
            })?,
            None => id_of(&definition),
        };
        self.upsert(&id, definition).await
    }

    /// A schedule, also one that has ended.
    ///
    /// # Errors
    /// [`SchedulerServiceErrorKind::NotFound`]; [`SchedulerServiceErrorKind::Undecodable`]; or the store fails.
    pub async fn get(&self, id: &ScheduleId) -> Result<ScheduleRecord> {
        self.read(id).await?.map(|stored| stored.record).ok_or_else(|| not_found(id))
    }

    /// All schedules, also those that have ended.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn list(&self) -> Result<ScheduleList> {
        let entries = self.jobs.storage().kv_list(Bucket::Schedules, "").await;
        let entries = entries.map_err(|source| SchedulerServiceError::storage("cannot list the schedules", source))?;
        let mut list = ScheduleList::default();
        for entry in entries {
            match StoredSchedule::read(&entry) {
                Ok(stored) => list.schedules.push(stored.record),
                Err(_) => list.unreadable.push(entry.key),
            }
        }
        list.schedules.sort_by(|a, b| a.id.cmp(&b.id));
        list.unreadable.sort();
        Ok(list)
    }

    /// Holds a schedule until it is resumed. Runs that are in their queue go on.
    ///
    /// # Errors
    /// [`SchedulerServiceErrorKind::NotFound`]; [`SchedulerServiceErrorKind::Conflict`] if it has ended.
    pub async fn pause(&self, id: &ScheduleId) -> Result<Changed> {
        let changed = self.act(id, "pause", |record, now| record.pause(now)).await;
        self.tell_changed(EventType::SchedulePaused, changed)
    }

    /// Lets a paused schedule go on. What was due meanwhile is not made up for.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub async fn resume(&self, id: &ScheduleId) -> Result<Changed> {
        let changed = self.act(id, "resume", |record, now| record.resume(now)).await;
        self.tell_changed(EventType::ScheduleResumed, changed)
    }

    /// Gives a schedule another definition. What the timing keeps of its past is said at
    /// [`ScheduleRecord::modify`].
    ///
    /// # Errors
    /// [`SchedulerServiceErrorKind::NotFound`]; [`SchedulerServiceErrorKind::Conflict`] if it is cancelled; or its job
    /// could not be enqueued.
    pub async fn modify(&self, id: &ScheduleId, definition: ScheduleDefinition) -> Result<Changed> {
        self.check(id, &definition)?;
        let changed = self.act(id, "modify", |record, now| record.modify(definition.clone(), now)).await;
        self.tell_changed(EventType::ScheduleModified, changed)
    }

    /// Ends a schedule for good. Runs that are in their queue go on; those that are not yet do not come. Its record
    /// stays, so that its past can be looked at; defining it again starts it anew.
    ///
    /// # Errors
    /// [`SchedulerServiceErrorKind::NotFound`].
    pub async fn cancel(&self, id: &ScheduleId) -> Result<Changed> {
        let changed = self.act(id, "cancel", |record, now| Ok(record.cancel(now))).await;
        self.tell_changed(EventType::ScheduleCancelled, changed)
    }

    /// Starts an extra run now, beside the timing; also of a paused or completed schedule. The run is recorded first and
    /// then enqueued; if enqueueing fails, the leader does it.
    ///
    /// # Errors
    /// [`SchedulerServiceErrorKind::NotFound`]; [`SchedulerServiceErrorKind::Conflict`] if it is cancelled, or too many
    /// runs wait for being enqueued.
    pub async fn trigger(&self, id: &ScheduleId) -> Result<Triggered> {
        let trigger = |existing: Option<&ScheduleRecord>, now| {
            let advance = existing.ok_or_else(|| not_found(id))?.trigger(now).map_err(|why| refused(id, why))?;
            let due = advance.fires.first().copied().expect("a trigger fires once");
            Ok((Some(advance.record.clone()), (due, advance.record)))
        };
        let (due, record) = self.change(id, "trigger", trigger).await?;
        let published = self.publish(&record, &[due]).await;
        if let Some(error) = &published.trouble {
            tracing::warn!(schedule = %id, %error, "the run is recorded but not enqueued; the leader does it");
        }
        let enqueued = published.done.contains(&due);
        let record = if enqueued { self.published(id, &[due]).await?.unwrap_or(record) } else { record };
        Ok(Triggered { job_id: id.run_id(due), due, enqueued, record })
    }

    /// That the jobs of a definition can be stored.
    fn check(&self, id: &ScheduleId, definition: &ScheduleDefinition) -> Result<()> {
        let run = definition.job.run(id, Timestamp::EPOCH, Timestamp::EPOCH, definition.looks_at_last_run());
        self.jobs
            .check_storable(run)
            .map_err(|source| SchedulerServiceError::job(format!("cannot use the job of schedule {id}"), source))
    }

    async fn act(
        &self,
        id: &ScheduleId,
        doing: &str,
        act: impl Fn(&ScheduleRecord, Timestamp) -> Result<ScheduleRecord, Refused>,
    ) -> Result<Changed> {
        let step = |existing: Option<&ScheduleRecord>, now| {
            let existing = existing.ok_or_else(|| not_found(id))?;
            let record = act(existing, now).map_err(|why| refused(id, why))?;
            let changed = record != *existing;
            Ok((changed.then(|| record.clone()), Changed { changed, record }))
        };
        self.change(id, doing, step).await
    }

    /// Reads, makes a step, stores by compare-and-set; anew while somebody else comes between.
    async fn change<T>(
        &self,
        id: &ScheduleId,
        doing: &str,
        step: impl Fn(Option<&ScheduleRecord>, Timestamp) -> Step<T>,
    ) -> Result<T> {
        let failed = |source| SchedulerServiceError::storage(format!("cannot {doing} schedule {id}"), source);
        for _ in 0..ROUNDS {
            let stored = self.read(id).await?;
            let now = self.jobs.storage().now().await.map_err(failed)?;
            let (next, told) = step(stored.as_ref().map(|stored| &stored.record), now)?;
            let Some(next) = next else { return Ok(told) };
            match self.write(&next, stored.map(|stored| stored.revision)).await {
                Ok(_) => return Ok(told),
                Err(source) if source.kind() == StorageErrorKind::Conflict => {}
                Err(source) => return Err(failed(source)),
            }
        }
        let message = format!("cannot {doing} schedule {id}: it keeps changing");
        Err(SchedulerServiceError::new(SchedulerServiceErrorKind::Conflict, message).with_hint("try again"))
    }

    async fn read(&self, id: &ScheduleId) -> Result<Option<StoredSchedule>> {
        match self.jobs.storage().kv_get(Bucket::Schedules, id.as_str()).await {
            Ok(entry) => entry.as_ref().map(StoredSchedule::read).transpose(),
            Err(source) => Err(SchedulerServiceError::storage(format!("cannot read schedule {id}"), source)),
        }
    }

    /// Creates the record, or replaces the one at `revision`; returns the new revision.
    async fn write(
        &self,
        record: &ScheduleRecord,
        revision: Option<u64>,
    ) -> std::result::Result<u64, crate::StorageError> {
        let body = Bytes::from(serde_json::to_vec(record).expect("a record holds only what JSON can say"));
        let (storage, key) = (self.jobs.storage(), record.id.as_str());
        match revision {
            Some(revision) => storage.kv_update(Bucket::Schedules, key, body, revision, None).await,
            None => storage.kv_create(Bucket::Schedules, key, body, None).await,
        }
    }
}

impl Service for SchedulerService {
    const NAME: &'static str = "scheduler service";

    async fn build(manager: &ServiceManager) -> std::result::Result<Self, ServiceError> {
        Ok(Self::new(manager.jobs().await?))
    }
}

/// An id for a schedule without one of its own: the same for the same job.
fn id_of(definition: &ScheduleDefinition) -> ScheduleId {
    /// FNV-1a, 64 bits: short, and the same in every version and on every machine.
    fn hash(parts: [&str; 3]) -> u64 {
        let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
    let job = definition.job.as_job();
    // Through a value, so that the order of names does not count.
    let args = job.args.to::<serde_json::Value>().map_or_else(|_| job.args.get().to_owned(), |args| args.to_string());
    let kind: String = job
        .kind
        .chars()
        .take(KIND_IN_ID)
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .collect();
    let id = format!("{kind}-{:016x}", hash([&job.kind, job.queue.as_str(), &args]));
    ScheduleId::new(id).expect("short, and of allowed characters")
}

/// What a definition makes of what is there.
fn defined(
    existing: Option<&ScheduleRecord>,
    id: ScheduleId,
    definition: ScheduleDefinition,
    now: Timestamp,
) -> (ScheduleRecord, UpsertOutcome) {
    match ScheduleRecord::upsert(existing, id, definition, now) {
        Upsert::Created(record) => (record, UpsertOutcome::Created),
        Upsert::Updated(record) => (record, UpsertOutcome::Updated),
        Upsert::Unchanged => (existing.expect("what is unchanged exists").clone(), UpsertOutcome::Unchanged),
    }
}

fn not_found(id: &ScheduleId) -> SchedulerServiceError {
    SchedulerServiceError::new(SchedulerServiceErrorKind::NotFound, format!("there is no schedule {id}"))
        .with_hint("`naq scheduler jobs` lists all; is this the right store?")
}

fn refused(id: &ScheduleId, why: Refused) -> SchedulerServiceError {
    let message = format!("cannot change schedule {id}");
    let error = SchedulerServiceError::new(SchedulerServiceErrorKind::Conflict, message).with_source(why);
    match why {
        Refused::Status { status: ScheduleStatus::Cancelled, .. } => {
            error.with_hint("define it again (`naq scheduler upsert`) to start it anew")
        }
        Refused::Status { .. } => error.with_hint("a completed schedule goes on when it gets another definition"),
        Refused::Backlog => error.with_hint("is a scheduler running? Only the leader enqueues what is recorded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_of_the_job_and_not_of_its_timing() {
        let of = |kind: &str, queue: &str, args: &str, schedule: Schedule| {
            let args = naq_models::RawJson::parse(args).unwrap();
            let mut job = naq_models::Job::new(JobId::new("x").unwrap(), kind, args, Timestamp::EPOCH);
            job.queue = naq_models::QueueName::new(queue).unwrap();
            id_of(&schedule.build(job).unwrap())
        };
        let minute = || Schedule::every(std::time::Duration::from_secs(60));
        let id = of("mail.send", "q", r#"{"a":1,"b":2}"#, minute());
        // Stored in people's stores: it must never change.
        assert_eq!(id, of("mail.send", "q", r#"{"b": 2, "a": 1}"#, Schedule::cron("* * * * *")));
        assert!(id.as_str().starts_with("mail-send-"), "{id}");
        for other in [
            of("mail-send", "q", r#"{"a":1,"b":2}"#, minute()),
            of("mail.send", "p", r#"{"a":1,"b":2}"#, minute()),
            of("mail.send", "q", r#"{"a":1,"b":3}"#, minute()),
        ] {
            assert_ne!(id, other);
        }
        assert!(of(&"ü".repeat(200), "q", "[]", minute()).as_str().len() <= ScheduleId::MAX_LEN);
    }
}
