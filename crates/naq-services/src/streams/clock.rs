//! [`Clock`]: the time of the server that leads a stream, without asking it each time.
//!
//! Invariant: never the wall clock of this host. Between measurements it runs on a monotonic clock that, where the
//! system has one, counts suspension; its error is half of the shortest round trip of late plus the drift since. A
//! measurement that a busy server has delayed does not replace a better one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use naq_models::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiFailure, StreamService, nanos};
use crate::host_clock::uptime;

const MAX_AGE: Duration = Duration::from_secs(10);
/// One that was made with a longer round trip is made again at once, a few times.
const QUICK: Duration = Duration::from_millis(4);
const TRIES: usize = 3;
/// How much two clocks drift apart, at most: parts of the time that has passed. Quartz keeps 1/10 000 with room to spare.
const DRIFT: u32 = 10_000;

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
    /// `there` was at most so long before or after `here`.
    error: Duration,
    /// When it was last found to be good enough.
    checked: Duration,
}

impl Clock {
    pub(crate) fn new(streams: StreamService, stream: String) -> Self {
        Self { streams, stream, measured: Arc::default() }
    }

    /// The time now; asks the server if the last measurement is older than ten seconds.
    pub(crate) async fn now(&self) -> Result<Timestamp, ApiFailure> {
        let measured = match self.last().filter(|m| uptime().saturating_sub(m.checked) < MAX_AGE) {
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
        let mut best = self.measure_once().await?;
        for _ in 1..TRIES {
            if 2 * best.error <= QUICK {
                break;
            }
            best = best.or_better(self.measure_once().await?);
        }
        let mut last = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let measured = last.map_or(best, |last| last.or_better(best));
        *last = Some(measured);
        Ok(measured)
    }

    async fn measure_once(&self) -> Result<Measured, ApiFailure> {
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
        Ok(Measured { here: asked + one_way, there, error: one_way, checked: uptime() })
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
        self.at(uptime())
    }

    fn at(self, here: Duration) -> Timestamp {
        self.there.saturating_add(here.saturating_sub(self.here))
    }

    /// This one or a later one, whichever is more exact now; the later one if they cannot both be right, because then the
    /// server's clock was set, or another server leads.
    fn or_better(self, later: Self) -> Self {
        let error = self.error + later.here.saturating_sub(self.here) / DRIFT;
        let (expected, found) = (self.at(later.here), later.there);
        let apart = expected.since(found).max(found.since(expected));
        // Times come in whole milliseconds.
        if apart > error + later.error + Duration::from_millis(1) || later.error <= error {
            return later;
        }
        Self { checked: later.checked, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(here: u64, there: i64, error: u64) -> Measured {
        let (here, error) = (Duration::from_millis(here), Duration::from_millis(error));
        Measured { here, there: Timestamp::from_unix_millis(there).unwrap(), error, checked: here }
    }

    #[test]
    fn a_delayed_measurement_does_not_replace_a_better_one() {
        let first = measured(1_000, 501_000, 2);
        // The server took its time: 40 ms off, and it may be by 45.
        let kept = first.or_better(measured(11_000, 511_040, 45));
        assert_eq!((kept.at(Duration::from_millis(11_000)).unix_millis(), kept.error.as_millis()), (511_000, 2));
        assert_eq!(kept.checked, Duration::from_millis(11_000), "it is good for another ten seconds");
        let replaced = first.or_better(measured(11_000, 511_002, 1));
        assert_eq!(replaced.at(Duration::from_millis(11_000)).unix_millis(), 511_002);
    }

    #[test]
    fn an_old_measurement_wears_out_and_a_clock_that_was_set_counts() {
        let first = measured(1_000, 501_000, 2);
        // After 100 s the first may be 12 ms off.
        assert_eq!(first.or_better(measured(101_000, 601_005, 11)).there.unix_millis(), 601_005);
        assert_eq!(first.or_better(measured(11_000, 509_000, 45)).there.unix_millis(), 509_000, "set back");
        assert_eq!(first.or_better(measured(11_000, 3_600_000, 45)).there.unix_millis(), 3_600_000, "set forward");
    }
}
