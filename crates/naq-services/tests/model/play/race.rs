//! Both clients at the same moment: of two calls that exclude each other exactly one wins.

use std::fmt::Debug;

use bytes::Bytes;
use naq_models::JobStatus;
use naq_services::storage::{Action, Ended, Enqueued, Promoted, Settled, StorageError, StorageErrorKind};

use super::{Play, Verdict, keys::KEY_PLACES, only, pending, pick, said, stored};
use crate::{
    op::{Race, When},
    state::{Entry, Place, Value},
};

impl Play {
    pub(super) async fn race(&mut self, race: Race) -> Verdict {
        let [a, b] = self.stores.clone();
        match race {
            Race::Enqueue { id: n } => {
                let lives = [self.new_life(n, 0, When::Now).0, self.new_life(n, 1, When::Now).0];
                let (one, other) =
                    tokio::join!(a.enqueue(vec![pending(&lives[0])]), b.enqueue(vec![pending(&lives[1])]));
                let answers = [only(one, "enqueue")?, only(other, "enqueue")?];
                let won = winner("enqueue", answers, Enqueued::Stored, Enqueued::Duplicate, self.entries[n].is_free())?;
                if let Some(won) = won {
                    self.put(n, lives[won].clone(), JobStatus::Pending).await?;
                }
                self.look(n).await
            }
            Race::End { job } => {
                let Some(n) = pick(&self.entries, job, |entry| entry.place != Place::Nowhere) else { return Ok(()) };
                let ((one, first), (other, second)) = (self.ending(n), self.ending(n));
                let (one, other) = tokio::join!(a.end(one), b.end(other));
                let answers = [said("end", one)?, said("end", other)?];
                let won = winner("end", answers, Ended::Done, Ended::AlreadyEnded, true)?;
                self.ended(n, Some(if won == Some(0) { first } else { second })).await?;
                self.too_late(0, n).await
            }
            Race::EndAndSettle { claim } => {
                if self.held.is_empty() {
                    return Ok(());
                }
                let held = self.held.swap_remove(claim % self.held.len());
                let n = held.entry;
                let (ending, cancelled) = self.ending(n);
                let completed = self.result(&self.entries[n].job.clone(), JobStatus::Completed);
                let action = Action::End { result: Some(completed.clone()), dead_letter: None, unique_key: None };
                let (ended, settled) = tokio::join!(a.end(ending), b.settle(vec![Self::settlement(&held, action)]));
                let record = match (said("end", ended)?, only(settled, "settle")?) {
                    (Ended::Done, Settled::AlreadyEnded) => cancelled,
                    (Ended::AlreadyEnded, Settled::Done) => completed,
                    both => return Err(format!("an end and a settlement at once: {both:?}")),
                };
                self.ended(n, Some(record)).await
            }
            Race::Requeue { job } => {
                let Some(n) = pick(&self.entries, job, Entry::has_ended) else { return Ok(()) };
                let next = self.reborn(n);
                let (one, other) = tokio::join!(a.requeue(pending(&next)), b.requeue(pending(&next)));
                let answers = [said("requeue", one)?, said("requeue", other)?];
                winner("requeue", answers, Enqueued::Stored, Enqueued::Duplicate, true)?;
                self.entries[n].letter = false;
                self.put(n, next, JobStatus::Pending).await?;
                self.look(n).await
            }
            Race::Promote { job } => {
                let Some(n) = pick(&self.entries, job, |entry| entry.waits().is_some()) else { return Ok(()) };
                let Some((revision, _)) = self.entries[n].waits() else { return Ok(()) };
                let (promotion, promoted) = self.promotion(n, revision);
                let (one, other) = tokio::join!(a.promote(vec![promotion.clone()]), b.promote(vec![promotion]));
                let answers = [only(one, "promote")?, only(other, "promote")?];
                winner("promote", answers, Promoted::Done, Promoted::Superseded, true)?;
                self.put(n, promoted, JobStatus::Pending).await?;
                self.look(n).await
            }
            Race::PromoteAndReschedule { job } => {
                let timed = |entry: &Entry| entry.waits().is_some_and(|(_, status)| status != JobStatus::Waiting);
                let Some(n) = pick(&self.entries, job, timed) else { return Ok(()) };
                let Some((revision, status)) = self.entries[n].waits() else { return Ok(()) };
                let (promotion, promoted) = self.promotion(n, revision);
                let moved = self.moved(n);
                let (one, other) =
                    tokio::join!(a.promote(vec![promotion]), b.reschedule(stored(&moved, status), revision));
                match (only(one, "promote")?, other.map_err(|error| error.kind())) {
                    (Promoted::Done, Err(StorageErrorKind::Conflict)) => {
                        self.put(n, promoted, JobStatus::Pending).await?;
                    }
                    (Promoted::Superseded, Ok(())) => self.put(n, moved, status).await?,
                    both => return Err(format!("a promotion and another time at once: {both:?}")),
                }
                self.look(n).await
            }
            Race::UpdateKey { key } => {
                let Some(present) = self.keys[key].clone() else { return Ok(()) };
                let ((bucket, name), values) = (KEY_PLACES[key], [Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
                let (one, other) = tokio::join!(
                    a.kv_update(bucket, name, values[0].clone(), present.revision, None),
                    b.kv_update(bucket, name, values[1].clone(), present.revision, None),
                );
                let kinds = (one.as_ref().map_err(StorageError::kind), other.as_ref().map_err(StorageError::kind));
                let (won, revision) = match kinds {
                    (Ok(revision), Err(StorageErrorKind::Conflict)) => (0, *revision),
                    (Err(StorageErrorKind::Conflict), Ok(revision)) => (1, *revision),
                    both => return Err(format!("two updates at once: {both:?}")),
                };
                self.keys[key] = Some(Value { value: values[won].clone(), revision });
                self.look_at_key(key).await
            }
        }
    }
}

/// Which of two calls won: one if there is something to win, none otherwise.
fn winner<T: PartialEq + Debug>(what: &str, answers: [T; 2], won: T, lost: T, open: bool) -> Verdict<Option<usize>> {
    match answers {
        [one, other] if open && one == won && other == lost => Ok(Some(0)),
        [one, other] if open && one == lost && other == won => Ok(Some(1)),
        [one, other] if !open && one == lost && other == lost => Ok(None),
        both => Err(format!("{what}, twice at once: {both:?}")),
    }
}
