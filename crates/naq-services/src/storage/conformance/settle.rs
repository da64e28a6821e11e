//! Checks of how leased jobs end: results, generations, fencing.

use std::{slice::from_ref, time::Duration};

use bytes::Bytes;
use naq_models::{Job, JobError, JobStatus};

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq, eventually, within},
    scene::{
        LONG, PATIENCE, Puller, QUIET, Scene, cancel, complete, end_with, enqueue, entry, fenced, host_now, ids, job,
        jobs, named, pending, put, result_of, settle, settlement,
    },
};
use crate::storage::{
    Action, Claim, DeadLetter, Enqueued, ResultRecord, Settled, SharedStorage, Sighting, StorageErrorKind,
};

/// One claimed job with a long lease.
async fn claimed(store: &SharedStorage, job: &Job) -> Result<(Claim, Puller), Failure> {
    put(store, from_ref(job)).await?;
    let mut puller = Puller::open(store, "w", &["q"], LONG).await?;
    let claim = puller.one().await?;
    Ok((claim, puller))
}

/// One job that a first worker lost to a second one, both claims.
async fn contested(scene: &Scene, store: &SharedStorage, job: &Job) -> Result<(Claim, Claim), Failure> {
    put(store, from_ref(job)).await?;
    let lease = scene.lease();
    let stale = Puller::open(store, "stale", &["q"], lease).await?.one().await?;
    let mut later = Puller::open(&scene.open().await?, "later", &["q"], lease).await?;
    later.demand(1);
    let later = later.take_within(lease + Duration::from_secs(5), 1).await?.pop();
    Ok((stale, later.ok_or_else(|| Failure::new("no claim"))?))
}

fn letter(claim: &Claim, why: &str) -> DeadLetter {
    DeadLetter {
        address: claim.address.clone(),
        body: claim.body.clone(),
        error: JobError::new("conformance", why, host_now()).permanent(),
        kind: Some("conformance.job".into()),
    }
}

async fn result_body(store: &SharedStorage, job: &Job) -> Result<Option<Bytes>, Failure> {
    Ok(within(PATIENCE, "reading a result", store.get_result(&job.id)).await??.map(|result| result.body))
}

/// Fails unless the store knows of the job nothing but this result.
async fn only_result(store: &SharedStorage, job: &Job, body: &Bytes) -> Verdict {
    ensure_eq!(result_body(store, job).await?.as_ref(), Some(body), "the stored result");
    let sightings = store.get_job(&job.id).await?;
    let fine = matches!(&sightings[..], [Sighting::Ended(result)] if result.body == body && result.id == job.id);
    ensure!(fine, "beside its result the job left: {sightings:?}");
    Ok(())
}

async fn nothing_left_in_queue(store: &SharedStorage) -> Verdict {
    let mut puller = Puller::open(store, "look", &["q"], LONG).await?;
    puller.demand(5);
    puller.nothing_for(QUIET).await?;
    puller.close().await
}

/// Catches: a completed job that stays in its queue, or a result that is not what the handler gave.
pub(super) async fn completed_leaves_only_a_result(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    for job in [job("q"), named("mine", "q")] {
        let (claim, _puller) = claimed(&store, &job).await?;
        let body = complete(&store, &claim, &job, "done").await?;
        only_result(&other, &job, &body).await?;
        let stored = other.get_result(&job.id).await?;
        ensure!(stored.is_some_and(|result| result.revision > 0), "a stored result has revision 0");
    }
    nothing_left_in_queue(&other).await
}

