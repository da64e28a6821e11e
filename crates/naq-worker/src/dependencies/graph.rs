//! [`Graph`]: which job waits for which, and what follows from each end.
//!
//! Invariant: pure bookkeeping. A job that waits stands here from when its entry was read until it is decided, and is
//! decided once; a dependency stands here while a job waits for it. Work per call grows with the edges that it touches, not
//! with what waits.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use naq_models::{Job, JobId, JobStatus, OnDependencyFailure, Timestamp, error_type};

use crate::clock::BootTime;

/// What is to happen to a job that waits no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// Every job it depends on has ended as it must.
    Release,
    /// It can never start.
    Refuse(Reason),
}

/// Why a job can never start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// That dependency has failed or was cancelled.
    Ended(JobId, JobStatus),
    /// There is no such job.
    Missing(JobId),
    /// The end of that dependency leaves no result.
    NoResult(JobId),
    /// It waits for itself through these, in the order of waiting.
    Cycle(Vec<JobId>),
}

impl Reason {
    pub(super) fn error_type(&self) -> &'static str {
        match self {
            Self::Ended(..) => error_type::DEPENDENCY_FAILED,
            Self::Missing(_) => error_type::DEPENDENCY_MISSING,
            Self::NoResult(_) => error_type::NO_RESULT_KEPT,
            Self::Cycle(_) => error_type::DEPENDENCY_CYCLE,
        }
    }
}

/// Members of a cycle that are named.
const NAMED: usize = 8;

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(id, JobStatus::Cancelled) => write!(f, "job {id}, on which it depends, was cancelled"),
            Self::Ended(id, _) => write!(f, "job {id}, on which it depends, failed"),
            Self::Missing(id) => write!(f, "there is no job {id}, on which it depends (or its result is not kept)"),
            Self::NoResult(id) => write!(f, "job {id}, on which it depends, keeps no result (its result_ttl is 0)"),
            Self::Cycle(ids) => {
                f.write_str("it waits for itself: ")?;
                for id in ids.iter().take(NAMED) {
                    write!(f, "{id} waits for ")?;
                }
                let first = ids.first().map_or("", JobId::as_str);
                if ids.len() > NAMED { f.write_str("…") } else { f.write_str(first) }
            }
        }
    }
}

/// A job that waits.
#[derive(Debug)]
struct Node {
    revision: u64,
    /// The dependencies that have not ended.
    open: HashSet<JobId>,
    /// It runs however they end.
    runs_anyway: bool,
    enqueued_at: Timestamp,
    /// When a dependency that is still missing counts as one that does not exist.
    deadline: Option<BootTime>,
}

/// A job that others wait for.
#[derive(Debug, Default)]
struct Dependency {
    dependants: HashSet<JobId>,
    /// Only a newer result is its end; `None` until it was looked at.
    generation: Option<u64>,
    missing: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<JobId, Node>,
    dependencies: HashMap<JobId, Dependency>,
    deadlines: BTreeSet<(BootTime, JobId)>,
    /// What is waited for from now on, and what no longer: for those who follow results.
    begun: Vec<JobId>,
    finished: Vec<JobId>,
    decided: BTreeMap<JobId, (u64, Decision)>,
}

impl Graph {
    /// Takes in a job that waits, at a revision of its entry; again if it has changed.
    pub(super) fn add(&mut self, job: &Job, revision: u64) {
        let id = &job.id;
        if let Some(node) = self.nodes.get(id) {
            if node.revision < revision {
                self.remove(&id.clone());
            } else {
                return;
            }
        }
        self.decided.remove(id);
        for dependency in &job.depends_on {
            let entry = self.dependencies.entry(dependency.clone()).or_insert_with(|| {
                self.begun.push(dependency.clone());
                Dependency::default()
            });
            entry.dependants.insert(id.clone());
        }
        let open: HashSet<JobId> = job.depends_on.iter().cloned().collect();
        let runs_anyway = job.on_dependency_failure == OnDependencyFailure::Run;
        if open.is_empty() {
            self.decided.insert(id.clone(), (revision, Decision::Release));
            return;
        }
        self.nodes
            .insert(id.clone(), Node { revision, open, runs_anyway, enqueued_at: job.enqueued_at, deadline: None });
        // Only a job that others wait for can close a cycle.
        if self.dependencies.contains_key(id)
            && let Some(cycle) = self.cycle_through(id)
        {
            for member in &cycle {
                self.decide(member, Decision::Refuse(Reason::Cycle(cycle.clone())));
            }
        }
    }

    /// The way from a job back to itself, if there is one.
    fn cycle_through(&self, start: &JobId) -> Option<Vec<JobId>> {
        let mut came_from: HashMap<&JobId, &JobId> = HashMap::new();
        let mut to_visit = vec![start];
        while let Some(at) = to_visit.pop() {
            for next in self.nodes.get(at).into_iter().flat_map(|node| &node.open) {
                if next == start {
                    let mut way = vec![at];
                    while let Some(before) = way.last().and_then(|last| came_from.get(last)) {
                        way.push(before);
                    }
                    return Some(way.into_iter().rev().cloned().collect());
                }
                if !came_from.contains_key(next) {
                    came_from.insert(next, at);
                    to_visit.push(next);
                }
            }
        }
        None
    }

    /// A dependency goes on; only a result that is newer than `generation` is its end.
    pub(super) fn goes_on(&mut self, id: &JobId, generation: u64) {
        if let Some(dependency) = self.dependencies.get_mut(id) {
            (dependency.generation, dependency.missing) = (Some(generation), false);
        }
    }

