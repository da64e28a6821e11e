//! What could weaken a promise: server, durability, settings, orphans.
//!
//! Invariant: looks and never repairs; each finding says what to do.

use std::time::Duration;

use naq_models::Priority;
use serde_json::Value;

use super::{
    Shared,
    features::{KEEPS_AT_LIMIT, LOSES_STREAMS, RECOMMENDED, Version},
    names::Names,
    topology::{Drift, bucket_config, dead_config, events_config, queue_config},
};
use crate::{
    host_clock::host_time,
    storage::{Finding, Result, Severity},
    streams::StreamInfo,
};

/// Above this the clocks of host and server differ enough to confuse people who read both.
const SKEW_MAX: Duration = Duration::from_secs(2);
/// A warning above this share of the account's storage.
const STORAGE_SHARE: f64 = 0.8;

/// Nothing depends on the log of events, and its limits follow whoever writes into it.
const LIMITS_OF_WRITERS: &str =
    "set events.stream alike for every process; each that writes events sets the limits of its own configuration";

impl Shared {
    pub(super) async fn diagnose(&self) -> Result<Vec<Finding>> {
        let version = Version::parse(&self.connection.server_version());
        let storage = storage_finding(self.features.storage, self.features.max_storage, version);
        let mut findings = vec![server_finding(version), storage];
        findings.push(self.clock_finding().await?);
        let queues = self.queues().await?;
        let mut wanted: Vec<Value> = self
            .names
            .all_buckets()
            .iter()
            .map(|bucket| bucket_config(&self.names, bucket, self.options.shape(), false))
            .chain([dead_config(&self.names, self.options.shape())])
            .collect();
        wanted.extend(queues.iter().map(|queue| queue_config(&self.names, queue, self.options.shape())));
        let mut copies: Option<u64> = None;
        for config in wanted {
            let name = config["name"].as_str().unwrap_or_default().to_owned();
            let info = self.streams.stream_info(&name).await;
            let info = info.map_err(|failure| self.streams.error("diagnose", failure))?;
            let here = info.as_ref().and_then(|info| info.config["num_replicas"].as_u64());
            copies = copies.into_iter().chain(here).min();
            findings.push(stream_finding(&name, info.as_ref(), &config));
        }
        findings.extend(copies.map(durability_finding));
        // Made with the first event: until then there is none.
        let events = self.streams.stream_info(&self.options.events.name).await;
        if let Some(info) = events.map_err(|failure| self.streams.error("diagnose", failure))? {
            let wanted = events_config(&self.names, &self.options.events, self.options.compress);
            let found = stream_finding(&self.options.events.name, Some(&info), &wanted);
            findings.push(match found.severity {
                Severity::Ok => found,
                _ => Finding { severity: Severity::Warning, advice: LIMITS_OF_WRITERS.to_owned(), ..found },
            });
        }
        for queue in &queues {
            for priority in Priority::ALL {
                let (stream, lane) = (self.names.queue_stream(queue), Names::lane_consumer(priority));
                let info = self.streams.consumer_info(&stream, &lane).await;
                if info.map_err(|failure| self.streams.error("diagnose", failure))?.is_none() {
                    findings.push(finding(
                        Severity::Warning,
                        format!("stream {stream}"),
                        format!("consumer {lane} is missing"),
                        "start a worker for the queue; it makes the consumer",
                    ));
                }
            }
        }
        Ok(findings)
    }

    async fn clock_finding(&self) -> Result<Finding> {
        let there = self.now("diagnose").await?;
        let here = host_time();
        let skew = here.since(there).max(there.since(here));
        Ok(if skew > SKEW_MAX {
            let message = format!("this host's clock differs from the server's by {skew:?}");
            finding(Severity::Warning, "clock", message, "synchronize both (NTP); due times follow the server's")
        } else {
            finding(Severity::Ok, "clock", format!("within {} ms of the server's", skew.as_millis()), "")
        })
    }
}

fn server_finding(version: Version) -> Finding {
    let (severity, message) = match version {
        version if version >= RECOMMENDED => {
            return finding(Severity::Ok, "server", format!("nats-server {version}"), "");
        }
        version if LOSES_STREAMS.contains(&version) => (
            Severity::Error,
            format!("nats-server {version} can lose whole streams of a cluster when its processes are killed"),
        ),
        version => (
            Severity::Warning,
            format!(
                "nats-server {version} forgets acknowledgements when it is killed; naq notices and does not run the jobs \
                 again, but jobs without a result may"
            ),
        ),
    };
    finding(severity, "server", message, format!("upgrade to {RECOMMENDED} or later"))
}

