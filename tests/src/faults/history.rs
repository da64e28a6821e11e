//! A history: one line of JSON for each thing that a process did or saw, in files beside the store under test.
//!
//! Invariant: a line is on the disk before whoever wrote it goes on, so that no kill takes back what others already act
//! upon. Lines are appended in one write; one that a kill cut off has no end of line and is left out. Times are boot-time
//! clock: one clock for all processes of the machine, which runs on when the date jumps.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::whole_lines;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When, see [`now`].
    pub at: Duration,
    /// The process that says so.
    pub pid: u32,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A producer is about to enqueue a job: it may be in the store from now on, whatever the producer is told.
    Enqueue {
        /// The job's id.
        job: String,
        /// What shall become of it.
        plan: Plan,
    },
    /// The store has acknowledged a job.
    Acknowledged {
        /// The job's id.
        job: String,
        /// The job that a unique key belongs to already; then this one was not stored.
        instead: Option<String>,
    },
    /// A leader shall fire a schedule at each of these times, `<schedule>_<unix ms>` being the id of the run.
    Scheduled {
        /// The id of the schedule.
        schedule: String,
        /// The first due time, unix milliseconds.
        first: i64,
        /// Milliseconds from one to the next.
        period: i64,
        /// How many.
        count: u32,
    },
    /// A handler begins.
    Start {
        /// The job's id.
        job: String,
        /// This very run; no other has the same.
        run: String,
        /// The attempt that the handler was told.
        attempt: u32,
    },
    /// A handler does what the job is for.
    Effect {
        /// The run.
        run: String,
    },
    /// A handler is about to return, or was told to stop.
    End {
        /// The run.
        run: String,
        /// How it ends.
        ending: Ending,
    },
    /// A fault begins; until its [`Event::Healed`] or the end of the history it is there.
    Fault {
        /// The number of the fault.
        fault: u32,
        /// What is done, for people.
        name: String,
        /// Who suffers it.
        scope: Scope,
    },
    /// A fault has ended: the process goes on, the server answers again, the network is whole.
    Healed {
        /// The number of the fault.
        fault: u32,
    },
    /// A process has died, whoever killed it: it did nothing after this.
    Died {
        /// The process.
        process: u32,
    },
    /// Somebody has looked at a job.
    Looked {
        /// The job's id.
        job: String,
        /// What there was.
        seen: Seen,
    },
}

/// What a job shall do, and what shall become of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// On so many attempts it fails.
    pub fails: u32,
    /// Attempts after the first.
    pub max_retries: u32,
    /// Its result is not kept.
    pub keeps_no_result: bool,
    /// Jobs that have to be completed before it starts.
    pub depends_on: Vec<String>,
    /// Nobody else may run while it has not ended.
    pub unique_key: Option<String>,
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It returns its value, which names the run.
    Completed,
    /// It returns an error, as planned.
    Failed,
    /// It was told to stop (a lost lease, a deploy) and does no more.
    Stopped,
}

/// Who suffers a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One process, which does nothing meanwhile: stopped.
    Frozen(u32),
    /// One process, which goes on: cut off, told to end, killed.
    Process(u32),
    /// All: the network, the disk, the clock.
    Everybody,
    /// All, and the store may not know any more what it did last.
    Store,
    /// Nobody: it must not show in any job.
    Nobody,
}

/// What a look at a job showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Seen {
    /// The store knows no such job.
    Nothing,
    /// It has not ended.
    Alive {
        /// Its status.
        status: String,
    },
    /// It has ended.
    Ended {
        /// `completed`, `failed` or `cancelled`.
        status: String,
        /// The attempt of the result.
        attempt: u32,
        /// The run that its value names.
        run: Option<String>,
        /// The type of its error.
        error_type: Option<String>,
    },
}

/// Boot-time clock.
pub fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("less than a second"))
}

/// Writes a part of a history. Processes and threads may share a file.
#[derive(Debug)]
pub struct Recorder(File);

impl Recorder {
    /// Appends to a file, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Recorder> {
        File::options().create(true).append(true).open(path).map(Recorder)
    }

    /// Writes down what this process did or saw just now; on the disk when it returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn record(&self, event: Event) -> io::Result<()> {
        let line = Line { at: now(), pid: std::process::id(), event };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        (&self.0).write_all(&text)?;
        self.0.sync_data()
    }
}

/// All lines of some files, oldest first.
///
/// # Errors
/// If a file cannot be read, or a whole line of it is not one of a history.
pub fn read<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for file in files {
        let file = file.as_ref();
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        for line in whole_lines(&text) {
            let line: Line =
                serde_json::from_str(line).with_context(|| format!("{}: not a line: {line}", file.display()))?;
            lines.push(line);
        }
    }
    // Stable: what one process did within one tick stays in its order.
    lines.sort_by_key(|line| line.at);
    Ok(lines)
}
