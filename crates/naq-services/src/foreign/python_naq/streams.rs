//! The streams of a Python NAQ on a NATS server: its jobs, its scheduled jobs, its failed jobs.
//!
//! Invariant: they are read message by message, without a consumer and without opening naq's own store beside them: some
//! have the names of naq's, and are set up otherwise. A message is removed by its sequence, a record of the bucket by a
//! purge on its revision, as NAQ itself does it; nothing else is changed.

use std::collections::BTreeSet;

use async_nats::HeaderMap;
use bytes::Bytes;
use naq_models::Timestamp;

use crate::{
    connection::{ConnectionOptions, ConnectionService, Outgoing},
    foreign::{
        Item, Left, Source,
        mapping::{self, Incoming, Kinds},
        python_naq::{dependencies, failed, queued, scheduled},
    },
    storage::{StorageError, StorageErrorKind},
    streams::{EXPECTED_LAST_SUBJECT_SEQUENCE, PublishFailure, StoredMessage, StreamService},
};

/// Messages a page.
const PAGE: u64 = 64;
/// NAQ cannot be told another prefix.
pub(in crate::foreign) const PREFIX: &str = "naq";
/// The one stream of NAQ whose name no store of naq has.
const JOBS: &str = "naq_jobs";
const SCHEDULED: &str = "KV_naq_scheduled_jobs";
const FAILED: &str = "naq_failed_jobs";
/// What is read, in this order: a job that NAQ's scheduler enqueues meanwhile is still found.
const STREAMS: [(&str, Holds); 3] = [(SCHEDULED, Holds::Scheduled), (JOBS, Holds::Jobs), (FAILED, Holds::Failed)];
/// The bucket that says how jobs stand, each a word under the job's id, for a day.
const STATUS: (&str, &str) = ("KV_naq_job_status", "$KV.naq_job_status");
/// The word for one that has ended well.
const COMPLETED: &[u8] = b"completed";
/// What marks a removed key.
const KV_OPERATION: &str = "KV-Operation";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Jobs,
    Scheduled,
    Failed,
}

/// The streams of one account.
#[derive(Debug)]
pub(in crate::foreign) struct Streams {
    streams: StreamService,
    /// Streams that are there and not read to the end, the present one last.
    open: Vec<(&'static str, Holds)>,
    from: u64,
    /// Where the present stream ended when its turn came: what changes or is added after that is left for another call.
    until: Option<u64>,
}

/// A message as it was read.
#[derive(Debug, Clone)]
pub(in crate::foreign) struct Place {
    stream: &'static str,
    holds: Holds,
    subject: String,
    sequence: u64,
}

impl Streams {
    /// Looks which streams there are.
    pub(in crate::foreign) async fn open(options: ConnectionOptions) -> Result<Self, StorageError> {
        let streams = StreamService::new(ConnectionService::connect(options).await?);
        let mut open = Vec::new();
        for (stream, holds) in STREAMS.into_iter().rev() {
            if streams.stream_info(stream).await.map_err(|failure| streams.error("open", failure))?.is_some() {
                open.push((stream, holds));
            }
        }
        if open.is_empty() {
            let detail = format!("NATS at {}: no stream of NAQ ({JOBS})", streams.connection().location());
            streams.connection().close().await;
            return Err(StorageError::new(StorageErrorKind::NotFound, "open", detail)
                .with_hint("is this the right server, and the right account?"));
        }
        Ok(Self { streams, open, from: 1, until: None })
    }

    /// Whether a Python NAQ keeps its jobs on this server and account.
    pub(in crate::foreign) async fn are_at(options: ConnectionOptions) -> Result<bool, StorageError> {
        let streams = StreamService::new(ConnectionService::connect(options).await?);
        let jobs = streams.stream_info(JOBS).await.map_err(|failure| streams.error("open", failure));
        streams.connection().close().await;
        Ok(jobs?.is_some())
    }

    pub(in crate::foreign) async fn close(&self) {
        self.streams.connection().close().await;
    }

