//! Results: written once per life, read, and waited for.
//!
//! Invariant: a result is stored only by compare-and-set on the revision that the life started from. It lives for its
//! time to live, counted by the server from when it took it; what has expired is replaced like what is not there.

use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::StreamExt;
use naq_models::JobId;
use tokio::time::Instant;

use super::{Shared, repeat};
use crate::{
    connection::{Outgoing, RequestFailure},
    kv_stores::{self, TTL_MILLIS, TTL_SECONDS, is_live},
    storage::{Result, ResultRecord, StorageError, StorageErrorKind, StoredResult},
    streams::{EXPECTED_LAST_SUBJECT_SEQUENCE, PublishFailure, StoredMessage},
};

const ATTEMPTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(50);
/// The server keeps lives as signed nanoseconds; this is about 95 years.
const LONGEST_TTL: Duration = Duration::from_secs(3_000_000_000);
/// Without a notice: a result that was published just before the subscription is told to nobody, and the stream may not have it yet
/// at the first look.
const FIRST_LOOKS: [Duration; 2] = [Duration::ZERO, Duration::from_secs(1)];
/// After a notice the stream may need a moment to have the result; looked for at these intervals.
const LOOKS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// Whether a result was the first of its life.
#[derive(Debug)]
pub(super) enum Written {
    /// It is stored (now, or by an earlier attempt whose answer got lost).
    Won,
    /// This one was there first.
    Lost(Box<StoredMessage>),
}

