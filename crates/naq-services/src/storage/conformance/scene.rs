//! What checks are written with: connections ([`Scene`]), jobs, a worker's receiving end ([`Puller`]), settlements.
//!
//! Invariant: a scene closes every connection it opened, however its check ended; a puller's waits are bounded. Nothing
//! here judges a store, except that an answer is late.

use std::{
    collections::BTreeSet,
    panic::Location,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use naq_models::{Job, JobError, JobId, JobResult, JobStatus, Priority, QueueName, RawJson, Timestamp, WireFormat};

use super::{
    Fixture,
    failure::{Failure, Verdict, ensure, within},
};
use crate::storage::{
    Action, Claim, Consumer, ConsumerEvent, ConsumerOptions, Demand, Ended, Ending, Enqueued, Entry, Lane, Lease,
    LeaseState, QueueOptions, ResultRecord, RunningAt, RunningJobs, Settled, Settlement, SharedStorage, Storage,
    StorageError,
};

/// How long a check waits for what should come at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a check looks for what must not come.
pub(super) const QUIET: Duration = Duration::from_millis(300);
/// A lease that does not run out during a check.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// The surroundings of one check: a fresh store and connections to it.
#[derive(Clone)]
pub(super) struct Scene {
    fixture: Arc<dyn Fixture>,
    opened: Arc<Mutex<Vec<SharedStorage>>>,
}

impl Scene {
    pub(super) fn new(fixture: Arc<dyn Fixture>) -> Self {
        Self { fixture, opened: Arc::default() }
    }

    /// One more connection to the store.
    pub(super) async fn open(&self) -> Result<SharedStorage, Failure> {
        let store = within(PATIENCE, "opening a connection", self.fixture.open()).await??;
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&store));
        Ok(store)
    }

    /// Two connections.
    pub(super) async fn pair(&self) -> Result<(SharedStorage, SharedStorage), Failure> {
        Ok((self.open().await?, self.open().await?))
    }

    /// The shortest lease the backend takes.
    pub(super) fn lease(&self) -> Duration {
        self.fixture.shortest_lease()
    }

    pub(super) async fn close(&self) -> Verdict {
        let opened = std::mem::take(&mut *self.opened.lock().unwrap_or_else(PoisonError::into_inner));
        for store in opened {
            within(PATIENCE, "closing a connection", store.close()).await?;
        }
        Ok(())
    }
}

/// The host's time.
pub(super) fn host_now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the suite compares the store's clock with the host's")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.saturating_add(since)
}

pub(super) fn queue(name: &str) -> QueueName {
    QueueName::new(name).expect("the suite uses valid queue names")
}

pub(super) fn priority(value: u8) -> Priority {
    Priority::new(value).expect("the suite uses valid priorities")
}

/// A job with a generated id in a queue.
pub(super) fn job(queue_name: &str) -> Job {
    let now = host_now();
    job_of(JobId::generate(now, rand::random()), queue_name)
}

/// A job with an id of the caller's choice.
pub(super) fn named(id: &str, queue_name: &str) -> Job {
    job_of(JobId::new(id).expect("the suite uses valid ids"), queue_name)
}

fn job_of(id: JobId, queue_name: &str) -> Job {
    let args = RawJson::parse(r#"{"n":1}"#).expect("valid JSON");
    let mut job = Job::new(id, "conformance.job", args, host_now());
    job.queue = queue(queue_name);
    job
}

/// Many jobs with generated ids in one queue.
pub(super) fn jobs(queue_name: &str, count: usize) -> Vec<Job> {
    (0..count).map(|_| job(queue_name)).collect()
}

pub(super) fn at_priority(mut job: Job, value: u8) -> Job {
    job.priority = priority(value);
    job
}

pub(super) fn ids(jobs: &[Job]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id.clone()).collect()
}

pub(super) fn claimed_ids(claims: &[Claim]) -> Vec<JobId> {
    claims.iter().map(|claim| claim.address.id.clone()).collect()
}

