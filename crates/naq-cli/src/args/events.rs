//! The arguments of `naq events …`.

use std::time::Duration;

use clap::{Args, Subcommand};
use naq_models::{EventFilter, EventType, JobId, QueueName, ScheduleId};

use super::parse_duration;

/// The window of `stats` and `workers`, if none is given.
const WINDOW: &str = "1h";

/// `naq events …`
#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Events as they happen; with --output json one JSON object a line
    Stream(StreamArgs),
    /// What happened to one job, with how long each step took
    History {
        /// Its id.
        job: JobId,
    },
    /// Rates, percentiles of wait and run time, failures by kind and error
    Stats(WindowArgs),
    /// What each worker did
    Workers(WindowArgs),
}

/// Which events; all that are given must match.
#[derive(Debug, Clone, Args)]
pub struct FilterArgs {
    /// Only of this job
    #[arg(long, value_name = "ID")]
    pub job: Option<JobId>,
    /// Only of this type, for example failed; may be given several times
    #[arg(long = "type", value_name = "TYPE")]
    pub types: Vec<EventType>,
    /// Only of this queue
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<QueueName>,
    /// Only of jobs of this kind
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Only of this worker, by its id
    #[arg(long, value_name = "WORKER")]
    pub worker: Option<String>,
    /// Only of this schedule
    #[arg(long, value_name = "ID")]
    pub schedule: Option<ScheduleId>,
}

impl From<FilterArgs> for EventFilter {
    fn from(args: FilterArgs) -> Self {
        let FilterArgs { job, types, queue, kind, worker, schedule } = args;
        Self { job, types, queue, kind, worker, schedule, since: None, until: None }
    }
}

/// `naq events stream …`
#[derive(Debug, Args)]
pub struct StreamArgs {
    /// Which events.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Begin with the newest N events that are kept, and end after them unless --follow is given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub tail: Option<u32>,
    /// Go on with what happens, until stopped; so it does without --tail too
    #[arg(long, short)]
    pub follow: bool,
}

/// `naq events stats …` and `naq events workers …`
#[derive(Debug, Args)]
pub struct WindowArgs {
    /// Which events.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// The time up to now that is looked at
    #[arg(long, value_name = "DURATION", default_value = WINDOW, value_parser = parse_duration)]
    pub window: Duration,
}
