//! [`StreamService`]: JetStream streams and consumers, spoken raw.
//!
//! Invariant: speaks the JSON API itself, because the client library cannot parse what nats-server 2.9 answers and
//! trusts options that the server dropped. Reads go to a stream's leader. A refusal keeps its code; decisions are made
//! above by kind, never by text (but for one error that the server tells apart only by its text).

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    connection::{ConnectionService, Outgoing, RequestFailure},
    storage::{StorageError, StorageErrorKind},
};

mod clock;
mod message;
mod scan;
mod tail;

pub(crate) use clock::{Clock, uptime};
pub(crate) use message::{Delivery, StoredMessage, header};
pub(crate) use scan::nanos;
pub(crate) use tail::{Tail, TailEvent};

/// Parts of a stream that are searched for messages to delete at once.
const DELETING_AT_ONCE: u64 = 64;

/// JetStream streams of one account, over one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StreamService {
    connection: ConnectionService,
}

/// What the server says against a request.
#[derive(Debug, Clone, Deserialize, thiserror::Error)]
#[error("{description} (code {code}, error {err_code})")]
pub(crate) struct ApiError {
    #[serde(default)]
    pub(crate) code: u16,
    #[serde(default)]
    pub(crate) err_code: u32,
    #[serde(default)]
    pub(crate) description: String,
}

impl ApiError {
    pub(crate) const STREAM_NOT_FOUND: u32 = 10059;
    pub(crate) const CONSUMER_NOT_FOUND: u32 = 10014;
    const MESSAGE_NOT_FOUND: u32 = 10037;
    const SEQUENCE_NOT_FOUND: u32 = 10043;
    const WRONG_LAST_SEQUENCE: [u32; 2] = [10071, 10164];
    const TOO_LARGE: u32 = 10054;
    /// Insufficient resources, insufficient storage, storage resources exceeded, memory resources exceeded.
    const FULL: [u32; 4] = [10023, 10047, 10028, 10163];
    const STORE_FAILED: u32 = 10077;
}

