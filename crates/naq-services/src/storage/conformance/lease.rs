//! Checks of leases: expiry, extension, hand-back.

use std::time::{Duration, Instant};

use naq_models::Job;

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq, within},
    scene::{LONG, PATIENCE, Puller, QUIET, Scene, claimed_ids, complete, extend, ids, job, jobs, put},
};
use crate::storage::{Claim, LeaseState, SharedStorage};

/// How much later than its lease a dead worker's job may come (design section 2).
const SLACK: Duration = Duration::from_secs(5);

/// One job whose lease the first worker lost to a second one, who holds it with a long lease.
struct Lost {
    store: SharedStorage,
    other: SharedStorage,
    job: Job,
    stale: Claim,
    later: Claim,
    later_puller: Puller,
}

async fn lose(scene: &Scene, lease: Duration) -> Result<Lost, Failure> {
    let (store, other) = scene.pair().await?;
    let job = job("q");
    put(&store, std::slice::from_ref(&job)).await?;
    let mut first = Puller::open(&store, "first", &["q"], lease).await?;
    let stale = first.one().await?;
    let mut later_puller = Puller::open(&other, "later", &["q"], lease).await?;
    later_puller.demand(1);
    let mut claims = later_puller.take_within(lease + SLACK, 1).await?;
    let later = claims.pop().ok_or_else(|| Failure::new("no claim"))?;
    Ok(Lost { store, other, job, stale, later, later_puller })
}

/// Catches: jobs of dead workers that never run again, run again too early, or are not suspected.
pub(super) async fn a_dead_workers_job_runs_elsewhere(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let lease = scene.lease();
    let one = job("q");
    put(&store, std::slice::from_ref(&one)).await?;
    let mut dying = Puller::open(&store, "dying", &["q"], lease).await?;
    dying.demand(1);
    let begun = Instant::now();
    let _claim = dying.take(1).await?;
    drop(dying);
    within(PATIENCE, "closing", store.close()).await?;
    let mut next = Puller::open(&other, "next", &["q"], lease).await?;
    next.demand(1);
    let claims = next.take_within(lease + SLACK, 1).await?;
    let waited = begun.elapsed();
    ensure!(
        waited + Duration::from_millis(50) >= lease,
        "came after {waited:?}, before its lease of {lease:?} ran out"
    );
    ensure!(waited < lease + SLACK, "came after {waited:?}, lease {lease:?}");
    let claim = &claims[0];
    ensure_eq!(claim.address.id, one.id, "the job");
    ensure!(claim.doubtful, "the second delivery is not doubtful");
    let review = other.review(claim).await?;
    ensure!(review.suspect, "a job whose worker died is not suspect");
    ensure_eq!((review.result, review.scheduled_run), (None, None), "(result, scheduled run) of the review");
    complete(&other, claim, &one, "second").await?;
    next.demand(1);
    next.nothing_for(lease + QUIET).await
}

/// Catches: leases that end at a fixed time although their worker lives.
pub(super) async fn a_heartbeat_keeps_a_lease(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let lease = scene.lease();
    let all = jobs("q", 3);
    put(&store, &all).await?;
    let mut holder = Puller::open(&store, "holder", &["q"], lease).await?;
    holder.demand(3);
    let claims = holder.take(3).await?;
    let leases: Vec<_> = claims.iter().map(|claim| claim.lease.clone()).collect();
    let mut waiting = Puller::open(&other, "waiting", &["q"], lease).await?;
    waiting.demand(3);
    let (states, nothing) = tokio::join!(extend(&store, leases, 10, lease / 3), waiting.nothing_for(lease * 3));
    nothing?;
    for (round, states) in states?.into_iter().enumerate() {
        ensure_eq!(states, vec![LeaseState::Held; 3], "states in round {round}");
    }
    for (claim, job) in claims.iter().zip(&all) {
        complete(&store, claim, job, "first").await?;
    }
    waiting.nothing_for(lease + QUIET).await
}

/// Catches: a worker that goes on because its lease looks alive, and an extension that takes the job from its new owner.
pub(super) async fn a_lost_lease_is_reported_lost(scene: Scene) -> Verdict {
    let lost = lose(&scene, scene.lease()).await?;
    let states = extend(&lost.store, vec![lost.stale.lease.clone()], 1, Duration::ZERO).await?;
    ensure_eq!(states, vec![vec![LeaseState::Lost]], "extension of a lease that another worker has");
    let states = extend(&lost.other, vec![lost.later.lease.clone()], 1, Duration::ZERO).await?;
    ensure_eq!(states, vec![vec![LeaseState::Held]], "extension by the new owner");
    complete(&lost.other, &lost.later, &lost.job, "later").await?;
    Ok(())
}

