//! Enqueueing all or none: ids, unique keys, limits. NATS before 2.12 refuses every call and keeps no key.

use naq_models::{JobStatus, OnConflict};
use naq_services::{JobServiceErrorKind, jobs::MAX_TOGETHER, new_job::secs};

use super::*;

impl Stage {
    fn stores_all_or_none(&self) -> bool {
        self.server.as_ref().is_none_or(|server| !server.is_old())
    }
}

async fn kind_of(jobs: &JobService, new: Vec<NewJob>) -> JobServiceErrorKind {
    jobs.enqueue_all(new).await.unwrap_err().kind()
}

async fn pending(jobs: &JobService) -> u64 {
    jobs.queue(&QueueName::default()).await.unwrap().pending
}

pub(crate) async fn all_are_stored_with_a_receipt_each(stage: &Stage) {
    let jobs = stage.service().await;
    let new = || vec![job("a"), job("b").unique("k"), NewJob::new("k", json!({}))];
    if !stage.stores_all_or_none() {
        assert_eq!(kind_of(&jobs, new()).await, JobServiceErrorKind::Unsupported);
        assert_eq!(pending(&jobs).await, 0);
        // Neither an id nor the key is held by what was not stored.
        for outcome in jobs.enqueue_many(vec![job("a"), job("other").unique("k")]).await {
            assert!(!outcome.unwrap().duplicate);
        }
        return;
    }
    let receipts = jobs.enqueue_all(new()).await.unwrap();
    assert_eq!(receipts.iter().map(|receipt| receipt.job_id.as_str()).take(2).collect::<Vec<_>>(), ["a", "b"]);
    for receipt in &receipts {
        assert_eq!((receipt.status, receipt.duplicate), (JobStatus::Pending, false));
        assert_eq!(jobs.status(&receipt.job_id).await.unwrap().status, JobStatus::Pending);
    }
    assert!(jobs.enqueue_all(Vec::<NewJob>::new()).await.unwrap().is_empty());
    let holder = jobs.enqueue(job("second").unique("k")).await.unwrap();
    assert_eq!(holder.receipt().unwrap().job_id.as_str(), "b", "the key holds");
    assert_eq!(kind_of(&jobs, new()).await, JobServiceErrorKind::Conflict, "all of it again");
}

pub(crate) async fn what_is_in_the_way_of_one_refuses_all_and_frees_the_keys(stage: &Stage) {
    if !stage.stores_all_or_none() {
        return;
    }
    let jobs = stage.service().await;
    jobs.enqueue_many(vec![job("taken"), job("holder").unique("held")]).await;
    let settings = jobs.settings().max_body.min(jobs.storage().info().max_body);
    let large = NewJob::new("k", json!({ "text": "x".repeat(settings) }));
    let refusals = [
        (job("taken"), JobServiceErrorKind::Conflict),
        (job("a"), JobServiceErrorKind::Conflict),
        (job("c").unique("held"), JobServiceErrorKind::KeyTaken),
        (job("c").unique("held").on_conflict(OnConflict::Existing), JobServiceErrorKind::KeyTaken),
        (job("c").unique("mine"), JobServiceErrorKind::KeyTaken),
        (large, JobServiceErrorKind::TooLarge),
        (job("c").timeout(secs(0)), JobServiceErrorKind::InvalidJob),
    ];
    for (last, expected) in refusals {
        let error = jobs.enqueue_all(vec![job("a"), job("b").unique("mine"), last]).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert_eq!(pending(&jobs).await, 2, "{error}");
        let key = jobs.storage().kv_list(naq_services::storage::Bucket::Unique, "key.mine").await.unwrap();
        assert!(key.is_empty(), "{error}");
    }
    let receipts = jobs.enqueue_all(vec![job("a"), job("b").unique("mine"), job("c")]).await.unwrap();
    assert_eq!(receipts.len(), 3);
}

pub(crate) async fn a_job_that_waits_is_replaced_with_the_others_or_stays(stage: &Stage) {
    if !stage.stores_all_or_none() {
        return;
    }
    let jobs = stage.service().await;
    jobs.enqueue(job("old").unique("k")).await.unwrap();
    jobs.enqueue(job("taken")).await.unwrap();
    let replacing = || job("new").unique("k").on_conflict(OnConflict::Replace);
    assert_eq!(kind_of(&jobs, vec![replacing(), job("taken")]).await, JobServiceErrorKind::Conflict);
    assert_eq!(jobs.status(&id("old")).await.unwrap().status, JobStatus::Pending);
    let holder = jobs.enqueue(job("x").unique("k")).await.unwrap();
    assert_eq!(holder.receipt().unwrap().job_id.as_str(), "old", "the key was given back");
    jobs.enqueue_all(vec![replacing(), job("beside")]).await.unwrap();
    assert_eq!(jobs.status(&id("old")).await.unwrap().status, JobStatus::Cancelled);
}

pub(crate) async fn what_one_batch_cannot_hold_is_refused_up_front(stage: &Stage) {
    let jobs = stage.service().await;
    let many = |count| (0..count).map(|_| NewJob::new("k", json!({}))).collect::<Vec<_>>();
    assert_eq!(kind_of(&jobs, many(MAX_TOGETHER + 1)).await, JobServiceErrorKind::Unsupported);
    assert_eq!(pending(&jobs).await, 0);
    let mixtures = [job("a").delay(secs(60)), job("b").depends_on(["first-1"]), job("c").queue("other")];
    for (n, last) in mixtures.into_iter().enumerate() {
        let outcome = jobs.enqueue_all(vec![job(&format!("first-{n}")), last]).await;
        if stage.server.is_some() {
            assert_eq!(outcome.unwrap_err().kind(), JobServiceErrorKind::Unsupported);
            assert_eq!(pending(&jobs).await, 0);
        } else {
            assert_eq!(outcome.unwrap().len(), 2);
        }
    }
    if stage.stores_all_or_none() {
        assert_eq!(jobs.enqueue_all(many(MAX_TOGETHER)).await.unwrap().len(), MAX_TOGETHER);
    }
}

pub(crate) async fn callers_with_the_same_keys_do_not_block_each_other(stage: &Stage) {
    if !stage.stores_all_or_none() {
        return;
    }
    let services = stage.services(2).await;
    let batch = |caller: usize, keys: [&str; 3]| {
        let keyed = |key: &str| job(&format!("{caller}-{key}")).unique(key);
        keys.map(keyed).to_vec()
    };
    let (one, two) = tokio::time::timeout(LONG, async {
        tokio::join!(
            services[0].enqueue_all(batch(0, ["a", "b", "c"])),
            services[1].enqueue_all(batch(1, ["c", "b", "a"]))
        )
    })
    .await
    .expect("neither waits for the other's keys to grow stale");
    let kinds = [one, two].map(|outcome| outcome.map(|receipts| receipts.len()).map_err(|error| error.kind()));
    assert!(kinds.contains(&Ok(3)) && kinds.contains(&Err(JobServiceErrorKind::KeyTaken)), "{kinds:?}");
    assert_eq!(pending(&services[0]).await, 3);
}
