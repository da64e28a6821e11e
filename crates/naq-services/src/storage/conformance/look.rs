//! Checks of what people see: sightings, lists, numbers, results that are awaited.

use std::{
    collections::BTreeSet,
    slice::from_ref,
    time::{Duration, Instant},
};

use naq_models::{Job, JobError, JobId, JobStatus, Timestamp};

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq, eventually, within},
    scene::{
        LONG, PATIENCE, Puller, Scene, at_priority, complete, end_with, entry, host_now, ids, job, jobs, named,
        pending, put, put_entries, queue, result_of, scheduled, settle, settlement,
    },
};
use crate::storage::{
    Action, Claim, DeadLetter, Enqueued, ListFilter, QueueStats, RunningAt, Settled, SharedStorage, Sighting,
    StorageErrorKind,
};

fn tomorrow() -> Timestamp {
    host_now().saturating_add(Duration::from_secs(86_400))
}

async fn fail(store: &SharedStorage, claim: &Claim, job: &Job) -> Verdict {
    let error = JobError::new("conformance", "broken", host_now()).permanent();
    let kind = Some(job.kind.clone());
    let letter = DeadLetter { address: claim.address.clone(), body: claim.body.clone(), error, kind };
    let end = Action::End {
        result: Some(result_of(job, JobStatus::Failed, "broken")),
        dead_letter: Some(letter),
        unique_key: None,
    };
    ensure_eq!(settle(&**store, settlement(claim, end)).await?, Settled::Done, "failing");
    Ok(())
}

/// Catches: a state in which a job cannot be seen, or is seen as something else.
pub(super) async fn a_job_is_seen_in_every_state(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    for job in [job("q"), named("mine", "q")] {
        let mut timed = job.clone();
        timed.run_at = Some(tomorrow());
        put_entries(&store, vec![entry(&timed, JobStatus::Scheduled)]).await?;
        let sightings = other.get_job(&job.id).await?;
        let [Sighting::Scheduled(seen)] = &sightings[..] else {
            return Err(Failure::new(format!("scheduled: {sightings:?}")));
        };
        ensure_eq!((seen.status, seen.run_at, seen.run), (JobStatus::Scheduled, timed.run_at, 1), "scheduled");
        let moved = timed.clone().promoted();
        let promotion = crate::storage::Promotion { revision: seen.revision, entry: pending(&moved) };
        for outcome in store.promote(vec![promotion]).await {
            ensure_eq!(outcome?, crate::storage::Promoted::Done, "promoting");
        }
        let sightings = other.get_job(&job.id).await?;
        let [Sighting::Queued { address, body, running: None }] = &sightings[..] else {
            return Err(Failure::new(format!("pending: {sightings:?}")));
        };
        ensure_eq!((&address.id, &address.queue, body), (&job.id, &job.queue, &pending(&moved).body), "pending");

        let mut puller = Puller::open(&store, "worker-7", &["q"], LONG).await?;
        let claim = puller.one().await?;
        let started_at = host_now();
        puller.running.start(&job.id, RunningAt { worker_id: "worker-7".into(), started_at });
        eventually(PATIENCE, "the worker of a running job is seen", async || {
            let sightings = other.get_job(&job.id).await?;
            let [Sighting::Queued { running, .. }] = &sightings[..] else {
                return Err(Failure::new(format!("running: {sightings:?}")));
            };
            Ok(running.as_ref().is_some_and(|at| {
                let apart = at.started_at.since(started_at) + started_at.since(at.started_at);
                at.worker_id == "worker-7" && apart < Duration::from_secs(5)
            }))
        })
        .await?;
        fail(&store, &claim, &moved).await?;
        eventually(PATIENCE, "a failed job has left its queue", async || {
            let sightings = other.get_job(&job.id).await?;
            let dead = sightings.iter().any(|s| matches!(s, Sighting::Dead(_)));
            let ended = sightings.iter().any(|s| matches!(s, Sighting::Ended(_)));
            ensure!(dead && ended, "failed: {sightings:?}");
            // A store may need a moment to take the acknowledgement in.
            Ok(sightings.len() == 2)
        })
        .await?;
        puller.close().await?;
    }
    Ok(())
}

