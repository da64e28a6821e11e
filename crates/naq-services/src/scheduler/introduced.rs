//! Schedules that come from another system.
//!
//! Invariant: what is here under the id stays as it is; what comes is stored in one write, so that a paused one is never
//! active for a moment.

use naq_models::{ScheduleDefinition, ScheduleId, ScheduleRecord};

use super::{Result, SchedulerService, UpsertOutcome, refused};

impl SchedulerService {
    /// Defines a schedule that is not there, in one write, also as a paused one. Whether it was not there, and how it
    /// stands: one that is there stays as it is.
    pub(crate) async fn introduce(
        &self,
        id: &ScheduleId,
        definition: ScheduleDefinition,
        paused: bool,
    ) -> Result<(bool, ScheduleRecord)> {
        self.check(id, &definition)?;
        let introduce = |existing: Option<&ScheduleRecord>, now| {
            if let Some(existing) = existing {
                return Ok((None, (false, existing.clone())));
            }
            let mut record = ScheduleRecord::new(id.clone(), definition.clone(), now);
            if paused {
                record = record.pause(now).map_err(|why| refused(id, why))?;
            }
            Ok((Some(record.clone()), (true, record)))
        };
        let (is_new, record) = self.change(id, "define", introduce).await?;
        if is_new {
            self.tell_defined(UpsertOutcome::Created, &record);
        }
        Ok((is_new, record))
    }
}
