//! What is counted, by the text that a scrape gets, and that the text keeps the rules of OpenMetrics and Prometheus.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use naq_models::{JobId, QueueName, Timestamp, event::EventOrigin};
use naq_services::EventHook;

use super::{
    queues::{QueueNumber, STATES},
    series::MAX_PAIRS,
    *,
};

fn hooked() -> (Metrics, EventHook) {
    let (metrics, hook) = (Metrics::new(), EventHook::new(None));
    hook.add(Arc::new(metrics.clone()));
    (metrics, hook)
}

fn job(event: Event, queue: &str, kind: &str) -> Event {
    let mut event = event.of_job(JobId::new("j").unwrap(), QueueName::new(queue).unwrap());
    event.kind = Some(kind.into());
    event
}

fn tell(hook: &EventHook, event_type: EventType, queue: &str, kind: &str) {
    hook.emit(event_type, |event| {
        let mut event = job(event, queue, kind);
        event.details.wait = Some(Duration::from_millis(30));
        event.details.duration = Some(Duration::from_millis(700));
        event
    });
}

/// Samples by name and labels, as they are written.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(series, n)| (series, n.parse().unwrap())).collect()
}

#[track_caller]
fn assert_samples(text: &str, expected: &[(&str, f64)]) {
    let found = samples(text);
    for (series, n) in expected {
        assert_eq!(found.get(series), Some(n), "{series} in\n{text}");
    }
}

