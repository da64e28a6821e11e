//! [`Clock`]: the time of the server that leads a stream, without asking it each time.
//!
//! Invariant: never the wall clock of this host. Between measurements it runs on a monotonic clock that, where the
//! system has one, counts suspension; its error is half a round trip plus the drift of ten seconds.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use naq_models::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiFailure, StreamService, nanos};

const MAX_AGE: Duration = Duration::from_secs(10);

/// The clock of a stream's leader. Clones share their measurements.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    streams: StreamService,
    stream: String,
    measured: Arc<Mutex<Option<Measured>>>,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    here: Duration,
    there: Timestamp,
}

impl Clock {
    pub(crate) fn new(streams: StreamService, stream: String) -> Self {
        Self { streams, stream, measured: Arc::default() }
    }

    /// The time now; asks the server if the last measurement is older than ten seconds.
    pub(crate) async fn now(&self) -> Result<Timestamp, ApiFailure> {
        let measured = match self.last().filter(|m| uptime().saturating_sub(m.here) < MAX_AGE) {
            Some(measured) => measured,
            None => self.measure().await?,
        };
        Ok(measured.now())
    }

    /// The time now by the last measurement, however old it is.
    pub(crate) fn estimate(&self) -> Option<Timestamp> {
        self.last().map(|measured| measured.now())
    }

    fn last(&self) -> Option<Measured> {
        *self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn measure(&self) -> Result<Measured, ApiFailure> {
        let asked = uptime();
        let told = self.streams.stream_info(&self.stream).await?.and_then(|info| info.ts);
        let one_way = uptime().saturating_sub(asked) / 2;
        let (asked, text) = match told {
            Some(text) => (asked, text),
            None => (uptime(), self.time_of_a_consumer().await?),
        };
        let there = text
            .parse()
            .map_err(|error| ApiFailure::Malformed(serde::de::Error::custom(format!("the server's time: {error}"))))?;
        let measured = Measured { here: asked + one_way, there };
        *self.measured.lock().unwrap_or_else(PoisonError::into_inner) = Some(measured);
        Ok(measured)
    }

    /// Servers before 2.10 do not tell their time, but they tell when a consumer was made: that is when the request came in,
    /// long before the answer goes out, as files may be made in between.
    async fn time_of_a_consumer(&self) -> Result<String, ApiFailure> {
        #[derive(Deserialize)]
        struct Created {
            name: String,
            created: String,
        }
        let config = json!({
            "deliver_policy": "new",
            "ack_policy": "none",
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": nanos(Duration::from_secs(5)),
        });
        let body = json!({ "stream_name": self.stream, "config": config });
        let made: Created = self.streams.api(&format!("CONSUMER.CREATE.{}", self.stream), body).await?;
        self.streams.api::<Value>(&format!("CONSUMER.DELETE.{}.{}", self.stream, made.name), Value::Null).await?;
        Ok(made.created)
    }
}

impl Measured {
    fn now(self) -> Timestamp {
        self.there.saturating_add(uptime().saturating_sub(self.here))
    }
}

/// Time on a clock that no one sets and that, on Linux, counts suspension: what leases are measured with.
#[cfg(target_os = "linux")]
pub(crate) fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn uptime() -> Duration {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed()
}
