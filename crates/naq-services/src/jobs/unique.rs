//! Unique jobs: a key of the store keeps a second job like this one out.
//!
//! Invariant: a job with a key is stored only by who has written its id into the key, by create or compare-and-set. A
//! receipt for another job is given only for one that is there. Jobs without a key pass by here at no cost.
//!
//! The order of an enqueue, and what a producer that dies after a write leaves behind:
//!
//! | write | left behind |
//! |---|---|
//! | key: created, or taken over from a job that has ended | a key whose job is absent: free after [`STALE`] |
//! | key taken over from a live job (`replaces` names it) | the same; until then the key's job counts as absent, and afterwards the one it was to replace has it again |
//! | the job | for `while = ttl`, a key that does not say `stored`: free once its job has gone without a trace. For a replacement, two live jobs, of which the key names the newer one: the other is cancelled when it is about to start ([`admit`]) |
//! | `stored` into the key (`while = ttl` only) | nothing |
//! | the replaced job ended | nothing |
//!
//! Of two producers one wins the create or the compare-and-set; the other looks at the winner's job, and waits for it while
//! it is absent and its key fresh. A producer that is held up for longer than [`STALE`] between key and job may store a
//! second job; that one too is cancelled when it is about to start, if the key holds until the end. The end of a job frees the key only if it names that
//! job, so that an end which comes after a takeover frees nothing. A job that starts while it is being replaced is
//! cancelled like any running job.
//!
//! Not here: freeing keys (the end of a job, in the store), how a key is made ([`naq_models::unique`]).

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt, stream};
use naq_models::{Job, JobId, OnConflict, QueueName, UniqueWhile};
use tokio::time::Instant;

use super::{JobService, JobServiceError, JobServiceErrorKind, Receipt, Result, tell::Untold};
use crate::storage::Entry;

mod admission;
mod take;
mod together;

pub use admission::{Admission, admit};
use take::{Hold, Take};

/// How long a key whose job is not there is respected.
pub(super) const STALE: Duration = Duration::from_secs(30);
/// How long a producer waits for keys: for stale ones, and for others who wait for them too.
const LIMIT: Duration = Duration::from_secs(60);
/// Pauses of a producer that waits for the job of a fresh key.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Keys that are taken at once.
const CONCURRENT: usize = 64;

/// A finished envelope on its way into a store, with what is not part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The envelope.
    pub job: Job,
    /// What is to happen if another job has its unique key.
    pub on_conflict: OnConflict,
}

impl From<Job> for Submission {
    fn from(job: Job) -> Self {
        Self { job, on_conflict: OnConflict::default() }
    }
}

/// An entry, and the key that it needs.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) entry: Entry,
    pub(super) want: Option<Box<Want>>,
}

/// A job that wants a key.
#[derive(Debug, Clone)]
pub(super) struct Want {
    key: String,
    /// Where the key lies.
    place: String,
    holds: UniqueWhile,
    ttl: Option<Duration>,
    on_conflict: OnConflict,
    id: JobId,
    queue: QueueName,
    generation: u64,
}

impl Want {
    /// What a job wants in the life that starts from `generation`; `None` if it has no key.
    pub(super) fn of(job: &Job, on_conflict: OnConflict, generation: u64) -> Option<Box<Self>> {
        let unique = job.unique.as_ref()?;
        Some(Box::new(Self {
            key: unique.key.clone(),
            place: unique.place(),
            holds: unique.holds,
            ttl: unique.ttl.map(|ttl| ttl.0),
            on_conflict,
            id: job.id.clone(),
            queue: job.queue.clone(),
            generation,
        }))
    }
}

/// One job of a batch that is not decided yet.
struct Open {
    at: usize,
    entry: Entry,
    want: Box<Want>,
}

type Outcomes = Vec<Option<Result<Receipt>>>;

