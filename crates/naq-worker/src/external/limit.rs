//! A time limit on a declared handler, shorter than the job's own timeout.
//!
//! Invariant: when the time is over the run is dropped, and with it what it started; the verdict is the same `timeout`
//! that the executor gives.

use std::{sync::Arc, time::Duration};

use naq_models::{Verdict, duration, error_type};
use naq_services::{JobContext, registration::HandlerFuture};

use super::output::error;
use crate::handler::{CloseFuture, ErasedHandler};

/// The same handler, cut short after `limit`.
pub(super) fn limited(handler: Arc<dyn ErasedHandler>, limit: Duration) -> Arc<dyn ErasedHandler> {
    Arc::new(Limited { handler, limit })
}

struct Limited {
    handler: Arc<dyn ErasedHandler>,
    limit: Duration,
}

impl ErasedHandler for Limited {
    fn kind(&self) -> &str {
        self.handler.kind()
    }

    fn call(&self, cx: JobContext) -> HandlerFuture {
        let (run, limit) = (self.handler.call(cx), self.limit);
        Box::pin(async move {
            tokio::time::timeout(limit, run).await.unwrap_or_else(|_| {
                let message = format!("the handler did not end within its limit of {}", duration::format(limit));
                Verdict::Error(error(error_type::TIMEOUT, message))
            })
        })
    }

    fn close(&self) -> CloseFuture {
        self.handler.close()
    }
}