#[test]
fn jobs_are_counted_by_queue_kind_and_outcome() {
    let (metrics, hook) = hooked();
    for event_type in [EventType::Enqueued, EventType::Scheduled, EventType::Waiting] {
        tell(&hook, event_type, "mail", "send");
    }
    for ended in [EventType::RetryScheduled, EventType::Snoozed, EventType::Completed] {
        tell(&hook, EventType::Started, "mail", "send");
        tell(&hook, ended, "mail", "send");
    }
    tell(&hook, EventType::Failed, "default", "flop");
    tell(&hook, EventType::DeadLettered, "default", "flop");
    hook.emit(EventType::Cancelled, |event| event.of_job(JobId::new("j").unwrap(), QueueName::default()));
    assert_samples(
        &metrics.encode(),
        &[
            (r#"naq_jobs_enqueued_total{queue="mail",kind="send"}"#, 3.0),
            (r#"naq_jobs_started_total{queue="mail",kind="send"}"#, 3.0),
            (r#"naq_jobs_ended_total{queue="mail",kind="send",outcome="completed"}"#, 1.0),
            (r#"naq_jobs_ended_total{queue="mail",kind="send",outcome="retried"}"#, 1.0),
            (r#"naq_jobs_ended_total{queue="mail",kind="send",outcome="snoozed"}"#, 1.0),
            (r#"naq_jobs_ended_total{queue="mail",kind="send",outcome="failed"}"#, 0.0),
            (r#"naq_jobs_ended_total{queue="default",kind="flop",outcome="failed"}"#, 1.0),
            (r#"naq_jobs_ended_total{queue="default",kind="unknown",outcome="cancelled"}"#, 1.0),
            (r#"naq_job_wait_seconds_count{queue="mail",kind="send"}"#, 3.0),
            (r#"naq_job_wait_seconds_sum{queue="mail",kind="send"}"#, 0.09),
            (r#"naq_job_wait_seconds_bucket{le="0.025",queue="mail",kind="send"}"#, 0.0),
            (r#"naq_job_wait_seconds_bucket{le="0.1",queue="mail",kind="send"}"#, 3.0),
            (r#"naq_job_run_seconds_count{queue="mail",kind="send"}"#, 3.0),
            (r#"naq_job_run_seconds_bucket{le="0.5",queue="mail",kind="send"}"#, 0.0),
            (r#"naq_job_run_seconds_bucket{le="+Inf",queue="mail",kind="send"}"#, 3.0),
        ],
    );
}

#[test]
fn what_no_event_says_is_measured() {
    let (metrics, hook) = hooked();
    hook.measure(|| Measurement::LeasesExtended { held: 5, lost: 1, unknown: 2 });
    hook.measure(|| Measurement::LeasesExtended { held: 5, lost: 0, unknown: 0 });
    hook.measure(|| Measurement::Settled { jobs: 100, took: Duration::from_millis(3) });
    hook.measure(|| Measurement::Fired { jobs: 2, late: Duration::from_secs(20) });
    for (worker, slots, running) in [("a", 10, 0), ("b", 4, 4), ("a", 10, 3)] {
        hook.measure(|| Measurement::Slots { worker_id: worker.into(), slots, running });
    }
    let leader = |event_type, holder: &str| {
        hook.emit(event_type, |mut event| {
            event.worker_id = Some(holder.into());
            event
        });
    };
    leader(EventType::LeaderElected, "a");
    leader(EventType::LeaderLost, "b");
    assert_samples(
        &metrics.encode(),
        &[
            (r#"naq_lease_extensions_total{outcome="held"}"#, 10.0),
            (r#"naq_lease_extensions_total{outcome="lost"}"#, 1.0),
            (r#"naq_lease_extensions_total{outcome="unknown"}"#, 2.0),
            ("naq_settle_seconds_count{}", 1.0),
            (r#"naq_settle_seconds_bucket{le="0.0025"}"#, 0.0),
            (r#"naq_settle_seconds_bucket{le="0.005"}"#, 1.0),
            (r#"naq_scheduler_lag_seconds_bucket{le="10.0"}"#, 0.0),
            (r#"naq_scheduler_lag_seconds_bucket{le="+Inf"}"#, 1.0),
            ("naq_scheduler_leader", 1.0),
            ("naq_worker_slots", 14.0),
            ("naq_worker_running", 7.0),
            ("naq_events_dropped_total", 0.0),
        ],
    );
    leader(EventType::LeaderLost, "a");
    hook.measure(|| Measurement::Slots { worker_id: "b".into(), slots: 0, running: 0 });
    assert_samples(
        &metrics.encode(),
        &[("naq_scheduler_leader", 0.0), ("naq_worker_slots", 10.0), ("naq_worker_running", 3.0)],
    );
}

#[test]
fn kinds_without_end_are_counted_together() {
    let (metrics, hook) = hooked();
    for n in 0..MAX_PAIRS + 500 {
        tell(&hook, EventType::Enqueued, "q", &format!("kind-{n}"));
    }
    tell(&hook, EventType::Enqueued, "q", "kind-7");
    tell(&hook, EventType::Enqueued, "later", "kind-7");
    let text = metrics.encode();
    let enqueued = || samples(&text).into_iter().filter(|(series, _)| series.starts_with("naq_jobs_enqueued_total"));
    assert_eq!(enqueued().count(), MAX_PAIRS + 1);
    assert_eq!(enqueued().map(|(_, n)| n).sum::<f64>(), 1502.0);
    let (seven, other) = (r#"{queue="q",kind="kind-7"}"#, r#"{queue="other",kind="other"}"#);
    assert_samples(
        &text,
        &[(&format!("naq_jobs_enqueued_total{seven}"), 2.0), (&format!("naq_jobs_enqueued_total{other}"), 501.0)],
    );
    let long = "k".repeat(201);
    let (metrics, hook) = hooked();
    tell(&hook, EventType::Enqueued, "q", &long);
    tell(&hook, EventType::Enqueued, "other", "other");
    assert_samples(&metrics.encode(), &[(&format!("naq_jobs_enqueued_total{other}"), 2.0)]);
    lint(&metrics.encode());
}

/// The rules that Prometheus and OpenMetrics have for names, types, units and series.
fn lint(text: &str) -> BTreeSet<String> {
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    let (mut families, mut seen) = (BTreeMap::new(), BTreeSet::new());
    let (mut helped, mut current) = (BTreeSet::new(), None);
    for line in text.lines().take_while(|line| *line != "# EOF") {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(help.len() > 10, "{line}");
            assert!(helped.insert(name.to_owned()), "{name} stands twice");
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            assert!(helped.contains(name), "{name} without help");
            assert!(name.starts_with("naq_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            let reserved = ["_total", "_count", "_sum", "_bucket", "_info", "_created"];
            assert!(!reserved.iter().any(|end| name.ends_with(end)), "{name} has a reserved end");
            assert!(families.insert(name.to_owned(), (kind.to_owned(), None)).is_none(), "{name} stands twice");
            current = Some(name.to_owned());
        } else if let Some(unit) = line.strip_prefix("# UNIT ") {
            let (name, unit) = unit.split_once(' ').unwrap();
            assert!(name.ends_with(&format!("_{unit}")) && unit == "seconds", "{line}");
            families.get_mut(name).unwrap().1 = Some(unit.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let family = current.as_deref().unwrap();
            let ends: &[&str] = match families[family].0.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("{family} is a {other}"),
            };
            assert!(ends.iter().any(|end| name == format!("{family}{end}")), "{line} below {family}");
            assert!(seen.insert(series.to_owned()), "{series} stands twice");
            assert!(value.parse::<f64>().is_ok_and(|n| n.is_finite() && n >= 0.0), "{line}");
        }
    }
    for (name, (_, unit)) in &families {
        assert_eq!(name.ends_with("_seconds"), unit.is_some(), "{name} has no unit, or one that its name does not say");
    }
    assert_eq!(helped.len(), families.len());
    histograms_add_up(text);
    families.into_keys().collect()
}

/// Buckets grow, and the last one is the count.
fn histograms_add_up(text: &str) {
    let mut last: HashMap<(&str, String), f64> = HashMap::new();
    for line in text.lines().filter(|line| line.contains("_bucket{le=")) {
        let (series, n) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once("_bucket{le=").unwrap();
        let labels = labels.split_once('"').unwrap().1.split_once('"').unwrap().1.trim_start_matches(',');
        let (n, before) = (n.parse().unwrap(), last.entry((name, labels.to_owned())).or_default());
        assert!(*before <= n, "{line}");
        *before = n;
    }
    let found = samples(text);
    for ((name, labels), n) in last {
        let count = format!("{name}_count{{{labels}");
        assert_eq!(found.get(count.as_str()), Some(&n), "{count}");
    }
}

#[test]
fn the_text_keeps_the_rules() {
    let (metrics, hook) = hooked();
    assert_eq!(lint(&metrics.encode()).len(), 16, "before anything has happened");
    for kind in ["send", "a \"quoted\" \\ kind\nof two lines", "träge"] {
        tell(&hook, EventType::Started, "mail", kind);
        tell(&hook, EventType::Completed, "mail", kind);
    }
    hook.measure(|| Measurement::Fired { jobs: 2, late: Duration::from_secs(20) });
    metrics.numbers.queues.show(vec![queue(0), queue(1)]);
    let text = metrics.encode();
    assert_eq!(lint(&text).len(), 16);
    assert!(text.contains(r#"kind="a \"quoted\" \\ kind\nof two lines""#), "{text}");
    assert_samples(&text, &[(&format!("naq_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0)]);
}

fn queue(n: u64) -> QueueNumber {
    QueueNumber {
        queue: format!("queue-{n:04}").into(),
        jobs: std::array::from_fn(|state| n * 10 + state as u64),
        dead: n,
        oldest_pending: Duration::from_millis(1500 * n),
    }
}

#[test]
fn queues_are_shown_by_state_until_they_are_stale() {
    let metrics = Metrics::new();
    metrics.numbers.queues.show(vec![queue(0), queue(3)]);
    let text = metrics.encode();
    for (n, state) in STATES.iter().enumerate() {
        let series = format!("naq_queue_jobs{{queue=\"queue-0003\",state=\"{state}\"}}");
        assert_samples(&text, &[(&series, 30.0 + n as f64)]);
    }
    assert_samples(
        &text,
        &[
            (r#"naq_queue_oldest_pending_seconds{queue="queue-0003"}"#, 4.5),
            (r#"naq_dead_letters{queue="queue-0003"}"#, 3.0),
            (r#"naq_dead_letters{queue="queue-0000"}"#, 0.0),
        ],
    );
    metrics.numbers.queues.outdate();
    assert!(!metrics.encode().contains("queue-0003"), "old numbers are not shown as if they were true");
}

#[test]
fn a_registry_of_a_users_own_takes_them() {
    let (metrics, hook) = hooked();
    tell(&hook, EventType::Enqueued, "q", "k");
    let mut registry = Registry::default();
    registry.register_collector(metrics.collector());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert_samples(&text, &[(r#"naq_jobs_enqueued_total{queue="q",kind="k"}"#, 1.0)]);
}

/// What this thread has used: nothing in a scrape waits, so that it takes no longer where there is a free core.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}

/// The promise is 50 ms; unoptimized code gets more time.
#[test]
fn a_scrape_of_a_thousand_queues_takes_less_than_50_ms() {
    let (metrics, hook) = hooked();
    for n in 0..1000 {
        for event_type in [EventType::Enqueued, EventType::Started, EventType::Completed] {
            tell(&hook, event_type, &format!("queue-{n:04}"), "send_a_mail");
        }
    }
    metrics.numbers.queues.show((0..1000).map(queue).collect());
    let mut took: Vec<Duration> = (0..9)
        .map(|_| {
            let begun = cpu_time();
            let text = metrics.encode();
            assert!(text.len() > 3_000_000, "{}", text.len());
            cpu_time() - begun
        })
        .collect();
    took.sort();
    println!("a scrape of {} KiB: {took:?}", metrics.encode().len() / 1024);
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 50 });
    assert!(took[4] < limit, "{took:?}");
}

#[test]
fn an_event_of_a_later_version_is_passed_over() {
    let (metrics, hook) = hooked();
    hook.emit_all(|| {
        let id = naq_models::event::EventId::new(Timestamp::EPOCH, EventOrigin::new([1; 6]), 1);
        vec![
            job(Event::new(id, EventType::named("teleported")), "q", "k"),
            job(Event::new(id, EventType::Started), "q", "k"),
        ]
    });
    assert_samples(&metrics.encode(), &[(r#"naq_jobs_started_total{queue="q",kind="k"}"#, 1.0)]);
}
