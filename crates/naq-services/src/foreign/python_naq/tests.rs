//! What each shape of a payload becomes. The samples are written by Python (`samples/make.py`).

use std::time::Duration;

use naq_models::{Job, JobId};

use super::*;
use crate::foreign::{
    mapping::Recurring,
    samples::{DUE, at, built, sample},
};

fn job_of(read: Result<Incoming, Left>) -> Job {
    match read.unwrap() {
        Incoming::Job(job) => built(*job),
        other => panic!("a job, not {other:?}"),
    }
}

fn recurring_of(read: Result<Incoming, Left>) -> Recurring {
    match read.unwrap() {
        Incoming::Recurring(recurring) => *recurring,
        other => panic!("a recurring job, not {other:?}"),
    }
}

fn reason(read: Result<Incoming, Left>) -> LeftReason {
    read.unwrap_err().reason
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_job_keeps_what_it_is() {
    for payload in [sample!("job.json"), sample!("wrapped_sha256.json"), sample!("wrapped_sha512.json")] {
        let job = job_of(queued(payload, &Kinds::new(), &BTreeSet::new()));
        assert_eq!((job.id.as_str(), job.queue.as_str()), ("4f1c9a3be25b4b0c8f6f5d1a2b3c4d5e", "mail"));
        assert_eq!((job.kind.as_str(), job.args.get()), ("mails:send_mail", r#"["a@b.c", 1.1]"#));
        assert_eq!((job.retry.max_retries, job.retry.strategy), (2, RetryStrategy::Fixed), "their linear is constant");
        assert_eq!((job.retry.delay, job.run_at), (vec![secs(5)], None));
        assert_eq!(
            (job.timeout, job.result_ttl),
            (naq_models::job::DEFAULT_TIMEOUT, naq_models::job::DEFAULT_RESULT_TTL)
        );
    }
}

#[test]
fn every_option_is_mapped() {
    let kinds = Kinds::from([("mails:Sender.send".to_owned(), "send_mail".to_owned())]);
    let job = job_of(queued(sample!("every_option.json"), &kinds, &BTreeSet::new()));
    assert_eq!((job.id.as_str(), job.kind.as_str()), ("full_2e1", "send_mail"), "ids of naq have no dots");
    assert_eq!(job.queue.as_str(), "standard");
    assert_eq!(job.args.get(), r#"{"to": "\u00fc", "n": 12345678901234567890}"#, "no number is changed");
    assert_eq!(job.retry.strategy, RetryStrategy::Exponential);
    assert_eq!(job.retry.delay, [secs(1), secs(5), Duration::from_millis(25_500)]);
    assert_eq!(job.retry.retry_on, ["OSError", "SMTPException"]);
    assert_eq!((job.retry.max_retries, job.retry.ignore_on), (0, vec!["ValueError".to_owned()]));
    assert_eq!((job.result_ttl, job.timeout), (secs(60), Duration::from_millis(30_500)));
    let depends_on: Vec<_> = job.depends_on.iter().map(JobId::as_str).collect();
    assert_eq!(depends_on, ["4f1c9a3be25b4b0c8f6f5d1a2b3c4d5e", "x_2ey"], "as their own ids would be");

    assert_eq!(dependencies(sample!("every_option.json")), ["4f1c9a3be25b4b0c8f6f5d1a2b3c4d5e", "x.y"]);
    let completed = BTreeSet::from(["4f1c9a3be25b4b0c8f6f5d1a2b3c4d5e".to_owned(), "other".to_owned()]);
    let job = job_of(queued(sample!("every_option.json"), &kinds, &completed));
    assert_eq!(job.depends_on, [JobId::new("x_2ey").unwrap()], "nobody here knows of one that has completed there");
}

#[test]
fn what_is_not_mapped_without_loss_is_left() {
    let queued = |payload: &[u8]| reason(queued(payload, &Kinds::new(), &BTreeSet::new()));
    let table: [(&[u8], LeftReason); 9] = [
        (sample!("job.pickle"), LeftReason::NotJson),
        (b"\x8a\xa6job_id\xa1x", LeftReason::NotJson),
        (b"", LeftReason::NotJson),
        (b"[1, 2]", LeftReason::NotAJob),
        (br#"{"v":1,"kind":"k","args":{}}"#, LeftReason::NotAJob),
        (br#"{"job_id":"a","function":"f","args":{},"kwargs":{}}"#, LeftReason::NotAJob),
        (sample!("both_kinds_of_args.json"), LeftReason::ArgsOfBothKinds),
        (sample!("wrapped_damaged.json"), LeftReason::Damaged),
        (sample!("wrapped_md5.json"), LeftReason::Damaged),
    ];
    for (payload, expected) in table {
        assert_eq!(queued(payload), expected, "{}", String::from_utf8_lossy(payload));
    }
}

#[test]
fn records_of_the_scheduler() {
    let scheduled = |record: &[u8], now| scheduled(record, &Kinds::new(), at(now));
    for record in [sample!("delayed.pickle"), sample!("delayed_status_as_text.pickle")] {
        // Also if it is overdue: it runs at once then.
        for now in [DUE - 1, DUE + 1] {
            let job = job_of(scheduled(record, now));
            assert_eq!((job.id.as_str(), job.run_at), ("4f1c9a3be25b4b0c8f6f5d1a2b3c4d5e", Some(at(DUE))));
        }
    }
    let table: [(&[u8], LeftReason); 6] = [
        (sample!("delayed_paused.pickle"), LeftReason::Paused),
        (sample!("delayed_completed.pickle"), LeftReason::Ended),
        (sample!("delayed_pickled_job.pickle"), LeftReason::NotJson),
        (sample!("job.json"), LeftReason::NotAJob),
        (sample!("job.pickle"), LeftReason::NotAJob),
        (&sample!("delayed.pickle")[..100], LeftReason::NotAJob),
    ];
    for (record, expected) in table {
        assert_eq!(reason(scheduled(record, DUE)), expected, "{}", String::from_utf8_lossy(record));
    }
}

#[test]
fn recurring_jobs_go_on_where_they_are() {
    let scheduled = |record: &[u8], now| recurring_of(scheduled(record, &Kinds::new(), at(now)));
    let early = scheduled(sample!("interval.pickle"), DUE - 1);
    assert_eq!(early.schedule, Some(Schedule::every(secs(60)).start(at(DUE)).repeat(3)));
    assert_eq!((early.id.as_str(), early.paused), ("4f1c9a3be25b4b0c8f6f5d1a2b3c4d5e", false));
    assert!(early.overdue.is_none());
    assert_eq!(built(early.job).args.get(), r#"["a@b.c", 1.1]"#);

    let late = scheduled(sample!("interval.pickle"), DUE);
    assert_eq!(late.schedule, Some(Schedule::every(secs(60)).start(at(DUE)).repeat(2)), "one of three is overdue");
    assert_eq!(late.overdue.and_then(|run| run.chosen_id().cloned()), Some(late.id.run_id(at(DUE))));

    let last = scheduled(sample!("interval_last_run.pickle"), DUE);
    assert!(last.schedule.is_none() && last.overdue.is_some());

    let paused = scheduled(sample!("interval_paused.pickle"), DUE + 1);
    assert!(paused.paused && paused.overdue.is_none(), "what is paused makes up for nothing");

    let cron = |record| scheduled(record, DUE - 1).schedule;
    assert_eq!(cron(sample!("cron.pickle")), Some(Schedule::cron("*/5 * * * *").start(at(DUE))));
    let seconds_first = Schedule::cron("30 0 3 * * *").start(at(DUE));
    assert_eq!(cron(sample!("cron_with_seconds.pickle")), Some(seconds_first), "they write the seconds last");
}

#[test]
fn failed_jobs_are_read_as_far_as_they_were_kept() {
    let kinds = Kinds::from([("send_mail".to_owned(), "mails.send".to_owned())]);
    let Incoming::Failed(job, error) = failed(sample!("failed.json"), &kinds, at(DUE)).unwrap() else {
        panic!("a failed job");
    };
    let job = built(*job);
    assert_eq!((job.id.as_str(), job.kind.as_str(), job.queue.as_str()), ("f1", "mails.send", "mail"));
    assert_eq!((job.args.get(), job.retry.max_retries), (r#"["a@b.c",1.1,null]"#, 1));
    assert_eq!((error.message.as_str(), error.timestamp), ("boom", at(DUE)));
    assert!(error.backtrace.is_some());
    assert_eq!(reason(failed(sample!("failed_object.json"), &kinds, at(DUE))), LeftReason::ArgsNotKept);
    assert_eq!(reason(failed(sample!("job.json"), &kinds, at(DUE))), LeftReason::NotAJob);
}
