//! Plays a case: each operation on the store and on the model, compared at once and at the end.

use std::{
    fmt::Debug,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use naq_models::{Job, JobError, JobId, JobResult, JobStatus, Priority, QueueName, RawJson, Timestamp, WireFormat};
use naq_services::storage::{
    self, Action, Claim, ConsumerEvent, ConsumerOptions, DeadLetter, Demand, Ended, Ending, Enqueued, EnqueuedAll,
    Lane, Promoted, Promotion, QueueOptions, ResultRecord, RunningAt, RunningJobs, Settled, Settlement, SharedStorage,
    StorageError, StorageErrorKind,
};

use crate::{
    op::{At, CHOSEN, Client, How, KEYS, Op, When},
    state::{Entry, Kept, Place, Value},
};

mod keys;
mod look;
mod race;

/// What was broken, in words.
pub(crate) type Verdict<T = ()> = Result<T, String>;

/// A lease that no case outlasts.
const LEASE: Duration = Duration::from_secs(300);
/// How long a store may take until it shows what it did: nats-server removes an acknowledged job a moment later.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for a consumer whose server is slow to answer: it asks again after seconds.
const LONG_PATIENCE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);
/// More than a case has jobs.
const MANY: usize = 100;
const QUEUE: &str = "q";

struct Held {
    entry: usize,
    claim: Claim,
}

struct Play {
    stores: [SharedStorage; 2],
    now: Timestamp,
    entries: Vec<Entry>,
    held: Vec<Held>,
    keys: [Option<Value>; KEYS],
    /// Counts what enters the queue.
    turn: u64,
    /// Nothing was handed back, so that a lane is in the order of its turns.
    in_order: bool,
    /// Tells results apart.
    mark: u64,
}

struct Nobody;

impl RunningJobs for Nobody {
    fn running(&self, _id: &JobId) -> Option<RunningAt> {
        None
    }
}

/// Plays a case on two connections to a store.
pub(crate) async fn play(stores: [SharedStorage; 2], ops: &[Op]) -> Verdict {
    let now = said("now", stores[0].now().await)?;
    let entries =
        (0..CHOSEN).map(|n| Entry::new(job(JobId::new(format!("chosen-{n}")).expect("an id"), now, 0))).collect();
    let mut play =
        Play { stores, now, entries, held: Vec::new(), keys: Default::default(), turn: 0, in_order: true, mark: 0 };
    for (n, op) in ops.iter().enumerate() {
        play.step(op).await.map_err(|broken| format!("at operation {n}, {op:?}: {broken}"))?;
    }
    play.finish().await.map_err(|broken| format!("at the end: {broken}"))
}

fn job(id: JobId, now: Timestamp, priority: u8) -> Job {
    let mut job = Job::new(id, "model.job", RawJson::parse("{}").expect("JSON"), now);
    job.queue = QueueName::new(QUEUE).expect("a name");
    job.priority = Priority::new(priority).expect("a priority");
    job
}

fn stored(job: &Job, status: JobStatus) -> storage::Entry {
    storage::Entry::new(job, status, WireFormat::Json).expect("JSON is built in")
}

fn pending(job: &Job) -> storage::Entry {
    stored(job, JobStatus::Pending)
}

fn said<T>(what: &str, answer: Result<T, StorageError>) -> Verdict<T> {
    answer.map_err(|error| format!("{what}: {error}"))
}

fn same<T: PartialEq + Debug>(what: &str, found: &T, expected: &T) -> Verdict {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}

/// The one answer of a call for one.
fn only<T>(mut answers: Vec<Result<T, StorageError>>, what: &str) -> Verdict<T> {
    match (answers.pop(), answers.is_empty()) {
        (Some(answer), true) => said(what, answer),
        _ => Err(format!("{what}: not one answer")),
    }
}

