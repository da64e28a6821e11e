//! What parts of a worker cost by themselves: the claim buffer, and the executor.
//!
//! Invariant: the worker's own code and nothing of a store is in the numbers. `cargo bench -p naq-worker --features bench
//! --bench parts` prints them, `thrpt` in jobs (of `new_demand`: in calls); nothing is judged by them.
//!
//! *Claim buffer*: on one thread, without the lock and the clock around it. While all slots are busy: `push`, claims arrive,
//! and the store says that there are no more; `take`, a slot ends its job and gets the next one. `new_demand`: of a worker that
//! has just started, to be told to the store; and of a buffer that holds all that is wanted, where nothing is to be told.
//!
//! *Executor*: from claims that the worker takes over to the last settlement. In it: the table of leases, the buffer with lock
//! and clock, decoding, the guards around a handler that does nothing, its result, the way to the thread that settles in
//! batches, counting. Not in it: the store, which answers at once; claiming, which is done beforehand; the heartbeat; events
//! and log lines, as nobody listens.

#[path = "../tests/handlers/no_store.rs"]
mod no_store;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use naq_models::{Address, Job, JobId, Priority, QueueName, RawJson, Timestamp, WireFormat, job, wire};
use naq_services::storage::{Claim, Lane, Lease};
use naq_worker::{
    Worker,
    bench::{ClaimBuffer, Executor, HeldClaims},
};
use serde_json::json;

use no_store::NoStore;

const KIND: &str = "bench.noop";
/// Bytes of a job's arguments.
const PAYLOAD: usize = 256;
const SLOTS: usize = 100;
/// Claims that a buffer gets at once.
const CLAIMS: usize = 500;
/// Jobs that the executor is given at once.
const JOBS: usize = 10_000;
/// The executor needs less than a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// A job as it lies in a store.
struct Stored {
    address: Address,
    body: Bytes,
}

impl Stored {
    fn new(number: usize, result_ttl: Duration) -> Self {
        let now = Timestamp::EPOCH;
        let empty = json!({ "data": "" }).to_string().len();
        let args = RawJson::from_value(&json!({ "data": "x".repeat(PAYLOAD - empty) })).expect("an object is JSON");
        let mut random = [0; 10];
        random[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let mut job = Job::new(JobId::generate(now, random), KIND, args, now);
        job.result_ttl = result_ttl;
        let body = wire::encode(&job, WireFormat::Json).expect("JSON is built in").into();
        Self { address: Address { id: job.id, queue: job.queue, priority: job.priority, stored_at: now }, body }
    }

    fn claim(&self, lane: Lane) -> Claim {
        Claim {
            lease: Lease {
                id: self.address.id.clone(),
                token: Arc::from("1"),
                since: Duration::ZERO,
                duration: Duration::from_secs(3600),
            },
            lane,
            address: self.address.clone(),
            body: self.body.clone(),
            doubtful: false,
        }
    }
}

/// Claims of all lanes of so many queues, in turn.
fn held_claims(queues: usize) -> HeldClaims {
    let claim = |number: usize| {
        let priority = Priority::ALL[number / queues % Priority::ALL.len()];
        Stored::new(number, job::DEFAULT_RESULT_TTL).claim(Lane { queue: number % queues, priority })
    };
    (0..CLAIMS).map(claim).collect::<Vec<_>>().into()
}

/// A buffer that is empty, with all slots busy.
fn busy(weights: &[Option<u32>], claims: &HeldClaims) -> ClaimBuffer {
    let mut buffer = ClaimBuffer::new(weights, SLOTS);
    buffer.push(claims.clone());
    (0..SLOTS).for_each(|_| assert!(buffer.take(), "there are more claims than slots"));
    (SLOTS..CLAIMS).for_each(|_| next(&mut buffer));
    buffer
}

/// A slot ends its job and takes the next.
fn next(buffer: &mut ClaimBuffer) {
    buffer.finish();
    assert!(buffer.take(), "there is a job");
}

/// Claims come and go: how long each took.
fn round(buffer: &mut ClaimBuffer, claims: &HeldClaims) -> (Duration, Duration) {
    let arriving = claims.clone();
    buffer.new_demand();
    let begin = Instant::now();
    buffer.push(arriving);
    let pushed = begin.elapsed();
    let begin = Instant::now();
    (0..CLAIMS).for_each(|_| next(buffer));
    (pushed, begin.elapsed())
}

fn claim_buffer(criterion: &mut Criterion) {
    let weighted: Vec<_> = (1..=8).map(Some).collect();
    for (name, weights) in [("1 queue", &[None][..]), ("8 queues with weights", &weighted)] {
        let claims = held_claims(weights.len());
        let mut group = criterion.benchmark_group(format!("claim buffer, {name}"));

        group.throughput(Throughput::Elements(CLAIMS as u64));
        let mut buffer = busy(weights, &claims);
        group.bench_function("push", |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| round(&mut buffer, &claims).0).sum());
        });
        group.bench_function("take", |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| round(&mut buffer, &claims).1).sum());
        });

        group.throughput(Throughput::Elements(1));
        let started = || ClaimBuffer::new(weights, SLOTS);
        assert!(started().new_demand().is_some(), "a worker that has just started asks for jobs");
        group.bench_function("new_demand, empty", |bencher| {
            bencher.iter_batched_ref(started, ClaimBuffer::new_demand, BatchSize::SmallInput);
        });
        // More than is ever claimed ahead.
        (0..5).for_each(|_| buffer.push(claims.clone()));
        buffer.new_demand();
        assert!(buffer.new_demand().is_none(), "the store knows");
        group.bench_function("new_demand, full", |bencher| bencher.iter(|| buffer.new_demand()));
        group.finish();
    }
}

async fn noop() {}

fn executor(criterion: &mut Criterion) {
    let handlers = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime for handlers");
    // A worker has a thread of its own beside them.
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut group = criterion.benchmark_group("executor");
    group.sampling_mode(SamplingMode::Flat).sample_size(20).throughput(Throughput::Elements(JOBS as u64));
    for (name, result_ttl) in [("no result kept", Duration::ZERO), ("result kept", job::DEFAULT_RESULT_TTL)] {
        let jobs: Vec<_> = (0..JOBS).map(|number| Stored::new(number, result_ttl)).collect();
        let worker = Worker::builder(Arc::new(NoStore))
            .queue(QueueName::default())
            .concurrency(SLOTS)
            .handler(KIND, noop)
            .build()
            .expect("a worker that can be built");
        let executor = own.block_on(Executor::start(worker, handlers.handle())).expect("the store says its time");
        let run = || {
            let lane = Lane { queue: 0, priority: Priority::default() };
            let claims = jobs.iter().map(|job| job.claim(lane)).collect();
            let begin = Instant::now();
            let ran = own.block_on(async { tokio::time::timeout(PATIENCE, executor.complete(claims)).await });
            ran.expect("all jobs are completed");
            begin.elapsed()
        };
        group.bench_function(name, |bencher| bencher.iter_custom(|rounds| (0..rounds).map(|_| run()).sum()));
    }
    group.finish();
}

criterion_group!(benches, claim_buffer, executor);
criterion_main!(benches);
