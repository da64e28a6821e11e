//! What counting costs those who tell: no allocation, and little time. Alone in its binary, as it counts allocations.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use naq_models::{
    JobId, QueueName, Timestamp,
    event::{Event, EventId, EventOrigin, EventType},
};
use naq_services::{EventSink, Measurement};
use naq_telemetry::metrics::Metrics;

/// What happens to a hundred jobs of four kinds in two queues.
fn events() -> Arc<[Event]> {
    let kinds: [Arc<str>; 4] = ["send", "resize", "count", "a.longer_kind::of_job"].map(Arc::from);
    let types = [EventType::Enqueued, EventType::Started, EventType::Completed, EventType::RetryScheduled];
    (0..400u32)
        .map(|n| {
            let id = EventId::new(Timestamp::EPOCH, EventOrigin::new([1; 6]), n);
            let queue = QueueName::new(if n % 3 == 0 { "mail" } else { "default" }).unwrap();
            let event = Event::new(id, types[n as usize % types.len()].clone());
            let mut event = event.of_job(JobId::new(format!("job-{}", n / 4)).unwrap(), queue);
            event.kind = Some(Arc::clone(&kinds[n as usize / 4 % kinds.len()]));
            event.details.wait = Some(Duration::from_millis(u64::from(n)));
            event.details.duration = Some(Duration::from_micros(u64::from(n)));
            event
        })
        .collect()
}

#[test]
fn counting_allocates_only_for_what_it_sees_first() {
    let (metrics, events, worker) = (Metrics::new(), events(), Arc::<str>::from("w"));
    let all = || {
        metrics.record(&events);
        metrics.measure(&Measurement::LeasesExtended { held: 3, lost: 0, unknown: 0 });
        metrics.measure(&Measurement::Settled { jobs: 3, took: Duration::from_millis(3) });
        metrics.measure(&Measurement::Fired { jobs: 3, late: Duration::from_millis(3) });
        metrics.measure(&Measurement::Slots { worker_id: Arc::clone(&worker), slots: 10, running: 3 });
    };
    let first = allocation_counter::measure(all);
    assert!(first.count_total > 0, "the allocations are counted at all");
    let next = allocation_counter::measure(|| (0..100).for_each(|_| all()));
    assert_eq!(next.count_total, 0, "{next:?}");
    assert!(metrics.encode().contains(r#"naq_jobs_started_total{queue="mail",kind="send"}"#));
}

/// Of a job that takes 15 µs in all, three events may take some hundred nanoseconds. Unoptimized code gets more time.
#[test]
fn counting_takes_little_time() {
    let (metrics, events) = (Metrics::new(), events());
    metrics.record(&events);
    let mut took: Vec<Duration> = (0..50)
        .map(|_| {
            let begun = Instant::now();
            metrics.record(&events);
            begun.elapsed() / 400
        })
        .collect();
    took.sort();
    println!("an event of a batch: {:?}", took[25]);
    let one: Vec<Arc<[Event]>> = events.iter().map(|event| Arc::from([event.clone()])).collect();
    let begun = Instant::now();
    one.iter().for_each(|event| metrics.record(event));
    println!("an event alone: {:?}", begun.elapsed() / 400);
    let limit = Duration::from_nanos(if cfg!(debug_assertions) { 10_000 } else { 500 });
    assert!(took[25] < limit, "{took:?}");
}