/// Fails at the first place where claims are in another order than their jobs were enqueued.
#[track_caller]
pub(super) fn same_order(found: &[JobId], expected: &[JobId]) -> Verdict {
    let place = |id: &JobId| expected.iter().position(|other| other == id);
    match (0..expected.len().max(found.len())).find(|&n| found.get(n) != expected.get(n)) {
        None => Ok(()),
        Some(n) => {
            let came = found.get(n).and_then(place);
            let text = format!("of {} claims, number {n} is job number {came:?} of {}", found.len(), expected.len());
            Err(Failure::new(text))
        }
    }
}

pub(super) fn entry(job: &Job, status: JobStatus) -> Entry {
    Entry::new(job, status, WireFormat::Json).expect("JSON is always built in")
}

pub(super) fn pending(job: &Job) -> Entry {
    entry(job, JobStatus::Pending)
}

pub(super) fn scheduled(job: &Job, run_at: Timestamp) -> Entry {
    let mut job = job.clone();
    job.run_at = Some(run_at);
    entry(&job, JobStatus::Scheduled)
}

/// Enqueues one entry.
pub(super) async fn enqueue(store: &SharedStorage, entry: Entry) -> Result<Enqueued, StorageError> {
    store.enqueue(vec![entry]).await.into_iter().next().expect("one outcome per entry")
}

/// Enqueues jobs that must all be new.
#[track_caller]
pub(super) fn put<'a>(store: &'a SharedStorage, jobs: &'a [Job]) -> impl Future<Output = Verdict> + 'a {
    put_entries(store, jobs.iter().map(pending).collect())
}

/// Enqueues entries that must all be new.
#[track_caller]
pub(super) fn put_entries(store: &SharedStorage, entries: Vec<Entry>) -> impl Future<Output = Verdict> + '_ {
    let at = Location::caller();
    async move {
        let expected = entries.len();
        let outcomes = within(PATIENCE * 3, "enqueueing", store.enqueue(entries)).await?;
        if outcomes.len() != expected {
            return Err(Failure::at(at, format!("{} outcomes for {expected} entries", outcomes.len())));
        }
        for outcome in outcomes {
            if outcome? != Enqueued::Stored {
                return Err(Failure::at(at, "a new job was taken for a duplicate"));
            }
        }
        Ok(())
    }
}

/// Answers who runs what, as a worker would.
#[derive(Default)]
pub(super) struct Running(Mutex<Vec<(JobId, RunningAt)>>);

impl Running {
    pub(super) fn start(&self, id: &JobId, at: RunningAt) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((id.clone(), at));
    }
}

impl RunningJobs for Running {
    fn running(&self, id: &JobId) -> Option<RunningAt> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().find(|(known, _)| known == id).map(|(_, at)| at.clone())
    }
}

/// A worker's receiving end over some queues.
pub(super) struct Puller {
    consumer: Box<dyn Consumer>,
    pub(super) running: Arc<Running>,
    demanded: BTreeSet<Lane>,
    last_trouble: Option<StorageError>,
}

impl Puller {
    pub(super) async fn open(
        store: &SharedStorage,
        worker_id: &str,
        queues: &[&str],
        lease: Duration,
    ) -> Result<Self, Failure> {
        let queues =
            queues.iter().map(|name| QueueOptions { name: queue(name), lease, max_ack_pending: None }).collect();
        Self::open_with(store, worker_id, queues).await
    }

    pub(super) async fn open_with(
        store: &SharedStorage,
        worker_id: &str,
        queues: Vec<QueueOptions>,
    ) -> Result<Self, Failure> {
        let running = Arc::new(Running::default());
        let options = ConsumerOptions {
            worker_id: worker_id.into(),
            queues,
            running: Arc::clone(&running) as Arc<dyn RunningJobs>,
        };
        let consumer = within(PATIENCE, "opening a consumer", store.open_consumer(options)).await??;
        Ok(Self { consumer, running, demanded: BTreeSet::new(), last_trouble: None })
    }

    /// Demands so many of the first queue's default priority.
    pub(super) fn demand(&mut self, count: usize) {
        self.demand_lanes(&[(0, 2, count)]);
    }

    /// Demands by (queue, priority, count of it and those before it).
    pub(super) fn demand_lanes(&mut self, lanes: &[(usize, u8, usize)]) {
        let lanes: Vec<_> =
            lanes.iter().map(|&(queue, p, count)| (Lane { queue, priority: priority(p) }, count)).collect();
        self.demanded = lanes.iter().filter(|(_, count)| *count > 0).map(|(lane, _)| *lane).collect();
        self.consumer.demand(Demand { lanes });
    }

