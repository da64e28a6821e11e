//! `naq worker …` and `naq scheduler start`.

use naq_services::{WorkerInfo, WorkerRegistry, storage::StorageInfo, workers::WorkerStatus};
use naq_worker::{Scheduler, SchedulerOptions, Shutdown, Worker, WorkerError, WorkerOptions, WorkerReport, signals};

use crate::{
    App,
    args::{SchedulerStartArgs, WorkerCommand, WorkerStartArgs},
    configured::{self, Concurrency},
    error::{CliError, with_sources},
    listening::Listening,
    output::Output,
    reload::{Hangups, Reload},
    session::Session,
};

pub(crate) async fn run(session: &Session, command: WorkerCommand, app: App) -> Result<(), CliError> {
    match command {
        WorkerCommand::Start(args) => start(session, args, app).await,
        WorkerCommand::List => list(session.output(), &workers(session).await?),
        WorkerCommand::Status => status(session.output(), &workers(session).await?),
    }
}

async fn start(session: &Session, args: WorkerStartArgs, app: App) -> Result<(), CliError> {
    let App { mut handlers, states, .. } = app;
    // Before anything else: a hangup while the worker starts must not end it.
    let hangups = Hangups::listen()?;
    // A probe is answered while the store is waited for, and a port that is taken costs nothing.
    let listening = Listening::start(session, args.listen.or(session.config().workers.listen))?;
    let jobs = session.jobs().await?;
    // So that `naq::enqueue` in a handler goes to the store that the worker serves, whatever the environment says.
    naq_queue::install(session.services().clone()).await.map_err(|e| CliError::failed(with_sources(&e)))?;
    let config = session.config();
    let conflict = |e: naq_worker::handler::DuplicateHandler| CliError::usage(e.to_string());
    for handler in naq_worker::builtin::handlers() {
        handlers.insert(handler).map_err(conflict)?;
    }
    for handler in configured::external_handlers(session).await? {
        handlers.insert(handler).map_err(conflict)?;
    }
    let named = match &args.pool {
        Some(name) => configured::pool(config, name)?,
        None => args.queues,
    };
    let source = Concurrency { flag: args.concurrency, pool: args.pool };
    let concurrency = source.of(config);
    configured::declare_schedules(session, &jobs).await?;
    let mut options = WorkerOptions::of(config);
    options.burst = args.burst;
    if args.no_scheduler {
        options.scheduler = None;
    }
    let StorageInfo { location, .. } = jobs.storage().info();
    session.announce(&format!(
        "worker: {concurrency} jobs at a time from {} at {location}; handlers: {}; Ctrl-C stops",
        configured::names(config, &named),
        handlers.kinds().join(", ")
    ));
    let mut builder = Worker::of(session.services())
        .await?
        .queues(named)
        .concurrency(concurrency as usize)
        .handlers(handlers)
        .states(states)
        .options(options);
    if let Some(name) = args.name {
        builder = builder.name(name);
    }
    let worker = builder.build().map_err(|e| CliError::usage(e.to_string()))?;
    if let Some(listening) = &listening {
        listening.observe(session, worker.health()).await?;
    }
    let shutdown = Shutdown::new();
    let _signals = listen(&shutdown)?;
    let reload = Reload::of_worker(session, worker.adjuster(), source);
    let outcome = tokio::select! {
        outcome = worker.run(shutdown.clone()) => outcome,
        never = hangups.follow(reload, &shutdown) => match never {},
    };
    if matches!(&outcome, Ok(WorkerReport { stuck: 1.., .. }) | Err(WorkerError::Stuck { .. })) {
        session.note_stuck();
    }
    finished(session.output(), &outcome.map_err(|e| CliError::failed(with_sources(&e)))?)
}

fn listen(shutdown: &Shutdown) -> Result<signals::SignalListener, CliError> {
    signals::listen(shutdown.clone()).map_err(|e| CliError::failed(format!("cannot listen for signals: {e}")))
}