impl Shared {
    /// Writes results, each if it is the first of its life.
    pub(super) async fn write_results(&self, records: &[(&JobId, &ResultRecord)]) -> Vec<Result<Written>> {
        let mut outcomes: Vec<Option<Result<Written>>> = records.iter().map(|_| None).collect();
        let mut open: Vec<(usize, u64)> = records.iter().enumerate().map(|(i, (_, r))| (i, r.generation)).collect();
        for attempt in 0..ATTEMPTS {
            let answers = self.streams.publish_all(Box::new(self.result_messages(records, &open))).await;
            let mut look = Vec::new();
            let mut lost_answers = false;
            for ((index, _), answer) in open.drain(..).zip(answers) {
                match answer {
                    Ok(_) => outcomes[index] = Some(Ok(Written::Won)),
                    Err(PublishFailure::Conflict) => look.push(index),
                    Err(PublishFailure::Unknown(failure)) => {
                        lost_answers = true;
                        outcomes[index] = Some(Err(self.streams.error("write result", failure.into())));
                        look.push(index);
                    }
                    Err(failure) => outcomes[index] = Some(Err(self.streams.publish_error("write result", failure))),
                }
            }
            if look.is_empty() {
                break;
            }
            if lost_answers && attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            open = self.look_at_results(records, look, &mut outcomes).await;
        }
        let unsettled = || StorageError::new(StorageErrorKind::Timeout, "write result", "the result keeps changing");
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(unsettled()))).collect()
    }

    /// Decides about results that were refused, or whose answer got lost; returns those to be written again, with the
    /// revision to expect.
    async fn look_at_results(
        &self,
        records: &[(&JobId, &ResultRecord)],
        look: Vec<usize>,
        outcomes: &mut [Option<Result<Written>>],
    ) -> Vec<(usize, u64)> {
        let now = match self.now("write result").await {
            Ok(now) => now,
            Err(error) => {
                for index in look {
                    outcomes[index] = Some(Err(repeat(&error, "write result")));
                }
                return Vec::new();
            }
        };
        let stream = self.names.results_stream();
        let what = look.iter().map(|index| (stream.clone(), self.names.result(records[*index].0))).collect();
        let mut again = Vec::new();
        for (index, found) in look.into_iter().zip(self.streams.last_messages(what).await) {
            let record = records[index].1;
            match found {
                Ok(Some(found)) if found.payload == record.body => outcomes[index] = Some(Ok(Written::Won)),
                Ok(Some(found)) if is_live(&found, now) && found.sequence != record.generation => {
                    outcomes[index] = Some(Ok(Written::Lost(Box::new(found))));
                }
                Ok(Some(found)) => again.push((index, found.sequence)),
                Ok(None) => again.push((index, 0)),
                Err(failure) => outcomes[index] = Some(Err(self.streams.error("write result", failure))),
            }
        }
        again
    }

    fn result_messages<'a>(
        &'a self,
        records: &'a [(&JobId, &ResultRecord)],
        open: &'a [(usize, u64)],
    ) -> impl ExactSizeIterator<Item = Outgoing> {
        // Most results of a batch have the same headers, which cost more to make than to copy.
        let mut last: Option<((u64, Duration), HeaderMap)> = None;
        let message = move |&(index, expected): &(usize, u64)| {
            let (id, record) = records[index];
            let of = (expected, record.ttl);
            if last.as_ref().is_none_or(|(before, _)| *before != of) {
                last = Some((of, self.result_headers(expected, record.ttl)));
            }
            let headers = last.as_ref().map(|(_, headers)| headers.clone());
            Outgoing { subject: self.names.result(id), headers, payload: record.body.clone() }
        };
        open.iter().map(message)
    }

    fn result_headers(&self, expected: u64, ttl: Duration) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string().as_str());
        let ttl = ttl.clamp(Duration::from_millis(1), LONGEST_TTL);
        let whole = ttl.subsec_nanos() == 0;
        if self.results_expire {
            let seconds = ttl.as_secs() + u64::from(!whole);
            headers.insert(TTL_SECONDS, seconds.to_string().as_str());
        }
        if !(self.results_expire && whole) {
            headers.insert(TTL_MILLIS, ttl.as_millis().to_string().as_str());
        }
        headers
    }

    pub(super) async fn get_result(&self, id: &JobId) -> Result<Option<StoredResult>> {
        let now = self.now("read result").await?;
        let found = self.streams.last_message(&self.names.results_stream(), &self.names.result(id)).await;
        let found = found.map_err(|failure| self.streams.error("read result", failure))?;
        Ok(found.filter(|message| is_live(message, now)).map(|message| stored_result(id.clone(), message)))
    }

    /// Removes a result if it is at a revision.
    pub(super) async fn remove_result(&self, id: &JobId, revision: u64) -> Result<bool> {
        let failed = |failure| self.streams.error("remove result", failure);
        let found = self.streams.last_message(&self.names.results_stream(), &self.names.result(id)).await;
        if found.map_err(failed)?.is_none_or(|found| found.sequence != revision) {
            return Ok(false);
        }
        self.streams.delete(&self.names.results_stream(), revision).await.map_err(failed)
    }

    pub(super) async fn wait_result(
        &self,
        id: &JobId,
        newer_than: u64,
        timeout: Duration,
    ) -> Result<Option<StoredResult>> {
        let failed = |failure: RequestFailure| self.streams.error("wait for result", failure.into());
        let far = Duration::from_secs(365 * 24 * 3600);
        let deadline = Instant::now() + timeout.min(far);
        let mut reconnects = self.connection.reconnects();
        // The subscription goes out before the first read, on the same connection.
        let mut notices = self.connection.subscribe(self.names.result(id)).await.map_err(failed)?;
        let mut looks = FIRST_LOOKS.iter();
        loop {
            let next_look = looks.as_slice().first().map_or(deadline, |pause| deadline.min(Instant::now() + *pause));
            // Every branch is cancel safe.
            tokio::select! {
                notice = notices.next() => {
                    drop(notice.ok_or_else(|| failed(RequestFailure::Closed))?);
                    looks = LOOKS.iter();
                    continue;
                }
                Ok(()) = reconnects.changed() => {
                    looks = LOOKS.iter();
                    continue;
                }
                () = self.connection.closed().cancelled() => return Err(failed(RequestFailure::Closed)),
                () = tokio::time::sleep_until(next_look) => drop(looks.next()),
            }
            match self.get_result(id).await {
                Ok(Some(result)) if result.revision > newer_than => return Ok(Some(result)),
                Ok(_) => {}
                // The reconnect that ends the outage brings the next look.
                Err(error) if error.is_transient() => tracing::debug!(%error, "the result could not be looked at"),
                Err(error) => return Err(error),
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }
}

pub(super) fn stored_result(id: JobId, message: StoredMessage) -> StoredResult {
    let expires_at = kv_stores::expires_at(&message).unwrap_or_else(|| message.time.saturating_add(LONGEST_TTL));
    StoredResult { id, body: message.payload, revision: message.sequence, expires_at }
}