/// Tries until it holds.
async fn eventually<F: Future<Output = Verdict>>(check: impl Fn() -> F) -> Verdict {
    let begun = Instant::now();
    loop {
        match check().await {
            Ok(()) => return Ok(()),
            Err(broken) if begun.elapsed() > PATIENCE => return Err(broken),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// The place in `list` that a number names, of those that fit.
fn pick(list: &[Entry], number: usize, fits: impl Fn(&Entry) -> bool) -> Option<usize> {
    let fitting: Vec<usize> = (0..list.len()).filter(|n| fits(&list[*n])).collect();
    fitting.get(number % fitting.len().max(1)).copied()
}

impl Play {
    async fn step(&mut self, op: &Op) -> Verdict {
        match *op {
            Op::Enqueue { by, id, priority, when } => self.enqueue(by, id, priority, when).await,
            Op::EnqueueFresh { by, priority, when } => {
                let mut random = [0; 10];
                random[9] = u8::try_from(self.entries.len()).expect("few jobs");
                let id = JobId::generate(self.now, random);
                self.entries.push(Entry::new(job(id, self.now, priority)));
                self.enqueue(by, self.entries.len() - 1, priority, when).await
            }
            Op::EnqueueAll { by, ref ids, priority } => self.enqueue_all(by, ids, priority).await,
            Op::Claim { by, priority } => {
                let claims = self.claim(by, priority, self.waiting_in(priority)).await?;
                let turns: Vec<_> = claims.iter().map(|held| self.entries[held.entry].place.clone()).collect();
                if self.in_order && !turns.is_sorted_by_key(turn_of) {
                    return Err(format!("claimed out of order: {turns:?}"));
                }
                self.hold(claims)
            }
            Op::ClaimBoth { priority } => {
                let there = self.waiting_in(priority);
                let (one, other) = tokio::join!(self.grab(0, priority, MANY), self.grab(1, priority, MANY));
                let claims = self.read_claims(one?.into_iter().chain(other?).collect(), &there)?;
                let rest = there.into_iter().filter(|entry| claims.iter().all(|held| held.entry != *entry)).collect();
                let rest = self.claim(0, priority, rest).await?;
                self.hold(claims.into_iter().chain(rest).collect())
            }
            Op::Settle { by, claim, how } => match self.held.len() {
                0 => Ok(()),
                count => {
                    let held = self.held.swap_remove(claim % count);
                    self.settle(by, held, how).await
                }
            },
            Op::End { by, job } => self.end(by, job).await,
            Op::Requeue { by, job } => self.requeue(by, job).await,
            Op::Reschedule { by, job, at } => self.reschedule(by, job, at).await,
            Op::Promote { by, job, at } => self.promote(by, job, at).await,
            Op::RemoveLetter { by, job } => {
                let n = job % self.entries.len();
                let removed =
                    said("remove the letter", self.stores[by].remove_dead_letter(&self.entries[n].job.id).await)?;
                same("a letter was there", &removed, &self.entries[n].letter)?;
                self.entries[n].letter = false;
                self.look(n).await
            }
            Op::RemoveResult { by, job, at } => {
                let Some(n) = pick(&self.entries, job, |entry| entry.result.is_some() && !entry.letter) else {
                    return Ok(());
                };
                let revision = self.entries[n].result.as_ref().map_or(0, |kept| kept.revision);
                let named = revision + u64::from(at == At::Stale);
                let removed = self.stores[by].remove_result(&self.entries[n].job.id, named).await;
                same("a result was removed", &said("remove the result", removed)?, &(at == At::Present))?;
                if at == At::Present {
                    self.entries[n].result = None;
                }
                self.look(n).await
            }
            Op::CreateKey { by, key, value } => self.create_key(by, key, value).await,
            Op::UpdateKey { by, key, value, at } => self.update_key(by, key, value, at).await,
            Op::DeleteKey { by, key, at } => self.delete_key(by, key, at).await,
            Op::Race(race) => self.race(race).await,
        }
    }

    // ---- In ----------------------------------------------------------------------------------------------------

    fn new_life(&self, n: usize, priority: u8, when: When) -> (Job, JobStatus) {
        let mut new = job(self.entries[n].job.id.clone(), self.now, priority);
        let status = match when {
            When::Now => JobStatus::Pending,
            When::Later => JobStatus::Scheduled,
            When::OnOthers => JobStatus::Waiting,
        };
        new.run_at = (when == When::Later).then(|| self.now.saturating_add(DAY));
        (new, status)
    }

    async fn enqueue(&mut self, by: Client, n: usize, priority: u8, when: When) -> Verdict {
        let (new, status) = self.new_life(n, priority, when);
        let answer = only(self.stores[by].enqueue(vec![stored(&new, status)]).await, "enqueue")?;
        let expected = if self.entries[n].is_free() { Enqueued::Stored } else { Enqueued::Duplicate };
        same("enqueue", &answer, &expected)?;
        if expected == Enqueued::Stored {
            self.put(n, new, status).await?;
        }
        self.look(n).await
    }

    async fn enqueue_all(&mut self, by: Client, ids: &[usize], priority: u8) -> Verdict {
        let lives: Vec<Job> = ids.iter().map(|n| self.new_life(*n, priority, When::Now).0).collect();
        let taken: Vec<_> = (0..ids.len())
            .filter(|at| !self.entries[ids[*at]].is_free() || ids[..*at].contains(&ids[*at]))
            .map(EnqueuedAll::Taken)
            .collect();
        match self.stores[by].enqueue_all(lives.iter().map(pending).collect()).await {
            Err(error) if error.kind() == StorageErrorKind::Unsupported => {}
            // Which of them is named is the store's choice.
            Ok(answer) if taken.contains(&answer) => {}
            answer => {
                same("enqueue all", &said("enqueue all", answer)?, &EnqueuedAll::Stored)?;
                same("what was taken", &taken, &Vec::new())?;
                for (n, life) in ids.iter().zip(lives) {
                    self.put(*n, life, JobStatus::Pending).await?;
                }
            }
        }
        for n in ids {
            self.look(*n).await?;
        }
        Ok(())
    }

    /// Notes that a job is stored.
    async fn put(&mut self, n: usize, job: Job, status: JobStatus) -> Verdict {
        self.turn += 1;
        self.entries[n].place = match status {
            JobStatus::Pending => Place::Queued { turn: self.turn, held: false },
            status => Place::Waits { status, revision: self.revision(&job.id).await? },
        };
        self.entries[n].job = job;
        Ok(())
    }

    async fn revision(&self, id: &JobId) -> Verdict<u64> {
        let found = said("get scheduled", self.stores[0].get_scheduled(std::slice::from_ref(id)).await)?;
        match &found[..] {
            [Some(entry)] => Ok(entry.revision),
            other => Err(format!("the scheduled entry of {id}: {other:?}")),
        }
    }

    // ---- Claims ------------------------------------------------------------------------------------------------

    /// What of a priority nobody holds.
    fn waiting_in(&self, priority: u8) -> Vec<usize> {
        let free = |entry: &Entry| {
            matches!(entry.place, Place::Queued { held: false, .. }) && entry.job.priority.get() == priority
        };
        (0..self.entries.len()).filter(|n| free(&self.entries[*n])).collect()
    }

    /// Everything that a new consumer is given until it hears that nothing is left.
    async fn grab(&self, by: Client, priority: u8, most: usize) -> Verdict<Vec<Claim>> {
        let queue = QueueOptions { name: QueueName::new(QUEUE).expect("a name"), lease: LEASE, max_ack_pending: None };
        let options =
            ConsumerOptions { worker_id: format!("client-{by}"), queues: vec![queue], running: Arc::new(Nobody) };
        let mut consumer = said("open a consumer", self.stores[by].open_consumer(options).await)?;
        let lane = Lane { queue: 0, priority: Priority::new(priority).expect("a priority") };
        consumer.demand(Demand { lanes: vec![(lane, most)] });
        let (mut claims, mut trouble) = (Vec::new(), None);
        loop {
            match tokio::time::timeout(LONG_PATIENCE, consumer.next()).await {
                Ok(ConsumerEvent::Claimed(more)) => claims.extend(more),
                Ok(ConsumerEvent::Empty(_)) => break,
                // It goes on trying.
                Ok(ConsumerEvent::Trouble(error)) => trouble = Some(error),
                Err(_) => {
                    return Err(format!("a consumer is silent after {} claims; trouble: {trouble:?}", claims.len()));
                }
            }
        }
        said("close a consumer", consumer.close().await)?;
        Ok(claims)
    }

    /// Claims all of these, and nothing else.
    async fn claim(&mut self, by: Client, priority: u8, mut there: Vec<usize>) -> Verdict<Vec<Held>> {
        let (mut all, begun) = (Vec::new(), Instant::now());
        loop {
            let claims = self.grab(by, priority, MANY).await?;
            let claims = self.read_claims(claims, &there)?;
            if !claims.is_empty() && !all.is_empty() {
                // What came late was given back on the way.
                self.in_order = false;
            }
            there.retain(|entry| claims.iter().all(|held| held.entry != *entry));
            all.extend(claims);
            if there.is_empty() {
                return Ok(all);
            }
            if begun.elapsed() > PATIENCE {
                let missing: Vec<_> = there.iter().map(|n| &self.entries[*n].job.id).collect();
                return Err(format!("not given to anybody: {missing:?}"));
            }
        }
    }

    /// Whose the claims are; each must be of one that was there, and as it was stored.
    fn read_claims(&self, claims: Vec<Claim>, there: &[usize]) -> Verdict<Vec<Held>> {
        let mut held: Vec<Held> = Vec::with_capacity(claims.len());
        for claim in claims {
            let id = &claim.address.id;
            let whose = there.iter().copied().find(|n| self.entries[*n].job.id == *id);
            let entry = whose.ok_or_else(|| format!("{id} was given out, and is nobody's to give"))?;
            if held.iter().any(|other| other.entry == entry) {
                return Err(format!("{id} was given out twice"));
            }
            same("the body of a claim", &claim.body, &pending(&self.entries[entry].job).body)?;
            held.push(Held { entry, claim });
        }
        Ok(held)
    }

    fn hold(&mut self, claims: Vec<Held>) -> Verdict {
        for held in &claims {
            match &mut self.entries[held.entry].place {
                Place::Queued { held, .. } if !*held => *held = true,
                place => return Err(format!("claimed where it is {place:?}")),
            }
        }
        self.held.extend(claims);
        Ok(())
    }

    fn result(&mut self, job: &Job, status: JobStatus) -> ResultRecord {
        self.mark += 1;
        let mut result = JobResult::of(job, status, self.now);
        match status {
            JobStatus::Completed => result.result = RawJson::from_value(&self.mark).ok(),
            _ => result.error = Some(JobError::new("model", self.mark.to_string(), self.now)),
        }
        ResultRecord { status, body: Bytes::from(result.encode()), generation: job.generation, ttl: DAY }
    }

    fn settlement(held: &Held, action: Action) -> Settlement {
        Settlement {
            lease: held.claim.lease.clone(),
            address: held.claim.address.clone(),
            action,
            fenced: false,
            clear_scheduled: held.claim.doubtful,
        }
    }

    async fn settle(&mut self, by: Client, held: Held, how: How) -> Verdict {
        let n = held.entry;
        let job = self.entries[n].job.clone();
        if held.claim.doubtful {
            let review = said("review", self.stores[by].review(&held.claim).await)?;
            let newer = review.result.as_ref().is_some_and(|result| result.revision > job.generation);
            let later = review.scheduled_run.is_some_and(|run| run > job.run);
            if newer || later || review.suspect {
                return Err(format!("the review of an innocent job: {review:?}"));
            }
        }
        let how = if how == How::Vanishes && self.entries[n].result.is_some() { How::Completes } else { how };
        let action = match how {
            How::HandedBack => {
                said("hand back", self.stores[by].hand_back(vec![held.claim.lease.clone()]).await)?;
                self.in_order = false;
                if let Place::Queued { held, .. } = &mut self.entries[n].place {
                    *held = false;
                }
                return self.look(n).await;
            }
            How::Retries => {
                let mut next = job.clone();
                (next.run, next.attempt, next.run_at) =
                    (job.run + 1, job.attempt + 1, Some(self.now.saturating_add(DAY)));
                let action = Action::Again(stored(&next, JobStatus::Retry));
                self.settled(by, &held, action, Settled::Done).await?;
                self.put(n, next, JobStatus::Retry).await?;
                return self.look(n).await;
            }
            How::Vanishes => Action::End { result: None, dead_letter: None, unique_key: None },
            How::Completes => {
                let result = Some(self.result(&job, JobStatus::Completed));
                Action::End { result, dead_letter: None, unique_key: None }
            }
            How::Fails => {
                let result = Some(self.result(&job, JobStatus::Failed));
                let letter = DeadLetter {
                    address: held.claim.address.clone(),
                    body: held.claim.body.clone(),
                    error: JobError::new("model", "failed", self.now),
                    kind: Some(job.kind.clone()),
                };
                Action::End { result, dead_letter: Some(letter), unique_key: None }
            }
        };
        let result = match &action {
            Action::End { result, .. } => result.clone(),
            Action::Again(_) => None,
        };
        self.settled(by, &held, action, Settled::Done).await?;
        self.entries[n].letter |= how == How::Fails;
        self.ended(n, result).await
    }

    async fn settled(&self, by: Client, held: &Held, action: Action, expected: Settled) -> Verdict {
        let answer = only(self.stores[by].settle(vec![Self::settlement(held, action)]).await, "settle")?;
        same("settle", &answer, &expected)
    }

    /// Notes that a job has ended with a result, or with none kept.
    async fn ended(&mut self, n: usize, result: Option<ResultRecord>) -> Verdict {
        self.entries[n].place = Place::Nowhere;
        if let Some(record) = result {
            let found = said("get the result", self.stores[0].get_result(&self.entries[n].job.id).await)?;
            let found = found.ok_or("there is no result")?;
            same("the result", &found.body, &record.body)?;
            let before = self.entries[n].result.as_ref().map_or(0, |kept| kept.revision);
            if found.revision <= before {
                return Err(format!("revision {} of a result after {before}", found.revision));
            }
            self.entries[n].result = Some(Kept { body: found.body, revision: found.revision });
        }
        self.look(n).await
    }

    // ---- Without a lease ---------------------------------------------------------------------------------------

    fn ending(&mut self, n: usize) -> (Ending, ResultRecord) {
        let job = self.entries[n].job.clone();
        let record = self.result(&job, JobStatus::Cancelled);
        let address = pending(&job).address;
        (Ending { address, result: Some(record.clone()), dead_letter: None, unique_key: None }, record)
    }

    async fn end(&mut self, by: Client, number: usize) -> Verdict {
        let Some(n) = pick(&self.entries, number, |entry| !entry.is_free()) else { return Ok(()) };
        let (ending, record) = self.ending(n);
        let answer = said("end", self.stores[by].end(ending).await)?;
        if self.entries[n].place == Place::Nowhere {
            same("end", &answer, &Ended::AlreadyEnded)?;
            return self.look(n).await;
        }
        same("end", &answer, &Ended::Done)?;
        self.ended(n, Some(record)).await?;
        self.too_late(by, n).await
    }

    /// The worker that ran a job when it was ended settles it: nothing comes of that.
    async fn too_late(&mut self, by: Client, n: usize) -> Verdict {
        let Some(at) = self.held.iter().position(|held| held.entry == n) else { return Ok(()) };
        let held = self.held.swap_remove(at);
        let result = Some(self.result(&self.entries[n].job.clone(), JobStatus::Completed));
        let action = Action::End { result, dead_letter: None, unique_key: None };
        self.settled(by, &held, action, Settled::AlreadyEnded).await?;
        self.look(n).await
    }

    async fn requeue(&mut self, by: Client, number: usize) -> Verdict {
        if let Some(n) = pick(&self.entries, number, Entry::has_ended) {
            let next = self.reborn(n);
            let answer = said("requeue", self.stores[by].requeue(pending(&next)).await)?;
            same("requeue", &answer, &Enqueued::Stored)?;
            self.entries[n].letter = false;
            self.put(n, next, JobStatus::Pending).await?;
            self.look(n).await?;
        }
        // The same call once more, for whatever is in its queue.
        let Some(n) = pick(&self.entries, number, |entry| matches!(entry.place, Place::Queued { .. })) else {
            return Ok(());
        };
        let again = said("requeue", self.stores[by].requeue(pending(&self.entries[n].job)).await)?;
        same("requeue again", &again, &Enqueued::Duplicate)?;
        self.look(n).await
    }

    fn reborn(&self, n: usize) -> Job {
        let entry = &self.entries[n];
        entry.job.clone().reborn(entry.result.as_ref().map_or(0, |kept| kept.revision))
    }

    // ---- What waits --------------------------------------------------------------------------------------------

    fn moved(&self, n: usize) -> Job {
        let mut job = self.entries[n].job.clone();
        job.run_at = job.run_at.map(|at| at.saturating_add(DAY));
        job
    }

    async fn reschedule(&mut self, by: Client, number: usize, at: At) -> Verdict {
        let timed = |entry: &Entry| entry.waits().is_some_and(|(_, status)| status != JobStatus::Waiting);
        let Some(n) = pick(&self.entries, number, timed) else { return Ok(()) };
        let Some((revision, status)) = self.entries[n].waits() else { return Ok(()) };
        let moved = self.moved(n);
        let answer = self.stores[by].reschedule(stored(&moved, status), revision - u64::from(at == At::Stale)).await;
        if at == At::Stale {
            same("reschedule", &answer.map_err(|error| error.kind()), &Err(StorageErrorKind::Conflict))?;
        } else {
            said("reschedule", answer)?;
            self.put(n, moved, status).await?;
        }
        self.look(n).await
    }

    fn promotion(&self, n: usize, revision: u64) -> (Promotion, Job) {
        let promoted = self.entries[n].job.clone().promoted();
        (Promotion { revision, entry: pending(&promoted) }, promoted)
    }

    async fn promote(&mut self, by: Client, number: usize, at: At) -> Verdict {
        let Some(n) = pick(&self.entries, number, |entry| entry.waits().is_some()) else { return Ok(()) };
        let Some((revision, _)) = self.entries[n].waits() else { return Ok(()) };
        let (promotion, promoted) = self.promotion(n, revision - u64::from(at == At::Stale));
        let answer = only(self.stores[by].promote(vec![promotion]).await, "promote")?;
        if at == At::Stale {
            same("promote", &answer, &Promoted::Superseded)?;
        } else {
            same("promote", &answer, &Promoted::Done)?;
            self.put(n, promoted, JobStatus::Pending).await?;
        }
        self.look(n).await
    }
}

fn turn_of(place: &Place) -> u64 {
    match place {
        Place::Queued { turn, .. } => *turn,
        _ => 0,
    }
}
