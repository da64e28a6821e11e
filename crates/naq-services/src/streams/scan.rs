//! Reading many messages of a stream at once: a page of it, or how many there are.
//!
//! Invariant: nothing is left on the server: the consumer is temporary, in memory, and removed at the end (or by the
//! server, soon after a crash). Not for work-queue streams, whose consumers take what they read.

use std::{collections::HashMap, time::Duration};

use futures_util::StreamExt;
use naq_models::Timestamp;
use serde_json::{Value, json};

use super::{ApiFailure, ConsumerInfo, StoredMessage, StreamService};
use crate::connection::RequestFailure;

/// Messages read in one go; below the client's buffer of 65 536 for a subscription.
const BATCH: usize = 5000;
/// The server removes a temporary consumer that nobody has used for so long.
const INACTIVE: Duration = Duration::from_secs(30);

/// A part of a stream.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) messages: Vec<StoredMessage>,
    /// Where the next page begins; `None` if this is the end.
    pub(crate) next: Option<u64>,
}

/// Messages in order without those that a later one of them has replaced.
pub(crate) fn last_of_each(messages: Vec<StoredMessage>) -> Vec<StoredMessage> {
    let last: HashMap<&str, u64> =
        messages.iter().map(|message| (message.subject.as_str(), message.sequence)).collect();
    let kept: Vec<bool> =
        messages.iter().map(|message| last.get(message.subject.as_str()) == Some(&message.sequence)).collect();
    messages.into_iter().zip(kept).filter_map(|(message, kept)| kept.then_some(message)).collect()
}

impl StreamService {
    /// Up to `max` messages of a subject (wildcards allowed) from a sequence on, in order; bodies left out if asked.
    pub(crate) async fn page(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
        max: usize,
        headers_only: bool,
    ) -> Result<Page, ApiFailure> {
        let consumer = self.temporary(stream, filter, from, headers_only).await?;
        let read = self.read(stream, &consumer, max.min(BATCH)).await;
        self.drop_temporary(stream, &consumer.name).await;
        let messages = read?;
        let more = consumer.num_pending > messages.len() as u64;
        let next = messages.last().filter(|_| more).map(|last| last.sequence + 1);
        Ok(Page { messages, next })
    }

    /// The last message of each subject that a filter has, headers only unless bodies are asked for.
    pub(crate) async fn all(
        &self,
        stream: &str,
        filter: &str,
        headers_only: bool,
    ) -> Result<Vec<StoredMessage>, ApiFailure> {
        let mut messages = Vec::new();
        let mut from = Some(1);
        while let Some(start) = from {
            let page = self.page(stream, filter, start, BATCH, headers_only).await?;
            messages.extend(page.messages);
            from = page.next;
        }
        Ok(last_of_each(messages))
    }

    /// How many messages match a subject; reads none of them.
    pub(crate) async fn count(&self, stream: &str, filter: &str) -> Result<u64, ApiFailure> {
        let consumer = self.temporary(stream, filter, 1, true).await?;
        self.drop_temporary(stream, &consumer.name).await;
        Ok(consumer.num_pending)
    }

    /// The sequence of the first message that came at or after a time; one beyond the last if none has.
    pub(crate) async fn sequence_at(&self, stream: &str, time: Timestamp) -> Result<u64, ApiFailure> {
        let config = json!({
            "deliver_policy": "by_start_time",
            "opt_start_time": time,
            "ack_policy": "none",
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": nanos(INACTIVE),
        });
        let consumer = self.create_ephemeral(stream, config).await?;
        self.drop_temporary(stream, &consumer.name).await;
        Ok(consumer.delivered.stream_seq + 1)
    }

    async fn temporary(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
        headers_only: bool,
    ) -> Result<ConsumerInfo, ApiFailure> {
        let config = json!({
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": from.max(1),
            "ack_policy": "none",
            "filter_subject": filter,
            "headers_only": headers_only,
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": nanos(INACTIVE),
        });
        self.create_ephemeral(stream, config).await
    }

    async fn drop_temporary(&self, stream: &str, consumer: &str) {
        if let Err(failure) = self.api::<Value>(&format!("CONSUMER.DELETE.{stream}.{consumer}"), Value::Null).await {
            tracing::debug!(stream, consumer, %failure, "the server will remove the temporary consumer by itself");
        }
    }

    async fn read(&self, stream: &str, consumer: &ConsumerInfo, max: usize) -> Result<Vec<StoredMessage>, ApiFailure> {
        let wanted = usize::try_from(consumer.num_pending).unwrap_or(max).min(max);
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let connection = self.connection();
        let inbox = connection.new_inbox();
        let mut inbox_messages = connection.subscribe(inbox.clone()).await?;
        let pull = json!({ "batch": wanted, "no_wait": true }).to_string();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", consumer.name);
        connection.publish(subject, Some(inbox), pull.into()).await?;
        let mut reconnects = connection.reconnects();
        let mut messages = Vec::with_capacity(wanted);
        while messages.len() < wanted {
            let message = tokio::select! {
                message = inbox_messages.next() => message.ok_or(RequestFailure::Closed)?,
                Ok(()) = reconnects.changed() => return Err(RequestFailure::Disconnected.into()),
                () = tokio::time::sleep(connection.request_timeout()) => {
                    return Err(RequestFailure::Timeout(connection.request_timeout()).into());
                }
            };
            match StoredMessage::delivered(message) {
                Some((message, _)) => messages.push(message),
                // A status: some of what was counted has been removed meanwhile.
                None => break,
            }
        }
        Ok(messages)
    }
}

/// A duration as the API writes it.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
