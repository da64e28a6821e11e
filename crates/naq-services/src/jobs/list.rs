//! Lists of jobs, page by page.
//!
//! Invariant: a page holds each job once, as it stands, and at most `limit` of them; one call looks at a bounded number
//! of jobs, however few match.

use std::collections::HashMap;

use naq_models::{JobId, JobStatus, QueueName};
use serde::Serialize;

use super::{JobService, JobServiceError, JobStatusView, Result, sight::Trace};
use crate::storage::{ListFilter, Sighting};

/// After so many jobs a page is given back as it is, with a cursor to go on from.
const MAX_SCANNED: usize = 100_000;

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFilter {
    /// Only this queue.
    pub queue: Option<QueueName>,
    /// Only these states; empty for all. `failed` lists dead letters.
    pub statuses: Vec<JobStatus>,
    /// Only this kind.
    pub kind: Option<String>,
    /// At most so many jobs a page; 0 counts as 1.
    pub limit: usize,
    /// [`JobPage::next`] of the page before.
    pub cursor: Option<String>,
}

impl Default for JobFilter {
    /// The first 100 jobs of any state.
    fn default() -> Self {
        Self { queue: None, statuses: Vec::new(), kind: None, limit: 100, cursor: None }
    }
}

impl JobFilter {
    fn matches(&self, view: &JobStatusView) -> bool {
        self.queue.as_ref().is_none_or(|queue| *queue == view.queue)
            && (self.statuses.is_empty() || self.statuses.contains(&view.status))
            && self.kind.as_ref().is_none_or(|kind| *kind == view.kind)
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct JobPage {
    /// The jobs. A page may hold fewer than the limit, even none, and not be the last.
    pub jobs: Vec<JobStatusView>,
    /// Jobs whose stored result cannot be read.
    pub unreadable: Vec<JobId>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

impl JobService {
    /// One page of the jobs that match. While jobs move, one that moves may be seen twice or not at all.
    ///
    /// # Errors
    /// If the store fails or does not know the cursor.
    pub async fn list(&self, filter: &JobFilter) -> Result<JobPage> {
        let limit = filter.limit.max(1);
        let mut page = JobPage { next: filter.cursor.clone(), ..JobPage::default() };
        let mut scanned = 0;
        loop {
            let ask = ListFilter {
                queue: filter.queue.clone(),
                statuses: filter.statuses.clone(),
                limit: limit - page.jobs.len(),
                cursor: page.next.take(),
            };
            let found = self.storage().list(&ask).await;
            let found = found.map_err(|source| JobServiceError::storage("cannot list jobs", source))?;
            scanned += found.items.len();
            let (traces, unreadable) = group(found.items);
            page.unreadable.extend(unreadable);
            page.jobs.extend(traces.iter().map(Trace::view).filter(|view| filter.matches(view)));
            page.next = found.next;
            if page.next.is_none() || page.jobs.len() >= limit || scanned >= MAX_SCANNED {
                return Ok(page);
            }
        }
    }
}

/// The newest trace of each job, in the order of the list.
fn group(sightings: Vec<Sighting>) -> (Vec<Trace>, Vec<JobId>) {
    let mut order: Vec<Trace> = Vec::with_capacity(sightings.len());
    let mut places: HashMap<JobId, usize> = HashMap::with_capacity(sightings.len());
    let mut unreadable = Vec::new();
    for sighting in sightings {
        let id = sighting.id().clone();
        let Ok(trace) = Trace::read(sighting) else {
            unreadable.push(id);
            continue;
        };
        // A failure is listed by its dead letter: once the letter is purged, nothing can be done about it.
        if matches!(&trace, Trace::Ended { result, .. } if result.status == JobStatus::Failed) {
            continue;
        }
        match places.get(&id) {
            Some(&at) if order[at].rank() >= trace.rank() => {}
            Some(&at) => order[at] = trace,
            None => {
                places.insert(id, order.len());
                order.push(trace);
            }
        }
    }
    (order, unreadable)
}
