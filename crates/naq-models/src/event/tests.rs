//! Golden JSON of events, and that stored batches give back what went in.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn origin() -> EventOrigin {
    EventOrigin::new([1, 2, 3, 4, 5, 6])
}

fn at(millis: i64, number: u32, event_type: EventType) -> Event {
    Event::new(EventId::new(Timestamp::from_unix_millis(millis).unwrap(), origin(), number), event_type)
}

fn job_event(number: u32, event_type: EventType) -> Event {
    let id = JobId::new("order-17").unwrap();
    let mut event = at(1_795_304_000_123, number, event_type).of_job(id, QueueName::new("mail").unwrap());
    event.kind = Some("send_mail".into());
    event.attempt = Some(2);
    event
}

#[test]
fn a_job_event_on_the_wire() {
    let mut event = job_event(7, EventType::RetryScheduled);
    event.worker_id = Some("host-1-00000001".into());
    event.details.duration = Some(Duration::from_micros(1_500));
    event.details.run_at = Timestamp::from_unix_millis(1_795_304_005_123);
    event = event.with_error(&JobError::new("smtp", "no route", Timestamp::EPOCH));
    let golden = json!({
        "id": "01a200750a7b71028304050600000007",
        "time": "2026-11-21T23:33:20.123Z",
        "type": "retry_scheduled",
        "job_id": "order-17",
        "queue": "mail",
        "kind": "send_mail",
        "attempt": 2,
        "worker_id": "host-1-00000001",
        "details": {
            "duration": 0.0015,
            "run_at": "2026-11-21T23:33:25.123Z",
            "error_type": "smtp",
            "message": "no route",
        },
    });
    let written = serde_json::to_value(&event).unwrap();
    assert_eq!(written["type"], golden["type"]);
    assert_eq!(written, golden);
    assert_eq!(serde_json::from_value::<Event>(golden).unwrap(), event);
}

#[test]
fn an_event_of_a_later_version_stays_readable() {
    let mut value = serde_json::to_value(job_event(7, EventType::Started)).unwrap();
    value["type"] = json!("teleported");
    value["planet"] = json!("mars");
    value["details"] = json!({ "wait": 1.0, "fuel": [1, 2] });
    let event: Event = serde_json::from_value(value).unwrap();
    assert_eq!(event.event_type, EventType::Other("teleported".into()));
    assert_eq!(event.event_type.category(), EventCategory::Other);
    assert_eq!(event.details.wait, Some(Duration::from_secs(1)));
    assert_eq!(serde_json::to_value(&event).unwrap()["type"], "teleported");
}

/// Other programs look for these names.
#[test]
fn names_of_types_are_stable() {
    let names: Vec<&str> = EventType::ALL.iter().map(EventType::as_str).collect();
    assert_eq!(
        names.join(" "),
        "enqueued scheduled waiting started progress completed failed retry_scheduled snoozed cancelled dead_lettered requeued \
         rescheduled handed_back worker_started worker_stopped worker_idle worker_busy worker_heartbeat worker_error \
         schedule_created schedule_modified schedule_paused schedule_resumed schedule_cancelled schedule_triggered \
         schedule_error leader_elected leader_lost queue_paused queue_resumed queue_purged events_dropped"
    );
    for event_type in EventType::ALL {
        assert_eq!(event_type.as_str().parse::<EventType>().as_ref(), Ok(event_type));
    }
    assert!("complete".parse::<EventType>().unwrap_err().to_string().contains("did you mean completed?"));
}

#[test]
fn a_batch_on_the_wire() {
    let mut ended = job_event(8, EventType::Completed);
    ended.id = EventId::new(ended.time.saturating_add(Duration::from_millis(4)), origin(), 8);
    ended.time = ended.id.time();
    ended.details.duration = Some(Duration::from_millis(4));
    let idle = at(1_795_304_000_128, 9, EventType::WorkerIdle);
    let batches = encode(&[job_event(7, EventType::Started), ended, idle]);
    let [batch] = &batches[..] else { panic!("{} batches", batches.len()) };
    assert_eq!(
        serde_json::from_slice::<Value>(&batch.body).unwrap(),
        json!({
            "v": 1,
            "time": "2026-11-21T23:33:20.123Z",
            "origin": "710283040506",
            "type": "started",
            "queue": "mail",
            "kind": "send_mail",
            "attempt": 2,
            "events": [
                { "n": 7, "job_id": "order-17" },
                { "n": 8, "ms": 4, "type": "completed", "job_id": "order-17", "details": { "duration": 0.004 } },
                { "n": 9, "ms": 5, "type": "worker_idle", "queue": null, "kind": null, "attempt": null },
            ],
        })
    );
    assert_eq!(batch.jobs, [fingerprint(&JobId::new("order-17").unwrap())]);
    assert_eq!((batch.first.unix_millis(), batch.last.unix_millis()), (1_795_304_000_123, 1_795_304_000_128));
}

