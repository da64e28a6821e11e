//! Checks of a worker's receiving end: order, demand, empty lanes, wake-up, closing.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use naq_models::{Job, Priority};
use tokio::task::JoinSet;

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq, within},
    scene::{
        LONG, PATIENCE, Puller, QUIET, Scene, at_priority, claimed_ids, complete, end_with, ids, job, jobs, pending,
        put, put_entries, queue, result_of, same_order, settlement,
    },
};
use crate::storage::{Claim, ConsumerEvent, QueueOptions, Settled, SharedStorage};

/// Four lanes of a queue, `count` jobs in each, enqueued with the least urgent first.
async fn fill_lanes(store: &SharedStorage, count: usize) -> Result<[Vec<Job>; 4], Failure> {
    let lanes = [0, 1, 2, 3].map(|p| jobs("q", count).into_iter().map(|job| at_priority(job, p)).collect::<Vec<_>>());
    for lane in lanes.iter().rev() {
        put(store, lane).await?;
    }
    Ok(lanes)
}

fn of_lane(claims: &[Claim], priority: Priority) -> Vec<naq_models::JobId> {
    claims.iter().filter(|claim| claim.lane.priority == priority).map(|claim| claim.address.id.clone()).collect()
}

/// Catches: order by id, by time stamp or by chance instead of by arrival.
pub(super) async fn first_in_first_out_within_a_lane(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut all = jobs("q", 200);
    // Ids that sort against their arrival.
    all.sort_by(|a, b| b.id.cmp(&a.id));
    let (mut rest, mut size) = (&all[..], 1);
    while !rest.is_empty() {
        let (batch, more) = rest.split_at(size.min(rest.len()));
        put(if size % 2 == 0 { &store } else { &other }, batch).await?;
        (rest, size) = (more, size * 2);
    }
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    let mut found = Vec::new();
    for count in [1, 3, 50, 146] {
        puller.demand(count);
        found.extend(claimed_ids(&puller.take(count).await?));
    }
    same_order(&found, &ids(&all))
}

/// Catches: less urgent jobs chosen while more urgent ones wait.
pub(super) async fn urgent_lanes_come_first(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let lanes = fill_lanes(&store, 3).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand_lanes(&[(0, 0, 4), (0, 1, 5), (0, 2, 5), (0, 3, 5)]);
    let mut claims = Vec::new();
    let end = Instant::now() + PATIENCE;
    while claims.len() < 5 {
        let event = within(end.saturating_duration_since(Instant::now()), "five jobs of twelve", puller.event());
        if let ConsumerEvent::Claimed(more) = event.await? {
            claims.extend(more);
        }
    }
    // A store that cannot see across lanes may go up to the sum of the lanes.
    claims.extend(puller.during(QUIET).await);
    let mut open = false;
    for (lane, priority) in lanes.iter().zip(Priority::ALL) {
        let found = of_lane(&claims, priority);
        ensure!(found.len() <= 3 && found[..] == ids(lane)[..found.len()], "lane {priority} is out of order");
        ensure!(!open || found.is_empty(), "jobs of priority {priority} came while more urgent ones waited");
        open |= found.len() < 3;
    }
    Ok(())
}

/// Catches: a lane's demand exceeded or shared with other lanes; jobs from lanes that nobody asked for.
pub(super) async fn a_lanes_demand_is_its_bound(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let lanes = fill_lanes(&store, 10).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand_lanes(&[(0, 0, 2), (0, 2, 5)]);
    let claims = puller.during(QUIET * 2).await;
    let (urgent, rest) = (of_lane(&claims, Priority::ALL[0]), of_lane(&claims, Priority::ALL[2]));
    ensure_eq!(urgent, ids(&lanes[0][..2]), "claims of priority 0");
    // A store that cannot see across lanes does not share the second count with the first lane.
    ensure!((3..=5).contains(&rest.len()) && rest == ids(&lanes[2][..rest.len()]), "claims of priority 2: {rest:?}");
    ensure_eq!(claims.len(), urgent.len() + rest.len(), "all claims");
    Ok(())
}