    /// The next messages of the present stream, in order.
    async fn messages(&mut self, stream: &str) -> Result<Vec<StoredMessage>, StorageError> {
        if self.until.is_none() {
            let info =
                self.streams.stream_info(stream).await.map_err(|failure| self.streams.error("read NAQ", failure))?;
            self.until = Some(info.map_or(0, |info| info.state.last_seq));
        }
        let from = (self.from..self.from + PAGE).collect();
        let mut messages: Vec<StoredMessage> = Vec::new();
        for found in self.streams.next_messages(stream, ">", from).await {
            let found = found.map_err(|failure| self.streams.error("read NAQ", failure))?;
            // From several positions the same message is the next one.
            messages
                .extend(found.filter(|message| messages.last().is_none_or(|last| last.sequence < message.sequence)));
        }
        messages.retain(|message| Some(message.sequence) <= self.until);
        self.from = messages.last().map_or(self.from, |last| last.sequence + 1);
        Ok(messages)
    }

    /// Of the jobs that these wait for, those that NAQ says have completed.
    async fn completed(&self, messages: &[StoredMessage]) -> Result<BTreeSet<String>, StorageError> {
        let ids = messages.iter().flat_map(|message| dependencies(&message.payload));
        // Others would be patterns of subjects, or none.
        let ids: BTreeSet<String> = ids.filter(|id| !id.is_empty() && mapping::id_text(id) == *id).collect();
        let (stream, subjects) = STATUS;
        let what = ids.iter().map(|id| (stream.to_owned(), format!("{subjects}.{id}"))).collect();
        let mut completed = BTreeSet::new();
        for (id, found) in ids.iter().zip(self.streams.last_messages(what).await) {
            let found = found.map_err(|failure| self.streams.error("read NAQ", failure))?;
            if found.is_some_and(|message| message.payload == COMPLETED) {
                completed.insert(id.clone());
            }
        }
        Ok(completed)
    }

    async fn purge_key(&self, place: &Place) -> Result<bool, StorageError> {
        let mut headers = HeaderMap::new();
        headers.insert(KV_OPERATION, "PURGE");
        headers.insert("Nats-Rollup", "sub");
        headers.insert(EXPECTED_LAST_SUBJECT_SEQUENCE, place.sequence.to_string().as_str());
        let marker = Outgoing { subject: place.subject.clone(), headers: Some(headers), payload: Bytes::new() };
        match self.streams.publish(marker).await {
            Ok(_) => Ok(true),
            Err(PublishFailure::Conflict) => Ok(false),
            Err(failure) => Err(self.streams.publish_error("remove from NAQ", failure)),
        }
    }
}

impl Source for Streams {
    type Place = Place;

    async fn page(&mut self, kinds: &Kinds, now: Timestamp) -> Result<Vec<Item<Place>>, StorageError> {
        while let Some((stream, holds)) = self.open.last().copied() {
            let messages = self.messages(stream).await?;
            let completed = if holds == Holds::Jobs { self.completed(&messages).await? } else { BTreeSet::new() };
            if messages.is_empty() {
                self.open.pop();
                (self.from, self.until) = (1, None);
                continue;
            }
            let read = |message: &StoredMessage| match holds {
                Holds::Jobs => queued(&message.payload, kinds, &completed),
                Holds::Scheduled => scheduled(&message.payload, kinds, now),
                Holds::Failed => failed(&message.payload, kinds, message.time),
            };
            let live = messages.into_iter().filter(|message| message.headers.get(KV_OPERATION).is_none());
            let items: Vec<_> = live.map(|message| item(stream, holds, read(&message), message)).collect();
            // An empty page would be the end.
            if !items.is_empty() {
                return Ok(items);
            }
        }
        Ok(Vec::new())
    }

    async fn remove(&self, places: Vec<Place>) -> Result<Vec<bool>, StorageError> {
        // All of a page lie in one stream.
        let Some(Place { stream, holds, .. }) = places.first() else { return Ok(Vec::new()) };
        if *holds == Holds::Scheduled {
            let mut removed = Vec::with_capacity(places.len());
            for place in &places {
                removed.push(self.purge_key(place).await?);
            }
            return Ok(removed);
        }
        let sequences = places.iter().map(|place| place.sequence).collect();
        let deleted = self.streams.delete_all(stream, sequences).await.into_iter();
        deleted.map(|deleted| deleted.map_err(|failure| self.streams.error("remove from NAQ", failure))).collect()
    }
}

fn item(stream: &'static str, holds: Holds, read: Result<Incoming, Left>, message: StoredMessage) -> Item<Place> {
    let StoredMessage { subject, sequence, .. } = message;
    Item { label: format!("{stream} {sequence}"), place: Place { stream, holds, subject, sequence }, read }
}