/// Catches: unknown ids that are an error of another kind, or an empty answer.
pub(super) async fn an_unknown_id_is_not_found(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    for id in [job("q").id, named("nobody", "q").id, named(&"x".repeat(128), "q").id] {
        let found = store.get_job(&id).await.map_err(|error| error.kind());
        ensure_eq!(found, Err(StorageErrorKind::NotFound), "get_job");
        ensure_eq!(store.get_result(&id).await?, None, "get_result");
        ensure_eq!(store.get_scheduled(from_ref(&id)).await?, vec![None], "get_scheduled");
    }
    Ok(())
}

/// The ids of all pages, which must hold no job twice and no more than the limit.
async fn pages(
    store: &SharedStorage,
    queue_name: Option<&str>,
    statuses: &[JobStatus],
    limit: usize,
) -> Result<BTreeSet<JobId>, Failure> {
    let mut filter = ListFilter { queue: queue_name.map(queue), statuses: statuses.to_vec(), limit, cursor: None };
    let mut found = BTreeSet::new();
    for _ in 0..1_000 {
        let page = within(PATIENCE, "listing", store.list(&filter)).await??;
        ensure!(page.items.len() <= limit, "{} items on a page of {limit}", page.items.len());
        for item in &page.items {
            ensure!(found.insert(item.id().clone()), "{} is listed twice for {filter:?}", item.id());
        }
        match page.next {
            None => return Ok(found),
            next => filter.cursor = next,
        }
    }
    Err(Failure::new(format!("a list without end for {filter:?}")))
}

fn set(jobs: &[Job]) -> BTreeSet<JobId> {
    ids(jobs).into_iter().collect()
}

/// Catches: lists with gaps or repetitions at the edges of pages.
pub(super) async fn pages_have_no_gaps_and_no_repetitions(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let mut all: Vec<_> =
        jobs("q", 250).into_iter().enumerate().map(|(n, job)| at_priority(job, [0, 1, 2, 3][n % 4])).collect();
    all.extend((0..10).map(|n| named(&format!("mine-{n}"), "q")));
    put(&store, &all).await?;
    for limit in [1_000, 260, 100, 7] {
        ensure!(
            pages(&store, Some("q"), &[JobStatus::Pending], limit).await? == set(&all),
            "pending, pages of {limit}"
        );
    }
    let (later, ended) = (jobs("q", 60), jobs("r", 60));
    put_entries(&store, later.iter().map(|job| scheduled(job, tomorrow())).collect()).await?;
    put(&store, &ended).await?;
    let mut puller = Puller::open(&store, "w", &["r"], LONG).await?;
    puller.demand(60);
    let claims = puller.take(60).await?;
    let (well, badly) = ended.split_at(30);
    for (claim, job) in claims.iter().zip(well) {
        complete(&store, claim, job, "done").await?;
    }
    for (claim, job) in claims[30..].iter().zip(badly) {
        fail(&store, claim, job).await?;
    }
    let scheduled = pages(&store, None, &[JobStatus::Scheduled, JobStatus::Retry], 7).await?;
    ensure!(scheduled == set(&later), "scheduled, pages of 7");
    let results = pages(&store, None, &[JobStatus::Completed], 7).await?;
    // A store may show the results of failed jobs here too.
    ensure!(results.is_superset(&set(well)) && results.is_subset(&set(&ended)), "results, pages of 7");
    let failed = pages(&store, None, &[JobStatus::Failed], 3).await?;
    ensure!(failed == set(badly), "dead letters, pages of 3");
    Ok(())
}

