//! Checks of jobs that end or start anew without a lease: cancel, dead letters, requeue.

use std::slice::from_ref;

use bytes::Bytes;
use naq_models::{Job, JobError, JobStatus};

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq, within},
    scene::{
        LONG, PATIENCE, Puller, QUIET, Scene, cancel, complete, end_with, enqueue, entry, host_now, job, named,
        pending, put, put_entries, result_of, scheduled, settle, settlement,
    },
};
use crate::storage::{
    Action, Bucket, DeadLetter, Ended, Ending, Enqueued, Entry, KvChange, ListFilter, Settled, SharedStorage, Sighting,
    StorageErrorKind,
};

fn tomorrow() -> naq_models::Timestamp {
    host_now().saturating_add(std::time::Duration::from_secs(86_400))
}

fn no_intent(job: &Job) -> String {
    format!("cancel.{}", job.id)
}

/// Fails unless the job left nothing but a cancelled result, and no intent.
async fn cancelled(store: &SharedStorage, job: &Job) -> Verdict {
    let sightings = store.get_job(&job.id).await?;
    let [Sighting::Ended(result)] = &sightings[..] else {
        return Err(Failure::new(format!("sightings of a cancelled job: {sightings:?}")));
    };
    let status = naq_models::JobResult::decode(&result.body).map(|result| result.status).ok();
    ensure_eq!(status, Some(JobStatus::Cancelled), "status of the result");
    let intent = store.kv_get(Bucket::Control, &no_intent(job)).await?;
    ensure!(intent.is_none(), "the cancel intent is still there: the next life of the job would be cancelled too");
    Ok(())
}

/// Catches: cancelled jobs that run.
pub(super) async fn ending_a_pending_job(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let (one, mine, stays) = (job("q"), named("mine", "q"), job("q"));
    put(&store, &[one.clone(), mine.clone(), stays.clone()]).await?;
    for job in [&one, &mine] {
        ensure_eq!(cancel(&other, job).await?, Ended::Done, "ending");
        cancelled(&store, job).await?;
        ensure_eq!(cancel(&store, job).await?, Ended::AlreadyEnded, "ending again");
        cancelled(&store, job).await?;
    }
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(5);
    ensure_eq!(puller.take(1).await?[0].address.id, stays.id, "the job that was not cancelled");
    puller.nothing_for(QUIET).await
}

/// Catches: cancelled jobs that wake up at their time.
pub(super) async fn ending_a_scheduled_job(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    for (job, status) in [(job("q"), JobStatus::Scheduled), (named("dependent", "q"), JobStatus::Waiting)] {
        let mut timed = job.clone();
        timed.run_at = (status == JobStatus::Scheduled).then(tomorrow);
        put_entries(&store, vec![entry(&timed, status)]).await?;
        ensure_eq!(cancel(&other, &job).await?, Ended::Done, "ending a {status} job");
        cancelled(&store, &job).await?;
        ensure_eq!(store.get_scheduled(from_ref(&job.id)).await?, vec![None], "its entry");
        ensure_eq!(cancel(&other, &job).await?, Ended::AlreadyEnded, "ending again");
    }
    Ok(())
}

/// Catches: a running job whose worker never learns that it was cancelled, or overwrites the cancellation.
pub(super) async fn ending_a_running_job_tells_its_worker(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    put(&store, from_ref(&job)).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    let claim = puller.one().await?;
    let mut watch = within(PATIENCE, "watching intents", store.kv_watch(Bucket::Control, "cancel.")).await??;
    loop {
        match within(PATIENCE, "the intents so far", watch.next()).await? {
            KvChange::Current => break,
            KvChange::Restart => {}
            change => return Err(Failure::new(format!("an intent before the cancel: {change:?}"))),
        }
    }
    ensure_eq!(cancel(&other, &job).await?, Ended::Done, "ending");
    // The last change of a key is certain, those before it are not: a worker acts on either.
    loop {
        match within(std::time::Duration::from_secs(1), "the intent reaches the worker", watch.next()).await? {
            KvChange::Put(entry) if entry.key == no_intent(&job) => break,
            KvChange::Gone(key) if key == no_intent(&job) => break,
            KvChange::Restart | KvChange::Current => {}
            change => return Err(Failure::new(format!("another change: {change:?}"))),
        }
    }
    let end = end_with(result_of(&job, JobStatus::Completed, "too late"));
    ensure_eq!(settle(&*store, settlement(&claim, end)).await?, Settled::AlreadyEnded, "the worker's settlement");
    cancelled(&other, &job).await?;
    puller.demand(5);
    puller.nothing_for(QUIET).await
}

