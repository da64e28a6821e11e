//! Servers that are killed and come back.

use std::{collections::HashSet, time::Duration};

use naq_models::JobStatus;
use naq_services::storage::{Action, Bucket, ConsumerEvent, Enqueued, KvChange, Settled, Storage};

use crate::{server::on_each_server, work::*};

/// What a worker does with a claim: a doubtful one that has ended is completed, not run.
async fn run(storage: &dyn Storage, claim: &naq_services::storage::Claim) -> bool {
    let review = if claim.doubtful { Some(storage.review(claim).await.unwrap()) } else { None };
    if review.is_some_and(|review| review.result.is_some() || review.scheduled_run.is_some()) {
        let end = settlement(claim, Action::End { result: None, dead_letter: None, unique_key: None });
        assert_eq!(storage.settle(vec![end]).await.pop().unwrap().unwrap(), Settled::Done);
        return false;
    }
    storage.settle(vec![completed(claim)]).await.pop().unwrap().unwrap();
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_enqueued_and_said_to_be_survives_a_kill_in_the_middle() {
    on_each_server(async |mut server| {
        let storage = server.open().await;
        storage.enqueue(vec![pending(&job(generated(99_999)))]).await.pop().unwrap().unwrap();
        let producer = tokio::spawn({
            let storage = storage.clone();
            async move {
                let mut stored = Vec::new();
                for batch in 0..40u64 {
                    let jobs: Vec<_> = (0..50).map(|n| job(generated(batch * 50 + n))).collect();
                    let outcomes = storage.enqueue(jobs.iter().map(pending).collect()).await;
                    for (job, outcome) in jobs.into_iter().zip(outcomes) {
                        match outcome {
                            Ok(outcome) => {
                                assert_eq!(outcome, Enqueued::Stored);
                                stored.push(job.id);
                            }
                            Err(error) => assert!(error.is_transient(), "{error}"),
                        }
                    }
                }
                stored
            }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.restart();
        let stored = producer.await.unwrap();
        assert!(stored.len() >= 1900, "only {} of 2000 were stored", stored.len());
        let mut consumer = consumer_with(&*storage, "q", Duration::from_secs(120), None).await;
        let mut seen = HashSet::new();
        for claim in claim_until_empty(&mut *consumer).await {
            assert!(seen.insert(claim.address.id.clone()), "{} twice", claim.address.id);
        }
        let missing: Vec<_> = stored.iter().filter(|id| !seen.contains(*id)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    })
    .await;
}

async fn claim_until_empty(consumer: &mut dyn naq_services::storage::Consumer) -> Vec<naq_services::storage::Claim> {
    let mut claims = Vec::new();
    loop {
        let more = claim_all(consumer).await;
        if more.is_empty() {
            return claims;
        }
        claims.extend(more);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_jobs_do_not_run_again_after_a_kill_and_leave_no_orphans() {
    on_each_server(async |mut server| {
        let storage = server.open().await;
        let jobs: Vec<_> = (0..1000).map(|n| job(id(&format!("job-{n}")))).collect();
        for outcome in storage.enqueue(jobs.iter().map(pending).collect()).await {
            assert_eq!(outcome.unwrap(), Enqueued::Stored);
        }
        let mut consumer = consumer(&*storage, "q").await;
        let claims = claim(&mut *consumer, 1000).await;
        for outcome in storage.settle(claims.iter().map(completed).collect()).await {
            assert_eq!(outcome.unwrap(), Settled::Done);
        }
        server.kill();
        server.restart();
        // The worker reconnects, and whatever comes again is not run again.
        let mut again = 0;
        let drained = async {
            loop {
                for claim in &claim_all(&mut *consumer).await {
                    again += 1;
                    assert!(!run(&*storage, claim).await, "{} ran twice", claim.address.id);
                }
                let stats = storage.queue_stats(Some(&queue("q"))).await.unwrap();
                if (stats[0].pending, stats[0].running) == ([0; 4], 0) {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), drained).await.expect("nothing is stranded");
        println!("{again} came again");
        // Orphans would keep the addresses taken.
        for n in [0, 499, 999] {
            let kept = storage.get_result(&jobs[n].id).await.unwrap().unwrap();
            let letter = naq_services::storage::Ending {
                address: pending(&jobs[n]).address,
                result: Some(result(&jobs[n], JobStatus::Cancelled, "null")),
                dead_letter: None,
                unique_key: None,
            };
            assert_eq!(storage.end(letter).await.unwrap(), naq_services::storage::Ended::AlreadyEnded);
            let reborn = jobs[n].clone().reborn(kept.revision);
            assert_eq!(storage.requeue(pending(&reborn)).await.unwrap(), Enqueued::Stored);
        }
        let reborn = claim(&mut *consumer, 3).await;
        for claim in reborn {
            let gen_of = naq_models::wire::decode(&claim.body, &claim.address).unwrap().generation;
            let review = storage.review(&claim).await.unwrap();
            assert_eq!(review.result.map(|r| r.revision), Some(gen_of));
            storage.settle(vec![completed(&claim)]).await.pop().unwrap().unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_watches_feeds_and_waits_go_on_after_a_restart() {
    on_each_server(async |mut server| {
        let storage = server.open().await;
        let job = job(generated(1));
        let mut consumer = consumer(&*storage, "q").await;
        assert!(claim_all(&mut *consumer).await.is_empty());
        let mut watch = storage.kv_watch(Bucket::Control, "").await.unwrap();
        while watch.next().await != KvChange::Current {}
        let mut feed = storage.open_due_feed().await.unwrap();
        assert_eq!(feed.next_due().await.unwrap(), None);
        let waiting = tokio::spawn({
            let (storage, id) = (storage.clone(), job.id.clone());
            async move { storage.wait_result(&id, 0, Duration::from_secs(30)).await }
        });
        consumer.demand(demand(1));
        assert!(matches!(consumer.next().await, ConsumerEvent::Empty(_)));
        server.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.restart();
        let other = server.open().await;
        assert_eq!(other.enqueue(vec![pending(&job)]).await.pop().unwrap().unwrap(), Enqueued::Stored);
        let claimed = claim(&mut *consumer, 1).await;
        assert!(run(&*storage, &claimed[0]).await);
        assert!(waiting.await.unwrap().unwrap().is_some());
        other.kv_create(Bucket::Control, "pause.q", "1".into(), None).await.unwrap();
        let told = async {
            loop {
                if let KvChange::Put(entry) = watch.next().await
                    && entry.key == "pause.q"
                {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), told).await.expect("the watch goes on");
        let entry = retry(&crate::work::job(generated(2)), naq_models::Timestamp::EPOCH);
        other.enqueue(vec![entry]).await.pop().unwrap().unwrap();
        let due = async {
            while feed.due(naq_models::Timestamp::EPOCH, 1).await.map_or(true, |due| due.is_empty()) {
                feed.changed().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), due).await.expect("the feed goes on");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_consumer_is_made_again() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let mut consumer = consumer(&*storage, "q").await;
        assert!(claim_all(&mut *consumer).await.is_empty());
        let client = async_nats::connect(server.url()).await.unwrap();
        client.request("$JS.API.CONSUMER.DELETE.naq_queue_q.p2", "".into()).await.unwrap();
        storage.enqueue(vec![pending(&job(generated(1)))]).await.pop().unwrap().unwrap();
        assert_eq!(claim(&mut *consumer, 1).await.len(), 1);
        client.request("$JS.API.STREAM.DELETE.naq_queue_q", "".into()).await.unwrap();
        assert_eq!(storage.enqueue(vec![pending(&job(generated(2)))]).await.pop().unwrap().unwrap(), Enqueued::Stored);
        assert_eq!(claim(&mut *consumer, 1).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_claims_survive_a_kill_and_the_repair_after_it() {
    on_each_server(async |mut server| {
        let storage = server.open().await;
        let jobs: Vec<_> = (0..100).map(|n| job(generated(n))).collect();
        storage.enqueue(jobs.iter().map(pending).collect()).await;
        let mut first = consumer(&*storage, "q").await;
        let claims = claim(&mut *first, 60).await;
        storage.settle(claims[..30].iter().map(completed).collect()).await;
        server.kill();
        server.restart();
        // Opening repairs the queue once more.
        let mut second = consumer(&*storage, "q").await;
        let mut left: HashSet<_> = jobs[30..].iter().map(|job| job.id.clone()).collect();
        let all = async {
            while !left.is_empty() {
                for claim in claim_all(&mut *second).await.into_iter().chain(claim_all(&mut *first).await) {
                    if run(&*storage, &claim).await {
                        assert!(left.remove(&claim.address.id), "{} ran twice", claim.address.id);
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("every claim comes again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_stays_removed_after_a_kill() {
    on_each_server(async |mut server| {
        let storage = server.open().await;
        for key in ["pause.a", "pause.b", "pause.c"] {
            storage.kv_create(Bucket::Control, key, "1".into(), None).await.unwrap();
        }
        let removed = job(generated(1));
        let entry = retry(&removed, naq_models::Timestamp::EPOCH);
        storage.enqueue(vec![entry.clone(), retry(&job(generated(2)), naq_models::Timestamp::EPOCH)]).await;
        storage.kv_delete(Bucket::Control, "pause.b", None).await.unwrap();
        let end = naq_services::storage::Ending {
            address: entry.address,
            result: Some(result(&removed, JobStatus::Cancelled, "null")),
            dead_letter: None,
            unique_key: None,
        };
        storage.end(end).await.unwrap();
        server.kill();
        server.restart();
        assert_eq!(storage.kv_get(Bucket::Control, "pause.b").await.unwrap(), None);
        assert_eq!(storage.kv_list(Bucket::Control, "pause.").await.unwrap().len(), 2);
        assert_eq!(storage.get_scheduled(&[removed.id]).await.unwrap(), [None]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_one_job_strands_no_other() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let jobs: Vec<_> = (0..9).map(|n| job(generated(n))).collect();
        storage.enqueue(jobs.iter().map(pending).collect()).await;
        let mut consumer = consumer(&*storage, "q").await;
        let claims = claim(&mut *consumer, 3).await;
        for job in [&jobs[1], &jobs[5]] {
            let end = naq_services::storage::Ending {
                address: pending(job).address,
                result: Some(result(job, JobStatus::Cancelled, "null")),
                dead_letter: None,
                unique_key: None,
            };
            storage.end(end).await.unwrap();
        }
        let rest: HashSet<_> = claim(&mut *consumer, 5).await.into_iter().map(|claim| claim.address.id).collect();
        assert!(jobs[3..].iter().filter(|job| job.id != jobs[5].id).all(|job| rest.contains(&job.id)), "{rest:?}");
        // Those whose worker is silent come again.
        let mut again = HashSet::new();
        while !(again.contains(&claims[0].address.id) && again.contains(&claims[2].address.id)) {
            again.extend(claim(&mut *consumer, 1).await.into_iter().map(|claim| claim.address.id));
            assert!(!again.contains(&jobs[1].id) && !again.contains(&jobs[5].id));
        }
    })
    .await;
}
