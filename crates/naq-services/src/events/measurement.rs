//! [`Measurement`]: numbers about this process that are told beside events.
//!
//! Invariant: told on the same hook as events, made only if somebody listens, kept nowhere. What an event says already is
//! not said here a second time.

use std::{sync::Arc, time::Duration};

/// A number of this process that no event carries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Measurement {
    /// A worker asked the store to extend leases.
    LeasesExtended {
        /// Extended.
        held: usize,
        /// Taken by somebody else, or run out: their jobs are stopped.
        lost: usize,
        /// The store did not answer for them; they are asked for again.
        unknown: usize,
    },
    /// The store answered a batch of settlements.
    Settled {
        /// Jobs in the batch, refused ones included.
        jobs: usize,
        /// The round trip.
        took: Duration,
    },
    /// The leader moved jobs into their queues because their time had come.
    Fired {
        /// How many.
        jobs: usize,
        /// How long after its due time the latest of them was there.
        late: Duration,
    },
    /// What a worker is busy with, several times a second.
    Slots {
        /// The worker.
        worker_id: Arc<str>,
        /// Jobs that it runs at once; 0 says that it has ended.
        slots: usize,
        /// Jobs whose handlers run.
        running: usize,
    },
}
