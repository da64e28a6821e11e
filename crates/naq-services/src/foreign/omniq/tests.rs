//! What each shape of a task becomes. The samples are written by Python (`samples/make.py`).

use naq_models::Job;

use super::*;
use crate::foreign::{
    mapping::Recurring,
    samples::{DUE, at, built, sample},
};

fn read(sample: &[u8], now: i64) -> Result<Incoming, Left> {
    let told = Some("told by its result".to_owned());
    task(serde_json::from_slice(sample).unwrap(), told, &Kinds::new(), at(now))
}

fn job_of(sample: &[u8]) -> Job {
    match read(sample, DUE).unwrap() {
        Incoming::Job(job) => built(*job),
        other => panic!("a job, not {other:?}"),
    }
}

fn recurring_of(sample: &[u8], now: i64) -> Recurring {
    match read(sample, now).unwrap() {
        Incoming::Recurring(recurring) => *recurring,
        other => panic!("a recurring job, not {other:?}"),
    }
}

#[test]
fn a_task_keeps_what_it_is() {
    let job = job_of(sample!("task.json"));
    assert_eq!((job.id.as_str(), job.kind.as_str()), ("0f9f3a5e-6a0a-4a57-9d3c-0a1b2c3d4e5f", "mails.send_mail"));
    assert_eq!((job.args.get(), job.run_at, job.retry.max_retries), (r#"["a@b.c"]"#, None, 3));
    assert_eq!(
        (job.retry.delay_before(3, 0.5), job.timeout),
        (Duration::from_secs(4), naq_models::job::DEFAULT_TIMEOUT)
    );
}

#[test]
fn a_retry_waits_on_and_has_fewer_left() {
    let job = job_of(sample!("task_retried.json"));
    assert_eq!((job.run_at, job.retry.max_retries, job.timeout), (Some(at(DUE)), 1, Duration::from_secs(30)));
    assert_eq!(job_of(sample!("task_naive_eta.json")).run_at, Some(at(DUE)), "a time without a zone is UTC");
}

#[test]
fn interval_tasks_become_schedules() {
    let plain = recurring_of(sample!("task_interval.json"), DUE);
    assert_eq!(plain.schedule, Some(Schedule::every(Duration::from_secs(60)).start(at(DUE))));
    assert!(plain.overdue.is_some(), "without a time, its first run is due at once");
    let iso = recurring_of(sample!("task_interval_iso.json"), DUE - 1);
    assert_eq!(iso.schedule, Some(Schedule::every(Duration::from_millis(86_401_500)).start(at(DUE))));
    assert!(iso.overdue.is_none());
}

#[test]
fn failed_tasks_keep_their_error() {
    let Incoming::Failed(job, error) = read(sample!("task_failed.json"), DUE + 5).unwrap() else {
        panic!("a failed job");
    };
    assert_eq!((error.message.as_str(), error.timestamp), ("boom", at(DUE)), "its own record wins");
    assert_eq!(built(*job).retry.max_retries, 3, "a new life has all of them");
    assert_eq!(read(sample!("task_running.json"), DUE).unwrap_err().reason, LeftReason::Running);
}

#[test]
fn intervals_and_times_that_are_none() {
    let with = |from: &str, to: &str| {
        let text = String::from_utf8(sample!("task_interval_iso.json").to_vec()).unwrap();
        assert!(text.contains(from), "{text}");
        read(text.replace(from, to).as_bytes(), DUE).unwrap_err().reason
    };
    for interval in ["1D", "P1M", "P-1D", "P1DT1H", "PTS"] {
        assert_eq!(with("P1DT1.5S", interval), LeftReason::NotAJob, "{interval}");
    }
    assert_eq!(with("2026-11-22T10:00:00.25Z", "soon"), LeftReason::NotAJob);
}
