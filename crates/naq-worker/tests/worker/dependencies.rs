//! Jobs that wait for other jobs: they start when the last one has completed, and never when one can not.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use naq_models::{JobId, JobResult, JobStatus, OnDependencyFailure};
use naq_services::{JobContext, JobHandle, NewJob, ResultError, ResultErrorKind, State, storage::sqlite};
use naq_worker::{SchedulerOptions, WorkerBuilder, WorkerOptions};

use crate::{
    faulty::Faulty,
    server::on_each_server,
    support::{Log, PATIENCE, Stage, eventually, job, quick, start},
};

fn leading() -> WorkerOptions {
    let scheduler = SchedulerOptions {
        lock_ttl: Duration::from_secs(1),
        lock_renew_interval: Duration::from_millis(300),
        ..SchedulerOptions::default()
    };
    WorkerOptions { scheduler: Some(scheduler), ..quick() }
}

async fn note(cx: JobContext, log: State<Log>) {
    log.note(cx.id().as_str());
}

/// One more than its dependencies returned together.
async fn add(cx: JobContext, log: State<Log>) -> Result<u64, ResultError> {
    let mut sum = 1;
    for id in cx.depends_on() {
        sum += cx.dependency::<u64>(id).await?;
    }
    log.note(cx.id().as_str());
    Ok(sum)
}

async fn fail() -> Result<(), std::io::Error> {
    Err(std::io::Error::other("it had to"))
}

fn with_handlers(stage: &Stage, log: &Log) -> WorkerBuilder {
    let worker = stage.worker().options(leading()).state(log.clone()).concurrency(16);
    worker.handler("note", note).handler("add", add).handler("fail", fail)
}

fn add_job(id: &str, depends_on: &[&str]) -> NewJob {
    job("add").job_id(id).depends_on(depends_on)
}

async fn result(stage: &Stage, id: &str) -> JobResult {
    stage.jobs.wait_for(&JobId::new(id).unwrap(), PATIENCE).await.unwrap()
}

async fn value(stage: &Stage, id: &str) -> u64 {
    let ended = result(stage, id).await;
    assert_eq!(ended.status, JobStatus::Completed, "{ended:?}");
    ended.result.unwrap().to().unwrap()
}

/// Why a job was cancelled: error type and message.
async fn refusal(stage: &Stage, id: &str) -> (String, String) {
    let ended = result(stage, id).await;
    let error = ended.error.unwrap();
    assert_eq!(ended.status, JobStatus::Cancelled, "{error:?}");
    (error.error_type, error.message)
}

