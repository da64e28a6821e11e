use std::collections::BTreeSet;

use naq_models::JobStatus;
use naq_services::{jobs::JobFilter, new_job::secs};

use super::*;

async fn all(jobs: &JobService, filter: JobFilter) -> Vec<(String, JobStatus)> {
    let (mut filter, mut seen) = (filter, Vec::new());
    for _ in 0..1_000 {
        let page = jobs.list(&filter).await.unwrap();
        assert!(page.jobs.len() <= filter.limit);
        assert!(page.unreadable.is_empty());
        seen.extend(page.jobs.into_iter().map(|view| (view.job_id.to_string(), view.status)));
        filter.cursor = page.next;
        if filter.cursor.is_none() {
            seen.sort();
            return seen;
        }
    }
    panic!("the list has no end");
}

pub(crate) async fn pages_hold_each_job_once(stage: &Stage) {
    let jobs = stage.service().await;
    failed(&jobs, "dead").await;
    jobs.enqueue(job("done")).await.unwrap();
    finish(&jobs, claim_one(&jobs).await, Ok(value("1"))).await;
    jobs.enqueue(job("later").delay(secs(60))).await.unwrap();
    let mut expected = vec![
        ("dead".to_owned(), JobStatus::Failed),
        ("done".to_owned(), JobStatus::Completed),
        ("later".to_owned(), JobStatus::Scheduled),
    ];
    for n in 0..17 {
        jobs.enqueue(job(&format!("p{n}"))).await.unwrap();
        expected.push((format!("p{n}"), JobStatus::Pending));
    }
    expected.sort();
    for limit in [1, 3, 100] {
        assert_eq!(all(&jobs, JobFilter { limit, ..JobFilter::default() }).await, expected, "pages of {limit}");
    }
    for status in [JobStatus::Failed, JobStatus::Completed, JobStatus::Scheduled, JobStatus::Pending] {
        let filter = JobFilter { statuses: vec![status], limit: 4, ..JobFilter::default() };
        let only: Vec<_> = expected.iter().filter(|(_, s)| *s == status).cloned().collect();
        assert_eq!(all(&jobs, filter).await, only, "{status}");
    }
}

pub(crate) async fn filters_by_kind_and_queue(stage: &Stage) {
    let jobs = stage.service().await;
    let kinds = |n: usize| if n.is_multiple_of(10) { "rare" } else { "usual" };
    let new = (0..100).map(|n| NewJob::new(kinds(n), json!({})).job_id(format!("j{n}")).queue("mail")).collect();
    for outcome in jobs.enqueue_many(new).await {
        outcome.unwrap();
    }
    jobs.enqueue(NewJob::new("rare", json!({})).job_id("elsewhere")).await.unwrap();
    let filter = JobFilter { kind: Some("rare".into()), queue: Some(queue("mail")), limit: 3, ..JobFilter::default() };
    let found: BTreeSet<_> = all(&jobs, filter).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(found, (0..10).map(|n| format!("j{}", n * 10)).collect());
}

pub(crate) async fn a_retried_job_is_listed_as_it_stands(stage: &Stage) {
    let jobs = stage.service().await;
    failed(&jobs, "a").await;
    jobs.retry(&id("a")).await.unwrap();
    assert_eq!(all(&jobs, JobFilter::default()).await, [("a".to_owned(), JobStatus::Pending)]);
}

pub(crate) async fn queues_are_counted_and_paused(stage: &Stage) {
    let jobs = stage.service().await;
    jobs.enqueue(job("a").queue("mail").priority(0)).await.unwrap();
    jobs.enqueue(job("b").queue("mail")).await.unwrap();
    jobs.enqueue(job("c").queue("mail").delay(secs(60))).await.unwrap();
    assert!(jobs.pause(&queue("mail")).await.unwrap());
    assert!(!jobs.pause(&queue("mail")).await.unwrap(), "it was paused before");
    assert!(jobs.pause(&queue("never-used")).await.unwrap());
    let reports = jobs.queues().await.unwrap();
    let names: Vec<_> = reports.iter().map(|report| (report.queue.as_str(), report.paused)).collect();
    assert_eq!(names, [("mail", true), ("never-used", true)]);
    assert_eq!((reports[0].pending, reports[0].pending_by_priority, reports[0].scheduled), (2, [1, 0, 1, 0], 1));
    assert!(reports[0].oldest_pending.is_some());
    assert!(jobs.resume(&queue("mail")).await.unwrap());
    assert!(!jobs.resume(&queue("mail")).await.unwrap());
    assert!(!jobs.is_paused(&queue("mail")).await.unwrap());
    assert!(!jobs.queue(&queue("mail")).await.unwrap().paused);
}
