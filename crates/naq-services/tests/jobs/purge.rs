use naq_models::{Address, JobStatus, error_type};
use naq_services::{
    jobs::ResultState,
    new_job::secs,
    storage::{Enqueued, Entry},
};

use super::*;

/// A job that lies in its queue as bytes that are none.
async fn garbage(jobs: &JobService, name: &str) {
    let stored_at = jobs.storage().now().await.unwrap();
    let address = Address { id: id(name), queue: QueueName::default(), priority: Priority::default(), stored_at };
    let body = bytes::Bytes::from_static(b"\xff not a job");
    let entry =
        Entry { address, status: JobStatus::Pending, run_at: None, kind: String::new(), run: 1, generation: 0, body };
    assert_eq!(jobs.storage().enqueue(vec![entry]).await.pop().unwrap().unwrap(), Enqueued::Stored);
}

pub(crate) async fn cancels_what_is_pending_and_nothing_else(stage: &Stage) {
    let jobs = stage.service().await;
    jobs.enqueue(job("running")).await.unwrap();
    let running = claim_one(&jobs).await;
    jobs.enqueue(job("later").delay(secs(60))).await.unwrap();
    jobs.enqueue(job("elsewhere").queue("other")).await.unwrap();
    // More than one batch of one priority.
    let new = (0..1_500u32).map(|n| job(&format!("p{n}")).priority(if n < 900 { 2 } else { (n % 4) as u8 })).collect();
    for outcome in jobs.enqueue_many(new).await {
        outcome.unwrap();
    }
    assert_eq!(jobs.purge_queue(&QueueName::default()).await.unwrap(), 1_500);
    assert_eq!(jobs.purge_queue(&QueueName::default()).await.unwrap(), 0);
    for name in ["p0", "p1499"] {
        let ResultState::Ended(result) = jobs.result(&id(name)).await.unwrap() else { panic!("{name} goes on") };
        assert_eq!(
            (result.status, result.error.unwrap().error_type.as_str()),
            (JobStatus::Cancelled, error_type::PURGED)
        );
    }
    let report = jobs.queue(&QueueName::default()).await.unwrap();
    assert_eq!((report.pending, report.running, report.scheduled), (0, 1, 1));
    assert_eq!(jobs.queue(&queue("other")).await.unwrap().pending, 1);
    assert_eq!(finish(&jobs, running, Ok(value("1"))).await, Settled::Done, "its lease was not touched");
    jobs.retry(&id("p7")).await.unwrap();
    assert_eq!(jobs.status(&id("p7")).await.unwrap().status, JobStatus::Pending);
}

pub(crate) async fn a_paused_queue_can_be_purged(stage: &Stage) {
    let jobs = stage.service().await;
    jobs.enqueue(job("a")).await.unwrap();
    jobs.pause(&QueueName::default()).await.unwrap();
    assert_eq!(jobs.purge_queue(&QueueName::default()).await.unwrap(), 1);
}

pub(crate) async fn garbage_becomes_a_dead_letter_byte_for_byte(stage: &Stage) {
    let jobs = stage.service().await;
    garbage(&jobs, "bad").await;
    assert_eq!(jobs.status(&id("bad")).await.unwrap().error.unwrap().error_type, error_type::DECODE);
    jobs.purge_queue(&QueueName::default()).await.unwrap();
    let letter = jobs.dead_show(&id("bad")).await.unwrap();
    assert_eq!((letter.body.as_ref(), letter.error.error_type.as_str()), (&b"\xff not a job"[..], error_type::DECODE));
    assert_eq!(jobs.status(&id("bad")).await.unwrap().status, JobStatus::Failed);
}

pub(crate) async fn a_producer_that_goes_on_does_not_keep_the_purge_from_ending(stage: &Stage) {
    let jobs = stage.service().await;
    for n in 0..50 {
        jobs.enqueue(job(&format!("first{n}"))).await.unwrap();
    }
    let producer = jobs.clone();
    let mut producing = tokio::task::JoinSet::new();
    producing.spawn(async move {
        for n in 0.. {
            producer.enqueue(job(&format!("more{n}"))).await.unwrap();
        }
    });
    let purged = tokio::time::timeout(LONG, jobs.purge_queue(&QueueName::default())).await.unwrap().unwrap();
    assert!(purged >= 50, "{purged}");
    producing.shutdown().await;
}
