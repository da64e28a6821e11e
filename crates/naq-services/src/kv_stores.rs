//! [`KvStoreService`]: key-value buckets on JetStream, with compare-and-set and a time to live on every server.
//!
//! Invariant: a key's revision is the sequence of its message. Lives are logical: a message carries how long it lives, the
//! server's clock says since when, and every reader honours it; removing what has expired is the sweeper's. A key is
//! removed by deleting its messages, never by a delete marker, so that it can be created again at once. Because a removal
//! makes no message, watchers are told by a notice and compare notes now and then.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use naq_models::Timestamp;

use crate::{
    connection::Outgoing,
    storage::{KvEntry, StorageError, StorageErrorKind},
    streams::{ApiFailure, Clock, PublishFailure, Revisions, StoredMessage, StreamService},
};

mod watch;

pub(crate) use watch::BucketWatch;

/// How long a message lives, in milliseconds from when the server took it.
pub(crate) const TTL_MILLIS: &str = "Naq-Ttl";
/// The same for servers that remove messages by themselves, in whole seconds.
pub(crate) const TTL_SECONDS: &str = "Nats-TTL";
/// The delete markers of other clients.
const KV_OPERATION: &str = "KV-Operation";
/// Attempts at a write whose answer got lost.
const ATTEMPTS: usize = 4;

/// Key-value buckets of one account. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KvStoreService {
    streams: StreamService,
    clock: Clock,
    notices: String,
}

impl KvStoreService {
    /// Buckets that lie beside `clock_stream`, a stream whose leader's clock expires keys. Removals are announced on core
    /// subjects `<notices>.<bucket>.<key>`.
    #[must_use]
    pub fn new(streams: StreamService, clock_stream: impl Into<String>, notices: impl Into<String>) -> Self {
        let clock = Clock::new(streams.clone(), clock_stream.into());
        Self { streams, clock, notices: notices.into() }
    }

    /// The same buckets over another connection.
    pub(crate) fn over(&self, streams: StreamService) -> Self {
        Self { streams, ..self.clone() }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The live value of a key.
    ///
    /// # Errors
    /// If the server does not answer or refuses.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Option<KvEntry>, StorageError> {
        check_key(key)?;
        let message = self.live(bucket, key).await.map_err(|failure| self.streams.error("read key", failure))?;
        Ok(message.map(|message| entry(key.to_owned(), message)))
    }

