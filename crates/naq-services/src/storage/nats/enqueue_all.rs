//! New jobs that are stored all together or not at all: one atomic batch of the queue's stream.
//!
//! Invariant: nothing is stored piecemeal. What the stream cannot take in one batch (several queues, jobs that wait, too
//! many, a server without the option) is refused before anything is written. "None" is said only after the server
//! refused the batch; after a lost answer the jobs are read back, and the batch is tried again if nothing of it is there.
//!
//! The keys of chosen ids are made before, as for single jobs. After a refusal they stay, as those of a producer that
//! died do: to take one back could take it from another producer, who has found it and stored its job.

use std::collections::HashSet;

use naq_models::{Address, JobStatus, QueueName};
use tokio::time::{Duration, Instant};

use super::{Shared, enqueue::Traces, repeat, reserve::Reserved, topology::Batches};
use crate::{
    storage::{Enqueued, EnqueuedAll, Entry, Result, StorageError, StorageErrorKind, crash::crash_point},
    streams::{BATCH, PublishFailure},
};

const OPERATION: &str = "enqueue all";
/// The server's own limit of messages in a batch.
const MAX_BATCH: usize = 1000;
/// Between two attempts: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What of a batch whose answer was lost is there.
enum Remnant {
    /// It was stored.
    All,
    /// Nothing, nor anything else in its place.
    Nothing,
    /// Jobs of some of its ids, which may be others'.
    Unproven,
}

impl Shared {
    pub(super) async fn enqueue_all(&self, entries: &[Entry]) -> Result<EnqueuedAll> {
        let Some(queue) = entries.first().map(|entry| &entry.address.queue) else { return Ok(EnqueuedAll::Stored) };
        self.check_batch(queue, entries).await?;
        let mut ids = HashSet::with_capacity(entries.len());
        if let Some(at) = entries.iter().position(|entry| !ids.insert(&entry.address.id)) {
            return Ok(EnqueuedAll::Taken(at));
        }
        // Looked at before the keys are made, because those stay.
        let chosen: Vec<usize> = (0..entries.len()).filter(|at| !entries[*at].address.id.is_generated()).collect();
        let addresses: Vec<Address> = chosen.iter().map(|at| entries[*at].address.clone()).collect();
        if !chosen.is_empty() {
            for (at, traces) in chosen.iter().zip(self.traces(&addresses).await) {
                if traces?.occupy_id(entries[*at].generation) {
                    return Ok(EnqueuedAll::Taken(*at));
                }
            }
        }
        let mut review = vec![false; entries.len()];
        for (at, reserved) in chosen.iter().zip(self.reserve_all(entries, &chosen).await) {
            match reserved? {
                Reserved::Taken => return Ok(EnqueuedAll::Taken(*at)),
                Reserved::Free { review: needed } => review[*at] = needed,
            }
        }
        crash_point("nats.enqueue_all.reserved");
        let stored = self.publish_together(queue, entries, &review).await;
        crash_point("nats.enqueue_all.committed");
        stored
    }

    /// Refuses what cannot be one batch.
    async fn check_batch(&self, queue: &QueueName, entries: &[Entry]) -> Result<()> {
        if entries.len() > MAX_BATCH {
            return Err(unsupported(format!("{} jobs; a batch of NATS takes at most {MAX_BATCH}", entries.len())));
        }
        if let Some(other) = entries.iter().find(|entry| entry.address.queue != *queue) {
            let detail = format!("job {} goes to another queue; a batch of NATS has one", other.address.id);
            return Err(unsupported(detail));
        }
        if let Some(waits) = entries.iter().find(|entry| entry.status != JobStatus::Pending) {
            let detail = format!("job {} waits for its time or for others, and is kept elsewhere", waits.address.id);
            return Err(unsupported(detail));
        }
        for entry in entries {
            self.check_size(OPERATION, &entry.body)?;
        }
        self.ensure_queue(queue).await?;
        match self.batches_of(queue) {
            Batches::Atomic => Ok(()),
            Batches::None => {
                let version = self.connection.server_version();
                Err(unsupported(format!("nats-server {version} or its stream for queue {queue} takes no batches"))
                    .with_hint("needs nats-server 2.12 or later, with allow_atomic on the queue's stream"))
            }
        }
    }