/// Catches: lists that show jobs of another state or queue, or leave some out.
pub(super) async fn lists_obey_their_filter(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let queued = [job("q"), job("r")];
    let (later, dependent, retry) = (job("q"), job("r"), job("q"));
    let (running, completed, failed) = (job("w"), job("w"), job("w"));
    let mut timed_retry = retry.clone();
    timed_retry.run_at = Some(tomorrow());
    let waiting = vec![scheduled(&later, tomorrow()), entry(&dependent, Waiting), entry(&timed_retry, Retry)];
    put_entries(&store, waiting).await?;
    put(&store, &queued).await?;
    put(&store, &[running.clone(), completed.clone(), failed.clone()]).await?;
    let mut puller = Puller::open(&store, "w", &["w"], LONG).await?;
    puller.demand(3);
    let claims = puller.take(3).await?;
    complete(&store, &claims[1], &completed, "done").await?;
    fail(&store, &claims[2], &failed).await?;

    let of = |jobs: &[&Job]| jobs.iter().map(|job| job.id.clone()).collect::<BTreeSet<_>>();
    use JobStatus::{Completed, Failed, Pending, Retry, Running, Scheduled, Waiting};
    let table: &[(Option<&str>, &[JobStatus], BTreeSet<JobId>)] = &[
        (Some("q"), &[Pending], of(&[&queued[0]])),
        (Some("w"), &[Pending, Running], of(&[&running])),
        (None, &[Pending, Running], of(&[&queued[0], &queued[1], &running])),
        (None, &[Scheduled], of(&[&later])),
        (None, &[Waiting], of(&[&dependent])),
        (None, &[Retry], of(&[&retry])),
        (Some("q"), &[Scheduled, Waiting, Retry], of(&[&later, &retry])),
        (Some("r"), &[Pending, Waiting], of(&[&queued[1], &dependent])),
        (None, &[Failed], of(&[&failed])),
        (Some("q"), &[Failed], of(&[])),
        (Some("w"), &[Failed], of(&[&failed])),
        (None, &[Completed], of(&[&completed])),
        (Some("w"), &[Completed], of(&[&completed])),
        (Some("q"), &[Completed], of(&[])),
        (Some("nowhere"), &[], of(&[])),
        (Some("q"), &[], of(&[&queued[0], &later, &retry])),
    ];
    for (queue_name, statuses, expected) in table {
        let mut found = pages(&other, *queue_name, statuses, 100).await?;
        if **statuses == [Completed] && *queue_name != Some("q") {
            // A list of results may hold those of any terminal state.
            found.remove(&failed.id);
        }
        ensure_eq!(found, *expected, "listed in queue {queue_name:?} with states {statuses:?}");
    }
    let mut everything = BTreeSet::new();
    let mut filter = ListFilter { queue: None, statuses: Vec::new(), limit: 4, cursor: None };
    for _ in 0..100 {
        let page = within(PATIENCE, "listing everything", other.list(&filter)).await??;
        // A failed job is seen twice: as a dead letter and as a result.
        everything.extend(page.items.iter().map(|item| item.id().clone()));
        filter.cursor = page.next;
        if filter.cursor.is_none() {
            break;
        }
    }
    let all = of(&[&queued[0], &queued[1], &later, &dependent, &retry, &running, &completed, &failed]);
    ensure_eq!(everything, all, "listed without a filter");
    Ok(())
}

async fn stats(store: &SharedStorage, name: &str) -> Result<QueueStats, Failure> {
    let mut stats = within(PATIENCE, "queue_stats", store.queue_stats(Some(&queue(name)))).await??;
    ensure_eq!(stats.len(), 1, "answers for one queue");
    Ok(stats.remove(0))
}

/// Catches: dashboards that count running jobs as pending, forget states, or mix queues.
pub(super) async fn numbers_follow_every_state(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let unknown = stats(&other, "q").await?;
    ensure_eq!(unknown, QueueStats::empty(queue("q")), "an unknown queue");
    let all: Vec<_> = [0, 0, 1, 2, 2, 2, 3].into_iter().map(|p| at_priority(job("q"), p)).collect();
    put(&store, &all).await?;
    let (mut timed, now) = (job("q"), host_now());
    timed.run_at = Some(tomorrow());
    let waiting = [JobStatus::Scheduled, JobStatus::Retry, JobStatus::Retry, JobStatus::Waiting, JobStatus::Waiting];
    let waiting = waiting.map(|status| {
        let mut job = job("q");
        job.run_at = (status != JobStatus::Waiting).then(tomorrow);
        entry(&job, status)
    });
    put_entries(&store, waiting.to_vec()).await?;
    put(&store, &jobs("r", 2)).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(2);
    let claims = puller.take(2).await?;
    let expected = QueueStats {
        pending: [2, 1, 1, 1],
        running: 2,
        scheduled: 1,
        retry: 2,
        waiting: 2,
        ..QueueStats::empty(queue("q"))
    };
    let same =
        |found: &QueueStats, expected: &QueueStats| QueueStats { oldest_pending: None, ..found.clone() } == *expected;
    let mut last = None;
    let settled = eventually(PATIENCE, "the numbers", async || {
        let found = stats(&other, "q").await?;
        Ok(same(&found, &expected))
    })
    .await;
    if settled.is_err() {
        last = Some(stats(&other, "q").await?);
    }
    ensure!(last.is_none(), "numbers are {last:?}, expected {expected:?}");
    let oldest = stats(&other, "q").await?.oldest_pending.ok_or_else(|| Failure::new("no oldest_pending"))?;
    ensure!(oldest.since(now) + now.since(oldest) < Duration::from_secs(5), "oldest_pending is {oldest}, it is {now}");

    complete(&store, &claims[0], &all[3], "done").await?;
    fail(&store, &claims[1], &all[4]).await?;
    let expected = QueueStats { running: 0, failed: 1, ..expected };
    eventually(PATIENCE, "the numbers after two jobs ended", async || Ok(same(&stats(&other, "q").await?, &expected)))
        .await?;
    let names: BTreeSet<_> = other.queue_stats(None).await?.into_iter().map(|stats| stats.queue).collect();
    ensure_eq!(names, BTreeSet::from([queue("q"), queue("r")]), "all queues");
    Ok(())
}

