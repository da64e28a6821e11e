//! The test kit, used as a program's tests use it.

use naq_services::{Failure, JobContext, JobServiceErrorKind, NewJob, new_job::secs};
use naq_testing::{
    DrainError, TempConfigError, TestStore, assert_enqueued, refute_enqueued, temp_config, temp_config_yaml,
};
use serde_json::json;

#[tokio::test]
async fn drains_whatever_comes_wherever_it_comes() {
    let store = TestStore::memory().await.unwrap();
    let parent = |cx: JobContext| async move {
        cx.enqueue(NewJob::new("child", json!({})).queue("children")).await.map(drop).map_err(|e| e.to_string())
    };
    for _ in 0..3 {
        store.jobs().enqueue(NewJob::new("parent", json!({})).queue("mail")).await.unwrap();
    }
    store.jobs().enqueue(NewJob::new("broken", json!({})).max_retries(0)).await.unwrap();
    store.jobs().enqueue(NewJob::new("broken", json!({})).max_retries(1).retry_delay(secs(60))).await.unwrap();
    store.jobs().enqueue(NewJob::new("child", json!({})).delay(secs(60)).job_id("later")).await.unwrap();
    store.jobs().enqueue(NewJob::new("child", json!({})).queue("paused").job_id("paused")).await.unwrap();
    store.jobs().pause(&"paused".parse().unwrap()).await.unwrap();
    let counts = store
        .drain(|worker| {
            worker
                .handler("parent", parent)
                .handler("child", || async {})
                .handler("broken", || async { Err::<(), _>(Failure::new("net", "down")) })
        })
        .await
        .unwrap();
    assert_eq!((counts.completed, counts.failed, counts.retried), (6, 1, 1), "{counts:?}");
    let left: std::collections::BTreeSet<_> = store.enqueued().await.into_iter().map(|job| job.kind).collect();
    assert_eq!(left.into_iter().collect::<Vec<_>>(), ["broken", "child"]);
    assert_enqueued!(store, "child", job_id = "later");
    assert_enqueued!(store, "child", job_id = "paused");
}

#[tokio::test]
async fn two_handlers_of_a_kind_are_an_error() {
    let store = TestStore::memory().await.unwrap();
    store.jobs().enqueue(NewJob::new("child", json!({}))).await.unwrap();
    let drained = store.drain(|worker| worker.handler("child", || async {}).handler("child", || async {})).await;
    assert!(matches!(drained, Err(DrainError::Build(_))));
}

#[tokio::test]
async fn asserts_by_kind_queue_and_arguments() {
    let store = TestStore::memory().await.unwrap();
    let args = json!({"to": "a@b.c", "more": {"x": 1, "y": 2}});
    store.jobs().enqueue(NewJob::new("send", args).queue("mail")).await.unwrap();
    let job = assert_enqueued!(store, "send", queue = "mail", args = json!({"more": {"x": 1}}));
    assert_eq!(job.kind, "send");
    refute_enqueued!(store, "sen");
    refute_enqueued!(store, "send", queue = "default");
    refute_enqueued!(store, "send", args = json!({"more": {"x": 2}}));
    refute_enqueued!(store, "send", args = json!({"cc": null}));
}

#[tokio::test]
#[should_panic(expected = "no such job is enqueued")]
async fn an_assertion_that_does_not_hold_panics() {
    let store = TestStore::memory().await.unwrap();
    assert_enqueued!(store, "send");
}

#[tokio::test]
#[should_panic(expected = "such a job is enqueued")]
async fn a_refutation_that_does_not_hold_panics() {
    let store = TestStore::memory().await.unwrap();
    store.jobs().enqueue(NewJob::new("send", json!({}))).await.unwrap();
    refute_enqueued!(store, "send");
}

#[tokio::test]
async fn the_free_functions_go_to_an_installed_store() {
    let store = TestStore::memory().await.unwrap();
    store.install().await.unwrap();
    naq_queue::enqueue(NewJob::new("send", json!({}))).await.unwrap();
    assert_enqueued!(store, "send");
    naq_queue::enqueue_in(secs(3600), NewJob::new("later", json!({}))).await.unwrap();
    assert_eq!(assert_enqueued!(store, "later").run_at, Some(store.clock().now().saturating_add(secs(3600))));
    let hourly = naq_queue::Schedule::every(secs(3600));
    naq_queue::schedule(NewJob::new("hourly", json!({})), hourly).await.unwrap();
    let counts = store
        .drain_for(secs(2 * 3600), |worker| {
            worker.handler("send", || async {}).handler("later", || async {}).handler("hourly", || async {})
        })
        .await
        .unwrap();
    assert_eq!(counts.completed, 4);
    naq_queue::disconnect().await.unwrap();
}

#[tokio::test]
async fn a_configuration_is_what_the_test_says_and_its_store_goes_with_it() {
    let config = temp_config([("workers.concurrency", "2"), ("results.ttl", "0")]).unwrap();
    let said: Vec<&str> = config.loaded().sources().map(|(key, _)| key).collect();
    assert_eq!(said, ["results.ttl", "workers.concurrency"], "nothing of the machine");
    let other = temp_config_yaml("workers: {concurrency: 3}").unwrap();
    let services = config.services();
    services.jobs().await.unwrap().enqueue(NewJob::new("mail", json!({})).job_id("one")).await.unwrap();
    let elsewhere = other.services().jobs().await.unwrap().status(&"one".parse().unwrap()).await.unwrap_err();
    assert_eq!(elsewhere.kind(), JobServiceErrorKind::NotFound);
    services.close().await;
    let folder = config.folder().to_owned();
    assert!(folder.join("naq.db").exists());
    drop(config);
    assert!(!folder.exists());

    let named = temp_config([("nats.servers", "[nats://127.0.0.1:1]")]).unwrap();
    assert!(matches!(named.services().store().url, naq_config::StoreUrl::Nats { .. }), "the test's own choice stands");
    let wrong = temp_config_yaml("workers: {ttl: 1s}\nqueues: {ack_wait: soon}").unwrap_err();
    assert!(matches!(wrong, TempConfigError::Config(error) if error.problems.len() == 2));
}
