//! Everything the store knows, and each move of a job as one function.
//!
//! Invariant: a job is in the queue, in the scheduled store, or neither, never in both; a result is written once per life.
//! Every function runs under the lock of [`Shared`], so each is atomic. Nothing here waits or decides policy.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use naq_models::{Address, JobId, JobStatus, Priority, QueueName, Timestamp, UniqueHolder};
use naq_services::storage::{
    Action, Bucket, DeadLetter, Ended, Ending, Enqueued, EnqueuedAll, Entry, KvChange, KvEntry, Lease, LeaseState,
    Promoted, Promotion, Remains, Result, ResultRecord, RunningAt, ScheduledEntry, Settled, Settlement, StorageError,
    StorageErrorKind, StoredResult, uptime,
};
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use super::{backend::host_now, event_log::EventLog};

/// The largest body, in bytes.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// A change of a key, with the end of its life.
pub(crate) type KvEvent = (Bucket, KvChange, Option<Instant>);

/// What all connections to one store share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Counts changes; consumers, feeds and callers who wait for results listen.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) kv_events: broadcast::Sender<KvEvent>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let (changes, kv_events) = (watch::Sender::new(0), broadcast::Sender::new(1024));
        Self { state: Mutex::default(), changes, kv_events }
    }

    /// To look, without changing anything others wait for.
    pub(crate) fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.expire(Instant::now());
        state
    }

    /// To change something; wakes everyone afterwards.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let outcome = change(&mut self.look());
        self.changes.send_modify(|count| *count += 1);
        outcome
    }
}

/// A job in its queue.
pub(crate) struct Queued {
    pub(crate) entry: Entry,
    /// Its place in its lane, kept through hand-back and expiry.
    place: u64,
    pub(crate) claim: Option<Held>,
    /// A lease on it ran out.
    pub(crate) suspect: bool,
}

/// A claim on a job.
pub(crate) struct Held {
    token: Arc<str>,
    until: Instant,
    pub(crate) by: RunningAt,
}

/// A result, and what lists and expiry need.
pub(crate) struct Kept {
    pub(crate) result: StoredResult,
    pub(crate) queue: QueueName,
    expires: Instant,
}

pub(crate) struct Slot {
    pub(crate) entry: KvEntry,
    expires: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct State {
    /// Counts writes: revisions, tokens and places in a lane.
    writes: u64,
    pub(crate) queues: BTreeSet<QueueName>,
    pub(crate) jobs: BTreeMap<JobId, Queued>,
    /// What can be claimed, by place.
    lanes: BTreeMap<(QueueName, Priority), BTreeMap<u64, JobId>>,
    deadlines: BTreeSet<(Instant, JobId)>,
    running: HashMap<(QueueName, Priority), u32>,
    pub(crate) scheduled: BTreeMap<JobId, (ScheduledEntry, u64)>,
    pub(crate) dead: BTreeMap<JobId, DeadLetter>,
    pub(crate) results: BTreeMap<JobId, Kept>,
    buckets: HashMap<Bucket, BTreeMap<String, Slot>>,
    pub(crate) events: EventLog,
}

fn bounded(operation: &'static str, body: &Bytes) -> Result<()> {
    if body.len() <= MAX_BODY {
        return Ok(());
    }
    let detail = format!("the body has {} bytes; this store takes {MAX_BODY}", body.len());
    Err(StorageError::new(StorageErrorKind::TooLarge, operation, detail))
}

fn conflict(operation: &'static str, what: &str) -> StorageError {
    StorageError::new(StorageErrorKind::Conflict, operation, format!("{what} is not at that revision"))
}

impl State {
    fn next(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    // ---- Leases

    fn expire(&mut self, now: Instant) {
        while let Some((_, id)) = self.deadlines.first().filter(|(until, _)| *until <= now).cloned() {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.suspect = true;
            }
            self.release(&id);
        }
    }

    /// When the next lease runs out.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Ends the claim on a job and makes it claimable at its old place.
    fn release(&mut self, id: &JobId) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Some(held) = job.claim.take() else { return };
        let address = &job.entry.address;
        self.deadlines.remove(&(held.until, id.clone()));
        *self.running.entry((address.queue.clone(), address.priority)).or_default() -= 1;
        let lane = (address.queue.clone(), address.priority);
        self.lanes.entry(lane).or_default().insert(job.place, id.clone());
    }

