//! Recurring jobs, fired by whoever leads: in time, none twice, none missed, whenever a leader dies.

use std::time::{Duration, Instant};

use naq_models::{JobStatus, Missed, Overlap, Schedule, ScheduleId, ScheduleStatus, Timestamp};
use naq_services::{
    JobContext, NewJob, SchedulerService, State,
    storage::{Bucket, SharedStorage},
};
use naq_worker::{Scheduler, SchedulerOptions, Shutdown, WorkerOptions};
use tokio::task::JoinSet;

use crate::{
    faulty::Faulty,
    server::on_each_server,
    support::{Log, Stage, eventually, job, quick, start},
};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn scheduling() -> WorkerOptions {
    WorkerOptions { scheduler: Some(leading()), ..quick() }
}

fn leading() -> SchedulerOptions {
    SchedulerOptions { lock_ttl: millis(1_000), lock_renew_interval: millis(300), ..SchedulerOptions::default() }
}

async fn define(stage: &Stage, job: NewJob, schedule: Schedule) -> (SchedulerService, ScheduleId) {
    let service = SchedulerService::new(stage.jobs.clone());
    let id = service.schedule(job, schedule).await.unwrap().record.id;
    (service, id)
}

async fn note(cx: JobContext, log: State<Log>) {
    log.note(cx.id().as_str());
}

/// The due time in the id of a run.
fn due(run: &str) -> Timestamp {
    Timestamp::from_unix_millis(run.rsplit('_').next().unwrap().parse().unwrap()).unwrap()
}

/// How long after its due time each run was started.
async fn lateness(stage: &Stage, runs: &[String]) -> Vec<Duration> {
    let mut late = Vec::new();
    for run in runs {
        let ended = stage.jobs.wait_for(&naq_models::JobId::new(run).unwrap(), millis(5_000)).await.unwrap();
        let started = ended.started_at.unwrap();
        assert!(started >= due(run), "{run} started at {started}");
        late.push(started.since(due(run)));
    }
    late.sort();
    late
}