/// Catches: an end that overwrites the result of a job which had completed.
pub(super) async fn ending_an_ended_job_changes_nothing(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let job = job("q");
    put(&store, from_ref(&job)).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    let claim = puller.one().await?;
    let body = complete(&store, &claim, &job, "done").await?;
    ensure_eq!(cancel(&store, &job).await?, Ended::AlreadyEnded, "ending");
    let sightings = store.get_job(&job.id).await?;
    ensure!(matches!(&sightings[..], [Sighting::Ended(result)] if result.body == body), "it left {sightings:?}");
    ensure!(store.kv_get(Bucket::Control, &no_intent(&job)).await?.is_none(), "a cancel intent is left");
    Ok(())
}

/// Catches: jobs without kept result that cannot be cancelled, or leave traces.
pub(super) async fn ending_without_a_result_leaves_nothing(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let (queued, later) = (named("queued", "q"), named("later", "q"));
    put_entries(&store, vec![pending(&queued), scheduled(&later, tomorrow())]).await?;
    for job in [&queued, &later] {
        let ending = Ending { address: pending(job).address, result: None, dead_letter: None, unique_key: None };
        ensure_eq!(within(PATIENCE, "ending", store.end(ending)).await??, Ended::Done, "ending {}", job.id);
        let looked = store.get_job(&job.id).await.map_err(|error| error.kind());
        ensure_eq!(looked, Err(StorageErrorKind::NotFound), "looking for {}", job.id);
        ensure_eq!(enqueue(&store, pending(job)).await?, Enqueued::Stored, "the id {}", job.id);
    }
    Ok(())
}

/// Catches: scheduled entries that nobody can read and that are lost or tried for ever.
pub(super) async fn an_unreadable_scheduled_entry_becomes_a_dead_letter(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    let garbage = Bytes::from_static(b"\x00\xff not a job");
    put_entries(&store, vec![Entry { body: garbage.clone(), ..scheduled(&job, tomorrow()) }]).await?;
    let error = JobError::new("decode", "not a job", host_now()).permanent();
    let address = pending(&job).address;
    let ending = Ending {
        address: address.clone(),
        result: Some(result_of(&job, JobStatus::Failed, "not a job")),
        dead_letter: Some(DeadLetter { address, body: garbage.clone(), error, kind: None }),
        unique_key: None,
    };
    ensure_eq!(within(PATIENCE, "ending", store.end(ending)).await??, Ended::Done, "ending");
    ensure_eq!(other.get_scheduled(from_ref(&job.id)).await?, vec![None], "its entry");
    let sightings = other.get_job(&job.id).await?;
    let dead = sightings.iter().find_map(|s| if let Sighting::Dead(letter) = s { Some(letter) } else { None });
    let dead = dead.ok_or_else(|| Failure::new(format!("no dead letter: {sightings:?}")))?;
    ensure_eq!((&dead.body, &dead.kind), (&garbage, &None), "(body, kind) of the dead letter");
    Ok(())
}

/// Puts a job with any body through a worker that cannot do it. `keep_result` as with a `result_ttl` over zero.
async fn bury(store: &SharedStorage, job: &Job, body: Bytes, keep_result: bool) -> Verdict {
    put_entries(store, vec![Entry { body, ..pending(job) }]).await?;
    let mut puller = Puller::open(store, "w", &["q"], LONG).await?;
    let claim = puller.one().await?;
    let dead_letter = DeadLetter {
        address: claim.address.clone(),
        body: claim.body.clone(),
        error: JobError::new("decode", "cannot be read", host_now()).permanent(),
        kind: None,
    };
    let end = Action::End {
        result: keep_result.then(|| result_of(job, JobStatus::Failed, "cannot be read")),
        dead_letter: Some(dead_letter),
        unique_key: None,
    };
    ensure_eq!(settle(&**store, settlement(&claim, end)).await?, Settled::Done, "failing");
    puller.close().await
}

