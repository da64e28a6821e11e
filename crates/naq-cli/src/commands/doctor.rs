//! `naq system doctor`: what could weaken a promise, and what to do about it.
//!
//! Invariant: looks and changes nothing. What a store knows of itself comes from [`Storage::diagnose`](naq_services::Storage);
//! here is what follows from workers, leader and queues together.

use std::time::Duration;

use naq_models::Timestamp;
use naq_services::{
    WorkerInfo, WorkerRegistry,
    jobs::QueueReport,
    storage::{Finding, Severity},
};
use naq_worker::Leader;
use serde::Serialize;

use crate::{error::CliError, session::Session};

/// A worker says every `workers.heartbeat_interval` (15 s by default) that it lives; after three that it missed, something is wrong.
const SILENT: Duration = Duration::from_secs(45);
/// So many dead letters are worth an alarm.
const MANY_DEAD: u64 = 1000;
/// Findings of one kind that are told one by one.
const TOLD: usize = 10;

#[derive(Serialize)]
struct Report<'a> {
    store: &'a str,
    backend: &'a str,
    version: &'a str,
    findings: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    severity: &'static str,
    subject: String,
    message: String,
    advice: String,
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

pub(super) async fn run(session: &Session) -> Result<(), CliError> {
    let (jobs, out) = (session.jobs().await?, session.output());
    let storage = jobs.storage();
    let mut findings = storage.diagnose().await?;
    let seen = Seen {
        now: storage.now().await?,
        workers: WorkerRegistry::new(storage.clone()).list().await?,
        queues: jobs.queues().await?,
        leader: match Leader::look(&**storage).await? {
            None => None,
            Some(leader) => Some((leader.is_alive(&**storage).await?, leader)),
        },
    };
    findings.extend(seen.findings());
    let info = storage.info();
    let rows: Vec<Row> = findings
        .into_iter()
        .map(|Finding { severity, subject, message, advice }| Row {
            severity: word(severity),
            subject,
            message,
            advice,
        })
        .collect();
    let failed = rows.iter().filter(|row| row.severity == word(Severity::Error)).count();
    let report = Report { store: &info.location, backend: info.backend, version: &info.version, findings: rows };
    out.one(&report, || {
        let lines = report.findings.iter().map(|row| {
            let advice = if row.advice.is_empty() { String::new() } else { format!("\n         {}", row.advice) };
            format!("{:<8} {}: {}{advice}", row.severity, row.subject, row.message)
        });
        let head = format!("{} {} at {}", report.backend, report.version, report.store);
        std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
    })?;
    if failed > 0 { Err(CliError::failed(format!("{failed} findings need attention"))) } else { Ok(()) }
}

/// What was seen at about the same time.
struct Seen {
    now: Timestamp,
    workers: Vec<WorkerInfo>,
    queues: Vec<QueueReport>,
    /// Whether it is alive.
    leader: Option<(bool, Leader)>,
}

impl Seen {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = self.workers();
        findings.push(self.leader());
        findings.extend(self.unserved());
        findings.push(self.dead_letters());
        findings
    }

    fn workers(&self) -> Vec<Finding> {
        if self.workers.is_empty() {
            let message = "no worker is alive: nothing runs";
            return vec![finding(Severity::Warning, "workers", message, "start one: naq worker start")];
        }
        let silent = |worker: &&WorkerInfo| self.now.since(worker.seen_at) > SILENT;
        let mut findings: Vec<Finding> = self
            .workers
            .iter()
            .filter(silent)
            .take(TOLD)
            .map(|worker| {
                let since = naq_models::duration::format(Duration::from_secs(self.now.since(worker.seen_at).as_secs()));
                let message = format!(
                    "{} (process {} on {}) has not said for {since} that it lives; it said it runs {} jobs",
                    worker.id, worker.pid, worker.host, worker.running_count
                );
                let advice = "see whether it hangs or has lost the store, and restart it; its jobs go to others when \
                              their leases run out";
                finding(Severity::Warning, "workers", message, advice)
            })
            .collect();
        if findings.is_empty() {
            findings.push(finding(Severity::Ok, "workers", format!("{} alive", self.workers.len()), ""));
        }
        findings
    }

    fn leader(&self) -> Finding {
        let subject = "scheduler";
        let waiting: u64 = self.queues.iter().map(|queue| queue.scheduled + queue.retry + queue.waiting).sum();
        let start = "start a worker, or `naq scheduler start`, that is not kept from leading by --no-scheduler or \
                     scheduler.enabled";
        match &self.leader {
            Some((true, leader)) => {
                finding(Severity::Ok, subject, format!("{} leads, term {}", leader.holder, leader.term), "")
            }
            Some((false, leader)) => {
                let message = format!(
                    "{} leads no more, it has not renewed its lock for {}, and nobody takes over: {waiting} jobs wait \
                     for their time, a retry or other jobs",
                    leader.holder,
                    naq_models::duration::format(leader.lock_ttl)
                );
                finding(Severity::Warning, subject, message, start)
            }
            None if waiting > 0 => {
                let message = format!("nobody leads: {waiting} jobs wait for their time, a retry or other jobs");
                finding(Severity::Warning, subject, message, start)
            }
            None => finding(Severity::Ok, subject, "nobody leads, and no job waits for its time", ""),
        }
    }

    /// Queues in which jobs wait and which nobody serves.
    fn unserved(&self) -> Vec<Finding> {
        let is_served = |queue: &QueueReport| {
            self.workers.iter().flat_map(WorkerInfo::queue_names).any(|name| name == queue.queue.as_str())
        };
        let wait = self.queues.iter().filter(|queue| queue.pending > 0);
        wait.filter_map(|queue| {
            let (name, pending) = (&queue.queue, queue.pending);
            let (what, advice) = if queue.paused {
                ("it is paused", format!("naq queue resume {name}"))
            } else if !is_served(queue) {
                ("no live worker serves it", format!("naq worker start {name}"))
            } else {
                return None;
            };
            let subject = format!("queue {name}");
            Some(finding(Severity::Warning, &subject, format!("{pending} jobs wait and {what}"), &advice))
        })
        .take(TOLD)
        .collect()
    }

    fn dead_letters(&self) -> Finding {
        let dead: u64 = self.queues.iter().map(|queue| queue.failed).sum();
        let (severity, advice) = if dead >= MANY_DEAD {
            (Severity::Warning, "look at them with `naq dead list`, then retry or purge them")
        } else {
            (Severity::Ok, "")
        };
        finding(severity, "dead letters", format!("{dead} dead letters"), advice)
    }
}