/// Catches: failed jobs whose body or reason is lost, or that are stored as completed.
pub(super) async fn failed_leaves_a_result_and_a_dead_letter(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    let (claim, _puller) = claimed(&store, &job).await?;
    let result = result_of(&job, JobStatus::Failed, "broken");
    let body = result.body.clone();
    let end = Action::End { result: Some(result), dead_letter: Some(letter(&claim, "broken")), unique_key: None };
    ensure_eq!(settle(&*store, settlement(&claim, end)).await?, Settled::Done, "failing");
    ensure_eq!(result_body(&other, &job).await?, Some(body), "the stored result");
    let sightings = other.get_job(&job.id).await?;
    ensure_eq!(sightings.len(), 2, "sightings of a failed job");
    let dead = sightings.iter().find_map(|s| if let Sighting::Dead(letter) = s { Some(letter) } else { None });
    let dead = dead.ok_or_else(|| Failure::new("no dead letter"))?;
    ensure_eq!(dead.body, claim.body, "body of the dead letter");
    ensure_eq!(dead.error.message, "broken", "reason of the dead letter");
    ensure_eq!(dead.kind.as_deref(), Some("conformance.job"), "kind of the dead letter");
    ensure_eq!((&dead.address.queue, dead.address.priority), (&job.queue, job.priority), "place of the dead letter");
    nothing_left_in_queue(&other).await
}

/// Catches: a worker's own cancellation that is stored otherwise than a completion.
pub(super) async fn cancelled_leaves_only_a_result(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    let (claim, _puller) = claimed(&store, &job).await?;
    let result = result_of(&job, JobStatus::Cancelled, "by its handler");
    let body = result.body.clone();
    ensure_eq!(settle(&*store, settlement(&claim, end_with(result))).await?, Settled::Done, "cancelling");
    only_result(&other, &job, &body).await?;
    nothing_left_in_queue(&other).await
}

/// Catches: traces of jobs whose result nobody wants.
pub(super) async fn without_a_result_nothing_is_left(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let (completed, failed) = (job("q"), job("q"));
    let (claim, mut puller) = claimed(&store, &completed).await?;
    let end = Action::End { result: None, dead_letter: None, unique_key: None };
    ensure_eq!(settle(&*store, settlement(&claim, end)).await?, Settled::Done, "ending");
    let looked = other.get_job(&completed.id).await.map_err(|error| error.kind());
    ensure_eq!(looked, Err(StorageErrorKind::NotFound), "looking for a job that left nothing");
    ensure_eq!(result_body(&other, &completed).await?, None, "its result");
    put(&store, from_ref(&failed)).await?;
    let claim = puller.one().await?;
    let end = Action::End { result: None, dead_letter: Some(letter(&claim, "broken")), unique_key: None };
    ensure_eq!(settle(&*store, settlement(&claim, end)).await?, Settled::Done, "failing");
    let sightings = other.get_job(&failed.id).await?;
    ensure!(matches!(&sightings[..], [Sighting::Dead(_)]), "a failed job without result left {sightings:?}");
    nothing_left_in_queue(&other).await
}

/// Catches: a worker that overwrites the result of whoever ended the job first.
pub(super) async fn the_first_result_stays(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    for status in [JobStatus::Completed, JobStatus::Failed] {
        let job = job("q");
        let (claim, puller) = claimed(&store, &job).await?;
        cancel(&other, &job).await?;
        let first = result_body(&store, &job).await?.ok_or_else(|| Failure::new("cancel left no result"))?;
        let dead_letter = (status == JobStatus::Failed).then(|| letter(&claim, "too late"));
        let end = Action::End { result: Some(result_of(&job, status, "too late")), dead_letter, unique_key: None };
        let settled = settle(&*store, settlement(&claim, end)).await?;
        ensure_eq!(settled, Settled::AlreadyEnded, "settling a cancelled job as {status}");
        only_result(&other, &job, &first).await?;
        puller.close().await?;
    }
    nothing_left_in_queue(&other).await
}

/// Catches: a repeated settlement (an answer was lost) that does something a second time.
pub(super) async fn settling_twice_is_harmless(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    let (claim, _puller) = claimed(&store, &job).await?;
    let body = complete(&store, &claim, &job, "done").await?;
    let end = end_with(result_of(&job, JobStatus::Completed, "again"));
    let again = settle(&*store, settlement(&claim, end)).await?;
    ensure!(again != Settled::Done, "the second settlement was taken too");
    only_result(&other, &job, &body).await?;
    nothing_left_in_queue(&other).await
}

