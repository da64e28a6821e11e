//! [`EventProcessor`]: code of a user's own that sees events, beside the store.
//!
//! Invariant: a processor can hurt nobody: it has a thread and a bounded queue of its own (over it, its events are
//! dropped), its panics are caught, and at the end it is waited for a bounded time.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use naq_models::event::Event;
use tokio::{sync::watch, time::timeout};

use super::{
    EventSink,
    queue::{EventQueue, Next},
};

/// Events that may wait for a processor.
const MAX_WAITING: usize = 10_000;
/// Events that a processor is given at once.
const MOST_AT_ONCE: usize = 1000;
/// A processor has so long to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Sees the events of this process.
#[async_trait]
pub trait EventProcessor: Send + Sync + 'static {
    /// For logs.
    fn name(&self) -> &str;

    /// Looks at events, in the order in which they were told. Runs on a thread of its own and may block; while it does,
    /// at most 10 000 events wait, and more are dropped. A panic is caught, and costs the events of that call.
    async fn process(&self, events: &[Event]);
}

/// What a processor has not seen yet.
type Waiting = EventQueue<Vec<Event>>;

/// The processors of a service.
#[derive(Default)]
pub(super) struct Processors {
    running: Mutex<Vec<(Arc<Waiting>, watch::Receiver<bool>)>>,
}

impl fmt::Debug for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processors").finish_non_exhaustive()
    }
}

struct Queued(Arc<Waiting>);

impl EventSink for Queued {
    fn record(&self, events: &[Event]) {
        self.0.put(events);
    }
}

impl Processors {
    /// Starts a processor; what is recorded goes to it.
    pub(super) fn start(&self, processor: Arc<dyn EventProcessor>) -> Arc<dyn EventSink> {
        let queue = Arc::new(Waiting::new(MAX_WAITING, 1));
        let (end, ended) = watch::channel(false);
        let taken = Arc::clone(&queue);
        let body = move || {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(serve(&*processor, &taken)),
                Err(error) => tracing::error!(%error, name = processor.name(), "no event loop for a processor"),
            }
            taken.close();
            end.send_replace(true);
        };
        if let Err(error) = std::thread::Builder::new().name("naq-event-processor".to_owned()).spawn(body) {
            tracing::error!(%error, "no thread for a processor of events");
            queue.close();
        }
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push((Arc::clone(&queue), ended));
        Arc::new(Queued(queue))
    }

    /// Lets the processors see what waits, and ends them; those that do not end in time are left behind.
    pub(super) async fn close(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        running.iter().for_each(|(queue, _)| queue.close());
        for (_, mut ended) in running {
            if timeout(CLOSE_LIMIT, ended.wait_for(|ended| *ended)).await.is_err() {
                tracing::warn!("a processor of events did not end in time");
            }
        }
    }
}

async fn serve(processor: &dyn EventProcessor, queue: &Waiting) {
    let mut dropped = 0;
    loop {
        match queue.next(Duration::ZERO, MOST_AT_ONCE) {
            Next::End => return,
            Next::Wait(_) => queue.woken().await,
            Next::Events(events) => {
                if AssertUnwindSafe(async { processor.process(&events).await }).catch_unwind().await.is_err() {
                    tracing::error!(name = processor.name(), "a processor of events panicked; it goes on");
                }
                queue.finished();
            }
        }
        if queue.dropped() > dropped {
            dropped = queue.dropped();
            tracing::warn!(name = processor.name(), dropped, "a processor of events is too slow and misses some");
        }
    }
}
