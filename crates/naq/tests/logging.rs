//! A worker beside a user's own subscriber: what a handler logs carries its job, for both, however it is logged.
#![cfg(all(feature = "worker", feature = "logging"))]
#![expect(clippy::unwrap_used, reason = "a test helper that fails is a failed test")]

use std::{
    fs,
    io::{self, Write},
    sync::{Arc, Mutex},
};

use naq::{
    Failure, JobContext, NewJob, WorkerBuilder,
    config::{LogMode, LoggingConfig},
    logging::{self, tracing_subscriber},
};
use naq_testing::TestStore;
use serde_json::{Value, json};
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn parent(cx: JobContext) -> Result<(), Failure> {
    tracing::info!("in an async handler");
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async { tracing::info!("in a spawned task") }.in_current_span());
    tasks.join_all().await;
    let failed = |e: naq::JobServiceError| Failure::new("enqueue", e.to_string());
    cx.enqueue(NewJob::new("child", json!([])).job_id("inherits")).await.map_err(failed)?;
    let own = NewJob::new("child", json!([])).job_id("has-its-own").meta("correlation_id", "mine");
    cx.enqueue(own).await.map_err(failed)?;
    if cx.attempt() == 1 { Err(Failure::new("boom", "once")) } else { Ok(()) }
}

fn child(_args: Vec<Value>, cx: JobContext) {
    tracing::info!(correlation = %cx.correlation_id(), attempt = "mine", "in a blocking handler");
}

async fn too_large() -> String {
    "x".repeat(4 << 20)
}

fn handlers(worker: WorkerBuilder) -> WorkerBuilder {
    worker.handler("too_large", too_large).handler("parent", parent).blocking_handler("child", child)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_subscribers_see_the_job_of_each_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("naq.log");
    let config = LoggingConfig { mode: LogMode::Prod, file: Some(file.clone()), ..LoggingConfig::default() };
    let (ours, guard) = logging::layer(&config).unwrap();
    let theirs = Captured::default();
    let writer = theirs.clone();
    let their_layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    let both = tracing_subscriber::registry().with(ours).with(their_layer);
    tracing::subscriber::set_global_default(both).unwrap();

    let store = TestStore::memory().await.unwrap();
    let given = NewJob::new("parent", json!([])).job_id("p1").meta("correlation_id", "order-7\n").retry_jitter(0.0);
    store.jobs().enqueue(given.retry_delay(naq::secs(1))).await.unwrap();
    store.jobs().enqueue(NewJob::new("child", json!([{"secret": 1}])).job_id("c1")).await.unwrap();
    store.jobs().enqueue(NewJob::new("too_large", json!([])).job_id("l1")).await.unwrap();
    let counts = store.drain_for(naq::secs(5), handlers).await.unwrap();
    assert_eq!((counts.completed, counts.failed), (4, 1));
    drop(guard);

    let written = fs::read_to_string(&file).unwrap();
    assert!(!written.contains("secret"), "arguments are not logged");
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |message: &str| -> Vec<Value> {
        let lines = lines.iter().filter(|line| line["message"] == message);
        let mut told: Vec<_> = lines
            .map(|line| json!([line["task_id"], line["operation"], line["attempt"], line["correlation_id"]]))
            .collect();
        told.sort_by_key(Value::to_string);
        told
    };
    let order = "order-7\u{fffd}";
    let parents = [json!(["p1", "parent", 1, order]), json!(["p1", "parent", 2, order])];
    assert_eq!(of("in an async handler"), parents);
    assert_eq!(of("in a spawned task"), parents);
    let children = [
        json!(["c1", "child", 1, "c1"]),
        json!(["has-its-own", "child", 1, "mine"]),
        json!(["inherits", "child", 1, order]),
    ];
    assert_eq!(of("in a blocking handler"), children);
    assert_eq!(of("failed, runs again"), parents[..1]);
    assert_eq!(of("completed"), [&children[..], &parents[1..]].concat());
    for line in lines.iter().filter(|line| line["message"] == "completed") {
        assert!(line["duration_ms"].as_f64().unwrap() >= 0.0 && line["worker"].is_string(), "{line}");
    }
    let failed = lines.iter().find(|line| line["message"] == "failed, runs again").unwrap();
    assert_eq!([&failed["level"], &failed["error_type"], &failed["error"]], ["WARN", "boom", "once"]);

    assert_eq!(of("failed"), [json!(["l1", "too_large", 1, "l1"])], "a result that is not kept is no completion");

    let theirs = String::from_utf8(theirs.0.lock().unwrap().clone()).unwrap();
    let line = theirs.lines().find(|line| line.contains("in a spawned task")).unwrap();
    for part in ["task_id=p1", "attempt=1", "correlation_id=\"order-7"] {
        assert!(line.contains(part), "{part} in {line}");
    }
}