async fn runs_start_within_100_ms_of_their_time(stage: &Stage) {
    let log = Log::default();
    let worker = start(stage.worker().options(scheduling()).state(log.clone()).handler("note", note));
    define(stage, job("note").job_id("often"), Schedule::every(millis(200))).await;
    log.until(6).await;
    let runs = log.all();
    let late = lateness(stage, &runs[..6]).await;
    assert!(late[3] <= millis(100), "{late:?}");
    for pair in runs.windows(2) {
        assert_eq!(due(&pair[1]).since(due(&pair[0])), millis(200), "{runs:?}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn runs_start_within_100_ms_of_their_time_on_sqlite() {
    runs_start_within_100_ms_of_their_time(&Stage::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_start_within_100_ms_of_their_time_on_nats() {
    on_each_server(|server| async move {
        runs_start_within_100_ms_of_their_time(&Stage::on(server.open().await)).await;
    })
    .await;
}

/// A scheduler that runs until it is killed: no lock is given up, no write finished.
struct Leader {
    task: JoinSet<()>,
}

impl Leader {
    fn start(storage: SharedStorage, name: &str) -> Self {
        let scheduler = Scheduler::new(storage, name, leading(), naq_models::WireFormat::Json);
        let mut task = JoinSet::new();
        task.spawn(async move { scheduler.run(&Shutdown::new()).await.unwrap() });
        Self { task }
    }

    async fn kill(mut self) {
        self.task.shutdown().await;
    }
}

/// So many runs under a leader that stops at a point, dies, and is followed by another.
async fn survives_a_death(stage: &Stage, runs: u64, point: impl Fn(&Faulty)) {
    let log = Log::default();
    let worker = start(stage.worker().options(quick()).state(log.clone()).handler("note", note));
    let schedule = Schedule::every(millis(200)).repeat(runs).missed(Missed::All);
    let (service, id) = define(stage, job("note").job_id("some"), schedule).await;
    let first = service.get(&id).await.unwrap().next.unwrap();
    let faulty = Faulty::on(stage.storage.clone());
    point(&faulty);
    let dying = Leader::start(faulty.clone(), "first");
    eventually(|| async { faulty.has_stopped() }).await;
    let _standby = Leader::start(stage.storage.clone(), "second");
    dying.kill().await;
    log.until(runs as usize).await;
    eventually(|| async { service.get(&id).await.unwrap().pending.is_empty() }).await;
    let record = service.get(&id).await.unwrap();
    assert_eq!((record.status, record.runs, record.skipped), (ScheduleStatus::Completed, runs, 0));
    let mut ran = log.all();
    ran.sort();
    let expected: Vec<_> =
        (0..runs).map(|n| id.run_id(first.saturating_add(millis(200 * n))).as_str().to_owned()).collect();
    assert_eq!(ran, expected, "each once");
    assert_eq!(worker.stop().await.already_ended, 0);
}

/// Before the first write of its third fire, between advance and publish, and between publish and published.
async fn a_leader_may_die_between_any_two_writes(stage: impl AsyncFn() -> Stage) {
    survives_a_death(&stage().await, 10, |faulty| faulty.stop_after_schedule_updates(4)).await;
    survives_a_death(&stage().await, 10, |faulty| faulty.stop_after_enqueues(2)).await;
    survives_a_death(&stage().await, 10, |faulty| faulty.stop_after_schedule_updates(5)).await;
    // Nothing is due afterwards that would bring the recorded fire along.
    survives_a_death(&stage().await, 1, |faulty| faulty.stop_after_enqueues(0)).await;
}

#[tokio::test]
async fn a_leader_may_die_between_any_two_writes_on_sqlite() {
    a_leader_may_die_between_any_two_writes(Stage::new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_may_die_between_any_two_writes_on_nats() {
    use crate::server::{Server, binaries};
    for binary in binaries() {
        let servers = std::sync::Mutex::new(Vec::new());
        let stage = async || {
            let server = Server::start(&binary);
            let storage = server.open().await;
            servers.lock().unwrap().push(server);
            Stage::on(storage)
        };
        a_leader_may_die_between_any_two_writes(stage).await;
    }
}

#[tokio::test]
async fn a_follower_starts_its_delay_after_the_end_of_the_run_before() {
    let stage = Stage::new().await;
    let slow = |cx: JobContext, log: State<Log>| async move {
        tokio::time::sleep(millis(150)).await;
        log.note(cx.id().as_str());
    };
    let log = Log::default();
    let worker = start(stage.worker().options(scheduling()).state(log.clone()).handler("slow", slow));
    let (service, id) =
        define(&stage, job("slow").job_id("chain"), Schedule::after_completion(millis(100)).repeat(4)).await;
    log.until(4).await;
    let mut ended: Option<Timestamp> = None;
    for run in log.all() {
        let result = stage.jobs.wait_for(&naq_models::JobId::new(&run).unwrap(), millis(5_000)).await.unwrap();
        if let Some(ended) = ended {
            assert_eq!(due(&run).since(ended), millis(100), "due its delay after the end");
            let late = result.started_at.unwrap().since(due(&run));
            assert!(late <= millis(150), "{late:?}");
        }
        ended = Some(result.finished_at);
    }
    eventually(|| async { service.get(&id).await.unwrap().status == ScheduleStatus::Completed }).await;
    worker.stop().await;
}

#[tokio::test]
async fn with_overlap_skip_one_run_at_a_time() {
    let stage = Stage::new().await;
    let log = Log::default();
    let slow = |log: State<Log>| async move {
        log.note("start");
        tokio::time::sleep(millis(350)).await;
        log.note("end");
    };
    let worker = start(stage.worker().options(scheduling()).state(log.clone()).handler("slow", slow));
    let schedule = Schedule::every(millis(100)).overlap(Overlap::Skip);
    let (service, id) = define(&stage, job("slow").job_id("alone"), schedule).await;
    log.until(8).await;
    let noted = log.all();
    for (n, word) in noted.iter().enumerate() {
        assert_eq!(word, if n % 2 == 0 { "start" } else { "end" }, "{noted:?}");
    }
    assert!(service.get(&id).await.unwrap().skipped >= 6);
    worker.stop().await;
}

#[tokio::test]
async fn what_a_person_does_reaches_the_leader_at_once() {
    let stage = Stage::new().await;
    let log = Log::default();
    let worker = start(stage.worker().options(scheduling()).state(log.clone()).handler("note", note));
    let (service, id) = define(&stage, job("note").job_id("led"), Schedule::every(Duration::from_secs(3600))).await;
    let asked = Instant::now();
    let run = service.trigger(&id).await.unwrap();
    log.until(1).await;
    assert_eq!(log.all(), [run.job_id.as_str()]);
    assert!(asked.elapsed() < millis(1_000), "{:?}", asked.elapsed());
    let often = || service.define(job("note"), Schedule::every(millis(100))).unwrap();
    service.modify(&id, often()).await.unwrap();
    log.until(4).await;
    service.pause(&id).await.unwrap();
    // That nothing fires meanwhile is shown with the test kit's clock, which needs no waiting.
    eventually(|| async { service.get(&id).await.unwrap().pending.is_empty() }).await;
    let held = log.all().len();
    service.resume(&id).await.unwrap();
    log.until(held + 2).await;
    service.cancel(&id).await.unwrap();
    worker.stop().await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_holds_no_other_up() {
    let stage = Stage::new().await;
    stage.storage.kv_create(Bucket::Schedules, "bad", "[not a schedule]".into(), None).await.unwrap();
    let log = Log::default();
    let worker = start(stage.worker().options(scheduling()).state(log.clone()).handler("note", note));
    let (_, id) = define(&stage, job("note").job_id("good"), Schedule::every(millis(100)).repeat(2)).await;
    log.until(2).await;
    assert!(log.all().iter().all(|run| run.starts_with(id.as_str())));
    let last = naq_models::JobId::new(&log.all()[1]).unwrap();
    stage.until(&last, JobStatus::Completed).await;
    worker.stop().await;
}
