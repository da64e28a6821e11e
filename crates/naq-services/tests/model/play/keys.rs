//! Key-value operations.

use bytes::Bytes;
use naq_services::storage::{Bucket, StorageErrorKind};

use super::{Play, Verdict, said, same};
use crate::{
    op::{At, Client, KEYS},
    state::Value,
};

/// In a bucket that keeps what was replaced, in one that does not, and among other keys.
pub(super) const KEY_PLACES: [(Bucket, &str); KEYS] =
    [(Bucket::Schedules, "model.a"), (Bucket::Workers, "model.b"), (Bucket::Unique, "model.c")];

impl Play {
    pub(super) async fn create_key(&mut self, by: Client, key: usize, value: u8) -> Verdict {
        let ((bucket, name), value) = (KEY_PLACES[key], Bytes::from(vec![value]));
        let answer = self.stores[by].kv_create(bucket, name, value.clone(), None).await;
        match &self.keys[key] {
            Some(_) => same("create a key", &answer.map_err(|error| error.kind()), &Err(StorageErrorKind::Conflict))?,
            None => self.keys[key] = Some(Value { value, revision: said("create a key", answer)? }),
        }
        self.look_at_key(key).await
    }

    pub(super) async fn update_key(&mut self, by: Client, key: usize, value: u8, at: At) -> Verdict {
        let ((bucket, name), value) = (KEY_PLACES[key], Bytes::from(vec![value]));
        let present = self.keys[key].as_ref().map_or(1, |value| value.revision);
        let named = present + u64::from(at == At::Stale);
        let answer = self.stores[by].kv_update(bucket, name, value.clone(), named, None).await;
        if self.keys[key].is_some() && at == At::Present {
            let revision = said("update a key", answer)?;
            if revision <= present {
                return Err(format!("revision {revision} of a key after {present}"));
            }
            self.keys[key] = Some(Value { value, revision });
        } else {
            same("update a key", &answer.map_err(|error| error.kind()), &Err(StorageErrorKind::Conflict))?;
        }
        self.look_at_key(key).await
    }

    pub(super) async fn delete_key(&mut self, by: Client, key: usize, at: Option<At>) -> Verdict {
        let (bucket, name) = KEY_PLACES[key];
        let present = self.keys[key].as_ref().map_or(1, |value| value.revision);
        let named = at.map(|at| present + u64::from(at == At::Stale));
        let removed = said("delete a key", self.stores[by].kv_delete(bucket, name, named).await)?;
        same("a key was removed", &removed, &(self.keys[key].is_some() && at != Some(At::Stale)))?;
        if removed {
            self.keys[key] = None;
        }
        self.look_at_key(key).await
    }

    pub(super) async fn look_at_key(&self, key: usize) -> Verdict {
        let (bucket, name) = KEY_PLACES[key];
        for store in &self.stores {
            let found = said("get a key", store.kv_get(bucket, name).await)?;
            let found = found.map(|entry| Value { value: entry.value, revision: entry.revision });
            same("a key", &found, &self.keys[key])?;
        }
        Ok(())
    }
}
