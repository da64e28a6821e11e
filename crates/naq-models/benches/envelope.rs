//! What the envelope costs: writing and reading a job, writing and reading a result.
//!
//! Invariant: pure, on one thread; the jobs are those of the measured ratios, with 256 bytes of arguments. `cargo bench -p
//! naq-models --bench envelope` prints the times; nothing is judged by them.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use naq_models::{Job, JobId, JobResult, JobStatus, QueueName, RawJson, Timestamp, WireFormat, wire};
use serde_json::json;

/// Bytes of a job's arguments.
const PAYLOAD: usize = 256;
/// 2026-11-22T00:00:00Z
const NOW: i64 = 1_795_305_600_000;

fn job() -> Job {
    let now = Timestamp::from_unix_millis(NOW).expect("a time of this century");
    let empty = json!({ "data": "" }).to_string().len();
    let args = RawJson::from_value(&json!({ "data": "x".repeat(PAYLOAD - empty) })).expect("an object is JSON");
    let mut job = Job::new(JobId::generate(now, [7; 10]), "bench.noop", args, now);
    job.queue = QueueName::new("default").expect("a valid name");
    job
}

fn envelope(criterion: &mut Criterion) {
    let job = job();
    let address = wire::Address {
        id: job.id.clone(),
        queue: job.queue.clone(),
        priority: job.priority,
        stored_at: job.enqueued_at,
    };
    let mut formats = vec![("json", WireFormat::Json)];
    if cfg!(feature = "bincode") {
        formats.push(("bincode", WireFormat::Bincode));
    }
    let mut group = criterion.benchmark_group("envelope");
    for (name, format) in formats {
        let body = wire::encode(&job, format).expect("the format is built in");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group
            .bench_function(format!("{name}/encode"), |bencher| bencher.iter(|| wire::encode(black_box(&job), format)));
        group.bench_function(format!("{name}/decode"), |bencher| {
            bencher.iter(|| wire::decode(black_box(&body), &address));
        });
    }
    group.finish();
}

fn result(criterion: &mut Criterion) {
    let job = job();
    let now = job.enqueued_at;
    let mut result = JobResult::of(&job, JobStatus::Completed, now);
    result.result = Some(RawJson::null());
    result.worker_id = Some("bench-12345678".into());
    result.started_at = Some(now);
    let body = result.encode();
    let mut group = criterion.benchmark_group("result");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(&result).encode()));
    group.bench_function("decode", |bencher| bencher.iter(|| JobResult::decode(black_box(&body))));
    group.finish();
}

criterion_group!(benches, envelope, result);
criterion_main!(benches);
