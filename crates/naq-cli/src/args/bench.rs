//! `naq bench` as types: the questions that can be asked, and how large the answers are.

use clap::{Args, ValueEnum};
use serde::Serialize;

/// What can be measured, in the order in which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Storing jobs: one by one, pipelined, in bulk
    Enqueue,
    /// Running what waits: with results and without, by slots
    Run,
    /// Storing and running at the same time: what the pair keeps up
    Mixed,
    /// From enqueue to start and to result, at 10 %, 50 % and 90 % of what `mixed` keeps up
    Latency,
    /// Storing and running by the size of the arguments
    Payload,
    /// One worker over 1, 10 and 1000 queues
    Queues,
    /// Running while a million jobs wait, against 20 000
    Depth,
    /// Delayed jobs that are all due at once
    Delayed,
    /// Jobs that fail once and are retried at once
    Retries,
    /// Jobs that wait for another job: many for one, and a chain
    Dependants,
    /// Storing jobs with unique keys
    Unique,
    /// From starting a worker's process to its first job
    Startup,
    /// CPU time of an idle worker's process
    Idle,
    /// Resident memory of an idle worker's process
    Memory,
    /// A worker is killed: until its jobs have run again on another
    Recovery,
}

impl Question {
    /// What is asked where nothing is named: what ends within about two minutes.
    pub const USUAL: [Self; 12] = [
        Self::Enqueue,
        Self::Run,
        Self::Mixed,
        Self::Latency,
        Self::Payload,
        Self::Delayed,
        Self::Retries,
        Self::Dependants,
        Self::Unique,
        Self::Startup,
        Self::Idle,
        Self::Memory,
    ];

    /// As it is typed.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// `naq bench …`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure; all but queues, depth and recovery if nothing is named
    #[arg(value_enum, value_name = "QUESTION", conflicts_with_all = ["all", "clean"])]
    pub questions: Vec<Question>,
    /// Measure everything
    #[arg(long, conflicts_with = "clean")]
    pub all: bool,
    /// Few jobs, one round: to see that it works
    #[arg(long)]
    pub quick: bool,
    /// Jobs of a round [default: 20000; of depth 1000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(20..=10_000_000))]
    pub jobs: Option<u32>,
    /// Bytes of a job's arguments
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(32..=64 << 20))]
    pub payload: u32,
    /// Rounds of each rate, of which the median counts [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,
    /// Print the report as JSON, as --output json does
    #[arg(long)]
    pub json: bool,
    /// Measure nothing; remove what a run that was killed has left in the store. Not while another one measures
    #[arg(long)]
    pub clean: bool,
    /// What the worker in another process is told.
    #[arg(long, hide = true, value_name = "JSON", conflicts_with_all = ["questions", "all", "clean"])]
    pub as_worker: Option<String>,
}