async fn letters(store: &SharedStorage) -> Result<Vec<DeadLetter>, Failure> {
    let filter = ListFilter { queue: None, statuses: vec![JobStatus::Failed], limit: 100, cursor: None };
    let page = within(PATIENCE, "listing", store.list(&filter)).await??;
    page.items
        .into_iter()
        .map(|sighting| match sighting {
            Sighting::Dead(letter) => Ok(letter),
            other => Err(Failure::new(format!("a list of failed jobs shows {other:?}"))),
        })
        .collect()
}

/// Catches: dead letters that were decoded, escaped or cut on their way.
pub(super) async fn dead_letters_keep_every_byte(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let bodies =
        [Bytes::new(), Bytes::from_static(b"\xff\0{"), Bytes::from_static(b"{\"v\":99}"), vec![0x80; 100_000].into()];
    let mut buried = Vec::new();
    for (n, body) in bodies.iter().enumerate() {
        let job = if n % 2 == 0 { job("q") } else { named(&format!("mine-{n}"), "q") };
        bury(&store, &job, body.clone(), n > 1).await?;
        buried.push(job);
    }
    let found = letters(&other).await?;
    ensure_eq!(found.len(), bodies.len(), "dead letters");
    for (job, body) in buried.iter().zip(&bodies) {
        let letter = found.iter().find(|letter| letter.address.id == job.id);
        let letter = letter.ok_or_else(|| Failure::new(format!("no dead letter of {}", job.id)))?;
        ensure!(letter.body == body, "the body of {} changed", job.id);
        ensure_eq!(letter.address.queue, job.queue, "queue");
        ensure_eq!((letter.error.error_type.as_str(), &letter.kind), ("decode", &None), "(error type, kind)");
        let sightings = other.get_job(&job.id).await?;
        let seen = sightings.iter().any(|s| matches!(s, Sighting::Dead(seen) if seen.body == body));
        ensure!(seen, "get_job of a dead job gives {sightings:?}");
    }
    Ok(())
}

/// Catches: dead letters that come back, or a removal that says it found what was not there.
pub(super) async fn removing_a_dead_letter(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let (gone, stays) = (job("q"), job("q"));
    bury(&store, &gone, Bytes::from_static(b"a"), false).await?;
    bury(&store, &stays, Bytes::from_static(b"b"), true).await?;
    ensure!(within(PATIENCE, "removing", other.remove_dead_letter(&gone.id)).await??, "nothing was removed");
    ensure!(!store.remove_dead_letter(&gone.id).await?, "removed a second time");
    ensure!(!store.remove_dead_letter(&job("q").id).await?, "removed what never was");
    let left: Vec<_> = letters(&store).await?.into_iter().map(|letter| letter.address.id).collect();
    ensure_eq!(left, vec![stays.id], "dead letters left");
    let looked = store.get_job(&gone.id).await.map_err(|error| error.kind());
    ensure_eq!(looked, Err(StorageErrorKind::NotFound), "looking for a job whose letter was removed");
    Ok(())
}

