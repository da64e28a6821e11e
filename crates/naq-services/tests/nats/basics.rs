//! The path of a job, and what refuses to open.

use std::time::Duration;

use naq_models::{JobStatus, Priority};
use naq_services::storage::{
    Action, Enqueued, LeaseState, ListFilter, Settled, Severity, Sighting, StorageErrorKind,
    nats::{self, Auth},
};

use crate::{
    server::{Server, binaries, on_each_server},
    work::*,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_enqueued_claimed_completed_and_awaited() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let job = job(generated(1));
        assert_eq!(storage.enqueue(vec![pending(&job)]).await.pop().unwrap().unwrap(), Enqueued::Stored);
        assert_eq!(storage.enqueue(vec![pending(&job)]).await.pop().unwrap().unwrap(), Enqueued::Duplicate);
        let waiting = tokio::spawn({
            let (storage, id) = (storage.clone(), job.id.clone());
            async move { storage.wait_result(&id, 0, Duration::from_secs(10)).await }
        });
        let mut consumer = consumer(&*storage, "q").await;
        let claims = claim(&mut *consumer, 1).await;
        assert!(!claims[0].doubtful);
        assert_eq!(claims[0].address.priority, Priority::default());
        let heartbeat = storage.open_heartbeat().await.unwrap();
        assert_eq!(heartbeat.extend(&[claims[0].lease.clone()]).await, [LeaseState::Held]);
        assert_eq!(storage.settle(vec![completed(&claims[0])]).await.pop().unwrap().unwrap(), Settled::Done);
        let result = waiting.await.unwrap().unwrap().expect("the result was pushed");
        assert_eq!(naq_models::JobResult::decode(&result.body).unwrap().status, JobStatus::Completed);
        assert_eq!(storage.settle(vec![completed(&claims[0])]).await.pop().unwrap().unwrap(), Settled::Done);
        let seen = storage.get_job(&job.id).await.unwrap();
        assert!(matches!(&seen[..], [Sighting::Ended(_)]), "{seen:?}");
        assert!(claim_all(&mut *consumer).await.is_empty());
        consumer.close().await.unwrap();
        storage.close().await;
        assert_eq!(storage.now().await.unwrap_err().kind(), StorageErrorKind::Closed);
    })
    .await;
}

