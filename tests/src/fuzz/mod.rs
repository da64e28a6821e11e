//! What is done with an input of the fuzz targets of `tests/fuzz`, which the tests replay their seeds with.
//!
//! Invariant: a function here is pure but for a temporary folder, and panics only where a promise is broken: no input may
//! be refused by a panic, and what is read means the same once it is written and read again. Not here: what makes inputs.
//!
//! A `mod.rs`, and on no other part of these tests, because `tests/fuzz` compiles it by its path.

mod config;
mod cron;
mod envelope;
mod jsonl;
mod migration;

pub use config::config;
pub use cron::cron;
pub use envelope::envelope;
pub use jsonl::jsonl;
pub use migration::migration;

use std::time::Duration;

use naq_models::{Address, Job, JobError, JobId, Next, Timestamp, Verdict, WireFormat, outcome, wire};

/// A fuzz target: its name, which is that of its file and of the folder of its seeds, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 5] =
    [("envelope", envelope), ("config", config), ("cron", cron), ("jsonl", jsonl), ("migration", migration)];

/// 2026-11-22T10:00:00.250Z: the time of everything here, so that an input means the same on every day.
fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_795_341_600_250).expect("a time of this century")
}

/// Writes a job in every form and reads it again.
fn assert_survives(job: &Job) {
    let address =
        Address { id: job.id.clone(), queue: job.queue.clone(), priority: job.priority, stored_at: Timestamp::EPOCH };
    for format in [WireFormat::Json, WireFormat::Bincode] {
        let bytes = wire::encode(job, format).expect("both forms are built in");
        let again = wire::decode(&bytes, &address).unwrap_or_else(|error| panic!("{format:?} of {job:?}: {error}"));
        assert_eq!(&again, job, "{format:?}");
    }
}

/// What a run can make of a job is a job as well.
fn assert_goes_on(job: &Job) {
    let error = || JobError::new("net", "no route", Timestamp::EPOCH);
    let verdicts = [
        Verdict::Error(error()),
        Verdict::Retry { after: Some(Duration::MAX), error: error() },
        Verdict::Fail(error()),
        Verdict::Snooze(Duration::MAX),
        Verdict::UnknownKind,
    ];
    for verdict in verdicts {
        match outcome::next(job, verdict, now(), 0.75) {
            Next::Again { job: next, .. } => {
                assert!(next.attempt >= job.attempt && next.run >= job.run, "{job:?} becomes {next:?}");
                assert_survives(&next);
            }
            Next::End { error, .. } => assert_bounded(&error.expect("none of these completes a job")),
        }
    }
    assert_survives(&job.clone().promoted());
    assert_survives(&job.clone().reborn(7));
}

/// The bounds of an error as it is stored.
fn assert_bounded(error: &JobError) {
    let backtrace = error.backtrace.as_ref().map_or(0, String::len);
    assert!(error.error_type.len() <= JobError::MAX_TYPE, "a type of {} bytes", error.error_type.len());
    assert!(error.message.len() <= JobError::MAX_MESSAGE, "a message of {} bytes", error.message.len());
    assert!(backtrace <= JobError::MAX_BACKTRACE, "a backtrace of {backtrace} bytes");
}

/// Why something was refused, for people: a text that does not grow with what was refused.
fn assert_short(error: &impl std::fmt::Display, max: usize) {
    let text = error.to_string();
    assert!(text.chars().count() <= max, "{} characters: {text}", text.chars().count());
}

fn id(text: &str) -> JobId {
    JobId::new(text).expect("a name within its bounds")
}
