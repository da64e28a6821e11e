//! What is written, seen through a captured writer, and what happens to a subscriber that is already there.

#![expect(clippy::unwrap_used, reason = "a test helper that fails is a failed test")]

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use naq_config::{LogMode, LoggingConfig};
use naq_telemetry::logging::{self, LogError};
use serde_json::{Value, json};
use tracing_subscriber::{layer::SubscriberExt as _, registry::Registry};

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

fn config(mode: LogMode, level: &str) -> LoggingConfig {
    LoggingConfig { mode, level: level.parse().unwrap(), ..LoggingConfig::default() }
}

/// What `work` logs.
fn text(config: &LoggingConfig, work: impl FnOnce()) -> String {
    let captured = Captured::default();
    let (layer, guard) = logging::layer_to::<Registry, _>(config, captured.clone()).unwrap();
    tracing::subscriber::with_default(Registry::default().with(layer), work);
    assert_eq!(guard.dropped_lines(), 0);
    drop(guard);
    let bytes = captured.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn lines(config: &LoggingConfig, work: impl FnOnce()) -> Vec<Value> {
    text(config, work)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// The span that naq-worker opens.
macro_rules! job_span {
    ($id:expr) => {
        tracing::error_span!(
            target: "naq_worker::job_log",
            "job",
            task_id = $id,
            operation = "mail",
            queue = "default",
            attempt = 2,
            worker = "w1",
            correlation_id = "c9",
        )
    };
}

/// Lines of one place, whose callsite has cached what the filter said of it.
#[test]
fn the_level_can_be_changed_while_lines_are_logged() {
    let captured = Captured::default();
    let (layer, guard) = logging::layer_to::<Registry, _>(&config(LogMode::Prod, "info"), captured.clone()).unwrap();
    let log = |what: &str| {
        let _job = job_span!(what).entered();
        tracing::debug!("{what} at debug");
        tracing::warn!("{what} at warn");
    };
    tracing::subscriber::with_default(Registry::default().with(layer), || {
        log("first");
        guard.set_level(&"debug".parse().unwrap()).unwrap();
        log("more");
        let broken = guard.set_level(&"info,a[b".parse().unwrap()).unwrap_err();
        assert!(matches!(broken, LogError::Filter { .. }), "{broken:?}");
        log("same");
        guard.set_level(&"off".parse().unwrap()).unwrap();
        log("nothing");
        guard.set_level(&"warn".parse().unwrap()).unwrap();
        log("last");
    });
    assert!(matches!(guard.set_level(&"info".parse().unwrap()), Err(LogError::SubscriberGone)));
    drop(guard);
    let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<Value> = lines.iter().map(|line| json!([line["message"], line["task_id"]])).collect();
    let expected =
        [("first", "warn"), ("more", "debug"), ("more", "warn"), ("same", "debug"), ("same", "warn"), ("last", "warn")];
    assert_eq!(said, expected.map(|(what, level)| json!([format!("{what} at {level}"), what])));
}

#[test]
fn lines_inside_a_job_carry_it() {
    let prod = config(LogMode::Prod, "info");
    let found = lines(&prod, || {
        let _job = job_span!("j1").entered();
        let _inner = tracing::info_span!("smtp", host = "h", code = tracing::field::Empty).entered();
        tracing::info!(duration_ms = 12.5, ok = true, "sent {}", 3);
        tracing::Span::current().record("code", 250);
        tracing::warn!(error = %io::Error::other("late"), "slow");
    });
    let mut first = found[0].clone();
    let timestamp = first.as_object_mut().unwrap().remove("timestamp").unwrap();
    let timestamp = timestamp.as_str().unwrap();
    assert!(timestamp.ends_with('Z') && timestamp.len() == "2026-01-01T00:00:00.000Z".len(), "{timestamp}");
    let expected = json!({
        "level": "INFO", "logger": "logging", "message": "sent 3", "task_id": "j1", "attempt": 2, "operation": "mail",
        "queue": "default", "worker": "w1", "correlation_id": "c9", "host": "h", "duration_ms": 12.5, "ok": true,
    });
    assert_eq!(first, expected);
    assert_eq!((&found[1]["error"], &found[1]["code"]), (&json!("late"), &json!(250)));
}

#[test]
fn names_come_in_a_fixed_order() {
    let found = text(&config(LogMode::Prod, "info"), || {
        let _job = job_span!("j1").entered();
        tracing::info!(b = 1, a = 2, duration_ms = 1.5, "x");
    });
    let places: Vec<_> = [
        "timestamp",
        "level",
        "logger",
        "message",
        "task_id",
        "operation",
        "worker",
        "correlation_id",
        "duration_ms",
        "attempt",
        "queue",
        "b",
        "a",
    ]
    .map(|name| found.find(&format!("\"{name}\":")).unwrap())
    .to_vec();
    assert!(places.is_sorted(), "{found}");
}

#[test]
fn a_handler_s_own_fields_do_not_take_the_job_s_place() {
    let found = lines(&config(LogMode::Prod, "info"), || {
        let _job = job_span!("j1").entered();
        let _theirs = tracing::info_span!("job", task_id = "theirs", kind = "png").entered();
        tracing::info!(attempt = 7, job_id = "other", correlation_id = "c1", "x");
        // What is said of another task on purpose counts.
        logging::log_task_enqueued("child", "app.thumbnail");
        logging::task_context("part", "step").logger().info("y");
    });
    let of = |line: &Value| ["task_id", "operation", "attempt", "correlation_id"].map(|name| line[name].clone());
    assert_eq!(of(&found[0]), [json!("j1"), json!("mail"), json!(2), json!("c9")]);
    assert_eq!(found[0]["field_task_id"], "theirs");
    assert_eq!((&found[0]["field_attempt"], &found[0]["field_correlation_id"]), (&json!(7), &json!("c1")));
    assert_eq!((&found[0]["kind"], &found[0]["job_id"]), (&json!("png"), &json!("other")));
    assert_eq!(of(&found[1]), [json!("child"), json!("mail"), json!(2), json!("c9")]);
    assert_eq!(of(&found[2]), [json!("part"), json!("step"), json!(2), json!("c9")]);
}

#[test]
fn lines_of_naq_about_a_job_are_found_by_its_id() {
    let found = lines(&config(LogMode::Prod, "info"), || {
        tracing::warn!(target: "naq_worker::lease", job = "j1", "the lease is lost");
        tracing::warn!(job = "theirs", "not naq's");
    });
    assert_eq!((&found[0]["task_id"], &found[0]["correlation_id"]), (&json!("j1"), &json!("j1")));
    assert_eq!((found[1].get("task_id"), &found[1]["job"]), (None, &json!("theirs")));
}

#[test]
fn the_job_is_known_at_every_level_and_by_the_filter_of_a_target() {
    for level in ["warn", "error", "logging=error"] {
        let found = lines(&config(LogMode::Prod, level), || {
            let _job = job_span!("j1").entered();
            let _other = tracing::info_span!("other", hidden = 1).entered();
            tracing::info!("too low");
            tracing::error!("bad");
        });
        assert_eq!(found.len(), 1, "{level}: {found:?}");
        assert_eq!((&found[0]["message"], &found[0]["task_id"]), (&json!("bad"), &json!("j1")), "{level}");
        assert_eq!(found[0].get("hidden"), None, "{level}");
    }
}

#[test]
fn a_line_is_one_object_whatever_the_fields_hold() {
    let found = lines(&config(LogMode::Prod, "trace"), || {
        tracing::trace!(level = "mine", nan = f64::NAN, text = "a\"\n\u{1}ü", list = ?[1, 2], r#type = 1, "two\nlines");
    });
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["level"], "TRACE");
    assert_eq!(found[0]["field_level"], "mine", "{}", found[0]);
    assert_eq!(found[0]["text"], "a\"\n\u{1}ü");
    assert_eq!(found[0]["list"], "[1, 2]");
    assert_eq!(found[0]["nan"], "NaN");
    assert_eq!(found[0]["type"], 1);
    assert_eq!(found[0]["message"], "two\nlines");
    assert_eq!(found[0].get("task_id"), None);
}

#[test]
fn text_names_the_job_without_colours() {
    let found = text(&config(LogMode::Dev, "info"), || {
        let _job = job_span!("j1").entered();
        tracing::info!("hello");
        tracing::debug!("too low");
    });
    assert!(found.contains("hello") && found.contains("j1") && found.contains("mail"), "{found}");
    assert!(!found.contains("too low") && !found.contains('\u{1b}'), "{found}");
}

#[test]
fn lines_go_to_the_configured_file_and_are_there_after_the_guard() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("logs/naq.log");
    let config = LoggingConfig { file: Some(file.clone()), ..config(LogMode::Prod, "info") };
    for run in 0..2 {
        let (layer, guard) = logging::layer::<Registry>(&config).unwrap();
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            for line in 0..1000 {
                tracing::info!(run, line, "x");
            }
        });
        drop(guard);
    }
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(written.lines().count(), 2000, "appended, nothing lost");

    let blocked = LoggingConfig { file: Some(file.join("below-a-file")), ..config };
    assert!(matches!(logging::layer::<Registry>(&blocked), Err(LogError::File { .. })));
}

