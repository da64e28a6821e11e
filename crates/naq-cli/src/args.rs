//! The command line as types: what can be typed, its help, its limits.
//!
//! Invariant: a value that gets past clap is valid by itself (names, durations, times, numbers); what depends on the
//! store or the configuration is checked by the command.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use naq_config::{ListenAddress, Purpose, UnknownWord};
use naq_models::{JobId, JobStatus, Priority, QueueName, Timestamp, duration};
use naq_worker::QueueSpec;

mod bench;
mod events;
mod job;
mod migrate;
mod scheduler;
mod top;

pub use bench::{BenchArgs, Question};
pub use events::{EventsCommand, FilterArgs, StreamArgs, WindowArgs};
pub(crate) use job::BY_HAND;
pub use job::{BulkSource, ControlVerb, EnqueueArgs, JobCommand, UniqueArgs, When};
pub use migrate::{FromSystem, MigrateArgs};
pub use scheduler::{SchedulerCommand, SchedulerStartArgs, TimingArgs, UpsertArgs};
pub use top::TopArgs;

/// A background job queue on one SQLite file or a NATS JetStream cluster.
#[derive(Debug, Parser)]
#[command(name = "naq", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 ok, 1 the operation failed, 2 usage, 3 not found, 4 cannot reach the store, 5 timed out."
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub struct GlobalArgs {
    /// The store: sqlite://PATH, memory://, or nats://HOST:PORT[,…] [env: NAQ_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// Read this configuration file and no other
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = OutputFormat::Table)]
    pub output: OutputFormat,
    /// Log filter: error, warn, info, debug, trace, or per module as in naq_worker=debug
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Table,
    /// For programs: JSON alone on standard output.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What needs a store.
    #[command(flatten)]
    OnStore(StoreCommand),
    /// About this program, its configuration and its store
    #[command(subcommand)]
    System(SystemCommand),
}

/// The commands that need a right configuration, and as a rule a store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Run workers and look at them
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Enqueue jobs, look at them, change them
    #[command(subcommand)]
    Job(JobCommand),
    /// Look at queues, pause them, empty them
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Look at failed jobs and run them again
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Recurring jobs: define them, look at them, change them; run the scheduler alone
    #[command(subcommand)]
    Scheduler(SchedulerCommand),
    /// What happened to jobs, workers and schedules: live, for one job, in numbers
    #[command(subcommand)]
    Events(EventsCommand),
    /// A live screen: queues, workers, what runs, what failed; keys to pause, cancel and retry
    Top(TopArgs),
    /// Measure the configured store on this machine, apart from your jobs, and leave nothing
    Bench(BenchArgs),
    /// Count the words of every text file below a directory, one job a file: the whole thing in one process, no server
    Demo(DemoArgs),
}

/// `naq worker …`
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Run jobs of these queues until stopped (Ctrl-C: finish what runs; twice: hand it back now)
    Start(WorkerStartArgs),
    /// The workers that are alive
    List,
    /// The workers that are alive, with what they run
    Status,
}

/// `naq worker start …`
#[derive(Debug, Args)]
pub struct WorkerStartArgs {
    /// Queues, the most preferred first; with weights (`high:3 low:1`) they share instead
    #[arg(value_name = "QUEUE[:WEIGHT]", value_parser = clap::value_parser!(QueueSpec))]
    pub queues: Vec<QueueSpec>,
    /// Serve the queues of `workers.pools.NAME`, with its concurrency
    #[arg(long, value_name = "NAME", conflicts_with = "queues")]
    pub pool: Option<String>,
    /// Jobs at a time
    #[arg(long, short = 'c', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(naq_config::CONCURRENCY_MAX)))]
    pub concurrency: Option<u32>,
    /// A name for lists and logs; the host's name and the process id if not given
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// End when nothing is pending, due or running in the queues
    #[arg(long)]
    pub burst: bool,
    /// Do not take part in firing delayed jobs
    #[arg(long)]
    pub no_scheduler: bool,
    /// Answer /metrics, /healthz and /readyz at this address; a port alone is one of 127.0.0.1, port 0 any that is free
    #[arg(long, value_name = "PORT|IP:PORT")]
    pub listen: Option<ListenAddress>,
}

/// `naq queue …`
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Every queue, with how much waits, runs and failed
    List,
    /// The numbers of one queue, by priority
    Stats {
        /// Which queue.
        queue: QueueName,
    },
    /// Stop starting jobs of a queue, on every worker; what runs goes on
    Pause {
        /// Which queue.
        queue: QueueName,
    },
    /// Start jobs of a paused queue again
    Resume {
        /// Which queue.
        queue: QueueName,
    },
    /// Cancel every pending job of a queue
    Purge {
        /// Which queue.
        queue: QueueName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// `naq dead …`
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// Failed jobs, newest last
    List {
        /// Only this queue
        #[arg(long)]
        queue: Option<QueueName>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Everything about one failed job
    Show {
        /// Its id.
        id: JobId,
    },
    /// Run failed jobs again, from their first attempt
    Retry {
        /// Their ids.
        #[arg(required_unless_present = "all")]
        ids: Vec<JobId>,
        /// All of them
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// With --all: only this queue
        #[arg(long, requires = "all")]
        queue: Option<QueueName>,
    },
    /// Delete failed jobs for good
    Purge {
        /// Only this queue
        #[arg(long)]
        queue: Option<QueueName>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// `naq system …`
#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    /// The version, and what it was built with
    Version,
    /// Check the store, its settings and its state, and say what to do
    Doctor,
    /// Every setting in effect and where it comes from; or only whether they are right
    Config(ConfigArgs),
    /// Print a commented configuration file with every setting
    GenerateConfig {
        /// What it is for: trying things out, a service, or automatic tests
        #[arg(long, value_name = "development|production|testing", default_value_t = Purpose::default(), value_parser = parse_purpose)]
        environment: Purpose,
    },
    /// Move everything from one store to another: jobs, dead letters, results, recurring jobs, pause flags
    ///
    /// Point the producers to the new store and stop the workers of the old one first; workers of the new one may run. It
    /// refuses while a worker or scheduler of the source is alive. Stopped or killed at any moment, call it again: it goes
    /// on, loses nothing and doubles nothing. What cannot be moved is named and stays at the source, with exit code 1.
    Migrate(MigrateArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// `naq system config …`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Print every setting, its value and where it comes from; so it is if nothing else is asked for
    #[arg(long, conflicts_with = "validate")]
    pub show: bool,
    /// Say everything that is wrong, and exit with 1 if there is something
    #[arg(long)]
    pub validate: bool,
}

/// `naq demo …`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The directory to count; the current one if not given
    pub dir: Option<PathBuf>,
    /// Jobs at a time
    #[arg(long, short = 'c', default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub concurrency: u32,
}

/// For clap: a duration as people write it.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|e| e.to_string())
}

/// For clap: what a configuration is for.
fn parse_purpose(text: &str) -> Result<Purpose, String> {
    text.parse().map_err(|e: UnknownWord| e.to_string())
}

/// For clap: an RFC 3339 time.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|e: naq_models::time::TimeError| e.to_string())
}

/// For clap: 0 to 3.
pub(crate) fn parse_priority(text: &str) -> Result<Priority, String> {
    let number: u8 = text.parse().map_err(|_| format!("{text:?} is not a priority: 0 (most urgent) to 3"))?;
    Priority::new(number).map_err(|e| e.to_string())
}

/// For clap: a job status.
pub(crate) fn parse_status(text: &str) -> Result<JobStatus, String> {
    text.parse().map_err(|e: naq_models::status::StatusError| e.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
