//! Waiting for another process to do something that it announces nowhere.
//!
//! The one place that polls. Within one process, await the thing itself instead.

use std::{fmt::Display, time::Duration};

use anyhow::{Context, Result};

const POLL: Duration = Duration::from_millis(10);

/// Asks `probe` every 10 ms until it gives a value; an error that names `what` if it has not done so within `limit`.
pub async fn eventually<T>(
    limit: Duration,
    what: impl Display,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let asking = async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(limit, asking).await.with_context(|| format!("not within {limit:?}: {what}"))
}
