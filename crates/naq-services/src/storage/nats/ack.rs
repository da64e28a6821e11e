//! Acknowledgements, hand-backs and extensions: what is said to the subject that a delivery came with.
//!
//! Invariant: an acknowledgement is the last step of every move. Where a result or a scheduled entry was confirmed, it is
//! sent without waiting: a lost one makes a redelivery, which finds that entry and does not run (two to three times the
//! rate of confirmed ones). Without such a record it is confirmed, because it is all that keeps the job from running
//! again; as a consumer takes acknowledgements in their order, the confirmation of the last of a batch is that of all, unless
//! the connection was lost on the way. It names a message and not a claim, so it is never sent by whoever lost the lease and did not win the result.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use naq_models::JobId;

use super::{Shared, lease, names::Names};
use crate::{
    connection::{Outgoing, RequestFailure},
    kv_stores::{self, KvStoreService},
    storage::{Bucket, Heartbeat, Lease, LeaseState, Result, crash::crash_point, uptime},
    streams::{Delivery, StreamService},
};

pub(super) const ACK: Bytes = Bytes::from_static(b"+ACK");
const NAK: Bytes = Bytes::from_static(b"-NAK");
const EXTEND: Bytes = Bytes::from_static(b"+WPI");
/// How long an excuse for a hand-back is kept, if the job is not claimed before.
const EXCUSED_FOR: Duration = Duration::from_secs(24 * 3600);

impl Shared {
    /// Acknowledges without waiting for the server.
    pub(super) async fn acknowledge(&self, leases: &[&Lease]) -> Vec<Result<()>> {
        let messages = leases.iter().map(|lease| say(lease, ACK)).collect();
        let sent = self.connection.publish_all(messages).await;
        sent.into_iter().map(|sent| sent.map_err(|failure| self.streams.error("settle", failure.into()))).collect()
    }

    /// Acknowledges, and returns when the server has confirmed.
    pub(super) async fn acknowledge_confirmed(&self, leases: &[&Lease]) -> Vec<Result<()>> {
        let consumers: Vec<_> = leases.iter().map(|lease| Delivery::origin(&lease.token)).collect();
        let last: HashMap<_, usize> = consumers.iter().copied().zip(0..).collect();
        let (last, before): (Vec<usize>, Vec<usize>) = (0..leases.len()).partition(|at| last[&consumers[*at]] == *at);
        let of = |which: Vec<usize>| which.into_iter().map(|at| leases[at]).collect::<Vec<_>>();
        let reconnects = self.connection.reconnects();
        // One that cannot be sent now is sent again below: the connection is gone.
        let _sent = self.acknowledge(&of(before)).await;
        let confirmed = self.confirm(&of(last)).await;
        if confirmed.iter().any(Result::is_err) || reconnects.has_changed().unwrap_or(true) {
            return self.confirm(leases).await;
        }
        leases.iter().map(|_| Ok(())).collect()
    }

    /// Acknowledges each with an answer of its own.
    async fn confirm(&self, leases: &[&Lease]) -> Vec<Result<()>> {
        let requests = leases.iter().map(|lease| say(lease, ACK)).collect();
        let answers = self.connection.request_all(requests, self.connection.request_timeout()).await;
        let confirmed = |answer: std::result::Result<_, RequestFailure>| match answer {
            Ok(_) => Ok(()),
            Err(failure) => Err(self.streams.error("settle", failure.into())),
        };
        answers.into_iter().map(confirmed).collect()
    }

    pub(super) async fn hand_back(&self, mut leases: Vec<Lease>) -> Result<()> {
        // To the server the hand-back of a lost lease would be that of whoever has the job now.
        leases.retain(|lease| self.confirmations.holds(lease));
        if leases.is_empty() {
            return Ok(());
        }
        let delivered = |lease: &Lease| Delivery::parse(&lease.token).map(|delivery| delivery.delivered);
        let deliveries: Vec<(&JobId, u64)> =
            leases.iter().filter_map(|lease| Some((&lease.id, delivered(lease)?))).collect();
        self.excuse(&deliveries).await;
        crash_point("nats.hand_back.excused");
        let messages = leases.iter().map(|lease| say(lease, NAK)).collect();
        for sent in self.connection.publish_all(messages).await {
            sent.map_err(|failure| self.streams.error("hand back", failure.into()))?;
        }
        crash_point("nats.hand_back.given");
        self.flush("hand back").await
    }

