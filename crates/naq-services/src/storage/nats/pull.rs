//! The puller: one per worker, raw pull requests per lane, no task and no subscription per job.
//!
//! Invariant: outstanding pulls never exceed the demand that they were made under, and end by themselves after
//! [`PULL`], so that a lowered demand or a close takes effect without losing a message on its way. A pull that does not
//! end in time, a missing consumer and a reconnect make the queue be prepared anew. A lane of which it is not known whether
//! it has anything is asked without waiting, so that "empty" means that the server said so.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_nats::{Message, Subscriber};
use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use naq_models::{Address, Priority};
use serde_json::json;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    Shared,
    names::{Names, REVIEW},
    repair::Repaired,
    running,
};
use crate::{
    storage::{
        Claim, Consumer, ConsumerEvent, ConsumerOptions, Demand, Lane, Lease, QueueOptions, Result, StorageError,
        StorageErrorKind, uptime,
    },
    streams::{Delivery, header, nanos},
};

/// How long a pull waits at the server. Short, because it cannot be taken back; long enough to cost nothing when idle.
const PULL: Duration = Duration::from_secs(2);
/// How much later than its end a pull's answer may come.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where the number of claims is at its limit the server does not answer a pull that does not wait; this one waits so long.
const SHORT_PULL: Duration = Duration::from_millis(20);
/// A limit that workers together do not reach but for moments, in which such an answer is only late.
const LIMIT_FAR: u32 = 10_000;
/// Outstanding pulls of one lane; the server has 4 096 places per lane for all workers.
const PULLS_MAX: usize = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Between two reports of trouble.
const TROUBLE_EVERY: Duration = Duration::from_secs(1);
/// The client's buffer is full or there is no connection: looked at again after this.
const RETRY_SEND: Duration = Duration::from_millis(10);
/// Claims handed out in one event.
const BATCH_MAX: usize = 1024;
/// Room that is made for them at first.
const CLAIMS_USUAL: usize = 64;

const LANES: usize = Priority::ALL.len();

/// A worker's consumer.
pub(super) struct Puller {
    shared: Arc<Shared>,
    options: ConsumerOptions,
    queues: Vec<QueueState>,
    /// Queue by queue, priority by priority.
    lanes: Vec<LaneState>,
    inbox: String,
    messages: Subscriber,
    pulls_made: u64,
    lane_of_pull: HashMap<u64, usize>,
    preparing: JoinSet<(usize, Result<Repaired>)>,
    reconnects: watch::Receiver<u64>,
    retry_send: Option<Instant>,
    last_trouble: Option<Instant>,
    ready: VecDeque<ConsumerEvent>,
    /// Answers who runs what; ends with this consumer.
    _responder: JoinSet<()>,
}

#[derive(Debug)]
enum QueueState {
    Preparing,
    /// Messages at or below the boundary may have been delivered before the server was killed.
    Ready(Repaired),
    Paused {
        until: Instant,
    },
}

#[derive(Debug, Default)]
struct LaneState {
    want: usize,
    pulls: VecDeque<Pull>,
    /// The server has nothing more of it: a pull waits there, or the last one ended for want of jobs.
    empty: bool,
    /// That was reported, and it has delivered nothing since.
    reported: bool,
    pause_until: Option<Instant>,
}

#[derive(Debug)]
struct Pull {
    number: u64,
    left: usize,
    probe: bool,
    /// When it was sent, as [`uptime`]: nothing that it brings was delivered before.
    sent: Duration,
    overdue: Instant,
}

impl LaneState {
    fn outstanding(&self) -> usize {
        self.pulls.iter().map(|pull| pull.left).sum()
    }
}

impl Puller {
    pub(super) async fn open(shared: Arc<Shared>, options: ConsumerOptions) -> Result<Self> {
        let failed = |failure: crate::connection::RequestFailure| shared.streams.error("open consumer", failure.into());
        let reconnects = shared.connection.reconnects();
        let inbox = shared.connection.new_inbox();
        let messages = shared.connection.subscribe(format!("{inbox}.*")).await.map_err(failed)?;
        let mut responder = JoinSet::new();
        let questions = shared.connection.subscribe(shared.names.running()).await.map_err(failed)?;
        responder.spawn(running::answer(shared.connection.clone(), questions, Arc::clone(&options.running)));
        let mut puller = Self {
            queues: options.queues.iter().map(|_| QueueState::Preparing).collect(),
            lanes: options.queues.iter().flat_map(|_| Priority::ALL).map(|_| LaneState::default()).collect(),
            inbox,
            messages,
            pulls_made: 0,
            lane_of_pull: HashMap::new(),
            preparing: JoinSet::new(),
            reconnects,
            retry_send: None,
            last_trouble: None,
            ready: VecDeque::new(),
            _responder: responder,
            shared,
            options,
        };
        // The first preparation is awaited, so that a queue that cannot be served is an error of opening.
        for index in 0..puller.queues.len() {
            let repaired = puller.shared.prepare_queue(&puller.options.queues[index]).await?;
            puller.queues[index] = QueueState::Ready(repaired);
        }
        Ok(puller)
    }

