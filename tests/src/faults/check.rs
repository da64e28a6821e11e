//! The judge: a history against the promises.
//!
//! *Which repetitions are explained.* A job may run again after a fault that its worker suffered, alone or with everybody, while
//! it ran or just after: then its lease or its settlement may have been lost. Without such a fault a second run of the same
//! attempt is a broken promise. Two runs may never be awake at once, fault or not: the first has to notice that its lease
//! is lost before another can have it.
//!
//! *What a store forgets.* A NATS server that is killed, or a copy that takes over, may not know what it delivered just before
//! ([`Rules::memory`]): it delivers that again at once, whoever runs it. And it brings back what it had removed, so that a job of
//! which nothing was kept may run again. Both are counted as forgotten, and broken promises without such a fault.

use std::{collections::BTreeMap, time::Duration};

use super::{
    history::{Ending, Line, Seen},
    jobs::{Jobs, Run, Story},
    lives::Lives,
    verdict::{Counts, Rule, Verdict},
};

/// How the system under test was configured, as far as it decides what is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How long a job stays with a worker that is silent.
    pub lease: Duration,
    /// What a loaded machine may add: between the end of a lease and the moment at which a handler has noticed it, between
    /// two processes that write about one thing.
    pub slack: Duration,
    /// How long a store that is killed may not have noted yet to whom it gave a job; zero for one that notes it first.
    pub memory: Duration,
    /// A job that so many workers died with, or let its lease run out, may end as `worker_lost`.
    pub max_crashes: usize,
}

/// Judges a history; its lines are in the order of their times.
pub fn check(lines: &[Line], rules: &Rules) -> Verdict {
    let jobs = Jobs::of(lines);
    let judge = Judge { jobs: &jobs.stories, lives: &Lives::of(lines), rules };
    let mut verdict = Verdict::default();
    for (of, text) in &jobs.contradictions {
        verdict.broken(Rule::Contradiction, of, text);
    }
    for (id, story) in &jobs.stories {
        judge.known(id, story, &mut verdict);
        judge.end(id, story, &mut verdict);
        judge.result(id, story, &mut verdict);
        judge.attempts(id, story, &mut verdict);
        judge.repetitions(id, story, &mut verdict);
        judge.overlaps(id, story, &mut verdict);
        judge.order(id, story, &mut verdict);
    }
    judge.unique(&mut verdict);
    judge.count(&mut verdict.counts);
    verdict
}

struct Judge<'a> {
    jobs: &'a BTreeMap<String, Story>,
    lives: &'a Lives,
    rules: &'a Rules,
}

