//! Time as a test moves it: delays, retries, recurring jobs, what is kept for a while. No test here sleeps.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use naq_models::{JobStatus, Missed, Overlap, Schedule, ScheduleStatus, Timestamp, error_type};
use naq_services::{
    Failure, JobContext, NewJob, Outcome, ServiceManager, State,
    new_job::secs,
    storage::{Bucket, KvChange, VirtualClock},
};
use naq_testing::{DrainError, TestStore, assert_enqueued, refute_enqueued};
use naq_worker::{SchedulerOptions, Shutdown, Worker, WorkerBuilder, WorkerOptions};
use serde_json::json;

const HOUR: u64 = 3600;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

async fn store_at(start: &str) -> TestStore {
    TestStore::starting_at(at(start)).await.unwrap()
}

/// Who ran when, by the store's clock.
#[derive(Debug, Clone)]
struct Diary {
    clock: VirtualClock,
    entries: Arc<Mutex<Vec<(String, Timestamp)>>>,
}

impl Diary {
    fn of(store: &TestStore) -> Self {
        Self { clock: store.clock().clone(), entries: Arc::default() }
    }

    fn note(&self, what: impl ToString) {
        self.entries.lock().unwrap().push((what.to_string(), self.clock.now()));
    }

    fn times(&self) -> Vec<String> {
        self.entries.lock().unwrap().iter().map(|(_, time)| time.to_string()).collect()
    }

    fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }

    /// A handler `note` that notes the id of its job.
    fn handler(&self) -> impl FnMut(WorkerBuilder) -> WorkerBuilder {
        let diary = self.clone();
        move |worker| {
            let note = |cx: JobContext, diary: State<Diary>| async move { diary.note(cx.id()) };
            worker.state(diary.clone()).handler("note", note)
        }
    }
}

fn note() -> NewJob {
    NewJob::new("note", json!({}))
}

#[tokio::test]
async fn a_delayed_job_runs_when_its_time_has_come_and_not_before() {
    let store = store_at("2026-11-22T10:00:00Z").await;
    let diary = Diary::of(&store);
    let job = store.jobs().enqueue(note().delay(secs(HOUR))).await.unwrap();
    assert_eq!(job.receipt().unwrap().status, JobStatus::Scheduled);
    assert_eq!(store.drain(diary.handler()).await.unwrap().completed, 0);
    store.clock().advance(secs(HOUR) - Duration::from_millis(1));
    assert_eq!(store.drain(diary.handler()).await.unwrap().completed, 0);
    assert_enqueued!(store, "note");
    store.clock().advance(Duration::from_millis(1));
    assert_eq!(store.drain(diary.handler()).await.unwrap().completed, 1);

    let result = store.jobs().wait_for(job.id(), secs(5)).await.unwrap();
    assert_eq!(result.enqueued_at, at("2026-11-22T10:00:00Z"));
    for time in [result.run_at, result.started_at, Some(result.finished_at)] {
        assert_eq!(time, Some(at("2026-11-22T11:00:00Z")));
    }
    assert_eq!(store.clock().now(), at("2026-11-22T11:00:00Z"), "draining takes no time");
}

#[tokio::test]
async fn retries_wait_for_their_time() {
    let store = store_at("2026-11-22T10:00:00Z").await;
    let diary = Diary::of(&store);
    let delays = [1, 5, 25].map(secs);
    let flaky = NewJob::new("flaky", json!({})).max_retries(3).retry_delays(delays).retry_jitter(0.0);
    store.jobs().enqueue(flaky.job_id("f")).await.unwrap();
    let setup = |worker: WorkerBuilder| {
        let flaky = |cx: JobContext, diary: State<Diary>| async move {
            diary.note(cx.attempt());
            Err::<(), _>(Failure::new("net", "down"))
        };
        worker.state(diary.clone()).handler("flaky", flaky)
    };
    let counts = store.drain(setup).await.unwrap();
    assert_eq!((counts.retried, counts.failed), (1, 0));
    assert_eq!(store.drain(setup).await.unwrap().retried, 0, "its time has not come");
    let counts = store.drain_for(secs(30), setup).await.unwrap();
    assert_eq!((counts.retried, counts.failed), (2, 0));
    let counts = store.drain_for(secs(1), setup).await.unwrap();
    assert_eq!((counts.retried, counts.failed), (0, 1));
    let times = ["00", "01", "06", "31"].map(|seconds| format!("2026-11-22T10:00:{seconds}.000Z"));
    assert_eq!(diary.times(), times);
    let view = store.jobs().status(&"f".parse().unwrap()).await.unwrap();
    assert_eq!((view.status, view.finished_at), (JobStatus::Failed, Some(at("2026-11-22T10:00:31Z"))));
}

