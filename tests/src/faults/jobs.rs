//! The same history, job by job.

use std::{collections::BTreeMap, time::Duration};

use super::{
    history::{Ending, Event, Line, Plan, Seen},
    lives::{Lives, Span},
};

/// A job, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) plan: Plan,
    /// A producer tried to enqueue it, or a schedule was due.
    pub(super) asked: bool,
    /// The store has it: from then on it may not be lost.
    pub(super) acknowledged: bool,
    /// It is the run of a schedule.
    pub(super) due: bool,
    /// The store has named another job that has its unique key.
    pub(super) instead: Option<String>,
    /// In the order of their beginning.
    pub(super) runs: Vec<Run>,
    pub(super) looks: Vec<(Duration, Seen)>,
}

/// A handler's run of a job.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) attempt: u32,
    pub(super) start: Duration,
    pub(super) effect: Option<Duration>,
    pub(super) ending: Option<(Duration, Ending)>,
}

impl Run {
    /// When it was over: it ended, or its process did.
    pub(super) fn until(&self, lives: &Lives) -> Duration {
        let ended = self.ending.map(|(at, _)| at);
        ended.or_else(|| lives.death(self.pid, self.start)).unwrap_or(lives.end)
    }

    pub(super) fn ended(&self, how: Ending) -> bool {
        self.ending.is_some_and(|(_, ending)| ending == how)
    }

    /// Its process died before it ended.
    pub(super) fn died(&self, lives: &Lives) -> bool {
        self.ending.is_none() && lives.death(self.pid, self.start).is_some()
    }
}

impl Story {
    pub(super) fn last(&self) -> Option<&Seen> {
        self.looks.last().map(|(_, seen)| seen)
    }

    /// The first time that it was seen to have ended.
    pub(super) fn seen_ended(&self) -> Option<Duration> {
        self.looks.iter().find(|(_, seen)| matches!(seen, Seen::Ended { .. })).map(|&(at, _)| at)
    }

    /// Whether the store has it or had it, whatever its producer was told.
    pub(super) fn existed(&self) -> bool {
        self.acknowledged || !self.runs.is_empty() || self.looks.iter().any(|(_, seen)| *seen != Seen::Nothing)
    }

    /// When its effect first happened.
    pub(super) fn effect(&self) -> Option<Duration> {
        self.runs.iter().filter_map(|run| run.effect).min()
    }

    /// From its first run until the first of them completed, else to the end of the last: a run that slept through the
    /// completion of another is none of the job any more.
    pub(super) fn lived(&self, lives: &Lives) -> Option<Span> {
        let first = self.runs.first()?.start;
        let completed = self.runs.iter().filter(|run| run.ended(Ending::Completed)).map(|run| run.until(lives)).min();
        Some((first, completed.or_else(|| self.runs.iter().map(|run| run.until(lives)).max())?))
    }
}

/// Everything that is known of jobs, and what cannot be.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) stories: BTreeMap<String, Story>,
    /// Where the history contradicts itself: a job or run, and how.
    pub(super) contradictions: Vec<(String, String)>,
}

impl Jobs {
    pub(super) fn of(lines: &[Line]) -> Jobs {
        let mut jobs = Jobs::default();
        // Of the runs: their job, and their place among its runs.
        let mut runs: BTreeMap<&str, (String, usize)> = BTreeMap::new();
        for Line { at, pid, event } in lines {
            match event {
                Event::Enqueue { job, plan } => {
                    let story = jobs.story(job);
                    (story.plan, story.asked) = (plan.clone(), true);
                }
                Event::Acknowledged { job, instead } => {
                    let story = jobs.story(job);
                    story.instead.clone_from(instead);
                    story.acknowledged = instead.is_none();
                }
                Event::Scheduled { schedule, first, period, count } => {
                    for number in 0..i64::from(*count) {
                        let story = jobs.story(&format!("{schedule}_{}", first + number * period));
                        (story.asked, story.acknowledged, story.due) = (true, true, true);
                    }
                }
                Event::Start { job, run, attempt } => {
                    let story = jobs.story(job);
                    let begun =
                        Run { name: run.clone(), pid: *pid, attempt: *attempt, start: *at, effect: None, ending: None };
                    story.runs.push(begun);
                    let place = story.runs.len() - 1;
                    if runs.insert(run, (job.clone(), place)).is_some() {
                        jobs.contradictions.push((job.clone(), format!("run {run} begins twice")));
                    }
                }
                Event::Effect { run } | Event::End { run, .. } => {
                    let Some((job, place)) = runs.get(run.as_str()) else {
                        jobs.contradictions.push((run.clone(), "a run that never began".to_owned()));
                        continue;
                    };
                    let story = jobs.stories.get_mut(job).expect("a run that began belongs to a job");
                    let known = &mut story.runs[*place];
                    if let Some((_, ending)) = known.ending {
                        jobs.contradictions.push((job.clone(), format!("run {run} goes on after it has {ending:?}")));
                    } else if let Event::End { ending, .. } = event {
                        known.ending = Some((*at, *ending));
                    } else {
                        known.effect = Some(*at);
                    }
                }
                Event::Looked { job, seen } => jobs.story(job).looks.push((*at, seen.clone())),
                Event::Fault { .. } | Event::Healed { .. } | Event::Died { .. } => {}
            }
        }
        jobs
    }

    fn story(&mut self, job: &str) -> &mut Story {
        self.stories.entry(job.to_owned()).or_default()
    }
}