/// Stored by every version: it must never change.
#[test]
fn fingerprints_are_fnv_1a() {
    assert_eq!(fingerprint(&JobId::new("a").unwrap()), 0xe40c_292c);
    assert_eq!(fingerprint(&JobId::new("foobar").unwrap()), 0xbf9c_f968);
}

#[test]
fn what_is_no_batch_is_refused_and_a_later_version_told_apart() {
    assert!(matches!(decode(b"{}"), Err(BatchError::Malformed(_))));
    assert!(matches!(decode(b"\xff\x00"), Err(BatchError::Malformed(_))));
    assert!(matches!(decode(br#"{"v":2,"rows":[]}"#), Err(BatchError::Version(2))));
}

#[test]
fn batches_obey_their_bounds() {
    let many: Vec<Event> = (0..2500).map(|n| job_event(n, EventType::Started)).collect();
    let counts: Vec<usize> = encode(&many).iter().map(|batch| batch.count).collect();
    assert_eq!(counts, [1000, 1000, 500]);
    let long: Vec<Event> =
        (0..1000).map(|n| job_event(n, EventType::Failed).with_message(&"ä\u{1}".repeat(2000))).collect();
    assert!(encode(&long).iter().all(|batch| batch.body.len() < 256 * 1024));
}

#[test]
fn stats_count_by_kind_error_and_worker() {
    let mut stats = EventStatsBuilder::default();
    for n in 1..=100 {
        let mut started = job_event(n, EventType::Started);
        started.worker_id = Some("w".into());
        started.details.wait = Some(Duration::from_millis(u64::from(n)));
        let mut ended = job_event(n, if n <= 90 { EventType::Completed } else { EventType::RetryScheduled });
        ended.worker_id = Some("w".into());
        ended.details.duration = Some(Duration::from_millis(u64::from(n) * 10));
        if n > 90 {
            ended = ended.with_error(&JobError::new("smtp", format!("no route {n}"), Timestamp::EPOCH));
        }
        stats.add(&started);
        stats.add(&ended);
    }
    let since = Timestamp::from_unix_millis(1_795_303_990_000).unwrap();
    let stats = stats.finish(since, since.saturating_add(Duration::from_secs(50)));
    assert_eq!((stats.events, stats.types["started"], stats.rates["started"]), (200, 100, 2.0));
    let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.021;
    assert!(near(stats.wait.p50, 0.05) && near(stats.wait.p99, 0.099) && stats.wait.max == 0.1, "{:?}", stats.wait);
    assert!(near(stats.run.p95, 0.95) && stats.run.count == 100, "{:?}", stats.run);
    let [kind] = &stats.kinds[..] else { panic!("{:?}", stats.kinds) };
    assert_eq!((kind.kind.as_str(), kind.completed, kind.retried), ("send_mail", 90, 10));
    let [failure] = &stats.failures[..] else { panic!("{:?}", stats.failures) };
    assert_eq!((failure.error_type.as_str(), failure.count), ("smtp", 10));
    assert_eq!(failure.last_message, "no route 100");
    let [worker] = &stats.workers[..] else { panic!("{:?}", stats.workers) };
    assert_eq!((worker.completed, worker.retried, worker.busy), (90, 10, 50.5));
}

prop_compose! {
    fn any_event()(
        millis in 0i64..(1 << 47),
        random: [u8; 6],
        number: u32,
        event_type in prop::sample::select(EventType::ALL),
        job in prop::option::of("[a-z0-9]{1,40}"),
        queue in prop::option::of("[ab]"),
        kind in prop::option::of("\\PC{0,10}"),
        attempt in prop::option::of(0u32..4),
        worker in prop::option::of("[vw]"),
        schedule in prop::option::of("[st]"),
        wait in prop::option::of(0u64..(1 << 45)),
        message in prop::option::of("\\PC{0,20}"),
    ) -> Event {
        let time = Timestamp::from_unix_millis(millis).unwrap();
        let mut event = Event::new(EventId::new(time, EventOrigin::new(random), number), event_type);
        event.job_id = job.map(|id| JobId::new(id).unwrap());
        event.queue = queue.map(|name| QueueName::new(name).unwrap());
        event.kind = kind.map(Into::into);
        event.attempt = attempt;
        event.worker_id = worker.map(Into::into);
        event.schedule_id = schedule.map(|id| ScheduleId::new(id).unwrap());
        event.details.wait = wait.map(Duration::from_micros);
        event.details.message = message.map(Into::into);
        event
    }
}

proptest! {
    #[test]
    fn batches_give_back_what_went_in(events in prop::collection::vec(any_event(), 1..20)) {
        let batches = encode(&events);
        let mut back = Vec::new();
        for batch in &batches {
            prop_assert!(batch.jobs.is_sorted());
            back.extend(decode(&batch.body).unwrap());
        }
        for (found, event) in back.iter().zip(&events) {
            prop_assert_eq!(found.id.to_string().parse::<EventId>(), Ok(found.id));
            let job = event.job_id.as_ref().map(fingerprint);
            prop_assert!(job.is_none_or(|job| batches.iter().any(|batch| batch.jobs.binary_search(&job).is_ok())));
        }
        prop_assert_eq!(back, events);
    }
}
