//! Dead letters: list, show, run again, delete.

use naq_models::{JobStatus, error_type};
use naq_services::{JobServiceErrorKind, jobs::DeadLetterView};

use super::*;

pub(crate) async fn lists_and_shows(stage: &Stage) {
    let jobs = stage.service().await;
    for name in ["a", "b", "c"] {
        failed(&jobs, name).await;
    }
    let (mut names, mut cursor) = (Vec::new(), None);
    loop {
        let page = jobs.dead_list(None, 2, cursor).await.unwrap();
        for letter in &page.letters {
            let view = DeadLetterView::from(letter);
            assert_eq!((view.kind.as_deref(), view.attempt, view.size), (Some("k"), Some(1), letter.body.len()));
            names.push(view.job_id.to_string());
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(jobs.dead_list(Some(&queue("other")), 10, None).await.unwrap().letters.is_empty());
    let letter = jobs.dead_show(&id("a")).await.unwrap();
    assert_eq!(wire::decode(&letter.body, &letter.address).unwrap().kind, "k");
    assert_eq!(letter.error.error_type, "net");
}

pub(crate) async fn retries_one_and_all(stage: &Stage) {
    let jobs = stage.service().await;
    for name in ["a", "b", "c"] {
        failed(&jobs, name).await;
    }
    assert_eq!(jobs.dead_retry(&id("a")).await.unwrap().status, JobStatus::Pending);
    assert_eq!(jobs.dead_retry(&id("a")).await.unwrap_err().kind(), JobServiceErrorKind::NotFound);
    let report = jobs.dead_retry_all(None).await.unwrap();
    assert_eq!((report.retried, report.refused), (2, 0));
    assert_eq!(jobs.queue(&QueueName::default()).await.unwrap().pending, 3);
    assert_eq!(jobs.queue(&QueueName::default()).await.unwrap().failed, 0);
}

pub(crate) async fn what_cannot_be_read_stays_and_is_reported(stage: &Stage) {
    let jobs = stage.service().await;
    failed(&jobs, "good").await;
    jobs.enqueue(job("bad")).await.unwrap();
    let claim = claim_one(&jobs).await;
    let error = JobError::new(error_type::DECODE, "garbage", naq_models::Timestamp::EPOCH);
    let body = bytes::Bytes::from_static(b"\xff");
    let dead_letter = Some(DeadLetter { address: claim.address.clone(), body, error, kind: None });
    let action = Action::End { result: None, dead_letter, unique_key: None };
    let Claim { lease, address, .. } = claim;
    let settlement = Settlement { lease, address, action, fenced: false, clear_scheduled: false };
    jobs.storage().settle(vec![settlement]).await.pop().unwrap().unwrap();

    let report = jobs.dead_retry_all(None).await.unwrap();
    assert_eq!((report.retried, report.refused), (1, 1));
    assert_eq!(report.examples[0].0, id("bad"));
    assert_eq!(report.examples[0].1.kind(), JobServiceErrorKind::Undecodable);
    assert_eq!(jobs.dead_show(&id("bad")).await.unwrap().body.as_ref(), b"\xff");
}

pub(crate) async fn purges_one_and_all(stage: &Stage) {
    let jobs = stage.service().await;
    for name in ["a", "b", "c"] {
        failed(&jobs, name).await;
    }
    jobs.dead_purge(&id("a")).await.unwrap();
    assert_eq!(jobs.dead_purge(&id("a")).await.unwrap_err().kind(), JobServiceErrorKind::NotFound);
    assert_eq!(jobs.dead_purge_all(None).await.unwrap(), 2);
    assert_eq!(jobs.status(&id("b")).await.unwrap().status, JobStatus::Failed, "its result is kept");
    let gone = jobs.retry(&id("b")).await.unwrap_err();
    assert_eq!(gone.kind(), JobServiceErrorKind::Conflict, "but not what to start it from");
}