    /// The next job of a lane, claimed. `limit` as in `QueueOptions::max_ack_pending`.
    pub(crate) fn claim(
        &mut self,
        lane: (&QueueName, Priority),
        limit: Option<u32>,
        by: RunningAt,
        lease: Duration,
    ) -> Option<(Lease, &Queued)> {
        let running = self.running.entry((lane.0.clone(), lane.1)).or_default();
        if limit.is_some_and(|limit| *running >= limit) {
            return None;
        }
        let (_, id) = self.lanes.get_mut(&(lane.0.clone(), lane.1))?.pop_first()?;
        *running += 1;
        let token: Arc<str> = self.next().to_string().into();
        let until = Instant::now() + lease;
        self.deadlines.insert((until, id.clone()));
        let job = self.jobs.get_mut(&id)?;
        job.claim = Some(Held { token: Arc::clone(&token), until, by });
        Some((Lease { id, token, since: uptime(), duration: lease }, job))
    }

    fn is_held(&self, lease: &Lease) -> bool {
        let claim = self.jobs.get(&lease.id).and_then(|job| job.claim.as_ref());
        claim.is_some_and(|held| held.token == lease.token)
    }

    pub(crate) fn extend(&mut self, lease: &Lease) -> LeaseState {
        if !self.is_held(lease) {
            return LeaseState::Lost;
        }
        if let Some(held) = self.jobs.get_mut(&lease.id).and_then(|job| job.claim.as_mut()) {
            self.deadlines.remove(&(held.until, lease.id.clone()));
            held.until = Instant::now() + lease.duration;
            self.deadlines.insert((held.until, lease.id.clone()));
        }
        LeaseState::Held
    }

    pub(crate) fn hand_back(&mut self, lease: &Lease) {
        if self.is_held(lease) {
            self.release(&lease.id);
        }
    }

    // ---- Jobs enter, move and end

    fn insert(&mut self, entry: Entry) {
        let (id, address, revision) = (entry.address.id.clone(), entry.address.clone(), self.next());
        self.queues.insert(address.queue.clone());
        if entry.status == JobStatus::Pending {
            self.lanes.entry((address.queue, address.priority)).or_default().insert(revision, id.clone());
            self.jobs.insert(id, Queued { entry, place: revision, claim: None, suspect: false });
        } else {
            let Entry { address, status, run_at, run, body, generation, .. } = entry;
            self.scheduled.insert(id, (ScheduledEntry { address, status, run_at, run, revision, body }, generation));
        }
    }

    fn remove_job(&mut self, id: &JobId) {
        self.release(id);
        if let Some(job) = self.jobs.remove(id) {
            let address = job.entry.address;
            self.lanes.entry((address.queue, address.priority)).or_default().remove(&job.place);
        }
    }

    pub(crate) fn result(&self, id: &JobId) -> Option<&Kept> {
        self.results.get(id).filter(|kept| kept.expires > Instant::now())
    }

    /// Whether a life that started from `generation` has ended.
    fn has_ended(&self, id: &JobId, generation: u64) -> bool {
        self.result(id).is_some_and(|kept| kept.result.revision != generation)
    }

    fn write_result(&mut self, address: &Address, record: ResultRecord) {
        let expires_at = host_now().saturating_add(record.ttl);
        let result = StoredResult { id: address.id.clone(), body: record.body, revision: self.next(), expires_at };
        let kept = Kept { result, queue: address.queue.clone(), expires: Instant::now() + record.ttl };
        self.results.insert(address.id.clone(), kept);
    }

    pub(crate) fn enqueue(&mut self, entry: Entry) -> Result<Enqueued> {
        bounded("enqueue", &entry.body)?;
        let id = &entry.address.id;
        if self.is_taken(id) {
            return Ok(Enqueued::Duplicate);
        }
        self.insert(entry);
        Ok(Enqueued::Stored)
    }

    pub(crate) fn enqueue_all(&mut self, entries: Vec<Entry>) -> Result<EnqueuedAll> {
        let mut ids = BTreeSet::new();
        for (at, entry) in entries.iter().enumerate() {
            bounded("enqueue_all", &entry.body)?;
            if self.is_taken(&entry.address.id) || !ids.insert(&entry.address.id) {
                return Ok(EnqueuedAll::Taken(at));
            }
        }
        entries.into_iter().for_each(|entry| self.insert(entry));
        Ok(EnqueuedAll::Stored)
    }

    fn is_taken(&self, id: &JobId) -> bool {
        self.jobs.contains_key(id) || self.scheduled.contains_key(id) || self.result(id).is_some()
    }

