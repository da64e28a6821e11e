//! Looking at jobs and queues without changing them.
//!
//! Invariant: a job that moves is seen: places are read in the order in which jobs leave them (scheduled, queue, scheduled
//! again, dead letters, result), and "not found" is said after two rounds. Reads go to the streams' leaders.

use std::collections::BTreeMap;

use naq_models::{Address, JobId, JobStatus, Priority, QueueName, Timestamp};

use super::{
    Shared,
    names::{Names, QUEUE, STATUS},
    results::stored_result,
    scheduled::Waiting,
};
use crate::{
    jobs::PAUSE_PREFIX,
    kv_stores::{self, is_live},
    storage::{Bucket, QueueStats, Result, Sighting, StorageError, StorageErrorKind},
    streams::StoredMessage,
};

const ROUNDS: usize = 2;
/// Messages of a paused queue that are looked at one by one; of more, those handed back count as running.
const HANDED_BACK_MAX: usize = 200;

impl Shared {
    pub(super) async fn get_job(&self, id: &JobId) -> Result<Vec<Sighting>> {
        for _ in 0..ROUNDS {
            let seen = self.look_for(id).await?;
            if !seen.is_empty() {
                return Ok(seen);
            }
        }
        Err(StorageError::new(StorageErrorKind::NotFound, "get job", format!("there is no job {id}")))
    }

    pub(super) async fn look_for(&self, id: &JobId) -> Result<Vec<Sighting>> {
        let failed = |failure| self.streams.error("get job", failure);
        let scheduled_at = (self.names.scheduled_stream(), self.names.scheduled(id));
        let mut scheduled = self.streams.last_message(&scheduled_at.0, &scheduled_at.1).await.map_err(failed)?;
        let queues = self.queues().await?;
        let places = queues.iter().map(|q| (self.names.queue_stream(q), self.names.job_anywhere(q, id))).collect();
        let mut seen = Vec::new();
        for found in self.streams.last_messages(places).await {
            if let Some(message) = found.map_err(failed)? {
                seen.extend(self.queued(message));
            }
        }
        let places = vec![
            scheduled_at,
            (self.names.dead_stream(), self.names.dead_anywhere(id)),
            (self.names.results_stream(), self.names.result(id)),
        ];
        let mut found = self.streams.last_messages(places).await.into_iter();
        let mut next = || found.next().unwrap_or(Ok(None)).map_err(failed);
        let (later, dead, result) = (next()?, next()?, next()?);
        scheduled = later.or(scheduled);
        seen.extend(scheduled.and_then(|m| Waiting::read(id.clone(), m)).map(|w| Sighting::Scheduled(w.entry)));
        if let Some(letter) = dead {
            seen.push(Sighting::Dead(self.read_dead_letter(letter)?));
        }
        let now = self.now("get job").await?;
        seen.extend(result.filter(|r| is_live(r, now)).map(|r| Sighting::Ended(stored_result(id.clone(), r))));
        self.add_running(&mut seen).await;
        Ok(seen)
    }

    /// A message of a queue as what it is.
    pub(super) fn queued(&self, message: StoredMessage) -> Option<Sighting> {
        let (queue, priority, id) = self.names.read_job(&message.subject)?;
        let address = Address { id, queue, priority, stored_at: message.time };
        Some(Sighting::Queued { address, body: message.payload, running: None })
    }

    /// Fills in who runs the queued jobs among these.
    pub(super) async fn add_running(&self, seen: &mut [Sighting]) {
        let mut queues: Vec<QueueName> = Vec::new();
        let mut ids = Vec::new();
        for sighting in seen.iter() {
            if let Sighting::Queued { address, .. } = sighting {
                if !queues.contains(&address.queue) {
                    queues.push(address.queue.clone());
                }
                ids.push(&address.id);
            }
        }
        let mut found = self.who_runs(&queues, &ids).await;
        for sighting in seen {
            if let Sighting::Queued { address, running, .. } = sighting {
                *running = found.remove(&address.id);
            }
        }
    }

    // ---- Numbers ---------------------------------------------------------------------------------------------

    pub(super) async fn queue_stats(&self, queue: Option<&QueueName>) -> Result<Vec<QueueStats>> {
        let mut stats: BTreeMap<QueueName, QueueStats> = BTreeMap::new();
        let names = match queue {
            Some(queue) => vec![queue.clone()],
            None => self.queues().await?,
        };
        for name in names {
            let numbers = self.lane_numbers(&name).await?;
            stats.insert(name, numbers);
        }
        self.count_scheduled(queue, &mut stats).await?;
        self.count_dead(queue, &mut stats).await?;
        Ok(stats.into_values().collect())
    }

