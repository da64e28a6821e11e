//! What a handler says, and what becomes of its job.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use naq_models::{JobStatus, error_type};
use naq_services::{CancellationToken, Failure, JobContext, NewJob, Outcome, State, storage::Sighting};
use naq_worker::SchedulerOptions;

use crate::support::{Log, PATIENCE, Stage, job, quick, start};

#[tokio::test]
async fn a_job_completes_with_its_value_and_the_report_counts_it() {
    let stage = Stage::new().await;
    let double = |numbers: Vec<u32>| async move { Ok::<_, String>(numbers.iter().map(|n| n * 2).collect::<Vec<_>>()) };
    let worker = start(stage.worker().options(quick()).handler("double", double));
    let enqueued = stage.enqueue(NewJob::new("double", [21, 4])).await;
    let result = stage.result(&enqueued).await;
    assert_eq!((result.status, result.result.unwrap().get()), (JobStatus::Completed, "[42,8]"));
    assert!(result.started_at.unwrap() >= result.enqueued_at && result.finished_at >= result.started_at.unwrap());
    let wrong = stage.enqueue(NewJob::new("double", ["no number"])).await;
    assert_eq!(stage.result(&wrong).await.error.unwrap().error_type, error_type::DECODE);
    let report = worker.stop().await;
    assert_eq!((report.completed, report.failed, report.retried), (1, 1, 0));
}

#[tokio::test]
async fn a_retried_job_gets_its_last_error_and_completes_on_a_later_attempt() {
    let stage = Stage::new().await;
    let options = naq_worker::WorkerOptions { scheduler: Some(SchedulerOptions::default()), ..quick() };
    let flaky = |cx: JobContext| async move {
        if cx.attempt() < 3 {
            return Err(Failure::new("flaky", format!("attempt {}", cx.attempt())));
        }
        Ok(cx.last_error().map(|error| (error.message.clone(), error.retry_count)))
    };
    let worker = start(stage.worker().options(options).handler("flaky", flaky));
    let enqueued = stage.enqueue(job("flaky").retry_delay(Duration::from_millis(10))).await;
    let result = stage.result(&enqueued).await;
    assert_eq!((result.status, result.attempt), (JobStatus::Completed, 3));
    assert_eq!(result.result.unwrap().get(), r#"["attempt 2",1]"#);
    assert_eq!(result.worker_id.as_deref(), Some(worker.id.as_str()));
    let report = worker.stop().await;
    assert_eq!((report.completed, report.retried), (1, 2));
}

#[tokio::test]
async fn out_of_retries_a_job_is_a_dead_letter_with_its_bytes() {
    let stage = Stage::new().await;
    let worker = start(
        stage.worker().options(quick()).handler("bad", || async { Err::<(), _>(Failure::new("broken", "no use")) }),
    );
    let enqueued = stage.enqueue(job("bad").max_retries(0).meta("tenant", "acme")).await;
    assert_eq!(stage.result(&enqueued).await.status, JobStatus::Failed);
    let sightings = stage.storage.get_job(enqueued.id()).await.unwrap();
    let letter = sightings.into_iter().find_map(|sighting| match sighting {
        Sighting::Dead(letter) => Some(letter),
        _ => None,
    });
    let letter = letter.expect("a failed job has a dead letter");
    assert_eq!((letter.error.error_type.as_str(), letter.kind.as_deref()), ("broken", Some("bad")));
    assert!(String::from_utf8_lossy(&letter.body).contains("acme"));
    worker.stop().await;
}

#[tokio::test]
async fn snooze_runs_again_without_an_attempt_and_cancel_keeps_the_envelope() {
    let stage = Stage::new().await;
    let options = naq_worker::WorkerOptions { scheduler: Some(SchedulerOptions::default()), ..quick() };
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let snoozer = move |cx: JobContext| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        async move { if run < 2 { Outcome::Snooze(Duration::from_millis(5)) } else { Outcome::Complete(cx.attempt()) } }
    };
    let worker = start(
        stage
            .worker()
            .options(options)
            .handler("snoozer", snoozer)
            .handler("quitter", || async { Outcome::<()>::cancel("not needed") }),
    );
    let snoozed = stage.enqueue(job("snoozer").max_retries(0)).await;
    let quit = stage.enqueue(job("quitter")).await;
    assert_eq!(stage.result(&snoozed).await.result.unwrap().get(), "1");
    let cancelled = stage.result(&quit).await;
    assert_eq!((cancelled.status, cancelled.error.unwrap().message.as_str()), (JobStatus::Cancelled, "not needed"));
    assert!(cancelled.job.unwrap().get().contains("quitter"));
    let report = worker.stop().await;
    assert_eq!((report.snoozed, report.cancelled, report.completed), (2, 1, 1));
}

#[tokio::test]
async fn a_panic_fails_its_job_and_nothing_else() {
    let stage = Stage::new().await;
    let worker = start(
        stage
            .worker()
            .concurrency(1)
            .options(quick())
            .handler("boom", || async {
                if true {
                    panic!("the roof")
                }
            })
            .blocking_handler("blocking-boom", || {
                if true {
                    panic!("the cellar")
                }
            })
            .handler("fine", || async {}),
    );
    let boom = stage.enqueue(job("boom").max_retries(0)).await;
    let cellar = stage.enqueue(job("blocking-boom").max_retries(0)).await;
    let fine = stage.enqueue(job("fine")).await;
    let error = stage.result(&boom).await.error.unwrap();
    assert_eq!(error.error_type, error_type::PANIC);
    assert!(error.message.contains("the roof") && error.message.contains("outcomes.rs"), "{error:?}");
    let error = stage.result(&cellar).await.error.unwrap();
    assert_eq!(error.error_type, error_type::PANIC);
    assert!(error.message.contains("the cellar"), "{error:?}");
    assert_eq!(stage.result(&fine).await.status, JobStatus::Completed);
    worker.stop().await;
}