#[tokio::test]
async fn a_snoozed_job_runs_again_after_its_snooze() {
    let store = TestStore::memory().await.unwrap();
    let diary = Diary::of(&store);
    let began = store.clock().now();
    store.jobs().enqueue(NewJob::new("sleepy", json!({}))).await.unwrap();
    let counts = store
        .drain_for(secs(10 * HOUR), |worker| {
            let sleepy = |cx: JobContext, diary: State<Diary>| async move {
                diary.note(cx.attempt());
                if diary.len() < 3 { Outcome::Snooze(secs(4 * HOUR)) } else { Outcome::Complete(()) }
            };
            worker.state(diary.clone()).handler("sleepy", sleepy)
        })
        .await
        .unwrap();
    assert_eq!((counts.snoozed, counts.completed), (2, 1));
    let due = [0, 4, 8].map(|hours| began.saturating_add(secs(hours * HOUR)).to_string());
    assert_eq!(diary.times(), due);
    assert_eq!(store.clock().now(), began.saturating_add(secs(10 * HOUR)), "the span ends after its last job");
}

#[tokio::test]
async fn a_job_that_nobody_knows_fails_after_a_day() {
    let store = TestStore::memory().await.unwrap();
    let job = store.jobs().enqueue(NewJob::new("unheard_of", json!({}))).await.unwrap();
    let counts = store.drain_for(secs(23 * HOUR), |worker| worker).await.unwrap();
    assert_eq!((counts.failed, counts.snoozed > 5), (0, true), "{counts:?}");
    let counts = store.drain_for(secs(3 * HOUR), |worker| worker).await.unwrap();
    assert_eq!(counts.failed, 1, "{counts:?}");
    let view = store.jobs().status(job.id()).await.unwrap();
    assert_eq!(view.error.unwrap().error_type, error_type::UNKNOWN_KIND);
}

#[tokio::test]
async fn a_cron_job_runs_at_exactly_its_instants_also_when_clocks_change() {
    let store = store_at("2026-10-23T12:00:00Z").await;
    let diary = Diary::of(&store);
    // On the 25th, Berlin sets its clocks back.
    let nightly = Schedule::cron("0 3 * * *").tz("Europe/Berlin");
    store.scheduler().schedule(note().job_id("nightly"), nightly).await.unwrap();
    let counts = store.drain_for(secs(3 * 24 * HOUR), diary.handler()).await.unwrap();
    assert_eq!(counts.completed, 3);
    let instants = ["2026-10-24T01:00:00.000Z", "2026-10-25T02:00:00.000Z", "2026-10-26T02:00:00.000Z"];
    assert_eq!(diary.times(), instants);
    for instant in instants.map(at) {
        let run = format!("nightly_{}", instant.unix_millis()).parse().unwrap();
        let result = store.jobs().wait_for(&run, secs(5)).await.unwrap();
        assert_eq!(result.enqueued_at, instant);
        assert_eq!((result.started_at, result.finished_at), (Some(instant), instant));
    }
    assert_eq!(store.clock().now(), at("2026-10-26T12:00:00Z"));
}

#[tokio::test]
async fn what_was_missed_while_time_was_moved_at_once_falls_under_the_policy() {
    let store = store_at("2026-11-22T10:30:00Z").await;
    let diary = Diary::of(&store);
    for (id, missed) in [("skip", Missed::Skip), ("once", Missed::Once), ("all", Missed::All)] {
        let hourly = Schedule::cron("0 * * * *").missed(missed);
        store.scheduler().schedule(note().job_id(id), hourly).await.unwrap();
    }
    store.clock().advance_to(at("2026-11-22T15:30:00Z"));
    store.drain(diary.handler()).await.unwrap();
    let mut ran: Vec<_> =
        diary.entries.lock().unwrap().iter().map(|(id, _)| id.split_once('_').unwrap().0.to_owned()).collect();
    ran.sort();
    assert_eq!(ran, ["all", "all", "all", "all", "all", "once"]);
}

#[tokio::test]
async fn a_job_that_follows_its_last_run_waits_for_its_end() {
    let store = store_at("2026-11-22T10:00:00Z").await;
    let diary = Diary::of(&store);
    let chain = Schedule::after_completion(secs(60)).repeat(3);
    let id = store.scheduler().schedule(note().job_id("chain"), chain).await.unwrap().record.id;
    let setup = |worker: WorkerBuilder| {
        // Work that takes ten minutes.
        let note = |cx: JobContext, diary: State<Diary>| async move {
            diary.note(cx.id());
            diary.clock.advance(secs(600));
        };
        worker.state(diary.clone()).handler("note", note)
    };
    store.drain_for(secs(HOUR), setup).await.unwrap();
    assert_eq!(diary.times(), ["00", "11", "22"].map(|minute| format!("2026-11-22T10:{minute}:00.000Z")));
    assert_eq!(store.scheduler().get(&id).await.unwrap().status, ScheduleStatus::Completed);
}