impl JobService {
    /// Stores a batch, one outcome each, in order. Rounds: take the keys that are to be had, store their jobs at once (a key
    /// must not wait for another's), look again for the rest.
    pub(super) async fn store_planned(
        &self,
        batch: Vec<Result<Planned>>,
        untold: &mut Vec<Untold>,
    ) -> Vec<Result<Receipt>> {
        if batch.iter().flatten().all(|planned| planned.want.is_none()) {
            return self.store_batch(batch.into_iter().map(|planned| Ok(planned?.entry)).collect(), untold).await;
        }
        let mut outcomes: Outcomes = batch.iter().map(|_| None).collect();
        let (mut plain, mut open) = (Vec::new(), Vec::new());
        for (at, planned) in batch.into_iter().enumerate() {
            match planned {
                Err(refused) => outcomes[at] = Some(Err(refused)),
                Ok(Planned { entry, want: None }) => plain.push((at, entry)),
                Ok(Planned { entry, want: Some(want) }) => open.push(Open { at, entry, want }),
            }
        }
        let (deadline, mut pause) = (Instant::now() + LIMIT, PAUSE_MIN);
        while !plain.is_empty() || !open.is_empty() {
            let before = open.len();
            open = self.round(std::mem::take(&mut plain), open, &mut outcomes, untold).await;
            if open.is_empty() || open.len() < before {
                continue;
            }
            if Instant::now() >= deadline {
                for Open { at, want, .. } in open.drain(..) {
                    outcomes[at] = Some(Err(keeps_changing(&want)));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
        outcomes.into_iter().map(|outcome| outcome.expect("the loop ends when all are decided")).collect()
    }

    /// Decides what can be decided now; returns the rest.
    async fn round(
        &self,
        plain: Vec<(usize, Entry)>,
        open: Vec<Open>,
        outcomes: &mut Outcomes,
        untold: &mut Vec<Untold>,
    ) -> Vec<Open> {
        let (first, later) = first_of_each_key(open);
        let takes: Vec<Result<Take>> =
            stream::iter(0..first.len()).map(|n| self.take(&first[n].want)).buffered(CONCURRENT).collect().await;
        let mut storing: Vec<_> = plain.into_iter().map(|(at, entry)| (at, entry, None)).collect();
        let (mut rest, mut decided) = (Vec::new(), HashMap::new());
        for (open, take) in first.into_iter().zip(takes) {
            match take {
                Ok(Take::Held(hold)) => storing.push((open.at, open.entry, Some((open.want, hold)))),
                Ok(Take::Wait) => rest.push(open),
                Ok(Take::Taken(receipt)) => {
                    decided.insert(open.want.place, receipt.clone());
                    outcomes[open.at] = Some(Ok(receipt));
                }
                Err(error) => outcomes[open.at] = Some(Err(error)),
            }
        }
        storing.sort_unstable_by_key(|(at, ..)| *at);
        let (mut places, mut entries) = (Vec::with_capacity(storing.len()), Vec::with_capacity(storing.len()));
        for (at, entry, held) in storing {
            places.push((at, held));
            entries.push(Ok(entry));
        }
        let stored = self.store_batch(entries, untold).await;
        let finishing = places.into_iter().zip(stored).map(|((at, held), stored)| self.finish(at, held, stored));
        let finished: Vec<_> = stream::iter(finishing).buffered(CONCURRENT).collect().await;
        for (at, place, outcome) in finished {
            if let (Some(place), Ok(receipt)) = (place, &outcome) {
                decided.insert(place, receipt.clone());
            }
            outcomes[at] = Some(outcome);
        }
        for open in later {
            match (decided.get(&open.want.place), open.want.on_conflict) {
                (Some(receipt), OnConflict::Existing) => {
                    outcomes[open.at] = Some(Ok(Receipt { duplicate: true, ..receipt.clone() }));
                }
                (Some(receipt), OnConflict::Error) => outcomes[open.at] = Some(Err(taken(&open.want, receipt))),
                (Some(_), OnConflict::Replace) | (None, _) => rest.push(open),
            }
        }
        rest
    }

    /// What follows the attempt to store one job of a round: its place in the batch, its key, its outcome.
    async fn finish(
        &self,
        at: usize,
        held: Option<(Box<Want>, Hold)>,
        stored: Result<Receipt>,
    ) -> (usize, Option<String>, Result<Receipt>) {
        let Some((want, hold)) = held else { return (at, None, stored) };
        self.after_storing(&want, &hold, &stored).await;
        (at, Some(want.place), stored)
    }

    /// Takes the key of a job again that starts a new life, if its key holds until its end. Should the new life not begin,
    /// the key's job is absent.
    pub(super) async fn take_for_new_life(&self, job: &Job) -> Result<()> {
        let want = Want::of(job, OnConflict::Error, job.generation).filter(|want| want.holds == UniqueWhile::Active);
        let Some(want) = want else { return Ok(()) };
        let (deadline, mut pause) = (Instant::now() + LIMIT, PAUSE_MIN);
        loop {
            match self.take(&want).await? {
                Take::Held(_) => return Ok(()),
                Take::Taken(receipt) => return Err(taken(&want, &receipt)),
                Take::Wait if Instant::now() >= deadline => return Err(keeps_changing(&want)),
                Take::Wait => tokio::time::sleep(pause).await,
            }
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }
}

impl JobService {
    /// Takes the key of a job that comes from another store and is not stored here yet; `false` if another job has it.
    pub(crate) async fn take_key_for_newcomer(&self, job: &Job) -> Result<bool> {
        match Want::of(job, OnConflict::Existing, job.generation) {
            Some(want) => Ok(matches!(self.take(&want).await?, Take::Held(_))),
            None => Ok(true),
        }
    }
}

/// Those that come first among the ones with their key, and the others, both in order.
fn first_of_each_key(open: Vec<Open>) -> (Vec<Open>, Vec<Open>) {
    let mut seen = std::collections::HashSet::new();
    open.into_iter().partition(|open| seen.insert(open.want.place.clone()))
}

fn taken(want: &Want, receipt: &Receipt) -> JobServiceError {
    let Receipt { job_id, status, .. } = receipt;
    let message = format!("the unique key {:?} is held by job {job_id}, which is {status}", want.key);
    JobServiceError::new(JobServiceErrorKind::KeyTaken, message)
}

fn keeps_changing(want: &Want) -> JobServiceError {
    let message = format!("the unique key {:?} is being taken by others over and over", want.key);
    JobServiceError::new(JobServiceErrorKind::Conflict, message).with_hint("try again in a minute")
}