    /// The next event but trouble, which is kept for the failure message.
    pub(super) async fn event(&mut self) -> ConsumerEvent {
        loop {
            match self.consumer.next().await {
                ConsumerEvent::Trouble(error) => self.last_trouble = Some(error),
                event => return event,
            }
        }
    }

    /// Takes what has been demanded until there are `count` claims.
    #[track_caller]
    pub(super) fn take(&mut self, count: usize) -> impl Future<Output = Result<Vec<Claim>, Failure>> + '_ {
        self.take_within(PATIENCE, count)
    }

    /// [`take`](Self::take) with a bound of its own.
    #[track_caller]
    pub(super) fn take_within(
        &mut self,
        limit: Duration,
        count: usize,
    ) -> impl Future<Output = Result<Vec<Claim>, Failure>> + '_ {
        let at = Location::caller();
        async move {
            let mut claims = Vec::with_capacity(count);
            let deadline = Instant::now() + limit;
            while claims.len() < count {
                let left = deadline.saturating_duration_since(Instant::now());
                match tokio::time::timeout(left, self.event()).await {
                    Ok(ConsumerEvent::Claimed(more)) => claims.extend(more),
                    Ok(_) => {}
                    Err(_) => {
                        let found = claims.len();
                        let trouble = self.last_trouble.as_ref().map_or("none".to_owned(), ToString::to_string);
                        let text = format!("{found} of {count} jobs claimed within {limit:?}; last trouble: {trouble}");
                        return Err(Failure::at(at, text));
                    }
                }
            }
            if claims.len() > count {
                return Err(Failure::at(at, format!("{} jobs claimed, {count} demanded", claims.len())));
            }
            Ok(claims)
        }
    }

    /// Demands and takes one job of the default lane.
    #[track_caller]
    pub(super) fn one(&mut self) -> impl Future<Output = Result<Claim, Failure>> + '_ {
        self.demand(1);
        let taken = self.take(1);
        async move { Ok(taken.await?.pop().expect("take returns what was asked for")) }
    }

    /// Everything handed out until every lane of the demand is reported as empty.
    #[track_caller]
    pub(super) fn until_empty(&mut self) -> impl Future<Output = Result<Vec<Claim>, Failure>> + '_ {
        let at = Location::caller();
        async move {
            let (mut claims, mut full) = (Vec::new(), self.demanded.clone());
            while !full.is_empty() {
                match tokio::time::timeout(PATIENCE, self.event()).await {
                    Ok(ConsumerEvent::Claimed(more)) => {
                        full.extend(more.iter().map(|claim| claim.lane));
                        claims.extend(more);
                    }
                    Ok(ConsumerEvent::Empty(lanes)) => full.retain(|lane| !lanes.contains(lane)),
                    Ok(ConsumerEvent::Trouble(_)) => {}
                    Err(_) => {
                        let text = format!("{full:?} not empty within {PATIENCE:?}, {} jobs claimed", claims.len());
                        return Err(Failure::at(at, text));
                    }
                }
            }
            Ok(claims)
        }
    }

    /// What arrives within a time.
    pub(super) async fn during(&mut self, time: Duration) -> Vec<Claim> {
        let mut claims = Vec::new();
        let end = Instant::now() + time;
        while let Ok(event) = tokio::time::timeout(end.saturating_duration_since(Instant::now()), self.event()).await {
            if let ConsumerEvent::Claimed(more) = event {
                claims.extend(more);
            }
        }
        claims
    }

    /// Fails if anything arrives within a time.
    #[track_caller]
    pub(super) fn nothing_for(&mut self, time: Duration) -> impl Future<Output = Verdict> + '_ {
        let at = Location::caller();
        async move {
            let claims = self.during(time).await;
            if claims.is_empty() {
                return Ok(());
            }
            let text = format!("{} jobs were claimed where none should be: {:?}", claims.len(), claimed_ids(&claims));
            Err(Failure::at(at, text))
        }
    }

    pub(super) async fn close(self) -> Verdict {
        within(PATIENCE, "closing a consumer", self.consumer.close()).await??;
        Ok(())
    }
}

