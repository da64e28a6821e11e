//! The log of events: one message for each batch in a stream with limits.
//!
//! Invariant: a write per batch, acknowledged; a batch that is sent again after a lost answer is stored once. The times and
//! the jobs of a batch stand in its headers, so that looking for a job moves no bodies; the position is the sequence.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use naq_models::Timestamp;

use super::{Shared, names};
use crate::{
    connection::Outgoing,
    storage::{EventBatch, EventBounds, EventFeed, EventPage, EventRange, Result, StoredEvents},
    streams::{ApiError, ApiFailure, PublishFailure, StoredMessage, Tail, TailEvent},
};

/// Headers read in one go.
const HEADERS: usize = 5000;
/// Bodies read in one go; with the largest batches 16 MiB.
const BODIES: usize = 64;

impl Shared {
    pub(super) async fn append_events(&self, batches: Vec<EventBatch>) -> Result<()> {
        self.ensure_events().await?;
        let messages = batches.into_iter().map(|batch| self.event_message(batch));
        for outcome in self.streams.publish_all(Box::new(messages)).await {
            if let Err(failure) = outcome {
                if matches!(failure, PublishFailure::NoStream) {
                    // It was removed; the next call makes it anew.
                    self.events_ready.store(false, Ordering::Release);
                }
                return Err(self.streams.publish_error("append events", failure));
            }
        }
        Ok(())
    }

    fn event_message(&self, batch: EventBatch) -> Outgoing {
        use std::fmt::Write as _;
        let mut jobs = String::with_capacity(batch.jobs.len() * 8);
        for job in &batch.jobs {
            write!(jobs, "{job:08x}").expect("writing to a string does not fail");
        }
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(names::FIRST, batch.first.unix_millis().to_string());
        headers.insert(names::LAST, batch.last.unix_millis().to_string());
        if !jobs.is_empty() {
            headers.insert(names::JOBS, jobs);
        }
        headers.insert(async_nats::header::NATS_MESSAGE_ID, batch.id.to_string());
        Outgoing { subject: self.names.event_batch(), headers: Some(headers), payload: batch.body.into() }
    }

    pub(super) async fn event_bounds(&self) -> Result<EventBounds> {
        let info = self.streams.stream_info(&self.options.events.name).await;
        let info = info.map_err(|failure| self.streams.error("read events", failure))?;
        Ok(info.map_or(EventBounds { first: 1, last: 0 }, |info| EventBounds {
            first: info.state.first_seq.max(1),
            last: info.state.last_seq,
        }))
    }

    pub(super) async fn read_events(&self, range: &EventRange) -> Result<EventPage> {
        match self.try_read_events(range).await {
            Ok(page) => Ok(page),
            // No event was ever written.
            Err(failure) if failure.is(ApiError::STREAM_NOT_FOUND) => Ok(EventPage::default()),
            Err(failure) => Err(self.streams.error("read events", failure)),
        }
    }

    async fn try_read_events(&self, range: &EventRange) -> std::result::Result<EventPage, ApiFailure> {
        let stream = &self.options.events.name;
        let mut from = range.after.saturating_add(1);
        // Who reads on is there already.
        if let (Some(since), 0) = (range.since, range.after) {
            // A batch comes after its events have happened.
            from = from.max(self.streams.sequence_at(stream, since).await?);
        }
        let limit = range.limit.clamp(1, BODIES);
        match range.job {
            Some(job) => self.read_events_of(job, range, from, limit).await,
            None => {
                let page = self.streams.page(stream, &self.names.event_batch(), from, limit, false).await?;
                let next = page.next.map(|next| next - 1).filter(|next| *next < range.upto);
                let wanted = page.messages.into_iter().filter(|message| is_wanted(message, range));
                Ok(EventPage { batches: wanted.map(stored).collect(), next })
            }
        }
    }

    /// Reads headers until enough batches have a job, then their bodies.
    async fn read_events_of(
        &self,
        job: u32,
        range: &EventRange,
        from: u64,
        limit: usize,
    ) -> std::result::Result<EventPage, ApiFailure> {
        let (stream, subject) = (&self.options.events.name, self.names.event_batch());
        let job = format!("{job:08x}");
        let has_job = |message: &StoredMessage| {
            let jobs = message.headers.get(names::JOBS).unwrap_or_default();
            jobs.as_bytes().chunks_exact(8).any(|other| other == job.as_bytes())
        };
        let (mut found, mut next) = (Vec::new(), Some(from));
        while let Some(from) = next.filter(|next| found.len() < limit && *next <= range.upto) {
            let page = self.streams.page(stream, &subject, from, HEADERS, true).await?;
            next = page.next;
            for message in page.messages.iter().filter(|message| is_wanted(message, range) && has_job(message)) {
                if found.len() == limit {
                    next = Some(message.sequence);
                    break;
                }
                found.push(message.sequence);
            }
        }
        let bodies = self.streams.next_messages(stream, &subject, found.clone()).await;
        let mut batches = Vec::with_capacity(found.len());
        for (sequence, body) in found.into_iter().zip(bodies) {
            // One that was dropped meanwhile for its age is not there; the next one has been asked for by itself.
            batches.extend(body?.filter(|message| message.sequence == sequence).map(stored));
        }
        Ok(EventPage { batches, next: next.map(|next| next - 1).filter(|next| *next < range.upto) })
    }

    pub(super) async fn tail_events(&self, after: u64) -> Result<Feed> {
        self.ensure_events().await?;
        let (stream, subject) = (self.options.events.name.clone(), self.names.event_batch());
        Ok(Feed(Tail::after(self.streams.clone(), stream, subject, after)))
    }
}

fn is_wanted(message: &StoredMessage, range: &EventRange) -> bool {
    let time = |name| message.headers.number::<i64>(name).and_then(Timestamp::from_unix_millis);
    let (first, last) = (time(names::FIRST), time(names::LAST));
    message.sequence <= range.upto
        && range.since.is_none_or(|since| last.is_none_or(|last| last >= since))
        && range.until.is_none_or(|until| first.is_none_or(|first| first <= until))
}

fn stored(message: StoredMessage) -> StoredEvents {
    StoredEvents { position: message.sequence, body: message.payload }
}

/// See [`EventFeed`].
pub(super) struct Feed(Tail);

#[async_trait]
impl EventFeed for Feed {
    async fn next(&mut self) -> Vec<StoredEvents> {
        loop {
            if let TailEvent::Message(message) = self.0.next().await {
                return vec![stored(message)];
            }
        }
    }
}