    fn prepare(&mut self, queue: usize) {
        self.queues[queue] = QueueState::Preparing;
        let (shared, options) = (Arc::clone(&self.shared), self.options.queues[queue].clone());
        self.preparing.spawn(async move {
            shared.forget_queue(&options.name);
            (queue, shared.prepare_queue(&options).await)
        });
    }

    fn prepared(&mut self, queue: usize, outcome: Result<Repaired>) {
        match outcome {
            Ok(repaired) => self.queues[queue] = QueueState::Ready(repaired),
            Err(error) => {
                self.queues[queue] = QueueState::Paused { until: Instant::now() + LONGEST_PAUSE / 5 };
                // The others need not wait for a queue that cannot be served.
                for lane in &mut self.lanes[queue * LANES..][..LANES] {
                    lane.empty = true;
                }
                self.trouble(error);
                self.report_empty();
            }
        }
    }

    fn trouble(&mut self, error: StorageError) {
        if self.last_trouble.is_none_or(|last| last.elapsed() >= TROUBLE_EVERY) {
            self.last_trouble = Some(Instant::now());
            self.ready.push_back(ConsumerEvent::Trouble(error));
        }
    }

    // ---- Asking ----------------------------------------------------------------------------------------------

    /// Makes the pulls that the demand asks for.
    fn pull(&mut self) {
        self.retry_send = None;
        let now = Instant::now();
        for index in 0..self.lanes.len() {
            let queue = index / LANES;
            match self.queues[queue] {
                QueueState::Paused { until } if until <= now => self.prepare(queue),
                QueueState::Ready(_) => {
                    if !self.pull_lane(index, now) {
                        self.retry_send = Some(now + RETRY_SEND);
                        return;
                    }
                }
                QueueState::Paused { .. } | QueueState::Preparing => {}
            }
        }
    }

    /// Makes the next pull of a lane if one is due; `false` if it could not be sent now.
    fn pull_lane(&mut self, index: usize, now: Instant) -> bool {
        let lane = &self.lanes[index];
        let outstanding = lane.outstanding();
        let need = lane.want.saturating_sub(outstanding);
        let probing = lane.pulls.iter().any(|pull| pull.probe);
        let enough = outstanding > 0 && need < lane.want.div_ceil(4);
        if need == 0 || enough || probing || lane.pulls.len() >= PULLS_MAX || lane.pause_until.is_some_and(|p| p > now)
        {
            return true;
        }
        let probe = !lane.empty;
        let queue = &self.options.queues[index / LANES];
        let limited = queue.max_ack_pending.is_some_and(|limit| limit < LIMIT_FAR);
        let (expires, body) = match (probe, limited) {
            (true, false) => (Duration::ZERO, json!({ "batch": need, "no_wait": true })),
            (true, true) => (SHORT_PULL, json!({ "batch": need, "expires": nanos(SHORT_PULL) })),
            (false, _) => {
                let wait = PULL.min(queue.lease / 4);
                (wait, json!({ "batch": need, "expires": nanos(wait) }))
            }
        };
        let number = self.pulls_made;
        let (stream, consumer) =
            (self.shared.names.queue_stream(&queue.name), Names::lane_consumer(Priority::ALL[index % LANES]));
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let reply = format!("{}.{number}", self.inbox);
        let sent = uptime();
        let passed_on = self.shared.connection.publish(subject, Some(reply), body.to_string().into()).now_or_never();
        if !matches!(passed_on, Some(Ok(()))) {
            return false;
        }
        self.pulls_made += 1;
        self.lane_of_pull.insert(number, index);
        let overdue = now + expires + PATIENCE;
        self.lanes[index].pulls.push_back(Pull { number, left: need, probe, sent, overdue });
        true
    }

    /// When something has to be done even if nothing arrives.
    fn next_alarm(&self) -> Instant {
        let now = Instant::now();
        let overdue = self.lanes.iter().filter_map(|lane| lane.pulls.front()).map(|pull| pull.overdue);
        let paused = self.queues.iter().filter_map(|queue| match queue {
            QueueState::Paused { until } => Some(*until),
            _ => None,
        });
        let pauses = self.lanes.iter().filter(|lane| lane.want > 0).filter_map(|lane| lane.pause_until);
        let pauses = pauses.filter(|until| *until > now);
        overdue.chain(paused).chain(pauses).chain(self.retry_send).min().unwrap_or(now + LONGEST_PAUSE)
    }

