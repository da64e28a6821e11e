//! Checks of what enters: receipts, duplicates, bodies and their limit.

use std::time::Duration;

use bytes::Bytes;
use naq_models::{JobStatus, Timestamp};
use tokio::task::JoinSet;

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq, eventually, within},
    scene::{
        LONG, PATIENCE, Puller, QUIET, Scene, at_priority, claimed_ids, complete, end_with, enqueue, host_now, ids,
        job, jobs, named, pending, put, put_entries, queue, result_of, same_order, scheduled, settle, settlement,
    },
};
use crate::storage::{Action, Enqueued, Entry, ListFilter, Settled, SharedStorage, Sighting, StorageErrorKind};

fn in_an_hour() -> Timestamp {
    host_now().saturating_add(Duration::from_secs(3600))
}

/// How many jobs of any queue the store lists as waiting or running.
async fn queued(store: &SharedStorage) -> Result<usize, Failure> {
    let filter = ListFilter { queue: None, statuses: vec![JobStatus::Pending], limit: 100, cursor: None };
    Ok(store.list(&filter).await?.items.len())
}

/// Catches: outcomes in the order of commits instead of the batch; a bad entry that spoils its neighbours.
pub(super) async fn receipts_follow_the_batch(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let taken = named("taken", "q");
    put(&store, std::slice::from_ref(&taken)).await?;
    let mut too_large = pending(&job("q"));
    too_large.body = Bytes::from(vec![b'x'; store.info().max_body + 1]);
    let (first, second) = (job("q"), job("other"));
    let batch = vec![pending(&first), pending(&taken), too_large, scheduled(&second, in_an_hour()), pending(&taken)];
    let outcomes = within(PATIENCE, "enqueueing", store.enqueue(batch)).await?;
    let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.map_err(|error| error.kind())).collect();
    let expected = vec![
        Ok(Enqueued::Stored),
        Ok(Enqueued::Duplicate),
        Err(StorageErrorKind::TooLarge),
        Ok(Enqueued::Stored),
        Ok(Enqueued::Duplicate),
    ];
    ensure_eq!(outcomes, expected, "outcomes of a mixed batch");
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(10);
    ensure_eq!(claimed_ids(&puller.take(2).await?), ids(&[taken, first]), "what was stored of the batch");
    puller.nothing_for(QUIET).await
}

/// Catches: a receipt that is given before the job is in the store, or jobs that belong to a connection.
pub(super) async fn an_acknowledged_job_outlives_its_connection(scene: Scene) -> Verdict {
    let (writer, reader) = scene.pair().await?;
    let (now, later) = (job("q"), job("q"));
    put_entries(&writer, vec![pending(&now), scheduled(&later, in_an_hour())]).await?;
    within(PATIENCE, "closing", writer.close()).await?;
    ensure_eq!(reader.get_job(&now.id).await?.len(), 1, "sightings of a pending job");
    ensure_eq!(reader.get_job(&later.id).await?.len(), 1, "sightings of a scheduled job");
    let mut puller = Puller::open(&reader, "w", &["q"], LONG).await?;
    ensure_eq!(puller.one().await?.address.id, now.id, "the claimed job");
    Ok(())
}

/// Catches: ids that are unique per queue or priority instead of per store.
pub(super) async fn a_queued_id_is_refused_everywhere(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let first = named("order-17", "q");
    put(&store, std::slice::from_ref(&first)).await?;
    for (what, again) in [
        ("same place", first.clone()),
        ("other priority", at_priority(first.clone(), 0)),
        ("other queue", named("order-17", "elsewhere")),
    ] {
        ensure_eq!(enqueue(&store, pending(&again)).await?, Enqueued::Duplicate, "{what}");
        ensure_eq!(enqueue(&other, pending(&again)).await?, Enqueued::Duplicate, "{what}, other connection");
        let outcome = enqueue(&other, scheduled(&again, in_an_hour())).await?;
        ensure_eq!(outcome, Enqueued::Duplicate, "{what}, scheduled");
    }
    ensure_eq!(queued(&store).await?, 1, "jobs in all queues");
    Ok(())
}

/// Catches: a generated id stored twice in its own lane, for example by a retry of the caller.
pub(super) async fn a_generated_id_is_refused_in_its_lane(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let first = job("q");
    put(&store, std::slice::from_ref(&first)).await?;
    ensure_eq!(enqueue(&store, pending(&first)).await?, Enqueued::Duplicate, "same connection");
    ensure_eq!(enqueue(&other, pending(&first)).await?, Enqueued::Duplicate, "other connection");
    let twice = job("q");
    let outcomes = store.enqueue(vec![pending(&twice), pending(&twice)]).await;
    let stored = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Enqueued::Stored))).count();
    ensure_eq!((outcomes.len(), stored), (2, 1), "(outcomes, stored) of an id twice in one batch");
    ensure_eq!(queued(&store).await?, 2, "jobs in all queues");
    Ok(())
}

