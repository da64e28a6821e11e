//! The server of a program that runs a worker by itself: what it answers, when it listens, and the queues of a real store.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use naq_config::EventsConfig;
use naq_models::QueueName;
use naq_services::{
    EventService, JobService, JobSettings, NewJob,
    storage::sqlite::{self, SqliteOptions},
};
use naq_telemetry::{
    http::{Probes, Server},
    metrics::Metrics,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: naq\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn start(ready: &Arc<AtomicBool>, metrics: &Metrics) -> Server {
    let ready = Arc::clone(ready);
    let ready = move || if ready.load(Ordering::Relaxed) { Ok(()) } else { Err("not yet".to_owned()) };
    let probes = Probes { alive: Box::new(|| Ok(())), ready: Box::new(ready) };
    Server::start("127.0.0.1:0".parse().unwrap(), metrics.clone(), probes).unwrap()
}

#[test]
fn probes_and_paths_are_answered_until_it_is_dropped() {
    let ready = Arc::new(AtomicBool::new(false));
    let server = start(&ready, &Metrics::new());
    let address = server.address();
    assert!(ask(address, "GET /healthz").starts_with("HTTP/1.1 200 "));
    let answer = ask(address, "GET /readyz");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\nnot yet\n"), "{answer}");
    ready.store(true, Ordering::Relaxed);
    assert!(ask(address, "GET /readyz").starts_with("HTTP/1.1 200 "));
    assert!(ask(address, "HEAD /metrics").starts_with("HTTP/1.1 200 "));
    assert!(ask(address, "GET /").starts_with("HTTP/1.1 404 "));
    assert!(ask(address, "POST /metrics").starts_with("HTTP/1.1 405 "));

    let probes = Probes { alive: Box::new(|| Ok(())), ready: Box::new(|| Ok(())) };
    let error = Server::start(address, Metrics::new(), probes).unwrap_err();
    assert!(error.is_taken() && error.address == address, "{error:?}");

    let begun = Instant::now();
    drop(server);
    assert!(begun.elapsed() < Duration::from_millis(100), "dropping does not wait");
    while TcpStream::connect(address).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it still listens");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_read_beside_scrapes_and_without_stored_events() {
    let storage = sqlite::open(SqliteOptions::memory("scraped")).await.unwrap();
    let off = EventsConfig { enabled: false, ..EventsConfig::default() };
    let events = Arc::new(EventService::new(Arc::clone(&storage), &off));
    let metrics = Metrics::new();
    events.hook().add(Arc::new(metrics.clone()));
    let jobs = JobService::new(Arc::clone(&storage), JobSettings::default()).with_events(events.hook().clone());
    let queue = QueueName::new("mail").unwrap();
    for _ in 0..3 {
        jobs.enqueue(NewJob::new("send", serde_json::json!({})).queue(&queue)).await.unwrap();
    }
    let server = start(&Arc::default(), &metrics);
    let enqueued = r#"naq_jobs_enqueued_total{queue="mail",kind="send"} 3"#;
    let begun = Instant::now();
    let first = tokio::task::block_in_place(|| ask(server.address(), "GET /metrics"));
    assert!(first.contains(enqueued) && !first.contains("naq_queue_jobs{"), "no store, no queues: {first}");
    assert!(begun.elapsed() < Duration::from_secs(5), "it waited for a store");
    metrics.set_events(events);
    metrics.set_store(storage);
    let pending = r#"naq_queue_jobs{queue="mail",state="pending"} 3"#;
    while !metrics.encode().contains(pending) {
        assert!(begun.elapsed() < PATIENCE, "{}", metrics.encode());
        tokio::task::yield_now().await;
    }
    assert!(metrics.encode().contains(r#"naq_queue_oldest_pending_seconds{queue="mail"} "#));
}
