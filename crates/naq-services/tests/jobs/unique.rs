//! Unique jobs: conflicts, races, takeovers, what frees a key and what does not.

use naq_models::{OnConflict, Schedule, Timestamp, Unique, UniqueHolder, UniqueWhile, error_type};
use naq_services::{
    JobServiceErrorKind, Receipt, SchedulerService, SchedulerServiceErrorKind,
    jobs::{Admission, CancelOutcome, admit},
    new_job::{UniqueBy, secs},
    storage::Bucket,
};
use tokio::{task::JoinSet, time::timeout};

use super::*;

const KEY: &str = "order-17";
const PLACE: &str = "key.order-17";

fn keyed(id: &str) -> NewJob {
    job(id).unique(KEY)
}

async fn enqueue(jobs: &JobService, new: NewJob) -> Receipt {
    timeout(LONG, jobs.enqueue_many(vec![new])).await.unwrap().pop().unwrap().unwrap()
}

async fn refused(jobs: &JobService, new: NewJob) -> JobServiceErrorKind {
    timeout(LONG, jobs.enqueue(new)).await.unwrap().unwrap_err().kind()
}

/// Who has the key.
async fn holder(jobs: &JobService) -> Option<UniqueHolder> {
    let held = jobs.storage().kv_get(Bucket::Unique, PLACE).await.unwrap();
    held.map(|held| UniqueHolder::decode(&held.value).unwrap())
}

async fn is_free(jobs: &JobService) -> bool {
    holder(jobs).await.is_none()
}

/// What a producer leaves that died so long ago, between key and job.
async fn leave_key(jobs: &JobService, name: &str, age: Duration, replaces: Option<&str>) {
    let since = jobs.storage().now().await.unwrap().unix_millis() - i64::try_from(age.as_millis()).unwrap();
    let holder = UniqueHolder {
        id: id(name),
        since: Timestamp::from_unix_millis(since).unwrap(),
        expires_at: None,
        holds: UniqueWhile::Active,
        queue: None,
        generation: 0,
        replaces: replaces.map(id),
        stored: false,
    };
    let value = bytes::Bytes::from(holder.encode());
    match jobs.storage().kv_get(Bucket::Unique, PLACE).await.unwrap() {
        Some(held) => jobs.storage().kv_update(Bucket::Unique, PLACE, value, held.revision, None).await.unwrap(),
        None => jobs.storage().kv_create(Bucket::Unique, PLACE, value, None).await.unwrap(),
    };
}

fn job_in(claim: &Claim) -> Job {
    wire::decode(&claim.body, &claim.address).unwrap()
}

/// Ends a claimed job as a worker would, its key included.
async fn end(jobs: &JobService, claim: Claim) {
    assert_eq!(finish(jobs, claim, Ok(value("1"))).await, Settled::Done);
}

/// 50 producers on the given connections to one store.
pub(crate) async fn one_of_fifty_stores(services: Vec<JobService>) {
    let mut producers = JoinSet::new();
    for n in 0..50 {
        let jobs = services[n % services.len()].clone();
        // Ids that the store makes; every fifth is in a queue of its own.
        let new = NewJob::new("k", json!({})).unique(KEY).queue(if n % 5 == 0 { "other" } else { "default" });
        producers.spawn(async move { enqueue(&jobs, new).await });
    }
    let receipts = producers.join_all().await;
    assert_eq!(receipts.iter().filter(|receipt| !receipt.duplicate).count(), 1, "{receipts:?}");
    let ids: HashSet<_> = receipts.iter().map(|receipt| &receipt.job_id).collect();
    assert_eq!(ids.len(), 1, "all receipts name the one job: {receipts:?}");
    let jobs = &services[0];
    let pending = [jobs.queue(&queue("default")).await.unwrap(), jobs.queue(&queue("other")).await.unwrap()];
    assert_eq!(pending.iter().map(|queue| queue.pending).sum::<u64>(), 1);
}

pub(crate) async fn of_fifty_producers_of_a_key_one_stores_its_job(stage: &Stage) {
    one_of_fifty_stores(stage.services(5).await).await;
}