/// Catches: an id check that looks into the queues only.
pub(super) async fn a_scheduled_id_is_refused(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let later = named("later", "q");
    put_entries(&store, vec![scheduled(&later, in_an_hour())]).await?;
    ensure_eq!(enqueue(&store, pending(&later)).await?, Enqueued::Duplicate, "pending");
    ensure_eq!(enqueue(&store, scheduled(&later, in_an_hour())).await?, Enqueued::Duplicate, "scheduled again");
    ensure_eq!(enqueue(&store, pending(&named("later", "other"))).await?, Enqueued::Duplicate, "other queue");
    ensure_eq!(queued(&store).await?, 0, "jobs in all queues");
    let generated = job("q");
    put_entries(&store, vec![scheduled(&generated, in_an_hour())]).await?;
    let outcome = enqueue(&store, scheduled(&generated, in_an_hour())).await?;
    ensure_eq!(outcome, Enqueued::Duplicate, "a generated id, scheduled again");
    Ok(())
}

/// Catches: an id check that forgets claimed jobs.
pub(super) async fn a_running_id_is_refused(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let running = named("running", "q");
    put(&store, std::slice::from_ref(&running)).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    let claim = puller.one().await?;
    ensure_eq!(enqueue(&store, pending(&running)).await?, Enqueued::Duplicate, "same place");
    ensure_eq!(enqueue(&store, pending(&named("running", "other"))).await?, Enqueued::Duplicate, "other queue");
    complete(&store, &claim, &running, "first").await?;
    puller.demand(5);
    puller.nothing_for(QUIET).await
}

/// Catches: a job that runs a second time because its id was forgotten when it ended.
pub(super) async fn an_id_with_a_kept_result_is_refused(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let done = named("done", "q");
    put(&store, std::slice::from_ref(&done)).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    let claim = puller.one().await?;
    complete(&store, &claim, &done, "first").await?;
    ensure_eq!(enqueue(&store, pending(&done)).await?, Enqueued::Duplicate, "same place");
    ensure_eq!(enqueue(&store, pending(&named("done", "other"))).await?, Enqueued::Duplicate, "other queue");
    ensure_eq!(enqueue(&store, scheduled(&done, in_an_hour())).await?, Enqueued::Duplicate, "scheduled");
    ensure_eq!(queued(&store).await?, 0, "jobs in all queues");
    Ok(())
}

/// Catches: ids that stay taken for ever.
pub(super) async fn an_id_is_free_again_after_its_result_expired(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let again = named("nightly", "q");
    put(&store, std::slice::from_ref(&again)).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    let claim = puller.one().await?;
    let mut result = result_of(&again, JobStatus::Completed, "first");
    result.ttl = Duration::from_secs(1);
    ensure_eq!(settle(&*store, settlement(&claim, end_with(result))).await?, Settled::Done, "completing");
    ensure_eq!(enqueue(&store, pending(&again)).await?, Enqueued::Duplicate, "while the result is kept");
    eventually(PATIENCE, "the id is free after its result expired", async || {
        Ok(enqueue(&store, pending(&again)).await? == Enqueued::Stored)
    })
    .await?;
    ensure_eq!(puller.one().await?.address.id, again.id, "the claimed job");
    Ok(())
}

/// Catches: ids of jobs without a result that stay taken, or are kept by a guess.
pub(super) async fn an_id_without_kept_result_is_free_at_once(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let again = named("tick", "q");
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    for _ in 0..3 {
        put(&store, std::slice::from_ref(&again)).await?;
        let claim = puller.one().await?;
        let end = Action::End { result: None, dead_letter: None, unique_key: None };
        ensure_eq!(settle(&*store, settlement(&claim, end)).await?, Settled::Done, "ending without a result");
    }
    Ok(())
}

/// Enqueues the entries that `make` gives for 0 to 19 from as many tasks on three connections.
async fn race(scene: &Scene, make: impl Fn(usize) -> Entry) -> Result<Vec<Enqueued>, Failure> {
    let stores = [scene.open().await?, scene.open().await?, scene.open().await?];
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let (store, entry) = (stores[n % 3].clone(), make(n));
        tasks.spawn(async move { enqueue(&store, entry).await });
    }
    let mut outcomes = Vec::new();
    while let Some(outcome) = within(PATIENCE, "twenty enqueues", tasks.join_next()).await? {
        outcomes.push(outcome.map_err(|error| Failure::new(error.to_string()))??);
    }
    Ok(outcomes)
}

/// Catches: look-then-store, where two callers both find the id free.
pub(super) async fn of_twenty_enqueues_of_an_id_one_is_stored(scene: Scene) -> Verdict {
    for (name, racer) in [("chosen", named("racer", "q")), ("generated", job("q"))] {
        let outcomes = race(&scene, |_| pending(&racer)).await?;
        let stored = outcomes.iter().filter(|outcome| **outcome == Enqueued::Stored).count();
        ensure_eq!((outcomes.len(), stored), (20, 1), "(outcomes, stored) of a {name} id");
    }
    let store = scene.open().await?;
    ensure_eq!(queued(&store).await?, 2, "jobs in the queue");
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(20);
    let _claims = puller.take(2).await?;
    puller.nothing_for(QUIET).await
}