#[tokio::test]
async fn a_timeout_fires_the_token_and_is_an_error_of_its_own() {
    let stage = Stage::new().await;
    let log = Log::default();
    let polite = |log: State<Log>, token: CancellationToken| async move {
        token.cancelled().await;
        log.note("told");
        Err::<(), _>("interrupted".to_owned())
    };
    let rude = || async { std::future::pending::<()>().await };
    let worker =
        start(stage.worker().options(quick()).state(log.clone()).handler("polite", polite).handler("rude", rude));
    let short = Duration::from_millis(50);
    let polite = stage.enqueue(job("polite").max_retries(0).timeout(short)).await;
    let rude = stage.enqueue(job("rude").max_retries(0).timeout(short)).await;
    let error = stage.result(&polite).await.error.unwrap();
    assert_eq!(error.error_type, error_type::TIMEOUT);
    assert!(error.message.contains("interrupted"), "{error:?}");
    assert_eq!(log.count("told"), 1);
    let error = stage.result(&rude).await.error.unwrap();
    assert_eq!(error.error_type, error_type::TIMEOUT);
    assert_eq!(worker.stop().await.stuck, 0, "dropping an async handler frees its slot");
}

/// The endless loop holds its slot; the heartbeat settles it, and the other slots go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_endless_loop_is_settled_and_its_slot_counts_as_stuck() {
    let stage = Stage::new().await;
    let release = Arc::new(AtomicU32::new(0));
    let held = Arc::clone(&release);
    let endless = move || {
        let held = Arc::clone(&held);
        async move {
            while held.load(Ordering::SeqCst) == 0 {
                std::hint::spin_loop();
            }
        }
    };
    let worker =
        start(stage.worker().concurrency(3).options(quick()).handler("endless", endless).handler("fine", || async {}));
    let endless = stage.enqueue(job("endless").max_retries(0).timeout(Duration::from_millis(50))).await;
    let error = stage.result(&endless).await.error.unwrap();
    assert_eq!(error.error_type, error_type::TIMEOUT);
    for _ in 0..20 {
        let fine = stage.enqueue(job("fine")).await;
        assert_eq!(stage.result(&fine).await.status, JobStatus::Completed);
    }
    worker.shutdown.request();
    let report = worker.end().await.unwrap();
    release.store(1, Ordering::SeqCst);
    assert_eq!((report.failed, report.stuck, report.completed), (1, 1, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_worker_with_half_its_slots_stuck_ends_with_an_error() {
    let stage = Stage::new().await;
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    let stuck = move |_cx: JobContext| {
        // The sender is dropped at the end of the test.
        let _end = blocked.lock().unwrap().recv_timeout(PATIENCE);
    };
    let worker = start(stage.worker().concurrency(2).options(quick()).blocking_handler("stuck", stuck));
    let job = stage.enqueue(job("stuck").max_retries(0).timeout(Duration::from_millis(50))).await;
    assert_eq!(stage.result(&job).await.error.unwrap().error_type, error_type::TIMEOUT);
    let error = worker.end().await.unwrap_err();
    assert!(matches!(error, naq_worker::WorkerError::Stuck { stuck: 1, concurrency: 2 }), "{error:?}");
    drop(release);
}

#[tokio::test]
async fn what_cannot_be_read_is_a_dead_letter_byte_for_byte() {
    let stage = Stage::new().await;
    let worker = start(stage.worker().options(quick()));
    for (id, body) in [("garbage", &b"\x00\xff not json"[..]), ("future", br#"{"v":99,"kind":"k","args":{}}"#)] {
        let id = stage.enqueue_bytes(id, body).await;
        let result = stage.jobs.wait(&id, 0, PATIENCE).await.unwrap();
        assert_eq!(result.error.unwrap().error_type, error_type::DECODE);
        let sightings = stage.storage.get_job(&id).await.unwrap();
        let kept = sightings.iter().any(|seen| matches!(seen, Sighting::Dead(letter) if letter.body == body));
        assert!(kept, "{sightings:?}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_result_over_the_limit_fails_the_job_and_an_unknown_kind_waits_for_another_worker() {
    let stage = Stage::new().await;
    let large = || async { "x".repeat(3 << 20) };
    let worker = start(stage.worker().options(quick()).handler("large", large));
    let large = stage.enqueue(job("large")).await;
    assert_eq!(stage.result(&large).await.error.unwrap().error_type, error_type::RESULT_TOO_LARGE);
    let unknown = stage.enqueue(job("unknown")).await;
    stage.until(unknown.id(), JobStatus::Scheduled).await;
    let report = worker.stop().await;
    assert_eq!((report.failed, report.snoozed), (1, 1));
}

#[tokio::test]
async fn without_a_result_nothing_is_kept() {
    let stage = Stage::new().await;
    let worker = start(
        stage.worker().options(naq_worker::WorkerOptions { burst: true, ..quick() }).handler("silent", || async {}),
    );
    let silent = stage.enqueue(job("silent").result_ttl(Duration::ZERO)).await;
    let report = worker.end().await.unwrap();
    assert_eq!(report.completed, 1);
    assert!(stage.storage.get_result(silent.id()).await.unwrap().is_none());
}
