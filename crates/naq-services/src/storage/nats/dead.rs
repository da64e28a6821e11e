//! Dead letters: one message per job, the original bytes as its body.
//!
//! Invariant: writing one twice is the same as once (the stream keeps the last of a subject). Which life of a job it
//! belongs to stands beside it, so that a requeue removes the old life's letter and never the new one's.

use naq_models::{Address, JobError, JobId, JobResult, Priority};

use super::{
    Shared,
    names::{ERROR, GENERATION, KIND, PRIORITY, header_text},
};
use crate::{
    connection::Outgoing,
    storage::{DeadLetter, Result, StorageError, StorageErrorKind},
    streams::{PublishFailure, StoredMessage},
};

const ATTEMPTS: usize = 4;

impl Shared {
    fn dead_message(&self, letter: &DeadLetter, generation: u64) -> Outgoing {
        let mut headers = async_nats::HeaderMap::new();
        let error = serde_json::to_string(&letter.error).expect("an error holds only strings, numbers and times");
        headers.insert(ERROR, error.as_str());
        headers.insert(PRIORITY, letter.address.priority.to_string().as_str());
        headers.insert(GENERATION, generation.to_string().as_str());
        if let Some(kind) = &letter.kind {
            headers.insert(KIND, header_text(kind).as_str());
        }
        let subject = self.names.dead(&letter.address.queue, &letter.address.id);
        Outgoing { subject, headers: Some(headers), payload: letter.body.clone() }
    }

    /// Writes letters, with the generation of the life that each belongs to.
    pub(super) async fn write_dead(&self, letters: &[(&DeadLetter, u64)]) -> Vec<Result<()>> {
        let mut outcomes: Vec<Result<()>> = letters.iter().map(|_| Ok(())).collect();
        let mut open: Vec<usize> = (0..letters.len()).collect();
        for _ in 0..ATTEMPTS {
            if open.is_empty() {
                break;
            }
            let messages = open.iter().map(|index| self.dead_message(letters[*index].0, letters[*index].1));
            let answers = self.streams.publish_all(Box::new(messages)).await;
            let mut again = Vec::new();
            for (index, answer) in open.into_iter().zip(answers) {
                outcomes[index] = match answer {
                    Ok(_) => Ok(()),
                    Err(PublishFailure::Unknown(failure)) => {
                        again.push(index);
                        Err(self.streams.error("write dead letter", failure.into()))
                    }
                    Err(failure) => Err(self.streams.publish_error("write dead letter", failure)),
                };
            }
            open = again;
        }
        outcomes
    }

    /// The letter of an id, in whatever queue it was.
    pub(super) async fn dead_message_of(&self, id: &JobId) -> Result<Option<StoredMessage>> {
        let found = self.streams.last_message(&self.names.dead_stream(), &self.names.dead_anywhere(id)).await;
        found.map_err(|failure| self.streams.error("read dead letter", failure))
    }

    pub(super) async fn remove_dead(&self, letter: &StoredMessage) -> Result<bool> {
        let removed = self.streams.delete(&self.names.dead_stream(), letter.sequence).await;
        removed.map_err(|failure| self.streams.error("remove dead letter", failure))
    }

    pub(super) async fn remove_dead_letter(&self, id: &JobId) -> Result<bool> {
        match self.dead_message_of(id).await? {
            Some(letter) => self.remove_dead(&letter).await,
            None => Ok(false),
        }
    }

    /// Writes the letter that a result asks for and that its writer did not live to write. The body is still in the
    /// queue, because the acknowledgement comes last.
    pub(super) async fn complete_failed(&self, address: &Address, result: &StoredMessage) -> Result<()> {
        let Ok(ended) = JobResult::decode(&result.payload) else { return Ok(()) };
        if ended.status != naq_models::JobStatus::Failed {
            return Ok(());
        }
        let traces = self.traces(std::slice::from_ref(address)).await.pop();
        let Some(traces) = traces.transpose()? else { return Ok(()) };
        let (None, Some(job)) = (traces.dead, traces.queued) else { return Ok(()) };
        let error = ended.error.unwrap_or_else(|| {
            JobError::new(naq_models::error_type::ERROR, "the job failed", ended.finished_at).permanent()
        });
        let letter = DeadLetter {
            address: address.clone(),
            body: job.payload,
            error,
            kind: (!ended.kind.is_empty()).then_some(ended.kind),
        };
        let generation = job.headers.number(GENERATION).unwrap_or(0);
        self.write_dead(&[(&letter, generation)]).await.pop().unwrap_or(Ok(()))
    }

    /// Reads a letter; an error if it is not one of ours.
    pub(super) fn read_dead_letter(&self, message: StoredMessage) -> Result<DeadLetter> {
        let unreadable = |what: &str| {
            StorageError::new(StorageErrorKind::Corrupt, "read dead letter", format!("{}: {what}", message.subject))
        };
        let (queue, id) = self.names.read_dead(&message.subject).ok_or_else(|| unreadable("no such subject"))?;
        let error = message.headers.get(ERROR).ok_or_else(|| unreadable("no error"))?;
        let error: JobError = serde_json::from_str(error).map_err(|e| unreadable("error").with_source(e))?;
        let priority = message.headers.number(PRIORITY).and_then(|p| Priority::new(p).ok()).unwrap_or_default();
        let kind = message.headers.get(KIND).map(str::to_owned);
        let address = Address { id, queue, priority, stored_at: message.time };
        Ok(DeadLetter { address, body: message.payload, error, kind })
    }
}
