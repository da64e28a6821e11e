//! The log of events: one job among very many, limits, and followers over a kill of the server.

use std::time::{Duration, Instant};

use naq_config::EventsConfig;
use naq_models::{
    Event, EventId, EventType, JobId, QueueName, Timestamp,
    event::{EventBatch, EventOrigin, encode, fingerprint},
};
use naq_services::{
    EventService,
    storage::{EventRange, EventRetention, nats, nats::EventStream},
};

use crate::server::on_each_server;

/// Batch number `n` of a hundred jobs.
fn batch(n: u32) -> EventBatch {
    let event = |job| {
        let id = EventId::new(Timestamp::from_unix_millis(1_795_304_000_000).unwrap(), EventOrigin::new([7; 6]), job);
        let mut event = Event::new(id, EventType::Completed);
        event = event.of_job(JobId::new(format!("job-{job}")).unwrap(), QueueName::default());
        event.details.duration = Some(Duration::from_millis(3));
        event
    };
    let events: Vec<Event> = (n * 100..n * 100 + 100).map(event).collect();
    encode(&events).pop().unwrap()
}

/// Catches: a search that reads bodies, or every batch one by one. Unoptimized code on a loaded machine gets more time.
#[tokio::test(flavor = "multi_thread")]
async fn one_job_is_found_among_a_hundred_thousand_events() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let first = batch(0);
        let batches = (0..1_000u32).map(|n| {
            if n == 456 {
                return batch(n);
            }
            // The body is that of the first: only its size counts for who looks for another job.
            let jobs = (n * 100..n * 100 + 100).map(|job| fingerprint(&JobId::new(format!("job-{job}")).unwrap()));
            EventBatch { id: batch_id(n), jobs: jobs.collect(), ..first.clone() }
        });
        let batches: Vec<EventBatch> = batches.collect();
        for some in batches.chunks(500) {
            storage.append_events(some.to_vec()).await.unwrap();
        }
        assert_eq!(storage.event_bounds().await.unwrap().last, 1_000);
        let off = EventsConfig { enabled: false, ..EventsConfig::default() };
        let service = EventService::new(storage.clone(), &off);
        let begun = Instant::now();
        let history = service.history(&JobId::new("job-45678").unwrap()).await.unwrap();
        let took = begun.elapsed();
        println!("found in {took:?}");
        assert_eq!(history.len(), 1);
        assert!(took < Duration::from_secs(3), "{took:?}");
        storage.close().await;
    })
    .await;
}

fn batch_id(n: u32) -> EventId {
    EventId::new(Timestamp::EPOCH, EventOrigin::new([9; 6]), n)
}

/// Catches: a batch that is stored twice because its answer was lost, and one that a follower misses or sees twice when
/// the server is killed.
#[tokio::test(flavor = "multi_thread")]
async fn followers_go_on_after_the_server_was_killed() {
    on_each_server(async |mut server| {
        let storage = server.open().await;
        storage.append_events(vec![batch(0), batch(1)]).await.unwrap();
        storage.append_events(vec![batch(1)]).await.unwrap();
        let mut feed = storage.tail_events(0).await.unwrap();
        let mut found = Vec::new();
        while found.len() < 2 {
            found.extend(feed.next().await);
        }
        // Long enough for the server to have written what it acknowledged.
        server.kill();
        server.restart();
        let appending = async {
            while let Err(error) = storage.append_events(vec![batch(2)]).await {
                assert!(error.is_transient(), "{error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let following = async {
            while found.len() < 3 {
                found.extend(feed.next().await);
            }
        };
        let both = async { tokio::join!(appending, following) };
        tokio::time::timeout(Duration::from_secs(40), both).await.expect("the feed does not go on");
        let bodies: Vec<Vec<u8>> = found.iter().map(|stored| stored.body.to_vec()).collect();
        assert_eq!(bodies, [batch(0).body, batch(1).body, batch(2).body]);
        storage.close().await;
    })
    .await;
}

/// Catches: limits of a configuration that an existing stream keeps from an earlier one.
#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_the_configuration_are_those_of_the_stream() {
    on_each_server(async |server| {
        let storage = server.open().await;
        storage.append_events((0..20).map(batch).collect()).await.unwrap();
        storage.close().await;
        let size = batch(0).body.len() as u64;
        let retention = EventRetention { max_age: Duration::from_secs(3600), max_bytes: 6 * size };
        let events = EventStream { retention, ..EventStream::default() };
        let storage = nats::open(nats::NatsOptions { events, ..server.options() }).await.unwrap();
        storage.append_events(vec![batch(20)]).await.unwrap();
        let page = storage.read_events(&EventRange::first(64)).await.unwrap();
        let newest = page.batches.last().unwrap();
        assert!((1..=6).contains(&page.batches.len()), "{} batches are left", page.batches.len());
        assert_eq!(newest.body, batch(20).body);
        storage.close().await;
    })
    .await;
}
