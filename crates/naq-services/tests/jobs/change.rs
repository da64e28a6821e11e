use naq_models::{JobStatus, error_type};
use naq_services::{
    JobServiceErrorKind,
    jobs::{CancelOutcome, ResultState},
    new_job::secs,
};
use tokio::task::JoinSet;

use super::*;

async fn ended(jobs: &JobService, name: &str) -> JobResult {
    match jobs.result(&id(name)).await.unwrap() {
        ResultState::Ended(result) => *result,
        ResultState::Unfinished(view) => panic!("{name} is {}", view.status),
    }
}

pub(crate) async fn cancels_wherever_the_job_stands(stage: &Stage) {
    let jobs = stage.service().await;
    jobs.enqueue(job("running")).await.unwrap();
    // Some stores know only from the worker that a job runs.
    let mut worker = consumer(&jobs, &QueueName::default(), Runs(Some(id("running")))).await;
    let running = take(worker.as_mut(), 1).await.pop().unwrap();
    let seen = jobs.status(&id("running")).await.unwrap();
    assert_eq!((seen.status, seen.worker_id.as_deref()), (JobStatus::Running, Some("w1")));
    jobs.enqueue(job("pending")).await.unwrap();
    jobs.enqueue(job("scheduled").delay(secs(60))).await.unwrap();
    for (name, was) in
        [("running", JobStatus::Running), ("pending", JobStatus::Pending), ("scheduled", JobStatus::Scheduled)]
    {
        assert_eq!(jobs.cancel(&id(name), "not needed").await.unwrap(), CancelOutcome::Cancelled { was }, "{name}");
        let result = ended(&jobs, name).await;
        let error = result.error.unwrap();
        assert_eq!((result.status, error.error_type.as_str()), (JobStatus::Cancelled, error_type::CANCELLED));
        assert_eq!(error.message, "not needed");
        let again = jobs.cancel(&id(name), "again").await.unwrap();
        assert_eq!(again, CancelOutcome::AlreadyEnded { status: Some(JobStatus::Cancelled) });
    }
    assert_eq!(finish(&jobs, running, Ok(value("1"))).await, Settled::AlreadyEnded, "the worker came second");
    assert_eq!(ended(&jobs, "running").await.status, JobStatus::Cancelled);
    worker.close().await.unwrap();
    assert_eq!(claim(&jobs, &queue("default"), 5).await.len(), 0, "nothing is left to run");
    assert_eq!(jobs.cancel(&id("none"), "").await.unwrap_err().kind(), JobServiceErrorKind::NotFound);
}

pub(crate) async fn what_keeps_no_result_is_cancelled_too(stage: &Stage) {
    let jobs = stage.service().await;
    jobs.enqueue(job("a").result_ttl(secs(0))).await.unwrap();
    let outcome = jobs.cancel(&id("a"), "no").await.unwrap();
    assert_eq!(outcome, CancelOutcome::Cancelled { was: JobStatus::Pending });
    assert_eq!(jobs.status(&id("a")).await.unwrap_err().kind(), JobServiceErrorKind::NotFound);
    assert_eq!(claim(&jobs, &queue("default"), 5).await.len(), 0);
}

pub(crate) async fn cancel_and_finish_have_one_winner(stage: &Stage) {
    let jobs = stage.service().await;
    let names: Vec<String> = (0..40).map(|n| format!("j{n}")).collect();
    for name in &names {
        jobs.enqueue(job(name)).await.unwrap();
    }
    let mut finishing = JoinSet::new();
    let mut cancelling = JoinSet::new();
    for claim in claim(&jobs, &queue("default"), names.len()).await {
        let (worker, operator) = (jobs.clone(), jobs.clone());
        let name = claim.address.id.clone();
        cancelling.spawn(async move { (name.clone(), operator.cancel(&name, "race").await.unwrap()) });
        finishing.spawn(async move { (claim.address.id.clone(), finish(&worker, claim, Ok(value("1"))).await) });
    }
    let finished: std::collections::HashMap<_, _> = finishing.join_all().await.into_iter().collect();
    let cancelled: std::collections::HashMap<_, _> = cancelling.join_all().await.into_iter().collect();
    for name in &names {
        let won = match (finished[&id(name)], cancelled[&id(name)]) {
            (Settled::Done, CancelOutcome::AlreadyEnded { .. }) => JobStatus::Completed,
            (Settled::AlreadyEnded | Settled::LeaseLost, CancelOutcome::Cancelled { .. }) => JobStatus::Cancelled,
            both => panic!("{name}: {both:?}"),
        };
        assert_eq!(ended(&jobs, name).await.status, won);
    }
    assert_eq!(jobs.queue(&queue("default")).await.unwrap().running, 0);
}

