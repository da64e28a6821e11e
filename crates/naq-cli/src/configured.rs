//! From the configuration to what a worker is built of, and the recurring jobs that it declares.
//!
//! Invariant: what a worker obeys of the configuration is read in naq-worker; here is what the command line adds: pools,
//! handlers of other languages, `schedules`, and what a running worker takes anew.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use naq_config::{HandlerConfig, NaqConfig, ScheduleConfig};
use naq_models::{Missed, Overlap, Schedule, ScheduleDefinition, ScheduleId, Timestamp};
use naq_services::{
    JobService, NewJob, RequestReply, SchedulerService,
    scheduler::{DeclaredOutcome, UpsertOutcome},
};
use naq_worker::{Adjustable, ErasedHandler, QueueSpec, WorkerOptions, external};

use crate::{
    error::{CliError, with_sources},
    session::Session,
};

/// Where a worker's concurrency comes from: the flag, else its pool, else `workers.concurrency`.
#[derive(Debug, Clone)]
pub(crate) struct Concurrency {
    pub(crate) flag: Option<u32>,
    pub(crate) pool: Option<String>,
}

impl Concurrency {
    pub(crate) fn of(&self, config: &NaqConfig) -> u32 {
        self.flag.or(self.of_pool(config)).unwrap_or(config.workers.concurrency)
    }

    fn of_pool(&self, config: &NaqConfig) -> Option<u32> {
        config.workers.pools.get(self.pool.as_ref()?)?.concurrency
    }

    /// Whether a setting (dotted) says nothing about this worker: another one wins over it, or it is another pool's.
    pub(crate) fn overrules(&self, setting: &str, config: &NaqConfig) -> bool {
        if setting == "workers.concurrency" {
            return self.flag.is_some() || self.of_pool(config).is_some();
        }
        let Some(pools) = setting.strip_prefix("workers.pools.") else { return false };
        let mine = self.pool.as_ref().and_then(|name| pools.strip_prefix(name.as_str())?.strip_prefix('.'));
        mine.is_none_or(|setting| setting == "concurrency" && self.flag.is_some())
    }
}

/// What a running worker takes of a configuration that was read again.
pub(crate) fn adjustable(config: &NaqConfig, concurrency: &Concurrency) -> Adjustable {
    let WorkerOptions { max_job_duration, shutdown_timeout, max_crashes, .. } = WorkerOptions::of(config);
    let paused = config.queues.paused().cloned().collect();
    Adjustable { concurrency: concurrency.of(config) as usize, paused, max_job_duration, shutdown_timeout, max_crashes }
}

/// The queues of `workers.pools.<name>`.
///
/// # Errors
/// If there is no such pool.
pub(crate) fn pool(config: &NaqConfig, name: &str) -> Result<Vec<QueueSpec>, CliError> {
    let pools = &config.workers.pools;
    let pool = pools.get(name).ok_or_else(|| {
        let known: Vec<&str> = pools.keys().map(String::as_str).collect();
        let hint = if known.is_empty() {
            "declare it: workers.pools.NAME.queues in naq.yaml".to_owned()
        } else {
            format!("pools are: {}", known.join(", "))
        };
        CliError::usage(format!("there is no pool {name:?}")).with_hint(hint)
    })?;
    let queues = pool.queues.iter().map(|queue| queue.parse().map_err(|e| CliError::usage(format!("{queue:?}: {e}"))));
    queues.collect()
}

