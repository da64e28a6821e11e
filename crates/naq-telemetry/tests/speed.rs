//! How long logging takes: for whoever logs, and until it is in the file. Alone in its binary, so that nothing else runs.

use std::{
    fs,
    time::{Duration, Instant},
};

use naq_config::{LogMode, LoggingConfig};
use naq_telemetry::logging;
use tracing_subscriber::{layer::SubscriberExt as _, registry::Registry};

const LINES: u32 = 10_000;
/// Unoptimized, on a machine that does other things too.
const SLOWER: u32 = if cfg!(debug_assertions) { 10 } else { 1 };

#[test]
fn ten_thousand_lines_of_jobs_take_less_than_a_second() {
    for mode in [LogMode::Prod, LogMode::Dev] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("naq.log");
        let config = LoggingConfig { mode, file: Some(file.clone()), ..LoggingConfig::default() };
        let (layer, guard) = logging::layer::<Registry>(&config).unwrap();
        let begun = Instant::now();
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            for number in 0..LINES {
                // What a worker does for each job.
                let span = tracing::error_span!(
                    target: "naq_worker::job_log",
                    "job",
                    task_id = %format_args!("{number:032}"),
                    operation = "mail",
                    queue = "default",
                    attempt = 1,
                    worker = "host-123-abcdef",
                    correlation_id = "0199a2b3c4d5e6f70199a2b3c4d5e6f7",
                );
                span.in_scope(|| tracing::info!(duration_ms = 1.0, "completed"));
            }
        });
        let handed_over = begun.elapsed();
        let dropped = guard.dropped_lines();
        drop(guard);
        let written = begun.elapsed();
        println!("{mode}: {LINES} jobs: {handed_over:?} for who logs, {written:?} until written");
        assert_eq!(dropped, 0);
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), LINES as usize);
        assert!(written < Duration::from_secs(1) * SLOWER, "{written:?}");
        // 5 % of a job of one millisecond.
        assert!(handed_over / LINES < Duration::from_micros(50) * SLOWER, "{handed_over:?}");
    }
}