pub(crate) async fn the_job_that_has_the_key_is_the_answer(stage: &Stage) {
    let jobs = stage.service().await;
    assert!(!enqueue(&jobs, keyed("a").queue("mail").delay(secs(60))).await.duplicate);
    let again = enqueue(&jobs, keyed("b")).await;
    let expected = Receipt { job_id: id("a"), queue: queue("mail"), status: JobStatus::Scheduled, duplicate: true };
    assert_eq!(again, expected);
    assert_eq!(jobs.status(&id("b")).await.unwrap_err().kind(), JobServiceErrorKind::NotFound);
    assert!(!enqueue(&jobs, job("b").unique("order-18")).await.duplicate, "another key");

    assert_eq!(refused(&jobs, keyed("c").on_conflict(OnConflict::Error)).await, JobServiceErrorKind::KeyTaken);
    assert_eq!(jobs.status(&id("c")).await.unwrap_err().kind(), JobServiceErrorKind::NotFound);

    // A handle of a duplicate is one of the job that was there.
    let handle = jobs.enqueue(job("d").unique("order-18").returning::<u32>()).await.unwrap();
    assert_eq!(handle.id(), &id("b"));
    end(&jobs, claim_one(&jobs).await).await;
    assert_eq!(handle.result_within(LONG).await.unwrap(), 1);
}

pub(crate) async fn computed_keys_tell_jobs_apart(stage: &Stage) {
    let jobs = stage.service().await;
    let mail = |to: &str, n: u32| NewJob::new("mail", json!({"to": to, "n": n})).unique(UniqueBy::fields(["to"]));
    let first = enqueue(&jobs, mail("a", 1)).await;
    assert_eq!(enqueue(&jobs, mail("a", 2)).await.job_id, first.job_id);
    assert!(!enqueue(&jobs, mail("b", 1)).await.duplicate);
    assert!(!enqueue(&jobs, mail("a", 1).queue("q")).await.duplicate, "the queue is a part of it");
    let all = |n: u32| NewJob::new("mail", json!({"to": "a", "n": n})).unique(UniqueBy::args());
    assert!(!enqueue(&jobs, all(1)).await.duplicate);
    assert!(!enqueue(&jobs, all(2)).await.duplicate);
    assert!(enqueue(&jobs, all(1)).await.duplicate);
}

pub(crate) async fn every_end_of_a_job_frees_its_key(stage: &Stage) {
    let jobs = stage.service().await;
    enqueue(&jobs, keyed("done")).await;
    assert_eq!(holder(&jobs).await.unwrap().id, id("done"));
    end(&jobs, claim_one(&jobs).await).await;
    assert!(is_free(&jobs).await);

    enqueue(&jobs, keyed("failed")).await;
    finish(&jobs, claim_one(&jobs).await, Err(failure())).await;
    assert!(is_free(&jobs).await);

    enqueue(&jobs, keyed("silent").result_ttl(secs(0))).await;
    end(&jobs, claim_one(&jobs).await).await;
    assert!(is_free(&jobs).await);

    for delay in [0, 60] {
        let name = format!("cancelled-{delay}");
        enqueue(&jobs, keyed(&name).delay(secs(delay))).await;
        let outcome = jobs.cancel(&id(&name), "enough").await.unwrap();
        assert!(matches!(outcome, CancelOutcome::Cancelled { .. }), "{outcome:?}");
        assert!(is_free(&jobs).await, "{name}");
    }
    enqueue(&jobs, keyed("purged")).await;
    assert_eq!(jobs.purge_queue(&queue("default")).await.unwrap(), 1);
    assert!(is_free(&jobs).await);
    assert!(!enqueue(&jobs, keyed("next")).await.duplicate);
}

pub(crate) async fn a_key_is_taken_over_from_a_job_that_has_ended(stage: &Stage) {
    let jobs = stage.service().await;
    enqueue(&jobs, job("ended")).await;
    end(&jobs, claim_one(&jobs).await).await;
    leave_key(&jobs, "ended", Duration::ZERO, None).await;
    assert!(!enqueue(&jobs, keyed("next")).await.duplicate);
    assert_eq!(holder(&jobs).await.unwrap().id, id("next"));
}

