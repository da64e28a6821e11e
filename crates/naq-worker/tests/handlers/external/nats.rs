//! `nats`: what becomes of an answer. The connection itself is naq-services'; here stands one that answers by subject.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use naq_services::{RequestError, RequestErrorKind, RequestReply};
use naq_worker::{ErasedHandler, external};
use serde_json::json;

use super::{cancel_when, nats, run};
use crate::{
    no_store::MAX_BODY,
    support::{context, error, failure, job, value},
};

#[derive(Debug)]
struct Answers;

#[async_trait]
impl RequestReply for Answers {
    async fn request(&self, subject: &str, body: Bytes, timeout: Duration) -> Result<Bytes, RequestError> {
        assert_eq!(timeout, Duration::from_secs(3600), "the job's own");
        let failed = |kind| Err(RequestError { kind, message: "no luck".into() });
        match subject {
            "svc.echo" => {
                let request: serde_json::Value = serde_json::from_slice(&body).unwrap();
                Ok(json!({"id": request["id"], "result": request}).to_string().into())
            }
            "svc.none" => failed(RequestErrorKind::NoResponder),
            "svc.big" => failed(RequestErrorKind::TooLarge),
            "svc.garbage" => Ok(Bytes::from_static(b"hello")),
            "svc.other" => Ok(Bytes::from_static(b"{\"id\":\"x\",\"result\":1}")),
            "svc.no" => Ok(Bytes::from_static(b"{\"error\":{\"type\":\"bad\",\"retry\":false}}")),
            "svc.huge" => Ok(Bytes::from(vec![b' '; MAX_BODY + 1])),
            _ => std::future::pending().await,
        }
    }
}

fn handler(subject: &str) -> Arc<dyn ErasedHandler> {
    let connection: Arc<dyn RequestReply> = Arc::new(Answers);
    external::handler("ext", &nats(subject), Some(&connection)).unwrap()
}

#[tokio::test]
async fn the_request_and_the_reply_are_those_of_jsonl() {
    let expected = json!({"id": "job-1", "kind": "ext", "args": {"a": 1}, "attempt": 1, "meta": {}});
    assert_eq!(value(run(&handler("svc.echo"), json!({"a": 1})).await), expected);
    assert_eq!(failure(run(&handler("svc.no"), json!({})).await).error_type, "bad");
}

#[tokio::test]
async fn no_good_answer_is_an_error() {
    for (subject, error_type) in
        [("svc.none", "nats_no_responder"), ("svc.garbage", "protocol"), ("svc.other", "protocol")]
    {
        assert_eq!(error(run(&handler(subject), json!({})).await).error_type, error_type);
    }
    assert_eq!(failure(run(&handler("svc.big"), json!({})).await).error_type, "nats_too_large");
    assert_eq!(failure(run(&handler("svc.huge"), json!({})).await).error_type, "result_too_large");
}

#[tokio::test]
async fn cancelling_stops_waiting() {
    let cx = context(job("ext", json!({})));
    let verdict = cancel_when(&handler("svc.silent"), cx, std::future::ready(())).await;
    assert_eq!(error(verdict).error_type, "interrupted");
}
