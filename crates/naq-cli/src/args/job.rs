//! The arguments of `naq job …`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use naq_models::{
    JobId, JobStatus, OnConflict, OnDependencyFailure, Priority, QueueName, RetryStrategy, Timestamp, UniqueWhile,
};

use super::{parse_duration, parse_priority, parse_status, parse_time};

/// The reason of a cancellation for which none is given.
pub(crate) const BY_HAND: &str = "cancelled by hand";

/// `naq job …`
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Enqueue one job, or many from a file
    Enqueue(Box<EnqueueArgs>),
    /// Where a job stands
    Status {
        /// Its id.
        id: JobId,
    },
    /// What a job returned (exit code 1 if it failed, 5 if it has not ended)
    Result {
        /// Its id.
        id: JobId,
        /// Wait for it, at most this long (for ever if no time is given)
        #[arg(long, value_name = "DURATION", num_args = 0..=1, value_parser = parse_duration)]
        wait: Option<Option<Duration>>,
    },
    /// Cancel jobs, also running ones
    Cancel {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<JobId>,
        /// Why; kept with the result
        #[arg(long, default_value = BY_HAND)]
        reason: String,
    },
    /// Run failed or cancelled jobs again, from their first attempt
    Retry {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<JobId>,
    },
    /// Give a scheduled job, or a retry, another time
    Reschedule {
        /// Its id.
        id: JobId,
        /// When it runs.
        #[command(flatten)]
        when: When,
    },
    /// Cancel, pause, resume or reschedule what an id names: a job or a recurring job
    Control {
        /// The id of a job or of a schedule
        id: JobId,
        /// What to do with it.
        #[command(subcommand)]
        verb: ControlVerb,
    },
    /// List jobs
    List {
        /// Only this queue
        #[arg(long)]
        queue: Option<QueueName>,
        /// Only this status (may be given several times)
        #[arg(long, value_parser = parse_status)]
        status: Vec<JobStatus>,
        /// Only this kind
        #[arg(long)]
        kind: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Cancel every pending job of queues
    Purge {
        /// Which queues.
        #[arg(required = true)]
        queues: Vec<QueueName>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// `naq job control ID …`
#[derive(Debug, Subcommand)]
pub enum ControlVerb {
    /// Cancel a job, as `naq job cancel`, or end a recurring job, as `naq scheduler cancel`
    Cancel,
    /// Hold a recurring job until it is resumed
    Pause,
    /// Let a paused recurring job go on
    Resume,
    /// Give a scheduled job, or a retry, another time
    Reschedule {
        /// When it runs.
        #[command(flatten)]
        when: When,
    },
}

/// A time to come: after a while, or at a moment.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct When {
    /// After this long, counted from the store's now: 250ms, 5s, 10m, 1h30m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub delay: Option<Duration>,
    /// At this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub at: Option<Timestamp>,
}

/// Where bulk envelopes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BulkSource {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

fn parse_source(text: &str) -> Result<BulkSource, String> {
    Ok(if text == "-" { BulkSource::Stdin } else { BulkSource::File(text.into()) })
}

/// `naq job enqueue …`
#[derive(Debug, Args)]
pub struct EnqueueArgs {
    /// The handler's name
    #[arg(required_unless_present = "from")]
    pub kind: Option<String>,
    /// Arguments: a JSON object or array, or - to read it from standard input
    #[arg(long, value_name = "JSON|-", default_value = "{}")]
    pub args: String,
    /// The queue
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<QueueName>,
    /// Your own id; enqueueing it again is answered with the job that has it
    #[arg(long, value_name = "ID")]
    pub job_id: Option<JobId>,
    /// Run it after this long: 250ms, 5s, 10m, 1h30m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub delay: Option<Duration>,
    /// Run it at this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "delay")]
    pub at: Option<Timestamp>,
    /// 0 (most urgent) to 3
    #[arg(long, value_name = "0-3", value_parser = parse_priority)]
    pub priority: Option<Priority>,
    /// How often it runs again after an error
    #[arg(long, value_name = "N")]
    pub max_retries: Option<u32>,
    /// The pause before a retry; several are taken one by one
    #[arg(long, value_name = "DURATION[,…]", value_delimiter = ',', value_parser = parse_duration)]
    pub retry_delay: Vec<Duration>,
    /// How a single pause grows: fixed, linear, exponential
    #[arg(long, value_name = "STRATEGY")]
    pub retry_strategy: Option<RetryStrategy>,
    /// How long one run may take
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// How long the result is kept; 0 keeps none
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub result_ttl: Option<Duration>,
    /// Run it only after this job has completed (may be given several times)
    #[arg(long, value_name = "ID")]
    pub depends_on: Vec<JobId>,
    /// What to do if such a job fails, is cancelled or does not exist: cancel this one too, or run it all the same
    #[arg(long, value_name = "cancel|run", requires = "depends_on", value_parser = parse_on_dependency_failure)]
    pub on_dependency_failure: Option<OnDependencyFailure>,
    /// Options of unique jobs.
    #[command(flatten)]
    pub unique: UniqueArgs,
    /// Something to travel with the job (may be given several times)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_meta)]
    pub meta: Vec<(String, String)>,
    /// Wait for the result and print it, at most this long (as long as the job may take if no time is given)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, value_parser = parse_duration)]
    pub wait: Option<Option<Duration>>,
    /// Enqueue many: one envelope a line, from a file or - for standard input
    #[arg(long, value_name = "FILE|-", value_parser = parse_source, conflicts_with_all = ["kind", "job_id", "wait"])]
    pub from: Option<BulkSource>,
}

fn parse_on_dependency_failure(text: &str) -> Result<OnDependencyFailure, String> {
    match text {
        "cancel" => Ok(OnDependencyFailure::Cancel),
        "run" => Ok(OnDependencyFailure::Run),
        _ => Err("expected cancel or run".to_owned()),
    }
}

/// The options of unique jobs.
#[derive(Debug, Clone, Args)]
pub struct UniqueArgs {
    /// Store it only if no other job has this key
    #[arg(long, value_name = "KEY", conflicts_with = "from")]
    pub unique_key: Option<String>,
    /// How long the key holds: pending (until the job starts), active (until it has ended), ttl (for --unique-ttl)
    #[arg(long, value_name = "pending|active|ttl", requires = "unique_key")]
    pub unique_while: Option<UniqueWhile>,
    /// The key holds for so long, whatever becomes of the job
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "unique_key")]
    pub unique_ttl: Option<Duration>,
    /// If another job has the key: answer with it, replace it unless it runs, or fail (with --from: for every line)
    #[arg(long, value_name = "existing|replace|error")]
    pub on_conflict: Option<OnConflict>,
}

fn parse_meta(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}