impl Judge<'_> {
    /// For so long after a fault its consequences show.
    fn reach(&self) -> Duration {
        self.rules.lease + self.rules.slack
    }

    /// Only what was asked for may run.
    fn known(&self, id: &str, story: &Story, verdict: &mut Verdict) {
        if !story.asked && !story.runs.is_empty() {
            let schedule = |id: &str| id.rsplit_once('_').map(|(schedule, _)| schedule.to_owned());
            if self.jobs.iter().any(|(other, story)| story.due && schedule(other) == schedule(id)) {
                verdict.broken(Rule::FiredWrong, id, "ran, and is no due time of its schedule");
            } else {
                verdict.broken(Rule::Contradiction, id, "ran, and nobody enqueued it");
            }
        }
        if let Some(instead) = &story.instead
            && !story.runs.is_empty()
        {
            verdict.broken(Rule::Unique, id, format!("its key belongs to {instead}, and yet it ran"));
        }
    }

    /// What the store has ends, and ends as planned.
    fn end(&self, id: &str, story: &Story, verdict: &mut Verdict) {
        if !story.asked || story.instead.is_some() {
            return;
        }
        match story.last() {
            None => verdict.broken(Rule::Contradiction, id, "nobody looked at it at the end"),
            Some(Seen::Alive { status }) => verdict.broken(Rule::Stuck, id, format!("is still {status}")),
            Some(Seen::Nothing) if story.plan.keeps_no_result || !story.existed() => {
                if story.acknowledged && !story.runs.iter().any(|run| run.ended(Ending::Completed)) {
                    verdict.broken(Rule::Lost, id, "acknowledged, gone, and never run to its end");
                }
            }
            Some(Seen::Nothing) if story.due && story.runs.is_empty() => {
                verdict.broken(Rule::Missed, id, "this due time was not fired");
            }
            Some(Seen::Nothing) => {
                verdict.broken(Rule::Lost, id, format!("gone without a result, after {} runs", story.runs.len()));
            }
            Some(Seen::Ended { status, attempt, error_type, .. }) => {
                let told = format!("{status} in attempt {attempt} ({})", error_type.as_deref().unwrap_or("no error"));
                if let Err(planned) = self.planned(story, status, *attempt, error_type.as_deref()) {
                    verdict.broken(Rule::WrongEnd, id, format!("{told}, and not {planned}"));
                }
            }
        }
    }

    /// Whether a job ended as it should; else how it should have ended.
    fn planned(&self, story: &Story, status: &str, attempt: u32, error_type: Option<&str>) -> Result<(), String> {
        // A lease that ran out counts as a worker that died, and so does an end that did not reach the store: nobody can tell.
        let unsettled = |run: &&Run| run.attempt == attempt || run.died(self.lives) || run.ended(Ending::Stopped);
        let lost = story.runs.iter().filter(unsettled).count();
        if status == "failed" && error_type == Some("worker_lost") && lost >= self.rules.max_crashes {
            return Ok(());
        }
        let forsaken = story.plan.depends_on.iter().any(|parent| !self.has_completed(parent));
        let limit = story.plan.max_retries + 1;
        let (right, last) = if forsaken {
            ("cancelled", 1)
        } else if story.plan.fails >= limit {
            ("failed", limit)
        } else {
            ("completed", story.plan.fails + 1)
        };
        if (status, attempt) == (right, last) { Ok(()) } else { Err(format!("{right} in attempt {last}")) }
    }

    fn has_completed(&self, id: &str) -> bool {
        let last = self.jobs.get(id).and_then(Story::last);
        matches!(last, Some(Seen::Ended { status, .. }) if status == "completed")
    }

    /// A result is written once, and by a run that completed.
    fn result(&self, id: &str, story: &Story, verdict: &mut Verdict) {
        let mut first: Option<&Seen> = None;
        for (_, seen) in &story.looks {
            match (first, seen) {
                (None, Seen::Ended { .. }) => first = Some(seen),
                (Some(before), after) if before != after && !story.plan.keeps_no_result => {
                    verdict.broken(Rule::Result, id, format!("was {before:?}, then {after:?}"));
                    break;
                }
                _ => {}
            }
        }
        let Some(Seen::Ended { status, attempt, run, .. }) = first else { return };
        if status != "completed" {
            return;
        }
        let by = story.runs.iter().find(|known| Some(&known.name) == run.as_ref());
        if !by.is_some_and(|by| by.effect.is_some() && by.ended(Ending::Completed) && by.attempt == *attempt) {
            verdict.broken(Rule::Result, id, format!("completed by {run:?}, which did not complete attempt {attempt}"));
        }
    }

    /// No attempt above the limit, and none before the one before has failed.
    fn attempts(&self, id: &str, story: &Story, verdict: &mut Verdict) {
        let limit = story.plan.max_retries + 1;
        for run in &story.runs {
            let number = run.attempt;
            let failed = |before: &Run| {
                before.attempt + 1 == number && before.start <= run.start && before.ended(Ending::Failed)
            };
            if number == 0 || number > limit {
                verdict.broken(Rule::Attempts, id, format!("attempt {number} of {limit}"));
            } else if number > 1 && !story.runs.iter().any(failed) {
                verdict.broken(Rule::Attempts, id, format!("attempt {number}, and no attempt {} failed", number - 1));
            }
        }
    }

    /// Each attempt runs once, unless its worker suffered something; what has ended does not run.
    fn repetitions(&self, id: &str, story: &Story, verdict: &mut Verdict) {
        let reach = self.reach();
        for (place, run) in story.runs.iter().enumerate() {
            if let Some(seen) = story.seen_ended()
                && run.start > seen + self.rules.slack
                && !self.lives.suffered(run.pid, (seen.saturating_sub(reach), run.start))
            {
                verdict.broken(
                    Rule::RunAgain,
                    id,
                    format!("{} began when the job had been seen to have ended", run.name),
                );
                continue;
            }
            let Some(before) = story.runs[..place].iter().rev().find(|before| before.attempt == run.attempt) else {
                continue;
            };
            let until = run.start.min(before.until(self.lives) + reach);
            // It had the job first and was stopped at the last moment before it began; it noticed before it had done anything.
            let woke_up_late = run.effect.is_none()
                && self.lives.suffered(run.pid, (run.start.saturating_sub(self.rules.slack), run.start));
            let came_late = story.plan.keeps_no_result
                && story.runs[..place].iter().any(|earlier| {
                    self.lives.suffered(earlier.pid, (earlier.start, earlier.until(self.lives) + reach))
                        && self.lives.suffered(earlier.pid, (run.start.saturating_sub(reach), run.start))
                });
            let cut_off = self.lives.suffered(before.pid, (before.start.saturating_sub(reach), until));
            if woke_up_late || came_late || cut_off {
                verdict.counts.run_again += 1;
            } else if story.plan.keeps_no_result && self.lives.forgot((before.start, run.start)) {
                verdict.counts.forgotten += 1;
            } else {
                let text = format!("attempt {} ran as {} and as {}", run.attempt, before.name, run.name);
                verdict.broken(Rule::RunAgain, id, text);
            }
        }
    }

    /// No two runs of a job are awake at once.
    fn overlaps(&self, id: &str, story: &Story, verdict: &mut Verdict) {
        for (place, second) in story.runs.iter().enumerate() {
            for first in &story.runs[..place] {
                let both = self.both_awake(first, second);
                if both <= self.rules.slack {
                    continue;
                }
                // Also just after: what it knows from before and what it gives anew can be of one job.
                let just_before = first.start.saturating_sub(self.rules.memory);
                if self.rules.memory > Duration::ZERO
                    && self.lives.forgot((just_before, first.start + self.rules.memory))
                {
                    verdict.counts.forgotten += 1;
                } else {
                    let text = format!("{} and {} ran at once for {both:.1?}", first.name, second.name);
                    verdict.broken(Rule::Overlap, id, text);
                }
            }
        }
    }

    /// How long two runs, of which the first began first, were awake at once.
    fn both_awake(&self, first: &Run, second: &Run) -> Duration {
        let until = first.until(self.lives).min(second.until(self.lives));
        self.lives.awake([first.pid, second.pid], (second.start, until))
    }

    /// What depends on others starts when they have completed.
    fn order(&self, id: &str, story: &Story, verdict: &mut Verdict) {
        let Some(first) = story.runs.first() else { return };
        for parent in &story.plan.depends_on {
            let effect = self.jobs.get(parent).and_then(Story::effect);
            if effect.is_none_or(|effect| effect > first.start) {
                verdict.broken(Rule::Early, id, format!("began before {parent} had done its work"));
            }
        }
    }

    /// While one job of a key is between its first run and its last, no other runs.
    fn unique(&self, verdict: &mut Verdict) {
        let mut by_key: BTreeMap<&str, Vec<(&String, &Story)>> = BTreeMap::new();
        for (id, story) in self.jobs {
            if let Some(key) = &story.plan.unique_key {
                by_key.entry(key).or_default().push((id, story));
            }
        }
        for (key, jobs) in by_key {
            for (id, story) in &jobs {
                let Some((from, until)) = story.lived(self.lives) else { continue };
                let others = jobs.iter().filter(|(other, _)| other != id);
                for (other, run) in others.flat_map(|(other, story)| story.runs.iter().map(move |run| (other, run))) {
                    if run.start > from && run.start + self.rules.slack < until {
                        verdict.broken(Rule::Unique, key, format!("{other} began while {id} had not ended"));
                    }
                }
            }
        }
    }

    fn count(&self, counts: &mut Counts) {
        let asked = || self.jobs.values().filter(|story| story.asked);
        counts.jobs = asked().count();
        counts.acknowledged = asked().filter(|story| story.acknowledged).count();
        let unanswered = |story: &&Story| !story.acknowledged && story.instead.is_none() && story.existed();
        counts.unanswered_yet_there = asked().filter(unanswered).count();
        counts.runs = self.jobs.values().map(|story| story.runs.len()).sum();
        let effects = |story: &Story| story.runs.iter().filter(|run| run.effect.is_some()).count();
        counts.effect_again = self.jobs.values().filter(|story| effects(story) > 1).count();
        counts.faults = self.lives.faults();
    }
}
