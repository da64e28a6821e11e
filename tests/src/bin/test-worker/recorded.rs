//! A job that tells the judge of faults what it does.
//!
//! Invariant: each run has a name of its own, which is its value too, so that a result says which run made it. A history
//! that cannot be written ends the process: what is not written down did not happen.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use naq::{CancellationToken, Failure, JobContext, Outcome};
use naq_tests::faults::{Ending, Event, Recorder, now};

/// Works for a time, does what it is for, and completes; on its first `fails` attempts it fails instead.
#[naq::job(kind = "t.recorded")]
async fn recorded(
    history: PathBuf,
    ms: u64,
    fails: u32,
    cx: JobContext,
    stop: CancellationToken,
) -> Result<Outcome<String>, Failure> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let recorder = Recorder::open(&history).expect("the history can be opened");
    let record = |event| recorder.record(event).expect("the history can be written");
    // A process number comes again, with time; not at the same moment.
    let run = format!("{}-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed), now().as_nanos());
    record(Event::Start { job: cx.id().to_string(), run: run.clone(), attempt: cx.attempt() });
    let end = |ending| record(Event::End { run: run.clone(), ending });
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(ms)) => {}
        () = stop.cancelled() => {
            end(Ending::Stopped);
            return Ok(Outcome::Retry { after: None, error: Failure::new("interrupted", "told to stop") });
        }
    }
    if cx.attempt() <= fails {
        end(Ending::Failed);
        return Err(Failure::new("boom", format!("attempt {}", cx.attempt())));
    }
    record(Event::Effect { run: run.clone() });
    end(Ending::Completed);
    Ok(Outcome::Complete(run))
}