/// Catches: a heartbeat that answers for one lease with the state of another, or for all of them alike.
///
/// A lease that its own worker has settled is not asked for here: a worker stops extending those, and a store need not
/// remember them.
pub(super) async fn extensions_answer_in_order(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let (kept, lost) = (jobs("q", 60), jobs("short", 3));
    put(&store, &kept).await?;
    put(&store, &lost).await?;
    let mut short = Puller::open(&store, "w", &["short"], scene.lease()).await?;
    short.demand(3);
    let expired = short.take(3).await?;
    let mut long = Puller::open(&store, "w", &["q"], LONG).await?;
    long.demand(60);
    let mut leases: Vec<_> = long.take(60).await?.into_iter().map(|claim| claim.lease).collect();
    let mut expected = vec![LeaseState::Held; 63];
    for (place, claim) in [7, 31, 62].into_iter().zip(expired) {
        leases.insert(place, claim.lease);
        expected[place] = LeaseState::Lost;
    }
    let mut next = Puller::open(&other, "next", &["short"], scene.lease()).await?;
    next.demand(3);
    let _claims = next.take_within(scene.lease() + SLACK, 3).await?;
    let states = extend(&store, leases, 1, Duration::ZERO).await?;
    ensure_eq!(states, vec![expected], "states of 63 leases, three of them lost");
    Ok(())
}

/// Catches: a deploy that delays jobs until their leases run out, reorders them, or makes them suspects.
pub(super) async fn handed_back_jobs_run_elsewhere_at_once(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let all = jobs("q", 6);
    put(&store, &all).await?;
    let mut leaving = Puller::open(&store, "leaving", &["q"], LONG).await?;
    leaving.demand(3);
    let claims = leaving.take(3).await?;
    let mut next = Puller::open(&other, "next", &["q"], LONG).await?;
    let leases = claims.iter().map(|claim| claim.lease.clone()).collect();
    within(PATIENCE, "handing back", store.hand_back(leases)).await??;
    next.demand(6);
    let again = next.take_within(Duration::from_secs(3), 6).await?;
    ensure_eq!(claimed_ids(&again), ids(&all), "order after a hand-back");
    for claim in again.iter().filter(|claim| claim.doubtful) {
        let review = other.review(claim).await?;
        ensure!(!review.suspect, "a job that was handed back is suspect");
    }
    for (claim, job) in again.iter().zip(&all) {
        complete(&other, claim, job, "next").await?;
    }
    Ok(())
}

/// Catches: idle workers that do not learn of handed-back jobs.
pub(super) async fn a_hand_back_wakes_idle_consumers(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let one = job("q");
    put(&store, std::slice::from_ref(&one)).await?;
    let mut leaving = Puller::open(&store, "leaving", &["q"], LONG).await?;
    let claim = leaving.one().await?;
    let mut idle = Puller::open(&other, "idle", &["q"], LONG).await?;
    idle.demand(1);
    let leaving = async {
        tokio::time::sleep(QUIET).await;
        within(PATIENCE, "handing back", store.hand_back(vec![claim.lease.clone()])).await??;
        Ok::<_, Failure>(Instant::now())
    };
    let waiting = async { Ok::<_, Failure>((idle.take(1).await?, Instant::now())) };
    let (handed_back, woken) = tokio::join!(leaving, waiting);
    let (again, woken) = woken?;
    ensure_eq!(claimed_ids(&again), vec![one.id], "the job");
    let delay = woken.saturating_duration_since(handed_back?);
    ensure!(delay < Duration::from_secs(1), "the wake-up took {delay:?}");
    Ok(())
}

/// Catches: an old worker that gives away what a new one runs.
pub(super) async fn handing_back_a_lost_lease_changes_nothing(scene: Scene) -> Verdict {
    let lost = lose(&scene, scene.lease().max(Duration::from_secs(2))).await?;
    let Lost { store, other, job, stale, later, mut later_puller } = lost;
    within(PATIENCE, "handing back", store.hand_back(vec![stale.lease.clone()])).await??;
    later_puller.demand(1);
    later_puller.nothing_for(QUIET * 2).await?;
    complete(&other, &later, &job, "later").await?;
    within(PATIENCE, "handing back", store.hand_back(vec![stale.lease, later.lease])).await??;
    later_puller.nothing_for(QUIET).await
}