/// One claimed job and its puller.
async fn claimed(store: &SharedStorage, job: &Job) -> Result<(Claim, Puller), Failure> {
    put(store, from_ref(job)).await?;
    let mut puller = Puller::open(store, "w", &["q"], LONG).await?;
    let claim = puller.one().await?;
    Ok((claim, puller))
}

/// Catches: callers that poll for their result, or learn of it only in their own process.
pub(super) async fn a_waiting_caller_gets_the_result_within_200_ms(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut delays = Vec::new();
    for _ in 0..3 {
        let job = job("q");
        let (claim, puller) = claimed(&store, &job).await?;
        let waiting = async {
            let found = within(PATIENCE, "the result", other.wait_result(&job.id, 0, LONG)).await??;
            Ok::<_, Failure>((found, Instant::now()))
        };
        let settling = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let body = complete(&store, &claim, &job, "done").await?;
            Ok::<_, Failure>((body, Instant::now()))
        };
        let (waited, settled) = tokio::join!(waiting, settling);
        let ((found, woken), (body, settled)) = (waited?, settled?);
        let found = found.ok_or_else(|| Failure::new("no result before the timeout"))?;
        ensure_eq!((found.id, found.body), (job.id, body), "the awaited result");
        delays.push(woken.saturating_duration_since(settled));
        puller.close().await?;
    }
    delays.sort();
    ensure!(delays[1] < Duration::from_millis(200), "results came after {delays:?}");
    Ok(())
}

/// Catches: waits that end early, never, or with an error.
pub(super) async fn waiting_for_a_result_ends_at_its_timeout(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let job = job("q");
    put(&store, from_ref(&job)).await?;
    for id in [&job.id, &named("unknown", "q").id] {
        let begun = Instant::now();
        let limit = Duration::from_millis(400);
        let found = within(PATIENCE, "the timeout", store.wait_result(id, 0, limit)).await??;
        let waited = begun.elapsed();
        ensure_eq!(found, None, "a result");
        ensure!(waited >= limit && waited < limit + Duration::from_secs(1), "a wait of {limit:?} took {waited:?}");
    }
    let begun = Instant::now();
    ensure_eq!(store.wait_result(&job.id, 0, Duration::ZERO).await?, None, "a result, without waiting");
    ensure!(begun.elapsed() < Duration::from_secs(1), "a wait of nothing took {:?}", begun.elapsed());
    Ok(())
}

/// Catches: a caller who asks for the result of a new life and is given the old one.
pub(super) async fn waiting_skips_results_that_are_not_newer(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let first = named("phoenix", "q");
    let (claim, mut puller) = claimed(&store, &first).await?;
    fail(&store, &claim, &first).await?;
    let old = within(PATIENCE, "a result that is there", other.wait_result(&first.id, 0, LONG)).await??;
    let old = old.ok_or_else(|| Failure::new("a stored result was not given"))?;
    let none = other.wait_result(&first.id, old.revision, Duration::from_millis(200)).await?;
    ensure_eq!(none, None, "a result newer than the newest");
    let second = first.clone().reborn(old.revision);
    ensure_eq!(store.requeue(pending(&second)).await?, Enqueued::Stored, "requeue");
    let claim = puller.one().await?;
    let (found, body) =
        tokio::join!(within(PATIENCE, "the second result", other.wait_result(&first.id, old.revision, LONG)), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            settle(&*store, settlement(&claim, end_with(result_of(&second, JobStatus::Completed, "second")))).await
        });
    ensure_eq!(body?, Settled::Done, "completing");
    let found = found??.ok_or_else(|| Failure::new("no result"))?;
    ensure!(found.revision > old.revision && found.body != old.body, "the old result was given: {found:?}");
    Ok(())
}
