//! Which job runs next, and how many are claimed for it.

use std::{collections::HashMap, time::Duration};

use naq_models::{JobStatus, QueueName};
use naq_services::{JobContext, State};
use naq_worker::{QueueSpec, WorkerOptions};
use tokio::sync::Semaphore;

use crate::support::{Log, Stage, job, quick, start};

fn burst() -> WorkerOptions {
    WorkerOptions { burst: true, ..quick() }
}

async fn note_place(cx: JobContext, log: State<Log>) {
    log.note(format!("{}{}", cx.queue(), cx.job().priority.get()));
}

#[tokio::test]
async fn the_most_urgent_runs_first_and_queues_in_their_order() {
    let stage = Stage::new().await;
    let log = Log::default();
    for round in 0..25 {
        for priority in [3, 1, 0, 2] {
            for queue in ["b", "a"] {
                let id = format!("{queue}{priority}-{round}");
                stage.enqueue(job("note").queue(queue).priority(priority).job_id(id)).await;
            }
        }
    }
    let queues = ["a", "b"].map(|name| QueueSpec::new(QueueName::new(name).unwrap()));
    let builder = stage.worker().queues(queues).concurrency(1).options(burst()).state(log.clone());
    let report = start(builder.handler("note", note_place)).end().await.unwrap();
    assert_eq!(report.completed, 200);
    let notes = log.all();
    let mut sorted = notes.clone();
    sorted.sort();
    assert_eq!(notes, sorted);
}

#[tokio::test]
async fn weights_share_the_worker() {
    let stage = Stage::new().await;
    let log = Log::default();
    let jobs = (0..300).flat_map(|n| ["a", "b"].map(|queue| job("note").queue(queue).job_id(format!("{queue}{n}"))));
    for stored in stage.jobs.enqueue_many(jobs.collect()).await {
        stored.unwrap();
    }
    let queues = ["a:3", "b:1"].map(|spec| spec.parse::<QueueSpec>().unwrap());
    let builder = stage.worker().queues(queues).concurrency(1).options(burst()).state(log.clone());
    start(builder.handler("note", note_place)).end().await.unwrap();
    let first: Vec<String> = log.all().into_iter().take(200).collect();
    let heavy = first.iter().filter(|place| place.starts_with('a')).count();
    assert!((140..=160).contains(&heavy), "{heavy} of the first 200");
    assert_eq!(log.all().len(), 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_workers_run_each_job_once() {
    let stage = Stage::new().await;
    let log = Log::default();
    let jobs: Vec<_> = (0..4000)
        .map(|n| job("note").queue(["a", "b"][n % 2]).priority((n % 4) as u8).job_id(format!("j{n}")))
        .collect();
    for stored in stage.jobs.enqueue_many(jobs).await {
        stored.unwrap();
    }
    let note = |cx: JobContext, log: State<Log>| async move { log.note(cx.id().as_str()) };
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let queues = ["a", "b"].map(|name| QueueSpec::new(QueueName::new(name).unwrap()));
            start(stage.worker().queues(queues).options(burst()).state(log.clone()).handler("note", note))
        })
        .collect();
    let mut completed = 0;
    for worker in workers {
        completed += worker.end().await.unwrap().completed;
    }
    assert_eq!(completed, 4000);
    let mut runs: HashMap<String, u32> = HashMap::new();
    for id in log.all() {
        *runs.entry(id).or_default() += 1;
    }
    assert!(runs.len() == 4000 && runs.values().all(|count| *count == 1));
}

#[tokio::test]
async fn long_jobs_are_not_hoarded() {
    let stage = Stage::new().await;
    let log = Log::default();
    // A lease so long that only the stalled slots can be the reason for giving jobs back.
    let options = || WorkerOptions { lease: Duration::from_secs(600), ..quick() };
    let start_one = || {
        let gated = |log: State<Log>, gate: State<Semaphore>| async move {
            log.note("start");
            gate.acquire().await.map_err(|e| e.to_string()).map(tokio::sync::SemaphorePermit::forget)
        };
        let builder = stage.worker().concurrency(2).options(options()).state(log.clone()).state(Semaphore::new(0));
        start(builder.handler("gated", gated).handler("fine", || async {}))
    };
    let first = start_one();
    for _ in 0..10 {
        // Fast jobs teach the first worker to claim ahead.
        let fine = stage.enqueue(job("fine")).await;
        stage.result(&fine).await;
    }
    for n in 0..4 {
        stage.enqueue(job("gated").job_id(format!("g{n}"))).await;
    }
    log.until(2).await;
    let second = start_one();
    log.until(4).await;
    first.shutdown.request_now();
    second.shutdown.request_now();
    assert_eq!(second.end().await.unwrap().handed_back, 2, "the second worker ran two of the four");
    assert!((2..=4).contains(&first.end().await.unwrap().handed_back));
    assert_eq!(stage.pending().await, 4);
}

#[tokio::test]
async fn an_idle_worker_starts_a_job_at_once() {
    let stage = Stage::new().await;
    let worker = start(stage.worker().options(quick()).handler("fine", || async {}));
    stage.result(&stage.enqueue(job("fine")).await).await;
    let mut slowest = Duration::ZERO;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let asked = std::time::Instant::now();
        let fine = stage.enqueue(job("fine")).await;
        assert_eq!(stage.result(&fine).await.status, JobStatus::Completed);
        waits.push(asked.elapsed());
        slowest = slowest.max(asked.elapsed());
    }
    waits.sort();
    assert!(waits[10] < Duration::from_millis(40), "median {:?}, slowest {slowest:?}", waits[10]);
    worker.stop().await;
}
