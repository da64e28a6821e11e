//! What is left of jobs that ended in another store.
//!
//! Invariant: dead letter, then result, so that a result says that all is there; both only for an id that does not live
//! here and has left nothing here. A chosen id is held by its key meanwhile, so that no producer stores it beside. A crash
//! after the letter is finished by the same call made again.

use naq_models::JobId;

use super::{Shared, reserve::Reserved, results::Written};
use crate::{
    patterns::gather_with_concurrency,
    storage::{Enqueued, Remains, Result, Sighting, crash::crash_point},
};

/// Remains that are stored at once.
const CONCURRENT: usize = 64;

impl Shared {
    pub(super) async fn store_remains(&self, remains: Vec<Remains>) -> Vec<Result<Enqueued>> {
        let stores = (0..remains.len()).map(|n| self.store_remains_of(&remains[n]));
        gather_with_concurrency(stores, CONCURRENT).await
    }

    async fn store_remains_of(&self, remains: &Remains) -> Result<Enqueued> {
        let Remains { address, result, dead_letter } = remains;
        let bodies = result.iter().map(|record| &record.body).chain(dead_letter.iter().map(|letter| &letter.body));
        for body in bodies {
            self.check_size("store remains", body)?;
        }
        if self.get_result(&address.id).await?.is_some() {
            return Ok(Enqueued::Duplicate);
        }
        if address.id.is_generated() && dead_letter.is_none() {
            // It lives here only if a person started it anew, and then its result has been here.
            return self.write_remains(remains).await;
        }
        if self.lives(&address.id).await? {
            return Ok(Enqueued::Duplicate);
        }
        if !address.id.is_generated() {
            if self.reserve(address, 0).await? == Reserved::Taken {
                return Ok(Enqueued::Duplicate);
            }
            crash_point("nats.remains.id");
        }
        let stored = self.write_remains(remains).await;
        self.release_ids(&[address]).await.pop().unwrap_or(Ok(()))?;
        stored
    }

    async fn write_remains(&self, remains: &Remains) -> Result<Enqueued> {
        let Remains { address, result, dead_letter } = remains;
        if let Some(letter) = dead_letter {
            if result.is_none() && self.dead_message_of(&address.id).await?.is_some() {
                return Ok(Enqueued::Duplicate);
            }
            self.write_dead(&[(letter, 0)]).await.pop().unwrap_or(Ok(()))?;
            crash_point("nats.remains.dead_letter");
        }
        let Some(record) = result else { return Ok(Enqueued::Stored) };
        let written = self.write_results(&[(&address.id, record)]).await.pop();
        crash_point("nats.remains.result");
        Ok(match written.unwrap_or(Ok(Written::Won))? {
            Written::Won => Enqueued::Stored,
            Written::Lost(_) => Enqueued::Duplicate,
        })
    }

    async fn lives(&self, id: &JobId) -> Result<bool> {
        let seen = self.look_for(id).await?;
        Ok(seen.iter().any(|sighting| matches!(sighting, Sighting::Queued { .. } | Sighting::Scheduled(_))))
    }
}
