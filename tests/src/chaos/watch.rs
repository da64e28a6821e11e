//! The watch: looks at jobs while things break, and at all of them at the end.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use naq_models::{JobId, JobResult, QueueName, ScheduleId, schedule::ScheduleStatus};
use naq_services::{JobService, JobServiceErrorKind, SchedulerService, jobs::ResultState};
use rand::{RngExt as _, rngs::StdRng};
use tokio::time::{Instant, sleep};

use super::chronicle::Chronicle;
use crate::faults::{Event, Seen, read};

/// Jobs looked at each time.
const LOOKS: usize = 10;
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Watch<'a> {
    pub(super) chronicle: &'a Chronicle,
    pub(super) jobs: JobService,
    pub(super) history: PathBuf,
    pub(super) dice: StdRng,
}

impl Watch<'_> {
    /// Looks at some jobs now and then; never ends but by an error of the harness.
    pub(super) async fn keep(&mut self) -> Result<()> {
        loop {
            sleep(PAUSE).await;
            let known: Vec<String> = self.known()?.into_iter().collect();
            for _ in 0..LOOKS.min(known.len()) {
                let id = &known[self.dice.random_range(0..known.len())];
                // The store may be away at this moment.
                if let Ok(seen) = self.look(id).await {
                    self.chronicle.looked(id, seen)?;
                }
            }
        }
    }

    /// Looks at every job that somebody asked for.
    pub(super) async fn look_at_all(&self) -> Result<()> {
        for id in self.known()? {
            self.chronicle.looked(&id, self.look(&id).await?)?;
        }
        Ok(())
    }

    /// Waits until a schedule has completed and nothing is left to do.
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
                bail!("not drained within {limit:?}: {report:?}, {record:?}");
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    fn known(&self) -> Result<BTreeSet<String>> {
        let mut known = BTreeSet::new();
        for line in read([&self.history])? {
            match line.event {
                Event::Enqueue { job, .. } => drop(known.insert(job)),
                Event::Scheduled { schedule, first, period, count } => {
                    known.extend((0..i64::from(count)).map(|number| format!("{schedule}_{}", first + number * period)));
                }
                _ => {}
            }
        }
        Ok(known)
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
