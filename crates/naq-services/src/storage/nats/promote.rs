//! Promotion: due entries move into their queues.
//!
//! Order: read the result (a job that has ended loses its entry), claim the entry by compare-and-set, publish, remove
//! the entry. The claim keeps the entry's body and run, so that a second leader that finds it computes the same next run
//! and its publish is refused as the same.

use futures_util::{StreamExt, stream};

use super::{Shared, moves::Placed, repeat, scheduled::Waiting};
use crate::{
    kv_stores::is_live,
    storage::{Promoted, Promotion, Result, StorageError, StorageErrorKind, crash::crash_point},
    streams::{PublishFailure, Revisions, StoredMessage},
};

const OPERATION: &str = "promote";
/// Publishes that found their address taken, repaired at once.
const CONCURRENT: usize = 64;

struct Step {
    promotion: Promotion,
    outcome: Option<Result<Promoted>>,
    /// What is to be removed of the entry.
    remove: Option<Revisions>,
    claimed: bool,
}

impl Shared {
    pub(super) async fn promote(&self, promotions: Vec<Promotion>) -> Vec<Result<Promoted>> {
        let mut steps: Vec<Step> = promotions
            .into_iter()
            .map(|promotion| Step { promotion, outcome: None, remove: None, claimed: false })
            .collect();
        if let Err(error) = self.look_before_promoting(&mut steps).await {
            return steps.iter().map(|_| Err(repeat(&error, OPERATION))).collect();
        }
        self.publish_promoted(&mut steps).await;
        crash_point("nats.promote.published");
        self.remove_promoted(&mut steps).await;
        crash_point("nats.promote.done");
        let lost = || StorageError::new(StorageErrorKind::Timeout, OPERATION, "nothing was heard of it");
        steps.into_iter().map(|step| step.outcome.unwrap_or_else(|| Err(lost()))).collect()
    }

    /// Reads results and entries, and claims the entries of jobs that have not ended.
    async fn look_before_promoting(&self, steps: &mut [Step]) -> Result<()> {
        let now = self.now(OPERATION).await?;
        let what = steps
            .iter()
            .flat_map(|step| {
                let id = &step.promotion.entry.address.id;
                [
                    (self.names.results_stream(), self.names.result(id)),
                    (self.names.scheduled_stream(), self.names.scheduled(id)),
                ]
            })
            .collect();
        let mut found = self.streams.last_messages(what).await.into_iter();
        let mut claims = Vec::new();
        for (index, step) in steps.iter_mut().enumerate() {
            let (result, entry) = (found.next().unwrap_or(Ok(None)), found.next().unwrap_or(Ok(None)));
            let looked = result.and_then(|result| Ok((result, entry?)));
            let (result, entry) = match looked {
                Ok(looked) => looked,
                Err(failure) => {
                    step.outcome = Some(Err(self.streams.error(OPERATION, failure)));
                    continue;
                }
            };
            if let Some(waiting) = self.look_at(step, result.filter(|result| is_live(result, now)), entry) {
                let message = self.promoting_message(&waiting, step.promotion.entry.generation);
                claims.push(((index, waiting.revisions), message));
            }
        }
        let (which, messages): (Vec<_>, Vec<_>) = claims.into_iter().unzip();
        let answers = self.streams.publish_all(Box::new(messages.into_iter())).await;
        crash_point("nats.promote.claimed");
        for ((index, revisions), answer) in which.into_iter().zip(answers) {
            let step = &mut steps[index];
            match answer {
                Ok(revision) => {
                    step.claimed = true;
                    step.remove = Some(revisions.and(revision));
                }
                Err(PublishFailure::Conflict) => step.outcome = Some(Ok(Promoted::Superseded)),
                Err(failure) => step.outcome = Some(Err(self.streams.publish_error(OPERATION, failure))),
            }
        }
        Ok(())
    }

    /// Decides about one entry; the entry, if it is to be moved.
    fn look_at(&self, step: &mut Step, result: Option<StoredMessage>, entry: Option<StoredMessage>) -> Option<Waiting> {
        let promotion = &step.promotion;
        let id = &promotion.entry.address.id;
        let Some(entry) = entry else {
            self.due.gone(id, promotion.revision);
            step.outcome = Some(Ok(Promoted::Superseded));
            return None;
        };
        if entry.sequence != promotion.revision {
            step.outcome = Some(Ok(Promoted::Superseded));
            return None;
        }
        if result.is_some_and(|result| result.sequence > promotion.entry.generation) {
            step.outcome = Some(Ok(Promoted::AlreadyEnded));
            step.remove = Some(Revisions::of(&entry));
            return None;
        }
        let waiting = Waiting::read(id.clone(), entry);
        if waiting.is_none() {
            let detail = format!("the scheduled entry of job {id} cannot be read");
            step.outcome = Some(Err(StorageError::new(StorageErrorKind::Corrupt, OPERATION, detail)));
        }
        waiting
    }

    async fn publish_promoted(&self, steps: &mut [Step]) {
        let claimed: Vec<usize> = (0..steps.len()).filter(|index| steps[*index].claimed).collect();
        let mut ready = Vec::with_capacity(claimed.len());
        for index in claimed {
            match self.ensure_queue(&steps[index].promotion.entry.address.queue).await {
                Ok(()) => ready.push(index),
                Err(error) => steps[index].outcome = Some(Err(error)),
            }
        }
        let messages = ready.iter().map(|index| self.job_message(&steps[*index].promotion.entry, true));
        let answers = self.streams.publish_all(Box::new(messages)).await;
        let mut again = Vec::new();
        for (index, answer) in ready.into_iter().zip(answers) {
            match answer {
                Ok(_) => steps[index].outcome = Some(Ok(Promoted::Done)),
                // Taken, or unknown: one by one, by what holds the address.
                Err(_) => again.push(index),
            }
        }
        let placed: Vec<(usize, Result<Placed>)> = stream::iter(again)
            .map(|index| {
                let entry = &steps[index].promotion.entry;
                async move { (index, self.publish_run(entry, OPERATION).await) }
            })
            .buffer_unordered(CONCURRENT)
            .collect()
            .await;
        for (index, placed) in placed {
            steps[index].outcome = Some(placed.map(|placed| match placed {
                Placed::Now | Placed::Before => Promoted::Done,
                Placed::Later => Promoted::Superseded,
            }));
        }
    }

    async fn remove_promoted(&self, steps: &mut [Step]) {
        let (which, entries): (Vec<usize>, Vec<_>) = (0..steps.len())
            .filter(|index| !matches!(steps[*index].outcome, Some(Err(_))))
            .filter_map(|index| {
                let step = &steps[index];
                Some((index, (&step.promotion.entry.address.id, step.remove.clone()?)))
            })
            .unzip();
        let removed = self.remove_scheduled(entries).await;
        for (index, removed) in which.into_iter().zip(removed) {
            // The job is in its queue; the entry that stays is promoted again and refused as the same run.
            if let Err(error) = removed {
                steps[index].outcome = Some(Err(error));
            }
        }
    }
}
