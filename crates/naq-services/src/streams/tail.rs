//! [`Tail`]: a stream followed live: what it holds, or what it holds after a sequence, then every new message.
//!
//! Invariant: no gap goes unnoticed. A lost connection, a missing message or a silent server begins it anew, and says so
//! with [`TailEvent::Restart`], so that the follower forgets what it knew. Removals make no message and are not seen.

use std::{collections::VecDeque, future::Future, pin::Pin, time::Duration};

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{ApiFailure, StoredMessage, StreamService, header, scan::nanos};
use crate::connection::RequestFailure;

const HEARTBEAT: Duration = Duration::from_secs(5);
/// Three heartbeats in a row must be missed.
const SILENCE: Duration = Duration::from_secs(16);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a tail reports.
#[derive(Debug)]
pub(crate) enum TailEvent {
    /// It begins, or begins anew: the state follows.
    Restart,
    Message(StoredMessage),
    /// Everything that was there at the last restart has been reported.
    Current,
}

/// A stream followed live.
pub(crate) struct Tail {
    streams: StreamService,
    stream: String,
    filter: String,
    headers_only: bool,
    begin: Begin,
    state: State,
    pause: Duration,
    reconnects: watch::Receiver<u64>,
    ready: VecDeque<TailEvent>,
}

/// Where a tail begins, and begins anew.
#[derive(Debug, Clone, Copy)]
enum Begin {
    /// With what it holds.
    Everything,
    /// With the first message after this sequence; when it begins anew, after the last one that it reported.
    After(u64),
}

enum State {
    Paused(Instant),
    Opening(Pin<Box<dyn Future<Output = Result<Live, ApiFailure>> + Send>>),
    Live(Live),
}

struct Live {
    messages: Subscriber,
    last_seen: u64,
    /// Messages left until the state at the start is complete.
    catching_up: Option<u64>,
    last_sign: Instant,
}

impl Tail {
    pub(crate) fn new(streams: StreamService, stream: String, filter: String, headers_only: bool) -> Self {
        Self::begin(streams, stream, filter, headers_only, Begin::Everything)
    }

    /// A tail that begins after a sequence and reports each message once, also when it begins anew.
    pub(crate) fn after(streams: StreamService, stream: String, filter: String, sequence: u64) -> Self {
        Self::begin(streams, stream, filter, false, Begin::After(sequence))
    }

    fn begin(streams: StreamService, stream: String, filter: String, headers_only: bool, begin: Begin) -> Self {
        let reconnects = streams.connection().reconnects();
        Self {
            streams,
            stream,
            filter,
            headers_only,
            begin,
            state: State::Paused(Instant::now()),
            pause: FIRST_PAUSE,
            reconnects,
            ready: VecDeque::new(),
        }
    }

    /// The next event. Waits while there is none.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is taken out before it is returned.
    pub(crate) async fn next(&mut self) -> TailEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                if let (Begin::After(sequence), TailEvent::Message(message)) = (&mut self.begin, &event) {
                    *sequence = message.sequence;
                }
                return event;
            }
            match &mut self.state {
                State::Paused(until) => {
                    tokio::time::sleep_until(*until).await;
                    let consumer = consumer(&self.filter, self.headers_only, self.begin);
                    let open = open(self.streams.clone(), self.stream.clone(), consumer);
                    self.reconnects.mark_unchanged();
                    self.state = State::Opening(Box::pin(open));
                }
                State::Opening(opening) => match opening.await {
                    Ok(live) => {
                        self.ready.push_back(TailEvent::Restart);
                        if live.catching_up.is_none() {
                            self.ready.push_back(TailEvent::Current);
                        }
                        self.state = State::Live(live);
                    }
                    Err(failure) => {
                        tracing::debug!(stream = self.stream, %failure, "cannot follow the stream yet");
                        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                        self.state = State::Paused(Instant::now() + self.pause);
                    }
                },
                State::Live(live) => {
                    let message = tokio::select! {
                        message = live.messages.next() => message,
                        Ok(()) = self.reconnects.changed() => None,
                        () = tokio::time::sleep_until(live.last_sign + SILENCE) => None,
                    };
                    let kept = match message {
                        Some(message) => live.take(message, &self.streams, &mut self.ready),
                        None => false,
                    };
                    if kept {
                        self.pause = FIRST_PAUSE;
                    } else {
                        self.state = State::Paused(Instant::now() + self.pause);
                    }
                }
            }
        }
    }
}

impl Live {
    /// Handles one message; `false` if something is missing before it.
    fn take(&mut self, message: async_nats::Message, streams: &StreamService, ready: &mut VecDeque<TailEvent>) -> bool {
        self.last_sign = Instant::now();
        if message.status.is_some() {
            let last = header(&message, "Nats-Last-Consumer").and_then(|text| text.parse::<u64>().ok());
            let stalled = header(&message, "Nats-Consumer-Stalled").map(str::to_owned);
            let idle = message.reply.is_none() && stalled.is_none();
            if let Some(reply) = message.reply.map(|reply| reply.to_string()).or(stalled) {
                answer_flow_control(streams, reply);
            }
            let complete = last.is_none_or(|last| last <= self.last_seen);
            // An idle server has sent all there was, even if some of it was removed before it was sent.
            if idle && complete && self.catching_up.take().is_some() {
                ready.push_back(TailEvent::Current);
            }
            return complete;
        }
        let Some((message, delivery)) = StoredMessage::delivered(message) else { return true };
        if delivery.consumer_seq != self.last_seen + 1 {
            return false;
        }
        self.last_seen = delivery.consumer_seq;
        ready.push_back(TailEvent::Message(message));
        if let Some(left) = &mut self.catching_up {
            *left = left.saturating_sub(1);
            if *left == 0 || delivery.pending == 0 {
                self.catching_up = None;
                ready.push_back(TailEvent::Current);
            }
        }
        true
    }
}

/// Lets the server send on. If it cannot be sent now the server stalls, is found silent, and the tail begins anew.
fn answer_flow_control(streams: &StreamService, reply: String) {
    use futures_util::FutureExt;
    let sent = streams.connection().publish(reply, None, Bytes::new()).now_or_never();
    if !matches!(sent, Some(Ok(()))) {
        tracing::debug!("flow control was not answered");
    }
}

fn consumer(filter: &str, headers_only: bool, begin: Begin) -> Value {
    let mut config = json!({
        // Every stream that is followed from its beginning keeps one message of a subject. To look for the last one of each
        // takes nats-server 2.9 longer than any patience where there are a million.
        "deliver_policy": "all",
        "ack_policy": "none",
        "filter_subject": filter,
        "headers_only": headers_only,
        "flow_control": true,
        "idle_heartbeat": nanos(HEARTBEAT),
        "mem_storage": true,
        "num_replicas": 1,
        "inactive_threshold": nanos(SILENCE * 2),
    });
    if let Begin::After(sequence) = begin {
        config["deliver_policy"] = json!("by_start_sequence");
        config["opt_start_seq"] = json!(sequence.saturating_add(1));
    }
    config
}

async fn open(streams: StreamService, stream: String, mut consumer: Value) -> Result<Live, ApiFailure> {
    let inbox = streams.connection().new_inbox();
    let messages = streams.connection().subscribe(inbox.clone()).await.map_err(|_| RequestFailure::Closed)?;
    consumer["deliver_subject"] = json!(inbox);
    let made = streams.create_ephemeral(&stream, consumer).await?;
    let waiting = made.num_pending;
    Ok(Live { messages, last_seen: 0, catching_up: (waiting > 0).then_some(waiting), last_sign: Instant::now() })
}