/// How full the account is: bytes used, and how many it may use (none if not positive).
fn storage_finding(used: i64, limit: i64, version: Version) -> Finding {
    if limit <= 0 {
        return finding(Severity::Ok, "storage", format!("{used} bytes used, no limit for this account"), "");
    }
    let message = format!("{used} of {limit} bytes used");
    #[expect(clippy::cast_precision_loss, reason = "a share is compared, not counted")]
    let full = used as f64 > limit as f64 * STORAGE_SHARE;
    if version < KEEPS_AT_LIMIT {
        let message = format!(
            "{message}; at its limit nats-server {version} drops what an entry replaces before it refuses the entry: \
             retries and schedules can be lost"
        );
        finding(Severity::Warning, "storage", message, format!("no limit for the account, or upgrade to {RECOMMENDED}"))
    } else if full {
        finding(Severity::Warning, "storage", message, "raise the account's JetStream limit or shorten result_ttl")
    } else {
        finding(Severity::Ok, "storage", message, "")
    }
}

/// What an acknowledgement means where every stream has at least so many copies. Whether the server waits for its disk, it
/// does not tell.
fn durability_finding(copies: u64) -> Finding {
    const ALWAYS: &str = "unless the server has `sync_interval: always`";
    if copies > 1 {
        let message = format!(
            "{copies} copies: a lost server loses nothing; servers that lose power together may take back the last two \
             minutes, {ALWAYS}"
        );
        return finding(Severity::Ok, "durability", message, "");
    }
    finding(
        Severity::Warning,
        "durability",
        format!("one copy: a lost disk loses every job, and a power cut may take back the last two minutes, {ALWAYS}"),
        "three servers and `nats.replicas: 3`, or `sync_interval: always` and a disk that is safe enough",
    )
}

fn stream_finding(name: &str, info: Option<&StreamInfo>, wanted: &Value) -> Finding {
    let subject = format!("stream {name}");
    let Some(info) = info else {
        return finding(Severity::Error, subject, "is missing".into(), "restart a naq process; it makes the stream");
    };
    let drift = Drift::between(&info.config, wanted);
    if drift.is_empty() {
        return finding(Severity::Ok, subject, format!("{} messages", info.state.messages), "");
    }
    let serious = drift.clone().serious();
    if serious.is_empty() {
        finding(Severity::Warning, subject, drift.to_string(), "change it with `nats stream edit`, or leave it so")
    } else {
        finding(Severity::Error, subject, serious.to_string(), "change it with `nats stream edit`: it breaks a promise")
    }
}

fn finding(severity: Severity, subject: impl Into<String>, message: String, advice: impl Into<String>) -> Finding {
    Finding { severity, subject: subject.into(), message, advice: advice.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_lose_what_they_said_is_stored_are_named() {
        let severity = |version| server_finding(Version::parse(version)).severity;
        for (version, expected) in [
            ("2.9.10", Severity::Warning),
            ("2.10.0", Severity::Error),
            ("2.10.22", Severity::Error),
            ("2.10.23", Severity::Warning),
            ("2.13.9", Severity::Warning),
            ("2.14.0", Severity::Ok),
            ("2.15.0-RC.1", Severity::Ok),
        ] {
            assert_eq!(severity(version), expected, "{version}");
        }
    }

    #[test]
    fn a_limit_is_a_danger_on_an_old_server_and_when_it_is_near() {
        let severity = |used, limit, version| storage_finding(used, limit, Version::parse(version)).severity;
        for (used, limit, version, expected) in [
            (900, -1, "2.9.10", Severity::Ok),
            (0, 1000, "2.9.10", Severity::Warning),
            (800, 1000, "2.15.0", Severity::Ok),
            (801, 1000, "2.15.0", Severity::Warning),
            (900, 0, "2.15.0", Severity::Ok),
        ] {
            assert_eq!(severity(used, limit, version), expected, "{used} of {limit}, {version}");
        }
    }

    #[test]
    fn one_copy_of_anything_is_a_warning() {
        for (copies, expected) in [(1, Severity::Warning), (2, Severity::Ok), (3, Severity::Ok)] {
            assert_eq!(durability_finding(copies).severity, expected, "{copies}");
        }
    }
}
