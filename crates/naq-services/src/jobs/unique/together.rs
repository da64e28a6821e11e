//! Keys of jobs that are stored all together or not at all.
//!
//! Invariant: the jobs are stored only while every key names its job; if one cannot be had, or the jobs are refused, the
//! keys are given back. Nobody waits for a key while it holds others, so callers with the same keys do not block each
//! other. A producer that dies in between leaves what the module above says of a single job, for each key.

use tokio::time::Instant;

use super::{Hold, LIMIT, PAUSE_MAX, PAUSE_MIN, Planned, Take, Want, keeps_changing, taken};
use crate::{
    jobs::{JobService, JobServiceError, JobServiceErrorKind, Receipt, Result, enqueue::receipt},
    storage::{EnqueuedAll, Entry},
};

impl JobService {
    /// Stores jobs with different ids, all or none.
    pub(in crate::jobs) async fn store_together(&self, planned: Vec<Planned>) -> Result<Vec<Receipt>> {
        let mut wants = Vec::new();
        let mut entries: Vec<Result<Entry>> = Vec::with_capacity(planned.len());
        for Planned { entry, want } in planned {
            wants.extend(want.map(|want| (*want, receipt(&entry))));
            entries.push(Ok(entry));
        }
        wants.sort_unstable_by(|(a, _), (b, _)| a.place.cmp(&b.place));
        if let Some([(_, first), (twice, _)]) =
            wants.array_windows().find(|[(first, _), (second, _)]| first.place == second.place)
        {
            return Err(taken(twice, first));
        }
        let holds = self.take_together(&wants).await?;
        let untold = self.to_tell(&entries).into_iter().flatten().collect();
        let entries: Vec<Entry> = entries.into_iter().flatten().collect();
        let receipts: Vec<Receipt> = entries.iter().map(receipt).collect();
        let stored = match self.storage().enqueue_all(entries).await {
            Ok(EnqueuedAll::Stored) => Ok(receipts),
            Ok(EnqueuedAll::Taken(at)) => {
                self.give_back_all(&wants, &holds).await;
                let message = format!("the id {} is taken; no job was enqueued", receipts[at].job_id);
                return Err(JobServiceError::new(JobServiceErrorKind::Conflict, message));
            }
            Err(source) => Err(JobServiceError::storage("cannot enqueue these jobs all or none", source)),
        };
        for ((want, receipt), hold) in wants.iter().zip(&holds) {
            let outcome = stored.as_ref().map(|_| receipt.clone()).map_err(Clone::clone);
            self.after_storing(want, hold, &outcome).await;
        }
        if stored.is_ok() {
            self.tell_stored(untold);
        }
        stored
    }

    /// Takes every key, in the order given, or none.
    async fn take_together(&self, wants: &[(Want, Receipt)]) -> Result<Vec<Hold>> {
        let (deadline, mut pause) = (Instant::now() + LIMIT, PAUSE_MIN);
        loop {
            let mut holds = Vec::with_capacity(wants.len());
            let in_the_way = loop {
                let Some((want, _)) = wants.get(holds.len()) else { return Ok(holds) };
                match self.take(want).await {
                    Ok(Take::Held(hold)) => holds.push(hold),
                    Ok(Take::Wait) => break None,
                    Ok(Take::Taken(receipt)) => break Some(taken(want, &receipt)),
                    Err(error) => break Some(error),
                }
            };
            self.give_back_all(wants, &holds).await;
            if let Some(error) = in_the_way {
                return Err(error);
            }
            if Instant::now() >= deadline {
                return Err(keeps_changing(&wants[holds.len()].0));
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    async fn give_back_all(&self, wants: &[(Want, Receipt)], holds: &[Hold]) {
        for ((want, _), hold) in wants.iter().zip(holds) {
            self.after_refusal(want, hold).await;
        }
    }
}
