//! The arguments of `naq scheduler …`.

use std::time::Duration;

use clap::{Args, Subcommand};
use naq_config::ListenAddress;
use naq_models::{Missed, Overlap, QueueName, ScheduleId, Timestamp};

use super::{parse_duration, parse_time};

/// `naq scheduler …`
#[derive(Debug, Subcommand)]
pub enum SchedulerCommand {
    /// Fire delayed jobs, retries and recurring jobs until stopped, without running jobs
    Start(SchedulerStartArgs),
    /// Every recurring job, with when it is next due
    Jobs,
    /// Everything about one recurring job, with its next five runs
    Show {
        /// Its schedule's id.
        id: ScheduleId,
    },
    /// Define a recurring job; the same definition again changes nothing
    Upsert(Box<UpsertArgs>),
    /// Hold a recurring job until it is resumed
    Pause {
        /// Its schedule's id.
        id: ScheduleId,
    },
    /// Let a paused recurring job go on; what was due meanwhile is not made up for
    Resume {
        /// Its schedule's id.
        id: ScheduleId,
    },
    /// Run a recurring job once now, beside its timing
    Trigger {
        /// Its schedule's id.
        id: ScheduleId,
    },
    /// End a recurring job; runs that are in their queue go on
    Cancel {
        /// Its schedule's id.
        id: ScheduleId,
    },
    /// Remove the schedules that a configuration declared once and this one does not
    Prune {
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// `naq scheduler start …`
#[derive(Debug, Args)]
pub struct SchedulerStartArgs {
    /// Answer /metrics, /healthz and /readyz at this address; a port alone is one of 127.0.0.1, port 0 any that is free
    #[arg(long, value_name = "PORT|IP:PORT")]
    pub listen: Option<ListenAddress>,
}

/// `naq scheduler upsert …`
#[derive(Debug, Args)]
pub struct UpsertArgs {
    /// The schedule's id
    pub id: ScheduleId,
    /// The handler's name
    #[arg(long, value_name = "KIND")]
    pub kind: String,
    /// Arguments: a JSON object or array, or - to read it from standard input
    #[arg(long, value_name = "JSON|-", default_value = "{}")]
    pub args: String,
    /// The queue of the jobs
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<QueueName>,
    /// When.
    #[command(flatten)]
    pub timing: TimingArgs,
    /// The IANA time zone of --cron; UTC if not given
    #[arg(long, value_name = "ZONE", requires = "cron")]
    pub tz: Option<String>,
    /// End after so many runs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub repeat: Option<u64>,
    /// No run before this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub start: Option<Timestamp>,
    /// No run after this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub end: Option<Timestamp>,
    /// Runs that were due while nothing was up: skip, once (one makes up for all) or all (the newest 1000)
    #[arg(long, value_name = "POLICY", default_value = "once")]
    pub missed: Missed,
    /// A run that is due while the last one has not ended: allow or skip
    #[arg(long, value_name = "POLICY", default_value = "allow")]
    pub overlap: Overlap,
}

/// When a job recurs: exactly one of these.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct TimingArgs {
    /// A cron expression: minute hour day-of-month month day-of-week, with seconds in front if there are six fields
    #[arg(long, value_name = "EXPR")]
    pub cron: Option<String>,
    /// At a fixed rate: 30s, 5m, 1h30m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub every: Option<Duration>,
    /// So long after the last run has ended
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub after: Option<Duration>,
}
