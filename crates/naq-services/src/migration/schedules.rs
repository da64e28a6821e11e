//! What is not a job: pause flags, unique keys that outlive their job, recurring jobs.
//!
//! Invariant: created at the destination, then removed at the source; where the destination has one of its own, that stays.
//! Fires that a leader recorded and did not live to publish are published at the source first, so that a schedule that is
//! moved has none, and its own at the destination needs none of them.

use naq_models::UniqueHolder;

use super::{
    Result, Run,
    error::{job as job_error, schedule, storage},
    passage::lives,
};
use crate::{
    SchedulerService, StorageErrorKind,
    jobs::PAUSE_PREFIX,
    scheduler::StoredSchedule,
    storage::{Bucket, KvEntry, crash::crash_point},
};

impl Run<'_> {
    /// Publishes at the source what its last leader left unpublished.
    pub(super) async fn fire_pending(&mut self) -> Result<()> {
        let scheduler = SchedulerService::new(self.from.clone());
        for entry in self.list(Bucket::Schedules, "").await? {
            // One that cannot be read by this version has fires for another to read.
            let Ok(StoredSchedule { record, .. }) = StoredSchedule::read(&entry) else { continue };
            if record.pending.is_empty() {
                continue;
            }
            let published = scheduler.publish(&record, &record.pending).await;
            let noted = scheduler.published(&record.id, &published.done).await;
            noted.map_err(schedule("cannot note the runs of a schedule"))?;
            if let Some(error) = published.trouble {
                return Err(job_error("cannot enqueue the runs of a schedule")(error));
            }
        }
        Ok(())
    }

    pub(super) async fn carry_schedules(&mut self) -> Result<()> {
        for entry in self.list(Bucket::Schedules, "").await? {
            let created = self.create(Bucket::Schedules, &entry).await?;
            crash_point("migration.schedule");
            self.delete(Bucket::Schedules, &entry).await?;
            self.report.schedules += 1;
            self.report.schedules_there += u64::from(!created);
            self.tell();
        }
        Ok(())
    }

    /// Pauses queues at the destination. At the source the flags stay to the end, for what is left there.
    pub(super) async fn carry_pauses(&mut self) -> Result<()> {
        for flag in self.list(Bucket::Control, PAUSE_PREFIX).await? {
            self.create(Bucket::Control, &flag).await?;
            self.report.paused_queues += 1;
        }
        Ok(())
    }

    pub(super) async fn remove_pauses(&mut self) -> Result<()> {
        for flag in self.list(Bucket::Control, PAUSE_PREFIX).await? {
            self.delete(Bucket::Control, &flag).await?;
        }
        Ok(())
    }

    /// Moves keys that hold for a time, of jobs that are not at the source any more. All others went with their jobs.
    pub(super) async fn carry_keys(&mut self) -> Result<()> {
        let now = self.now().await?;
        for entry in self.list(Bucket::Unique, "key.").await? {
            let Ok(holder) = UniqueHolder::decode(&entry.value) else { continue };
            let Some(end) = holder.expires_at else { continue };
            if lives(&**self.from.storage(), &holder.id).await? {
                continue;
            }
            let created =
                self.to.storage().kv_create(Bucket::Unique, &entry.key, entry.value.clone(), Some(end.since(now)));
            match created.await {
                Err(error) if error.kind() == StorageErrorKind::Conflict => {}
                other => drop(other.map_err(storage("cannot move a unique key"))?),
            }
            crash_point("migration.key");
            self.delete(Bucket::Unique, &entry).await?;
        }
        Ok(())
    }

    async fn list(&self, bucket: Bucket, prefix: &str) -> Result<Vec<KvEntry>> {
        self.from.storage().kv_list(bucket, prefix).await.map_err(storage("cannot read the keys of the source"))
    }

    /// Creates a key at the destination; `false` if it has one of its own there.
    async fn create(&self, bucket: Bucket, entry: &KvEntry) -> Result<bool> {
        let failed = storage("cannot write a key at the destination");
        match self.to.storage().kv_create(bucket, &entry.key, entry.value.clone(), None).await {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == StorageErrorKind::Conflict => {}
            Err(error) => return Err(failed(error)),
        }
        let there = self.to.storage().kv_get(bucket, &entry.key).await.map_err(&failed)?;
        Ok(there.is_some_and(|there| there.value == entry.value))
    }

    async fn delete(&self, bucket: Bucket, entry: &KvEntry) -> Result<()> {
        let deleted = self.from.storage().kv_delete(bucket, &entry.key, Some(entry.revision)).await;
        deleted.map(drop).map_err(storage("cannot remove a key from the source"))
    }
}