#[test]
fn a_user_s_own_layer_sees_what_this_one_filters_out() {
    let (ours, theirs) = (Captured::default(), Captured::default());
    let (layer, guard) = logging::layer_to(&config(LogMode::Prod, "error"), ours.clone()).unwrap();
    let their_writer = theirs.clone();
    let their_layer = tracing_subscriber::fmt::layer().with_writer(move || their_writer.clone());
    tracing::subscriber::with_default(Registry::default().with(layer).with(their_layer), || {
        let _job = job_span!("j1").entered();
        tracing::info!("low");
    });
    drop(guard);
    assert_eq!(ours.0.lock().unwrap().len(), 0);
    let theirs = String::from_utf8(theirs.0.lock().unwrap().clone()).unwrap();
    assert!(theirs.contains("low") && theirs.contains("j1") && theirs.contains("c9"), "{theirs}");
}

#[test]
fn a_subscriber_that_is_there_stays() {
    // The process's one global subscriber: no other test installs it.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("naq.log");
    let guard =
        logging::configure(&LoggingConfig { file: Some(file.clone()), ..config(LogMode::Prod, "info") }).unwrap();
    let other = LoggingConfig { file: Some(directory.path().join("other.log")), ..config(LogMode::Prod, "info") };
    assert!(matches!(logging::configure(&other), Err(LogError::SubscriberExists)));
    assert!(!directory.path().join("other.log").exists(), "nothing is opened in vain");
    log::warn!(target: "their::module", "by the crate log");
    drop(guard);
    let written = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = lines.iter().find(|line| line["message"] == "by the crate log").unwrap();
    assert_eq!((&line["logger"], &line["level"]), (&json!("their::module"), &json!("WARN")));
    assert_eq!(line.as_object().unwrap().len(), 4, "{line}");
}