    /// Returns when the server has taken everything sent so far.
    async fn flush(&self, operation: &'static str) -> Result<()> {
        // An answer to anything proves that the server has read what was sent before it.
        match self.streams.consumer_info(&self.names.dead_stream(), "none").await {
            Ok(_) => Ok(()),
            Err(failure) => Err(self.streams.error(operation, failure)),
        }
    }

    /// Records that the deliveries of jobs so far are no sign of a dead worker. Written before the hand-back, so that the
    /// next delivery finds it. One that cannot be written costs the job a look that finds nothing: it counts as suspect.
    async fn excuse(&self, deliveries: &[(&JobId, u64)]) {
        let bucket = self.names.bucket(Bucket::Control);
        let messages = deliveries.iter().map(|(id, delivered)| Outgoing {
            subject: kv_stores::subject(&bucket, &Names::hand_back_key(id)),
            headers: Some(kv_stores::life(EXCUSED_FOR)),
            payload: delivered.to_string().into(),
        });
        let answers = self.streams.publish_all(Box::new(messages)).await;
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        if failed > 0 {
            tracing::warn!(failed, "jobs are handed back without an excuse; they will be taken for suspects");
        }
    }
}

fn say(lease: &Lease, what: Bytes) -> Outgoing {
    Outgoing { subject: lease.token.to_string(), headers: None, payload: what }
}

/// The heartbeat: a connection that carries nothing else.
#[derive(Debug)]
pub(super) struct Beat {
    streams: StreamService,
    kv: KvStoreService,
    shared: Arc<Shared>,
}

impl Beat {
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self> {
        let name = format!("{} heartbeat", shared.options.connection.client_name);
        let connection = shared.connection.another(name).await?;
        let streams = StreamService::new(connection);
        Ok(Self { kv: shared.kv.over(streams.clone()), streams, shared })
    }

    /// Which of these jobs are still in their queues. Asked after the extension and with a bound of its own, because the
    /// API may be slow when extensions are not; what is not answered counts as there.
    async fn are_there(&self, leases: &[&Lease], bound: Duration) -> Vec<bool> {
        let calls: Vec<_> = leases
            .iter()
            .map(|lease| {
                let names = &self.shared.names;
                let (queue, priority) = lease::lane(lease, names)?;
                Some((names.queue_stream(&queue), names.job(&queue, priority, &lease.id)))
            })
            .collect();
        let asked = self.streams.have_subjects(calls.iter().flatten().cloned().collect());
        let Ok(found) = tokio::time::timeout(bound, asked).await else { return vec![true; leases.len()] };
        let mut found = found.into_iter();
        calls.iter().map(|call| call.is_none() || found.next().flatten() != Some(false)).collect()
    }
}

#[async_trait]
impl Heartbeat for Beat {
    async fn extend(&self, leases: &[Lease]) -> Vec<LeaseState> {
        let Some(shortest) = leases.iter().map(|lease| lease.duration).min() else { return Vec::new() };
        let mut states: Vec<LeaseState> = leases
            .iter()
            .map(|lease| if self.shared.confirmations.holds(lease) { LeaseState::Unknown } else { LeaseState::Lost })
            .collect();
        let held: Vec<usize> = (0..leases.len()).filter(|index| states[*index] == LeaseState::Unknown).collect();
        let requests = held.iter().map(|index| say(&leases[*index], EXTEND)).collect();
        let (bound, sent) = (shortest / 4, uptime());
        // What was answered within the bound counts, whatever else is still open then.
        let answers = self.streams.connection().request_all_within(requests, bound).await;
        for (index, answer) in held.into_iter().zip(answers) {
            states[index] = match answer {
                Ok(_) => LeaseState::Held,
                // The consumer is gone, and with it every claim it gave.
                Err(RequestFailure::NoResponders) => LeaseState::Lost,
                Err(_) => LeaseState::Unknown,
            };
        }
        let held: Vec<usize> = (0..leases.len()).filter(|index| states[*index] == LeaseState::Held).collect();
        self.shared.confirmations.confirm(held.iter().map(|index| &leases[*index]), sent);
        let there = self.are_there(&held.iter().map(|index| &leases[*index]).collect::<Vec<_>>(), shortest / 12).await;
        for (index, there) in held.into_iter().zip(there) {
            if !there {
                states[index] = LeaseState::Lost;
            }
        }
        states
    }
    async fn put(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        let bucket = self.shared.bucket_for(bucket, Some(ttl));
        self.kv.replace(&bucket, key, value, ttl).await
    }
}
