//! Jobs that change without running: ended by a person, started anew, and what a redelivery finds.
//!
//! Order of an end: cancel intent, result, dead letter, key of a chosen id, entries, unique key, intent removed. Of a new
//! life: publish, then remove the dead letter. A crash between any two is finished by the leader (an orphaned intent), by the
//! review of the job's next delivery, or by the same call made again.

use bytes::Bytes;
use naq_models::{Address, JobId, JobStatus};
use serde::{Deserialize, Serialize};

use super::{
    Shared,
    names::{GENERATION, Names, RUN},
    results::{Written, stored_result},
};
use crate::{
    kv_stores::{self, is_live},
    storage::{
        Bucket, Claim, Ended, Ending, Enqueued, Entry, Result, Review, StorageError, StorageErrorKind,
        crash::crash_point,
    },
    streams::{Delivery, PublishFailure, Revisions, StoredMessage},
};

const ATTEMPTS: usize = 4;

/// What a cancel intent holds: enough to finish the cancel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Intent {
    pub(super) address: IntentAddress,
    /// The generation of the life that ends; `None` if its end keeps no result.
    pub(super) generation: Option<u64>,
    /// The unique key that the end frees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unique_key: Option<String>,
}

/// Where the job lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct IntentAddress {
    pub(super) id: JobId,
    pub(super) queue: naq_models::QueueName,
    pub(super) priority: naq_models::Priority,
    pub(super) stored_at: naq_models::Timestamp,
}

impl From<&Address> for IntentAddress {
    fn from(address: &Address) -> Self {
        let Address { id, queue, priority, stored_at } = address.clone();
        Self { id, queue, priority, stored_at }
    }
}

impl From<IntentAddress> for Address {
    fn from(address: IntentAddress) -> Self {
        let IntentAddress { id, queue, priority, stored_at } = address;
        Self { id, queue, priority, stored_at }
    }
}

impl Shared {
    // ---- End -------------------------------------------------------------------------------------------------

    pub(super) async fn end(&self, ending: Ending) -> Result<Ended> {
        let Ending { address, result, dead_letter, unique_key } = ending;
        if let Some(record) = &result {
            self.check_size("end", &record.body)?;
        }
        let generation = result.as_ref().map(|record| record.generation);
        let intent = Intent { address: (&address).into(), generation, unique_key };
        self.write_intent(&intent).await?;
        crash_point("nats.end.intent");
        let mut ended = Ended::Done;
        if let Some(record) = &result {
            let written = self.write_results(&[(&address.id, record)]).await.pop();
            match written.unwrap_or(Ok(Written::Won))? {
                Written::Won => {}
                Written::Lost(first) => {
                    ended = Ended::AlreadyEnded;
                    self.complete_failed(&address, &first).await?;
                }
            }
            crash_point("nats.end.result");
        }
        if let (Some(letter), Ended::Done) = (&dead_letter, ended) {
            self.write_dead(&[(letter, generation.unwrap_or(0))]).await.pop().unwrap_or(Ok(()))?;
            crash_point("nats.end.dead_letter");
        }
        self.finish_end(intent).await?;
        Ok(ended)
    }

    /// The steps after the result, each idempotent.
    pub(super) async fn finish_end(&self, intent: Intent) -> Result<()> {
        let Intent { address, generation, unique_key } = intent;
        let address = &Address::from(address);
        self.release_ids(&[address]).await.pop().unwrap_or(Ok(()))?;
        crash_point("nats.end.id");
        self.remove_entries(address, generation).await?;
        if let Some(key) = &unique_key {
            self.release_keys(&[(key.as_str(), &address.id)]).await.pop().unwrap_or(Ok(()))?;
            crash_point("nats.end.key");
        }
        let bucket = self.names.bucket(Bucket::Control);
        self.kv.delete(&bucket, &Names::cancel_key(&address.id), None).await?;
        crash_point("nats.end.done");
        Ok(())
    }

    async fn write_intent(&self, intent: &Intent) -> Result<()> {
        let value: Bytes = serde_json::to_vec(intent).expect("an intent holds only names and numbers").into();
        let bucket = self.names.bucket(Bucket::Control);
        match self.kv.create(&bucket, &Names::cancel_key(&intent.address.id), value, None).await {
            // Somebody cancels the same job; both finish the same steps.
            Err(error) if error.kind() == StorageErrorKind::Conflict => Ok(()),
            other => other.map(drop),
        }
    }

    /// Removes a job of a life that has ended from its queue and from the scheduled store. A later life stays.
    async fn remove_entries(&self, address: &Address, generation: Option<u64>) -> Result<()> {
        let traces = self.traces(std::slice::from_ref(address)).await.pop();
        let Some(traces) = traces.transpose()? else { return Ok(()) };
        let of_this_life = |message: &StoredMessage| {
            generation.is_none_or(|generation| message.headers.number(GENERATION).unwrap_or(0) <= generation)
        };
        if let Some(job) = traces.queued.filter(of_this_life) {
            let stream = self.names.queue_stream(&address.queue);
            let removed = self.streams.delete(&stream, job.sequence).await;
            removed.map_err(|failure| self.streams.error("end", failure))?;
            crash_point("nats.end.queue");
        }
        if let Some(waiting) = traces.scheduled.filter(of_this_life) {
            let removed = self.remove_scheduled(vec![(&address.id, Revisions::of(&waiting))]).await;
            removed.into_iter().collect::<Result<Vec<_>>>()?;
            crash_point("nats.end.scheduled");
        }
        Ok(())
    }

    // ---- A new life ------------------------------------------------------------------------------------------