    async fn publish_together(&self, queue: &QueueName, entries: &[Entry], review: &[bool]) -> Result<EnqueuedAll> {
        let batch = format!("{:016x}", rand::random::<u64>());
        let (server, deadline) = (self.connection.server_id(), Instant::now() + 2 * self.connection.request_timeout());
        let mut pause = FIRST_PAUSE;
        // Whether the answer of an earlier attempt was lost.
        let mut ambiguous = false;
        for attempt in 0.. {
            let messages = entries
                .iter()
                .zip(review)
                .map(|(entry, review)| self.job_message(entry, *review || attempt > 0))
                .collect();
            let failure = match self.streams.publish_atomic(&format!("{batch}-{attempt}"), messages).await {
                Ok(()) => return Ok(EnqueuedAll::Stored),
                Err(failure) => failure,
            };
            let taken = matches!(failure, PublishFailure::Conflict | PublishFailure::SubjectTaken);
            ambiguous |= matches!(failure, PublishFailure::Unknown(_));
            if let PublishFailure::NoStream | PublishFailure::Refused(_) = failure {
                // Somebody may have removed the stream, or its option: the next one to use the queue looks again.
                self.forget_queue(queue);
            }
            let again = taken || matches!(failure, PublishFailure::Unknown(_) | PublishFailure::NoStream);
            let mut error = self.streams.publish_error(OPERATION, failure);
            if !again && !ambiguous {
                return Err(error);
            }
            let addresses: Vec<Address> = entries.iter().map(|entry| entry.address.clone()).collect();
            match self.traces(&addresses).await.into_iter().collect::<Result<Vec<_>>>() {
                Ok(traces) if ambiguous => match remnant(entries, &traces, &batch) {
                    Remnant::All if self.connection.server_id() == server => return Ok(EnqueuedAll::Stored),
                    Remnant::All => return self.complete(entries).await,
                    Remnant::Unproven => return Err(self.unknown(error)),
                    Remnant::Nothing if !again => return Err(error),
                    Remnant::Nothing => {}
                },
                Ok(traces) => {
                    if let Some(at) = (0..entries.len()).find(|at| traces[*at].occupy_id(entries[*at].generation)) {
                        return Ok(EnqueuedAll::Taken(at));
                    }
                }
                Err(unseen) => error = unseen,
            }
            if Instant::now() >= deadline {
                return Err(if ambiguous { self.unknown(error) } else { error });
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
            // A stream that was removed meanwhile; while the server is away, the next attempt waits for it.
            if let Err(failed) = self.ensure_queue(queue).await
                && !failed.is_transient()
            {
                return Err(if ambiguous { self.unknown(failed) } else { failed });
            }
        }
        unreachable!("the loop ends at its deadline")
    }

    /// The server died while it wrote the batch, or another one has taken its place: what is missing is stored.
    async fn complete(&self, entries: &[Entry]) -> Result<EnqueuedAll> {
        let mut outcomes: Vec<Option<Result<Enqueued>>> = entries.iter().map(|_| None).collect();
        let lost = StorageError::new(StorageErrorKind::Timeout, OPERATION, "the server was restarted");
        let unsure = (0..entries.len()).map(|at| (at, repeat(&lost, OPERATION))).collect();
        self.resolve(entries, unsure, &mut outcomes).await;
        match outcomes.into_iter().flatten().find_map(Result::err) {
            Some(error) => Err(self.unknown(error)),
            None => Ok(EnqueuedAll::Stored),
        }
    }

    fn unknown(&self, error: StorageError) -> StorageError {
        let kind =
            if self.connection.is_connected() { StorageErrorKind::Timeout } else { StorageErrorKind::Unreachable };
        let location = self.connection.location();
        let detail = format!("NATS at {location} did not say whether the jobs were stored, all or none: {error}");
        StorageError::new(kind, OPERATION, detail).with_source(error)
    }
}

fn remnant(entries: &[Entry], traces: &[Traces], batch: &str) -> Remnant {
    let lives = |(entry, traces): &(&Entry, &Traces)| traces.show_life(entry.generation);
    let ours = |(entry, traces): &(&Entry, &Traces)| {
        let marked = traces.queued.as_ref().and_then(|message| message.headers.get(BATCH));
        // Nobody else stores a job under an id that was generated for this one.
        marked.is_some_and(|id| id.starts_with(batch)) || entry.address.id.is_generated() && lives(&(entry, traces))
    };
    let mut both = entries.iter().zip(traces);
    if both.clone().any(|one| ours(&one)) || both.clone().all(|one| lives(&one)) {
        Remnant::All
    } else if both.any(|one| lives(&one)) {
        Remnant::Unproven
    } else {
        Remnant::Nothing
    }
}

fn unsupported(detail: String) -> StorageError {
    StorageError::new(StorageErrorKind::Unsupported, OPERATION, detail)
        .with_hint("enqueue the jobs one by one or in bulk, each of which is stored for itself")
}
