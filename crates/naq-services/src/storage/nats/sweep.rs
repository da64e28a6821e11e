//! The sweep: removes what has expired where the server does not; and the cancels whose callers died, which it finishes.
//!
//! Invariant: work per call is bounded, and a call finds out without asking the server that nothing is due: each bucket is
//! read through once a minute, or when something that this process stored in it has run out; and never for more than a
//! tenth of the time, because what has expired is gone for every reader anyway.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Shared, moves::Intent, names::Names};
use crate::{
    kv_stores::{self, expires_at, key_of},
    storage::{Bucket, Result, crash::crash_point},
    streams::Revisions,
};

/// Between two readings of a bucket, if nothing is known to expire before.
const ROUND: Duration = Duration::from_secs(60);
/// Between two readings of a bucket, however soon something expires and however fast it was read.
const SHORTEST_ROUND: Duration = Duration::from_millis(100);
/// Messages looked at in one call, per bucket.
const LOOK: usize = 2000;
/// A cancel takes milliseconds; after this its caller is taken for dead. To finish it twice does no harm.
const ORPHANED: Duration = Duration::from_secs(5);

/// When each bucket is to be looked at, and from where.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    rounds: Mutex<Rounds>,
}

#[derive(Debug, Default)]
struct Rounds {
    buckets: HashMap<String, Round>,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    at: Instant,
    /// Not before this, whatever expires.
    rest: Instant,
    /// When its first part was read.
    begun: Instant,
    from: u64,
    soonest: Option<Instant>,
}

impl Round {
    fn new(at: Instant, rest: Instant) -> Self {
        Self { at, rest, begun: at, from: 1, soonest: None }
    }
}

impl Sweeper {
    /// Something was stored in a bucket that lives so long.
    pub(super) fn expect(&self, bucket: &str, ttl: Duration) {
        if ttl < ROUND
            && let Some(round) = self.lock().buckets.get_mut(bucket)
        {
            round.at = round.at.min(Instant::now() + ttl).max(round.rest);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self, bucket: &str) -> Option<Round> {
        let now = Instant::now();
        let mut rounds = self.lock();
        let round = *rounds.buckets.entry(bucket.to_owned()).or_insert_with(|| Round::new(now, now));
        let begun = if round.from == 1 { now } else { round.begun };
        (round.at <= now).then_some(Round { begun, ..round })
    }

    fn store(&self, bucket: &str, round: Round) {
        self.lock().buckets.insert(bucket.to_owned(), round);
    }
}

impl Shared {
    pub(super) async fn sweep(&self, limit: usize) -> Result<usize> {
        let mut removed = 0;
        let mut buckets: Vec<String> = Bucket::ALL.map(|bucket| self.names.bucket(bucket)).into();
        if !self.results_expire {
            buckets.push(self.names.results_bucket());
        }
        for bucket in buckets {
            while removed < limit
                && let Some(round) = self.sweeper.due(&bucket)
            {
                removed += self.sweep_bucket(&bucket, round, limit - removed).await?;
                if round.from == 1 {
                    break;
                }
            }
        }
        Ok(removed)
    }

    /// Looks at a part of a bucket and removes what has expired in it.
    async fn sweep_bucket(&self, bucket: &str, mut round: Round, limit: usize) -> Result<usize> {
        let failed = |failure| self.streams.error("sweep", failure);
        let now = self.now("sweep").await?;
        let stream = kv_stores::stream_name(bucket);
        let page = self.streams.page(&stream, &kv_stores::subject(bucket, ">"), round.from, LOOK, true).await;
        let page = page.map_err(failed)?;
        let mut expired = Vec::new();
        let mut next = page.next;
        for message in page.messages {
            let Some(end) = expires_at(&message) else { continue };
            if end > now {
                let here = Instant::now() + end.since(now);
                round.soonest = Some(round.soonest.map_or(here, |soonest| soonest.min(here)));
            } else if expired.len() == limit {
                next = Some(message.sequence);
                break;
            } else {
                let revisions = Revisions::of(&message);
                expired.push((message.subject, revisions));
            }
        }
        let (subjects, what): (Vec<String>, Vec<Revisions>) = expired.into_iter().unzip();
        let deleted = self.streams.remove_all(&stream, &what).await;
        let mut removed = 0;
        for ((subject, revisions), deleted) in subjects.iter().zip(what).zip(deleted) {
            removed += usize::from(deleted.map_err(failed)?);
            if let Some(key) = key_of(bucket, subject) {
                self.kv.announce(bucket, key, revisions.last()).await;
            }
        }
        crash_point("nats.sweep.removed");
        let now = Instant::now();
        let round = match next {
            Some(from) => Round { from, at: now, ..round },
            None => {
                let rest = now + (9 * (now - round.begun)).clamp(SHORTEST_ROUND, ROUND);
                let at = round.soonest.unwrap_or(now + ROUND).clamp(rest, now + ROUND);
                Round::new(at, rest)
            }
        };
        self.sweeper.store(bucket, round);
        Ok(removed)
    }

    /// Finishes cancels that were begun and not ended.
    pub(super) async fn finish_orphans(&self, limit: usize) -> Result<usize> {
        let bucket = self.names.bucket(Bucket::Control);
        let now = self.now("sweep").await?;
        let filter = kv_stores::filter(&bucket, Names::CANCEL);
        let intents = self.streams.all(&kv_stores::stream_name(&bucket), &filter, false).await;
        let intents = intents.map_err(|failure| self.streams.error("sweep", failure))?;
        let mut finished = 0;
        for message in intents.into_iter().filter(|m| now.since(m.time) >= ORPHANED).take(limit) {
            let Some(key) = key_of(&bucket, &message.subject) else { continue };
            finished += 1;
            let Ok(intent) = serde_json::from_slice::<Intent>(&message.payload) else {
                tracing::warn!(key, "removed a cancel intent that cannot be read");
                self.kv.delete(&bucket, key, Some(message.sequence)).await?;
                continue;
            };
            let ended = match intent.generation {
                Some(generation) => {
                    let result = self.get_result(&intent.address.id).await?;
                    result.is_some_and(|result| result.revision > generation)
                }
                None => true,
            };
            if ended {
                self.finish_end(intent).await?;
            } else {
                // The caller died before the result: the cancel has not happened, and was not reported to have.
                self.kv.delete(&bucket, key, Some(message.sequence)).await?;
            }
        }
        Ok(finished)
    }
}
