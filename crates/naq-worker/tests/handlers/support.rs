//! A job context without a store: handlers are called as the executor calls them, and what they
//! ask of the store is a test failure.

use std::sync::Arc;

use naq_models::{Job, JobError, JobId, RawJson, Timestamp, Verdict};
use naq_services::{CancellationToken, JobContext, State, States};
use naq_worker::ErasedHandler;

use crate::no_store::NoStore;

pub(crate) fn job(kind: &str, args: serde_json::Value) -> Job {
    Job::new(JobId::new("job-1").unwrap(), kind, RawJson::from_value(&args).unwrap(), Timestamp::EPOCH)
}

pub(crate) fn context(job: Job) -> JobContext {
    with_states(job, States::default())
}

pub(crate) fn with_states(job: Job, states: States) -> JobContext {
    let token = CancellationToken::new();
    JobContext::new(Arc::new(job), "worker-1".into(), token, Arc::new(NoStore), Arc::new(states))
}

pub(crate) async fn run(handler: &Arc<dyn ErasedHandler>, args: serde_json::Value) -> Verdict {
    handler.call(context(job(handler.kind(), args))).await
}

#[track_caller]
pub(crate) fn value(verdict: Verdict) -> serde_json::Value {
    match verdict {
        Verdict::Complete(json) => json.to().unwrap(),
        other => panic!("not completed: {other:?}"),
    }
}

/// The error of a verdict that leaves what follows to the policy.
#[track_caller]
pub(crate) fn error(verdict: Verdict) -> JobError {
    match verdict {
        Verdict::Error(error) => error,
        other => panic!("not an error: {other:?}"),
    }
}

/// The error of a verdict that ends the job.
#[track_caller]
pub(crate) fn failure(verdict: Verdict) -> JobError {
    match verdict {
        Verdict::Fail(error) => error,
        other => panic!("not failed for good: {other:?}"),
    }
}

/// Used where a test proves that a shared value arrives.
#[derive(Debug)]
pub(crate) struct Greeting(pub(crate) &'static str);

pub(crate) fn greet(greeting: &State<Greeting>, name: &str) -> String {
    format!("{} {name}", greeting.0.0)
}
