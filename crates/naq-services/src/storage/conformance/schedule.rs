//! Checks of what waits: retries, promotions, rescheduling, the due feed.

use std::{
    slice::from_ref,
    time::{Duration, Instant},
};

use naq_models::{Job, JobId, JobStatus, Timestamp};

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq, eventually, within},
    scene::{
        LONG, PATIENCE, Puller, QUIET, Scene, cancel, claimed_ids, end_with, entry, host_now, ids, job, jobs, named,
        pending, put, put_entries, result_of, scheduled, settle, settlement,
    },
};
use crate::storage::{
    Action, DueFeed, Promoted, Promotion, ScheduledEntry, Settled, SharedStorage, Sighting, StorageErrorKind,
    WaitingEntry,
};

fn in_secs(secs: u64) -> Timestamp {
    host_now().saturating_add(Duration::from_secs(secs))
}

/// The scheduled entry of a job.
async fn waiting(store: &SharedStorage, id: &JobId) -> Result<Option<ScheduledEntry>, Failure> {
    let mut found = within(PATIENCE, "get_scheduled", store.get_scheduled(from_ref(id))).await??;
    ensure_eq!(found.len(), 1, "answers for one id");
    Ok(found.remove(0))
}

async fn must_wait(store: &SharedStorage, id: &JobId) -> Result<ScheduledEntry, Failure> {
    waiting(store, id).await?.ok_or_else(|| Failure::new(format!("{id} has no scheduled entry")))
}

/// The promotion of a job that waits at a revision.
fn promotion(job: &Job, revision: u64) -> Promotion {
    Promotion { revision, entry: pending(&job.clone().promoted()) }
}

async fn promote(store: &SharedStorage, promotion: Promotion) -> Result<Promoted, Failure> {
    let mut outcomes = within(PATIENCE, "promoting", store.promote(vec![promotion])).await?;
    ensure_eq!(outcomes.len(), 1, "outcomes for one promotion");
    Ok(outcomes.remove(0)?)
}

async fn feed(store: &SharedStorage) -> Result<Box<dyn DueFeed>, Failure> {
    Ok(within(PATIENCE, "opening the due feed", store.open_due_feed()).await??)
}

/// What is due at a time, as ids.
async fn due(feed: &mut dyn DueFeed, at: Timestamp, max: usize) -> Result<Vec<JobId>, Failure> {
    Ok(within(PATIENCE, "due", feed.due(at, max)).await??.into_iter().map(|entry| entry.id).collect())
}