macro_rules! on_every_store {
    ($($test:ident),+ $(,)?) => { $(
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn memory() {
                super::$test(&crate::support::Stage::new().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let dir = tempfile::tempdir().unwrap();
                super::$test(&super::on_file(&dir.path().join("naq.db")).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn nats() {
                super::on_each_server(|server| async move {
                    super::$test(&crate::support::Stage::on(server.open().await)).await;
                })
                .await;
            }
        }
    )+ };
}

async fn on_file(path: &std::path::Path) -> Stage {
    Stage::on(sqlite::open(sqlite::SqliteOptions::file(path)).await.unwrap())
}

on_every_store!(
    jobs_run_after_those_they_depend_on,
    the_end_of_a_dependency_reaches_the_whole_graph,
    a_dependant_may_wait_for_a_time_too,
    what_can_never_start_is_cancelled,
    a_second_life_waits_again,
    a_diamond_of_a_thousand_opens_and_closes,
);

async fn jobs_run_after_those_they_depend_on(stage: &Stage) {
    let log = Log::default();
    stage.enqueue(add_job("first", &[])).await;
    let worker = start(with_handlers(stage, &log));
    assert_eq!(value(stage, "first").await, 1);
    // In an order that nothing could run in, and on a job that has ended long ago.
    let jobs = vec![
        add_job("end", &["left", "right", "first"]),
        add_job("right", &["root"]),
        add_job("left", &["root", "first"]),
        add_job("root", &["first"]),
    ];
    for receipt in stage.jobs.enqueue_many(jobs).await {
        assert_eq!(receipt.unwrap().status, JobStatus::Waiting);
    }
    assert_eq!(value(stage, "end").await, 1 + 1 + 3 + 4);
    // What is enqueued later is found all the same.
    stage.enqueue(add_job("late", &["later"])).await;
    stage.until(&JobId::new("late").unwrap(), JobStatus::Waiting).await;
    stage.enqueue(add_job("later", &[])).await;
    assert_eq!(value(stage, "late").await, 2);
    assert_eq!(
        log.all(),
        ["first", "root", "left", "right", "end", "later", "late"].map(String::from).sorted_like(&log.all())
    );
    let report = worker.stop().await;
    assert_eq!((report.completed, report.failed, report.cancelled), (7, 0, 0));
}

trait SortedLike {
    fn sorted_like(self, seen: &[String]) -> Vec<String>;
}

impl<const N: usize> SortedLike for [String; N] {
    /// Left and right may change places.
    fn sorted_like(self, seen: &[String]) -> Vec<String> {
        let mut all = self.to_vec();
        if seen.iter().position(|name| name == "left") > seen.iter().position(|name| name == "right") {
            all.swap(2, 3);
        }
        all
    }
}

async fn the_end_of_a_dependency_reaches_the_whole_graph(stage: &Stage) {
    let log = Log::default();
    let worker = start(with_handlers(stage, &log));
    let mut jobs = vec![
        job("note").job_id("lax").depends_on(["broken", "link-9"]).on_dependency_failure(OnDependencyFailure::Run),
        job("note").job_id("link-0").depends_on(["broken"]),
        job("fail").job_id("broken").max_retries(0),
    ];
    for n in 1..10 {
        jobs.push(job("note").job_id(format!("link-{n}")).depends_on([format!("link-{}", n - 1)]));
    }
    for receipt in stage.jobs.enqueue_many(jobs).await {
        receipt.unwrap();
    }
    let (kind, message) = refusal(stage, "link-0").await;
    assert_eq!((&*kind, &*message), ("dependency_failed", "job broken, on which it depends, failed"));
    let (kind, message) = refusal(stage, "link-9").await;
    assert_eq!((&*kind, &*message), ("dependency_failed", "job link-8, on which it depends, was cancelled"));
    assert_eq!(result(stage, "lax").await.status, JobStatus::Completed);
    // One that a person cancels, and one that the store does not know, count the same.
    let held = stage.enqueue(job("note").job_id("held").delay(Duration::from_secs(3600))).await;
    stage.enqueue(job("note").job_id("behind").depends_on(["held"])).await;
    stage.until(&JobId::new("behind").unwrap(), JobStatus::Waiting).await;
    held.cancel().await.unwrap();
    assert_eq!(refusal(stage, "behind").await.1, "job held, on which it depends, was cancelled");
    assert_eq!(log.all(), ["lax"]);
    worker.stop().await;
}

async fn a_dependant_may_wait_for_a_time_too(stage: &Stage) {
    let log = Log::default();
    let worker = start(with_handlers(stage, &log));
    let delay = Duration::from_millis(700);
    let begun = Instant::now();
    stage.enqueue(add_job("timed", &["quick"]).delay(delay)).await;
    stage.enqueue(add_job("moved", &["quick"])).await;
    let moved = JobId::new("moved").unwrap();
    stage.until(&moved, JobStatus::Waiting).await;
    stage.jobs.reschedule(&moved, stage.storage.now().await.unwrap().saturating_add(delay)).await.unwrap();
    assert_eq!(stage.status(&moved).await, JobStatus::Waiting);
    stage.enqueue(add_job("quick", &[])).await;
    value(stage, "quick").await;
    for id in ["timed", "moved"] {
        let id = JobId::new(id).unwrap();
        eventually(|| async { stage.status(&id).await != JobStatus::Waiting }).await;
        assert_eq!(value(stage, id.as_str()).await, 2);
    }
    assert!(begun.elapsed() >= delay, "ran after {:?}", begun.elapsed());
    worker.stop().await;
}

async fn what_can_never_start_is_cancelled(stage: &Stage) {
    let log = Log::default();
    let worker = start(with_handlers(stage, &log));
    let silent = job("note").job_id("silent").result_ttl(Duration::ZERO).delay(Duration::from_secs(3600));
    stage.enqueue(silent).await;
    for (id, on) in [("on-silent", "silent"), ("a", "b"), ("b", "c"), ("c", "a"), ("outside", "a")] {
        stage.enqueue(job("note").job_id(id).depends_on([on])).await;
    }
    assert_eq!(refusal(stage, "on-silent").await.0, "no_result_kept");
    for id in ["a", "b", "c"] {
        let (kind, message) = refusal(stage, id).await;
        assert_eq!(kind, "dependency_cycle");
        assert!(message.starts_with("it waits for itself: ") && message.contains("b waits for c"), "{message}");
    }
    assert_eq!(refusal(stage, "outside").await.0, "dependency_failed");
    let itself = stage.jobs.enqueue(job("note").job_id("x").depends_on(["x"])).await;
    assert!(itself.is_err());
    assert!(log.all().is_empty());
    worker.stop().await;
}

async fn a_second_life_waits_again(stage: &Stage) {
    let log = Log::default();
    let worker = start(with_handlers(stage, &log));
    let held = stage.enqueue(add_job("held", &[]).delay(Duration::from_secs(3600))).await;
    let behind: JobHandle = stage.enqueue(add_job("behind", &["held"])).await;
    held.cancel().await.unwrap();
    refusal(stage, "behind").await;
    // In the wrong order: the one behind is not to be cancelled because of the life before.
    stage.jobs.retry(held.id()).await.unwrap();
    stage.jobs.retry(behind.id()).await.unwrap();
    assert_eq!(value(stage, "behind").await, 2);
    assert_eq!(log.all(), ["held", "behind"]);
    worker.stop().await;
}

async fn a_diamond_of_a_thousand_opens_and_closes(stage: &Stage) {
    const WIDTH: usize = 1000;
    let log = Log::default();
    let middle: Vec<String> = (0..WIDTH).map(|n| format!("m{n}")).collect();
    let mut jobs = vec![add_job("root", &[]), job("add").job_id("end").depends_on(&middle)];
    jobs.extend(middle.iter().map(|id| add_job(id, &["root"])));
    for receipt in stage.jobs.enqueue_many(jobs).await {
        receipt.unwrap();
    }
    let worker = start(with_handlers(stage, &log));
    assert_eq!(value(stage, "end").await, 1 + 2 * u64::try_from(WIDTH).unwrap());
    let ran = log.all();
    assert_eq!((ran.len(), ran.iter().collect::<HashSet<_>>().len()), (WIDTH + 2, WIDTH + 2));
    assert_eq!((ran.first().map(String::as_str), ran.last().map(String::as_str)), (Some("root"), Some("end")));
    let stats = stage.storage.queue_stats(None).await.unwrap();
    assert_eq!(stats.iter().map(|stats| stats.waiting).sum::<u64>(), 0);
    worker.stop().await;
}

/// Only what a job has named can be read, and as what it is.
#[tokio::test]
async fn only_dependencies_can_be_read() {
    async fn peek(cx: JobContext, log: State<Log>) {
        log.note(format!("{:?}", cx.dependency::<u64>("other").await.unwrap_err().kind()));
        log.note(format!("{:?}", cx.dependency::<String>("known").await.unwrap_err().kind()));
        let failed = cx.dependency::<u64>("broken").await.unwrap_err();
        assert_eq!(failed.job_error().unwrap().message, "it had to");
        log.note(format!("{:?}", failed.kind()));
    }
    let stage = Stage::new().await;
    let log = Log::default();
    let worker = start(with_handlers(&stage, &log).handler("peek", peek));
    stage.enqueue(add_job("other", &[])).await;
    stage.enqueue(add_job("known", &[])).await;
    stage.enqueue(job("fail").job_id("broken").max_retries(0)).await;
    let peek = job("peek").depends_on(["known", "broken"]).on_dependency_failure(OnDependencyFailure::Run);
    let peek = stage.enqueue(peek).await;
    assert_eq!(stage.result(&peek).await.status, JobStatus::Completed);
    let kinds = [ResultErrorKind::Service(naq_services::JobServiceErrorKind::InvalidJob), ResultErrorKind::WrongType];
    let mut said = log.all();
    said.retain(|line| line != "other" && line != "known");
    let expected = kinds.into_iter().chain([ResultErrorKind::Failed]).map(|kind| format!("{kind:?}"));
    assert_eq!(said, expected.collect::<Vec<_>>());
    worker.stop().await;
}

/// A leader that dies leaves nothing behind that the next one needs: chains go on, and no job runs twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_go_on_when_leaders_die() {
    const CHAINS: usize = 20;
    const LINKS: usize = 25;
    let dir = tempfile::tempdir().unwrap();
    let stage = on_file(&dir.path().join("naq.db")).await;
    let log = Log::default();
    let mut jobs = Vec::new();
    for chain in 0..CHAINS {
        for link in (0..LINKS).rev() {
            let mut link_job = job("note").job_id(format!("c{chain}-{link}"));
            if link > 0 {
                link_job = link_job.depends_on([format!("c{chain}-{}", link - 1)]);
            }
            jobs.push(link_job);
        }
    }
    for receipt in stage.jobs.enqueue_many(jobs).await {
        receipt.unwrap();
    }
    let runner = start(with_handlers(&stage, &log).options(quick()));
    let mut leaders = 0;
    while log.all().len() < CHAINS * LINKS {
        let mut leader = tokio::task::JoinSet::new();
        let scheduler = naq_worker::Scheduler::new(
            stage.storage.clone(),
            format!("leader-{leaders}"),
            SchedulerOptions {
                lock_ttl: Duration::from_millis(400),
                lock_renew_interval: Duration::from_millis(100),
                ..SchedulerOptions::default()
            },
            naq_models::WireFormat::Json,
        );
        leader.spawn(async move { scheduler.run(&naq_worker::Shutdown::new()).await });
        let (before, begun) = (log.all().len(), Instant::now());
        eventually(|| async { log.all().len() > before + CHAINS || log.all().len() == CHAINS * LINKS }).await;
        assert!(begun.elapsed() < PATIENCE);
        // Killed: no lock is given up, and no write is finished.
        drop(leader);
        leaders += 1;
    }
    assert!(leaders > 5, "{leaders} leaders");
    let ran = log.all();
    assert_eq!(ran.iter().collect::<HashSet<_>>().len(), ran.len(), "a job ran twice");
    runner.stop().await;
}

/// While a job waits for another, nothing is asked of the store, and those that nobody waits for are never looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_costs_nothing_and_neither_does_a_job_without_dependants() {
    let stage = Stage::new().await;
    let counted = Faulty::on(stage.storage.clone());
    let counting = Stage::on(counted.clone());
    let log = Log::default();
    let worker = start(with_handlers(&counting, &log));
    let held = stage.enqueue(add_job("held", &[]).delay(Duration::from_secs(3600))).await;
    stage.enqueue(add_job("behind", &["held"])).await;
    // Its entry is read, then what it depends on is looked at.
    let both = ["behind", "held"].map(|id| JobId::new(id).unwrap());
    let seen = std::sync::Mutex::new(Vec::new());
    eventually(|| {
        let mut seen = seen.lock().unwrap();
        seen.extend(counted.take_reads());
        let known = both.iter().all(|id| seen.contains(id));
        async move { known }
    })
    .await;
    let plain = (0..200).map(|n| job("note").job_id(format!("plain-{n}"))).collect();
    for receipt in stage.jobs.enqueue_many(plain).await {
        receipt.unwrap();
    }
    log.until(200).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(counted.take_reads(), [], "reads while nothing that matters has happened");
    // The end of the one it waits for is two reads: of that result, and of the entry that is moved.
    stage.jobs.reschedule(held.id(), stage.storage.now().await.unwrap()).await.unwrap();
    assert_eq!(value(&stage, "behind").await, 2);
    let mut reads = counted.take_reads();
    reads.retain(|id| *id == both[0]);
    assert_eq!(reads.len(), 1, "reads of the entry that waited");
    worker.stop().await;
}
