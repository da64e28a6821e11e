//! [`BucketWatch`]: the keys of a bucket, followed live.
//!
//! Invariant: every change of a key is reported, at least its last one; what a follower was told exists is reported gone
//! when it is deleted, expires, or is found missing at the comparison that runs every half minute (a removal makes no
//! message, so its notice can get lost).

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    future::Future,
    pin::Pin,
    time::Duration,
};

use async_nats::Subscriber;
use async_trait::async_trait;
use futures_util::StreamExt;
use naq_models::Timestamp;
use tokio::time::Instant;

use super::{KvStoreService, entry, expires_at, filter, is_live, key_of, stream_name};
use crate::{
    storage::{KvChange, KvWatch, StorageError},
    streams::{ApiFailure, StoredMessage, Tail, TailEvent},
};

const COMPARE_EVERY: Duration = Duration::from_secs(30);
/// An expiry that the server's clock has not quite reached is looked at again after this.
const GRACE: Duration = Duration::from_millis(5);
const NO_EXPIRY: Duration = Duration::from_secs(3600);

type Comparison = Pin<Box<dyn Future<Output = Result<Vec<StoredMessage>, ApiFailure>> + Send>>;

/// A running watch.
pub(crate) struct BucketWatch {
    kv: KvStoreService,
    bucket: String,
    prefix: String,
    tail: Tail,
    notices: Subscriber,
    /// What the follower believes to exist, with revisions.
    known: HashMap<String, u64>,
    /// Revisions that are known to be gone although their message may still be on its way.
    gone: HashMap<String, u64>,
    expiries: BTreeSet<(Timestamp, String, u64)>,
    comparison: Option<(HashMap<String, u64>, Comparison)>,
    next_comparison: Instant,
    ready: VecDeque<KvChange>,
}

enum Event {
    Tail(TailEvent),
    Notice(async_nats::Message),
    Expired,
    Compare,
    Compared(Result<Vec<StoredMessage>, ApiFailure>),
}

impl BucketWatch {
    pub(super) async fn open(kv: KvStoreService, bucket: String, prefix: String) -> Result<Self, StorageError> {
        let failed = |failure| kv.streams.error("watch keys", failure);
        kv.clock.now().await.map_err(failed)?;
        let notices = kv
            .streams
            .connection()
            .subscribe(format!("{}.{bucket}.>", kv.notices))
            .await
            .map_err(|failure| kv.streams.error("watch keys", failure.into()))?;
        let tail = Tail::new(kv.streams.clone(), stream_name(&bucket), filter(&bucket, &prefix), false);
        Ok(Self {
            kv,
            bucket,
            prefix,
            tail,
            notices,
            known: HashMap::new(),
            gone: HashMap::new(),
            expiries: BTreeSet::new(),
            comparison: None,
            next_comparison: Instant::now() + COMPARE_EVERY,
            ready: VecDeque::new(),
        })
    }

    async fn event(&mut self) -> Event {
        let expiry = match self.expiries.first() {
            Some((end, ..)) => self.kv.clock.estimate().map_or(GRACE, |now| end.since(now)) + GRACE,
            None => NO_EXPIRY,
        };
        let comparing = self.comparison.is_some();
        let compared = async {
            match &mut self.comparison {
                Some((_, comparison)) => comparison.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = self.tail.next() => Event::Tail(event),
            Some(notice) = self.notices.next() => Event::Notice(notice),
            found = compared => Event::Compared(found),
            () = tokio::time::sleep(expiry) => Event::Expired,
            () = tokio::time::sleep_until(self.next_comparison), if !comparing => Event::Compare,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tail(TailEvent::Restart) => {
                self.known.clear();
                self.gone.clear();
                self.expiries.clear();
                self.comparison = None;
                self.ready.push_back(KvChange::Restart);
            }
            Event::Tail(TailEvent::Current) => self.ready.push_back(KvChange::Current),
            Event::Tail(TailEvent::Message(message)) => self.put(message),
            Event::Notice(notice) => self.notice(&notice),
            Event::Expired => self.expire(),
            Event::Compare => {
                self.next_comparison = Instant::now() + COMPARE_EVERY;
                let (kv, bucket, prefix) = (self.kv.clone(), self.bucket.clone(), self.prefix.clone());
                let comparison = async move {
                    kv.clock.now().await?;
                    kv.streams.all(&stream_name(&bucket), &filter(&bucket, &prefix), true).await
                };
                self.comparison = Some((self.known.clone(), Box::pin(comparison)));
            }
            Event::Compared(found) => self.compare(found),
        }
    }

    fn put(&mut self, message: StoredMessage) {
        let Some(key) = key_of(&self.bucket, &message.subject).filter(|key| key.starts_with(&self.prefix)) else {
            return;
        };
        let key = key.to_owned();
        if self.gone.get(&key).is_some_and(|gone| *gone >= message.sequence) {
            return;
        }
        let live = self.kv.clock.estimate().is_none_or(|now| is_live(&message, now));
        if !live {
            self.forget(&key, message.sequence);
            return;
        }
        self.known.insert(key.clone(), message.sequence);
        if let Some(end) = expires_at(&message) {
            self.expiries.insert((end, key.clone(), message.sequence));
        }
        self.ready.push_back(KvChange::Put(entry(key, message)));
    }

    fn notice(&mut self, notice: &async_nats::Message) {
        let start = self.kv.notices.len() + 1 + self.bucket.len() + 1;
        let key = notice.subject.as_str().get(start..);
        let revision = std::str::from_utf8(&notice.payload).ok().and_then(|text| text.parse::<u64>().ok());
        if let (Some(key), Some(revision)) = (key, revision)
            && key.starts_with(&self.prefix)
        {
            self.gone.insert(key.to_owned(), revision);
            self.forget(key, revision);
        }
    }

    /// The key is gone as of a revision; one that was put later stays.
    fn forget(&mut self, key: &str, revision: u64) {
        if self.known.get(key).is_some_and(|known| *known <= revision) {
            self.known.remove(key);
            self.ready.push_back(KvChange::Gone(key.to_owned()));
        }
    }

    fn expire(&mut self) {
        let Some(now) = self.kv.clock.estimate() else { return };
        while let Some((end, ..)) = self.expiries.first()
            && *end <= now
            && let Some((_, key, revision)) = self.expiries.pop_first()
        {
            self.forget(&key, revision);
        }
    }

    fn compare(&mut self, found: Result<Vec<StoredMessage>, ApiFailure>) {
        let Some((before, _)) = self.comparison.take() else { return };
        let found = match found {
            Ok(found) => found,
            Err(failure) => {
                tracing::debug!(bucket = self.bucket, %failure, "the watched keys could not be compared");
                return;
            }
        };
        let there: HashMap<&str, u64> =
            found.iter().filter_map(|m| Some((key_of(&self.bucket, &m.subject)?, m.sequence))).collect();
        for (key, revision) in before {
            if !there.contains_key(key.as_str()) {
                self.forget(&key, revision);
            }
        }
        // Their messages have arrived by now, or never will.
        self.gone.clear();
    }
}

#[async_trait]
impl KvWatch for BucketWatch {
    async fn next(&mut self) -> KvChange {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return change;
            }
            let event = self.event().await;
            self.handle(event);
        }
    }
}