/// What the worker did, each number that is not zero.
fn finished(out: Output, report: &WorkerReport) -> Result<(), CliError> {
    out.one(report, || {
        let numbers = [
            ("completed", report.completed),
            ("failed", report.failed),
            ("cancelled", report.cancelled),
            ("retried", report.retried),
            ("snoozed", report.snoozed),
            ("already ended", report.already_ended),
            ("handed back", report.handed_back),
            ("lost", report.lost),
            ("unsettled", report.unsettled),
            ("stuck", report.stuck as u64),
        ];
        let said: Vec<_> = numbers.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")).collect();
        if said.is_empty() {
            "worker: stopped; nothing was done".to_owned()
        } else {
            format!("worker: stopped; {}", said.join(", "))
        }
    })
}

/// `naq scheduler start`.
pub(crate) async fn scheduler(session: &Session, args: &SchedulerStartArgs) -> Result<(), CliError> {
    let hangups = Hangups::listen()?;
    let listening = Listening::start(session, args.listen)?;
    let jobs = session.jobs().await?;
    configured::declare_schedules(session, &jobs).await?;
    let options = SchedulerOptions::of(session.config());
    let holder = format!("scheduler-{}-{:08x}", std::process::id(), rand::random::<u32>());
    session.announce(&format!("scheduler: {holder} at {}; Ctrl-C stops", jobs.storage().info().location));
    let shutdown = Shutdown::new();
    let _signals = listen(&shutdown)?;
    let scheduler = Scheduler::new(jobs.storage().clone(), holder, options, jobs.settings().format)
        .with_events(jobs.events().clone());
    if let Some(listening) = &listening {
        listening.observe(session, scheduler.health()).await?;
    }
    let outcome = tokio::select! {
        outcome = scheduler.run(&shutdown) => outcome,
        never = hangups.follow(Reload::of_scheduler(session), &shutdown) => match never {},
    };
    outcome.map_err(|e| CliError::failed(with_sources(&e)))
}

async fn workers(session: &Session) -> Result<Vec<WorkerInfo>, CliError> {
    Ok(WorkerRegistry::new(session.jobs().await?.storage().clone()).list().await?)
}

const NONE_ALIVE: &str = "no worker is alive";

fn list(out: Output, workers: &[WorkerInfo]) -> Result<(), CliError> {
    out.list(
        workers,
        ["id", "name", "host", "pid", "queues", "running", "status", "started"],
        |worker| {
            [
                worker.id.clone(),
                worker.name.clone().unwrap_or_default(),
                worker.host.clone(),
                worker.pid.to_string(),
                worker.queues.join(" "),
                format!("{}/{}", worker.running_count, worker.concurrency),
                word(worker.status).to_owned(),
                worker.started_at.to_string(),
            ]
        },
        NONE_ALIVE,
    )
}

fn word(status: WorkerStatus) -> &'static str {
    match status {
        WorkerStatus::Idle => "idle",
        WorkerStatus::Busy => "busy",
        WorkerStatus::Stopping => "stopping",
    }
}

/// Each worker with the jobs it runs.
fn status(out: Output, workers: &[WorkerInfo]) -> Result<(), CliError> {
    out.one(&workers, || {
        if workers.is_empty() {
            return NONE_ALIVE.to_owned();
        }
        let lines = workers.iter().flat_map(|worker| {
            let head = format!(
                "{} ({}, {} of {} slots busy, queues {}, naq {})",
                worker.id,
                word(worker.status),
                worker.running_count,
                worker.concurrency,
                worker.queues.join(" "),
                worker.version
            );
            let jobs = worker.running.iter().map(|job| format!("  {} {} since {}", job.id, job.kind, job.started_at));
            std::iter::once(head).chain(jobs)
        });
        lines.collect::<Vec<_>>().join("\n")
    })
}
