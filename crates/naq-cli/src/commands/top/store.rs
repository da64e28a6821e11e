//! The store as `naq top` sees it: looks at it, follows its events, does what is asked.
//!
//! Invariant: a store that is away ends nothing; it is told, and tried again. Reading never waits for the screen's keys
//! nor they for it. Does not decide what is shown.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use naq_models::{Event, EventFilter, EventType, QueueName};
use naq_services::{EventService, JobService, StorageError, WorkerRegistry};
use naq_worker::Leader;
use tokio::{
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};

use super::{
    super::{
        job::{cancel_line, receipt_line},
        queue::pause_line,
    },
    model::{Ask, FAILURES_MAX, Message, Snapshot},
    rates::Flow,
};
use crate::{
    args::BY_HAND,
    error::{CliError, with_sources},
    session::Session,
};

/// After events could not be followed, another try is made after so long.
const RETRY: Duration = Duration::from_secs(2);
/// Events that are handed over at a time.
const EVENTS: usize = 1000;
/// A look that takes longer is given up and counts as failed.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// What the list of failures is made of.
const FAILURES: [EventType; 3] = [EventType::Failed, EventType::RetryScheduled, EventType::Requeued];
/// The window of the rates of a single frame.
const WINDOW: Duration = Duration::from_secs(10);

/// The store, and which of its queues are wanted.
#[derive(Debug, Clone)]
pub(super) struct Store {
    jobs: JobService,
    events: Arc<EventService>,
    queues: Vec<QueueName>,
}

impl Store {
    pub(super) async fn open(session: &Session, queues: Vec<QueueName>) -> Result<Self, CliError> {
        Ok(Self { jobs: session.jobs().await?, events: session.services().events().await?, queues })
    }

    /// Where it is.
    pub(super) fn location(&self) -> String {
        self.jobs.storage().info().location
    }

    pub(super) async fn look(&self) -> Result<Snapshot, String> {
        let look = async {
            let mut queues = Vec::new();
            if self.queues.is_empty() {
                queues = self.jobs.queues().await.map_err(|error| with_sources(&error))?;
            }
            for queue in &self.queues {
                queues.push(self.jobs.queue(queue).await.map_err(|error| with_sources(&error))?);
            }
            let storage = self.jobs.storage();
            let failed = |error: StorageError| with_sources(&error);
            let workers = WorkerRegistry::new(storage.clone()).list().await.map_err(failed)?;
            let leader = Leader::look(&**storage).await.map_err(failed)?.map(|leader| leader.holder);
            Ok(Snapshot { now: storage.now().await.map_err(failed)?, queues, workers, leader })
        };
        timeout(LOOK_LIMIT, look).await.unwrap_or_else(|_| Err(format!("no answer within {}s", LOOK_LIMIT.as_secs())))
    }

    /// The newest failures, oldest first.
    pub(super) async fn failures(&self) -> Result<Vec<Event>, StorageError> {
        let filter = EventFilter { types: FAILURES.to_vec(), ..EventFilter::default() };
        Ok(self.events.recent(&filter, FAILURES_MAX).await?.0)
    }

    /// What flowed through all queues of late.
    pub(super) async fn flow(&self) -> Result<Flow, StorageError> {
        let since = self.jobs.storage().now().await?.saturating_sub(WINDOW);
        let stats = self.events.stats(&EventFilter { since: Some(since), ..EventFilter::default() }).await?;
        Ok(Flow::of_rates(&stats.rates))
    }

    /// Looks again and again, one look after the other, sooner when somebody asks for it. Ends when nobody listens.
    pub(super) async fn keep_looking(self, interval: Duration, sooner: Arc<Notify>, told: mpsc::Sender<Message>) {
        loop {
            let message = match self.look().await {
                Ok(snapshot) => Message::Looked(Box::new(snapshot)),
                Err(why) => Message::NotLooked(why),
            };
            if told.send(message).await.is_err() {
                return;
            }
            // Asked for or not: it is time.
            let _elapsed = timeout(interval, sooner.notified()).await;
        }
    }

    /// Follows what happens. Ends when nobody listens.
    pub(super) async fn keep_following(self, told: mpsc::Sender<Message>) {
        while let Err(error) = self.follow(&told).await {
            if told.send(Message::NotFollowed(with_sources(&error))).await.is_err() {
                return;
            }
            sleep(RETRY).await;
        }
    }

    async fn follow(&self, told: &mpsc::Sender<Message>) -> Result<(), StorageError> {
        let types = Flow::types().chain(&FAILURES).cloned().collect();
        let filter = EventFilter { types, ..EventFilter::default() };
        let (_, position) = self.events.recent(&filter, 0).await?;
        let mut stream = self.events.stream(filter, position).await?;
        // Where failures are rare, finding them means to read the whole log.
        let mut earlier = pin!(self.failures().fuse());
        loop {
            let message = tokio::select! {
                failures = &mut earlier => Message::Failed(failures?),
                event = stream.next() => {
                    let mut events = vec![event];
                    while events.len() < EVENTS
                        && let Some(event) = stream.next().now_or_never()
                    {
                        events.push(event);
                    }
                    Message::Happened(events)
                }
            };
            if told.send(message).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Does what was asked; what became of it.
    pub(super) async fn answer(self, ask: Ask) -> Message {
        let jobs = &self.jobs;
        let refused = |error: naq_services::JobServiceError| match error.hint() {
            Some(hint) => format!("{} ({hint})", with_sources(&error)),
            None => with_sources(&error),
        };
        let text = match &ask {
            Ask::History(id) => {
                let found = self.events.history(id).await.map_err(|error| with_sources(&error));
                return Message::History(id.clone(), found);
            }
            Ask::Pause(queue) => jobs.pause(queue).await.map(|changed| pause_line(queue, true, changed)),
            Ask::Resume(queue) => jobs.resume(queue).await.map(|changed| pause_line(queue, false, changed)),
            Ask::Cancel(id) => jobs.cancel(id, BY_HAND).await.map(|outcome| cancel_line(id, outcome)),
            Ask::Retry(id) => jobs.retry(id).await.map(|receipt| receipt_line(&receipt)),
        };
        Message::Answered(text.unwrap_or_else(refused))
    }
}
