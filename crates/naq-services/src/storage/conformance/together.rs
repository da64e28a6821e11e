//! Checks of what enters all together or not at all. A store that cannot do it for some entries says
//! [`Unsupported`](crate::storage::StorageErrorKind::Unsupported), and then too leaves nothing.

use std::time::Duration;

use bytes::Bytes;
use naq_models::Job;

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq, within},
    scene::{
        LONG, PATIENCE, Puller, Scene, at_priority, claimed_ids, complete, host_now, ids, job, jobs, named, pending,
        put, put_entries, same_order, scheduled,
    },
};
use crate::storage::{EnqueuedAll, Entry, SharedStorage, Sighting, StorageErrorKind};

const ROUNDS: usize = 10;

/// What became of entries; `None` if the store does not do that.
async fn enqueue_all(store: &SharedStorage, entries: Vec<Entry>) -> Result<Option<EnqueuedAll>, Failure> {
    match within(PATIENCE, "enqueueing all or none", store.enqueue_all(entries)).await? {
        Ok(outcome) => Ok(Some(outcome)),
        Err(error) if error.kind() == StorageErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn none_is_there(store: &SharedStorage, jobs: &[Job]) -> Verdict {
    for job in jobs {
        let found = store.get_job(&job.id).await.map(|sightings| sightings.len()).map_err(|error| error.kind());
        ensure_eq!(found, Err(StorageErrorKind::NotFound), "job {}, of which none was to be stored", job.id);
    }
    Ok(())
}

/// Catches: jobs that are lost, come in another order, or are seen by one connection only.
pub(super) async fn all_are_stored_in_their_order(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut many = jobs("q", 199);
    many.insert(70, named("chosen", "q"));
    match enqueue_all(&store, many.iter().map(pending).collect()).await? {
        None => return none_is_there(&other, &many).await,
        Some(outcome) => ensure_eq!(outcome, EnqueuedAll::Stored, "200 new jobs"),
    }
    ensure_eq!(enqueue_all(&store, Vec::new()).await?, Some(EnqueuedAll::Stored), "no jobs");
    let mut puller = Puller::open(&other, "w", &["q"], LONG).await?;
    puller.demand(200);
    let claims = puller.take(200).await?;
    ensure!(claims.iter().all(|claim| !claim.doubtful), "a first delivery is doubtful");
    same_order(&claimed_ids(&claims), &ids(&many))
}

/// Catches: jobs before the one that is in the way which stay, and ids that cannot be used afterwards.
pub(super) async fn a_taken_id_refuses_all(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let (queued, elsewhere, urgent) = (named("queued", "q"), named("elsewhere", "other"), named("urgent", "q"));
    let (later, running, done) = (named("later", "q"), named("running", "w"), named("done", "w"));
    put(&store, std::slice::from_ref(&done)).await?;
    let mut puller = Puller::open(&store, "w", &["w"], LONG).await?;
    let claim = puller.one().await?;
    complete(&store, &claim, &done, "first").await?;
    let generated = job("q");
    put(&store, &[queued, elsewhere, at_priority(urgent, 0), running, generated.clone()]).await?;
    let _running = puller.one().await?;
    put_entries(&store, vec![scheduled(&later, host_now().saturating_add(Duration::from_secs(3600)))]).await?;
    let taken = ["queued", "elsewhere", "urgent", "later", "running", "done"].map(|id| named(id, "q"));
    for taken in taken.iter().chain([&generated]) {
        let mut batch = jobs("q", 6);
        batch.insert(2, named(&format!("beside-{}", taken.id), "q"));
        let free = batch.clone();
        batch.insert(4, taken.clone());
        let outcome = enqueue_all(&store, batch.iter().map(pending).collect()).await?;
        ensure!(matches!(outcome, None | Some(EnqueuedAll::Taken(4))), "with {} in the batch: {outcome:?}", taken.id);
        none_is_there(&store, &free).await?;
        put(&store, &free).await?;
    }
    Ok(())
}

/// Catches: a batch that is a duplicate of itself.
pub(super) async fn an_id_given_twice_refuses_all(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    for twice in [named("twice", "q"), job("q")] {
        let mut batch = jobs("q", 3);
        batch.extend([twice.clone(), twice]);
        let outcome = enqueue_all(&store, batch.iter().map(pending).collect()).await?;
        ensure!(matches!(outcome, None | Some(EnqueuedAll::Taken(4))), "{outcome:?}");
        none_is_there(&store, &batch).await?;
    }
    Ok(())
}

/// Catches: a limit that is found only when a part is stored.
pub(super) async fn a_body_that_is_too_large_refuses_all(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let batch = jobs("q", 5);
    let mut entries: Vec<Entry> = batch.iter().map(pending).collect();
    entries[3].body = Bytes::from(vec![b'x'; store.info().max_body + 1]);
    let refused = within(PATIENCE, "enqueueing", store.enqueue_all(entries)).await?.map_err(|error| error.kind());
    let allowed = matches!(refused, Err(StorageErrorKind::TooLarge | StorageErrorKind::Unsupported));
    ensure!(allowed, "a body over the limit: {refused:?}");
    none_is_there(&store, &batch).await
}

/// Catches: a look and a write that are not one step.
pub(super) async fn of_two_with_a_common_id_one_is_stored(scene: Scene) -> Verdict {
    let (one, two) = scene.pair().await?;
    for round in 0..ROUNDS {
        let common = named(&format!("common-{round}"), "q");
        let batches = [(); 2].map(|()| {
            let mut batch = jobs("q", 40);
            batch.insert(20, common.clone());
            batch
        });
        let [first, second] = batches.each_ref().map(|batch| batch.iter().map(pending).collect::<Vec<_>>());
        let outcomes = tokio::join!(enqueue_all(&one, first), enqueue_all(&two, second));
        let winner = match (outcomes.0?, outcomes.1?) {
            (None, None) => return Ok(()),
            (Some(EnqueuedAll::Stored), Some(EnqueuedAll::Taken(20))) => 0,
            (Some(EnqueuedAll::Taken(20)), Some(EnqueuedAll::Stored)) => 1,
            other => return Err(Failure::new(format!("both said {other:?}"))),
        };
        for stored in &batches[winner] {
            let seen = one.get_job(&stored.id).await?;
            ensure!(matches!(seen[..], [Sighting::Queued { .. }]), "a stored job is seen as {seen:?}");
        }
        let lost: Vec<Job> = batches[1 - winner].iter().filter(|job| job.id != common.id).cloned().collect();
        none_is_there(&one, &lost).await?;
    }
    Ok(())
}

/// Catches: a mixture that is stored as far as it goes.
pub(super) async fn what_a_store_cannot_do_leaves_nothing(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let due = host_now().saturating_add(Duration::from_secs(3600));
    let (elsewhere, later) = (job("other"), job("q"));
    for (last, entry) in [(&elsewhere, pending(&elsewhere)), (&later, scheduled(&later, due))] {
        let mut batch = jobs("q", 3);
        let mut entries: Vec<Entry> = batch.iter().map(pending).collect();
        entries.push(entry);
        batch.push(last.clone());
        match enqueue_all(&store, entries).await? {
            None => none_is_there(&store, &batch).await?,
            Some(outcome) => {
                ensure_eq!(outcome, EnqueuedAll::Stored, "new jobs");
                for job in &batch {
                    ensure_eq!(store.get_job(&job.id).await?.len(), 1, "sightings of a stored job");
                }
            }
        }
    }
    Ok(())
}