    /// Creates a key and returns its revision.
    ///
    /// # Errors
    /// [`StorageErrorKind::Conflict`] if it exists.
    pub async fn create(
        &self,
        bucket: &str,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<u64, StorageError> {
        check_key(key)?;
        self.put(bucket, key, &value, None, ttl).await
    }

    /// Replaces a key that is at `revision` and returns the new revision.
    ///
    /// # Errors
    /// [`StorageErrorKind::Conflict`] if it is not at that revision.
    pub async fn update(
        &self,
        bucket: &str,
        key: &str,
        value: Bytes,
        revision: u64,
        ttl: Option<Duration>,
    ) -> Result<u64, StorageError> {
        check_key(key)?;
        self.put(bucket, key, &value, Some(revision), ttl).await
    }

    /// Writes a key, whatever it is, in one round trip.
    ///
    /// # Errors
    /// If the server does not answer or refuses; it may have been written all the same.
    pub async fn replace(&self, bucket: &str, key: &str, value: Bytes, ttl: Duration) -> Result<(), StorageError> {
        check_key(key)?;
        let message = Outgoing { subject: subject(bucket, key), headers: Some(life(ttl)), payload: value };
        let published = self.streams.publish(message).await;
        published.map(|_revision| ()).map_err(|failure| self.publish_error("write key", failure))
    }

    /// Removes a key, only if it is at `revision` where one is given; `false` if there was nothing to remove.
    ///
    /// # Errors
    /// If the server does not answer or refuses.
    pub async fn delete(&self, bucket: &str, key: &str, revision: Option<u64>) -> Result<bool, StorageError> {
        check_key(key)?;
        let failed = |failure| self.streams.error("delete key", failure);
        let Some(found) = self.live(bucket, key).await.map_err(failed)? else { return Ok(false) };
        if revision.is_some_and(|revision| revision != found.sequence) {
            return Ok(false);
        }
        let removed = self.streams.remove_all(&stream_name(bucket), &[Revisions::of(&found)]).await;
        let removed = removed.into_iter().next().unwrap_or(Ok(false)).map_err(failed)?;
        self.announce(bucket, key, found.sequence).await;
        Ok(removed)
    }

    /// All live entries whose key starts with `prefix`.
    ///
    /// # Errors
    /// If the server does not answer or refuses.
    pub async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<KvEntry>, StorageError> {
        let failed = |failure| self.streams.error("list keys", failure);
        let now = self.clock.now().await.map_err(failed)?;
        let messages = self.streams.all(&stream_name(bucket), &filter(bucket, prefix), false).await.map_err(failed)?;
        Ok(messages
            .into_iter()
            .filter(|message| is_live(message, now))
            .filter_map(|message| Some((key_of(bucket, &message.subject)?.to_owned(), message)))
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, message)| entry(key, message))
            .collect())
    }

    pub(crate) async fn watch(&self, bucket: &str, prefix: &str) -> Result<BucketWatch, StorageError> {
        BucketWatch::open(self.clone(), bucket.to_owned(), prefix.to_owned()).await
    }

    /// Tells watchers that a key is gone as of a revision. A notice that gets lost is made up for by their comparison.
    pub(crate) async fn announce(&self, bucket: &str, key: &str, revision: u64) {
        let notice = format!("{}.{bucket}.{key}", self.notices);
        if let Err(failure) = self.streams.connection().publish(notice, None, revision.to_string().into()).await {
            tracing::debug!(bucket, key, %failure, "watchers will notice the removal later");
        }
    }

    async fn live(&self, bucket: &str, key: &str) -> Result<Option<StoredMessage>, ApiFailure> {
        let now = self.clock.now().await?;
        let found = self.streams.last_message(&stream_name(bucket), &subject(bucket, key)).await?;
        Ok(found.filter(|message| is_live(message, now)))
    }

    /// Writes if the live value is at `expected` (`None`: if there is none), trying again where the answer got lost.
    async fn put(
        &self,
        bucket: &str,
        key: &str,
        value: &Bytes,
        expected: Option<u64>,
        ttl: Option<Duration>,
    ) -> Result<u64, StorageError> {
        const OPERATION: &str = "write key";
        let conflict =
            || StorageError::new(StorageErrorKind::Conflict, OPERATION, format!("{bucket}/{key} has changed"));
        let failed = |failure| self.streams.error(OPERATION, failure);
        let mut present = Revisions::default();
        if let Some(expected) = expected {
            // The server would take it all the same: to its own count a key that has expired is still there.
            let found = self.live(bucket, key).await.map_err(failed)?.filter(|found| found.sequence == expected);
            present = Revisions::of(&found.ok_or_else(conflict)?);
        }
        let mut last_failure = None;
        for _ in 0..ATTEMPTS {
            let mut headers = ttl.map(life).unwrap_or_default();
            present.expect(&mut headers);
            let message = Outgoing { subject: subject(bucket, key), headers: Some(headers), payload: value.clone() };
            match self.streams.publish(message).await {
                Ok(revision) => return Ok(revision),
                Err(PublishFailure::Conflict) => {}
                Err(PublishFailure::Unknown(failure)) => last_failure = Some(failure),
                Err(failure) => return Err(self.publish_error(OPERATION, failure)),
            }
            let now = self.clock.now().await.map_err(failed)?;
            let found = self.streams.last_message(&stream_name(bucket), &subject(bucket, key)).await.map_err(failed)?;
            let ours = |found: &StoredMessage| last_failure.is_some() && found.payload == *value;
            match (found, expected) {
                (Some(found), _) if ours(&found) && found.sequence > present.last() => return Ok(found.sequence),
                (Some(found), None) if !is_live(&found, now) => present = Revisions::of(&found),
                (None, None) => present = Revisions::default(),
                // The first attempt was not stored, so the key is where it was.
                (Some(found), Some(expected)) if found.sequence == expected && is_live(&found, now) => {}
                _ => return Err(conflict()),
            }
        }
        match last_failure {
            Some(failure) => Err(failed(failure.into())),
            None => Err(conflict()),
        }
    }

    pub(crate) fn publish_error(&self, operation: &'static str, failure: PublishFailure) -> StorageError {
        self.streams.publish_error(operation, failure)
    }
}

