//! `#[naq::job]`: what it makes of functions of every shape.

use std::{fmt, sync::Arc, time::Duration};

use naq_macros::job;
use naq_models::{Job, JobId, OnConflict, Timestamp, UniqueWhile, Verdict, duration::Seconds, error_type};
use naq_services::{CancellationToken, JobContext, JobDefaults, JobFailure, NewJob, Outcome, State, States};
use naq_worker::{ErasedHandler, HandlerRegistry};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::support::{Greeting, context, error, failure, greet, value, with_states};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    sent: String,
}

#[derive(Debug)]
pub(crate) struct MailError;
impl fmt::Display for MailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mailbox full")
    }
}
impl std::error::Error for MailError {}

#[job(
    crate = naq_worker,
    queue = "mail",
    priority = 1,
    max_retries = 5,
    retry_delay = ["1s", "1m30s", 2.5],
    retry_strategy = "linear",
    retry_max_delay = "10m",
    retry_jitter = 0.5,
    retry_on = ["mail_error"],
    ignore_on = ["decode"],
    timeout = "30s",
    result_ttl = 0
)]
pub(crate) async fn send_mail(to: String, subject: Option<String>, cx: JobContext) -> Result<Receipt, MailError> {
    match to.as_str() {
        "full" => Err(MailError),
        _ => Ok(Receipt { sent: format!("{to}/{}/{}", subject.unwrap_or_default(), cx.attempt()) }),
    }
}

mod hidden {
    //! A private function in a module, with `crate =` the lowest layer, types by relative path, and no worker in sight.
    use naq_services::State;

