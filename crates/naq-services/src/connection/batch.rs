//! Many requests at once, answered to an inbox of their own.
//!
//! Invariant: an inbox serves one batch at a time and numbers its questions on from batch to batch, so that an answer that
//! comes late is not taken for one of the next batch. A request by itself is the client's own kind, which costs an
//! allocation, an entry in a table and a wake-up.

use std::{
    pin::pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, Message, PublishError, PublishErrorKind, Request, RequestErrorKind, StatusCode, Subscriber};
use futures_util::{FutureExt, StreamExt};
use tokio::{sync::Semaphore, time::Instant};

use super::{ConnectionService, Outgoing, RequestFailure};

/// Requests in flight at once of one batch. Throughput levels off at about 2 000 (one connection, local server).
pub(super) const WINDOW: usize = 2048;
/// Inboxes that are kept for the next batches; a worker settles at most four at once.
const IDLE_MAX: usize = 8;

/// Inboxes that no batch uses now.
#[derive(Debug, Default)]
pub(super) struct Inboxes(Mutex<Vec<Inbox>>);

#[derive(Debug)]
struct Inbox {
    /// With the dot before the number.
    prefix: String,
    answers: Subscriber,
    /// The number of the next question.
    next: u64,
}

impl Inboxes {
    async fn take(&self, client: &Client) -> Result<Inbox, RequestFailure> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(inbox) = idle {
            return Ok(inbox);
        }
        let prefix = format!("{}.", client.new_inbox());
        let answers = client.subscribe(format!("{prefix}*")).await.map_err(|_| RequestFailure::Closed)?;
        Ok(Inbox { prefix, answers, next: 0 })
    }

    fn give_back(&self, inbox: Inbox) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(inbox);
        }
    }
}

/// Requests that are made when there is room for them. Boxed, because the compiler loses the lifetimes of a bare iterator that is
/// kept over a wait.
pub(crate) type Requests<'a> = Box<dyn ExactSizeIterator<Item = Outgoing> + Send + 'a>;
pub(crate) type Answer = Result<Message, RequestFailure>;

/// The answers of one batch, as far as they have come. Each is read at once: while the others are on their way nothing else
/// is to be done, and a message is large to keep.
struct Answers<T, R> {
    /// The number of the first question.
    first: u64,
    /// How long the inbox's prefix is.
    prefix: usize,
    read: R,
    found: Vec<Option<T>>,
    open: usize,
}

impl<T, R: Fn(Answer) -> T> Answers<T, R> {
    /// `false` if the question was settled before: the answer to one of which the connection was lost.
    fn settle(&mut self, index: usize, answer: Answer) -> bool {
        let Some(slot @ None) = self.found.get_mut(index) else { return false };
        *slot = Some((self.read)(answer));
        self.open -= 1;
        true
    }

    fn take(&mut self, message: Message) -> bool {
        let number = message.subject.get(self.prefix..).and_then(|number| number.parse::<u64>().ok());
        let index = number.and_then(|number| usize::try_from(number.checked_sub(self.first)?).ok());
        let nobody = message.status == Some(StatusCode::NO_RESPONDERS);
        index.is_some_and(|index| {
            self.settle(index, if nobody { Err(RequestFailure::NoResponders) } else { Ok(message) })
        })
    }
}

impl ConnectionService {
    /// Sends requests in order, [`WINDOW`] of them unanswered at once, until all are answered, `end` has come, or nothing was
    /// heard for `silence`.
    pub(super) async fn send_all<T>(
        &self,
        mut requests: Requests<'_>,
        read: impl Fn(Answer) -> T,
        silence: Duration,
        end: Option<Instant>,
    ) -> Vec<T> {
        if self.is_closed() {
            // The client drains yet, and may answer or fail in another way.
            return requests.map(|_| read(Err(RequestFailure::Closed))).collect();
        }
        if requests.len() < 2 {
            let Some(request) = requests.next() else { return Vec::new() };
            return vec![read(self.send_one(request, end.map_or(silence, |end| end - Instant::now())).await)];
        }
        let Ok(mut inbox) = self.inner.inboxes.take(&self.inner.client).await else {
            return requests.map(|_| read(Err(RequestFailure::Closed))).collect();
        };
        let answers = self.exchange(&mut inbox, requests, read, silence, end).await;
        self.inner.inboxes.give_back(inbox);
        answers
    }

    async fn send_one(&self, request: Outgoing, patience: Duration) -> Answer {
        let mut reconnects = self.reconnects();
        tokio::select! {
            biased;
            answer = answer(&self.inner.client, request) => answer,
            Ok(()) = reconnects.changed() => Err(RequestFailure::Disconnected),
            () = self.closed().cancelled() => Err(RequestFailure::Closed),
            () = tokio::time::sleep(patience) => Err(RequestFailure::Timeout(patience)),
        }
    }