/// Catches: a wait that relies on being told. The server tells of a result when it is published, which may be just before the
/// subscription, while the stream has it only after the first look. Here nobody is told at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_nobody_was_told_of_is_found_all_the_same() {
    const DEAF: &str = r#"jetstream {}
        authorization { users: [{ user: u, password: p, permissions: { subscribe: { deny: ["$KV.naq_results.>"] } } }] }
        no_auth_user: u"#;
    for binary in binaries() {
        let server = Server::start_with(&binary, DEAF);
        let storage = server.open().await;
        let job = job(generated(1));
        assert_eq!(storage.enqueue(vec![pending(&job)]).await.pop().unwrap().unwrap(), Enqueued::Stored);
        let mut consumer = consumer(&*storage, "q").await;
        let claims = claim(&mut *consumer, 1).await;
        let (found, settled) = tokio::join!(storage.wait_result(&job.id, 0, Duration::from_secs(10)), async {
            // Some round trips, so that the first look comes before.
            storage.get_job(&job.id).await.unwrap();
            storage.settle(vec![completed(&claims[0])]).await.pop().unwrap().unwrap()
        });
        assert_eq!(settled, Settled::Done);
        assert_eq!(found.unwrap().map(|result| result.id), Some(job.id));
        consumer.close().await.unwrap();
        storage.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_ids_are_unique_across_queues_and_released_at_the_end() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let first = job(id("order-17"));
        let mut elsewhere = first.clone();
        elsewhere.queue = queue("other");
        let outcomes = storage.enqueue(vec![pending(&first), pending(&elsewhere), pending(&first)]).await;
        let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
        assert_eq!(outcomes, [Enqueued::Stored, Enqueued::Duplicate, Enqueued::Duplicate]);
        let mut consumer = consumer(&*storage, "q").await;
        let claims = claim(&mut *consumer, 1).await;
        let end = settlement(&claims[0], Action::End { result: None, dead_letter: None, unique_key: None });
        assert_eq!(storage.settle(vec![end]).await.pop().unwrap().unwrap(), Settled::Done);
        // No result was kept, so the id is free again, anywhere.
        assert_eq!(storage.enqueue(vec![pending(&elsewhere)]).await.pop().unwrap().unwrap(), Enqueued::Stored);
        assert_eq!(storage.enqueue(vec![pending(&first)]).await.pop().unwrap().unwrap(), Enqueued::Duplicate);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_paged_over_all_places() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let jobs: Vec<_> = (0..5).map(|n| job(generated(n))).collect();
        for outcome in storage.enqueue(jobs.iter().map(pending).collect()).await {
            outcome.unwrap();
        }
        let mut consumer = consumer(&*storage, "q").await;
        let claims = claim(&mut *consumer, 3).await;
        let again = settlement(&claims[1], Action::Again(retry(&jobs[1], naq_models::Timestamp::EPOCH)));
        for outcome in storage.settle(vec![failed(&claims[0]), again, completed(&claims[2])]).await {
            outcome.unwrap();
        }
        let mut filter = ListFilter { queue: Some(queue("q")), statuses: vec![], limit: 2, cursor: None };
        let mut seen = Vec::new();
        loop {
            let page = storage.list(&filter).await.unwrap();
            seen.extend(page.items);
            match page.next {
                Some(next) => filter.cursor = Some(next),
                None => break,
            }
        }
        let shape: String = seen
            .iter()
            .map(|s| match s {
                Sighting::Queued { .. } => 'q',
                Sighting::Scheduled(_) => 's',
                Sighting::Dead(_) => 'd',
                Sighting::Ended(_) => 'e',
            })
            .collect();
        assert_eq!(shape, "qqsdee");
        let Some(Sighting::Dead(letter)) = seen.iter().find(|s| matches!(s, Sighting::Dead(_))) else { panic!() };
        assert_eq!((letter.body.clone(), letter.error.clone()), (pending(&jobs[0]).body, error()));
        let stats = storage.queue_stats(None).await.unwrap();
        assert_eq!(stats.len(), 1);
        assert_eq!((stats[0].pending, stats[0].running), ([0, 0, 2, 0], 0), "{stats:?}");
        assert_eq!((stats[0].retry, stats[0].failed), (1, 1));
        assert!(stats[0].oldest_pending.is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_says_so_when_it_is_opened() {
    for binary in binaries() {
        let plain = Server::start_with(&binary, "");
        let error = nats::open(plain.options()).await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Incompatible, "{error}");
        assert!(error.hint().unwrap().contains("-js"));

        let guarded = Server::start_with(&binary, "jetstream {}\nauthorization { user: a, password: secret }");
        let mut options = guarded.options();
        options.connection.auth = Auth::UserPassword { user: "a".into(), password: "guess".into() };
        let error = nats::open(options.clone()).await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Denied, "{error}");
        assert!(!format!("{error:?} {options:?}").contains("guess"));

        let mut stopped = Server::start(&binary);
        stopped.kill();
        let error = nats::open(stopped.options()).await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Unreachable, "{error}");
        assert!(error.to_string().contains(&stopped.url()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_stream_with_an_age_limit_is_refused_by_field_name() {
    on_each_server(async |server| {
        let client = async_nats::connect(server.url()).await.unwrap();
        let config =
            r#"{"name":"naq_queue_q","subjects":["naq.queue.q.>"],"retention":"workqueue","max_age":60000000000}"#;
        client.request("$JS.API.STREAM.CREATE.naq_queue_q", config.into()).await.unwrap();
        let storage = server.open().await;
        let error = storage.enqueue(vec![pending(&job(generated(1)))]).await.pop().unwrap().unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Incompatible);
        let text = error.to_string();
        for field in ["max_age", "discard_new_per_subject", "max_msgs_per_subject", "subjects"] {
            assert!(text.contains(field), "{field} is not in {text}");
        }
        let findings = storage.diagnose().await.unwrap();
        assert!(findings.iter().any(|f| f.severity == Severity::Error && f.subject.contains("naq_queue_q")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_store_has_no_findings_but_one_copy_and_an_old_server() {
    on_each_server(async |server| {
        let storage = server.open().await;
        storage.enqueue(vec![pending(&job(generated(1)))]).await.pop().unwrap().unwrap();
        let bad: Vec<_> =
            storage.diagnose().await.unwrap().into_iter().filter(|f| f.severity != Severity::Ok).collect();
        let subjects: Vec<&str> = bad.iter().map(|f| f.subject.as_str()).collect();
        let expected: &[&str] = if server.is_old() { &["server", "durability"] } else { &["durability"] };
        assert_eq!(subjects, expected, "{bad:?}");
        assert!(bad.iter().all(|f| f.severity == Severity::Warning), "{bad:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_limit_are_refused_before_they_are_sent() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let mut big = pending(&job(generated(1)));
        big.body = vec![b' '; storage.info().max_body + 1].into();
        let error = storage.enqueue(vec![big]).await.pop().unwrap().unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::TooLarge);
        let mut fits = pending(&job(generated(2)));
        fits.body = vec![b' '; storage.info().max_body].into();
        assert_eq!(storage.enqueue(vec![fits]).await.pop().unwrap().unwrap(), Enqueued::Stored);
    })
    .await;
}
