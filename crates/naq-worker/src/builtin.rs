//! The handlers of the stock worker: `naq.noop`, `naq.echo`, `naq.sleep`.
//!
//! Invariant: harmless. They touch nothing outside their job, and `naq.sleep` is bounded and ends when it is cancelled;
//! what reads files or runs programs is declared by the operator.

use std::{sync::Arc, time::Duration};

use naq_models::RawJson;
use naq_services::{CancellationToken, Failure, JobContext, Outcome};
use serde::Deserialize;

use crate::handler::{ErasedHandler, typed};

/// The longest `naq.sleep`.
pub const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// All of them.
#[must_use]
pub fn handlers() -> Vec<Arc<dyn ErasedHandler>> {
    vec![typed("naq.noop", noop), typed("naq.echo", echo), typed("naq.sleep", sleep)]
}

/// Does nothing, whatever its arguments; its result is `null`.
async fn noop() {}

/// Its result is its arguments.
async fn echo(cx: JobContext) -> RawJson {
    cx.job().args.clone()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sleep {
    seconds: f64,
}

/// Waits `{"seconds": n}`; its result is `null`.
async fn sleep(args: Sleep, stop: CancellationToken) -> Outcome<()> {
    let duration = match naq_models::duration::from_seconds(args.seconds) {
        Ok(duration) if duration <= MAX_SLEEP => duration,
        Ok(_) => return Outcome::fail(refused(args.seconds, "longer than one hour")),
        Err(reason) => return Outcome::fail(refused(args.seconds, reason)),
    };
    tokio::select! {
        () = tokio::time::sleep(duration) => Outcome::Complete(()),
        () = stop.cancelled() => Outcome::Retry {
            after: None,
            error: Failure::new("interrupted", "stopped before the time was over"),
        },
    }
}

fn refused(seconds: f64, reason: &str) -> Failure {
    Failure::new(naq_models::error_type::DECODE, format!("seconds = {seconds} is not allowed: {reason}"))
}
