//! A handler's own time limit, for one that is shorter than its jobs'.
//!
//! Invariant: when the time is over the handler is told to stop as the executor would tell it, and is waited for: the
//! verdict comes after everything it started has ended. A value that it completed with all the same counts.

use std::{sync::Arc, time::Duration};

use naq_models::{Verdict, duration, error_type};
use naq_services::{JobContext, context::States, registration::HandlerFuture};
use tokio::time::sleep;

use super::output::error;
use crate::handler::{CloseFuture, ErasedHandler};

pub(super) fn handler(inner: Arc<dyn ErasedHandler>, limit: Duration) -> Arc<dyn ErasedHandler> {
    Arc::new(Limited { inner, limit })
}

struct Limited {
    inner: Arc<dyn ErasedHandler>,
    limit: Duration,
}

impl ErasedHandler for Limited {
    fn kind(&self) -> &str {
        self.inner.kind()
    }

    fn call(&self, cx: JobContext) -> HandlerFuture {
        let limit = self.limit;
        let stop = cx.cancellation().child_token();
        let mut running = self.inner.call(cx.with_cancellation(stop.clone()));
        Box::pin(async move {
            tokio::select! {
                verdict = &mut running => return verdict,
                () = sleep(limit) => {}
            }
            let stopped_before = stop.is_cancelled();
            stop.cancel();
            match running.await {
                Verdict::Error(_) if !stopped_before => {
                    let message = format!("the handler did not end within its {}", duration::format(limit));
                    Verdict::Error(error(error_type::TIMEOUT, message))
                }
                verdict => verdict,
            }
        })
    }

    fn missing_from(&self, states: &States) -> Option<&'static str> {
        self.inner.missing_from(states)
    }

    fn origin(&self) -> Option<&str> {
        self.inner.origin()
    }

    fn close(&self) -> CloseFuture {
        self.inner.close()
    }
}
