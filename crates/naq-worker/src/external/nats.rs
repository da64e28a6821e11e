//! `nats`: one request per job to a service that listens on a subject.
//!
//! Invariant: the answer decides as a `jsonl` reply does; no answer is an error under the job's policy. Cancelling stops
//! waiting; the service is not told.

use std::sync::Arc;

use bytes::Bytes;
use naq_models::Verdict;
use naq_services::{JobContext, RequestErrorKind, RequestReply, registration::HandlerFuture};

use super::{
    ExternalErrorReason,
    message::{Reply, request},
    output::{error, interrupted, too_large},
};
use crate::handler::ErasedHandler;

pub(super) fn handler(
    kind: &str,
    subject: &str,
    connection: Option<&Arc<dyn RequestReply>>,
) -> Result<Arc<dyn ErasedHandler>, ExternalErrorReason> {
    let named = |part: &str| !part.is_empty() && !part.contains(['*', '>']) && !part.contains(char::is_whitespace);
    if !subject.split('.').all(named) {
        return Err(ExternalErrorReason::Subject(subject.to_owned()));
    }
    let connection = Arc::clone(connection.ok_or(ExternalErrorReason::NoConnection)?);
    Ok(Arc::new(Nats { inner: Arc::new(Inner { kind: kind.to_owned(), subject: subject.to_owned(), connection }) }))
}

struct Nats {
    inner: Arc<Inner>,
}

struct Inner {
    kind: String,
    subject: String,
    connection: Arc<dyn RequestReply>,
}

impl ErasedHandler for Nats {
    fn kind(&self) -> &str {
        &self.inner.kind
    }

    fn call(&self, cx: JobContext) -> HandlerFuture {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.run(&cx).await })
    }
}

impl Inner {
    async fn run(&self, cx: &JobContext) -> Verdict {
        let subject = self.subject.as_str();
        let answer = tokio::select! {
            answer = self.connection.request(subject, Bytes::from(request(cx)), cx.job().timeout) => answer,
            () = cx.cancelled() => return interrupted(&format!("the request to {subject}")),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(e) => {
                let error_type = match e.kind {
                    RequestErrorKind::NoResponder => "nats_no_responder",
                    RequestErrorKind::Timeout => "nats_timeout",
                    RequestErrorKind::TooLarge => {
                        return Verdict::Fail(error("nats_too_large", format!("{subject}: {e}")).permanent());
                    }
                    RequestErrorKind::Unreachable => "nats_unreachable",
                };
                return Verdict::Error(error(error_type, format!("{subject}: {e}")));
            }
        };
        let max = cx.storage().info().max_body;
        if answer.len() > max {
            return too_large(subject, max);
        }
        match Reply::parse(&answer) {
            Ok(reply) if reply.id.as_deref().is_none_or(|id| id == cx.id().as_str()) => reply.into_verdict(),
            Ok(reply) => {
                let message = format!("{subject} answered for another job ({:?})", reply.id.unwrap_or_default());
                Verdict::Error(error("protocol", message))
            }
            Err(reason) => Verdict::Error(error("protocol", format!("{subject} answered {reason}"))),
        }
    }
}