/// Waits until exactly these are due at a time, in this order. Reads what is due, as a leader does before it moves it: a
/// line whose entry was removed over another connection may stay until then.
async fn until_due(store: &SharedStorage, feed: &mut dyn DueFeed, at: Timestamp, expected: &[JobId]) -> Verdict {
    let begun = Instant::now();
    loop {
        let found = due(feed, at, expected.len() + 10).await?;
        if found == expected {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "due at {at}: {found:?}, expected {expected:?}");
        within(PATIENCE, "get_scheduled", store.get_scheduled(&found)).await??;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Catches: retries that lose their place, body, run or time, or that leave the job in its queue too.
pub(super) async fn a_retry_waits_and_runs_again(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    for (first, status) in [(job("q"), JobStatus::Retry), (named("snoozing", "q"), JobStatus::Scheduled)] {
        put(&store, from_ref(&first)).await?;
        let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
        let claim = puller.one().await?;
        let mut second = first.clone();
        (second.run, second.attempt, second.run_at) = (2, 2, Some(in_secs(30)));
        let moved = entry(&second, status);
        let settled = settle(&*store, settlement(&claim, Action::Again(moved.clone()))).await?;
        ensure_eq!(settled, Settled::Done, "moving to {status}");
        let found = must_wait(&other, &first.id).await?;
        ensure_eq!((found.run, found.status, found.run_at), (2, status, second.run_at), "(run, status, run_at)");
        ensure_eq!(found.body, moved.body, "body");
        ensure_eq!((&found.address.queue, found.address.priority), (&first.queue, first.priority), "place");
        let sightings = other.get_job(&first.id).await?;
        ensure!(matches!(&sightings[..], [Sighting::Scheduled(_)]), "sightings of a {status} job: {sightings:?}");
        let mut feed = feed(&other).await?;
        until_due(&other, &mut *feed, in_secs(60), from_ref(&first.id)).await?;
        puller.demand(5);
        puller.nothing_for(QUIET).await?;

        let third = second.clone().promoted();
        let outcome = promote(&other, promotion(&second, found.revision)).await?;
        ensure_eq!(outcome, Promoted::Done, "promoting");
        let claims = puller.take(1).await?;
        ensure_eq!(claims[0].body, pending(&third).body, "body after the promotion");
        if claims[0].doubtful {
            let review = store.review(&claims[0]).await?;
            ensure!(!review.suspect && review.result.is_none(), "a promoted job's review: {review:?}");
            ensure!(review.scheduled_run.is_none_or(|run| run <= third.run), "scheduled run: {review:?}");
        }
        let end = end_with(result_of(&third, JobStatus::Completed, "third"));
        let mut settlement = settlement(&claims[0], end);
        settlement.clear_scheduled = true;
        ensure_eq!(settle(&*store, settlement).await?, Settled::Done, "completing");
        let sightings = other.get_job(&first.id).await?;
        ensure!(matches!(&sightings[..], [Sighting::Ended(_)]), "sightings at the end: {sightings:?}");
        until_due(&other, &mut *feed, in_secs(60), &[]).await?;
        puller.close().await?;
    }
    Ok(())
}

/// Catches: a second retry of one job that is refused or mistaken for the first.
pub(super) async fn a_job_can_retry_many_times(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let mut job = named("stubborn", "q");
    put(&store, from_ref(&job)).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    for round in 0..4 {
        let claim = puller.one().await?;
        ensure_eq!(claim.body, pending(&job).body, "body in round {round}");
        (job.run, job.attempt, job.run_at) = (job.run + 1, job.attempt + 1, Some(in_secs(1)));
        let mut again = settlement(&claim, Action::Again(entry(&job, JobStatus::Retry)));
        again.clear_scheduled = round > 0;
        ensure_eq!(settle(&*store, again).await?, Settled::Done, "retry {round}");
        let found = must_wait(&store, &job.id).await?;
        ensure_eq!(found.run, job.run, "run in round {round}");
        ensure_eq!(promote(&store, promotion(&job, found.revision)).await?, Promoted::Done, "promotion {round}");
        job = job.promoted();
    }
    let claim = puller.one().await?;
    let end = end_with(result_of(&job, JobStatus::Completed, "at last"));
    let mut end = settlement(&claim, end);
    end.clear_scheduled = true;
    ensure_eq!(settle(&*store, end).await?, Settled::Done, "completing");
    let sightings = store.get_job(&job.id).await?;
    ensure!(matches!(&sightings[..], [Sighting::Ended(_)]), "sightings at the end: {sightings:?}");
    Ok(())
}

/// Catches: a leader that repeats a promotion and so runs a job twice.
pub(super) async fn promoting_twice_runs_once(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    put_entries(&store, vec![scheduled(&job, in_secs(1))]).await?;
    let found = must_wait(&store, &job.id).await?;
    ensure_eq!(promote(&store, promotion(&job, found.revision)).await?, Promoted::Done, "first");
    ensure_eq!(promote(&other, promotion(&job, found.revision)).await?, Promoted::Superseded, "second");
    ensure_eq!(waiting(&other, &job.id).await?, None, "the entry after its promotion");
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(5);
    let claims = puller.take(1).await?;
    ensure_eq!(promote(&other, promotion(&job, found.revision)).await?, Promoted::Superseded, "while it runs");
    let end = end_with(result_of(&job, JobStatus::Completed, "done"));
    ensure_eq!(settle(&*store, settlement(&claims[0], end)).await?, Settled::Done, "completing");
    let late = promote(&other, promotion(&job, found.revision)).await?;
    ensure!(late != Promoted::Done, "promoted after its end");
    puller.nothing_for(QUIET).await
}

/// Catches: two leaders that both move one entry.
pub(super) async fn racing_promotions_run_once(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let all: Vec<_> = jobs("q", 20).into_iter().chain((0..5).map(|n| named(&format!("mine-{n}"), "q"))).collect();
    put_entries(&store, all.iter().map(|job| scheduled(job, in_secs(1))).collect()).await?;
    let mut promotions = Vec::new();
    for job in &all {
        promotions.push(promotion(job, must_wait(&store, &job.id).await?.revision));
    }
    let (a, b) = tokio::join!(store.promote(promotions.clone()), other.promote(promotions));
    ensure_eq!((a.len(), b.len()), (all.len(), all.len()), "outcomes");
    for (n, (a, b)) in a.into_iter().zip(b).enumerate() {
        let (a, b) = (a?, b?);
        let won = [a, b].iter().filter(|outcome| **outcome == Promoted::Done).count();
        ensure_eq!(won, 1, "winners of promotion {n} ({a:?}, {b:?})");
    }
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(100);
    let mut found = claimed_ids(&puller.take(all.len()).await?);
    let mut expected = ids(&all);
    found.sort();
    expected.sort();
    ensure_eq!(found, expected, "promoted jobs");
    puller.nothing_for(QUIET).await
}

/// Catches: batch outcomes that are shifted, or a stale revision that moves an entry all the same.
pub(super) async fn promotions_answer_in_order(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let all = jobs("q", 30);
    put_entries(&store, all.iter().map(|job| scheduled(job, in_secs(1))).collect()).await?;
    let mut batch = Vec::new();
    let mut expected = vec![Promoted::Done; all.len()];
    for (n, job) in all.iter().enumerate() {
        let revision = must_wait(&store, &job.id).await?.revision;
        let stale = [0, 13, 29].contains(&n);
        if stale {
            expected[n] = Promoted::Superseded;
        }
        batch.push(promotion(job, if stale { revision + 1_000_000 } else { revision }));
    }
    let outcomes = within(PATIENCE, "promoting", store.promote(batch)).await?;
    let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
    ensure_eq!(outcomes, expected, "outcomes of 30 promotions, three of them stale");
    ensure!(waiting(&store, &all[13].id).await?.is_some(), "a stale promotion removed the entry");
    Ok(())
}

/// Catches: a cancelled job that runs because its promotion was under way.
pub(super) async fn an_ended_job_is_not_promoted(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    put_entries(&store, vec![scheduled(&job, in_secs(1))]).await?;
    let found = must_wait(&store, &job.id).await?;
    cancel(&other, &job).await?;
    let outcome = promote(&store, promotion(&job, found.revision)).await?;
    ensure!(outcome != Promoted::Done, "a cancelled job was promoted");
    ensure_eq!(waiting(&store, &job.id).await?, None, "its entry");
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(5);
    puller.nothing_for(QUIET).await
}

/// Catches: blind rescheduling; a promotion that runs at the old time.
pub(super) async fn rescheduling_is_compare_and_set(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    put_entries(&store, vec![scheduled(&job, in_secs(60))]).await?;
    let mut feed = feed(&other).await?;
    until_due(&other, &mut *feed, in_secs(100), from_ref(&job.id)).await?;
    let first = must_wait(&store, &job.id).await?;
    let moved = scheduled(&job, in_secs(600));
    within(PATIENCE, "reschedule", store.reschedule(moved.clone(), first.revision)).await??;
    let second = must_wait(&other, &job.id).await?;
    ensure!(second.revision > first.revision, "revision {} after {}", second.revision, first.revision);
    ensure_eq!((second.run_at, &second.body), (moved.run_at, &moved.body), "(run_at, body)");
    let refused = other.reschedule(scheduled(&job, in_secs(5)), first.revision).await.map_err(|error| error.kind());
    ensure_eq!(refused, Err(StorageErrorKind::Conflict), "rescheduling from an old revision");
    ensure_eq!(must_wait(&store, &job.id).await?, second, "the entry after a conflict");
    let outcome = promote(&store, promotion(&job, first.revision)).await?;
    ensure_eq!(outcome, Promoted::Superseded, "promoting from an old revision");
    until_due(&other, &mut *feed, in_secs(100), &[]).await?;
    until_due(&other, &mut *feed, in_secs(700), from_ref(&job.id)).await
}

/// Catches: a scheduled entry made for a job that runs, has ended or never was.
pub(super) async fn only_waiting_jobs_are_rescheduled(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let (queued, ended, unknown) = (job("q"), job("q"), job("q"));
    put(&store, from_ref(&queued)).await?;
    put_entries(&store, vec![scheduled(&ended, in_secs(60))]).await?;
    let revision = must_wait(&store, &ended.id).await?.revision;
    cancel(&store, &ended).await?;
    for (what, job) in [("queued", &queued), ("ended", &ended), ("unknown", &unknown)] {
        for revision in [0, 1, revision] {
            let refused = store.reschedule(scheduled(job, in_secs(5)), revision).await.map_err(|error| error.kind());
            ensure_eq!(refused, Err(StorageErrorKind::Conflict), "rescheduling a job that is {what}");
        }
        ensure_eq!(waiting(&store, &job.id).await?, None, "the entry of a job that is {what}");
    }
    Ok(())
}

/// Catches: jobs that run early, late, or in the order of their names; unbounded batches.
pub(super) async fn the_feed_gives_what_is_due_soonest_first(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let base = in_secs(3600);
    let at = |secs| base.saturating_add(Duration::from_secs(secs));
    let before = named("there-before", "r");
    put_entries(&store, vec![scheduled(&before, at(5))]).await?;
    let mut feed = feed(&other).await?;
    let all = [job("q"), named("zz", "q"), named("aa", "r"), job("r")];
    let times = [40, 10, 30, 20];
    put_entries(&store, all.iter().zip(times).map(|(job, secs)| scheduled(job, at(secs))).collect()).await?;
    let sorted = [&before, &all[1], &all[3], &all[2], &all[0]].map(|job| job.id.clone());
    until_due(&other, &mut *feed, at(100), &sorted).await?;
    ensure_eq!(due(&mut *feed, at(100), 2).await?, sorted[..2].to_vec(), "the first two");
    ensure_eq!(due(&mut *feed, at(20), 10).await?, sorted[..3].to_vec(), "due at 20 s, to the millisecond");
    let early = at(20).saturating_sub(Duration::from_millis(1));
    ensure_eq!(due(&mut *feed, early, 10).await?, sorted[..2].to_vec(), "due a millisecond earlier");
    ensure_eq!(due(&mut *feed, store.now().await?, 10).await?, vec![], "due now");
    ensure_eq!(feed.next_due().await?, Some(at(5)), "next_due");
    let lines = feed.due(at(5), 10).await?;
    let entry = must_wait(&store, &before.id).await?;
    let found: Vec<_> = lines.iter().map(|line| (line.run_at, line.revision)).collect();
    ensure_eq!(found, vec![(at(5), entry.revision)], "(run_at, revision) in the feed");
    ensure_eq!(promote(&store, promotion(&before, entry.revision)).await?, Promoted::Done, "promotion");
    until_due(&other, &mut *feed, at(100), &sorted[1..]).await?;
    ensure_eq!(feed.next_due().await?, Some(at(10)), "next_due after a promotion");
    cancel(&store, &all[1]).await?;
    until_due(&other, &mut *feed, at(100), &sorted[2..]).await
}

/// Catches: a feed that loses entries because others were removed while it was being filled.
pub(super) async fn the_feed_misses_nothing_while_entries_go(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let at = in_secs(3600);
    for round in 0..3 {
        let all = jobs("q", 300);
        put_entries(&store, all.iter().map(|job| scheduled(job, at)).collect()).await?;
        let (go, stay) = all.split_at(60);
        let going = async {
            for job in go {
                cancel(&store, job).await?;
            }
            Ok::<_, Failure>(())
        };
        let opening = async {
            let mut feed = feed(&other).await?;
            due(&mut *feed, at, 1).await?;
            Ok::<_, Failure>(feed)
        };
        let (gone, feed) = tokio::join!(going, opening);
        gone?;
        let found = due(&mut *feed?, at, 1_000).await?;
        let missing = stay.iter().filter(|job| !found.contains(&job.id)).count();
        ensure_eq!(missing, 0, "entries of 240 that the feed does not have in round {round}");
        for job in stay {
            cancel(&store, job).await?;
        }
    }
    Ok(())
}

/// Catches: a leader that sleeps on while another process schedules something sooner.
pub(super) async fn a_sooner_entry_wakes_the_feed_within_200_ms(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut feed = feed(&other).await?;
    ensure_eq!(within(PATIENCE, "next_due", feed.next_due()).await??, None, "next_due of an empty store");
    let mut delays = Vec::new();
    for round in 0..3u64 {
        let sooner = job("q");
        let run_at = in_secs(1_000 - 100 * round);
        // Takes changes that are reported late, and shows that a dropped call costs nothing.
        while tokio::time::timeout(Duration::from_millis(150), feed.changed()).await.is_ok() {}
        let scheduling = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            put_entries(&store, vec![scheduled(&sooner, run_at)]).await?;
            Ok::<_, Failure>(Instant::now())
        };
        let waiting = async {
            while feed.next_due().await? != Some(run_at) {
                within(PATIENCE, "a sooner entry wakes the feed", feed.changed()).await?;
            }
            Ok::<_, Failure>(Instant::now())
        };
        let (stored, woken) = tokio::join!(scheduling, waiting);
        delays.push(woken?.saturating_duration_since(stored?));
    }
    delays.sort();
    ensure!(delays[1] < Duration::from_millis(200), "wake-ups took {delays:?}");
    Ok(())
}

/// Catches: a change that is lost because nobody was waiting at that moment.
pub(super) async fn a_change_between_two_calls_is_reported(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut feed = feed(&other).await?;
    ensure_eq!(within(PATIENCE, "next_due", feed.next_due()).await??, None, "next_due of an empty store");
    while tokio::time::timeout(Duration::from_millis(150), feed.changed()).await.is_ok() {}
    let run_at = in_secs(50);
    put_entries(&store, vec![scheduled(&job("q"), run_at)]).await?;
    tokio::time::sleep(QUIET).await;
    for _ in 0..20 {
        if feed.next_due().await? == Some(run_at) {
            return Ok(());
        }
        within(PATIENCE, "the change made while nobody waited", feed.changed()).await?;
    }
    Err(Failure::new("twenty changes without the new entry"))
}

/// Catches: a get of many entries that shifts answers or leaves gaps out.
pub(super) async fn scheduled_entries_come_in_the_order_asked(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let all = jobs("q", 40);
    put_entries(&store, all.iter().step_by(2).map(|job| scheduled(job, in_secs(60))).collect()).await?;
    let mut asked = ids(&all);
    asked.reverse();
    let found = store.get_scheduled(&asked).await?;
    let found: Vec<_> = found.into_iter().map(|entry| entry.map(|entry| entry.address.id)).collect();
    let expected: Vec<_> = asked.iter().enumerate().map(|(n, id)| (n % 2 == 1).then(|| id.clone())).collect();
    ensure_eq!(found, expected, "entries of 40 ids, every other one scheduled");
    ensure_eq!(store.get_scheduled(&[]).await?, vec![], "entries of no ids");
    Ok(())
}

/// Catches: a retry that a cancel overtook and that brings the job back to life.
pub(super) async fn a_retry_after_a_cancel_never_runs(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let first = job("q");
    put(&store, from_ref(&first)).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    let claim = puller.one().await?;
    cancel(&other, &first).await?;
    let mut second = first.clone();
    (second.run, second.attempt, second.run_at) = (2, 2, Some(in_secs(1)));
    let again = Action::Again(entry(&second, JobStatus::Retry));
    let settled = settle(&*store, settlement(&claim, again)).await?;
    if let Some(entry) = waiting(&other, &first.id).await? {
        // A store that does not look for a result here finds it before the next run.
        let outcome = promote(&other, promotion(&second, entry.revision)).await?;
        ensure_eq!(outcome, Promoted::AlreadyEnded, "promotion of a cancelled job that settled as {settled:?}");
    } else {
        ensure!(settled != Settled::Done, "a retry was taken and is nowhere");
    }
    eventually(PATIENCE, "only the result of the cancel is left", async || {
        let sightings = other.get_job(&first.id).await?;
        Ok(matches!(&sightings[..], [Sighting::Ended(_)]))
    })
    .await?;
    puller.demand(5);
    puller.nothing_for(QUIET).await
}

/// Waits until the feed has reported exactly these as waiting for others.
async fn until_waiting(feed: &mut dyn DueFeed, expected: &[WaitingEntry]) -> Verdict {
    let mut found = std::collections::BTreeMap::new();
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        for entry in within(PATIENCE, "waiting", feed.waiting(2)).await?? {
            found.insert(entry.id, entry.revision);
        }
        if expected.iter().all(|entry| found.get(&entry.id) == Some(&entry.revision)) {
            ensure_eq!(found.len(), expected.len(), "entries that wait for others");
            return Ok(());
        }
        tokio::time::timeout(QUIET, feed.changed()).await.ok();
    }
    Err(Failure::new(format!("waiting for others: {found:?}, expected {expected:?}")))
}