/// Why an API request has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiFailure {
    #[error(transparent)]
    Refused(ApiError),
    #[error(transparent)]
    Request(#[from] RequestFailure),
    #[error("the server's answer cannot be read")]
    Malformed(#[source] serde_json::Error),
}

impl ApiFailure {
    pub(crate) fn is(&self, err_code: u32) -> bool {
        matches!(self, Self::Refused(error) if error.err_code == err_code)
    }
}

/// Why a message was not stored, as far as is known.
#[derive(Debug)]
pub(crate) enum PublishFailure {
    /// The subject's last sequence is not the expected one.
    Conflict,
    /// The stream holds a message of this subject and takes no second one.
    SubjectTaken,
    /// No stream takes this subject.
    NoStream,
    TooLarge(String),
    Full(String),
    Refused(ApiError),
    /// It may have been stored.
    Unknown(RequestFailure),
}

/// What a stream holds.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StreamInfo {
    pub(crate) config: Value,
    pub(crate) state: StreamState,
    /// The server's clock; servers before 2.10 do not tell it.
    pub(crate) ts: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StreamState {
    pub(crate) messages: u64,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
}

/// Where a consumer stands.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ConsumerInfo {
    pub(crate) name: String,
    pub(crate) config: Value,
    pub(crate) delivered: SequencePair,
    pub(crate) ack_floor: SequencePair,
    #[serde(default)]
    pub(crate) num_pending: u64,
    #[serde(default)]
    pub(crate) num_ack_pending: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct SequencePair {
    pub(crate) stream_seq: u64,
}

impl StreamService {
    /// Streams reached over this connection.
    #[must_use]
    pub fn new(connection: ConnectionService) -> Self {
        Self { connection }
    }

    /// The connection it uses.
    #[must_use]
    pub fn connection(&self) -> &ConnectionService {
        &self.connection
    }

    /// The names of all streams whose subjects overlap with `subject` (`>` for all).
    ///
    /// # Errors
    /// If the server does not answer or refuses.
    pub async fn names(&self, subject: &str) -> Result<Vec<String>, StorageError> {
        self.stream_names(subject).await.map_err(|failure| self.error("list streams", failure))
    }

    /// Removes all messages of a stream whose subject matches `filter`; returns how many. On nats-server 2.9 its consumers
    /// lose track of what they have delivered: not for streams that are in use.
    ///
    /// # Errors
    /// If there is no such stream, or the server does not answer or refuses.
    pub async fn purge_stream(&self, stream: &str, filter: &str) -> Result<u64, StorageError> {
        let call = format!("STREAM.PURGE.{stream}");
        let purged = self.api::<Purged>(&call, json!({ "filter": filter })).await;
        purged.map(|answer| answer.purged).map_err(|failure| self.error("purge stream", failure))
    }

    /// Removes a stream and everything in it; `false` if there is none.
    ///
    /// # Errors
    /// If the server does not answer or refuses.
    pub async fn delete_stream(&self, stream: &str) -> Result<bool, StorageError> {
        match self.api::<Value>(&format!("STREAM.DELETE.{stream}"), Value::Null).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.is(ApiError::STREAM_NOT_FOUND) => Ok(false),
            Err(failure) => Err(self.error("delete stream", failure)),
        }
    }

    /// Says of a failed request what failed, against which server, of what kind, and what to try.
    pub(crate) fn error(&self, operation: &'static str, failure: ApiFailure) -> StorageError {
        let location = self.connection.location();
        let (kind, hint) = match &failure {
            ApiFailure::Refused(error) => error.meaning(),
            ApiFailure::Request(failure) => failure.meaning(),
            ApiFailure::Malformed(_) => (StorageErrorKind::Incompatible, None),
        };
        let error = StorageError::new(kind, operation, format!("NATS at {location}: {failure}")).with_source(failure);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    // ---- The API ---------------------------------------------------------------------------------------------

    pub(crate) async fn api<T: DeserializeOwned>(&self, verb: &str, body: Value) -> Result<T, ApiFailure> {
        let mut answers = self.api_all(vec![(verb.to_owned(), body)]).await;
        answers.pop().unwrap_or(Err(ApiFailure::Request(RequestFailure::Closed)))
    }

    /// The same request to many, answers in order. Sent again if the connection was lost meanwhile: every request that
    /// naq makes of the API has the same effect twice as once.
    pub(crate) async fn api_all<T: DeserializeOwned>(&self, calls: Vec<(String, Value)>) -> Vec<Result<T, ApiFailure>> {
        let silence = self.connection.request_timeout();
        let request = |index: &usize| api_request(&calls[*index].0, &calls[*index].1);
        let mut answers: Vec<Option<Result<T, ApiFailure>>> = calls.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..calls.len()).collect();
        for last in [false, false, true] {
            let found = self.connection.request_all(open.iter().map(request).collect(), silence).await;
            let mut again = Vec::new();
            for (index, answer) in open.into_iter().zip(found) {
                match answer {
                    Err(RequestFailure::Disconnected) if !last => again.push(index),
                    Err(failure) => answers[index] = Some(Err(failure.into())),
                    Ok(message) => answers[index] = Some(parse_answer(&message.payload)),
                }
            }
            open = again;
            if open.is_empty() {
                break;
            }
        }
        answers.into_iter().map(|a| a.unwrap_or(Err(ApiFailure::Request(RequestFailure::Disconnected)))).collect()
    }

    pub(crate) async fn stream_info(&self, stream: &str) -> Result<Option<StreamInfo>, ApiFailure> {
        match self.api(&format!("STREAM.INFO.{stream}"), Value::Null).await {
            Ok(info) => Ok(Some(info)),
            Err(failure) if failure.is(ApiError::STREAM_NOT_FOUND) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Whether streams hold messages of subjects; `None` where it could not be found out. Moves no bodies.
    pub(crate) async fn have_subjects(&self, what: Vec<(String, String)>) -> Vec<Option<bool>> {
        #[derive(Deserialize)]
        struct Info {
            state: Subjects,
        }
        #[derive(Deserialize)]
        struct Subjects {
            #[serde(default)]
            subjects: std::collections::HashMap<String, u64>,
        }
        let calls = what
            .iter()
            .map(|(stream, subject)| (format!("STREAM.INFO.{stream}"), json!({ "subjects_filter": subject })))
            .collect();
        let answers = self.api_all::<Info>(calls).await;
        what.iter()
            .zip(answers)
            .map(|((_, subject), info)| Some(info.ok()?.state.subjects.contains_key(subject)))
            .collect()
    }

    pub(crate) async fn stream_names(&self, subject: &str) -> Result<Vec<String>, ApiFailure> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            total: usize,
            streams: Option<Vec<String>>,
        }
        let mut names = Vec::new();
        loop {
            let page: Page = self.api("STREAM.NAMES", json!({ "subject": subject, "offset": names.len() })).await?;
            let found = page.streams.unwrap_or_default();
            let last = found.is_empty();
            names.extend(found);
            if last || names.len() >= page.total {
                return Ok(names);
            }
        }
    }

    pub(crate) async fn consumer_info(&self, stream: &str, name: &str) -> Result<Option<ConsumerInfo>, ApiFailure> {
        match self.api(&format!("CONSUMER.INFO.{stream}.{name}"), Value::Null).await {
            Ok(info) => Ok(Some(info)),
            Err(failure) if failure.is(ApiError::CONSUMER_NOT_FOUND) || failure.is(ApiError::STREAM_NOT_FOUND) => {
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    pub(crate) async fn create_ephemeral(&self, stream: &str, config: Value) -> Result<ConsumerInfo, ApiFailure> {
        let body = json!({ "stream_name": stream, "config": config });
        self.api(&format!("CONSUMER.CREATE.{stream}"), body).await
    }

    /// Removes the message of a subject: that of the given sequence, or whichever is there; how many went.
    pub(crate) async fn purge(&self, stream: &str, subject: &str, sequence: Option<u64>) -> Result<u64, ApiFailure> {
        let mut removed = self.purge_all(stream, vec![(subject.to_owned(), sequence)]).await;
        removed.pop().unwrap_or(Ok(0))
    }

    /// [`purge`](Self::purge) of many subjects at once, each of which holds one message at most.
    ///
    /// The messages are deleted by sequence. A purge would find them by itself, but on nats-server 2.9 it makes every
    /// consumer of the subject skip to the end of the stream, past all that it has not delivered yet, and forget what it
    /// has delivered, which then never comes again.
    pub(crate) async fn purge_all(
        &self,
        stream: &str,
        what: Vec<(String, Option<u64>)>,
    ) -> Vec<Result<u64, ApiFailure>> {
        let mut removed: Vec<Result<u64, ApiFailure>> = what.iter().map(|_| Ok(0)).collect();
        let mut deletions = Vec::with_capacity(what.len());
        let mut unknown = Vec::new();
        let mut subjects = Vec::new();
        for (index, (subject, sequence)) in what.into_iter().enumerate() {
            match sequence {
                Some(sequence) => deletions.push((index, sequence)),
                None => {
                    unknown.push(index);
                    subjects.push((stream.to_owned(), subject));
                }
            }
        }
        for (index, found) in unknown.into_iter().zip(self.last_messages(subjects).await) {
            match found {
                Ok(Some(found)) => deletions.push((index, found.sequence)),
                Ok(None) => {}
                Err(failure) => removed[index] = Err(failure),
            }
        }
        let sequences: Vec<u64> = deletions.iter().map(|(_, sequence)| *sequence).collect();
        for ((index, _), deleted) in deletions.into_iter().zip(self.delete_all(stream, &sequences).await) {
            removed[index] = deleted.map(u64::from);
        }
        removed
    }

    /// Deletes the messages of a subject (wildcards allowed) up to and including `last`; how many went. One request if
    /// there are none.
    pub(crate) async fn delete_up_to(&self, stream: &str, subject: &str, last: u64) -> Result<u64, ApiFailure> {
        let first = match self.next_message(stream, subject, 1).await? {
            Some(first) if first.sequence <= last => first.sequence,
            _ => return Ok(0),
        };
        // Each message is found from the one before it, so the range is searched in parts at once.
        let part = ((last - first) / DELETING_AT_ONCE + 1).max(1);
        let parts = (0..DELETING_AT_ONCE).map(|n| (first + n * part, last.min(first + (n + 1) * part - 1)));
        let deleted =
            parts.filter(|(from, to)| from <= to).map(|(from, to)| self.delete_between(stream, subject, from, to));
        Ok(try_join_all(deleted).await?.into_iter().sum())
    }

    async fn delete_between(&self, stream: &str, subject: &str, mut from: u64, last: u64) -> Result<u64, ApiFailure> {
        let mut deleted = 0;
        while from <= last {
            let Some(message) = self.next_message(stream, subject, from).await? else { break };
            if message.sequence > last {
                break;
            }
            let gone = self.delete_all(stream, &[message.sequence]).await.pop().unwrap_or(Ok(false))?;
            deleted += u64::from(gone);
            from = message.sequence + 1;
        }
        Ok(deleted)
    }

    /// Deletes messages by sequence; `false` for one that was not there.
    async fn delete_all(&self, stream: &str, sequences: &[u64]) -> Vec<Result<bool, ApiFailure>> {
        #[derive(Deserialize)]
        struct Deleted {}
        let call =
            |sequence: &u64| (format!("STREAM.MSG.DELETE.{stream}"), json!({ "seq": sequence, "no_erase": true }));
        let answers = self.api_all::<Deleted>(sequences.iter().map(call).collect()).await;
        let deleted = |answer: Result<Deleted, ApiFailure>| match answer {
            Ok(Deleted {}) => Ok(true),
            Err(failure) if failure.is(ApiError::SEQUENCE_NOT_FOUND) => Ok(false),
            Err(failure) => Err(failure),
        };
        answers.into_iter().map(deleted).collect()
    }

    /// The last message of a subject (wildcards allowed), read from the stream's leader.
    pub(crate) async fn last_message(&self, stream: &str, subject: &str) -> Result<Option<StoredMessage>, ApiFailure> {
        let mut found = self.last_messages(vec![(stream.to_owned(), subject.to_owned())]).await;
        found.pop().unwrap_or(Ok(None))
    }

    /// [`last_message`](Self::last_message) of many (stream, subject) pairs.
    pub(crate) async fn last_messages(
        &self,
        what: Vec<(String, String)>,
    ) -> Vec<Result<Option<StoredMessage>, ApiFailure>> {
        let calls = what
            .into_iter()
            .map(|(stream, subject)| (format!("STREAM.MSG.GET.{stream}"), json!({ "last_by_subj": subject })))
            .collect();
        self.api_all(calls).await.into_iter().map(message::found).collect()
    }

    /// The first message of a subject (wildcards allowed) at or after a sequence.
    pub(crate) async fn next_message(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
    ) -> Result<Option<StoredMessage>, ApiFailure> {
        let body = json!({ "seq": from.max(1), "next_by_subj": subject });
        message::found(self.api(&format!("STREAM.MSG.GET.{stream}"), body).await)
    }

    // ---- Publishing ------------------------------------------------------------------------------------------

    pub(crate) async fn publish(&self, message: Outgoing) -> Result<u64, PublishFailure> {
        let mut outcomes = self.publish_all(vec![message]).await;
        outcomes.pop().unwrap_or(Err(PublishFailure::Unknown(RequestFailure::Closed)))
    }

    /// Publishes in order, a bounded number in flight; the sequence of each stored message, in order.
    pub(crate) async fn publish_all(&self, messages: Vec<Outgoing>) -> Vec<Result<u64, PublishFailure>> {
        let silence: Duration = self.connection.request_timeout();
        let answers = self.connection.request_all(messages, silence).await;
        answers
            .into_iter()
            .map(|answer| {
                acknowledged(answer.as_ref().map(|m| &m.payload)).unwrap_or_else(|| Err(publish_failure(answer.err())))
            })
            .collect()
    }
}

/// Expects the last message of the published subject to have this sequence; 0: that there is none.
pub(crate) const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";

fn acknowledged(answer: Result<&Bytes, &RequestFailure>) -> Option<Result<u64, PublishFailure>> {
    #[derive(Deserialize)]
    struct Ack {
        seq: Option<u64>,
        error: Option<ApiError>,
    }
    let payload = answer.ok()?;
    Some(match serde_json::from_slice(payload) {
        Ok(Ack { error: None, seq: Some(seq) }) => Ok(seq),
        Ok(Ack { error: Some(error), .. }) => Err(refusal(error)),
        // Not an acknowledgement of a stream: somebody else answers on this subject.
        _ => Err(PublishFailure::NoStream),
    })
}

fn publish_failure(failure: Option<RequestFailure>) -> PublishFailure {
    match failure {
        Some(RequestFailure::NoResponders) => PublishFailure::NoStream,
        Some(RequestFailure::TooLarge) => PublishFailure::TooLarge("larger than the server's max_payload".into()),
        Some(failure) => PublishFailure::Unknown(failure),
        None => PublishFailure::Unknown(RequestFailure::Closed),
    }
}

fn refusal(error: ApiError) -> PublishFailure {
    match error.err_code {
        code if ApiError::WRONG_LAST_SEQUENCE.contains(&code) => PublishFailure::Conflict,
        ApiError::TOO_LARGE => PublishFailure::TooLarge(error.description),
        code if ApiError::FULL.contains(&code) => PublishFailure::Full(error.description),
        // The server has one code for everything its store refuses.
        ApiError::STORE_FAILED if error.description.contains("per subject") => PublishFailure::SubjectTaken,
        ApiError::STORE_FAILED if error.description.contains("exceeded") || error.description.contains("no space") => {
            PublishFailure::Full(error.description)
        }
        _ => PublishFailure::Refused(error),
    }
}

#[derive(Deserialize)]
struct Purged {
    #[serde(default)]
    purged: u64,
}

fn api_request(verb: &str, body: &Value) -> Outgoing {
    let payload = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    Outgoing { subject: format!("$JS.API.{verb}"), headers: None, payload }
}

fn parse_answer<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ApiFailure> {
    #[derive(Deserialize)]
    struct Refusal {
        error: Option<ApiError>,
    }
    match serde_json::from_slice::<Refusal>(payload) {
        Ok(Refusal { error: Some(error) }) => Err(ApiFailure::Refused(error)),
        Ok(Refusal { error: None }) => serde_json::from_slice(payload).map_err(ApiFailure::Malformed),
        Err(error) => Err(ApiFailure::Malformed(error)),
    }
}

impl ApiError {
    fn meaning(&self) -> (StorageErrorKind, Option<&'static str>) {
        match (self.err_code, self.code) {
            (10039 | 10076, _) => (StorageErrorKind::Incompatible, Some(NO_JETSTREAM)),
            (code, _) if Self::FULL.contains(&code) => (
                StorageErrorKind::Full,
                Some("raise the server's JetStream limits (max_file_store) or free space on its disk"),
            ),
            // No leader at the moment, or not enough members up.
            (10008 | 10009 | 10003, _) => (StorageErrorKind::Unreachable, None),
            (_, 503 | 500) => (StorageErrorKind::Unreachable, None),
            (_, 404) => (StorageErrorKind::NotFound, None),
            _ => (StorageErrorKind::Refused, None),
        }
    }
}

pub(crate) const NO_JETSTREAM: &str =
    "naq needs JetStream: start the server with `nats-server -js`, or enable it for this account";

impl RequestFailure {
    fn meaning(&self) -> (StorageErrorKind, Option<&'static str>) {
        match self {
            Self::Timeout(_) => (StorageErrorKind::Timeout, None),
            Self::Disconnected => (StorageErrorKind::Unreachable, None),
            // JetStream is starting, has no leader now, or is not enabled (which opening the store finds out).
            Self::NoResponders => (StorageErrorKind::Unreachable, Some(NO_JETSTREAM)),
            Self::TooLarge => (StorageErrorKind::TooLarge, None),
            Self::Closed => (StorageErrorKind::Closed, None),
            Self::Client(_) => (StorageErrorKind::Refused, None),
        }
    }
}

impl fmt::Display for PublishFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("something else was stored first"),
            Self::SubjectTaken => f.write_str("the address is taken"),
            Self::NoStream => f.write_str("no stream takes the message"),
            Self::TooLarge(text) | Self::Full(text) => f.write_str(text),
            Self::Refused(error) => error.fmt(f),
            Self::Unknown(failure) => failure.fmt(f),
        }
    }
}

impl StreamService {
    /// [`error`](Self::error) for a message that was not stored.
    pub(crate) fn publish_error(&self, operation: &'static str, failure: PublishFailure) -> StorageError {
        let (kind, hint) = match &failure {
            PublishFailure::Conflict | PublishFailure::SubjectTaken => (StorageErrorKind::Conflict, None),
            PublishFailure::NoStream => (StorageErrorKind::Unreachable, None),
            PublishFailure::TooLarge(_) => (StorageErrorKind::TooLarge, None),
            PublishFailure::Full(_) => {
                (StorageErrorKind::Full, Some("free space on the server's disk or raise its limits"))
            }
            PublishFailure::Refused(error) => error.meaning(),
            PublishFailure::Unknown(failure) => failure.meaning(),
        };
        let error = StorageError::new(kind, operation, format!("NATS at {}: {failure}", self.connection.location()));
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}
