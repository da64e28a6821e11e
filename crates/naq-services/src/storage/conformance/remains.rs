//! Checks of what comes from another store: the remains of ended jobs, and entries that are held until they may live.

use std::{slice::from_ref, time::Duration};

use bytes::Bytes;
use naq_models::{Address, Job, JobError, JobStatus, Timestamp};

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq},
    scene::{
        LONG, Puller, Scene, complete, enqueue, entry, host_now, job, named, pending, put, put_entries, result_of,
        scheduled,
    },
};
use crate::storage::{
    DeadLetter, Enqueued, Entry, ListFilter, Promoted, Promotion, Remains, SharedStorage, Sighting, StorageErrorKind,
    StoredResult,
};

const HOSTILE: &[u8] = b"\0\xff{not a job\r\n";

fn address(job: &Job) -> Address {
    pending(job).address
}

fn letter(job: &Job, body: &'static [u8]) -> DeadLetter {
    let error = JobError::new("boom", "it failed\nelsewhere", host_now());
    DeadLetter { address: address(job), body: Bytes::from_static(body), error, kind: Some(job.kind.clone()) }
}

fn remains(job: &Job, status: Option<JobStatus>, dead_letter: Option<DeadLetter>) -> Remains {
    let result = status.map(|status| result_of(job, status, "elsewhere"));
    Remains { address: address(job), result, dead_letter }
}

async fn store(store: &SharedStorage, remains: Remains) -> Result<Enqueued, Failure> {
    Ok(store.store_remains(vec![remains]).await.pop().ok_or_else(|| Failure::new("no outcome"))??)
}

/// The dead letter and the result of an id, and nothing else.
async fn left(store: &SharedStorage, job: &Job) -> Result<(Option<DeadLetter>, Option<StoredResult>), Failure> {
    let mut left = (None, None);
    for sighting in store.get_job(&job.id).await? {
        match sighting {
            Sighting::Dead(letter) => left.0 = Some(letter),
            Sighting::Ended(result) => left.1 = Some(result),
            other => return Err(Failure::new(format!("it lives: {other:?}"))),
        }
    }
    Ok(left)
}

/// Catches: dead letters and results that are lost, changed or doubled on their way from another store.
pub(super) async fn what_is_left_of_a_job_is_stored_once(scene: Scene) -> Verdict {
    let (here, other) = scene.pair().await?;
    let jobs = [job("q"), named("failed", "q"), job("r"), named("done", "r")];
    let all = [
        remains(&jobs[0], Some(JobStatus::Failed), Some(letter(&jobs[0], HOSTILE))),
        remains(&jobs[1], None, Some(letter(&jobs[1], HOSTILE))),
        remains(&jobs[2], Some(JobStatus::Completed), None),
        remains(&jobs[3], Some(JobStatus::Cancelled), None),
    ];
    for round in [Enqueued::Stored, Enqueued::Duplicate] {
        for outcome in here.store_remains(all.to_vec()).await {
            ensure_eq!(outcome?, round, "storing remains");
        }
    }
    for (job, stored) in jobs.iter().zip(&all) {
        let (letter, result) = left(&other, job).await?;
        ensure_eq!(result.as_ref().map(|r| &r.body), stored.result.as_ref().map(|r| &r.body), "the result");
        let told = |letter: &DeadLetter| (letter.body.clone(), letter.error.clone(), letter.kind.clone());
        ensure_eq!(letter.as_ref().map(told), stored.dead_letter.as_ref().map(told), "the dead letter");
        let kept = result.map(|result| result.expires_at.since(host_now()));
        let hour = Duration::from_secs(3500)..Duration::from_secs(3700);
        ensure!(kept.is_none_or(|kept| hour.contains(&kept)), "a result of an hour is kept for {kept:?}");
    }
    let statuses = vec![JobStatus::Completed, JobStatus::Cancelled];
    let filter = ListFilter { queue: None, statuses, limit: 100, cursor: None };
    let listed = other.list(&filter).await?.items.len();
    ensure_eq!(listed, 3, "a list of completed and cancelled jobs holds every result");
    ensure_eq!(enqueue(&other, pending(&jobs[3])).await?, Enqueued::Duplicate, "enqueueing a chosen id with a result");
    Ok(())
}

/// Catches: dead letters of another store that cannot be retried, or come back after they were.
pub(super) async fn remains_are_as_good_as_a_jobs_own(scene: Scene) -> Verdict {
    let (here, other) = scene.pair().await?;
    for job in [job("q"), named("mine", "q")] {
        let came = remains(&job, Some(JobStatus::Failed), Some(letter(&job, b"{}")));
        ensure_eq!(store(&here, came.clone()).await?, Enqueued::Stored, "storing remains");
        let before = other.wait_result(&job.id, 0, Duration::from_secs(5)).await?;
        let before = before.ok_or_else(|| Failure::new("nobody sees the result"))?.revision;
        let mut again = job.clone();
        (again.generation, again.run) = (before, 2);
        ensure_eq!(other.requeue(pending(&again)).await?, Enqueued::Stored, "a new life");
        ensure_eq!(store(&here, came.clone()).await?, Enqueued::Duplicate, "remains of a job that lives again");
        let mut puller = Puller::open(&here, "w", &["q"], LONG).await?;
        let claim = puller.one().await?;
        let body = complete(&here, &claim, &again, "second life").await?;
        ensure_eq!(store(&here, came).await?, Enqueued::Duplicate, "remains of a job that has ended again");
        let (letter, result) = left(&other, &job).await?;
        ensure!(letter.is_none(), "the dead letter of the first life is back");
        ensure_eq!(result.map(|result| result.body), Some(body), "the result of the second life");
        puller.close().await?;
    }
    Ok(())
}

