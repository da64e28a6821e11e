//! [`Load`]: the jobs that are stored, and how many of them.
//!
//! Invariant: sizes follow from the command line alone, so that two calls with the same words measure the same.

use std::time::Duration;

use naq_models::RawJson;
use naq_services::{NewJob, new_job::secs};
use serde::{Deserialize, Serialize};

use super::{ground::QUEUE, report::grouped};
use crate::args::BenchArgs;

/// The kind of every job of a measurement.
pub(super) const KIND: &str = "bench.job";
/// How long a result is kept where one is: longer than any measurement.
const RESULT_TTL: Duration = secs(24 * 3600);

/// Arguments of a given size, with a number that tells jobs apart.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Payload {
    /// Which job of its round.
    pub(super) number: usize,
    data: String,
}

/// How large a measurement is.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Bytes of a job's arguments.
    pub(super) payload: usize,
    /// Jobs of a round.
    pub(super) jobs: usize,
    /// Jobs that wait while the rate at that depth is measured.
    pub(super) depth: usize,
    /// The most queues that one worker serves.
    pub(super) many: usize,
    /// Rounds of each rate.
    pub(super) rounds: usize,
    /// How long an idle process is watched, and jobs arrive at one rate.
    pub(super) watch: Duration,
    args: RawJson,
}

impl Load {
    pub(super) fn of(args: &BenchArgs) -> Self {
        let (jobs, depth, many, rounds, watch) =
            if args.quick { (2_000, 50_000, 100, 1, secs(1)) } else { (20_000, 1_000_000, 1_000, 3, secs(5)) };
        let asked = args.jobs.map(|jobs| jobs as usize);
        let load = Self {
            payload: 0,
            jobs: asked.unwrap_or(jobs),
            depth: asked.unwrap_or(depth),
            many,
            rounds: args.rounds.map_or(rounds, |rounds| rounds as usize),
            watch,
            args: RawJson::null(),
        };
        load.sized(args.payload as usize)
    }

    /// The same with arguments of another size.
    pub(super) fn sized(&self, payload: usize) -> Self {
        let numbered = numbered(payload, 0);
        let args = RawJson::from_value(&numbered).expect("a number and a text are JSON");
        Self { payload: args.get().len(), args, ..self.clone() }
    }

    /// The same with another number of jobs.
    pub(super) fn of_jobs(&self, jobs: usize) -> Self {
        Self { jobs, ..self.clone() }
    }

    /// A job whose result is kept.
    pub(super) fn job(&self) -> NewJob {
        NewJob::new(KIND, &self.args).queue(QUEUE).result_ttl(RESULT_TTL)
    }

    /// The same, with its number in its arguments.
    pub(super) fn numbered(&self, number: usize) -> NewJob {
        NewJob::new(KIND, numbered(self.payload, number)).queue(QUEUE).result_ttl(RESULT_TTL)
    }

    /// For people: size and number of jobs.
    pub(super) fn text(&self) -> String {
        format!("{} B payload, {} jobs", grouped(self.payload), grouped(self.jobs))
    }
}

/// Arguments of exactly so many bytes, or as few as they can have.
fn numbered(bytes: usize, number: usize) -> Payload {
    let around = r#"{"number":,"data":""}"#.len() + number.to_string().len();
    Payload { number, data: "x".repeat(bytes.saturating_sub(around)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_that_was_asked_for() {
        for (bytes, number) in [(32, 0), (64, 99_999), (65_536, 7)] {
            assert_eq!(RawJson::from_value(&numbered(bytes, number)).unwrap().get().len(), bytes);
        }
    }
}