/// The result of a job, with a value to tell it from others.
pub(super) fn result_of(job: &Job, status: JobStatus, mark: &str) -> ResultRecord {
    let mut result = JobResult::of(job, status, host_now());
    match status {
        JobStatus::Completed => result.result = RawJson::from_value(mark).ok(),
        _ => result.error = Some(JobError::new("conformance", mark, host_now())),
    }
    ResultRecord {
        status,
        body: Bytes::from(result.encode()),
        generation: job.generation,
        ttl: Duration::from_secs(3600),
    }
}

/// A settlement of a lease that is not in doubt.
pub(super) fn settlement(claim: &Claim, action: Action) -> Settlement {
    Settlement {
        lease: claim.lease.clone(),
        address: claim.address.clone(),
        action,
        fenced: false,
        clear_scheduled: claim.doubtful,
    }
}

pub(super) fn fenced(claim: &Claim, action: Action) -> Settlement {
    Settlement { fenced: true, ..settlement(claim, action) }
}

/// The end of a job, with a result and without a dead letter.
pub(super) fn end_with(result: ResultRecord) -> Action {
    Action::End { result: Some(result), dead_letter: None, unique_key: None }
}

pub(super) async fn settle(store: &dyn Storage, settlement: Settlement) -> Result<Settled, StorageError> {
    store.settle(vec![settlement]).await.into_iter().next().expect("one outcome per settlement")
}

/// Completes a claimed job; returns the body of its result.
#[track_caller]
pub(super) fn complete<'a>(
    store: &'a SharedStorage,
    claim: &'a Claim,
    job: &'a Job,
    mark: &'a str,
) -> impl Future<Output = Result<Bytes, Failure>> + 'a {
    let at = Location::caller();
    async move {
        let result = result_of(job, JobStatus::Completed, mark);
        let body = result.body.clone();
        let settled = within(PATIENCE, "settling", settle(&**store, settlement(claim, end_with(result)))).await??;
        if settled != Settled::Done {
            return Err(Failure::at(at, format!("completing a held job: {settled:?}")));
        }
        Ok(body)
    }
}

/// Cancels a job without a lease.
pub(super) async fn cancel(store: &SharedStorage, job: &Job) -> Result<Ended, Failure> {
    let ending = Ending {
        address: pending(job).address,
        result: Some(result_of(job, JobStatus::Cancelled, "cancelled")),
        dead_letter: None,
        unique_key: job.key_freed_at_end(),
    };
    Ok(within(PATIENCE, "ending a job", store.end(ending)).await??)
}

/// Extends leases `rounds` times, the first time at once, over a heartbeat on a thread and runtime of its own.
pub(super) async fn extend(
    store: &SharedStorage,
    leases: Vec<Lease>,
    rounds: usize,
    every: Duration,
) -> Result<Vec<Vec<LeaseState>>, Failure> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let store = Arc::clone(store);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let states = match runtime {
            Ok(runtime) => runtime.block_on(beat(&*store, &leases, rounds, every)),
            Err(error) => Err(Failure::new(format!("no runtime for the heartbeat: {error}"))),
        };
        // The receiver is gone only if the check has failed already.
        answer.send(states).ok();
    });
    let limit = PATIENCE + every * u32::try_from(rounds).unwrap_or(u32::MAX);
    let states = within(limit, "the heartbeat", answered).await?;
    let states = states.map_err(|_| Failure::new("the heartbeat's thread ended without an answer"))??;
    ensure!(thread.join().is_ok(), "the heartbeat's thread panicked");
    Ok(states)
}

async fn beat(
    store: &dyn Storage,
    leases: &[Lease],
    rounds: usize,
    every: Duration,
) -> Result<Vec<Vec<LeaseState>>, Failure> {
    let heartbeat = within(PATIENCE, "opening a heartbeat", store.open_heartbeat()).await??;
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
    let mut all = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        ticks.tick().await;
        let states = within(PATIENCE, "extending leases", heartbeat.extend(leases)).await?;
        ensure!(states.len() == leases.len(), "{} states for {} leases", states.len(), leases.len());
        all.push(states);
    }
    Ok(all)
}