/// Catches: batch outcomes that are shifted when one of them differs.
pub(super) async fn outcomes_follow_the_batch(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let all = jobs("q", 50);
    put(&store, &all).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(50);
    let claims = puller.take(50).await?;
    let mut expected = vec![Settled::Done; 50];
    for n in [0, 17, 49] {
        cancel(&other, &all[n]).await?;
        expected[n] = Settled::AlreadyEnded;
    }
    let batch = claims.iter().zip(&all);
    let batch = batch.map(|(claim, job)| settlement(claim, end_with(result_of(job, JobStatus::Completed, "done"))));
    let outcomes = within(PATIENCE, "settling", store.settle(batch.collect())).await?;
    let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
    ensure_eq!(outcomes, expected, "outcomes of 50 settlements, three jobs cancelled before");
    nothing_left_in_queue(&other).await
}

/// The job as it starts a new life after its stored result.
async fn reborn(store: &SharedStorage, job: &Job) -> Result<Job, Failure> {
    let result = store.get_result(&job.id).await?.ok_or_else(|| Failure::new("no result to start anew from"))?;
    Ok(job.clone().reborn(result.revision))
}

/// Runs a job to failure, with a letter and a result that is kept for `ttl`.
async fn fail(store: &SharedStorage, job: &Job, ttl: Duration) -> Verdict {
    let (claim, puller) = claimed(store, job).await?;
    let result = ResultRecord { ttl, ..result_of(job, JobStatus::Failed, "broken") };
    let end = Action::End { result: Some(result), dead_letter: Some(letter(&claim, "broken")), unique_key: None };
    ensure_eq!(settle(&**store, settlement(&claim, end)).await?, Settled::Done, "failing");
    puller.close().await
}

/// Catches: a second life that cannot write its result, or that destroys a result it did not start from.
pub(super) async fn a_new_life_replaces_exactly_its_generation(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = named("phoenix", "q");
    fail(&store, &job, LONG).await?;
    let second = reborn(&store, &job).await?;
    ensure_eq!(within(PATIENCE, "requeue", store.requeue(pending(&second))).await??, Enqueued::Stored, "requeue");
    let mut puller = Puller::open(&other, "w2", &["q"], LONG).await?;
    let claim = puller.one().await?;
    let wrong = ResultRecord { generation: 0, ..result_of(&second, JobStatus::Completed, "no generation") };
    let before = store.get_result(&job.id).await?;
    ensure_eq!(before.as_ref().map(|r| r.revision), Some(second.generation), "result while the second life runs");
    let body = complete(&other, &claim, &second, "second life").await?;
    only_result(&store, &job, &body).await?;
    let after = store.get_result(&job.id).await?.map_or(0, |result| result.revision);
    ensure!(after > second.generation, "revision {after} does not follow {}", second.generation);
    let settled = settle(&*other, settlement(&claim, end_with(wrong))).await?;
    ensure!(settled != Settled::Done, "a settled lease was settled again");
    only_result(&store, &job, &body).await
}

/// Catches: a life that overwrites a result which is newer than the one it started from.
pub(super) async fn an_old_generation_is_refused(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = named("phoenix", "q");
    fail(&store, &job, LONG).await?;
    let first = reborn(&store, &job).await?;
    ensure_eq!(store.requeue(pending(&first)).await?, Enqueued::Stored, "requeue");
    let mut puller = Puller::open(&other, "w2", &["q"], LONG).await?;
    let claim = puller.one().await?;
    let failed = result_of(&first, JobStatus::Failed, "broken again");
    ensure_eq!(settle(&*other, settlement(&claim, end_with(failed))).await?, Settled::Done, "the second life");
    for (run, old) in (3..).zip([0, first.generation]) {
        let life = Job { run, ..reborn(&store, &job).await? };
        ensure_eq!(store.requeue(pending(&life)).await?, Enqueued::Stored, "requeue");
        let claim = puller.one().await?;
        let before = result_body(&store, &job).await?;
        let wrong = ResultRecord { generation: old, ..result_of(&life, JobStatus::Completed, "wrong generation") };
        let settled = settle(&*other, settlement(&claim, end_with(wrong))).await?;
        ensure_eq!(settled, Settled::AlreadyEnded, "generation {old}, the result is at {}", life.generation);
        ensure_eq!(result_body(&store, &job).await?, before, "the result afterwards");
        nothing_left_in_queue(&store).await?;
    }
    Ok(())
}