    /// A dependency was looked for and is not there. Those that wait for it go on waiting until their deadline, which a job
    /// is given when it first misses one, by the time of its enqueue; those whose deadline has passed wait no longer.
    pub(super) fn is_missing(&mut self, id: &JobId, now: BootTime, deadline: impl Fn(Timestamp) -> BootTime) {
        let Some(dependency) = self.dependencies.get_mut(id) else { return };
        (dependency.generation, dependency.missing) = (Some(0), true);
        for dependant in dependency.dependants.clone() {
            let Some(node) = self.nodes.get_mut(&dependant) else { continue };
            let until = *node.deadline.get_or_insert_with(|| {
                let until = deadline(node.enqueued_at);
                self.deadlines.insert((until, dependant.clone()));
                until
            });
            if until <= now {
                self.without(&dependant, id, Reason::Missing(id.clone()));
            }
        }
    }

    /// The end of a dependency will leave no trace.
    pub(super) fn keeps_no_result(&mut self, id: &JobId) {
        for dependant in self.dependants(id) {
            self.without(&dependant, id, Reason::NoResult(id.clone()));
        }
    }

    /// A job has ended.
    pub(super) fn ended(&mut self, id: &JobId, status: JobStatus) {
        for dependant in self.dependants(id) {
            if status == JobStatus::Completed {
                self.satisfy(&dependant, id);
            } else {
                self.without(&dependant, id, Reason::Ended(id.clone(), status));
            }
        }
    }

    pub(super) fn is_waited_for(&self, id: &JobId) -> bool {
        self.dependencies.contains_key(id)
    }

    /// The generation a dependency's end must be newer than; `None` if nobody waits for it, or it was not looked at yet.
    pub(super) fn generation(&self, id: &JobId) -> Option<u64> {
        self.dependencies.get(id)?.generation
    }

    /// When the next deadline passes.
    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The missing dependencies of jobs whose deadlines have passed: to be looked for once more.
    pub(super) fn overdue(&mut self, now: BootTime) -> HashSet<JobId> {
        let mut missing = HashSet::new();
        while self.deadlines.first().is_some_and(|(deadline, _)| *deadline <= now)
            && let Some((_, id)) = self.deadlines.pop_first()
        {
            let open = self.nodes.get(&id).into_iter().flat_map(|node| &node.open);
            missing.extend(open.filter(|id| self.dependencies.get(*id).is_some_and(|d| d.missing)).cloned());
        }
        missing
    }

    /// What is waited for since the last call, as far as it still is.
    pub(super) fn take_begun(&mut self) -> Vec<JobId> {
        let begun = std::mem::take(&mut self.begun);
        begun.into_iter().filter(|id| self.dependencies.contains_key(id)).collect()
    }

    /// What is no longer waited for since the last call.
    pub(super) fn take_finished(&mut self) -> Vec<JobId> {
        let finished = std::mem::take(&mut self.finished);
        finished.into_iter().filter(|id| !self.dependencies.contains_key(id)).collect()
    }

    /// Everything that is waited for.
    pub(super) fn all_dependencies(&self) -> Vec<JobId> {
        self.dependencies.keys().cloned().collect()
    }

    /// How many jobs are to be moved.
    pub(super) fn decided(&self) -> usize {
        self.decided.len()
    }

    /// Jobs that are to be moved, each with the revision of the entry that was decided about.
    pub(super) fn take_decided(&mut self) -> BTreeMap<JobId, (u64, Decision)> {
        std::mem::take(&mut self.decided)
    }

    /// Puts back what could not be done, unless the job was decided about anew.
    pub(super) fn put_back(&mut self, id: JobId, revision: u64, decision: Decision) {
        if !self.nodes.contains_key(&id) {
            self.decided.entry(id).or_insert((revision, decision));
        }
    }

    fn dependants(&self, id: &JobId) -> Vec<JobId> {
        self.dependencies.get(id).into_iter().flat_map(|dependency| dependency.dependants.iter().cloned()).collect()
    }

    fn without(&mut self, dependant: &JobId, dependency: &JobId, reason: Reason) {
        if self.nodes.get(dependant).is_some_and(|node| node.runs_anyway) {
            self.satisfy(dependant, dependency);
        } else {
            self.decide(dependant, Decision::Refuse(reason));
        }
    }

    fn satisfy(&mut self, dependant: &JobId, dependency: &JobId) {
        self.disconnect(dependant, dependency);
        let Some(node) = self.nodes.get_mut(dependant) else { return };
        node.open.remove(dependency);
        if node.open.is_empty() {
            self.decide(dependant, Decision::Release);
        }
    }

    fn decide(&mut self, id: &JobId, decision: Decision) {
        if let Some(revision) = self.remove(id) {
            self.decided.insert(id.clone(), (revision, decision));
        }
    }

    /// Forgets a job that waits; its revision.
    fn remove(&mut self, id: &JobId) -> Option<u64> {
        let node = self.nodes.remove(id)?;
        if let Some(deadline) = node.deadline {
            self.deadlines.remove(&(deadline, id.clone()));
        }
        for dependency in &node.open {
            self.disconnect(id, dependency);
        }
        Some(node.revision)
    }

    fn disconnect(&mut self, dependant: &JobId, dependency: &JobId) {
        if let Some(entry) = self.dependencies.get_mut(dependency) {
            entry.dependants.remove(dependant);
            if entry.dependants.is_empty() {
                self.dependencies.remove(dependency);
                self.finished.push(dependency.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
