//! Moves: retries and promotions, cancels, new lives, redelivery.

use std::time::Duration;

use naq_models::{JobStatus, Timestamp, wire};
use naq_services::storage::{
    Action, Claim, ConsumerEvent, Ended, Ending, Enqueued, LeaseState, Promoted, Promotion, Settled, Sighting, Storage,
    StorageErrorKind,
};

use crate::{server::on_each_server, work::*};

fn promotion(entry: &naq_services::storage::ScheduledEntry) -> Promotion {
    let job = wire::decode(&entry.body, &entry.address).unwrap().promoted();
    Promotion { revision: entry.revision, entry: pending(&job) }
}

async fn claim_one(storage: &dyn Storage) -> Claim {
    let mut consumer = consumer(storage, "q").await;
    claim(&mut *consumer, 1).await.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_waits_is_promoted_and_runs_again() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let job = job(generated(1));
        storage.enqueue(vec![pending(&job)]).await.pop().unwrap().unwrap();
        let mut feed = storage.open_due_feed().await.unwrap();
        assert_eq!(feed.next_due().await.unwrap(), None);
        let first = claim_one(&*storage).await;
        let now = storage.now().await.unwrap();
        let again = settlement(&first, Action::Again(retry(&job, now)));
        assert_eq!(storage.settle(vec![again]).await.pop().unwrap().unwrap(), Settled::Done);
        tokio::time::timeout(Duration::from_secs(5), feed.changed()).await.expect("the feed hears of the retry");
        assert_eq!(feed.next_due().await.unwrap(), Some(now));
        let due = feed.due(now, 10).await.unwrap();
        assert_eq!(due.len(), 1);
        let entry = storage.get_scheduled(std::slice::from_ref(&job.id)).await.unwrap().pop().unwrap().unwrap();
        assert_eq!((entry.run, entry.status, entry.revision), (2, JobStatus::Retry, due[0].revision));
        let move_on = promotion(&entry);
        assert_eq!(storage.promote(vec![move_on.clone()]).await.pop().unwrap().unwrap(), Promoted::Done);
        assert_eq!(storage.promote(vec![move_on]).await.pop().unwrap().unwrap(), Promoted::Superseded);
        assert!(feed.due(now, 10).await.unwrap().is_empty());
        let second = claim_one(&*storage).await;
        assert!(second.doubtful);
        let review = storage.review(&second).await.unwrap();
        assert_eq!((review.result, review.scheduled_run, review.suspect), (None, None, false));
        assert_eq!(wire::decode(&second.body, &second.address).unwrap().run, 3);
        assert_eq!(storage.settle(vec![completed(&second)]).await.pop().unwrap().unwrap(), Settled::Done);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_takes_the_place_of_the_run_before_it() {
    on_each_server(async |server| {
        let storage = server.open().await;
        // The worker stored the retry and died before it acknowledged.
        let job = job(generated(1));
        storage.enqueue(vec![pending(&job)]).await.pop().unwrap().unwrap();
        let _lost = claim_one(&*storage).await;
        let mut entry = retry(&job, Timestamp::EPOCH);
        assert_eq!(storage.enqueue(vec![entry.clone()]).await.pop().unwrap().unwrap(), Enqueued::Stored);
        let waiting = storage.get_scheduled(std::slice::from_ref(&job.id)).await.unwrap().pop().unwrap().unwrap();
        assert_eq!(storage.promote(vec![promotion(&waiting)]).await.pop().unwrap().unwrap(), Promoted::Done);
        let next = claim_one(&*storage).await;
        assert_eq!(wire::decode(&next.body, &next.address).unwrap().run, 3);
        // A stale worker cannot bring the old run back.
        entry.run = 2;
        assert_eq!(storage.settle(vec![completed(&next)]).await.pop().unwrap().unwrap(), Settled::Done);
        let stale = storage.enqueue(vec![entry]).await.pop().unwrap().unwrap();
        assert_eq!(stale, Enqueued::Stored, "generated ids are not looked up");
        let waiting = storage.get_scheduled(std::slice::from_ref(&job.id)).await.unwrap().pop().unwrap().unwrap();
        assert_eq!(storage.promote(vec![promotion(&waiting)]).await.pop().unwrap().unwrap(), Promoted::AlreadyEnded);
        assert_eq!(storage.get_scheduled(&[job.id]).await.unwrap(), [None]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rescheduling_is_by_revision() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let job = job(id("later"));
        let entry = retry(&job, Timestamp::from_unix_millis(4_000_000_000_000).unwrap());
        storage.enqueue(vec![entry.clone()]).await.pop().unwrap().unwrap();
        let waiting = storage.get_scheduled(std::slice::from_ref(&job.id)).await.unwrap().pop().unwrap().unwrap();
        storage.reschedule(entry.clone(), waiting.revision).await.unwrap();
        let error = storage.reschedule(entry, waiting.revision).await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Conflict);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_is_gone_from_everywhere_and_its_worker_loses() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let (queued, running) = (job(generated(1)), job(generated(2)));
        storage.enqueue(vec![pending(&running)]).await.pop().unwrap().unwrap();
        let claimed = claim_one(&*storage).await;
        storage.enqueue(vec![pending(&queued)]).await.pop().unwrap().unwrap();
        for job in [&queued, &running] {
            let ending = Ending {
                address: pending(job).address,
                result: Some(result(job, JobStatus::Cancelled, "null")),
                dead_letter: None,
                unique_key: None,
            };
            assert_eq!(storage.end(ending.clone()).await.unwrap(), Ended::Done);
            assert_eq!(storage.end(ending).await.unwrap(), Ended::Done, "the same result again");
            assert!(matches!(&storage.get_job(&job.id).await.unwrap()[..], [Sighting::Ended(_)]));
        }
        assert_eq!(storage.settle(vec![completed(&claimed)]).await.pop().unwrap().unwrap(), Settled::AlreadyEnded);
        let mut consumer = consumer(&*storage, "q").await;
        assert!(claim_all(&mut *consumer).await.is_empty());
        let intents = storage.kv_list(naq_services::storage::Bucket::Control, "cancel.").await.unwrap();
        assert!(intents.is_empty(), "{intents:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_job_is_requeued_once() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let job = job(id("order-17"));
        storage.enqueue(vec![pending(&job)]).await.pop().unwrap().unwrap();
        let claimed = claim_one(&*storage).await;
        assert_eq!(storage.settle(vec![failed(&claimed)]).await.pop().unwrap().unwrap(), Settled::Done);
        assert_eq!(storage.enqueue(vec![pending(&job)]).await.pop().unwrap().unwrap(), Enqueued::Duplicate);
        let kept = storage.get_result(&job.id).await.unwrap().unwrap();
        let reborn = job.clone().reborn(kept.revision);
        assert_eq!(storage.requeue(pending(&reborn)).await.unwrap(), Enqueued::Stored);
        assert_eq!(storage.requeue(pending(&reborn)).await.unwrap(), Enqueued::Duplicate);
        assert!(!storage.remove_dead_letter(&job.id).await.unwrap());
        let again = claim_one(&*storage).await;
        let review = storage.review(&again).await.unwrap();
        assert_eq!(review.result.unwrap().revision, kept.revision, "the old life's, not newer than gen");
        assert_eq!(storage.settle(vec![failed(&again)]).await.pop().unwrap().unwrap(), Settled::Done);
        assert_eq!(storage.requeue(pending(&reborn)).await.unwrap(), Enqueued::Duplicate);
        assert!(storage.remove_dead_letter(&job.id).await.unwrap(), "the new life's letter stays");
        assert!(storage.get_result(&job.id).await.unwrap().unwrap().revision > kept.revision);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_worker_writes_nothing_but_a_result_that_wins() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let jobs = [job(generated(1)), job(generated(2)), job(generated(3))];
        storage.enqueue(jobs.iter().map(pending).collect()).await;
        let mut consumer = consumer(&*storage, "q").await;
        let claims = claim(&mut *consumer, 3).await;
        let fenced = |mut s: naq_services::storage::Settlement| {
            s.fenced = true;
            s
        };
        let again = settlement(&claims[0], Action::Again(retry(&jobs[0], Timestamp::EPOCH)));
        let nothing = settlement(&claims[1], Action::End { result: None, dead_letter: None, unique_key: None });
        let outcomes = storage.settle(vec![fenced(again), fenced(nothing), fenced(failed(&claims[2]))]).await;
        let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
        assert_eq!(outcomes, [Settled::LeaseLost, Settled::LeaseLost, Settled::Done]);
        let seen = |id| storage.get_job(id);
        assert!(matches!(&seen(&jobs[0].id).await.unwrap()[..], [Sighting::Queued { .. }]));
        assert!(matches!(&seen(&jobs[1].id).await.unwrap()[..], [Sighting::Queued { .. }]));
        assert!(matches!(&seen(&jobs[2].id).await.unwrap()[..], [Sighting::Dead(_), Sighting::Ended(_)]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_result_gets_its_dead_letter_from_whoever_comes_next() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let job = job(generated(1));
        storage.enqueue(vec![pending(&job)]).await.pop().unwrap().unwrap();
        let claimed = claim_one(&*storage).await;
        // The first worker wrote the result and died.
        let half = settlement(
            &claimed,
            Action::End { result: Some(result(&job, JobStatus::Failed, "null")), dead_letter: None, unique_key: None },
        );
        let mut other = half.clone();
        other.lease.token = "naq.test.nobody".into();
        assert_eq!(storage.settle(vec![other]).await.pop().unwrap().unwrap(), Settled::Done);
        assert_eq!(storage.settle(vec![completed(&claimed)]).await.pop().unwrap().unwrap(), Settled::AlreadyEnded);
        let seen = storage.get_job(&job.id).await.unwrap();
        let Some(Sighting::Dead(letter)) = seen.iter().find(|s| matches!(s, Sighting::Dead(_))) else {
            panic!("{seen:?}")
        };
        assert_eq!(letter.body, pending(&job).body);
        assert_eq!(letter.error, error());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_backs_are_no_suspicion_and_lost_workers_are() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let job = job(generated(1));
        storage.enqueue(vec![pending(&job)]).await.pop().unwrap().unwrap();
        let mut consumer = consumer(&*storage, "q").await;
        let first = claim(&mut *consumer, 1).await.pop().unwrap();
        storage.hand_back(vec![first.lease]).await.unwrap();
        let second = claim(&mut *consumer, 1).await.pop().unwrap();
        assert!(second.doubtful);
        assert!(!storage.review(&second).await.unwrap().suspect);
        // Nobody extends the second claim.
        let third = claim(&mut *consumer, 1).await.pop().unwrap();
        assert!(storage.review(&third).await.unwrap().suspect);
        storage.hand_back(vec![third.lease]).await.unwrap();
        let fourth = claim(&mut *consumer, 1).await.pop().unwrap();
        assert!(!storage.review(&fourth).await.unwrap().suspect, "counted at the third already");
        storage.settle(vec![completed(&fourth)]).await.pop().unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_lease_outlives_its_length() {
    on_each_server(async |server| {
        let storage = server.open().await;
        storage.enqueue(vec![pending(&job(generated(1)))]).await.pop().unwrap().unwrap();
        let claimed = claim_one(&*storage).await;
        let heartbeat = storage.open_heartbeat().await.unwrap();
        let mut other = consumer(&*storage, "q").await;
        other.demand(demand(1));
        let until = tokio::time::Instant::now() + 2 * LEASE;
        while tokio::time::Instant::now() < until {
            assert_eq!(heartbeat.extend(std::slice::from_ref(&claimed.lease)).await, [LeaseState::Held]);
            if let Ok(ConsumerEvent::Claimed(stolen)) = tokio::time::timeout(LEASE / 3, other.next()).await {
                panic!("delivered to another while extended: {stolen:?}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_gives_back_what_was_on_its_way() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let jobs: Vec<_> = (0..50).map(|n| pending(&job(generated(n)))).collect();
        storage.enqueue(jobs).await;
        let mut first = consumer_with(&*storage, "q", Duration::from_secs(60), None).await;
        first.demand(demand(50));
        let taken = loop {
            if let ConsumerEvent::Claimed(taken) = first.next().await {
                break taken;
            }
        };
        first.close().await.unwrap();
        let leases = taken.into_iter().map(|claim| claim.lease).collect();
        storage.hand_back(leases).await.unwrap();
        let mut second = consumer_with(&*storage, "q", Duration::from_secs(60), None).await;
        let claims = claim(&mut *second, 50).await;
        for claim in &claims {
            assert!(!storage.review(claim).await.unwrap().suspect);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_claims_holds_over_all_workers() {
    on_each_server(async |server| {
        let storage = server.open().await;
        storage.enqueue((0..10).map(|n| pending(&job(generated(n)))).collect()).await;
        let mut one = consumer_with(&*storage, "q", Duration::from_secs(60), Some(3)).await;
        let mut two = consumer_with(&*storage, "q", Duration::from_secs(60), Some(3)).await;
        let first = claim(&mut *one, 2).await;
        let more = claim_all(&mut *two).await;
        assert_eq!(first.len() + more.len(), 3);
        assert!(claim_all(&mut *one).await.is_empty());
        two.close().await.unwrap();
        storage.settle(vec![completed(&first[0])]).await.pop().unwrap().unwrap();
        assert_eq!(claim(&mut *one, 1).await.len(), 1);
    })
    .await;
}
