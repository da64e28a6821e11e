//! What a killed server leaves behind: acknowledged jobs that are back, and where they may lie.
//!
//! Invariant: only what is at or below a lane's acknowledgement floor is removed: the server has counted it as done and will
//! never deliver it, but it keeps its address taken. What lies above is delivered again and found to have ended by review;
//! the boundary says for which deliveries that review is needed. One by one and by sequence: nats-server 2.9 answers a
//! purge of a lane by forgetting every open claim on it.

use std::{collections::BTreeSet, time::Duration};

use naq_models::{Priority, QueueName};

use super::{Shared, names::Names};
use crate::{
    storage::{Bucket, Result, StorageError, StorageErrorKind},
    streams::ApiFailure,
};

/// How long what is known of a server run is kept. A run that lasts longer is recorded anew.
const BOOT_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Positions asked for at once where orphans lie close together.
const WIDTH_MAX: u64 = 256;

impl Shared {
    /// Removes the orphans of a queue.
    pub(super) async fn repair_floor(&self, queue: &QueueName) -> Result<()> {
        let failed = |failure| self.streams.error("repair queue", failure);
        let stream = self.names.queue_stream(queue);
        let Some(info) = self.streams.stream_info(&stream).await.map_err(failed)? else { return Ok(()) };
        for priority in Priority::ALL {
            let lane = self.streams.consumer_info(&stream, &Names::lane_consumer(priority)).await.map_err(failed)?;
            let floor = lane.map_or(0, |lane| lane.ack_floor.stream_seq);
            if floor < info.state.first_seq || info.state.messages == 0 {
                continue;
            }
            let filter = self.names.lane_filter(queue, priority);
            let orphans = self.up_to(&stream, &filter, info.state.first_seq, floor).await.map_err(failed)?;
            let removed = orphans.len();
            for deleted in self.streams.delete_all(&stream, orphans.into_iter().collect()).await {
                deleted.map_err(failed)?;
            }
            if removed > 0 {
                tracing::warn!(%queue, %priority, removed, "removed acknowledged jobs that the server had brought back");
            }
        }
        Ok(())
    }

    /// The messages of a lane between two sequences, both included. A work queue cannot be read by another consumer, so
    /// they are asked for: as many positions at once as the last answers were close together.
    async fn up_to(&self, stream: &str, filter: &str, first: u64, last: u64) -> Result<BTreeSet<u64>, ApiFailure> {
        let mut found = BTreeSet::new();
        let (mut from, mut width) = (first, 1);
        while from <= last {
            let positions = (from..=last.min(from + width - 1)).collect::<Vec<_>>();
            let asked = positions.len();
            let mut here = BTreeSet::new();
            for message in self.streams.next_messages(stream, filter, positions).await {
                here.extend(message?.map(|message| message.sequence));
            }
            width = if here.len() == asked { (2 * width).min(WIDTH_MAX) } else { 1 };
            let Some(furthest) = here.last() else { break };
            from = furthest + 1;
            found.extend(here.into_iter().filter(|sequence| *sequence <= last));
        }
        Ok(found)
    }

    /// The last message of a queue when this run of the server was first seen by any process. What lies at or below it
    /// may have been delivered, and even acknowledged, before the server was killed.
    pub(super) async fn boundary(&self, queue: &QueueName) -> Result<u64> {
        let bucket = self.names.bucket(Bucket::Control);
        let key = Names::boot_key(queue, &self.connection.server_id());
        let read = |value: &[u8]| std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
        for _ in 0..3 {
            if let Some(entry) = self.kv.get(&bucket, &key).await? {
                return read(&entry.value).ok_or_else(|| {
                    StorageError::new(StorageErrorKind::Corrupt, "open queue", format!("{bucket}/{key} is no number"))
                });
            }
            let info = self.streams.stream_info(&self.names.queue_stream(queue)).await;
            let last =
                info.map_err(|failure| self.streams.error("open queue", failure))?.map_or(0, |i| i.state.last_seq);
            match self.kv.create(&bucket, &key, last.to_string().into(), Some(BOOT_TTL)).await {
                Ok(_) => return Ok(last),
                Err(error) if error.kind() == StorageErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::new(StorageErrorKind::Timeout, "open queue", format!("{bucket}/{key} keeps changing")))
    }
}