fn finding(severity: Severity, subject: &str, message: impl Into<String>, advice: &str) -> Finding {
    Finding { severity, subject: subject.to_owned(), message: message.into(), advice: advice.to_owned() }
}

#[cfg(test)]
mod tests {
    use naq_services::workers::WorkerStatus;

    use super::*;

    fn worker(id: &str, queues: &[&str], seen_at: i64) -> WorkerInfo {
        WorkerInfo {
            id: id.to_owned(),
            name: None,
            host: "h".into(),
            pid: 7,
            queues: queues.iter().map(ToString::to_string).collect(),
            concurrency: 10,
            running_count: 3,
            running: Vec::new(),
            version: "1".into(),
            started_at: Timestamp::EPOCH,
            seen_at: Timestamp::from_unix_millis(seen_at).unwrap(),
            status: WorkerStatus::Busy,
        }
    }

    fn queue(name: &str, pending: u64) -> QueueReport {
        QueueReport {
            queue: naq_models::QueueName::new(name).unwrap(),
            paused: false,
            pending,
            pending_by_priority: [0, 0, pending, 0],
            running: 0,
            scheduled: 0,
            retry: 0,
            waiting: 0,
            failed: 0,
            oldest_pending: None,
        }
    }

    fn seen(workers: Vec<WorkerInfo>, queues: Vec<QueueReport>) -> Seen {
        Seen { now: Timestamp::from_unix_millis(100_000).unwrap(), workers, queues, leader: None }
    }

    fn warnings(seen: &Seen) -> Vec<String> {
        let findings = seen.findings().into_iter().filter(|finding| finding.severity == Severity::Warning);
        findings.map(|finding| format!("{}: {}", finding.subject, finding.message)).collect()
    }

    #[test]
    fn a_healthy_store_has_nothing_to_warn_of() {
        let served = seen(vec![worker("a", &["mail:3"], 60_000)], vec![queue("mail", 9)]);
        assert_eq!(warnings(&served), Vec::<String>::new());
        assert_eq!(served.findings().len(), 3, "workers, scheduler, dead letters");
    }

    #[test]
    fn what_nobody_serves_fires_or_looks_at_is_told() {
        let paused = QueueReport { paused: true, ..queue("mail", 2) };
        let later = QueueReport { scheduled: 1, retry: 2, waiting: 3, failed: 1000, ..queue("later", 0) };
        let seen = seen(vec![worker("a", &["mail", "x"], 54_000)], vec![paused, queue("mai", 5), later]);
        let expected = [
            "workers: a (process 7 on h) has not said for 46s that it lives; it said it runs 3 jobs",
            "scheduler: nobody leads: 6 jobs wait for their time, a retry or other jobs",
            "queue mail: 2 jobs wait and it is paused",
            "queue mai: 5 jobs wait and no live worker serves it",
            "dead letters: 1000 dead letters",
        ];
        assert_eq!(warnings(&seen), expected);
    }
}