#[tokio::test]
async fn with_overlap_skip_what_is_due_while_a_run_lives_is_left_out() {
    let store = TestStore::memory().await.unwrap();
    let diary = Diary::of(&store);
    let often = Schedule::every(secs(60)).overlap(Overlap::Skip);
    let id = store.scheduler().schedule(note().queue("slow").job_id("often"), often).await.unwrap().record.id;
    // Its first run does not come to an end for ten minutes.
    store.jobs().pause(&"slow".parse().unwrap()).await.unwrap();
    assert_eq!(store.drain_for(secs(600), diary.handler()).await.unwrap().completed, 0);
    let record = store.scheduler().get(&id).await.unwrap();
    assert_eq!((record.runs, record.skipped), (1, 9));
    store.jobs().resume(&"slow".parse().unwrap()).await.unwrap();
    assert_eq!(store.drain_for(secs(300), diary.handler()).await.unwrap().completed, 6);
}

#[tokio::test]
async fn a_schedule_that_is_paused_or_cancelled_does_not_fire() {
    let store = TestStore::memory().await.unwrap();
    let diary = Diary::of(&store);
    let hourly = Schedule::every(secs(HOUR));
    let id = store.scheduler().schedule(note().job_id("hourly"), hourly).await.unwrap().record.id;
    let half = secs(HOUR / 2);
    let mut completed = Vec::new();
    for change in ["none", "pause", "resume", "trigger", "cancel"] {
        match change {
            "pause" => drop(store.scheduler().pause(&id).await.unwrap()),
            "resume" => drop(store.scheduler().resume(&id).await.unwrap()),
            "trigger" => drop(store.scheduler().trigger(&id).await.unwrap()),
            "cancel" => drop(store.scheduler().cancel(&id).await.unwrap()),
            _ => {}
        }
        completed.push(store.drain_for(4 * half, diary.handler()).await.unwrap().completed);
    }
    assert_eq!(completed, [2, 0, 2, 3, 0]);
}

#[tokio::test]
async fn what_is_kept_for_a_while_is_gone_afterwards() {
    let store = TestStore::memory().await.unwrap();
    let diary = Diary::of(&store);
    let job = store.jobs().enqueue(note().job_id("a").result_ttl(secs(60))).await.unwrap();
    store.drain(diary.handler()).await.unwrap();
    let storage = store.storage();
    storage.kv_create(Bucket::Unique, "k", "v".into(), Some(secs(60))).await.unwrap();

    store.clock().advance(secs(60) - Duration::from_millis(1));
    assert!(storage.get_result(job.id()).await.unwrap().is_some());
    assert!(storage.kv_create(Bucket::Unique, "k", "w".into(), None).await.is_err());
    assert!(store.jobs().enqueue(note().job_id("a")).await.unwrap().receipt().unwrap().duplicate);
    store.clock().advance(Duration::from_millis(1));
    assert!(storage.get_result(job.id()).await.unwrap().is_none());
    storage.kv_create(Bucket::Unique, "k", "w".into(), None).await.unwrap();
    assert!(!store.jobs().enqueue(note().job_id("a")).await.unwrap().receipt().unwrap().duplicate);
}

#[tokio::test]
async fn who_waits_for_a_time_is_woken_when_it_is_moved() {
    let store = TestStore::memory().await.unwrap();
    let storage = store.storage();
    storage.kv_create(Bucket::Unique, "k", "v".into(), Some(secs(HOUR))).await.unwrap();
    let mut watch = storage.kv_watch(Bucket::Unique, "").await.unwrap();
    while watch.next().await != KvChange::Current {}
    let mut feed = storage.open_due_feed().await.unwrap();
    assert!(feed.due(store.clock().now(), 1).await.unwrap().is_empty());
    // In this order: both wait when the time is moved.
    let woken = async { tokio::join!(watch.next(), feed.changed(), async { store.clock().advance(secs(HOUR)) }) };
    let (told, (), _) = tokio::time::timeout(secs(10), woken).await.unwrap();
    assert_eq!(told, KvChange::Gone("k".to_owned()));
    let again = tokio::select! { biased; () = feed.changed() => true, () = std::future::ready(()) => false };
    assert!(!again, "a move wakes once");
}

