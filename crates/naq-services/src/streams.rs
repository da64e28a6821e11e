//! [`StreamService`]: JetStream streams and consumers, spoken raw.
//!
//! Invariant: speaks the JSON API itself, because the client library cannot parse what nats-server 2.9 answers and
//! trusts options that the server dropped. Reads go to a stream's leader. A refusal keeps its code; decisions are made
//! above by kind, never by text (but for one error that the server tells apart only by its text).

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    connection::{Answer, ConnectionService, Outgoing, RequestFailure, Requests},
    storage::{StorageError, StorageErrorKind},
};

mod atomic;
mod clock;
mod message;
mod revisions;
mod scan;
mod tail;

pub(crate) use atomic::BATCH;
pub(crate) use clock::Clock;
pub(crate) use message::{Delivery, StoredMessage, header};
pub(crate) use revisions::Revisions;
pub(crate) use scan::{last_of_each, nanos};
pub(crate) use tail::{Tail, TailEvent};

/// JetStream streams of one account, over one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StreamService {
    connection: ConnectionService,
    /// Removed messages are overwritten, because the server would bring them back after a kill.
    forgets_removals: bool,
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
    const WRONG_LAST_SEQUENCE: [u32; 2] = [10071, 10164];
    const TOO_LARGE: u32 = 10054;
    /// Insufficient resources, insufficient storage, storage resources exceeded, memory resources exceeded, resource limits
    /// of the account exceeded.
    const FULL: [u32; 5] = [10023, 10047, 10028, 10163, 10002];
    const STORE_FAILED: u32 = 10077;
    const SEQUENCE_NOT_FOUND: u32 = 10043;
    const DELETE_FAILED: u32 = 10057;

    fn is_missing_message(&self) -> bool {
        match self.err_code {
            Self::SEQUENCE_NOT_FOUND | Self::MESSAGE_NOT_FOUND => true,
            // One code for whatever its store says; this is how it says that there is no such sequence.
            Self::DELETE_FAILED => {
                ["EOF", "not found", "no message found"].iter().any(|said| self.description.contains(said))
            }
            _ => false,
        }
    }
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
        let forgets_removals = forgets_removals(&connection.server_version());
        Self { connection, forgets_removals }
    }

    /// Whether the server, once killed, may know less of removals than it had answered.
    pub(crate) fn forgets_removals(&self) -> bool {
        self.forgets_removals
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

    /// Removes all messages of a stream; returns how many.
    ///
    /// # Errors
    /// If there is no such stream, or the server does not answer or refuses.
    pub async fn purge_stream(&self, stream: &str) -> Result<u64, StorageError> {
        #[derive(Deserialize)]
        struct Purged {
            #[serde(default)]
            purged: u64,
        }
        let purged = self.api::<Purged>(&format!("STREAM.PURGE.{stream}"), Value::Null).await;
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
            Err(failure) => Err(self.error_of(stream, "delete stream", failure)),
        }
    }

    /// Says of a failed request what failed, against which server, of what kind, and what to try.
    pub(crate) fn error(&self, operation: &'static str, failure: ApiFailure) -> StorageError {
        self.error_at(self.connection.location(), operation, failure)
    }

    /// The same of a request about one stream, which is named.
    pub(crate) fn error_of(&self, stream: &str, operation: &'static str, failure: ApiFailure) -> StorageError {
        self.error_at(&format!("{}: stream {stream}", self.connection.location()), operation, failure)
    }

    fn error_at(&self, location: &str, operation: &'static str, failure: ApiFailure) -> StorageError {
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

    /// Removes one message; `false` if it is not there. See [`delete_all`](Self::delete_all).
    pub(crate) async fn delete(&self, stream: &str, sequence: u64) -> Result<bool, ApiFailure> {
        self.delete_all(stream, vec![sequence]).await.pop().unwrap_or(Ok(false))
    }

    /// Removes messages by sequence; whether each was there.
    ///
    /// Never by a purge with a filter: to nats-server 2.9 that moves a consumer with an overlapping filter to the end of
    /// the stream and forgets its claims, so that everything else that waited for it is never delivered.
    pub(crate) async fn delete_all(&self, stream: &str, sequences: Vec<u64>) -> Vec<Result<bool, ApiFailure>> {
        let mark = if self.forgets_removals && !sequences.is_empty() { self.mark(stream).await } else { None };
        let verb = format!("STREAM.MSG.DELETE.{stream}");
        let body = |sequence| json!({ "seq": sequence, "no_erase": mark.is_none() });
        let calls = mark.into_iter().chain(sequences).map(|sequence| (verb.clone(), body(sequence))).collect();
        let answers = self.api_all::<Value>(calls).await.into_iter().skip(usize::from(mark.is_some()));
        let removed = |answer| match answer {
            Ok(_) => Ok(true),
            Err(ApiFailure::Refused(error)) if error.is_missing_message() => Ok(false),
            Err(failure) => Err(failure),
        };
        answers.map(removed).collect()
    }

    /// Stores a message that is to be overwritten before others are; `None` if the stream does not take it.
    ///
    /// A killed nats-server 2.9 believes its index of a block if the last message there is the one that the index was written
    /// with, and counts what was overwritten since as present. Once such a message comes first, the next one that is
    /// stored becomes the first, and all between are out of reach: jobs are lost. With its last message overwritten the
    /// block is read anew, as it is; and for half a second after a message was stored no other one writes the index.
    async fn mark(&self, stream: &str) -> Option<u64> {
        // One of its own: a queue's stream takes no second message of a subject.
        let inbox = self.connection.new_inbox();
        let subject = mark_prefix(stream) + inbox.rsplit('.').next().unwrap_or_default();
        match self.publish(Outgoing { subject, headers: None, payload: Bytes::new() }).await {
            Ok(sequence) => Some(sequence),
            Err(failure) => {
                tracing::debug!(stream, ?failure, "removed messages are not overwritten");
                None
            }
        }
    }

    /// Removes what subjects hold; whether the present message of each was there. It goes last, once the others are gone:
    /// none of them is ever seen as the present one.
    pub(crate) async fn remove_all(&self, stream: &str, what: &[Revisions]) -> Vec<Result<bool, ApiFailure>> {
        let replaced: Vec<(usize, u64)> =
            (0..).zip(what).flat_map(|(n, one)| one.replaced().map(move |s| (n, s))).collect();
        let deleted = self.delete_all(stream, replaced.iter().map(|(_, sequence)| *sequence).collect()).await;
        let mut outcomes: Vec<Option<Result<bool, ApiFailure>>> = what.iter().map(|_| None).collect();
        for ((index, _), deleted) in replaced.into_iter().zip(deleted) {
            if let Err(failure) = deleted {
                outcomes[index] = Some(Err(failure));
            }
        }
        crate::storage::crash::crash_point("nats.remove.replaced");
        let clear: Vec<usize> = (0..what.len()).filter(|index| outcomes[*index].is_none()).collect();
        let deleted = self.delete_all(stream, clear.iter().map(|index| what[*index].last()).collect()).await;
        for (index, deleted) in clear.into_iter().zip(deleted) {
            outcomes[index] = Some(deleted);
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Ok(false))).collect()
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
        self.next_messages(stream, subject, vec![from]).await.pop().unwrap_or(Ok(None))
    }

    /// [`next_message`](Self::next_message) from many positions.
    pub(crate) async fn next_messages(
        &self,
        stream: &str,
        subject: &str,
        from: Vec<u64>,
    ) -> Vec<Result<Option<StoredMessage>, ApiFailure>> {
        let verb = format!("STREAM.MSG.GET.{stream}");
        let call = |from: u64| (verb.clone(), json!({ "seq": from.max(1), "next_by_subj": subject }));
        let answers = self.api_all(from.into_iter().map(call).collect()).await;
        answers.into_iter().map(message::found).collect()
    }

    // ---- Publishing ------------------------------------------------------------------------------------------

    pub(crate) async fn publish(&self, message: Outgoing) -> Result<u64, PublishFailure> {
        let mut outcomes = self.publish_all(Box::new(std::iter::once(message))).await;
        outcomes.pop().unwrap_or(Err(PublishFailure::Unknown(RequestFailure::Closed)))
    }

    /// Publishes in order, a bounded number in flight; the sequence of each stored message, in order.
    pub(crate) async fn publish_all(&self, messages: Requests<'_>) -> Vec<Result<u64, PublishFailure>> {
        self.connection.exchange_all(messages, stored, self.connection.request_timeout()).await
    }
}

