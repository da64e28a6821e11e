//! Messages that a stream takes all together or not at all (nats-server 2.12 and later, option `allow_atomic`).
//!
//! Invariant: nothing of a batch is in the stream before its last message has arrived and has been judged together with
//! the others. The headers mean that only where the server has echoed the option; elsewhere they are mere text, so who
//! calls this has looked. They stay with the stored messages, by which a batch is known again.
//!
//! Not here: what to do about a batch whose answer was lost.

use super::{EXPECTED_LAST_SUBJECT_SEQUENCE, PublishFailure, StreamService, stored};
use crate::connection::{Outgoing, RequestFailure};

/// Which batch a message belongs to: at most 64 bytes, new for each attempt.
pub(crate) const BATCH: &str = "Nats-Batch-Id";
/// Its place in the batch, from 1.
const SEQUENCE: &str = "Nats-Batch-Sequence";
/// On the last message: this is all.
const COMMIT: &str = "Nats-Batch-Commit";

/// The server knows nothing of the batch, or has missed a message of it.
const INCOMPLETE: u32 = 10176;
/// Too many batches are open at this moment.
const TOO_MANY: u16 = 429;

impl StreamService {
    /// Publishes messages of one stream, each to a subject that holds none yet; all are stored, or none.
    ///
    /// # Errors
    /// [`PublishFailure::Conflict`] or [`PublishFailure::SubjectTaken`] if one of the subjects holds a message. Only with
    /// [`PublishFailure::Unknown`] may they have been stored.
    ///
    /// # Cancel safety
    /// A dropped call has stored all or none.
    pub(crate) async fn publish_atomic(&self, batch: &str, mut messages: Vec<Outgoing>) -> Result<(), PublishFailure> {
        let count = messages.len();
        for (place, message) in (1..).zip(&mut messages) {
            let headers = message.headers.get_or_insert_default();
            headers.insert(BATCH, batch);
            headers.insert(SEQUENCE, place.to_string().as_str());
            headers.insert(EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
            if place == count {
                headers.insert(COMMIT, "1");
            }
        }
        let Some(last) = messages.pop() else { return Ok(()) };
        let mut before = messages.into_iter();
        if let Some(first) = before.next() {
            // Its answer comes before the rest is sent: a server that takes no batch says so here.
            self.open_batch(first).await?;
            let rest: Vec<Outgoing> = before.collect();
            crate::storage::crash::crash_point("nats.enqueue_all.opened");
            for sent in self.connection.publish_all(rest).await {
                sent.or_else(|failure| stored(Err(failure)).map(drop))?;
            }
            crate::storage::crash::crash_point("nats.enqueue_all.sent");
        }
        let answer = self.connection.request_all(vec![last], self.connection.request_timeout()).await.pop();
        stored(answer.unwrap_or(Err(RequestFailure::Closed))).map(drop).map_err(retryable)
    }

    /// Sends the first of several messages; the server answers with nothing, or with a refusal.
    async fn open_batch(&self, first: Outgoing) -> Result<(), PublishFailure> {
        let answer = self.connection.request_all(vec![first], self.connection.request_timeout()).await.pop();
        match answer.unwrap_or(Err(RequestFailure::Closed)) {
            Ok(message) if message.payload.is_empty() => Ok(()),
            answer => Err(stored(answer).err().map_or(PublishFailure::NoStream, retryable)),
        }
    }
}

/// What a new attempt may mend counts as unknown: then it is looked for what is there, and tried again.
fn retryable(failure: PublishFailure) -> PublishFailure {
    match failure {
        PublishFailure::Refused(error) if error.err_code == INCOMPLETE || error.code == TOO_MANY => {
            PublishFailure::Unknown(RequestFailure::Disconnected)
        }
        failure => failure,
    }
}
