use naq_models::{JobStatus, error_type};
use naq_services::{
    JobContext, JobHandle, JobServiceErrorKind, ResultErrorKind,
    context::States,
    jobs::{PARENT_ID, ResultState},
    new_job::secs,
};

use super::*;

pub(crate) async fn a_waiting_handle_gets_the_value(stage: &Stage) {
    let jobs = stage.service().await;
    let handle = jobs.enqueue(job("a").returning::<u32>()).await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    let waiter = handle.clone();
    waiting.spawn(async move { waiter.result_within(LONG).await });
    let state = jobs.result(&id("a")).await.unwrap();
    assert!(matches!(state, ResultState::Unfinished(view) if view.status == JobStatus::Pending));
    finish(&jobs, claim_one(&jobs).await, Ok(value("42"))).await;
    assert_eq!(waiting.join_next().await.unwrap().unwrap().unwrap(), 42);
    assert_eq!(handle.status().await.unwrap().status, JobStatus::Completed);
    assert!(
        matches!(jobs.result(&id("a")).await.unwrap(), ResultState::Ended(result) if result.result == Some(value("42")))
    );
    // Through its id alone, as any process could.
    let found: JobHandle<u32> = JobHandle::new(jobs.clone(), id("a"));
    assert_eq!(found.result_within(LONG).await.unwrap(), 42);
    let text: JobHandle<String> = JobHandle::new(jobs.clone(), id("a"));
    assert_eq!(text.result_within(LONG).await.unwrap_err().kind(), ResultErrorKind::WrongType);
}

pub(crate) async fn a_failure_and_a_cancellation_are_typed(stage: &Stage) {
    let jobs = stage.service().await;
    let handle = jobs.enqueue(job("a")).await.unwrap();
    finish(&jobs, claim_one(&jobs).await, Err(failure())).await;
    let error = handle.result_within(LONG).await.unwrap_err();
    assert_eq!((error.kind(), error.job_error().unwrap().error_type.as_str()), (ResultErrorKind::Failed, "net"));

    let handle = jobs.enqueue(job("b")).await.unwrap();
    handle.cancel().await.unwrap();
    let error = handle.result_within(LONG).await.unwrap_err();
    assert_eq!(error.kind(), ResultErrorKind::Cancelled);
    assert_eq!(error.job_error().unwrap().error_type, error_type::CANCELLED);
}

pub(crate) async fn waiting_ends(stage: &Stage) {
    let jobs = stage.service().await;
    let handle = jobs.enqueue(job("a")).await.unwrap();
    let timed_out = ResultErrorKind::Service(JobServiceErrorKind::TimedOut);
    assert_eq!(handle.result_within(Duration::from_millis(30)).await.unwrap_err().kind(), timed_out);
    assert_eq!(jobs.wait_for(&id("none"), LONG).await.unwrap_err().kind(), JobServiceErrorKind::NotFound);
    assert_eq!(jobs.result(&id("none")).await.unwrap_err().kind(), JobServiceErrorKind::NotFound);
}

pub(crate) async fn a_job_without_a_result_cannot_be_waited_for(stage: &Stage) {
    let jobs = stage.service().await;
    let none = JobServiceErrorKind::NoResultKept;
    for new in [job("a").result_ttl(secs(0)), job("b").result_ttl(secs(0)).delay(secs(60))] {
        let handle = jobs.enqueue(new).await.unwrap();
        assert_eq!(handle.result_within(LONG).await.unwrap_err().kind(), ResultErrorKind::Service(none));
        assert_eq!(jobs.wait_for(handle.id(), LONG).await.unwrap_err().kind(), none);
        assert_eq!(jobs.result(handle.id()).await.unwrap_err().kind(), none);
    }
    finish(&jobs, claim_one(&jobs).await, Err(failure())).await;
    assert_eq!(jobs.result(&id("a")).await.unwrap_err().kind(), none, "its dead letter says so");
}

pub(crate) async fn a_retried_job_is_unfinished_again(stage: &Stage) {
    let jobs = stage.service().await;
    failed(&jobs, "a").await;
    jobs.retry(&id("a")).await.unwrap();
    assert!(matches!(jobs.result(&id("a")).await.unwrap(), ResultState::Unfinished(_)));
    let short = Duration::from_millis(30);
    assert_eq!(jobs.wait_for(&id("a"), short).await.unwrap_err().kind(), JobServiceErrorKind::TimedOut);
    finish(&jobs, claim_one(&jobs).await, Ok(value("1"))).await;
    assert_eq!(jobs.wait_for(&id("a"), LONG).await.unwrap().status, JobStatus::Completed);
}

pub(crate) async fn a_child_names_its_parent_and_goes_to_its_store(stage: &Stage) {
    let jobs = stage.service().await;
    jobs.enqueue(job("parent")).await.unwrap();
    let claim = claim_one(&jobs).await;
    let parent = Arc::new(wire::decode(&claim.body, &claim.address).unwrap());
    let mut states = States::default();
    let mut settings = JobSettings::default();
    settings.defaults.queue = queue("children");
    states.insert(JobService::new(jobs.storage().clone(), settings));
    for (states, expected) in [(States::default(), "default"), (states, "children")] {
        let token = naq_services::CancellationToken::new();
        let storage = jobs.storage().clone();
        let cx = JobContext::new(Arc::clone(&parent), "w1".into(), token, storage, Arc::new(states));
        let child = cx.enqueue(NewJob::new("child", json!({}))).await.unwrap();
        assert_eq!(child.receipt().unwrap().queue.as_str(), expected);
        let claim = super::claim(&jobs, &queue(expected), 1).await.pop().unwrap();
        let child = wire::decode(&claim.body, &claim.address).unwrap();
        assert_eq!(child.meta[PARENT_ID].get(), "\"parent\"");
    }
}
