//! Checks of the log of events. Bodies are opaque to a store, so these are not even events.

use std::time::{Duration, Instant};

use naq_models::{
    Timestamp,
    event::{EventId, EventOrigin},
};

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq, within},
    scene::{PATIENCE, QUIET, Scene, host_now},
};
use crate::storage::{EventBatch, EventFeed, EventRange, SharedStorage, StoredEvents};

/// Batch number `n`, of the jobs with these fingerprints, which happened so long ago.
fn batch(n: u32, jobs: &[u32], ago: Duration) -> EventBatch {
    let time = host_now().saturating_sub(ago);
    let origin = EventOrigin::new(rand::random());
    let body = format!("batch {n} \u{0}\u{7f}").into_bytes();
    EventBatch { id: EventId::new(time, origin, n), first: time, last: time, count: 1, jobs: jobs.to_vec(), body }
}

fn batches(numbers: std::ops::Range<u32>) -> Vec<EventBatch> {
    numbers.map(|n| batch(n, &[n], Duration::ZERO)).collect()
}

/// The numbers of batches.
fn numbers(found: &[StoredEvents]) -> Result<Vec<u32>, Failure> {
    let number = |stored: &StoredEvents| {
        let text = std::str::from_utf8(&stored.body).ok()?;
        text.strip_prefix("batch ")?.strip_suffix(" \u{0}\u{7f}")?.parse().ok()
    };
    found
        .iter()
        .map(|stored| number(stored).ok_or_else(|| Failure::new(format!("not as stored: {stored:?}"))))
        .collect()
}

/// Everything in a range, page by page.
async fn read(store: &SharedStorage, range: EventRange) -> Result<Vec<StoredEvents>, Failure> {
    let (mut found, mut after) = (Vec::new(), Some(range.after));
    while let Some(start) = after {
        let page = store.read_events(&EventRange { after: start, ..range.clone() }).await?;
        ensure!(page.batches.len() <= range.limit, "{} batches on a page of {}", page.batches.len(), range.limit);
        ensure!(page.next.is_none_or(|next| next > start), "a page that does not move on from {start}");
        found.extend(page.batches);
        after = page.next;
    }
    ensure!(found.is_sorted_by(|a, b| a.position < b.position), "positions do not grow: {found:?}");
    Ok(found)
}

/// Catches: an empty log that fails, batches in another order, changed bodies, pages with gaps or repetitions.
pub(super) async fn batches_come_back_in_order_and_byte_for_byte(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    ensure_eq!(read(&other, EventRange::first(10)).await?, Vec::new(), "an empty log");
    let empty = other.event_bounds().await?;
    ensure!(empty.first > empty.last, "an empty log has bounds {empty:?}");
    store.append_events(batches(0..7)).await?;
    store.append_events(batches(7..25)).await?;
    for limit in [1, 10, 25, 1000] {
        let found = read(&other, EventRange::first(limit)).await?;
        ensure_eq!(numbers(&found)?, (0..25).collect::<Vec<_>>(), "pages of {limit}");
        let bounds = other.event_bounds().await?;
        let ends = (found.first().map(|b| b.position), found.last().map(|b| b.position));
        ensure_eq!((Some(bounds.first), Some(bounds.last)), ends, "bounds");
    }
    Ok(())
}

/// Catches: filters of a store that leave out what they should not, and ends of a range that are off by one.
pub(super) async fn reading_leaves_out_no_batch_in_range(scene: Scene) -> Verdict {
    let store = scene.open().await?;
    let hour = Duration::from_secs(3600);
    let old = batch(0, &[1, 2, u32::MAX], hour);
    let new = batch(1, &[2, 3], Duration::ZERO);
    let (old_time, new_time) = (old.last, new.first);
    store.append_events(vec![old, new]).await?;
    let all = read(&store, EventRange::first(10)).await?;
    let [first, second] = &all[..] else { return Err(Failure::new(format!("not two batches: {all:?}"))) };
    let range = |after, upto| EventRange { after, upto, ..EventRange::first(10) };
    let between = read(&store, range(first.position, second.position)).await?;
    ensure_eq!(numbers(&between)?, [1], "after the first");
    let upto = read(&store, range(0, first.position)).await?;
    ensure_eq!(numbers(&upto)?, [0], "up to the first");
    for (job, wanted) in [(1, vec![0]), (2, vec![0, 1]), (3, vec![1]), (u32::MAX, vec![0])] {
        let found = numbers(&read(&store, EventRange { job: Some(job), ..EventRange::first(1) }).await?)?;
        ensure!(wanted.iter().all(|n| found.contains(n)), "of job {job}: {found:?}, and not {wanted:?}");
    }
    let times: [(Option<Timestamp>, Option<Timestamp>, &[u32]); 3] =
        [(Some(new_time), None, &[1]), (None, Some(old_time), &[0]), (Some(old_time), Some(new_time), &[0, 1])];
    for (since, until, wanted) in times {
        let found = numbers(&read(&store, EventRange { since, until, ..EventRange::first(10) }).await?)?;
        ensure!(wanted.iter().all(|n| found.contains(n)), "{since:?} to {until:?}: {found:?}, and not {wanted:?}");
    }
    // What came later than a time has happened after it.
    let since = Some(store.now().await?);
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.append_events(batches(2..5)).await?;
    let found = numbers(&read(&store, EventRange { since, ..EventRange::first(2) }).await?)?;
    ensure!([2, 3, 4].iter().all(|n| found.contains(n)), "since {since:?}: {found:?}");
    Ok(())
}