/// Catches: a consumer that claims ahead, or before it was asked.
pub(super) async fn nothing_comes_without_demand(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let all = jobs("q", 10);
    put(&store, &all).await?;
    let mut idle = Puller::open(&store, "idle", &["q"], LONG).await?;
    idle.nothing_for(QUIET).await?;
    idle.demand(2);
    let _two = idle.take(2).await?;
    idle.nothing_for(QUIET).await?;
    idle.demand_lanes(&[]);
    idle.nothing_for(QUIET).await?;
    let mut busy = Puller::open(&other, "busy", &["q"], LONG).await?;
    busy.demand(8);
    ensure_eq!(claimed_ids(&busy.take(8).await?), ids(&all[2..]), "what was left for others");
    Ok(())
}

/// Catches: demands that add up instead of replacing each other.
pub(super) async fn a_new_demand_replaces_the_old(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(5);
    let _none = puller.until_empty().await?;
    for _ in 0..10 {
        puller.demand(2);
    }
    puller.during(Duration::from_millis(50)).await;
    put(&other, &jobs("q", 40)).await?;
    let claims = puller.during(QUIET * 2).await.len();
    // What was on its way under the first demand may still arrive.
    ensure!((2..=7).contains(&claims), "{claims} jobs for a demand of 2 that replaced one of 5");
    Ok(())
}

/// Catches: a worker that starts with less urgent jobs because a lane was not asked yet, or that waits for ever.
pub(super) async fn empty_follows_everything_that_was_there(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let mut empty = Puller::open(&store, "empty", &["q", "r"], LONG).await?;
    let lanes = [(0, 0, 9), (0, 1, 18), (0, 2, 27), (0, 3, 36), (1, 2, 45)];
    empty.demand_lanes(&lanes);
    let begun = Instant::now();
    ensure!(empty.until_empty().await?.is_empty(), "claims from empty queues");
    ensure!(begun.elapsed() < Duration::from_secs(2), "empty queues were reported after {:?}", begun.elapsed());
    empty.close().await?;
    let there = fill_lanes(&store, 5).await?;
    let elsewhere = jobs("r", 5);
    put(&store, &elsewhere).await?;
    let mut puller = Puller::open(&store, "w", &["q", "r"], LONG).await?;
    puller.demand_lanes(&lanes);
    let claims = puller.until_empty().await?;
    ensure_eq!(claims.len(), 25, "claims before all lanes were empty");
    for (lane, priority) in there.iter().zip(Priority::ALL) {
        let (q, _): (Vec<_>, Vec<_>) = claims.iter().partition(|claim| claim.lane.queue == 0);
        let found: Vec<_> =
            q.iter().filter(|c| c.lane.priority == priority).map(|claim| claim.address.id.clone()).collect();
        ensure_eq!(found, ids(lane), "lane {priority}");
    }
    Ok(())
}

/// Catches: a worker that runs until its queues are empty (`--burst`) and never learns that they are.
pub(super) async fn empty_comes_again_when_lanes_are_empty_again(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(100);
    ensure!(puller.until_empty().await?.is_empty(), "claims from an empty queue");
    for round in 0..3 {
        let more = jobs("q", 3);
        put(&other, &more).await?;
        let mut claims = puller.take(3).await?;
        claims.extend(puller.until_empty().await?);
        ensure_eq!(claimed_ids(&claims), ids(&more), "round {round}");
    }
    puller.demand_lanes(&[]);
    puller.nothing_for(Duration::from_millis(50)).await?;
    puller.demand(100);
    ensure!(puller.until_empty().await?.is_empty(), "claims after the demand was raised again");
    Ok(())
}