    fn check_overdue(&mut self) {
        let now = Instant::now();
        for index in 0..self.lanes.len() {
            if self.lanes[index].pulls.front().is_some_and(|pull| pull.overdue <= now) {
                let name = self.options.queues[index / LANES].name.clone();
                self.void_pulls(index / LANES);
                self.trouble(StorageError::new(
                    StorageErrorKind::Timeout,
                    "claim",
                    format!("NATS at {} does not answer pulls of queue {name}", self.shared.connection.location()),
                ));
                self.prepare(index / LANES);
            }
        }
    }

    /// Forgets the pulls of a queue; what they still bring is taken all the same.
    fn void_pulls(&mut self, queue: usize) {
        for lane in &mut self.lanes[queue * LANES..][..LANES] {
            for pull in lane.pulls.drain(..) {
                self.lane_of_pull.remove(&pull.number);
            }
            lane.empty = false;
        }
    }

    fn reconnected(&mut self) {
        for queue in 0..self.queues.len() {
            self.void_pulls(queue);
            if !matches!(self.queues[queue], QueueState::Preparing) {
                self.prepare(queue);
            }
        }
    }

    // ---- Answers ---------------------------------------------------------------------------------------------

    /// Takes what has arrived: claims in one event, statuses as they are.
    fn take(&mut self, first: Message) {
        let mut claims = Vec::with_capacity(CLAIMS_USUAL);
        let mut next = Some(first);
        while let Some(message) = next {
            match message.status {
                Some(_) => self.status(&message),
                None => claims.extend(self.claim(message)),
            }
            if claims.len() == BATCH_MAX {
                break;
            }
            next = self.messages.next().now_or_never().flatten();
        }
        if !claims.is_empty() {
            self.ready.push_back(ConsumerEvent::Claimed(claims));
        }
        self.report_empty();
    }

    fn claim(&mut self, message: Message) -> Option<Claim> {
        let read = message.reply.as_deref().and_then(|reply| Some((Delivery::parse(reply)?, reply)));
        let place = read.as_ref().and_then(|(delivery, _): &(Delivery, _)| {
            self.shared.names.read_delivered(&message.subject, delivery.stream_seq)
        });
        let queue = place
            .as_ref()
            .and_then(|(name, ..)| self.options.queues.iter().position(|queue| queue.name.as_str() == *name));
        let (Some((delivery, reply)), Some((_, priority, id)), Some(queue)) = (read, place, queue) else {
            // Cannot come from these streams: their subjects are exactly the lanes.
            tracing::warn!(subject = %message.subject, "a message that is no job arrived and is left alone");
            return None;
        };
        let since = self.delivered(queue * LANES + usize::from(priority.get()));
        let boundary = match &self.queues[queue] {
            QueueState::Ready(repaired) => repaired.boundary,
            // Whether it was delivered before is not known.
            _ => u64::MAX,
        };
        let doubtful = delivery.delivered > 1 || delivery.stream_seq <= boundary || header(&message, REVIEW).is_some();
        let QueueOptions { name, lease, .. } = &self.options.queues[queue];
        Some(Claim {
            lease: Lease { id: id.clone(), token: Arc::from(reply), since, duration: *lease },
            lane: Lane { queue, priority },
            address: Address { id, queue: name.clone(), priority, stored_at: delivery.time },
            body: message.payload,
            doubtful,
        })
    }

    /// Counts a delivery; when it can have been made at the earliest.
    fn delivered(&mut self, index: usize) -> Duration {
        let lane = &mut self.lanes[index];
        lane.want = lane.want.saturating_sub(1);
        lane.reported = false;
        // The server serves the pulls of a consumer in order.
        let Some(pull) = lane.pulls.front_mut() else { return Duration::ZERO };
        let since = pull.sent;
        pull.left -= 1;
        if pull.left == 0 {
            self.lane_of_pull.remove(&pull.number);
            lane.pulls.pop_front();
            // Whether there is more than it could bring, the next one tells.
            lane.empty = lane.pulls.iter().any(|pull| !pull.probe);
        }
        since
    }

