//! What a worker is told: [`WorkerOptions`], [`QueueSpec`], [`SchedulerOptions`].
//!
//! Invariant: plain data with defaults; relations are checked when the worker is built. Reads no configuration.

use std::{convert::Infallible, fmt, num::NonZeroU32, str::FromStr, time::Duration};

use naq_models::{NameError, QueueName, WireFormat};

/// A queue that a worker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// Its name.
    pub name: QueueName,
    /// Its share of the worker, relative to the others'. If no queue of a worker has one, queues are served strictly in
    /// their order; if any has one, those without count as 1.
    pub weight: Option<NonZeroU32>,
    /// How long a claimed job may go without a heartbeat; [`WorkerOptions::lease`] if `None`. At least one second.
    pub lease: Option<Duration>,
    /// At most so many jobs of the queue are claimed at once by all workers together; `None` for no limit.
    pub max_ack_pending: Option<u32>,
    /// Whether this worker, for now, claims nothing from it; see [`Adjustable::paused`](crate::Adjustable).
    pub paused: bool,
}

impl QueueSpec {
    /// A queue without a weight or limits of its own, not paused.
    #[must_use]
    pub fn new(name: QueueName) -> Self {
        Self { name, weight: None, lease: None, max_ack_pending: None, paused: false }
    }
}

impl From<QueueName> for QueueSpec {
    fn from(name: QueueName) -> Self {
        Self::new(name)
    }
}

/// Why a text is no [`QueueSpec`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueSpecError {
    /// The part before the colon is no queue name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The part after the colon is no weight.
    #[error("{weight:?} is not a weight; write QUEUE:WEIGHT with a whole number of at least 1, for example mail:3")]
    Weight {
        /// What was given.
        weight: String,
    },
}

/// A queue that is given as one cannot be wrong.
impl From<Infallible> for QueueSpecError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl TryFrom<&str> for QueueSpec {
    type Error = QueueSpecError;

    fn try_from(text: &str) -> Result<Self, QueueSpecError> {
        text.parse()
    }
}

impl FromStr for QueueSpec {
    type Err = QueueSpecError;

    /// Reads `QUEUE` or `QUEUE:WEIGHT`.
    fn from_str(text: &str) -> Result<Self, QueueSpecError> {
        let (name, weight) = match text.split_once(':') {
            None => (text, None),
            Some((name, weight)) => {
                let bad = |_| QueueSpecError::Weight { weight: weight.chars().take(64).collect() };
                (name, Some(weight.parse::<NonZeroU32>().map_err(bad)?))
            }
        };
        Ok(Self { weight, ..Self::new(QueueName::new(name)?) })
    }
}

impl fmt::Display for QueueSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        self.weight.map_or(Ok(()), |weight| write!(f, ":{weight}"))
    }
}

/// How a worker behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerOptions {
    /// How long a claimed job may go without a heartbeat before another worker gets it. At least one second.
    pub lease: Duration,
    /// How often the worker says in the list of workers that it is alive.
    pub heartbeat_interval: Duration,
    /// How long after its last sign of life it stays in that list; longer than `heartbeat_interval`.
    pub ttl: Duration,
    /// How long running jobs may go on after a request to stop, before they are handed back.
    pub shutdown_timeout: Duration,
    /// How long a handler has to end after its token has fired, before it is abandoned.
    pub timeout_grace: Duration,
    /// The longest timeout that is granted, whatever the job asks for; `None` for no limit.
    pub max_job_duration: Option<Duration>,
    /// A suspect that has been started and lost with its worker so many times becomes a dead letter. At least 1.
    pub max_crashes: u32,
    /// How jobs are written when they wait for their next run.
    pub wire_format: WireFormat,
    /// Whether the worker ends when nothing is pending, due or running in its queues.
    pub burst: bool,
    /// Whether, and how, this worker takes part in firing what is due.
    pub scheduler: Option<SchedulerOptions>,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(15),
            ttl: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(30),
            timeout_grace: Duration::from_secs(10),
            max_job_duration: None,
            max_crashes: 3,
            wire_format: WireFormat::Json,
            burst: false,
            scheduler: Some(SchedulerOptions::default()),
        }
    }
}

/// How the loop that fires what is due behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// How long the leader's lock outlives its holder. The holder's own value counts.
    pub lock_ttl: Duration,
    /// How often the holder renews the lock; at most half of `lock_ttl`.
    pub lock_renew_interval: Duration,
    /// The longest time between two looks for what is due; changes are noticed at once.
    pub scan_interval: Duration,
    /// How often the leader sweeps what has expired.
    pub sweep_interval: Duration,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            lock_ttl: Duration::from_secs(10),
            lock_renew_interval: Duration::from_secs(3),
            scan_interval: Duration::from_secs(1),
            sweep_interval: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_queue_and_weight() {
        let spec: QueueSpec = "mail:3".parse().unwrap();
        assert_eq!((spec.name.as_str(), spec.weight.map(NonZeroU32::get)), ("mail", Some(3)));
        assert_eq!("low".parse::<QueueSpec>().unwrap().weight, None);
        for text in ["mail:0", "mail:", "mail:-1", "mail:x", "mail:1:2"] {
            assert!(matches!(text.parse::<QueueSpec>(), Err(QueueSpecError::Weight { .. })), "{text}");
        }
        assert!(matches!("a b:1".parse::<QueueSpec>(), Err(QueueSpecError::Name(_))));
    }
}
