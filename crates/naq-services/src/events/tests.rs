//! The service over a store in memory, and the log's retention on a file.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use naq_models::{QueueName, event::EventType};

use super::*;
use crate::storage::{
    EventBatch, EventRetention,
    sqlite::{self, SqliteOptions},
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn memory() -> SharedStorage {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("events-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    sqlite::open(SqliteOptions::memory(name)).await.unwrap()
}

fn tell(service: &EventService, event_type: EventType, job: &str) {
    service.hook().emit(event_type, |event| {
        let mut event = event.of_job(JobId::new(job).unwrap(), QueueName::default());
        event.kind = Some("k".into());
        event.details.duration = Some(Duration::from_millis(3));
        event
    });
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.event_type.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_is_kept_found_followed_and_counted() {
    let service = EventService::new(memory().await, &EventsConfig::default());
    let (nothing, position) = service.recent(&EventFilter::default(), 10).await.unwrap();
    assert_eq!(nothing, []);
    let failed = EventFilter { types: vec![EventType::Failed], ..EventFilter::default() };
    let mut stream = service.stream(failed.clone(), position).await.unwrap();
    for n in 0..300 {
        tell(&service, EventType::Started, &format!("job-{n}"));
    }
    let told = Instant::now();
    tell(&service, EventType::Failed, "job-7");
    let seen = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap();
    assert!(told.elapsed() < Duration::from_millis(300), "{:?}", told.elapsed());
    assert_eq!((seen.event_type, seen.job_id), (EventType::Failed, JobId::new("job-7").ok()));
    tell(&service, EventType::DeadLettered, "job-7");
    assert!(service.flush(PATIENCE).await);

    let history = service.history(&JobId::new("job-7").unwrap()).await.unwrap();
    assert_eq!(names(&history), ["started", "failed", "dead_lettered"]);
    assert_eq!(service.history(&JobId::new("job-x").unwrap()).await.unwrap(), []);
    let (recent, _) = service.recent(&EventFilter::default(), 3).await.unwrap();
    assert_eq!(names(&recent), ["started", "failed", "dead_lettered"]);
    assert_eq!(service.recent(&failed, 100).await.unwrap().0.len(), 1);
    let stats = service.stats(&EventFilter::default()).await.unwrap();
    assert_eq!((stats.events, stats.types["started"], stats.types["failed"]), (302, 300, 1));
    service.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_before_the_end_is_kept() {
    let storage = memory().await;
    let config = EventsConfig { flush_interval: Duration::from_secs(60), ..EventsConfig::default() };
    let service = EventService::new(storage.clone(), &config);
    tell(&service, EventType::Started, "job-1");
    service.close().await;
    tell(&service, EventType::Completed, "job-1");
    assert_eq!(service.dropped(), 1, "what is told after the end is dropped and counted");
    let reader = EventService::new(storage, &EventsConfig { enabled: false, ..config });
    assert_eq!(names(&reader.history(&JobId::new("job-1").unwrap()).await.unwrap()), ["started"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turned_off_nothing_is_made() {
    let service = EventService::new(memory().await, &EventsConfig { enabled: false, ..EventsConfig::default() });
    assert!(!service.hook().is_heard());
    service.hook().emit(EventType::Started, |_| panic!("an event that nobody hears"));
    service.hook().measure(|| panic!("a number that nobody hears"));
    assert!(!service.register_event_processor(Arc::new(Noting::default())));
    assert_eq!(service.recent(&EventFilter::default(), 10).await.unwrap().0, []);
}

#[derive(Default)]
struct Counting {
    events: AtomicU64,
    measured: Mutex<Vec<Measurement>>,
}

impl EventSink for Counting {
    fn record(&self, events: &[Event]) {
        self.events.fetch_add(events.len() as u64, Ordering::Relaxed);
    }

    fn measure(&self, measurement: &Measurement) {
        self.measured.lock().unwrap().push(measurement.clone());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turned_off_nothing_is_kept_but_a_sink_hears_all() {
    let service = EventService::new(memory().await, &EventsConfig { enabled: false, ..EventsConfig::default() });
    let counting = Arc::new(Counting::default());
    service.hook().add(Arc::clone(&counting) as Arc<dyn EventSink>);
    tell(&service, EventType::Started, "job-1");
    let settled = Measurement::Settled { jobs: 3, took: Duration::from_millis(2) };
    service.hook().measure(|| settled.clone());
    assert_eq!(counting.events.load(Ordering::Relaxed), 1);
    assert_eq!(*counting.measured.lock().unwrap(), [settled]);
    assert!(service.flush(PATIENCE).await);
    assert_eq!((service.recent(&EventFilter::default(), 10).await.unwrap().0, service.dropped()), (Vec::new(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_leave_out_heartbeats_and_short_jobs() {
    let config = EventsConfig {
        filters: naq_config::EventFiltersConfig {
            exclude_heartbeats: true,
            min_job_duration: Duration::from_millis(5),
        },
        ..EventsConfig::default()
    };
    let service = EventService::new(memory().await, &config);
    tell(&service, EventType::WorkerHeartbeat, "a");
    tell(&service, EventType::Completed, "short");
    tell(&service, EventType::Failed, "short");
    assert!(service.flush(PATIENCE).await);
    assert_eq!(names(&service.recent(&EventFilter::default(), 10).await.unwrap().0), ["failed"]);
    assert_eq!(service.dropped(), 0, "what is left out is not dropped");
}

#[derive(Default)]
struct Noting {
    seen: Mutex<Vec<EventType>>,
}

#[async_trait]
impl EventProcessor for Noting {
    fn name(&self) -> &str {
        "noting"
    }

    async fn process(&self, events: &[Event]) {
        for event in events {
            self.seen.lock().unwrap().push(event.event_type.clone());
            assert!(event.event_type != EventType::Failed, "a panic of the test");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_sees_events_and_its_panics_hurt_nobody() {
    let service = EventService::new(memory().await, &EventsConfig::default());
    let noting = Arc::new(Noting::default());
    assert!(service.register_event_processor(Arc::clone(&noting) as Arc<dyn EventProcessor>));
    tell(&service, EventType::Started, "job-1");
    tell(&service, EventType::Failed, "job-1");
    // What is told together is seen together, and a panic costs all that is seen in one call.
    let begun = Instant::now();
    while noting.seen.lock().unwrap().len() < 2 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tell(&service, EventType::Completed, "job-1");
    service.close().await;
    let seen = noting.seen.lock().unwrap().clone();
    assert_eq!(seen, [EventType::Started, EventType::Failed, EventType::Completed]);
    assert_eq!(service.history(&JobId::new("job-1").unwrap()).await.unwrap().len(), 3);
}

/// Batch number `n` of a hundred jobs.
fn batch(n: u32) -> EventBatch {
    let time = Timestamp::from_unix_millis(1_795_304_000_000 + i64::from(n)).unwrap();
    let jobs = (0..100).map(|job| JobId::new(format!("job-{}", n * 100 + job)).unwrap());
    let events: Vec<Event> = jobs
        .map(|job| {
            let mut event = Event::new(hook::next_id(time), EventType::Completed).of_job(job, QueueName::default());
            event.details.duration = Some(Duration::from_millis(3));
            event
        })
        .collect();
    event::encode(&events).pop().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_go_when_they_are_too_old_or_too_many() {
    let dir = tempfile::TempDir::new().unwrap();
    let open = |max_age: Duration, max_bytes| {
        let events = EventRetention { max_age, max_bytes };
        sqlite::open(SqliteOptions { events, ..SqliteOptions::file(dir.path().join("naq.db")) })
    };
    let size = batch(20).body.len() as u64;
    let long = Duration::from_secs(100 * 365 * 24 * 3600);
    let store = open(long, 10 * size + size / 2).await.unwrap();
    store.append_events((0..30).map(batch).collect()).await.unwrap();
    let before = store.event_bounds().await.unwrap();
    assert_eq!(store.sweep(1000).await.unwrap(), 19, "a body too much is kept whole");
    let after = store.event_bounds().await.unwrap();
    assert_eq!((after.last, after.first), (before.last, before.first + 19));
    assert_eq!(store.sweep(1000).await.unwrap(), 0);
    store.close().await;
    // They happened a second after 1 795 304 000 s, whenever this runs: far off, or long ago.
    let store = open(Duration::from_millis(1), u64::MAX).await.unwrap();
    let old: Vec<EventBatch> =
        (0..3).map(|n| EventBatch { last: Timestamp::EPOCH, first: Timestamp::EPOCH, ..batch(n) }).collect();
    let fresh = batch(4);
    let fresh = EventBatch { last: store.now().await.unwrap().saturating_add(long), ..fresh };
    store.append_events([old, vec![fresh]].concat()).await.unwrap();
    store.sweep(1000).await.unwrap();
    let left = store.event_bounds().await.unwrap();
    assert!(left.last >= left.first && left.last > before.last, "{left:?}: what is fresh stays");
    store.close().await;
}

/// The promise is 200 ms; unoptimized code on a loaded machine gets more time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_job_is_found_among_a_million_events() {
    let dir = tempfile::TempDir::new().unwrap();
    let storage = sqlite::open(SqliteOptions::file(dir.path().join("naq.db"))).await.unwrap();
    let mut one = batch(0);
    for n in 0..10_000u32 {
        // The body is that of the first: only its size counts for who looks for another job.
        one.jobs = (0..100).map(|job| fingerprint(&JobId::new(format!("job-{}", n * 100 + job)).unwrap())).collect();
        let stored = if n == 4_567 { batch(n) } else { one.clone() };
        storage.append_events(vec![stored]).await.unwrap();
    }
    let service = EventService::new(storage.clone(), &EventsConfig { enabled: false, ..EventsConfig::default() });
    let begun = Instant::now();
    let history = service.history(&JobId::new("job-456789").unwrap()).await.unwrap();
    let took = begun.elapsed();
    assert_eq!(names(&history), ["completed"]);
    assert!(took < Duration::from_secs(1), "{took:?}");
    storage.close().await;
}