    fn status(&mut self, message: &Message) {
        let number = message.subject.rsplit_once('.').and_then(|(_, number)| number.parse::<u64>().ok());
        let Some(index) = number.and_then(|number| self.lane_of_pull.get(&number).copied()) else { return };
        let code = message.status.map_or(0, |status| status.as_u16());
        if code == 100 {
            return;
        }
        let lane = &mut self.lanes[index];
        if let Some(at) = lane.pulls.iter().position(|pull| Some(pull.number) == number)
            && let Some(pull) = lane.pulls.remove(at)
        {
            self.lane_of_pull.remove(&pull.number);
        }
        let text = message.description.clone().unwrap_or_default();
        match code {
            404 | 408 => lane.empty = true,
            409 if !text.contains("Deleted") => {
                // There may be jobs, but none that the server would hand out now.
                lane.empty = true;
                lane.pause_until = Some(Instant::now() + FIRST_PAUSE);
            }
            _ => self.lost_consumer(index / LANES, code, &text),
        }
    }

    /// The consumer is not there: deleted, not yet back after a restart, or without a leader.
    fn lost_consumer(&mut self, queue: usize, code: u16, text: &str) {
        let QueueState::Ready(_) = self.queues[queue] else { return };
        self.void_pulls(queue);
        self.queues[queue] = QueueState::Paused { until: Instant::now() + FIRST_PAUSE };
        let name = &self.options.queues[queue].name;
        let location = self.shared.connection.location();
        let detail =
            format!("NATS at {location} has no consumer for queue {name} ({code} {text}); it will be made again");
        self.trouble(StorageError::new(StorageErrorKind::Unreachable, "claim", detail));
    }

    /// Tells of lanes of the demand that have become empty.
    fn report_empty(&mut self) {
        let mut empty = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if lane.want > 0 && lane.empty && !lane.reported {
                lane.reported = true;
                empty.push(Lane { queue: index / LANES, priority: Priority::ALL[index % LANES] });
            }
        }
        if !empty.is_empty() {
            self.ready.push_back(ConsumerEvent::Empty(empty));
        }
    }
}

enum Wake {
    Message(Option<Message>),
    Prepared(usize, Result<Repaired>),
    Reconnected,
    Alarm,
}

impl Puller {
    async fn wake(&mut self) -> Wake {
        if let Some(message) = self.messages.next().now_or_never() {
            return Wake::Message(message);
        }
        let alarm = self.next_alarm();
        tokio::select! {
            message = self.messages.next() => Wake::Message(message),
            Some(prepared) = self.preparing.join_next() => match prepared {
                Ok((queue, outcome)) => Wake::Prepared(queue, outcome),
                // Preparing does not panic and is not aborted; the alarm tries again.
                Err(_) => Wake::Alarm,
            },
            Ok(()) = self.reconnects.changed() => Wake::Reconnected,
            () = tokio::time::sleep_until(alarm) => Wake::Alarm,
        }
    }

    async fn handle_next(&mut self) {
        match self.wake().await {
            Wake::Message(Some(message)) => self.take(message),
            Wake::Message(None) => {
                // The connection was closed for good.
                self.trouble(StorageError::new(StorageErrorKind::Closed, "claim", "the store is closed"));
                tokio::time::sleep(TROUBLE_EVERY).await;
            }
            Wake::Prepared(queue, outcome) => self.prepared(queue, outcome),
            Wake::Reconnected => self.reconnected(),
            Wake::Alarm => self.check_overdue(),
        }
    }
}

#[async_trait]
impl Consumer for Puller {
    fn demand(&mut self, demand: Demand) {
        let unasked: Vec<bool> = self.lanes.iter().map(|lane| lane.want == 0).collect();
        for lane in &mut self.lanes {
            lane.want = 0;
        }
        for (Lane { queue, priority }, count) in demand.lanes {
            if let Some(lane) = self.lanes.get_mut(queue * LANES + usize::from(priority.get())) {
                lane.want = count;
            }
        }
        for (lane, unasked) in self.lanes.iter_mut().zip(unasked) {
            lane.empty = if unasked { lane.pulls.iter().any(|pull| !pull.probe) } else { lane.empty };
            lane.reported = false;
        }
        self.report_empty();
    }

    async fn next(&mut self) -> ConsumerEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            self.pull();
            self.handle_next().await;
        }
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        self.demand(Demand::default());
        self.preparing.shutdown().await;
        let deadline = Instant::now() + PULL + PATIENCE;
        while self.lanes.iter().any(|lane| !lane.pulls.is_empty()) && self.shared.connection.is_connected() {
            let message = tokio::time::timeout_at(deadline, self.messages.next()).await;
            let Ok(Some(message)) = message else { break };
            self.take(message);
        }
        while let Some(message) = self.messages.next().now_or_never().flatten() {
            self.take(message);
        }
        let claims = self.ready.drain(..).filter_map(|event| match event {
            ConsumerEvent::Claimed(claims) => Some(claims),
            _ => None,
        });
        let leases: Vec<Lease> = claims.flatten().map(|claim| claim.lease).collect();
        if leases.is_empty() { Ok(()) } else { self.shared.hand_back(leases).await }
    }
}