/// The stream of a bucket.
pub(crate) fn stream_name(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// The subject of a key.
pub(crate) fn subject(bucket: &str, key: &str) -> String {
    ["$KV.", bucket, ".", key].concat()
}

/// The key of a subject.
pub(crate) fn key_of<'a>(bucket: &str, subject: &'a str) -> Option<&'a str> {
    subject.strip_prefix("$KV.")?.strip_prefix(bucket)?.strip_prefix('.')
}

/// The narrowest subject filter that has all keys with a prefix.
pub(crate) fn filter(bucket: &str, prefix: &str) -> String {
    match prefix.rsplit_once('.') {
        Some((tokens, _)) if check_key(tokens).is_ok() => subject(bucket, &format!("{tokens}.>")),
        _ => subject(bucket, ">"),
    }
}

/// The headers that say how long a message lives.
pub(crate) fn life(ttl: Duration) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(TTL_MILLIS, ttl.as_millis().max(1).to_string().as_str());
    headers
}

/// When a message ceases to live; `None` if it has no end.
pub(crate) fn expires_at(message: &StoredMessage) -> Option<Timestamp> {
    let ttl = match message.headers.number(TTL_MILLIS) {
        Some(millis) => Duration::from_millis(millis),
        None => Duration::from_secs(message.headers.number(TTL_SECONDS)?),
    };
    Some(message.time.saturating_add(ttl))
}

/// Whether a message is there for a reader.
pub(crate) fn is_live(message: &StoredMessage, now: Timestamp) -> bool {
    message.headers.get(KV_OPERATION).is_none() && expires_at(message).is_none_or(|end| now < end)
}

fn entry(key: String, message: StoredMessage) -> KvEntry {
    KvEntry { key, value: message.payload, revision: message.sequence }
}

fn check_key(key: &str) -> Result<(), StorageError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'=' | b'/' | b'.');
    let tokens = key.split('.').all(|token| !token.is_empty());
    if tokens && key.bytes().all(allowed) && key.len() <= MAX_KEY {
        return Ok(());
    }
    Err(StorageError::new(StorageErrorKind::Refused, "key", format!("{key:?} is not a key"))
        .with_hint("keys are 1 to 512 of A-Z a-z 0-9 _ - = / and ., with no . at either end and no two in a row"))
}

/// Subjects are kept in the server's memory.
const MAX_KEY: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_would_be_other_subjects_are_refused() {
        for key in ["", ".", "a.", ".a", "a..b", "a*", "a.>", "a b", "ä", &"x".repeat(513)] {
            assert_eq!(check_key(key).unwrap_err().kind(), StorageErrorKind::Refused, "{key:?}");
        }
        assert!(check_key("id.order-17/x=_").is_ok());
    }

    #[test]
    fn filters_have_every_key_of_a_prefix() {
        assert_eq!(filter("b", ""), "$KV.b.>");
        assert_eq!(filter("b", "cancel."), "$KV.b.cancel.>");
        assert_eq!(filter("b", "cancel.ab"), "$KV.b.cancel.>");
        assert_eq!(filter("b", "can"), "$KV.b.>");
        assert_eq!(key_of("b", "$KV.b.cancel.x"), Some("cancel.x"));
        assert_eq!(key_of("b", "$KV.bc.x"), None);
    }
}
