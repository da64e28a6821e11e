//! The lines that OmniQ had functions for, for programs that do a worker's or a producer's work themselves.
//!
//! Invariant: one line a call, in the words of the original, with its values as fields. naq's own worker does not call
//! these: it logs each run by itself.

use std::fmt::Display;

/// `INFO`: a job was given to a queue. `func_path` names what it runs.
pub fn log_task_enqueued(task_id: impl Display, func_path: impl Display) {
    tracing::info!(target: "naq::task", %task_id, %func_path, "Task enqueued: {task_id} -> {func_path}");
}

/// `INFO`: a run begins. Attempts count from 1.
pub fn log_task_started(task_id: impl Display, attempt: u32) {
    tracing::info!(target: "naq::task", %task_id, attempt, "Task started: {task_id} (attempt {attempt})");
}

/// `INFO`: the last run has ended well.
pub fn log_task_completed(task_id: impl Display, attempts: u32) {
    tracing::info!(target: "naq::task", %task_id, attempt = attempts, "Task completed: {task_id} (attempts: {attempts})");
}

/// A run has failed: `WARN` if another follows, `ERROR` if it was the last.
pub fn log_task_failed(task_id: impl Display, error: impl Display, will_retry: bool) {
    if will_retry {
        tracing::warn!(
            target: "naq::task", %task_id, %error, will_retry, "Task failed (will retry): {task_id} - {error}"
        );
    } else {
        tracing::error!(target: "naq::task", %task_id, %error, will_retry, "Task failed (final): {task_id} - {error}");
    }
}

/// `INFO`: a worker begins, with so many jobs at a time.
pub fn log_worker_started(concurrency: usize) {
    tracing::info!(target: "naq::worker", concurrency, "Worker started (concurrency: {concurrency})");
}

/// `INFO`: a worker has ended.
pub fn log_worker_stopped() {
    tracing::info!(target: "naq::worker", "Worker stopped");
}

/// `ERROR`: the store did not do what it was asked for.
pub fn log_storage_error(operation: impl Display, error: impl Display) {
    tracing::error!(target: "naq::storage", %operation, %error, "Storage error in {operation}: {error}");
}

/// `ERROR`: arguments or a result could not be written or read.
pub fn log_serialization_error(operation: impl Display, error: impl Display) {
    tracing::error!(target: "naq::serialization", %operation, %error, "Serialization error in {operation}: {error}");
}