async fn follow(store: &SharedStorage, after: u64) -> Result<Box<dyn EventFeed>, Failure> {
    Ok(within(PATIENCE, "opening the feed of events", store.tail_events(after)).await??)
}

async fn next(feed: &mut dyn EventFeed) -> Result<Vec<StoredEvents>, Failure> {
    let found = within(PATIENCE, "the next events", feed.next()).await?;
    ensure!(!found.is_empty(), "a feed that reports nothing");
    Ok(found)
}

/// Catches: feeds that ask now and then.
pub(super) async fn a_batch_reaches_followers_within_200_ms(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut feed = follow(&other, 0).await?;
    let mut delays = Vec::new();
    for n in 0..5 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let appended = Instant::now();
        store.append_events(batches(n..n + 1)).await?;
        ensure_eq!(numbers(&next(&mut *feed).await?)?, [n], "what is new");
        delays.push(appended.elapsed());
    }
    delays.sort();
    ensure!(delays[2] < Duration::from_millis(200), "events came after {delays:?}");
    Ok(())
}

/// Catches: a feed that forgets what was there before it, repeats, or loses something to a dropped call.
pub(super) async fn followers_begin_where_they_say_and_miss_nothing(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    store.append_events(batches(0..3)).await?;
    let first = read(&other, EventRange::first(10)).await?.first().map_or(0, |first| first.position);
    let mut feed = follow(&other, first).await?;
    let mut found = Vec::new();
    let writing = async {
        for n in 3..60 {
            store.append_events(batches(n..n + 1)).await?;
        }
        Ok::<_, Failure>(())
    };
    let reading = async {
        while found.len() < 59 {
            // Dropped again and again, while batches come.
            let dropped = tokio::time::timeout(Duration::from_micros(300), feed.next()).await;
            match dropped {
                Ok(batches) => found.extend(batches),
                Err(_) => found.extend(next(&mut *feed).await?),
            }
        }
        Ok::<_, Failure>(())
    };
    let (wrote, read) = tokio::join!(writing, reading);
    wrote?;
    read?;
    ensure_eq!(numbers(&found)?, (1..60).collect::<Vec<_>>(), "what was followed");
    let more = tokio::time::timeout(QUIET, feed.next()).await;
    ensure!(more.is_err(), "more than there is: {more:?}");
    // From the end, nothing that was there.
    let mut feed = follow(&store, other.event_bounds().await?.last).await?;
    ensure!(tokio::time::timeout(QUIET, feed.next()).await.is_err(), "an old batch to who follows from the end");
    other.append_events(batches(60..61)).await?;
    ensure_eq!(numbers(&next(&mut *feed).await?)?, [60], "what came after the end");
    Ok(())
}

/// Catches: positions that two connections give twice.
pub(super) async fn positions_grow_over_connections(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let append = |store: SharedStorage, from: u32| async move {
        for n in from..from + 20 {
            store.append_events(batches(n..n + 1)).await?;
        }
        Ok::<_, Failure>(())
    };
    let (one, two) = tokio::join!(append(store.clone(), 0), append(other, 100));
    one?;
    two?;
    let mut found = numbers(&read(&store, EventRange::first(7)).await?)?;
    found.sort_unstable();
    ensure_eq!(found, (0..20).chain(100..120).collect::<Vec<_>>(), "batches of both");
    Ok(())
}