    /// What the lanes of a queue say. To the server a message that was handed back is claimed until it is claimed again.
    async fn lane_numbers(&self, queue: &QueueName) -> Result<QueueStats> {
        let failed = |failure| self.streams.error("queue stats", failure);
        let mut stats = QueueStats::empty(queue.clone());
        let mut delivered = Vec::new();
        let stream = self.names.queue_stream(queue);
        for (index, priority) in Priority::ALL.into_iter().enumerate() {
            let lane = self.streams.consumer_info(&stream, &Names::lane_consumer(priority)).await.map_err(failed)?;
            let Some(lane) = lane else { continue };
            stats.pending[index] = lane.num_pending;
            stats.running += lane.num_ack_pending;
            if lane.num_ack_pending > 0 {
                delivered.push((priority, lane.delivered.stream_seq));
            }
            if lane.num_pending > 0 {
                let filter = self.names.lane_filter(queue, priority);
                let oldest = self.streams.next_message(&stream, &filter, lane.delivered.stream_seq + 1).await;
                let stored_at: Option<Timestamp> = oldest.map_err(failed)?.map(|message| message.time);
                stats.oldest_pending = [stats.oldest_pending, stored_at].into_iter().flatten().min();
            }
        }
        if (1..=HANDED_BACK_MAX as u64).contains(&stats.running) {
            self.count_handed_back(&mut stats, &delivered).await?;
        }
        Ok(stats)
    }

    /// Counts as pending what workers handed back when its queue was paused: there it may lie for long. `delivered` says
    /// how far each lane has been handed out.
    async fn count_handed_back(&self, stats: &mut QueueStats, delivered: &[(Priority, u64)]) -> Result<()> {
        let failed = |failure| self.streams.error("queue stats", failure);
        let paused = format!("{PAUSE_PREFIX}{}", stats.queue);
        if self.kv.get(&self.names.bucket(Bucket::Control), &paused).await?.is_none() {
            return Ok(());
        }
        let stream = self.names.queue_stream(&stats.queue);
        let mut held = Vec::new();
        for &(priority, last) in delivered {
            let filter = self.names.lane_filter(&stats.queue, priority);
            let mut from = 1;
            while let Some(message) = self.streams.next_message(&stream, &filter, from).await.map_err(failed)?
                && message.sequence <= last
                && held.len() < HANDED_BACK_MAX
            {
                from = message.sequence + 1;
                held.extend(self.names.read_job(&message.subject).map(|(.., id)| (priority, id, message.time)));
            }
        }
        let run = self.ask_all(&held.iter().map(|(_, id, _)| id).collect::<Vec<_>>()).await;
        for (priority, _, stored_at) in held.iter().filter(|(_, id, _)| !run.contains_key(id)) {
            stats.pending[usize::from(priority.get())] += 1;
            stats.running = stats.running.saturating_sub(1);
            stats.oldest_pending = [stats.oldest_pending, Some(*stored_at)].into_iter().flatten().min();
        }
        Ok(())
    }

    async fn count_scheduled(
        &self,
        only: Option<&QueueName>,
        stats: &mut BTreeMap<QueueName, QueueStats>,
    ) -> Result<()> {
        let filter = kv_stores::subject(&self.names.scheduled_bucket(), ">");
        let entries = self.streams.all(&self.names.scheduled_stream(), &filter, true).await;
        for entry in entries.map_err(|failure| self.streams.error("queue stats", failure))? {
            let queue = entry.headers.get(QUEUE).and_then(|name| QueueName::new(name).ok());
            let Some(queue) = queue.filter(|queue| only.is_none_or(|only| only == queue)) else { continue };
            let numbers = stats.entry(queue.clone()).or_insert_with(|| QueueStats::empty(queue));
            match entry.headers.get(STATUS).and_then(|status| status.parse::<JobStatus>().ok()) {
                Some(JobStatus::Retry) => numbers.retry += 1,
                Some(JobStatus::Waiting) => numbers.waiting += 1,
                _ => numbers.scheduled += 1,
            }
        }
        Ok(())
    }

    async fn count_dead(&self, only: Option<&QueueName>, stats: &mut BTreeMap<QueueName, QueueStats>) -> Result<()> {
        let failed = |failure| self.streams.error("queue stats", failure);
        let stream = self.names.dead_stream();
        if let Some(queue) = only {
            let count = self.streams.count(&stream, &self.names.all_dead(Some(queue))).await.map_err(failed)?;
            stats.entry(queue.clone()).or_insert_with(|| QueueStats::empty(queue.clone())).failed = count;
            return Ok(());
        }
        for letter in self.streams.all(&stream, &self.names.all_dead(None), true).await.map_err(failed)? {
            if let Some((queue, _)) = self.names.read_dead(&letter.subject) {
                stats.entry(queue.clone()).or_insert_with(|| QueueStats::empty(queue)).failed += 1;
            }
        }
        Ok(())
    }
}
