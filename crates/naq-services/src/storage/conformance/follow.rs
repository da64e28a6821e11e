//! Checks of the result feed.

use std::{
    collections::BTreeSet,
    slice::from_ref,
    time::{Duration, Instant},
};

use naq_models::{Job, JobId};

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq, within},
    scene::{LONG, PATIENCE, Puller, QUIET, Scene, cancel, complete, entry, ids, job, jobs, named, put, put_entries},
};
use crate::storage::{Ended, ResultFeed, ResultNews, SharedStorage};

async fn feed(store: &SharedStorage) -> Result<Box<dyn ResultFeed>, Failure> {
    Ok(within(PATIENCE, "opening the result feed", store.open_result_feed()).await??)
}

/// Waits for news of a job that a look confirms, as those who follow results do; other news must be of `others`.
async fn until_ended(
    store: &SharedStorage,
    feed: &mut dyn ResultFeed,
    id: &JobId,
    others: &[JobId],
) -> Result<(), Failure> {
    loop {
        match within(PATIENCE, "news of a result", feed.next()).await? {
            ResultNews::Of(found) if found == *id => {}
            ResultNews::Of(found) => {
                ensure!(others.contains(&found), "news of {found}, which is not followed");
                continue;
            }
            ResultNews::Lost => {}
        }
        if store.get_result(id).await?.is_some() {
            return Ok(());
        }
    }
}

/// Catches: news that comes late, or of jobs that nobody asked about.
pub(super) async fn news_of_followed_results_comes_within_200_ms(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut feed = feed(&other).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    let mut delays = Vec::new();
    for round in 0..3 {
        let (wanted, unwanted, forgotten) =
            (named(&format!("wanted-{round}"), "q"), job("q"), named(&format!("forgotten-{round}"), "q"));
        feed.follow(&[wanted.id.clone(), forgotten.id.clone()]).await?;
        feed.forget(&forgotten.id);
        put(&store, &[unwanted.clone(), forgotten.clone(), wanted.clone()]).await?;
        puller.demand(3);
        let claims = puller.take(3).await?;
        for (claim, job) in claims.iter().zip([&unwanted, &forgotten]) {
            complete(&store, claim, job, "done").await?;
        }
        complete(&store, &claims[2], &wanted, "done").await?;
        let settled = Instant::now();
        until_ended(&other, &mut *feed, &wanted.id, &[]).await?;
        delays.push(settled.elapsed());
        feed.forget(&wanted.id);
    }
    delays.sort();
    ensure!(delays[1] < Duration::from_millis(200), "news came after {delays:?}");
    let more = tokio::time::timeout(QUIET, feed.next()).await;
    ensure!(!matches!(more, Ok(ResultNews::Of(_))), "news of a job that was forgotten: {more:?}");
    Ok(())
}

/// Catches: a result between following and the look after it that nobody is told of.
pub(super) async fn no_result_after_following_goes_unnoticed(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    for round in 0..30 {
        let job = named(&format!("racer-{round}"), "q");
        put_entries(&store, vec![entry(&job, naq_models::JobStatus::Waiting)]).await?;
        let following = async {
            let mut feed = feed(&store).await?;
            tokio::time::sleep(Duration::from_micros(u64::try_from(round).unwrap_or(0) * 100)).await;
            feed.follow(from_ref(&job.id)).await?;
            if store.get_result(&job.id).await?.is_none() {
                until_ended(&store, &mut *feed, &job.id, &[]).await?;
            }
            Ok::<_, Failure>(())
        };
        // Over the same connection in one round, over another in the next.
        let by = if round % 2 == 0 { &store } else { &other };
        let (followed, ended) = tokio::join!(following, cancel(by, &job));
        ensure_eq!(ended?, Ended::Done, "ending");
        followed?;
    }
    Ok(())
}

/// Catches: feeds that can follow a few only.
pub(super) async fn one_feed_follows_a_thousand(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let all: Vec<Job> = jobs("q", 1000);
    let mut feed = feed(&other).await?;
    feed.follow(&ids(&all)).await?;
    put(&store, &all).await?;
    let mut puller = Puller::open(&store, "w", &["q"], LONG).await?;
    puller.demand(all.len());
    for (claim, job) in puller.take(all.len()).await?.iter().zip(&all) {
        ensure_eq!(claim.address.id, job.id, "order of the queue");
        complete(&store, claim, job, "done").await?;
    }
    let mut open: BTreeSet<JobId> = ids(&all).into_iter().collect();
    while !open.is_empty() {
        let news = within(PATIENCE, "news of a thousand results", feed.next()).await?;
        let rumoured: Vec<JobId> = match news {
            ResultNews::Of(id) => open.take(&id).into_iter().collect(),
            ResultNews::Lost => open.iter().cloned().collect(),
        };
        for id in rumoured {
            if other.get_result(&id).await?.is_some() {
                open.remove(&id);
                feed.forget(&id);
            } else {
                open.insert(id);
            }
        }
    }
    Ok(())
}