    #[naq_macros::job(crate = naq_services, kind = "greet.v2")]
    pub(super) async fn greet_all(
        r#type: String,
        mut names: Vec<super::Name>,
        greeting: State<super::Greeting>,
    ) -> Vec<String> {
        names.sort();
        names.iter().map(|name| super::greet(&greeting, &format!("{} {}", r#type, name.0))).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Name(String);

#[job(crate = naq_worker, blocking)]
fn count_words(text: String, cx: &JobContext, stop: CancellationToken) -> usize {
    assert!(!stop.is_cancelled() && cx.kind() == "count_words");
    tokio::runtime::Handle::current().block_on(async { text.split_whitespace().count() })
}

#[job(crate = naq_worker)]
async fn nothing() {}

#[job(crate = naq_worker, unique)]
async fn by_all(to: String, n: u32) -> (String, u32) {
    (to, n)
}

#[job(crate = naq_worker, unique = ["to", "type"])]
async fn by_two(to: String, r#type: String, n: u32) -> (String, String, u32) {
    (to, r#type, n)
}

#[job(crate = naq_worker, unique(args = "to", while = "pending", on_conflict = "replace"))]
async fn until_started(to: String) -> String {
    to
}

#[job(crate = naq_worker, unique(key = "nightly", ttl = "1h"))]
async fn nightly() {}

#[job(crate = naq_worker)]
async fn verbs(verb: String) -> Outcome<u8> {
    match verb.as_str() {
        "snooze" => Outcome::Snooze(Duration::from_secs(9)),
        _ => Outcome::Complete(1),
    }
}

#[job(crate = naq_worker)]
async fn verbs_or_error(verb: String) -> anyhow::Result<Outcome<u8>> {
    anyhow::ensure!(verb != "error", "told to");
    Ok(Outcome::Cancel(verb))
}

#[job(crate = naq_worker)]
async fn any_error(which: String) -> Result<(), Which> {
    Err(Which(which))
}

/// Neither an error nor a `JobFailure`.
pub(crate) struct Which(String);
impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("busy")]
pub(crate) struct Busy;
impl JobFailure for Busy {
    fn is_retryable(&self) -> bool {
        false
    }
}

#[job(crate = naq_worker)]
async fn names_itself() -> Result<(), Busy> {
    Err(Busy)
}

#[job(crate = naq_worker)]
async fn with_context() -> Result<(), anyhow::Error> {
    Err(anyhow::Error::from(std::io::Error::other("cable")).context("no route"))
}

#[job(crate = naq_worker)]
async fn not_send_error() -> Result<(), Box<dyn std::error::Error>> {
    Err("on this thread only".into())
}

fn handler(kind: &str) -> Arc<dyn ErasedHandler> {
    let mut registry = HandlerRegistry::default();
    registry.insert_registered().unwrap();
    Arc::clone(registry.get(kind).unwrap_or_else(|| panic!("{kind} is not registered: {:?}", registry.kinds())))
}

fn build<R>(job: NewJob<R>) -> Job {
    let defaults = JobDefaults::default();
    job.into_job(JobId::new("job-1").unwrap(), Timestamp::EPOCH, &defaults).unwrap()
}

async fn run<R>(job: NewJob<R>) -> Verdict {
    let job = build(job);
    handler(&job.kind).call(context(job)).await
}

#[tokio::test]
async fn the_function_stays_callable() {
    let cx = context(build(send_mail::job("a", None)));
    assert_eq!(send_mail("a".into(), Some("b".into()), cx).await.unwrap(), Receipt { sent: "a/b/1".into() });
}

#[test]
fn options_become_the_jobs() {
    let job = build(send_mail::job("a@b.c", "hi"));
    assert_eq!((job.kind.as_str(), job.queue.as_str(), job.priority.get()), ("send_mail", "mail", 1));
    assert_eq!(job.args.get(), r#"{"to":"a@b.c","subject":"hi"}"#);
    let retry = &job.retry;
    assert_eq!(retry.max_retries, 5);
    assert_eq!(retry.delay, [1_000, 90_000, 2_500].map(Duration::from_millis));
    assert_eq!(retry.strategy, naq_models::RetryStrategy::Linear);
    assert_eq!((retry.max_delay, retry.jitter), (Duration::from_secs(600), 0.5));
    assert_eq!((retry.retry_on.join(","), retry.ignore_on.join(",")), ("mail_error".into(), "decode".into()));
    assert_eq!((job.timeout, job.result_ttl), (Duration::from_secs(30), Duration::ZERO));
    let job = build(send_mail::job("a", None).queue("other").timeout(Duration::from_secs(1)));
    assert_eq!((job.queue.as_str(), job.timeout), ("other", Duration::from_secs(1)), "the call wins");
}

#[test]
fn a_job_is_typed_by_the_value_of_its_function() {
    let _: NewJob<Receipt> = send_mail::job("a", None);
    let _: NewJob<Vec<String>> = hidden::greet_all::job("x", []);
    let _: NewJob<usize> = count_words::job("x");
    let _: NewJob<()> = nothing::job();
    let _: NewJob<u8> = verbs::job("x");
    let _: NewJob<u8> = verbs_or_error::job("x");
}

#[tokio::test]
async fn arguments_arrive() {
    assert_eq!(value(run(send_mail::job("a", "b")).await), json!({"sent": "a/b/1"}));
    assert_eq!(value(run(NewJob::new("send_mail", json!({"to": "a"}))).await), json!({"sent": "a//1"}));
    assert_eq!(value(run(NewJob::new("send_mail", json!(["a", "b"]))).await), json!({"sent": "a/b/1"}));
    assert_eq!(value(run(count_words::job("one two  three")).await), json!(3));
    assert_eq!(value(run(nothing::job()).await), json!(null));
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_named() {
    for (kind, args, named) in [
        ("send_mail", json!({}), "`to` is missing"),
        ("send_mail", json!({"to": "a", "subjekt": "b"}), "no argument `subjekt`"),
        ("send_mail", json!(["a", "b", "c"]), "takes 2 arguments"),
        ("send_mail", json!({"to": 5}), "`to` does not fit"),
        ("nothing", json!({"x": 1}), "takes no arguments"),
    ] {
        let error = failure(run(NewJob::new(kind, args)).await);
        assert_eq!(error.error_type, error_type::DECODE);
        assert!(error.message.contains(named), "{}", error.message);
    }
}

#[tokio::test]
async fn states_are_injected_and_missing_ones_known() {
    let handler = handler("greet.v2");
    assert!(handler.missing_from(&States::default()).unwrap().contains("Greeting"));
    let mut states = States::default();
    states.insert(Greeting("hello"));
    assert_eq!(handler.missing_from(&states), None);
    let job = build(hidden::greet_all::job("dear", vec![Name("b".into()), Name("a".into())]));
    assert_eq!(job.args.get(), r#"{"type":"dear","names":["b","a"]}"#);
    assert_eq!(value(handler.call(with_states(job, states)).await), json!(["hello dear a", "hello dear b"]));
    assert_eq!(error(run(hidden::greet_all::job("x", [])).await).error_type, "missing_state");
}

#[tokio::test]
async fn outcomes_are_verdicts() {
    assert_eq!(run(verbs::job("snooze")).await, Verdict::Snooze(Duration::from_secs(9)));
    assert_eq!(value(run(verbs::job("x")).await), json!(1));
    assert_eq!(run(verbs_or_error::job("enough")).await, Verdict::Cancel("enough".into()));
}

#[tokio::test]
async fn every_error_finds_its_way() {
    let of = |error: naq_models::JobError| (error.error_type, error.message, error.is_retryable);
    let text = |a: &str, b: &str, retryable| (a.to_owned(), b.to_owned(), retryable);
    assert_eq!(of(error(run(send_mail::job("full", None)).await)), text("mail_error", "mailbox full", true));
    assert_eq!(of(error(run(names_itself::job()).await)), text("busy", "busy", false));
    assert_eq!(of(error(run(with_context::job()).await)), text("error", "no route: cable", true));
    assert_eq!(of(error(run(verbs_or_error::job("error")).await)), text("error", "told to", true));
    assert_eq!(of(error(run(any_error::job("printed")).await)), text("which", "printed", true));
    assert_eq!(of(error(run(not_send_error::job()).await)), text("error", "on this thread only", true));
}

#[test]
fn registered_functions_know_where_they_are() {
    let origin = handler("send_mail");
    assert!(origin.origin().unwrap().contains("job_macro.rs:"), "{:?}", origin.origin());
}

#[test]
fn durations_mean_what_they_mean_in_the_configuration() {
    #[job(crate = naq_worker, timeout = "1h30m", result_ttl = "7days", retry_max_delay = "0.25")]
    async fn durations() {}

    let job = build(durations::job());
    for (found, text) in [(job.timeout, "1h30m"), (job.result_ttl, "7days"), (job.retry.max_delay, "0.25")] {
        assert_eq!(found, naq_models::duration::parse(text).unwrap());
    }
}

fn assert_state(_: &State<Greeting>) {}

#[test]
fn states_are_shared_not_copied() {
    let mut states = States::default();
    states.insert(Greeting("x"));
    let (one, two) = (states.get::<Greeting>().unwrap(), states.get::<Greeting>().unwrap());
    assert_state(&one);
    assert!(Arc::ptr_eq(&one.0, &two.0));
}

#[test]
fn jobs_are_unique_by_what_the_option_says() {
    let unique = |job: NewJob| build(job).unique.unwrap();
    let key = |job| unique(job).key;
    assert_eq!(key(by_all::job("a", 1).erased()), key(by_all::job("a", 1).erased()));
    assert_ne!(key(by_all::job("a", 1).erased()), key(by_all::job("a", 2).erased()));
    assert_eq!(key(by_two::job("a", "t", 1).erased()), key(by_two::job("a", "t", 2).erased()));
    assert_ne!(key(by_two::job("a", "t", 1).erased()), key(by_two::job("a", "u", 1).erased()));
    let job = until_started::job("a").erased();
    assert_eq!(job.conflict_answer(), Some(OnConflict::Replace));
    assert_eq!(unique(job).holds, UniqueWhile::Pending);
    let nightly = unique(nightly::job().erased());
    let hour = Some(Seconds(Duration::from_secs(3600)));
    assert_eq!((nightly.key.as_str(), nightly.holds, nightly.ttl), ("nightly", UniqueWhile::Ttl, hour));
    let own = unique(by_all::job("a", 1).unique("my own").erased());
    assert_eq!(own.key, "my own", "what is said of one job wins");
}