/// Catches: a new life that can never end because the result it started from is gone.
pub(super) async fn an_expired_generation_is_as_good_as_none(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = named("phoenix", "q");
    fail(&store, &job, Duration::from_secs(1)).await?;
    let second = reborn(&store, &job).await?;
    ensure_eq!(store.requeue(pending(&second)).await?, Enqueued::Stored, "requeue");
    let mut puller = Puller::open(&other, "w2", &["q"], LONG).await?;
    let claim = puller.one().await?;
    eventually(PATIENCE, "the first result expires", async || Ok(result_body(&store, &job).await?.is_none())).await?;
    let body = complete(&other, &claim, &second, "second life").await?;
    only_result(&store, &job, &body).await
}

/// Catches: work thrown away although nobody else had finished it.
pub(super) async fn a_fenced_result_that_wins_ends_the_job(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    let (claim, _puller) = claimed(&store, &job).await?;
    let result = result_of(&job, JobStatus::Completed, "fenced");
    let body = result.body.clone();
    ensure_eq!(settle(&*store, fenced(&claim, end_with(result))).await?, Settled::Done, "fenced settlement");
    only_result(&other, &job, &body).await?;
    nothing_left_in_queue(&other).await
}

/// Catches: a worker in doubt that replaces a result, or removes what is another worker's now.
pub(super) async fn a_fenced_result_that_loses_changes_nothing(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    let (stale, later) = contested(&scene, &store, &job).await?;
    let body = complete(&other, &later, &job, "later").await?;
    let end = end_with(result_of(&job, JobStatus::Completed, "fenced"));
    let settled = settle(&*store, fenced(&stale, end)).await?;
    ensure!(settled != Settled::Done, "a fenced result was taken after another");
    only_result(&store, &job, &body).await?;
    nothing_left_in_queue(&other).await
}

/// Catches: a worker in doubt that schedules a retry of a job which another worker runs.
pub(super) async fn a_fenced_retry_changes_nothing(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    let (stale, later) = contested(&scene, &store, &job).await?;
    let mut retried = job.clone();
    (retried.run, retried.attempt, retried.run_at) = (2, 2, Some(host_now()));
    let again = Action::Again(entry(&retried, JobStatus::Retry));
    // The doubt is the worker's own: it counts even where the store would still let it through.
    for (whose, claim) in [("a lost", &stale), ("a held", &later)] {
        let settled = settle(&*store, fenced(claim, again.clone())).await?;
        ensure_eq!(settled, Settled::LeaseLost, "fenced retry with {whose} lease");
        ensure_eq!(other.get_scheduled(from_ref(&job.id)).await?, vec![None], "its scheduled entry");
    }
    let body = complete(&other, &later, &job, "later").await?;
    only_result(&store, &job, &body).await
}

/// Catches: a late worker whose settlement undoes the later owner's.
pub(super) async fn a_stale_settlement_after_the_later_owners(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    let (stale, later) = contested(&scene, &store, &job).await?;
    let body = complete(&other, &later, &job, "later").await?;
    let end = end_with(result_of(&job, JobStatus::Completed, "stale"));
    let settled = settle(&*store, settlement(&stale, end)).await?;
    ensure!(settled != Settled::Done, "a stale settlement was taken after the later owner's");
    only_result(&store, &job, &body).await?;
    nothing_left_in_queue(&other).await
}