/// Catches: a dead job retried as something else, twice, or lost on the way back.
pub(super) async fn requeueing_a_dead_job(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    for first in [job("q"), named("mine", "q")] {
        bury(&store, &first, pending(&first).body, true).await?;
        let revision = store.get_result(&first.id).await?.map_or(0, |result| result.revision);
        let second = first.clone().reborn(revision);
        let requeue =
            || async { Ok::<_, Failure>(within(PATIENCE, "requeue", other.requeue(pending(&second))).await??) };
        ensure_eq!(requeue().await?, Enqueued::Stored, "requeue");
        ensure_eq!(letters(&store).await?.len(), 0, "dead letters after a requeue");
        ensure_eq!(requeue().await?, Enqueued::Duplicate, "requeue again");
        let mut puller = Puller::open(&store, "w2", &["q"], LONG).await?;
        puller.demand(5);
        let claims = puller.take(1).await?;
        ensure_eq!(claims[0].body, pending(&second).body, "body of the new life");
        if claims[0].doubtful {
            let review = store.review(&claims[0]).await?;
            ensure!(!review.suspect, "a requeued job is suspect");
            let newer = review.result.is_some_and(|result| result.revision > revision);
            ensure!(!newer, "the new life finds a result newer than its generation");
        }
        ensure_eq!(requeue().await?, Enqueued::Duplicate, "requeue while it runs");
        let body = complete(&store, &claims[0], &second, "second life").await?;
        let sightings = other.get_job(&first.id).await?;
        ensure!(matches!(&sightings[..], [Sighting::Ended(r)] if r.body == body), "the second life left {sightings:?}");
        puller.nothing_for(QUIET).await?;
    }
    Ok(())
}

/// Catches: a second life of a cancelled job that is refused because of its id, or cancelled again.
pub(super) async fn requeueing_a_cancelled_job(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    for first in [job("q"), named("mine", "q")] {
        put(&store, from_ref(&first)).await?;
        cancel(&other, &first).await?;
        let revision = store.get_result(&first.id).await?.map_or(0, |result| result.revision);
        let second = first.clone().reborn(revision);
        let outcome = within(PATIENCE, "requeue", other.requeue(pending(&second))).await??;
        ensure_eq!(outcome, Enqueued::Stored, "requeue");
        let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
        let claim = puller.one().await?;
        ensure_eq!(claim.body, pending(&second).body, "body of the new life");
        let body = complete(&store, &claim, &second, "second life").await?;
        ensure_eq!(other.get_result(&first.id).await?.map(|result| result.body), Some(body), "its result");
    }
    Ok(())
}

/// Catches: a second life that starts although its dependencies are to be waited for, or that keeps the first one's letter.
pub(super) async fn requeueing_a_job_that_waits_for_others(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let first = job("q");
    put_entries(&store, vec![entry(&first, JobStatus::Waiting)]).await?;
    ensure_eq!(cancel(&other, &first).await?, Ended::Done, "cancel");
    let ended = store.get_result(&first.id).await?.ok_or_else(|| Failure::new("no result"))?;
    let second = first.clone().reborn(ended.revision);
    let again = entry(&second, JobStatus::Waiting);
    ensure_eq!(within(PATIENCE, "requeue", store.requeue(again)).await??, Enqueued::Stored, "requeue");
    let found = store.get_scheduled(from_ref(&first.id)).await?.pop().flatten();
    let found = found.ok_or_else(|| Failure::new("the second life waits nowhere"))?;
    ensure_eq!((found.status, found.run), (JobStatus::Waiting, second.run), "(status, run) of the second life");
    let mut puller = Puller::open(&other, "w", &["q"], LONG).await?;
    puller.demand(1);
    puller.nothing_for(QUIET).await
}

/// Catches: a cancel that looked, was overtaken by a retry of the job, and then destroys the new life.
pub(super) async fn ending_an_earlier_life_spares_the_new_one(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let first = named("phoenix", "q");
    bury(&store, &first, pending(&first).body, true).await?;
    let revision = store.get_result(&first.id).await?.map_or(0, |result| result.revision);
    let second = first.clone().reborn(revision);
    ensure_eq!(store.requeue(pending(&second)).await?, Enqueued::Stored, "requeue");
    ensure_eq!(cancel(&other, &first).await?, Ended::AlreadyEnded, "ending the first life");
    let mut puller = Puller::open(&store, "w2", &["q"], LONG).await?;
    let claim = puller.one().await?;
    ensure_eq!(claim.body, pending(&second).body, "body of the new life");
    ensure_eq!(cancel(&other, &first).await?, Ended::AlreadyEnded, "ending the first life while the second runs");
    let body = complete(&store, &claim, &second, "second life").await?;
    ensure_eq!(other.get_result(&first.id).await?.map(|result| result.body), Some(body), "its result");
    Ok(())
}