/// Expects the last message of the published subject to have this sequence; 0: that there is none. See [`Revisions`].
pub(crate) const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";

fn stored(answer: Answer) -> Result<u64, PublishFailure> {
    #[derive(Deserialize)]
    struct Ack {
        seq: Option<u64>,
        error: Option<ApiError>,
    }
    match answer {
        Ok(message) => match serde_json::from_slice(&message.payload) {
            Ok(Ack { error: None, seq: Some(seq) }) => Ok(seq),
            Ok(Ack { error: Some(error), .. }) => Err(refusal(error)),
            // Not an acknowledgement of a stream: somebody else answers on this subject.
            _ => Err(PublishFailure::NoStream),
        },
        Err(RequestFailure::NoResponders) => Err(PublishFailure::NoStream),
        Err(RequestFailure::TooLarge) => Err(PublishFailure::TooLarge("larger than the server's max_payload".into())),
        Err(failure) => Err(PublishFailure::Unknown(failure)),
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

fn mark_prefix(stream: &str) -> String {
    format!("naq.sync.{stream}.")
}

/// What a stream takes beside its messages proper: see [`StreamService::mark`].
pub(crate) fn marks(stream: &str) -> String {
    mark_prefix(stream) + "*"
}

/// Servers before 2.10 note removals in an index that they write now and then; only overwriting is there at once.
fn forgets_removals(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u64>().unwrap_or(0));
    (numbers.next(), numbers.next()) < (Some(2), Some(10))
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