    pub(crate) fn requeue(&mut self, entry: Entry) -> Result<Enqueued> {
        bounded("requeue", &entry.body)?;
        let id = entry.address.id.clone();
        if self.jobs.contains_key(&id) || self.scheduled.contains_key(&id) || self.has_ended(&id, entry.generation) {
            return Ok(Enqueued::Duplicate);
        }
        self.insert(entry);
        self.dead.remove(&id);
        Ok(Enqueued::Stored)
    }

    pub(crate) fn settle(&mut self, events: &broadcast::Sender<KvEvent>, settlement: Settlement) -> Result<Settled> {
        let Settlement { lease, address, action, fenced, .. } = settlement;
        let key = match &action {
            Action::End { unique_key, .. } => unique_key.clone(),
            Action::Again(_) => None,
        };
        match &action {
            Action::End { result: Some(record), .. } => bounded("settle", &record.body)?,
            Action::Again(entry) => bounded("settle", &entry.body)?,
            Action::End { .. } => {}
        }
        if !self.is_held(&lease) {
            let ended = !self.jobs.contains_key(&lease.id) && self.result(&lease.id).is_some();
            return Ok(if ended { Settled::AlreadyEnded } else { Settled::LeaseLost });
        }
        let settled = match action {
            Action::Again(_) | Action::End { result: None, .. } if fenced => return Ok(Settled::LeaseLost),
            Action::End { result: Some(record), .. } if self.has_ended(&lease.id, record.generation) => {
                if fenced {
                    return Ok(Settled::AlreadyEnded);
                }
                Settled::AlreadyEnded
            }
            Action::End { result, dead_letter, .. } => {
                if let Some(record) = result {
                    self.write_result(&address, record);
                }
                if let Some(letter) = dead_letter {
                    self.dead.insert(lease.id.clone(), letter);
                }
                Settled::Done
            }
            Action::Again(entry) if self.has_ended(&lease.id, entry.generation) => Settled::AlreadyEnded,
            Action::Again(entry) => {
                self.remove_job(&lease.id);
                self.insert(entry);
                return Ok(Settled::Done);
            }
        };
        self.remove_job(&lease.id);
        self.scheduled.remove(&lease.id);
        self.free_key(events, key, &lease.id);
        Ok(settled)
    }

    /// Removes a unique key that names this job.
    fn free_key(&mut self, events: &broadcast::Sender<KvEvent>, key: Option<String>, id: &JobId) {
        let Some(key) = key else { return };
        if self.kv_get(Bucket::Unique, &key).is_some_and(|slot| UniqueHolder::names(&slot.entry.value, id)) {
            self.kv_delete(events, (Bucket::Unique, &key), None);
        }
    }

    pub(crate) fn end(&mut self, events: &broadcast::Sender<KvEvent>, ending: Ending) -> Result<Ended> {
        let Ending { address, result, dead_letter, unique_key } = ending;
        let id = &address.id;
        let lives = self.jobs.contains_key(id) || self.scheduled.contains_key(id);
        let ended = match &result {
            Some(record) => {
                bounded("end", &record.body)?;
                self.has_ended(id, record.generation)
            }
            None => !lives,
        };
        if ended {
            return Ok(Ended::AlreadyEnded);
        }
        if let Some(record) = result {
            self.write_result(&address, record);
        }
        if let Some(letter) = dead_letter {
            self.dead.insert(id.clone(), letter);
        }
        self.remove_job(id);
        self.scheduled.remove(id);
        self.free_key(events, unique_key, id);
        Ok(Ended::Done)
    }

    pub(crate) fn store_remains(&mut self, remains: Remains) -> Result<Enqueued> {
        let Remains { address, result, dead_letter } = remains;
        let mut bodies = result.iter().map(|record| &record.body).chain(dead_letter.iter().map(|letter| &letter.body));
        bodies.try_for_each(|body| bounded("store remains", body))?;
        let id = &address.id;
        let lives = self.jobs.contains_key(id) || self.scheduled.contains_key(id);
        if lives || self.result(id).is_some() || (result.is_none() && self.dead.contains_key(id)) {
            return Ok(Enqueued::Duplicate);
        }
        if let Some(letter) = dead_letter {
            self.dead.insert(id.clone(), letter);
        }
        if let Some(record) = result {
            self.write_result(&address, record);
        }
        Ok(Enqueued::Stored)
    }

    pub(crate) fn remove_result(&mut self, id: &JobId, revision: u64) -> bool {
        let is_it = self.results.get(id).is_some_and(|kept| kept.result.revision == revision);
        is_it && self.results.remove(id).is_some()
    }