pub(crate) async fn a_key_without_a_job_is_respected_for_half_a_minute(stage: &Stage) {
    let jobs = stage.service().await;
    leave_key(&jobs, "absent", secs(10), None).await;
    let waiting = timeout(Duration::from_millis(400), jobs.enqueue(keyed("b"))).await;
    assert!(waiting.is_err(), "{waiting:?}");
    // The job of the key arrives: whoever waits gets it as the answer.
    let late = jobs.clone();
    let mut waits = JoinSet::new();
    waits.spawn(async move { enqueue(&late, keyed("b")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    enqueue(&jobs, job("absent")).await;
    let receipt = timeout(LONG, waits.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!((receipt.job_id, receipt.duplicate), (id("absent"), true));

    // A clock that is wrong does not keep the key for ever.
    let jobs = stage.service().await;
    let tomorrow = jobs.storage().now().await.unwrap().saturating_add(secs(86_400));
    let value = format!(r#"{{"id":"absent","since":"{tomorrow}"}}"#);
    jobs.storage().kv_create(Bucket::Unique, PLACE, value.into(), None).await.unwrap();
    assert!(!enqueue(&jobs, keyed("b")).await.duplicate);

    let jobs = stage.service().await;
    leave_key(&jobs, "absent", secs(31), None).await;
    let mut producers = JoinSet::new();
    for n in 0..10 {
        let jobs = jobs.clone();
        producers.spawn(async move { enqueue(&jobs, keyed(&format!("p{n}"))).await });
    }
    let receipts = producers.join_all().await;
    assert_eq!(receipts.iter().filter(|receipt| !receipt.duplicate).count(), 1, "{receipts:?}");
}

pub(crate) async fn a_job_that_waits_is_replaced_and_a_running_one_is_not(stage: &Stage) {
    let jobs = stage.service().await;
    let replacing = |id: &str| keyed(id).on_conflict(OnConflict::Replace);
    assert!(!enqueue(&jobs, replacing("a").delay(secs(60))).await.duplicate);
    assert!(!enqueue(&jobs, replacing("b")).await.duplicate);
    let old = jobs.status(&id("a")).await.unwrap();
    let error = old.error.unwrap();
    assert_eq!((old.status, error.error_type.as_str()), (JobStatus::Cancelled, error_type::REPLACED));
    assert!(error.message.contains("job b"), "{}", error.message);
    assert!(!enqueue(&jobs, replacing("c")).await.duplicate, "a pending one is replaced too");
    assert_eq!(jobs.status(&id("b")).await.unwrap().status, JobStatus::Cancelled);

    let mut worker = consumer(&jobs, &QueueName::default(), Runs(Some(id("c")))).await;
    let claim = take(worker.as_mut(), 1).await.pop().unwrap();
    assert_eq!(claim.address.id, id("c"), "the replaced ones are gone");
    let answer = enqueue(&jobs, replacing("d")).await;
    assert_eq!((answer.job_id, answer.status, answer.duplicate), (id("c"), JobStatus::Running, true));
    end(&jobs, claim).await;
    worker.close().await.unwrap();
    assert!(is_free(&jobs).await);
}

pub(crate) async fn a_replacement_that_was_cut_off_is_made_up_for(stage: &Stage) {
    // Cut off before the new job was stored: the old one has the key again.
    let jobs = stage.service().await;
    enqueue(&jobs, keyed("old").delay(secs(60))).await;
    leave_key(&jobs, "never", secs(31), Some("old")).await;
    let answer = enqueue(&jobs, keyed("b")).await;
    assert_eq!((answer.job_id, answer.duplicate), (id("old"), true));
    assert!(!enqueue(&jobs, keyed("c").on_conflict(OnConflict::Replace)).await.duplicate);
    assert_eq!(jobs.status(&id("old")).await.unwrap().status, JobStatus::Cancelled);

    // Cut off after it was stored: the same call again ends the old one.
    let jobs = stage.service().await;
    enqueue(&jobs, keyed("old").delay(secs(60))).await;
    leave_key(&jobs, "new", Duration::ZERO, Some("old")).await;
    let submission = {
        let mut job = Job::new(id("new"), "k", value("{}"), Timestamp::EPOCH);
        job.unique = Some(Unique { key: KEY.into(), holds: UniqueWhile::Active, ttl: None });
        job
    };
    let entry = naq_services::storage::Entry::new(&submission, JobStatus::Pending, Default::default()).unwrap();
    jobs.storage().enqueue(vec![entry]).await.pop().unwrap().unwrap();
    let old = jobs.storage().get_job(&id("old")).await.unwrap().pop().unwrap();
    let naq_services::storage::Sighting::Scheduled(waiting) = old else { panic!("{old:?}") };
    let old = wire::decode(&waiting.body, &waiting.address).unwrap();
    // Or its worker does, when it is about to start.
    let admission = admit(&**jobs.storage(), &old).await.unwrap();
    assert_eq!(admission, Admission::Superseded { by: id("new") });
    assert_eq!(admit(&**jobs.storage(), &submission).await.unwrap(), Admission::Start);
    assert!(enqueue(&jobs, keyed("new").on_conflict(OnConflict::Replace)).await.duplicate);
    assert_eq!(jobs.status(&id("old")).await.unwrap().status, JobStatus::Cancelled);
    assert_eq!(holder(&jobs).await.unwrap().id, id("new"));
}

pub(crate) async fn a_key_that_waits_for_the_start_is_free_then(stage: &Stage) {
    let jobs = stage.service().await;
    let until_start = |id: &str| keyed(id).unique_while(UniqueWhile::Pending);
    enqueue(&jobs, until_start("a")).await;
    let claim = claim_one(&jobs).await;
    assert!(enqueue(&jobs, until_start("b")).await.duplicate, "a claimed job has not started");
    let mut started = job_in(&claim);
    assert_eq!(admit(&**jobs.storage(), &started).await.unwrap(), Admission::Start);
    assert!(is_free(&jobs).await);
    assert!(!enqueue(&jobs, until_start("b")).await.duplicate);
    // Snoozed, delivered again or tried again, it neither takes the key nor minds who has it.
    for attempt in [1, 2] {
        started.attempt = attempt;
        assert_eq!(admit(&**jobs.storage(), &started).await.unwrap(), Admission::Start);
    }
    end(&jobs, claim).await;
    assert_eq!(holder(&jobs).await.unwrap().id, id("b"), "the end of the first leaves the key of the second");
    // One that was replaced before it started does not start.
    let replaced = job_in(&claim_one(&jobs).await);
    enqueue(&jobs, job("c")).await;
    leave_key(&jobs, "c", Duration::ZERO, Some("b")).await;
    assert_eq!(admit(&**jobs.storage(), &replaced).await.unwrap(), Admission::Superseded { by: id("c") });
}

pub(crate) async fn a_key_for_a_time_outlives_its_job(stage: &Stage) {
    let jobs = stage.service().await;
    let for_a_time = |id: &str, ttl: u64| keyed(id).unique_ttl(secs(ttl));
    enqueue(&jobs, for_a_time("a", 600)).await;
    end(&jobs, claim_one(&jobs).await).await;
    for answer in [OnConflict::Existing, OnConflict::Replace] {
        let receipt = enqueue(&jobs, for_a_time("b", 600).on_conflict(answer)).await;
        let expected = (id("a"), JobStatus::Completed, true);
        assert_eq!((receipt.job_id, receipt.status, receipt.duplicate), expected, "{answer}");
    }
    assert_eq!(refused(&jobs, keyed("b").on_conflict(OnConflict::Error)).await, JobServiceErrorKind::KeyTaken);

    // Nothing is kept of the job, and the key holds all the same.
    let jobs = stage.service().await;
    enqueue(&jobs, for_a_time("silent", 600).result_ttl(secs(0)).queue("q")).await;
    end(&jobs, claim(&jobs, &queue("q"), 1).await.pop().unwrap()).await;
    let receipt = enqueue(&jobs, for_a_time("b", 600)).await;
    assert_eq!((receipt.job_id, receipt.queue, receipt.duplicate), (id("silent"), queue("q"), true));

    let jobs = stage.service().await;
    let begun = std::time::Instant::now();
    enqueue(&jobs, for_a_time("short", 1)).await;
    while enqueue(&jobs, for_a_time("next", 600)).await.duplicate {
        assert!(begun.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
}

pub(crate) async fn a_batch_has_each_key_once(stage: &Stage) {
    let jobs = stage.service().await;
    enqueue(&jobs, job("there").unique("k0")).await;
    let outcomes = jobs
        .enqueue_many(vec![
            job("plain-1"),
            job("a").unique("k1"),
            job("b").unique("k1"),
            job("c").unique("k2").on_conflict(OnConflict::Error),
            job("d").unique("k2").on_conflict(OnConflict::Error),
            job("e").unique("k3").delay(secs(60)),
            job("f").unique("k3").on_conflict(OnConflict::Replace),
            job("g").unique("k0"),
            job("plain-2"),
            job("h").unique(""),
        ])
        .await;
    let seen: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().map(|r| (r.job_id.as_str(), r.duplicate)).map_err(|error| error.kind()))
        .collect();
    let expected = [
        Ok(("plain-1", false)),
        Ok(("a", false)),
        Ok(("a", true)),
        Ok(("c", false)),
        Err(JobServiceErrorKind::KeyTaken),
        Ok(("e", false)),
        Ok(("f", false)),
        Ok(("there", true)),
        Ok(("plain-2", false)),
        Err(JobServiceErrorKind::InvalidJob),
    ];
    assert_eq!(seen, expected);
    assert_eq!(jobs.status(&id("e")).await.unwrap().status, JobStatus::Cancelled);
    assert_eq!(jobs.queue(&QueueName::default()).await.unwrap().pending, 6);
}

pub(crate) async fn a_fresh_key_holds_up_nobody_else_of_a_batch(stage: &Stage) {
    let jobs = stage.service().await;
    leave_key(&jobs, "absent", Duration::ZERO, None).await;
    let batch = vec![job("a").unique("k1"), keyed("held-up"), job("plain")];
    assert!(timeout(Duration::from_millis(600), jobs.enqueue_many(batch)).await.is_err());
    assert_eq!(jobs.queue(&QueueName::default()).await.unwrap().pending, 2);
}

pub(crate) async fn two_thousand_keys_in_one_batch(stage: &Stage) {
    let jobs = stage.service().await;
    let batch = |from: u32| {
        let new = move |n: u32| NewJob::new("k", json!({"n": n % 1_000})).unique(UniqueBy::args());
        (from..from + 2_500).map(new).collect::<Vec<_>>()
    };
    let outcomes = timeout(3 * LONG, jobs.enqueue_many(batch(0))).await.unwrap();
    assert_eq!(outcomes.iter().filter(|o| !o.as_ref().unwrap().duplicate).count(), 1_000);
    assert_eq!(jobs.queue(&QueueName::default()).await.unwrap().pending, 1_000);
}

pub(crate) async fn an_id_and_a_key_of_ones_own(stage: &Stage) {
    let jobs = stage.service().await;
    assert!(!enqueue(&jobs, keyed("a")).await.duplicate);
    let again = enqueue(&jobs, keyed("a")).await;
    assert_eq!((again.job_id, again.duplicate), (id("a"), true));
    assert_eq!(holder(&jobs).await.unwrap().id, id("a"), "the same job twice keeps its key");
    let mut producers = JoinSet::new();
    for _ in 0..10 {
        let jobs = jobs.clone();
        producers.spawn(async move { enqueue(&jobs, job("twin").unique("twin")).await.duplicate });
    }
    assert_eq!(producers.join_all().await.iter().filter(|duplicate| !**duplicate).count(), 1);
    assert!(jobs.storage().kv_get(Bucket::Unique, "key.twin").await.unwrap().is_some(), "the twin has its key");

    // An id that another job has: nothing is stored, and the key goes back.
    enqueue(&jobs, job("b")).await;
    assert!(enqueue(&jobs, job("b").unique("order-18")).await.duplicate);
    assert!(jobs.storage().kv_get(Bucket::Unique, "key.order-18").await.unwrap().is_none());
    let answer = enqueue(&jobs, keyed("b").on_conflict(OnConflict::Replace)).await;
    assert_eq!((answer.job_id, answer.duplicate), (id("b"), true));
    assert_eq!(holder(&jobs).await.unwrap().id, id("a"), "the job that was to be replaced has its key back");
    assert_eq!(jobs.status(&id("a")).await.unwrap().status, JobStatus::Pending);
}

pub(crate) async fn a_new_life_takes_the_key_again(stage: &Stage) {
    let jobs = stage.service().await;
    enqueue(&jobs, keyed("a")).await;
    finish(&jobs, claim_one(&jobs).await, Err(failure())).await;
    enqueue(&jobs, keyed("b")).await;
    assert_eq!(jobs.retry(&id("a")).await.unwrap_err().kind(), JobServiceErrorKind::KeyTaken);
    assert_eq!(jobs.status(&id("a")).await.unwrap().status, JobStatus::Failed);
    let report = jobs.dead_retry_all(None).await.unwrap();
    assert_eq!((report.retried, report.refused), (0, 1));
    end(&jobs, claim_one(&jobs).await).await;

    let mut retries = JoinSet::new();
    for _ in 0..5 {
        let jobs = jobs.clone();
        retries.spawn(async move { jobs.retry(&id("a")).await.is_ok_and(|receipt| !receipt.duplicate) });
    }
    assert_eq!(retries.join_all().await.iter().filter(|began| **began).count(), 1);
    assert_eq!(holder(&jobs).await.unwrap().id, id("a"));
    let answer = enqueue(&jobs, keyed("c")).await;
    assert_eq!((answer.job_id, answer.duplicate), (id("a"), true), "its dead letter is of the life before");
    end(&jobs, claim_one(&jobs).await).await;
    assert!(is_free(&jobs).await);
}

pub(crate) async fn only_a_live_job_keeps_another_from_starting(stage: &Stage) {
    let jobs = stage.service().await;
    let store = &**jobs.storage();
    let mut outsider = Job::new(id("outsider"), "k", value("{}"), Timestamp::EPOCH);
    outsider.unique = Some(Unique { key: KEY.into(), holds: UniqueWhile::Active, ttl: None });
    assert_eq!(admit(store, &outsider).await.unwrap(), Admission::Start, "nobody has the key");
    enqueue(&jobs, keyed("a")).await;
    assert_eq!(admit(store, &outsider).await.unwrap(), Admission::Superseded { by: id("a") });
    assert_eq!(admit(store, &job_in(&claim_one(&jobs).await)).await.unwrap(), Admission::Start);
    jobs.cancel(&id("a"), "enough").await.unwrap();
    leave_key(&jobs, "a", Duration::ZERO, None).await;
    assert_eq!(admit(store, &outsider).await.unwrap(), Admission::Start, "who has the key has ended");
    leave_key(&jobs, "absent", Duration::ZERO, None).await;
    assert_eq!(admit(store, &outsider).await.unwrap(), Admission::Start, "who has the key is not there");
    outsider.unique = None;
    assert_eq!(admit(store, &outsider).await.unwrap(), Admission::Start);
}

pub(crate) async fn what_cannot_be_a_key_is_refused(stage: &Stage) {
    let jobs = stage.service().await;
    for unique in [
        r#"{"key":""}"#,
        r#"{"key":"k","while":"ttl"}"#,
        r#"{"key":"k","while":"ttl","ttl":0}"#,
        r#"{"key":"k","while":"pending","ttl":5}"#,
    ] {
        let text = format!(r#"{{"v":1,"kind":"k","args":{{}},"unique":{unique}}}"#);
        let submission = jobs.read_submission(text.as_bytes()).unwrap();
        assert_eq!(jobs.enqueue_raw(submission).await.unwrap_err().kind(), JobServiceErrorKind::InvalidJob, "{unique}");
    }
    // What another program wrote is left alone.
    jobs.storage().kv_create(Bucket::Unique, PLACE, bytes::Bytes::from_static(b"junk"), None).await.unwrap();
    assert_eq!(refused(&jobs, keyed("a")).await, JobServiceErrorKind::Undecodable);
}

pub(crate) async fn a_schedule_leaves_out_runs_while_its_key_is_taken(stage: &Stage) {
    let service = SchedulerService::new(stage.service().await);
    let (jobs, hourly) = (service.jobs(), || Schedule::every(secs(3600)));
    let replacing = NewJob::new("k", json!({})).unique(KEY).on_conflict(OnConflict::Replace);
    let refused = service.define(replacing, hourly()).unwrap_err();
    assert_eq!(refused.kind(), SchedulerServiceErrorKind::Invalid);
    let name = naq_models::ScheduleId::new("s").unwrap();
    let unique = NewJob::new("k", json!({})).unique(KEY);
    service.upsert(&name, service.define(unique, hourly()).unwrap()).await.unwrap();
    let first = service.trigger(&name).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let second = service.trigger(&name).await.unwrap();
    assert_ne!(first.job_id, second.job_id);
    assert_eq!(jobs.status(&second.job_id).await.unwrap_err().kind(), JobServiceErrorKind::NotFound);
    assert!(second.record.pending.is_empty(), "it counts as published: {:?}", second.record.pending);
    end(jobs, claim_one(jobs).await).await;
    let third = service.trigger(&name).await.unwrap();
    assert_eq!(jobs.status(&third.job_id).await.unwrap().status, JobStatus::Pending);
}