#[tokio::test(start_paused = true)]
async fn a_test_whose_runtime_is_paused_can_drain() {
    let store = TestStore::memory().await.unwrap();
    store.jobs().enqueue(NewJob::new("slow", json!({}))).await.unwrap();
    let slow = || async { tokio::time::sleep(secs(HOUR)).await };
    let counts = store.drain(|worker| worker.handler("slow", slow)).await.unwrap();
    assert_eq!(counts.completed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_beside_the_test_sees_the_time_move() {
    let store = TestStore::memory().await.unwrap();
    let diary = Diary::of(&store);
    let hourly = Schedule::every(secs(HOUR)).repeat(1);
    let due = store.scheduler().schedule(note().job_id("hourly"), hourly).await.unwrap().record.next.unwrap();
    let delayed = store.jobs().enqueue(note().delay(secs(HOUR))).await.unwrap();
    // Nothing but the move of the clock wakes its scheduler before the test is given up.
    let (interval, lock_ttl) = (secs(HOUR), secs(2 * HOUR));
    let scheduler =
        SchedulerOptions { lock_ttl, lock_renew_interval: interval, scan_interval: interval, ..Default::default() };
    let options = WorkerOptions { scheduler: Some(scheduler), ..WorkerOptions::default() };
    let worker = diary.handler()(Worker::builder(store.storage().clone()).options(options)).build().unwrap();
    let shutdown = Shutdown::new();
    let test = async {
        while store.storage().kv_list(Bucket::Locks, "").await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        store.clock().advance(secs(HOUR));
        let run = format!("hourly_{}", due.unix_millis()).parse().unwrap();
        for id in [delayed.id(), &run] {
            let result = loop {
                // The run is enqueued when the leader has seen the time.
                match store.jobs().wait_for(id, secs(30)).await {
                    Ok(result) => break result,
                    Err(error) if error.kind() == naq_services::JobServiceErrorKind::NotFound => {
                        tokio::task::yield_now().await;
                    }
                    Err(error) => panic!("{error}"),
                }
            };
            assert_eq!((result.started_at, result.finished_at), (Some(due), due));
        }
        shutdown.request();
    };
    let (report, ()) =
        tokio::time::timeout(secs(60), async { tokio::join!(worker.run(shutdown.clone()), test) }).await.unwrap();
    assert_eq!(report.unwrap().completed, 2);
}

#[tokio::test]
async fn the_clock_of_another_store_is_its_own() {
    let (one, two) = (TestStore::memory().await.unwrap(), TestStore::memory().await.unwrap());
    let before = two.clock().now();
    one.clock().advance(secs(HOUR));
    assert_eq!(two.clock().now(), before);
    let real = ServiceManager::new(Arc::default(), "memory://another".parse().unwrap());
    let real = TestStore::of(real).await.unwrap();
    assert!(real.storage().virtual_clock().is_none());
    assert!(matches!(real.drain_for(secs(1), |worker| worker).await, Err(DrainError::RealClock)));
    real.jobs().enqueue(note()).await.unwrap();
    let counts = real.drain(|worker| worker.handler("note", || async {})).await.unwrap();
    assert_eq!(counts.completed, 1);
    refute_enqueued!(real, "note");
}

#[tokio::test]
async fn jobs_that_wait_for_others_run_after_them_and_do_not_wait_for_ever() {
    let store = store_at("2026-03-01T00:00:00Z").await;
    let job = |id: &str, on: &[&str]| NewJob::new("noop", json!({})).job_id(id).depends_on(on);
    let jobs = vec![
        job("last", &["late", "first"]),
        job("first", &[]),
        job("late", &["first"]).delay(secs(30)),
        job("lost", &["nobody"]),
        job("behind", &["lost"]),
    ];
    for receipt in store.jobs().enqueue_many(jobs).await {
        receipt.unwrap();
    }
    let handlers = |worker: WorkerBuilder| worker.handler("noop", || async {});
    assert_eq!(store.drain(handlers).await.unwrap().completed, 1);
    assert_eq!(store.drain_for(secs(30), handlers).await.unwrap().completed, 2);
    let status = async |id: &str| store.jobs().status(&id.parse().unwrap()).await.unwrap().status;
    assert_eq!((status("last").await, status("lost").await), (JobStatus::Completed, JobStatus::Waiting));
    // A minute after it was enqueued, what it waits for counts as a job that does not exist.
    let report = store.drain_for(secs(40), handlers).await.unwrap();
    assert_eq!((report.completed, report.cancelled), (0, 0), "no worker had a part in it");
    for (id, reason) in [("lost", "dependency_missing"), ("behind", "dependency_failed")] {
        let view = store.jobs().status(&id.parse().unwrap()).await.unwrap();
        assert_eq!((view.status, &*view.error.unwrap().error_type), (JobStatus::Cancelled, reason));
    }
}