/// The names of the queues that a worker serves, for messages.
pub(crate) fn names(config: &NaqConfig, specs: &[QueueSpec]) -> String {
    if specs.is_empty() {
        return config.queues.default.to_string();
    }
    specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The schedules that `schedules` declares.
///
/// # Errors
/// All that are wrong, at once.
pub(crate) fn schedules(
    config: &NaqConfig,
    service: &SchedulerService,
) -> Result<BTreeMap<ScheduleId, ScheduleDefinition>, CliError> {
    let (mut declared, mut wrong) = (BTreeMap::new(), Vec::new());
    for (id, schedule) in &config.schedules {
        match definition(schedule, service) {
            Ok(definition) => match ScheduleId::new(id) {
                Ok(id) => drop(declared.insert(id, definition)),
                Err(error) => wrong.push(format!("schedules.{id}: {error}")),
            },
            Err(error) => wrong.push(format!("schedules.{id}: {}", with_sources(&error))),
        }
    }
    if wrong.is_empty() { Ok(declared) } else { Err(CliError::usage(wrong.join("\n"))) }
}

fn definition(
    config: &ScheduleConfig,
    service: &SchedulerService,
) -> naq_services::scheduler::Result<ScheduleDefinition> {
    let recurrence = Recurrence {
        cron: config.cron.as_deref(),
        every: config.every,
        after: config.after,
        tz: config.tz.as_deref(),
        repeat: config.repeat,
        start: config.start,
        end: config.end,
        missed: config.missed,
        overlap: config.overlap,
    };
    let mut job = NewJob::new(&config.kind, &config.args);
    if let Some(queue) = &config.queue {
        job = job.queue(queue);
    }
    service.define(job, recurrence.schedule())
}

/// When and how often a job recurs, as the configuration and the command line say it. That there is exactly one of
/// `cron`, `every` and `after` is checked where it is read.
pub(crate) struct Recurrence<'a> {
    pub(crate) cron: Option<&'a str>,
    pub(crate) every: Option<Duration>,
    pub(crate) after: Option<Duration>,
    pub(crate) tz: Option<&'a str>,
    pub(crate) repeat: Option<u64>,
    pub(crate) start: Option<Timestamp>,
    pub(crate) end: Option<Timestamp>,
    pub(crate) missed: Missed,
    pub(crate) overlap: Overlap,
}

impl Recurrence<'_> {
    pub(crate) fn schedule(&self) -> Schedule {
        let mut schedule = match (self.cron, self.every) {
            (Some(expression), _) => Schedule::cron(expression),
            (None, Some(period)) => Schedule::every(period),
            (None, None) => Schedule::after_completion(self.after.unwrap_or_default()),
        };
        if let Some(zone) = self.tz {
            schedule = schedule.tz(zone);
        }
        if let Some(runs) = self.repeat {
            schedule = schedule.repeat(runs);
        }
        if let Some(start) = self.start {
            schedule = schedule.start(start);
        }
        if let Some(end) = self.end {
            schedule = schedule.end(end);
        }
        schedule.missed(self.missed).overlap(self.overlap)
    }
}

/// Upserts the schedules that the configuration declares, and says which it declares no more.
///
/// # Errors
/// If one of them cannot be used, or the store fails.
pub(crate) async fn declare_schedules(session: &Session, jobs: &JobService) -> Result<(), CliError> {
    let config = session.config();
    let service = SchedulerService::new(jobs.clone());
    let declared = service.declare(&schedules(config, &service)?).await?;
    for (id, outcome) in &declared.outcomes {
        match outcome {
            DeclaredOutcome::Upserted(UpsertOutcome::Created) => tracing::info!(schedule = %id, "defined"),
            DeclaredOutcome::Upserted(UpsertOutcome::Updated) => tracing::info!(schedule = %id, "defined anew"),
            DeclaredOutcome::Upserted(UpsertOutcome::Unchanged) => {}
            DeclaredOutcome::StaysCancelled => session.warn(&format!(
                "schedule {id} is declared, but was cancelled; it stays so until its declaration changes or \
                 `naq scheduler upsert` defines it again"
            )),
        }
    }
    for id in &declared.undeclared {
        session.warn(&format!(
            "schedule {id} was declared in a configuration and is not in this one; it goes on. End it with \
             `naq scheduler cancel {id}`, or remove all such with `naq scheduler prune`"
        ));
    }
    Ok(())
}

/// The handlers that `handlers` declares. A NATS connection is opened only if one of them needs it.
///
/// # Errors
/// If a declaration cannot work, or the servers cannot be reached.
pub(crate) async fn external_handlers(session: &Session) -> Result<Vec<Arc<dyn ErasedHandler>>, CliError> {
    let declared = &session.config().handlers;
    let asks_nats = declared.values().any(|handler| matches!(handler, HandlerConfig::Nats(_)));
    let connection = if asks_nats { request_reply(session).await? } else { None };
    external::handlers(declared, connection.as_ref()).map_err(|e| CliError::usage(e.to_string()))
}

#[cfg(feature = "nats")]
async fn request_reply(session: &Session) -> Result<Option<Arc<dyn RequestReply>>, CliError> {
    let on_nats = matches!(session.services().store().url, naq_config::StoreUrl::Nats { .. });
    if !on_nats && session.config().nats.servers.is_empty() {
        return Ok(None);
    }
    let connection: Arc<dyn RequestReply> =
        session.services().get::<naq_services::connection::ConnectionService>().await?;
    Ok(Some(connection))
}

#[cfg(not(feature = "nats"))]
async fn request_reply(_: &Session) -> Result<Option<Arc<dyn RequestReply>>, CliError> {
    Ok(None)
}