/// Catches: claims that name another lane, place or body than the job's; fresh jobs held for suspects.
pub(super) async fn a_claim_says_what_and_from_where(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let all = [at_priority(job("first"), 3), at_priority(job("second"), 0), job("second")];
    put(&store, &all).await?;
    let mut puller = Puller::open(&store, "w", &["second", "first"], LONG).await?;
    let lanes: Vec<_> = (0..2).flat_map(|queue| (0..4).map(move |p| (queue, p, 40))).collect();
    puller.demand_lanes(&lanes);
    let claims = puller.until_empty().await?;
    ensure_eq!(claims.len(), 3, "claims");
    for job in &all {
        let claim = claims.iter().find(|claim| claim.address.id == job.id);
        let claim = claim.ok_or_else(|| Failure::new(format!("{} was not claimed", job.id)))?;
        let expected = pending(job);
        ensure_eq!(claim.body, expected.body, "body");
        ensure_eq!(claim.address.queue, job.queue, "queue");
        ensure_eq!(claim.address.priority, job.priority, "priority");
        ensure_eq!(claim.lane.priority, job.priority, "priority of the lane");
        ensure_eq!(claim.lane.queue, usize::from(job.queue == queue("first")), "index of the lane's queue");
        ensure_eq!((&claim.lease.id, claim.lease.duration), (&job.id, LONG), "lease");
        ensure!(!claim.doubtful, "a fresh job is doubtful");
        let apart = claim.address.stored_at.since(job.enqueued_at) + job.enqueued_at.since(claim.address.stored_at);
        ensure!(apart < Duration::from_secs(5), "stored_at is {apart:?} away from the time of the enqueue");
    }
    Ok(())
}

/// Takes and completes jobs until `count` are done by all together; returns what it had.
async fn work(
    store: SharedStorage,
    name: String,
    count: usize,
    done: std::sync::Arc<std::sync::atomic::AtomicUsize>,
) -> Result<Vec<naq_models::JobId>, Failure> {
    use std::sync::atomic::Ordering;
    let mut puller = Puller::open(&store, &name, &["q"], LONG).await?;
    let mut had = Vec::new();
    while done.load(Ordering::SeqCst) < count {
        puller.demand(64);
        let claims = puller.during(Duration::from_millis(20)).await;
        let settlements = claims
            .iter()
            .map(|claim| {
                let mut job = job("q");
                job.id = claim.address.id.clone();
                settlement(claim, end_with(result_of(&job, naq_models::JobStatus::Completed, &name)))
            })
            .collect();
        for settled in within(PATIENCE, "settling", store.settle(settlements)).await? {
            let settled = settled?;
            ensure_eq!(settled, Settled::Done, "settling a held job");
        }
        done.fetch_add(claims.len(), Ordering::SeqCst);
        had.extend(claimed_ids(&claims));
    }
    puller.close().await?;
    Ok(had)
}

/// Catches: one job claimed by two consumers, or by none.
pub(super) async fn four_consumers_share_two_thousand_jobs(scene: Scene) -> Verdict {
    let stores = [scene.open().await?, scene.open().await?];
    let all = jobs("q", 2_000);
    put(&stores[0], &all).await?;
    let done = std::sync::Arc::default();
    let mut tasks = JoinSet::new();
    for n in 0..4 {
        let done = std::sync::Arc::clone(&done);
        tasks.spawn(work(stores[n % 2].clone(), format!("w{n}"), all.len(), done));
    }
    let mut had = Vec::new();
    while let Some(task) = within(PATIENCE * 4, "2000 jobs", tasks.join_next()).await? {
        had.extend(task.map_err(|error| Failure::new(error.to_string()))??);
    }
    let unique: HashSet<_> = had.iter().collect();
    ensure_eq!((had.len(), unique.len()), (2_000, 2_000), "(claims, different jobs)");
    ensure!(ids(&all).iter().all(|id| unique.contains(id)), "other jobs than those enqueued");
    Ok(())
}

/// Catches: idle workers that poll slowly instead of being woken.
pub(super) async fn an_idle_consumer_wakes_within_100_ms(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(100);
    let _none = puller.until_empty().await?;
    let mut delays = Vec::new();
    for _ in 0..5 {
        // The consumer waits before, while and after the job is enqueued.
        let enqueueing = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            put(&other, &[job("q")]).await?;
            Ok::<_, Failure>(Instant::now())
        };
        let waiting = async {
            let _claim = puller.take(1).await?;
            Ok::<_, Failure>(Instant::now())
        };
        let (enqueued, woken) = tokio::join!(enqueueing, waiting);
        delays.push(woken?.saturating_duration_since(enqueued?));
    }
    delays.sort();
    ensure!(delays[2] < Duration::from_millis(100), "wake-ups took {delays:?}");
    Ok(())
}

