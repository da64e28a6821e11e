//! Functions registered by hand.

use std::{borrow::Cow, fmt, time::Duration};

use naq_models::{Verdict, error_type};
use naq_services::{CancellationToken, Failure, JobContext, JobFailure, Outcome, State, States};
use naq_worker::{
    HandlerRegistry,
    handler::{blocking, typed},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::support::{Greeting, context, error, failure, greet, job, run, value, with_states};

#[derive(Deserialize)]
struct Mail {
    to: String,
    #[serde(default)]
    copies: u32,
}

#[derive(Serialize)]
struct Receipt {
    sent_to: String,
}

#[derive(Debug)]
struct MailError {
    retryable: bool,
}
impl fmt::Display for MailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mailbox full")
    }
}
impl std::error::Error for MailError {}
impl JobFailure for MailError {
    fn error_type(&self) -> Cow<'static, str> {
        "mailbox".into()
    }
    fn is_retryable(&self) -> bool {
        self.retryable
    }
    fn backtrace(&self) -> Option<String> {
        Some("at the post office".into())
    }
}

async fn send(mail: Mail, cx: JobContext) -> Result<Receipt, MailError> {
    if mail.copies > 9 {
        return Err(MailError { retryable: mail.copies < 100 });
    }
    Ok(Receipt { sent_to: format!("{}#{}@{}", mail.to, mail.copies, cx.id()) })
}

#[tokio::test]
async fn arguments_and_context_go_in_a_result_comes_out() {
    let handler = typed("send", send);
    assert_eq!(value(run(&handler, json!({"to": "ann"})).await), json!({"sent_to": "ann#0@job-1"}));
    assert_eq!(value(run(&handler, json!(["ann", 2])).await), json!({"sent_to": "ann#2@job-1"}));
}

#[tokio::test]
async fn a_job_failure_names_itself() {
    let handler = typed("send", send);
    let retryable = error(run(&handler, json!(["ann", 10])).await);
    assert_eq!((retryable.error_type.as_str(), retryable.is_retryable), ("mailbox", true));
    assert_eq!(retryable.backtrace.as_deref(), Some("at the post office"));
    assert!(!error(run(&handler, json!(["ann", 100])).await).is_retryable);
}

#[tokio::test]
async fn arguments_that_do_not_fit_end_the_job() {
    let error = failure(run(&typed("send", send), json!({"to": 5})).await);
    assert_eq!((error.error_type.as_str(), error.is_retryable), (error_type::DECODE, false));
    assert!(error.message.contains("send") && error.message.contains("line 1 column 7"), "{}", error.message);
}

#[tokio::test]
async fn every_verb_is_a_verdict() {
    async fn verbs(verb: (String,)) -> Result<Outcome<u32>, String> {
        Ok(match verb.0.as_str() {
            "complete" => Outcome::Complete(7),
            "snooze" => Outcome::Snooze(Duration::from_secs(3)),
            "retry" => Outcome::retry_after(Duration::from_secs(4), Failure::new("busy", "later")),
            "fail" => Outcome::fail(Failure::new("gone", "no more")),
            "cancel" => Outcome::cancel("not needed"),
            other => return Err(format!("no verb {other}")),
        })
    }
    let handler = typed("verbs", verbs);
    assert_eq!(value(run(&handler, json!(["complete"])).await), json!(7));
    assert_eq!(run(&handler, json!(["snooze"])).await, Verdict::Snooze(Duration::from_secs(3)));
    let Verdict::Retry { after, error: busy } = run(&handler, json!(["retry"])).await else { panic!() };
    assert_eq!((after, busy.error_type.as_str()), (Some(Duration::from_secs(4)), "busy"));
    assert_eq!(failure(run(&handler, json!(["fail"])).await).error_type, "gone");
    assert_eq!(run(&handler, json!(["cancel"])).await, Verdict::Cancel("not needed".into()));
    let unknown = error(run(&handler, json!(["x"])).await);
    assert_eq!((unknown.error_type.as_str(), unknown.message.as_str()), (error_type::ERROR, "no verb x"));
}

#[tokio::test]
async fn closures_and_every_kind_of_parameter() {
    let handler = typed("greet", |name: (String,), greeting: State<Greeting>, stop: CancellationToken| async move {
        assert!(!stop.is_cancelled());
        greet(&greeting, &name.0)
    });
    let mut states = States::default();
    states.insert(Greeting("hello"));
    assert_eq!(handler.missing_from(&states), None);
    let verdict = handler.call(with_states(job("greet", json!(["ann"])), states)).await;
    assert_eq!(value(verdict), json!("hello ann"));
    assert_eq!(value(run(&typed("none", || async { 5u8 }), json!({})).await), json!(5));
}

#[tokio::test]
async fn a_missing_state_is_found_before_and_during_the_run() {
    let mut registry = HandlerRegistry::default();
    let handler = typed("greet", |greeting: State<Greeting>| async move { greet(&greeting, "x") });
    registry.insert(handler.clone()).unwrap();
    let missing = registry.check_states(&States::default()).unwrap_err();
    assert_eq!(missing.kind, "greet");
    assert!(missing.state.contains("Greeting"));
    assert_eq!(error(run(&handler, json!({})).await).error_type, "missing_state");
}

#[tokio::test]
async fn any_boxed_error_keeps_its_chain() {
    async fn read(_cx: JobContext) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err(std::io::Error::other("disk on fire"))?;
        Ok(())
    }
    let error = error(run(&typed("read", read), json!({})).await);
    assert_eq!((error.error_type.as_str(), error.message.as_str()), (error_type::ERROR, "disk on fire"));
}

#[tokio::test]
async fn a_result_that_cannot_be_written_fails_the_job() {
    let handler = typed("keys", || async { Ok::<_, String>(std::collections::HashMap::from([(vec![1], 1)])) });
    assert_eq!(failure(run(&handler, json!({})).await).error_type, "encode");
}

#[tokio::test]
async fn blocking_functions_leave_the_async_threads() {
    let handler = blocking("thread", |names: Vec<String>, cx: JobContext| {
        assert_eq!(cx.kind(), "thread");
        // Only a thread that may block allows this; it panics on an async thread.
        tokio::runtime::Handle::current().block_on(async { names.join("+") })
    });
    assert_eq!(value(run(&handler, json!(["a", "b"])).await), json!("a+b"));
    assert_eq!(failure(run(&handler, json!({"a": 1})).await).error_type, error_type::DECODE);
}

#[tokio::test]
async fn a_blocking_panic_reaches_the_caller() {
    let handler = blocking("panics", || -> () { panic!("as told") });
    let running = tokio::task::JoinSet::from_iter([handler.call(context(job("panics", json!({}))))]);
    let mut running = running;
    let error = running.join_next().await.unwrap().unwrap_err();
    assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), "as told");
}

#[test]
fn one_handler_per_kind() {
    let mut registry = HandlerRegistry::default();
    registry.insert(typed("x", || async {})).unwrap();
    let duplicate = registry.insert(blocking("x", || ())).unwrap_err();
    assert_eq!(duplicate.kind, "x");
    assert_eq!(registry.kinds(), ["x"]);
}