    async fn exchange<T>(
        &self,
        inbox: &mut Inbox,
        requests: Requests<'_>,
        read: impl Fn(Answer) -> T,
        silence: Duration,
        end: Option<Instant>,
    ) -> Vec<T> {
        let Inbox { prefix, answers: arriving, next } = inbox;
        let (first, count) = (*next, requests.len());
        *next += count as u64;
        let mut answers = Answers { first, prefix: prefix.len(), read, found: Vec::new(), open: count };
        answers.found.resize_with(count, || None);
        let sent = Sent { room: Semaphore::new(WINDOW), upto: AtomicUsize::new(0), refused: Mutex::default() };
        // With a budget, tokio would let the batch wait a turn after every 128 messages.
        let mut sending =
            pin!(tokio::task::unconstrained(send(&self.inner.client, prefix, first, requests, &sent)).fuse());
        let mut all_sent = false;
        let mut reconnects = self.reconnects();
        let mut last_answer = Instant::now();
        let mut alarm = pin!(tokio::time::sleep(silence));
        let failure = loop {
            if answers.open == 0 {
                break RequestFailure::Disconnected;
            }
            // Every branch is cancel safe; `sending` goes on where it was.
            tokio::select! {
                biased;
                Ok(()) = reconnects.changed() => {
                    // What was sent may or may not have arrived.
                    let open = answers.open;
                    for index in 0..sent.upto.load(Ordering::Relaxed) {
                        answers.settle(index, Err(RequestFailure::Disconnected));
                    }
                    sent.room.add_permits(open - answers.open);
                }
                () = &mut sending, if !all_sent => {
                    all_sent = true;
                    for (index, failure) in sent.refused.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                        answers.settle(index, Err(failure));
                    }
                }
                arrived = arriving.next() => {
                    let Some(message) = arrived else { break RequestFailure::Closed };
                    let mut settled = usize::from(answers.take(message));
                    while let Some(Some(message)) = arriving.next().now_or_never() {
                        settled += usize::from(answers.take(message));
                    }
                    sent.room.add_permits(settled);
                    last_answer = Instant::now();
                }
                () = self.closed().cancelled() => break RequestFailure::Closed,
                () = alarm.as_mut() => {
                    let due = end.unwrap_or(last_answer + silence);
                    if Instant::now() >= due {
                        break RequestFailure::Timeout(silence);
                    }
                    alarm.as_mut().reset(due);
                }
            }
        };
        let Answers { found, read, .. } = answers;
        found.into_iter().map(|answer| answer.unwrap_or_else(|| read(Err(failure.again())))).collect()
    }
}

/// How far a batch has been sent.
struct Sent {
    /// For further messages.
    room: Semaphore,
    /// The client has taken all before this one.
    upto: AtomicUsize,
    /// What the client did not take.
    refused: Mutex<Vec<(usize, RequestFailure)>>,
}

async fn send(client: &Client, prefix: &str, first: u64, requests: Requests<'_>, sent: &Sent) {
    for (index, request) in requests.enumerate() {
        // The semaphore is never closed; a permit comes back with the answer.
        if let Ok(permit) = sent.room.acquire().await {
            permit.forget();
        }
        let reply = format!("{prefix}{}", first + index as u64);
        let Outgoing { subject, headers, payload } = request;
        let taken = match headers {
            Some(headers) => client.publish_with_reply_and_headers(subject, reply, headers, payload).await,
            None => client.publish_with_reply(subject, reply, payload).await,
        };
        sent.upto.store(index + 1, Ordering::Relaxed);
        if let Err(error) = taken {
            sent.room.add_permits(1);
            sent.refused.lock().unwrap_or_else(PoisonError::into_inner).push((index, refusal(error)));
        }
    }
}

pub(super) fn refusal(error: PublishError) -> RequestFailure {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => RequestFailure::TooLarge,
        PublishErrorKind::Send => RequestFailure::Closed,
        PublishErrorKind::InvalidSubject => RequestFailure::Client(error.into()),
    }
}

async fn answer(client: &Client, request: Outgoing) -> Answer {
    // Whoever waits has a clock for it, so the request itself has none.
    let mut sent = Request::new().payload(request.payload).timeout(None);
    if let Some(headers) = request.headers {
        sent = sent.headers(headers);
    }
    client.send_request(request.subject, sent).await.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => RequestFailure::NoResponders,
        RequestErrorKind::MaxPayloadExceeded => RequestFailure::TooLarge,
        RequestErrorKind::TimedOut => RequestFailure::Disconnected,
        _ => RequestFailure::Client(error.into()),
    })
}

impl RequestFailure {
    /// The same for another request of the batch.
    fn again(&self) -> Self {
        match self {
            Self::Timeout(time) => Self::Timeout(*time),
            Self::Closed => Self::Closed,
            _ => Self::Disconnected,
        }
    }
}
