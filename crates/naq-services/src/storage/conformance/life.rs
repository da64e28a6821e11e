//! Checks of the store itself: its clock, what it says of itself, and its end.

use std::{slice::from_ref, time::Duration};

use bytes::Bytes;

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq, within},
    scene::{PATIENCE, Running, Scene, enqueue, host_now, job, pending, put, queue},
};
use crate::storage::{Bucket, ConsumerOptions, Ending, ListFilter, QueueOptions, Result, Severity, StorageErrorKind};

/// Catches: a clock that jumps, goes back, or has another zone or unit.
pub(super) async fn the_clock_runs_like_the_hosts(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut last = store.now().await?;
    for n in 0..50 {
        let now = within(PATIENCE, "now", if n % 2 == 0 { &other } else { &store }.now()).await??;
        let back = last.since(now);
        ensure!(back < Duration::from_millis(100), "the time went back by {back:?}");
        last = now.max(last);
    }
    let (before, now, after) = (host_now(), store.now().await?, host_now());
    let apart = before.since(now).max(now.since(after));
    ensure!(apart < Duration::from_secs(2), "the store's clock is {apart:?} away from the host's");
    let begun = store.now().await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let passed = store.now().await?.since(begun);
    ensure!(passed >= Duration::from_millis(250), "300 ms passed as {passed:?}");
    Ok(())
}

/// Catches: a healthy store that reports errors, or says nothing of itself.
pub(super) async fn a_healthy_store_has_no_errors(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    put(&store, from_ref(&job("q"))).await?;
    let info = store.info();
    ensure!(!info.backend.is_empty() && !info.location.is_empty() && !info.version.is_empty(), "it says {info:?}");
    let findings = within(PATIENCE, "diagnose", store.diagnose()).await??;
    let errors: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    ensure!(errors.is_empty(), "errors of a healthy store: {errors:?}");
    Ok(())
}

fn refusal<T>(outcome: Result<T>) -> Option<StorageErrorKind> {
    outcome.err().map(|error| error.kind())
}

/// Catches: calls that hang, succeed or crash after the end; a second end that fails; an end of all connections.
pub(super) async fn a_closed_connection_says_so(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let one = job("q");
    put(&store, from_ref(&one)).await?;
    for _ in 0..3 {
        within(PATIENCE, "closing", store.close()).await?;
    }
    let id = &one.id;
    let options = ConsumerOptions {
        worker_id: "w".into(),
        queues: vec![QueueOptions { name: queue("q"), lease: PATIENCE, max_ack_pending: None }],
        running: std::sync::Arc::new(Running::default()),
    };
    let filter = ListFilter { queue: None, statuses: Vec::new(), limit: 10, cursor: None };
    let ending = Ending { address: pending(&one).address, result: None, dead_letter: None, unique_key: None };
    let value = Bytes::from_static(b"x");
    let b = Bucket::Locks;
    let calls = async {
        [
            ("now", refusal(store.now().await)),
            ("enqueue", refusal(enqueue(&store, pending(&job("q"))).await)),
            ("get_job", refusal(store.get_job(id).await)),
            ("list", refusal(store.list(&filter).await)),
            ("queue_stats", refusal(store.queue_stats(None).await)),
            ("open_consumer", refusal(store.open_consumer(options).await)),
            ("open_heartbeat", refusal(store.open_heartbeat().await)),
            ("end", refusal(store.end(ending).await)),
            ("requeue", refusal(store.requeue(pending(&one)).await)),
            ("reschedule", refusal(store.reschedule(pending(&one), 1).await)),
            ("remove_dead_letter", refusal(store.remove_dead_letter(id).await)),
            ("open_due_feed", refusal(store.open_due_feed().await)),
            ("get_scheduled", refusal(store.get_scheduled(from_ref(id)).await)),
            ("get_result", refusal(store.get_result(id).await)),
            ("wait_result", refusal(store.wait_result(id, 0, PATIENCE * 10).await)),
            ("open_result_feed", refusal(store.open_result_feed().await)),
            ("sweep", refusal(store.sweep(10).await)),
            ("kv_get", refusal(store.kv_get(b, "k").await)),
            ("kv_create", refusal(store.kv_create(b, "k", value.clone(), None).await)),
            ("kv_update", refusal(store.kv_update(b, "k", value, 1, None).await)),
            ("kv_delete", refusal(store.kv_delete(b, "k", None).await)),
            ("kv_list", refusal(store.kv_list(b, "").await)),
            ("kv_watch", refusal(store.kv_watch(b, "").await)),
        ]
    };
    for (call, found) in within(PATIENCE, "calls after the end", calls).await? {
        ensure_eq!(found, Some(StorageErrorKind::Closed), "{call} after close");
    }
    let alive = other.get_job(id).await.map_err(Failure::from)?;
    ensure_eq!(alive.len(), 1, "sightings over the other connection");
    Ok(())
}
