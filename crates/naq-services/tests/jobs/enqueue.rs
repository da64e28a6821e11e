//! Enqueueing: receipts, duplicates, limits, races.

use naq_models::{JobStatus, Priority, QueueName, Timestamp, duration::Seconds};
use naq_services::{JobServiceErrorKind, new_job::secs};
use tokio::task::JoinSet;

use super::*;

pub(crate) async fn the_receipt_says_where_the_job_went(stage: &Stage) {
    let jobs = stage.service().await;
    let now = jobs.storage().now().await.unwrap();
    let cases = [
        (job("a").queue("mail"), JobStatus::Pending, "mail"),
        (job("b").delay(secs(60)), JobStatus::Scheduled, "default"),
        (job("c").at(now.saturating_add(secs(60))), JobStatus::Scheduled, "default"),
        (job("d").at(Timestamp::EPOCH), JobStatus::Pending, "default"),
        (job("e").delay(secs(0)), JobStatus::Pending, "default"),
    ];
    for (new, status, queue) in cases {
        let handle = jobs.enqueue(new).await.unwrap();
        let receipt = handle.receipt().unwrap();
        assert_eq!((receipt.status, receipt.queue.as_str(), receipt.duplicate), (status, queue, false));
        let seen = jobs.status(handle.id()).await.unwrap();
        assert_eq!((seen.status, seen.queue.as_str(), seen.kind.as_str()), (status, queue, "k"));
    }
    let due = jobs.status(&id("b")).await.unwrap().run_at.unwrap();
    assert!(due >= now.saturating_add(secs(60)) && due <= now.saturating_add(secs(80)), "{due}");
}

pub(crate) async fn generated_ids_differ_and_sort_by_time(stage: &Stage) {
    let jobs = stage.service().await;
    let new = (0..100).map(|_| NewJob::new("k", json!({}))).collect();
    let ids: Vec<_> = jobs.enqueue_many(new).await.into_iter().map(|r| r.unwrap().job_id).collect();
    assert!(ids.iter().all(|id| id.is_generated()));
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 100);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let later = jobs.enqueue(NewJob::new("k", json!({}))).await.unwrap();
    assert!(ids.iter().all(|id| id < later.id()));
}

pub(crate) async fn a_taken_id_is_a_duplicate_with_the_status_of_the_job_that_has_it(stage: &Stage) {
    let jobs = stage.service().await;
    jobs.enqueue(job("a").queue("mail")).await.unwrap();
    let again = jobs.enqueue(job("a").queue("other")).await.unwrap();
    let receipt = again.receipt().unwrap();
    assert_eq!((receipt.duplicate, receipt.status, receipt.queue.as_str()), (true, JobStatus::Pending, "mail"));
    assert_eq!(jobs.queue(&queue("other")).await.unwrap().pending, 0);

    jobs.enqueue(job("b").delay(secs(60))).await.unwrap();
    assert_eq!(jobs.enqueue(job("b")).await.unwrap().receipt().unwrap().status, JobStatus::Scheduled);

    jobs.enqueue(job("c")).await.unwrap();
    finish(&jobs, claim_one(&jobs).await, Ok(value("5"))).await;
    let again = jobs.enqueue(job("c").returning::<u32>()).await.unwrap();
    assert_eq!(again.receipt().unwrap().status, JobStatus::Completed);
    assert_eq!(again.result_within(LONG).await.unwrap(), 5);
}

pub(crate) async fn one_id_twice_in_a_batch_is_stored_once(stage: &Stage) {
    let jobs = stage.service().await;
    let outcomes = jobs.enqueue_many(vec![job("a"), job("b"), job("a"), job("b").queue("no.name")]).await;
    let duplicates: Vec<_> = outcomes.iter().map(|o| o.as_ref().ok().map(|r| r.duplicate)).collect();
    assert_eq!(duplicates, [Some(false), Some(false), Some(true), None]);
    assert_eq!(jobs.queue(&QueueName::default()).await.unwrap().pending, 2);
}