/// Catches: the same race where the winners land in different queues, priorities and stores.
pub(super) async fn of_twenty_enqueues_across_queues_one_is_stored(scene: Scene) -> Verdict {
    let outcomes = race(&scene, |n| {
        let job = at_priority(named("racer", ["a", "b", "c"][n % 3]), u8::try_from(n % 4).unwrap_or(0));
        if n % 5 == 0 { scheduled(&job, in_an_hour()) } else { pending(&job) }
    })
    .await?;
    let stored = outcomes.iter().filter(|outcome| **outcome == Enqueued::Stored).count();
    ensure_eq!((outcomes.len(), stored), (20, 1), "(outcomes, stored)");
    let store = scene.open().await?;
    let sightings = store.get_job(&named("racer", "a").id).await?;
    ensure_eq!(sightings.len(), 1, "places where the job lies");
    Ok(())
}

/// Catches: batches that are cut, reordered or only partly stored when they are large.
pub(super) async fn five_thousand_in_one_batch(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let many = jobs("q", 5_000);
    put(&store, &many).await?;
    let outcomes = within(PATIENCE * 3, "again", store.enqueue(many[..200].iter().map(pending).collect())).await?;
    let duplicates = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Enqueued::Duplicate))).count();
    ensure_eq!((outcomes.len(), duplicates), (200, 200), "(outcomes, duplicates) of a repeated part");
    eventually(PATIENCE, "5000 pending", async || {
        let stats = store.queue_stats(Some(&queue("q"))).await?;
        Ok(stats.iter().map(|stats| stats.pending[2]).sum::<u64>() == 5_000)
    })
    .await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(5_000);
    same_order(&claimed_ids(&puller.take_within(PATIENCE * 3, 5_000).await?), &ids(&many))
}

/// Catches: bodies that pass through text, JSON or C strings on their way.
pub(super) async fn hostile_bytes_pass_through(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let bodies: Vec<Bytes> = vec![
        Bytes::new(),
        Bytes::from_static(b"\0"),
        Bytes::from_static(b"\xff\xfe\xc3\x28"),
        Bytes::from_static(b"a\0b\r\n\r\n"),
        Bytes::from_static(b"NATS/1.0\r\nNats-TTL: 1s\r\n\r\n"),
        Bytes::from_static(b"'; DROP TABLE jobs; --"),
        Bytes::from_static(b"null"),
        (0..=255).collect(),
    ];
    let (now, later) = (jobs("q", bodies.len()), jobs("q", bodies.len()));
    let mut entries = Vec::new();
    for (n, body) in bodies.iter().enumerate() {
        entries.push(Entry { body: body.clone(), ..pending(&now[n]) });
        entries.push(Entry { body: body.clone(), ..scheduled(&later[n], in_an_hour()) });
    }
    put_entries(&store, entries).await?;
    let mut puller = Puller::open(&other, "w", &["q"], LONG).await?;
    puller.demand(bodies.len());
    let claims = puller.take(bodies.len()).await?;
    let found: Vec<_> = claims.iter().map(|claim| claim.body.clone()).collect();
    ensure_eq!(found, bodies, "claimed bodies");
    let waiting = other.get_scheduled(&ids(&later)).await?;
    let found: Vec<_> = waiting.into_iter().flatten().map(|entry| entry.body).collect();
    ensure_eq!(found, bodies, "scheduled bodies");
    for (job, body) in now.iter().zip(&bodies) {
        let sightings = other.get_job(&job.id).await?;
        let seen = matches!(&sightings[..], [Sighting::Queued { body: seen, .. }] if seen == body);
        ensure!(seen, "the sighting of {body:?} is {sightings:?}");
    }
    Ok(())
}

/// Catches: a limit that is off by one, differs between queue and scheduled store, or is found only by the server.
pub(super) async fn the_body_limit_is_exact(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let max = store.info().max_body;
    ensure!(max >= 64 * 1024, "a limit of {max} bytes is too small for jobs");
    for (size, fits) in [(max, true), (max + 1, false)] {
        let body = Bytes::from(vec![b'x'; size]);
        for entry in
            [pending(&job("q")), scheduled(&job("q"), in_an_hour()), pending(&named(&format!("id-{size}"), "q"))]
        {
            let (status, id) = (entry.status, entry.address.id.clone());
            let outcome = enqueue(&store, Entry { body: body.clone(), ..entry }).await.map_err(|error| error.kind());
            let expected = if fits { Ok(Enqueued::Stored) } else { Err(StorageErrorKind::TooLarge) };
            ensure_eq!(outcome, expected, "{status} body of {size} bytes, limit {max}");
            let found = store.get_job(&id).await.map(|sightings| sightings.len()).map_err(|error| error.kind());
            let expected = if fits { Ok(1) } else { Err(StorageErrorKind::NotFound) };
            ensure_eq!(found, expected, "{status} job of {size} bytes afterwards");
        }
    }
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(2);
    let sizes: Vec<_> = puller.take(2).await?.iter().map(|claim| claim.body.len()).collect();
    ensure_eq!(sizes, vec![max, max], "claimed body sizes");
    Ok(())
}