/// Catches: a job that never runs because a result of its namesake came from elsewhere.
pub(super) async fn remains_of_an_id_that_lives_here_are_refused(scene: Scene) -> Verdict {
    let (here, other) = scene.pair().await?;
    let (queued, later) = (named("queued", "q"), named("later", "q"));
    put(&here, from_ref(&queued)).await?;
    put_entries(&here, vec![scheduled(&later, far())]).await?;
    for job in [&queued, &later] {
        // Elsewhere it was in another queue.
        let mut namesake = job.clone();
        namesake.queue = super::scene::queue("elsewhere");
        let came = remains(&namesake, Some(JobStatus::Failed), Some(letter(&namesake, b"{}")));
        ensure_eq!(store(&other, came).await?, Enqueued::Duplicate, "remains of {}", job.id);
        let seen = here.get_job(&job.id).await?;
        ensure!(seen.len() == 1, "beside the job: {seen:?}");
    }
    let mut puller = Puller::open(&here, "w", &["q"], LONG).await?;
    let claim = puller.one().await?;
    complete(&here, &claim, &queued, "its own").await.map(drop)
}

/// Catches: results that cannot be moved away, and newer ones that go with them.
pub(super) async fn a_result_is_removed_at_its_revision(scene: Scene) -> Verdict {
    let (here, other) = scene.pair().await?;
    let job = job("q");
    store(&here, remains(&job, Some(JobStatus::Completed), None)).await?;
    let result = here.get_result(&job.id).await?.ok_or_else(|| Failure::new("no result"))?;
    ensure!(!other.remove_result(&job.id, result.revision + 1).await?, "a result of another revision was removed");
    ensure_eq!(other.get_result(&job.id).await?, Some(result.clone()), "the result");
    ensure!(other.remove_result(&job.id, result.revision).await?, "the result was not removed");
    ensure_eq!(here.get_result(&job.id).await?, None, "the result that was removed");
    ensure!(!other.remove_result(&job.id, result.revision).await?, "a result was removed twice");
    ensure_eq!(store(&here, remains(&job, Some(JobStatus::Completed), None)).await?, Enqueued::Stored, "once more");
    Ok(())
}

/// Catches: half of what is left of a job, where the other half is too large.
pub(super) async fn oversized_remains_are_refused(scene: Scene) -> Verdict {
    let here = scene.open().await?;
    let job = job("q");
    let mut came = remains(&job, Some(JobStatus::Failed), Some(letter(&job, b"{}")));
    if let Some(record) = &mut came.result {
        record.body = Bytes::from(vec![b' '; here.info().max_body + 1]);
    }
    let refused = here.store_remains(vec![came]).await.pop().ok_or_else(|| Failure::new("no outcome"))?;
    ensure_eq!(refused.err().map(|error| error.kind()), Some(StorageErrorKind::TooLarge), "its error");
    ensure!(here.get_job(&job.id).await.is_err(), "half of it was stored");
    Ok(())
}

fn far() -> Timestamp {
    Timestamp::from_unix_millis(253_402_300_799_999).expect("the year 9999")
}

/// Catches: jobs that were moved from another store and run before they may, twice, or not as what they were.
pub(super) async fn a_held_entry_becomes_what_it_is_to_be(scene: Scene) -> Verdict {
    let (here, other) = scene.pair().await?;
    let hold = |job: &Job, body: &'static [u8]| Entry {
        status: JobStatus::Scheduled,
        run_at: Some(far()),
        body: Bytes::from_static(body),
        ..pending(job)
    };
    let (runs, retries, waits) = (named("runs", "q"), job("q"), job("q"));
    let held = [hold(&runs, HOSTILE), hold(&retries, b"{}"), hold(&waits, b"{}")];
    put_entries(&here, held.to_vec()).await?;
    let mut feed = here.open_due_feed().await?;
    ensure_eq!(feed.due(host_now().saturating_add(LONG), 10).await?, vec![], "what is due while all is held");
    let found = other.get_scheduled(&[runs.id.clone(), retries.id.clone(), waits.id.clone()]).await?;
    let [Some(first), Some(second), Some(third)] = &found[..] else {
        return Err(Failure::new(format!("held entries: {found:?}")));
    };
    ensure_eq!(first.run_at, Some(far()), "until when it is held");

    let released = Entry { status: JobStatus::Pending, run_at: None, ..held[0].clone() };
    let promotion = Promotion { revision: first.revision, entry: released };
    for expected in [Promoted::Done, Promoted::Superseded] {
        let promoted = other.promote(vec![promotion.clone()]).await.pop().ok_or_else(|| Failure::new("no outcome"))?;
        ensure_eq!(promoted?, expected, "releasing a pending job");
    }
    let mut puller = Puller::open(&here, "w", &["q"], LONG).await?;
    let claim = puller.one().await?;
    ensure_eq!(&claim.body[..], HOSTILE, "its bytes");
    ensure_eq!(claim.address.id, runs.id, "its id");

    let due = Some(host_now());
    other.reschedule(Entry { status: JobStatus::Retry, run_at: due, ..held[1].clone() }, second.revision).await?;
    other.reschedule(Entry { run_at: None, ..entry(&waits, JobStatus::Waiting) }, third.revision).await?;
    let now = here.get_scheduled(&[retries.id.clone(), waits.id.clone()]).await?;
    let stand: Vec<_> = now.into_iter().flatten().map(|entry| (entry.status, entry.run_at)).collect();
    let due = due.and_then(|due| Timestamp::from_unix_millis(due.unix_millis()));
    ensure_eq!(stand, vec![(JobStatus::Retry, due), (JobStatus::Waiting, None)], "what they are now");
    Ok(())
}
