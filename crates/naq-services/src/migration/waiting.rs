//! The scheduled store: delayed jobs, retries, and jobs that wait for jobs.
//!
//! Invariant: a job that waits for others goes after all of them. At the destination a job that is not there counts as
//! missing after a minute, and whoever waits for it is cancelled; so one that waits for a job which is left, is left too.

use std::collections::{HashMap, HashSet};

use naq_models::{Job, JobId, JobStatus, wire};

use super::{
    BATCH, LeftWhat, Passage, Result, Run,
    ended::Pages,
    error::storage,
    journal::is_held,
    passage::{Place, entry_of, lives},
};
use crate::storage::{Entry, ScheduledEntry, Sighting};

/// Ids, and what each of them waits for among them.
type Graph = HashMap<JobId, Vec<JobId>>;

impl Run<'_> {
    pub(super) async fn carry_scheduled(&mut self) -> Result<()> {
        let mut pages = Pages::of(self.from, &[JobStatus::Scheduled, JobStatus::Retry]);
        while let Some(items) = pages.next().await? {
            let mut passages = Vec::with_capacity(items.len());
            for item in items {
                let Sighting::Scheduled(entry) = item else { continue };
                if is_held(entry.run_at) {
                    let id = entry.address.id;
                    self.left(LeftWhat::Job, id, "a migration to this store was cut off: finish that one first")?;
                } else {
                    passages.push(passage(entry));
                }
            }
            self.carry(passages).await?;
        }
        Ok(())
    }

    pub(super) async fn carry_waiting(&mut self) -> Result<()> {
        for level in levels(self.waiting().await?) {
            for ids in level.chunks(BATCH) {
                self.carry_dependants(ids).await?;
            }
        }
        Ok(())
    }

    /// Every job that waits for jobs, with those it waits for. Only ids: a leader keeps as much.
    async fn waiting(&self) -> Result<Graph> {
        let (mut graph, mut pages) = (Graph::new(), Pages::of(self.from, &[JobStatus::Waiting]));
        while let Some(items) = pages.next().await? {
            for item in items {
                let Sighting::Scheduled(entry) = item else { continue };
                let job = wire::decode(&entry.body, &entry.address).ok();
                graph.insert(entry.address.id, job.map(|job| job.depends_on).unwrap_or_default());
            }
        }
        let known: HashSet<JobId> = graph.keys().cloned().collect();
        graph.values_mut().for_each(|awaited| awaited.retain(|id| known.contains(id)));
        Ok(graph)
    }

    async fn carry_dependants(&mut self, ids: &[JobId]) -> Result<()> {
        let found = self.from.storage().get_scheduled(ids).await.map_err(storage("cannot read jobs that wait"))?;
        let (mut passages, mut alive) = (Vec::new(), HashMap::new());
        for entry in found.into_iter().flatten() {
            let passage = passage(entry);
            match self.awaits_one_left(passage.job.as_ref(), &mut alive).await? {
                None => passages.push(passage),
                Some(id) => self.leave(passage, format!("it waits for job {id}, which is still at the source"))?,
            }
        }
        self.carry(passages).await
    }

    /// The first job that a job waits for and that lives at the source. `alive` remembers what was asked.
    async fn awaits_one_left(&self, job: Option<&Job>, alive: &mut HashMap<JobId, bool>) -> Result<Option<JobId>> {
        for id in job.iter().flat_map(|job| &job.depends_on) {
            let lives_there = match alive.get(id) {
                Some(known) => *known,
                None => lives(&**self.from.storage(), id).await?,
            };
            alive.insert(id.clone(), lives_there);
            if lives_there {
                return Ok(Some(id.clone()));
            }
        }
        Ok(None)
    }
}

fn passage(found: ScheduledEntry) -> Passage {
    let ScheduledEntry { address, status, run_at, run, body, .. } = found;
    let job = wire::decode(&body, &address).ok();
    let entry = Entry { run_at, run, ..entry_of(address, body, job.as_ref(), status) };
    Passage::new(entry, job, Place::Scheduled)
}

/// The jobs of a graph, those that wait for none of it first, then those that wait for these, and so on. Those that wait
/// for themselves come last.
fn levels(mut graph: Graph) -> Vec<Vec<JobId>> {
    let mut dependants: HashMap<JobId, Vec<JobId>> = HashMap::new();
    for (id, awaited) in &graph {
        for other in awaited {
            dependants.entry(other.clone()).or_default().push(id.clone());
        }
    }
    let mut levels = Vec::new();
    let mut level: Vec<JobId> =
        graph.iter().filter(|(_, awaited)| awaited.is_empty()).map(|(id, _)| id.clone()).collect();
    while !level.is_empty() {
        let mut next = Vec::new();
        for id in &level {
            graph.remove(id);
            for dependant in dependants.remove(id).unwrap_or_default() {
                let Some(awaited) = graph.get_mut(&dependant) else { continue };
                if let Some(at) = awaited.iter().position(|other| other == id) {
                    awaited.swap_remove(at);
                    if awaited.is_empty() {
                        next.push(dependant);
                    }
                }
            }
        }
        levels.push(std::mem::replace(&mut level, next));
    }
    levels.push(graph.into_keys().collect());
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> JobId {
        JobId::new(name).unwrap()
    }

    #[test]
    fn whoever_waits_comes_after_all_it_waits_for() {
        let edges: [(&str, &[&str]); 7] = [
            ("a", &[]),
            ("b", &["a"]),
            ("c", &["a", "b", "a"]),
            ("d", &["c", "a"]),
            ("x", &["y"]),
            ("y", &["x"]),
            ("z", &["x", "a"]),
        ];
        let graph = edges.iter().map(|(name, awaited)| (id(name), awaited.iter().map(|name| id(name)).collect()));
        let mut levels = levels(graph.collect());
        levels.iter_mut().for_each(|level| level.sort());
        let expected: [&[&str]; 5] = [&["a"], &["b"], &["c"], &["d"], &["x", "y", "z"]];
        assert_eq!(levels, expected.map(|level| level.iter().map(|name| id(name)).collect::<Vec<_>>()));
    }
}
