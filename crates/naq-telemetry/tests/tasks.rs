//! The functions of OmniQ: what each of them writes.

#![expect(clippy::unwrap_used, reason = "a test helper that fails is a failed test")]

use std::{fs, future::pending, io};

use naq_config::{LogMode, LoggingConfig};
use naq_telemetry::logging::{
    self, bind_task, log_serialization_error, log_storage_error, log_task_completed, log_task_enqueued,
    log_task_failed, log_task_started, log_worker_started, log_worker_stopped, task_context,
};
use serde_json::{Value, json};
use tracing_subscriber::{layer::SubscriberExt as _, registry::Registry};

fn lines(work: impl FnOnce()) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("naq.log");
    let config = LoggingConfig { mode: LogMode::Prod, file: Some(file.clone()), ..LoggingConfig::default() };
    let (layer, guard) = logging::layer::<Registry>(&config).unwrap();
    tracing::subscriber::with_default(Registry::default().with(layer), work);
    drop(guard);
    fs::read_to_string(&file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_function_writes_its_line() {
    let found = lines(|| {
        log_task_enqueued("t1", "module.function");
        log_task_started("t1", 1);
        log_task_completed("t1", 2);
        log_task_failed("t1", "boom", true);
        log_task_failed("t1", io::Error::other("boom"), false);
        log_worker_started(4);
        log_worker_stopped();
        log_storage_error("get_task", "disk");
        log_serialization_error("decode", "bad");
    });
    let told: Vec<_> = found
        .iter()
        .map(|line| {
            let mut line = line.as_object().unwrap().clone();
            line.remove("timestamp").unwrap();
            line.remove("logger").unwrap();
            if let Some(task) = line.remove("task_id") {
                assert_eq!((&task, line.remove("correlation_id")), (&json!("t1"), Some(json!("t1"))));
            }
            Value::Object(line)
        })
        .collect();
    let expected = json!([
        {"level": "INFO", "message": "Task enqueued: t1 -> module.function", "func_path": "module.function"},
        {"level": "INFO", "message": "Task started: t1 (attempt 1)", "attempt": 1},
        {"level": "INFO", "message": "Task completed: t1 (attempts: 2)", "attempt": 2},
        {"level": "WARN", "message": "Task failed (will retry): t1 - boom", "error": "boom", "will_retry": true},
        {"level": "ERROR", "message": "Task failed (final): t1 - boom", "error": "boom", "will_retry": false},
        {"level": "INFO", "message": "Worker started (concurrency: 4)", "concurrency": 4},
        {"level": "INFO", "message": "Worker stopped"},
        {"level": "ERROR", "message": "Storage error in get_task: disk", "operation": "get_task", "error": "disk"},
        {"level": "ERROR", "message": "Serialization error in decode: bad", "operation": "decode", "error": "bad"},
    ]);
    assert_eq!(Value::Array(told), expected);
}

#[test]
fn a_task_context_tells_how_its_work_ended() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let found = lines(|| {
        let task = task_context("t1", "load");
        task.logger().info("begins");
        let done: Result<u32, io::Error> = task.run(|| {
            tracing::info!("inside");
            Ok(3)
        });
        assert_eq!(done.unwrap(), 3);
        let lost = runtime.block_on(task_context("t2", "load").run_async(async {
            tokio::task::yield_now().await;
            tracing::info!("inside, later");
            Err::<(), _>(io::Error::other("no data"))
        }));
        assert!(lost.is_err());
        drop(task_context("t3", "load"));
        let never = Box::pin(task_context("t4", "load").run_async(pending::<Result<(), io::Error>>()));
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = never => {}
                () = tokio::task::yield_now() => {}
            }
        });
        let panicked = std::panic::catch_unwind(|| {
            let _task = task_context("t5", "load");
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
    });
    let told: Vec<_> = found
        .iter()
        .map(|line| {
            assert_eq!((&line["operation"], &line["correlation_id"]), (&json!("load"), &line["task_id"]));
            let is_end = line["duration_ms"].as_f64().is_some_and(|ms| ms >= 0.0);
            json!([line["task_id"], line["level"], line["message"], is_end])
        })
        .collect();
    let expected = json!([
        ["t1", "INFO", "begins", false],
        ["t1", "INFO", "inside", false],
        ["t1", "INFO", "finished", true],
        ["t2", "INFO", "inside, later", false],
        ["t2", "ERROR", "failed", true],
        ["t3", "INFO", "finished", true],
        ["t4", "WARN", "stopped before its end", true],
        ["t5", "ERROR", "panicked", true],
    ]);
    assert_eq!(Value::Array(told), expected);
    assert_eq!(found[4]["error"], "no data");
}

#[test]
fn what_is_bound_is_on_every_line() {
    let found = lines(|| {
        let user = 7;
        let logger = bind_task!("t1", worker = "worker-1", operation = "enqueue", user_id = user, at = ?[1, 2]);
        logger.info("one");
        logger.warning("two");
        logger.error("three");
        logger.debug("too low");
        logger.in_scope(|| tracing::info!("four"));
        bind_task!("t2").info("five");
    });
    assert_eq!(found.len(), 5, "{found:?}");
    for line in &found[..4] {
        let bound = ["task_id", "worker", "operation", "user_id", "at", "correlation_id"].map(|name| &line[name]);
        assert_eq!(
            bound,
            [&json!("t1"), &json!("worker-1"), &json!("enqueue"), &json!(7), &json!("[1, 2]"), &json!("t1")]
        );
    }
    assert_eq!(["WARN", "ERROR"], [&found[1]["level"], &found[2]["level"]].map(|level| level.as_str().unwrap()));
    assert_eq!((&found[4]["task_id"], &found[4]["message"]), (&json!("t2"), &json!("five")));
}
