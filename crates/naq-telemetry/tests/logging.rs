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

#[test]
fn lines_inside_a_job_carry_it() {
    let prod = config(LogMode::Prod, "info");
    let found = lines(&prod, || {
        let _job = tracing::info_span!("job", job_id = "j1", attempt = 2, kind = "mail", worker_id = "w1").entered();
        let _inner = tracing::info_span!("smtp", host = "h", correlation_id = tracing::field::Empty).entered();
        tracing::info!(duration_ms = 12.5, ok = true, "sent {}", 3);
        tracing::Span::current().record("correlation_id", "c9");
        tracing::warn!(error = %io::Error::other("late"), attempt = 7, "slow");
    });
    let mut first = found[0].clone();
    let timestamp = first.as_object_mut().unwrap().remove("timestamp").unwrap();
    let timestamp = timestamp.as_str().unwrap();
    assert!(timestamp.ends_with('Z') && timestamp.len() == "2026-01-01T00:00:00.000Z".len(), "{timestamp}");
    let expected = json!({
        "level": "INFO", "logger": "logging", "message": "sent 3", "task_id": "j1", "attempt": 2, "operation": "mail",
        "worker": "w1", "correlation_id": "j1", "host": "h", "duration_ms": 12.5, "ok": true,
    });
    assert_eq!(first, expected);
    assert_eq!(found[1]["correlation_id"], "c9");
    assert_eq!(found[1]["attempt"], 7, "an event's own field wins");
    assert_eq!(found[1]["error"], "late");
}

#[test]
fn the_job_is_known_at_every_level_and_by_the_filter_of_a_target() {
    for level in ["warn", "error", "logging=error"] {
        let found = lines(&config(LogMode::Prod, level), || {
            let _job = tracing::info_span!("job", job_id = "j1", attempt = 1, kind = "k").entered();
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
    assert_eq!(found[0]["field_level"], "mine");
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
        let _job = tracing::info_span!("job", job_id = "j1", attempt = 1, kind = "mail").entered();
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
    tracing::subscriber::with_default(Registry::default().with(layer).with(their_layer), || tracing::info!("low"));
    drop(guard);
    assert_eq!(ours.0.lock().unwrap().len(), 0);
    assert!(String::from_utf8_lossy(&theirs.0.lock().unwrap()).contains("low"));
}

#[test]
fn a_subscriber_that_is_there_stays() {
    // The process's one global subscriber: no other test installs it.
    let guard = logging::configure(&config(LogMode::Dev, "off")).unwrap();
    assert!(matches!(logging::configure(&config(LogMode::Prod, "info")), Err(LogError::SubscriberExists)));
    drop(guard);
}