/// Catches: claims lost with a dropped `next()`, to come back only when their lease runs out.
pub(super) async fn dropping_next_loses_no_claim(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(300);
    let all = jobs("q", 300);
    let mut found = Vec::new();
    for batch in all.chunks(10) {
        put(&other, batch).await?;
        for _ in 0..5 {
            let next = tokio::time::timeout(Duration::from_micros(300), puller.event()).await;
            if let Ok(ConsumerEvent::Claimed(claims)) = next {
                found.extend(claimed_ids(&claims));
            }
        }
    }
    let rest = 300 - found.len();
    found.extend(claimed_ids(&puller.take(rest).await?));
    same_order(&found, &ids(&all))
}

/// Catches: jobs that a stopping worker had buffered and that wait for their lease to run out.
pub(super) async fn closing_gives_back_what_was_not_handed_out(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let all = jobs("q", 20);
    put(&store, &all).await?;
    let mut stopping = Puller::open(&store, "stopping", &["q"], LONG).await?;
    stopping.demand(10);
    // Time for claims to arrive and lie in the consumer.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let handed_out = match within(PATIENCE, "first claims", stopping.event()).await? {
        ConsumerEvent::Claimed(claims) => claims,
        _ => Vec::new(),
    };
    stopping.close().await?;
    let rest: HashSet<_> = ids(&all).into_iter().filter(|id| !claimed_ids(&handed_out).contains(id)).collect();
    let mut next = Puller::open(&other, "next", &["q"], LONG).await?;
    next.demand(20);
    let claims = next.take(rest.len()).await?;
    let found: HashSet<_> = claimed_ids(&claims).into_iter().collect();
    ensure_eq!(found, rest, "what others get");
    for claim in claims.iter().filter(|claim| claim.doubtful) {
        ensure!(!other.review(claim).await?.suspect, "a job that was given back is suspect");
    }
    next.nothing_for(QUIET).await?;
    let held = handed_out.first().and_then(|claim| all.iter().find(|job| job.id == claim.address.id).zip(Some(claim)));
    if let Some((job, claim)) = held {
        complete(&store, claim, job, "after close").await?;
    }
    Ok(())
}

/// Catches: a limit that each worker counts for itself, or that is never freed.
pub(super) async fn max_ack_pending_holds_over_consumers(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let all = jobs("q", 10);
    put_entries(&store, all.iter().map(pending).collect()).await?;
    let options = || vec![QueueOptions { name: queue("q"), lease: LONG, max_ack_pending: Some(3) }];
    let mut a = Puller::open_with(&store, "a", options()).await?;
    let mut b = Puller::open_with(&other, "b", options()).await?;
    a.demand(10);
    b.demand(10);
    let (mut held, more) = tokio::join!(a.during(QUIET * 2), b.during(QUIET * 2));
    held.extend(more);
    ensure_eq!(held.len(), 3, "claims with a limit of three");
    let mut finished = HashSet::new();
    while finished.len() < all.len() {
        for claim in std::mem::take(&mut held) {
            let job = all.iter().find(|job| job.id == claim.address.id);
            let job = job.ok_or_else(|| Failure::new("an unknown job"))?;
            complete(&store, &claim, job, "done").await?;
            ensure!(finished.insert(claim.address.id.clone()), "{} was claimed twice", claim.address.id);
        }
        let expected = 3.min(all.len() - finished.len());
        let end = Instant::now() + PATIENCE;
        while held.len() < expected {
            ensure!(Instant::now() < end, "{} more jobs after room was made, expected {expected}", held.len());
            let slice = Duration::from_millis(50);
            let (from_a, from_b) = tokio::join!(a.during(slice), b.during(slice));
            held.extend(from_a);
            held.extend(from_b);
        }
        ensure!(held.len() <= 3, "{} claims with a limit of three", held.len());
    }
    // The limit is that of each priority.
    b.close().await?;
    let lanes = fill_lanes(&store, 5).await?;
    a.demand_lanes(&[(0, 0, 5), (0, 1, 10), (0, 2, 15), (0, 3, 20)]);
    let claims = a.during(QUIET * 2).await;
    for (lane, priority) in lanes.iter().zip(Priority::ALL) {
        ensure_eq!(of_lane(&claims, priority), ids(&lane[..3]), "claims of priority {priority}");
    }
    Ok(())
}