/// Catches: a leader that never learns of jobs that wait for others, or takes them for delayed ones.
pub(super) async fn a_feed_reports_what_waits_for_others(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let all = jobs("q", 5);
    let mut early = feed(&other).await?;
    put_entries(&store, all.iter().map(|job| entry(job, JobStatus::Waiting)).collect()).await?;
    let mut waiting = Vec::new();
    for job in &all {
        let found = must_wait(&store, &job.id).await?;
        ensure_eq!(found.status, JobStatus::Waiting, "status");
        waiting.push(WaitingEntry { id: found.address.id, revision: found.revision });
    }
    until_waiting(&mut *early, &waiting).await?;
    ensure_eq!(due(&mut *early, in_secs(1000), 10).await?.len(), 0, "due, of jobs that wait for others");
    ensure_eq!(early.next_due().await?, None, "next due");
    // One gets a time and waits on, one waits for that time only, one goes into its queue.
    let mut moved = all[0].clone();
    moved.run_at = Some(in_secs(100));
    store.reschedule(entry(&moved, JobStatus::Waiting), waiting[0].revision).await?;
    waiting[0].revision = must_wait(&store, &moved.id).await?.revision;
    until_waiting(&mut *early, &waiting[..1]).await?;
    let delayed = scheduled(&all[1], in_secs(100));
    store.reschedule(delayed, waiting[1].revision).await?;
    until_due(&store, &mut *early, in_secs(200), from_ref(&all[1].id)).await?;
    ensure_eq!(promote(&store, promotion(&all[2], waiting[2].revision)).await?, Promoted::Done, "promoting");
    let mut late = feed(&other).await?;
    let left = [waiting[0].clone(), waiting[3].clone(), waiting[4].clone()];
    until_waiting(&mut *late, &left).await
}
