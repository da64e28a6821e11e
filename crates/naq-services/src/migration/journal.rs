//! [`Journal`]: which jobs are between the stores, so that a migration that was killed is finished by the next.
//!
//! Invariant: a key of the source (`migration` in [`Bucket::Control`]) names every job that may be held at the destination,
//! and what it is to become, before it is held. A mark of the same name as the migration lies at the destination: by it a
//! migration that goes elsewhere, or from a store to itself, is told before anything moves.

use std::time::Duration;

use naq_models::{JobId, JobStatus, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    MigrationError, MigrationErrorKind, Result,
    error::storage,
    passage::{HELD_UNTIL, Passage},
};
use crate::{
    JobService, StorageErrorKind,
    storage::{Bucket, Storage},
};

const KEY: &str = "migration";
/// Nobody else writes the key, but a lost answer may look like it.
const TRIES: usize = 3;
/// How long the mark at the destination outlives a migration that is never finished.
const MARK_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// A job that may be held at the destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Moving {
    pub(super) id: JobId,
    /// The revision of the result that its life at the source began from.
    pub(super) generation: u64,
    /// What it is when it is released.
    pub(super) status: JobStatus,
    pub(super) run_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    /// The name of the migration.
    name: String,
    moving: Vec<Moving>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) name: String,
    revision: u64,
}

fn mark(name: &str) -> String {
    format!("{KEY}.{name}")
}

impl Journal {
    /// Goes on with the journal of a migration that was cut off, or begins one; returns what was under way.
    pub(super) async fn open(from: &JobService, to: &JobService) -> Result<(Self, Vec<Moving>)> {
        let failed = storage("cannot open the journal of the migration");
        let (source, destination) = (from.storage(), to.storage());
        let found = source.kv_get(Bucket::Control, KEY).await.map_err(&failed)?;
        if let Some(found) = found {
            let note: Note = serde_json::from_slice(&found.value).map_err(|source| {
                MigrationError::new(MigrationErrorKind::Undecodable, "the journal of the migration cannot be read")
                    .with_source(source)
            })?;
            let known = destination.kv_get(Bucket::Control, &mark(&note.name)).await.map_err(&failed)?.is_some();
            if known {
                check_apart(&**destination, &note.name).await?;
                return Ok((Self { name: note.name, revision: found.revision }, note.moving));
            }
            if !note.moving.is_empty() {
                return Err(MigrationError::new(
                    MigrationErrorKind::OtherDestination,
                    "a migration of this store to another destination was cut off",
                )
                .with_hint("finish it first: call it again with the same --to"));
            }
            source.kv_delete(Bucket::Control, KEY, Some(found.revision)).await.map_err(&failed)?;
        }
        let now = source.now().await.map_err(&failed)?;
        let name = JobId::generate(now, rand::random()).to_string();
        destination.kv_create(Bucket::Control, &mark(&name), "{}".into(), Some(MARK_TTL)).await.map_err(&failed)?;
        let note = encode(&Note { name: name.clone(), moving: Vec::new() });
        let revision = source.kv_create(Bucket::Control, KEY, note, None).await.map_err(&failed)?;
        let journal = Self { name, revision };
        if let Err(error) = check_apart(&**destination, &journal.name).await {
            journal.close(from, to).await?;
            return Err(error);
        }
        Ok((journal, Vec::new()))
    }

    /// Notes what is to be moved next, in place of what was noted before.
    pub(super) async fn note(&mut self, from: &JobService, passages: &[Passage]) -> Result<()> {
        let failed = storage("cannot write the journal of the migration");
        let moving = |passage: &Passage| {
            let (id, status, run_at) = (passage.id().clone(), passage.entry.status, passage.entry.run_at);
            Moving { id, generation: passage.generation(), status, run_at }
        };
        let note = encode(&Note { name: self.name.clone(), moving: passages.iter().map(moving).collect() });
        for _ in 1..TRIES {
            match from.storage().kv_update(Bucket::Control, KEY, note.clone(), self.revision, None).await {
                Ok(revision) => {
                    self.revision = revision;
                    return Ok(());
                }
                Err(error) if error.kind() == StorageErrorKind::Conflict => {}
                Err(error) => return Err(failed(error)),
            }
            let found = from.storage().kv_get(Bucket::Control, KEY).await.map_err(&failed)?;
            let found =
                found.and_then(|found| Some((serde_json::from_slice::<Note>(&found.value).ok()?, found.revision)));
            match found {
                Some((note, revision)) if note.name == self.name => self.revision = revision,
                _ => break,
            }
        }
        let message = "the journal of the migration was changed by somebody else";
        Err(MigrationError::new(MigrationErrorKind::Storage(StorageErrorKind::Conflict), message))
    }

    /// Removes the journal, at the source first: a mark that nobody names is harmless.
    pub(super) async fn close(self, from: &JobService, to: &JobService) -> Result<()> {
        let failed = storage("cannot close the journal of the migration");
        from.storage().kv_delete(Bucket::Control, KEY, Some(self.revision)).await.map_err(&failed)?;
        to.storage().kv_delete(Bucket::Control, &mark(&self.name), None).await.map_err(&failed)?;
        Ok(())
    }
}

/// Fails if the destination is the source: only there its journal can be.
async fn check_apart(destination: &dyn Storage, name: &str) -> Result<()> {
    let found = destination.kv_get(Bucket::Control, KEY).await.map_err(storage("cannot look at the destination"))?;
    let note = found.and_then(|found| serde_json::from_slice::<Note>(&found.value).ok());
    if note.is_some_and(|note| note.name == name) {
        return Err(MigrationError::new(MigrationErrorKind::SameStore, "both addresses are of the same store"));
    }
    Ok(())
}

fn encode(note: &Note) -> bytes::Bytes {
    serde_json::to_vec(note).expect("a note holds only names and times").into()
}

/// Whether an entry is held by a migration.
pub(super) fn is_held(run_at: Option<Timestamp>) -> bool {
    run_at == Timestamp::from_unix_millis(HELD_UNTIL)
}
