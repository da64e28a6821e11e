//! Checks of unique keys at the end of a job: freed with it, and only if they name it.
//!
//! Taking a key is create and update of [`super::kv`]; what a conflict means is decided above the seam.

use std::time::Duration;

use bytes::Bytes;
use naq_models::{Job, JobError, JobStatus, Unique, UniqueHolder, UniqueWhile};

use super::{
    failure::{Failure, Verdict, ensure_eq, within},
    scene::{
        LONG, PATIENCE, Puller, Scene, cancel, fenced, host_now, named, pending, put_entries, result_of, scheduled,
        settle, settlement,
    },
};
use crate::storage::{Action, Bucket, DeadLetter, Ended, Ending, Settled, SharedStorage};

/// A job with a key of its own name, which is its.
async fn holding(store: &SharedStorage, name: &str) -> Result<Job, Failure> {
    let mut job = named(name, "q");
    job.unique = Some(Unique { key: name.to_owned(), holds: UniqueWhile::Active, ttl: None });
    hold(store, &job, &job).await?;
    Ok(job)
}

fn place(job: &Job) -> String {
    job.key_freed_at_end().expect("the checks give their jobs such keys")
}

/// Makes the key of one job name another.
async fn hold(store: &SharedStorage, job: &Job, holder: &Job) -> Result<u64, Failure> {
    let value = Bytes::from(
        UniqueHolder {
            id: holder.id.clone(),
            since: host_now(),
            expires_at: None,
            holds: UniqueWhile::Active,
            queue: None,
            generation: 0,
            replaces: None,
            stored: false,
        }
        .encode(),
    );
    let revision = match store.kv_get(Bucket::Unique, &place(job)).await? {
        Some(held) => store.kv_update(Bucket::Unique, &place(job), value, held.revision, None).await?,
        None => store.kv_create(Bucket::Unique, &place(job), value, None).await?,
    };
    Ok(revision)
}

async fn is_held(store: &SharedStorage, job: &Job) -> Result<bool, Failure> {
    Ok(store.kv_get(Bucket::Unique, &place(job)).await?.is_some())
}

fn ways_to_end(job: &Job) -> Vec<Action> {
    let letter = DeadLetter {
        address: pending(job).address,
        body: pending(job).body,
        error: JobError::new("conformance", "broken", host_now()),
        kind: None,
    };
    let ends = [
        (Some(result_of(job, JobStatus::Completed, "done")), None),
        (Some(result_of(job, JobStatus::Failed, "broken")), Some(letter.clone())),
        (None, None),
        (None, Some(letter)),
    ];
    let end = |(result, dead_letter)| Action::End { result, dead_letter, unique_key: Some(place(job)) };
    ends.map(end).into()
}

/// Catches: keys that outlive their jobs, so that nothing like them is ever stored again.
pub(super) async fn the_end_of_a_job_frees_its_key(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    for way in 0..4 {
        let job = holding(&other, &format!("way-{way}")).await?;
        put_entries(&other, vec![pending(&job)]).await?;
        let claim = puller.one().await?;
        let end = ways_to_end(&job).swap_remove(way);
        let settled = within(PATIENCE, "settling", settle(&*store, settlement(&claim, end))).await??;
        ensure_eq!((settled, is_held(&other, &job).await?), (Settled::Done, false), "(outcome, key held) of way {way}");
        hold(&store, &job, &job).await?;
    }
    puller.close().await
}

/// Catches: a late end that frees the key under the job that has taken it over.
pub(super) async fn a_key_that_names_another_job_stays(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let heir = named("heir", "q");
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    for way in 0..4 {
        let job = holding(&other, &format!("way-{way}")).await?;
        put_entries(&other, vec![pending(&job)]).await?;
        let claim = puller.one().await?;
        let revision = hold(&other, &job, &heir).await?;
        let end = ways_to_end(&job).swap_remove(way);
        ensure_eq!(settle(&*store, settlement(&claim, end)).await?, Settled::Done, "settling, way {way}");
        let held = other.kv_get(Bucket::Unique, &place(&job)).await?;
        ensure_eq!(held.map(|held| held.revision), Some(revision), "the revision of the key, way {way}");
    }
    puller.close().await?;
    let job = holding(&other, "ended").await?;
    put_entries(&store, vec![pending(&job)]).await?;
    hold(&other, &job, &heir).await?;
    ensure_eq!(cancel(&store, &job).await?, Ended::Done, "ending");
    ensure_eq!(is_held(&other, &job).await?, true, "the key is held after the end");
    Ok(())
}

/// Catches: keys of cancelled jobs that stay, wherever the job stood.
pub(super) async fn ending_a_job_frees_its_key(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let (queued, later) = (holding(&store, "queued").await?, holding(&store, "later").await?);
    let silent = holding(&store, "silent").await?;
    let tomorrow = host_now().saturating_add(Duration::from_secs(86_400));
    put_entries(&store, vec![pending(&queued), scheduled(&later, tomorrow), pending(&silent)]).await?;
    for job in [&queued, &later] {
        ensure_eq!(cancel(&other, job).await?, Ended::Done, "ending {}", job.id);
        ensure_eq!(is_held(&store, job).await?, false, "the key of {} is held", job.id);
    }
    let address = pending(&silent).address;
    let ending = Ending { address, result: None, dead_letter: None, unique_key: Some(place(&silent)) };
    ensure_eq!(within(PATIENCE, "ending", other.end(ending)).await??, Ended::Done, "ending without a result");
    ensure_eq!(is_held(&store, &silent).await?, false, "its key is held");
    Ok(())
}

/// Catches: a settlement that changes nothing and frees the key all the same.
pub(super) async fn a_settlement_without_its_lease_leaves_the_key(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = holding(&store, "doubtful").await?;
    put_entries(&store, vec![pending(&job)]).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    let claim = puller.one().await?;
    let without_result = ways_to_end(&job).swap_remove(2);
    ensure_eq!(settle(&*store, fenced(&claim, without_result)).await?, Settled::LeaseLost, "a fenced end");
    ensure_eq!(is_held(&other, &job).await?, true, "the key is held after it");
    let with_result = ways_to_end(&job).swap_remove(0);
    ensure_eq!(settle(&*store, fenced(&claim, with_result)).await?, Settled::Done, "a fenced result that wins");
    ensure_eq!(is_held(&other, &job).await?, false, "the key is held after the result");
    puller.close().await
}