/// Catches: two workers that both believe their result counts, or a job that neither ends.
pub(super) async fn a_stale_settlement_before_the_later_owners(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    let (stale, later) = contested(&scene, &store, &job).await?;
    let (early, late) =
        (result_of(&job, JobStatus::Completed, "stale"), result_of(&job, JobStatus::Completed, "later"));
    let bodies = [early.body.clone(), late.body.clone()];
    let first = settle(&*store, settlement(&stale, end_with(early))).await?;
    let second = settle(&*other, settlement(&later, end_with(late))).await?;
    let winners: Vec<_> = [first, second].into_iter().zip(bodies).filter(|(s, _)| *s == Settled::Done).collect();
    ensure_eq!(winners.len(), 1, "settlements that count, of {first:?} and {second:?}");
    only_result(&store, &job, &winners[0].1).await?;
    nothing_left_in_queue(&other).await
}

/// Catches: a result over the limit that ends the job without a result, or is lost with it.
pub(super) async fn an_oversized_result_is_refused_and_the_job_kept(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let (job, neighbour) = (job("q"), job("q"));
    let max = store.info().max_body;
    put(&store, &[job.clone(), neighbour.clone()]).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(2);
    let claims = puller.take(2).await?;
    let sized =
        |size| ResultRecord { body: Bytes::from(vec![b'x'; size]), ..result_of(&job, JobStatus::Completed, "sized") };
    let batch = vec![
        settlement(&claims[0], end_with(sized(max + 1))),
        settlement(&claims[1], end_with(result_of(&neighbour, JobStatus::Completed, "beside"))),
    ];
    let outcomes = within(PATIENCE, "settling", store.settle(batch)).await?;
    let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.map_err(|error| error.kind())).collect();
    ensure_eq!(outcomes, vec![Err(StorageErrorKind::TooLarge), Ok(Settled::Done)], "limit {max}, one byte more");
    ensure_eq!(result_body(&other, &job).await?, None, "the result of a refused settlement");
    let whole = sized(max);
    let settled = settle(&*store, settlement(&claims[0], end_with(whole.clone()))).await?;
    ensure_eq!(settled, Settled::Done, "a result of exactly {max} bytes");
    ensure!(result_body(&other, &job).await? == Some(whole.body), "the stored result is not what was written");
    nothing_left_in_queue(&other).await
}

/// Catches: a result kept for ever, or gone at once.
pub(super) async fn a_result_expires(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    let (claim, _puller) = claimed(&store, &job).await?;
    let ttl = Duration::from_secs(2);
    let begun = std::time::Instant::now();
    let result = ResultRecord { ttl, ..result_of(&job, JobStatus::Completed, "short") };
    ensure_eq!(settle(&*store, settlement(&claim, end_with(result))).await?, Settled::Done, "completing");
    ensure!(result_body(&other, &job).await?.is_some(), "the result is gone at once");
    eventually(PATIENCE, "the result expires", async || Ok(result_body(&other, &job).await?.is_none())).await?;
    let kept = begun.elapsed();
    ensure!(kept + Duration::from_millis(100) >= ttl, "a result of {ttl:?} was kept {kept:?}");
    ensure!(kept < ttl * 2, "a result of {ttl:?} was kept {kept:?}");
    let looked = other.get_job(&job.id).await.map_err(|error| error.kind());
    ensure_eq!(looked, Err(StorageErrorKind::NotFound), "looking for a job whose result expired");
    let mut swept = 1;
    for _ in 0..20 {
        swept = within(PATIENCE, "sweeping", other.sweep(1)).await??;
        ensure!(swept <= 1, "a sweep of at most one removed {swept}");
    }
    ensure_eq!(swept, 0, "what twenty sweeps found last");
    ensure_eq!(enqueue(&store, pending(&job)).await?, Enqueued::Stored, "the id of an expired result");
    ensure_eq!(store.get_job(&ids(from_ref(&job))[0]).await?.len(), 1, "sightings of the new job");
    Ok(())
}