    pub(crate) fn reschedule(&mut self, entry: Entry, revision: u64) -> Result<()> {
        bounded("reschedule", &entry.body)?;
        match self.scheduled.get(&entry.address.id) {
            Some((waiting, _)) if waiting.revision == revision => self.insert(entry),
            _ => return Err(conflict("reschedule", "the entry")),
        }
        Ok(())
    }

    pub(crate) fn promote(&mut self, promotion: Promotion) -> Result<Promoted> {
        let Promotion { revision, entry } = promotion;
        bounded("promote", &entry.body)?;
        let id = &entry.address.id;
        if self.scheduled.get(id).is_none_or(|(waiting, _)| waiting.revision != revision) {
            return Ok(Promoted::Superseded);
        }
        self.scheduled.remove(id);
        if self.has_ended(id, entry.generation) {
            return Ok(Promoted::AlreadyEnded);
        }
        self.insert(entry);
        Ok(Promoted::Done)
    }

    // ---- Time

    /// Waiting entries that have a time, soonest first.
    pub(crate) fn timed(&self) -> Vec<(Timestamp, &ScheduledEntry)> {
        // One that waits for other jobs too has a time that does not count yet.
        let entries =
            self.scheduled.values().map(|(entry, _)| entry).filter(|entry| entry.status != JobStatus::Waiting);
        let mut timed: Vec<_> = entries.filter_map(|entry| Some((entry.run_at?, entry))).collect();
        timed.sort_by_key(|(run_at, entry)| (*run_at, entry.revision));
        timed
    }

    pub(crate) fn sweep(&mut self, limit: usize) -> usize {
        let now = Instant::now();
        let expired: Vec<_> =
            self.results.iter().filter(|(_, kept)| kept.expires <= now).map(|(id, _)| id.clone()).collect();
        let mut swept = 0;
        for id in expired.into_iter().take(limit) {
            self.results.remove(&id);
            swept += 1;
        }
        for slots in self.buckets.values_mut() {
            slots.retain(|_, slot| {
                let goes = swept < limit && !slot.is_live(now);
                swept += usize::from(goes);
                !goes
            });
        }
        swept
    }

    // ---- Key-value

    pub(crate) fn kv(&self, bucket: Bucket, prefix: &str) -> impl Iterator<Item = &Slot> {
        let (now, slots) = (Instant::now(), self.buckets.get(&bucket));
        let slots = slots.into_iter().flat_map(BTreeMap::values);
        slots.filter(move |slot| slot.is_live(now) && slot.entry.key.starts_with(prefix))
    }

    pub(crate) fn kv_get(&self, bucket: Bucket, key: &str) -> Option<&Slot> {
        self.buckets.get(&bucket)?.get(key).filter(|slot| slot.is_live(Instant::now()))
    }

    /// Writes a key that is at `expected`, or does not exist if that is `None`.
    pub(crate) fn kv_put(
        &mut self,
        events: &broadcast::Sender<KvEvent>,
        place: (Bucket, &str),
        value: Bytes,
        expected: Option<u64>,
        ttl: Option<Duration>,
    ) -> Result<u64> {
        let (bucket, key) = place;
        bounded("kv", &value)?;
        if self.kv_get(bucket, key).map(|slot| slot.entry.revision) != expected {
            return Err(conflict("kv", key));
        }
        let entry = KvEntry { key: key.to_owned(), value, revision: self.next() };
        let (revision, expires) = (entry.revision, ttl.map(|ttl| Instant::now() + ttl));
        // Nobody listening is no failure.
        events.send((bucket, KvChange::Put(entry.clone()), expires)).ok();
        self.buckets.entry(bucket).or_default().insert(key.to_owned(), Slot { entry, expires });
        Ok(revision)
    }

    pub(crate) fn kv_delete(
        &mut self,
        events: &broadcast::Sender<KvEvent>,
        (bucket, key): (Bucket, &str),
        expected: Option<u64>,
    ) -> bool {
        let Some(slot) = self.kv_get(bucket, key) else { return false };
        if expected.is_some_and(|expected| expected != slot.entry.revision) {
            return false;
        }
        self.buckets.entry(bucket).or_default().remove(key);
        events.send((bucket, KvChange::Gone(key.to_owned()), None)).ok();
        true
    }
}

impl Slot {
    fn is_live(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }

    pub(crate) fn expires(&self) -> Option<Instant> {
        self.expires
    }
}
