//! What a killed server leaves behind: acknowledged jobs that are back, and where they may lie.
//!
//! Invariant: only what a lane's consumer has counted as done is removed: the server will never deliver it, but it keeps its
//! address taken. What it counts as claimed is delivered again and found to have ended by review; the boundary says for which
//! deliveries that review is needed. As long as a claim from before the kill is open, what lies above it cannot be judged, so
//! it is looked at again. One by one and by sequence: nats-server 2.9 answers a purge of a lane by forgetting every open claim
//! on it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use naq_models::{Priority, QueueName};
use tokio::{task::JoinSet, time::sleep};

use super::{Shared, ack::ACK, names::Names};
use crate::{
    connection::Outgoing,
    storage::{Bucket, QueueOptions, Result, StorageError, StorageErrorKind},
    streams::{ApiFailure, ConsumerInfo, StreamInfo},
};

/// How long what is known of a server run is kept. A run that lasts longer is recorded anew.
const BOOT_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Positions asked for at once where orphans lie close together.
const WIDTH_MAX: u64 = 256;
/// The last of a lane's positions among which claims of jobs that are gone are looked for: many times what is delivered and
/// acknowledged between two writes of the server to its files.
const RELEASED_MAX: u64 = 10_000;

/// What a worker knows of a queue that an earlier run of the server may have served.
#[derive(Debug)]
pub(super) struct Repaired {
    /// The last message that may have been acknowledged before this run of the server.
    pub(super) boundary: u64,
    /// Goes on where claims from before are open; ends when dropped.
    _rest: JoinSet<()>,
}

impl Shared {
    /// Removes what a killed server left behind, and goes on with that once a lease until nothing can be left.
    pub(super) async fn repair_queue(self: &Arc<Self>, queue: &QueueOptions) -> Result<Repaired> {
        let boundary = self.boundary(&queue.name).await?;
        self.release_dead_claims(&queue.name, boundary).await?;
        let mut rest = JoinSet::new();
        if !self.remove_orphans(&queue.name, boundary).await? {
            let (shared, name, lease) = (Arc::clone(self), queue.name.clone(), queue.lease);
            rest.spawn(async move {
                loop {
                    sleep(lease).await;
                    match shared.remove_orphans(&name, boundary).await {
                        Ok(true) => break,
                        Ok(false) => {}
                        Err(error) => tracing::debug!(queue = %name, %error, "a repair failed, and is tried again"),
                    }
                }
            });
        }
        Ok(Repaired { boundary, _rest: rest })
    }

    /// Removes the orphans of a queue; `true` if none can be left.
    async fn remove_orphans(&self, queue: &QueueName, boundary: u64) -> Result<bool> {
        let failed = |failure| self.streams.error("repair queue", failure);
        let stream = self.names.queue_stream(queue);
        let Some(info) = self.streams.stream_info(&stream).await.map_err(failed)? else { return Ok(true) };
        let mut all = true;
        for priority in Priority::ALL {
            let consumer = Names::lane_consumer(priority);
            let Some(lane) = self.streams.consumer_info(&stream, &consumer).await.map_err(failed)? else { continue };
            // What came after the boundary was stored by this run of the server, and is none that it brought back.
            let floor = self.done_up_to(&info, &lane).min(boundary);
            all &= floor >= boundary.min(lane.delivered.stream_seq);
            if floor < info.state.first_seq || info.state.messages == 0 {
                continue;
            }
            let filter = self.names.lane_filter(queue, priority);
            let orphans = self.between(&stream, &filter, info.state.first_seq, floor).await.map_err(failed)?;
            let removed = orphans.len();
            for deleted in self.streams.delete_all(&stream, orphans.into_iter().collect()).await {
                deleted.map_err(failed)?;
            }
            if removed > 0 {
                tracing::warn!(%queue, %priority, removed, "removed acknowledged jobs that the server had brought back");
            }
        }
        Ok(all)
    }

    /// Up to where a lane's consumer has counted everything as done. 2.9 does not move its floor when it gives up the claims of
    /// messages that are gone; what was delivered and is not claimed was acknowledged.
    fn done_up_to(&self, stream: &StreamInfo, lane: &ConsumerInfo) -> u64 {
        let exact = lane.num_ack_pending > 0 || !self.keeps_dead_claims(stream);
        if exact { lane.ack_floor.stream_seq } else { lane.delivered.stream_seq }
    }

    /// Whether the server may hold claims of messages that are gone for as long as an older message is there. Not where a
    /// stream has copies: the one that answers may not know yet what the others have.
    fn keeps_dead_claims(&self, stream: &StreamInfo) -> bool {
        self.streams.forgets_removals() && stream.config["num_replicas"].as_u64().is_none_or(|copies| copies <= 1)
    }

    /// Acknowledges what a killed server before 2.10 counts as claimed although it is gone: it knows that the message was
    /// removed, and not that it was acknowledged. Such a claim would count against the limit of the lane and hold up the repair.
    async fn release_dead_claims(&self, queue: &QueueName, boundary: u64) -> Result<()> {
        // Where the server is known to have none, nothing is asked.
        if !self.streams.forgets_removals() {
            return Ok(());
        }
        let failed = |failure| self.streams.error("repair queue", failure);
        let stream = self.names.queue_stream(queue);
        let Some(info) = self.streams.stream_info(&stream).await.map_err(failed)? else { return Ok(()) };
        if !self.keeps_dead_claims(&info) {
            return Ok(());
        }
        for priority in Priority::ALL {
            let consumer = Names::lane_consumer(priority);
            let Some(lane) = self.streams.consumer_info(&stream, &consumer).await.map_err(failed)? else { continue };
            let last = boundary.min(lane.delivered.stream_seq);
            let unknown = (lane.ack_floor.stream_seq + 1).max((last + 1).saturating_sub(RELEASED_MAX));
            if lane.num_ack_pending == 0 || unknown > last {
                continue;
            }
            // Of any lane: to acknowledge a position removes what lies there, whoever it is for.
            let there = self.between(&stream, ">", unknown, last).await.map_err(failed)?;
            // Delivery 0 of the consumer moves no floor but that of a claim that is open.
            let gone = (unknown..=last).filter(|sequence| !there.contains(sequence)).map(|sequence| Outgoing {
                subject: format!("$JS.ACK.{stream}.{consumer}.1.{sequence}.0.0.0"),
                headers: None,
                payload: ACK,
            });
            for answer in self.connection.request_all(gone.collect(), self.connection.request_timeout()).await {
                answer.map_err(|failure| failed(failure.into()))?;
            }
        }
        Ok(())
    }

    /// The messages of a subject between two sequences, both included. A work queue cannot be read by another consumer, so
    /// they are asked for: as many positions at once as the last answers were close together.
    async fn between(&self, stream: &str, filter: &str, first: u64, last: u64) -> Result<BTreeSet<u64>, ApiFailure> {
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