pub(crate) async fn of_twenty_producers_of_one_id_one_stores_it(stage: &Stage) {
    let jobs = stage.service().await;
    let mut producers = JoinSet::new();
    for _ in 0..20 {
        let jobs = jobs.clone();
        producers.spawn(async move { jobs.enqueue(job("a")).await.unwrap().receipt().unwrap().duplicate });
    }
    let duplicates = producers.join_all().await;
    assert_eq!(duplicates.iter().filter(|duplicate| !**duplicate).count(), 1);
    assert_eq!(claim(&jobs, &QueueName::default(), 5).await.len(), 1);
}

pub(crate) async fn what_is_too_large_is_refused_with_both_numbers(stage: &Stage) {
    let settings = JobSettings { max_body: 10_000, ..JobSettings::default() };
    let jobs = stage.service_with(settings).await;
    let error = jobs.enqueue(NewJob::new("k", json!(["x".repeat(10_000)])).job_id("a")).await.unwrap_err();
    assert_eq!(error.kind(), JobServiceErrorKind::TooLarge);
    assert!(error.to_string().contains("10000"), "{error}");
    assert_eq!(jobs.status(&id("a")).await.unwrap_err().kind(), JobServiceErrorKind::NotFound);

    let jobs = stage.service_with(JobSettings { max_body: 5 << 20, ..JobSettings::default() }).await;
    let error = jobs.enqueue(NewJob::new("k", json!(["x".repeat(3 << 20)]))).await.unwrap_err();
    assert_eq!(error.kind(), JobServiceErrorKind::TooLarge);
    let backend = jobs.storage().info().backend;
    assert!(error.to_string().contains(&format!("the {backend} store")), "{error}");
}

pub(crate) async fn what_cannot_run_is_refused(stage: &Stage) {
    let jobs = stage.service().await;
    let mistakes = [
        NewJob::new("", json!({})),
        NewJob::new("k", json!(5)),
        job("a").priority(9),
        job("a").timeout(secs(0)),
        job("a").depends_on(["a"]),
    ];
    for new in mistakes {
        assert_eq!(jobs.enqueue(new).await.unwrap_err().kind(), JobServiceErrorKind::InvalidJob);
    }
    for text in ["", "[]", r#"{"v":1,"args":{}}"#, r#"{"v":2,"kind":"k","args":{}}"#, r#"{"v":1,"kind":"k","args":5}"#]
    {
        let error = jobs.read_submission(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), JobServiceErrorKind::InvalidJob, "{text}");
    }
    assert_eq!(jobs.queue(&QueueName::default()).await.unwrap().pending, 0);
}

pub(crate) async fn a_submission_takes_from_the_configuration_what_it_leaves_out(stage: &Stage) {
    let mut settings = JobSettings::default();
    settings.defaults.queue = queue("standard");
    settings.defaults.max_retries = 7;
    settings.defaults.timeout = secs(11);
    settings.defaults.result_ttl = secs(13);
    let jobs = stage.service_with(settings).await;
    let bare = jobs.read_submission(br#"{"v":1,"kind":"k","args":[],"timeout":null}"#).unwrap();
    assert_eq!((bare.queue.as_str(), bare.retry.max_retries), ("standard", 7));
    assert_eq!((Seconds(bare.timeout), Seconds(bare.result_ttl)), (Seconds(secs(11)), Seconds(secs(13))));
    let text = br#"{"v":1,"kind":"k","args":[],"id":"a","queue":"q","priority":0,"max_retries":0,"timeout":1,
        "result_ttl":0,"attempt":9,"run":9,"gen":9}"#;
    let said = jobs.read_submission(text).unwrap();
    assert_eq!((said.queue.as_str(), said.priority, said.retry.max_retries), ("q", Priority::new(0).unwrap(), 0));
    assert_eq!((said.timeout, said.result_ttl), (secs(1), secs(0)));

    jobs.enqueue_raw(said).await.unwrap();
    let claim = claim(&jobs, &queue("q"), 1).await.pop().unwrap();
    let stored = wire::decode(&claim.body, &claim.address).unwrap();
    assert_eq!((stored.attempt, stored.run, stored.generation), (1, 1, 0), "a submission is a first life");
}