    pub(super) async fn requeue(&self, entry: Entry) -> Result<Enqueued> {
        let id = &entry.address.id;
        self.check_size("requeue", &entry.body)?;
        let letter = self.dead_message_of(id).await?;
        let result = self.get_result(id).await?;
        let ended_since = result.as_ref().is_some_and(|result| result.revision > entry.generation);
        // The life that ends here must be visible: otherwise another call has begun the new one, and it may have ended.
        let visible = letter.is_some() || result.is_some_and(|result| result.revision == entry.generation);
        if ended_since || !visible {
            self.remove_old_letter(letter, entry.generation, ended_since).await?;
            return Ok(Enqueued::Duplicate);
        }
        if entry.status == JobStatus::Pending {
            self.ensure_queue(&entry.address.queue).await?;
        }
        if !self.hold_id(&entry.address).await? {
            return Ok(Enqueued::Duplicate);
        }
        crash_point("nats.requeue.id");
        let stored = if entry.status == JobStatus::Pending {
            self.publish_run(&entry, "requeue").await?
        } else {
            // Whatever run of an earlier life may be left there is superseded.
            self.write_scheduled(&[&entry]).await.pop().unwrap_or(Ok(()))?;
            Placed::Now
        };
        crash_point("nats.requeue.published");
        self.remove_old_letter(letter, entry.generation, false).await?;
        crash_point("nats.requeue.done");
        Ok(if stored == Placed::Now { Enqueued::Stored } else { Enqueued::Duplicate })
    }

    /// Removes the letter of the life before; where the new life has ended, only if the letter is not the new one's.
    async fn remove_old_letter(&self, letter: Option<StoredMessage>, generation: u64, ended: bool) -> Result<()> {
        let Some(letter) = letter else { return Ok(()) };
        let of_before = letter.headers.number::<u64>(GENERATION).unwrap_or(0) < generation;
        if !ended || of_before {
            self.remove_dead(&letter).await?;
        }
        Ok(())
    }

    /// Puts one run of a job into its queue. What holds its address is compared by `run`: the same run is this one; a
    /// lower one was superseded (its acknowledgement is on its way or got lost) and makes room; a higher one stays.
    pub(super) async fn publish_run(&self, entry: &Entry, operation: &'static str) -> Result<Placed> {
        let Address { id, queue, priority, .. } = &entry.address;
        let (stream, subject) = (self.names.queue_stream(queue), self.names.job(queue, *priority, id));
        let failed = |failure| self.streams.error(operation, failure);
        let mut last_failure = None;
        for attempt in 0..ATTEMPTS {
            match self.streams.publish(self.job_message(entry, true)).await {
                Ok(_) => return Ok(Placed::Now),
                Err(PublishFailure::SubjectTaken) => {}
                Err(PublishFailure::Unknown(failure)) => last_failure = Some(failed(failure.into())),
                Err(PublishFailure::NoStream) => {
                    last_failure = Some(self.streams.publish_error(operation, PublishFailure::NoStream));
                    self.forget_queue(queue);
                    self.ensure_queue(queue).await?;
                }
                Err(failure) => return Err(self.streams.publish_error(operation, failure)),
            }
            let Some(holder) = self.streams.last_message(&stream, &subject).await.map_err(failed)? else { continue };
            let run: u32 = holder.headers.number(RUN).unwrap_or(1);
            match run.cmp(&entry.run) {
                std::cmp::Ordering::Equal if last_failure.is_some() => return Ok(Placed::Now),
                std::cmp::Ordering::Equal => return Ok(Placed::Before),
                std::cmp::Ordering::Greater => return Ok(Placed::Later),
                std::cmp::Ordering::Less => {
                    self.streams.delete(&stream, holder.sequence).await.map_err(failed)?;
                    crash_point("nats.publish.superseded");
                }
            }
            if attempt > 0 {
                tokio::task::yield_now().await;
            }
        }
        Err(last_failure.unwrap_or_else(|| {
            StorageError::new(StorageErrorKind::Timeout, operation, format!("the address of job {id} keeps changing"))
        }))
    }

    // ---- Redelivery ------------------------------------------------------------------------------------------

    pub(super) async fn review(&self, claim: &Claim) -> Result<Review> {
        let id = &claim.address.id;
        let now = self.now("review").await?;
        let delivered = Delivery::parse(&claim.lease.token).map_or(1, |delivery| delivery.delivered);
        let control = self.names.bucket(Bucket::Control);
        let mut what = vec![
            (self.names.results_stream(), self.names.result(id)),
            (self.names.scheduled_stream(), self.names.scheduled(id)),
        ];
        if delivered > 1 {
            what.push((kv_stores::stream_name(&control), kv_stores::subject(&control, &Names::hand_back_key(id))));
        }
        let mut found = self.streams.last_messages(what).await.into_iter();
        let mut next = || {
            let found = found.next().unwrap_or(Ok(None));
            found.map_err(|failure| self.streams.error("review", failure))
        };
        let result = next()?.filter(|result| is_live(result, now));
        let scheduled_run = next()?.and_then(|entry| entry.headers.number(RUN));
        let excuse = next()?.filter(|excuse| is_live(excuse, now));
        let excused =
            excuse.and_then(|excuse| std::str::from_utf8(&excuse.payload).ok()?.parse::<u64>().ok()).unwrap_or(0);
        Ok(Review {
            result: result.map(|message| stored_result(id.clone(), message)),
            scheduled_run,
            suspect: delivered > 1 && delivered - 1 > excused,
        })
    }
}

/// Where a run of a job was found after it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// This call stored it.
    Now,
    /// It was there.
    Before,
    /// A later run is there.
    Later,
}