pub(crate) async fn a_failed_job_starts_a_new_life(stage: &Stage) {
    let jobs = stage.service().await;
    failed(&jobs, "a").await;
    let before = jobs.storage().get_result(&id("a")).await.unwrap().unwrap().revision;
    let receipt = jobs.retry(&id("a")).await.unwrap();
    assert_eq!((receipt.status, receipt.duplicate), (JobStatus::Pending, false));
    assert_eq!(jobs.dead_show(&id("a")).await.unwrap_err().kind(), JobServiceErrorKind::NotFound);
    assert_eq!(jobs.status(&id("a")).await.unwrap().status, JobStatus::Pending);
    assert_eq!(jobs.retry(&id("a")).await.unwrap_err().kind(), JobServiceErrorKind::Conflict);
    let claim = claim_one(&jobs).await;
    let life = wire::decode(&claim.body, &claim.address).unwrap();
    assert_eq!((life.attempt, life.run, life.generation), (1, 2, before));
    assert_eq!(finish(&jobs, claim, Ok(value("1"))).await, Settled::Done);
    assert_eq!(ended(&jobs, "a").await.status, JobStatus::Completed);
    assert_eq!(jobs.retry(&id("a")).await.unwrap_err().kind(), JobServiceErrorKind::Conflict);
}

pub(crate) async fn a_cancelled_job_starts_a_new_life_from_its_result(stage: &Stage) {
    let jobs = stage.service().await;
    jobs.enqueue(NewJob::new("k", json!({"to": 5})).job_id("a").queue("mail").priority(0)).await.unwrap();
    jobs.cancel(&id("a"), "no").await.unwrap();
    assert_eq!(jobs.retry(&id("a")).await.unwrap().queue.as_str(), "mail");
    let claimed = claim(&jobs, &queue("mail"), 1).await.pop().unwrap();
    let life = wire::decode(&claimed.body, &claimed.address).unwrap();
    assert_eq!((life.args.get(), life.priority.get(), life.run), (r#"{"to":5}"#, 0, 2));
    finish(&jobs, claimed, Ok(value("1"))).await;
    assert_eq!(ended(&jobs, "a").await.status, JobStatus::Completed);
}

pub(crate) async fn a_cancelled_job_that_hardly_fits_is_cancelled_all_the_same(stage: &Stage) {
    let jobs = stage.service_with(JobSettings { max_body: 2_000, ..JobSettings::default() }).await;
    jobs.enqueue(NewJob::new("k", json!(["x".repeat(1_600)])).job_id("a")).await.unwrap();
    jobs.cancel(&id("a"), "no").await.unwrap();
    assert_eq!(ended(&jobs, "a").await.job, None);
    assert_eq!(jobs.retry(&id("a")).await.unwrap_err().kind(), JobServiceErrorKind::Conflict);
}

pub(crate) async fn of_ten_retries_one_starts_a_life(stage: &Stage) {
    let jobs = stage.service().await;
    failed(&jobs, "a").await;
    let mut retrying = JoinSet::new();
    for _ in 0..10 {
        let jobs = jobs.clone();
        retrying.spawn(async move { jobs.retry(&id("a")).await });
    }
    let mut lives = 0;
    for outcome in retrying.join_all().await {
        match outcome {
            Ok(receipt) => lives += usize::from(!receipt.duplicate),
            Err(error) => assert_eq!(error.kind(), JobServiceErrorKind::Conflict),
        }
    }
    assert_eq!(lives, 1);
    assert_eq!(claim(&jobs, &queue("default"), 5).await.len(), 1);
}

pub(crate) async fn only_what_waits_is_rescheduled(stage: &Stage) {
    let jobs = stage.service().await;
    let time = jobs.storage().now().await.unwrap().saturating_add(secs(500));
    jobs.enqueue(job("a").delay(secs(60))).await.unwrap();
    assert_eq!(jobs.reschedule(&id("a"), time).await.unwrap().status, JobStatus::Scheduled);
    let seen = jobs.status(&id("a")).await.unwrap();
    assert_eq!((seen.status, seen.run_at), (JobStatus::Scheduled, Some(time)));
    let entry = jobs.storage().get_scheduled(&[id("a")]).await.unwrap().pop().unwrap().unwrap();
    assert_eq!(wire::decode(&entry.body, &entry.address).unwrap().run_at, Some(time), "the body says the same");
    jobs.enqueue(job("b")).await.unwrap();
    assert_eq!(jobs.reschedule(&id("b"), time).await.unwrap_err().kind(), JobServiceErrorKind::Conflict);
    assert_eq!(jobs.reschedule(&id("none"), time).await.unwrap_err().kind(), JobServiceErrorKind::NotFound);
}
