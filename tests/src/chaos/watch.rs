//! The watch: looks at jobs while things break, and at all of them at the end.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use naq_models::{JobId, JobResult, QueueName, ScheduleId, schedule::ScheduleStatus};
use naq_services::{JobService, JobServiceErrorKind, SchedulerService, jobs::ResultState};
use rand::{RngExt as _, rngs::StdRng};
use tokio::time::{Instant, sleep};

use super::chronicle::Chronicle;
use crate::{
    faults::{Event, Line, Seen},
    whole_lines,
};

/// Jobs looked at each time.
const LOOKS: usize = 10;
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Watch<'a> {
    chronicle: &'a Chronicle,
    jobs: JobService,
    history: PathBuf,
    /// Bytes of the history that were read.
    read: u64,
    /// The jobs that somebody asked for in these.
    known: Vec<String>,
    dice: StdRng,
}

impl<'a> Watch<'a> {
    pub(super) fn new(chronicle: &'a Chronicle, jobs: JobService, history: &Path, dice: StdRng) -> Self {
        Watch { chronicle, jobs, history: history.to_owned(), read: 0, known: Vec::new(), dice }
    }

    /// Looks at some jobs now and then; never ends but by an error of the harness.
    pub(super) async fn keep(&mut self) -> Result<()> {
        loop {
            sleep(PAUSE).await;
            self.learn()?;
            for _ in 0..LOOKS.min(self.known.len()) {
                let id = &self.known[self.dice.random_range(0..self.known.len())];
                // The store may be away at this moment.
                if let Ok(seen) = self.look(id).await {
                    self.chronicle.looked(id, seen)?;
                }
            }
        }
    }

    /// Looks at every job that somebody asked for.
    pub(super) async fn look_at_all(&mut self) -> Result<()> {
        self.learn()?;
        for id in &self.known {
            self.chronicle.looked(id, self.look(id).await?)?;
        }
        Ok(())
    }

    /// Waits until a schedule has completed and nothing is left to do; says what is left at the limit, which the judge will see, too.
    pub(super) async fn drained(&self, limit: Duration, schedule: &str) -> Result<()> {
        let (queue, schedule) = (QueueName::default(), ScheduleId::new(schedule)?);
        let schedules = SchedulerService::new(self.jobs.clone());
        let (until, mut empty) = (Instant::now() + limit, false);
        loop {
            let report = self.jobs.queue(&queue).await;
            let record = schedules.get(&schedule).await;
            let fired = record
                .as_ref()
                .is_ok_and(|record| record.status == ScheduleStatus::Completed && record.pending.is_empty());
            let now = fired
                && report.as_ref().is_ok_and(|report| {
                    report.pending + report.running + report.scheduled + report.retry + report.waiting == 0
                });
            // Twice in a row: a job that moves from one to the other between two counts is in none of them.
            if now && std::mem::replace(&mut empty, now) {
                return Ok(());
            }
            if Instant::now() > until {
                self.chronicle.say(&format!("not drained within {limit:?}: {report:?}, {record:?}"));
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Reads what was written since the last time.
    fn learn(&mut self) -> Result<()> {
        let mut file = File::open(&self.history)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        for line in whole_lines(&text) {
            self.read += line.len() as u64 + 1;
            match serde_json::from_str::<Line>(line)?.event {
                Event::Enqueue { job, .. } => self.known.push(job),
                Event::Scheduled { schedule, first, period, count } => {
                    let due = (0..i64::from(count)).map(|number| first + number * period);
                    self.known.extend(due.map(|due| format!("{schedule}_{due}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn look(&self, id: &str) -> Result<Seen> {
        let id = JobId::new(id)?;
        Ok(match self.jobs.result(&id).await {
            Ok(ResultState::Ended(result)) => ended(&result)?,
            Ok(ResultState::Unfinished(view)) => Seen::Alive { status: view.status.to_string() },
            Err(error) if error.kind() == JobServiceErrorKind::NotFound => Seen::Nothing,
            Err(error) if error.kind() == JobServiceErrorKind::NoResultKept => {
                let view = self.jobs.status(&id).await?;
                let status = view.status.to_string();
                if view.status.is_terminal() {
                    let error_type = view.error.map(|error| error.error_type);
                    Seen::Ended { status, attempt: view.attempt, run: None, error_type }
                } else {
                    Seen::Alive { status }
                }
            }
            Err(error) => return Err(error).with_context(|| format!("cannot look at {id}")),
        })
    }
}

fn ended(result: &JobResult) -> Result<Seen> {
    let run = result.result.as_ref().map(|value| value.to::<String>()).transpose()?;
    let error_type = result.error.as_ref().map(|error| error.error_type.clone());
    Ok(Seen::Ended { status: result.status.to_string(), attempt: result.attempt, run, error_type })
}
