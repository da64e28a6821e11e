//! Schedules that a configuration declares: upserted by whoever starts, reported when they are declared no more.
//!
//! Invariant: a declared schedule carries a mark in its record (`origin: "config"`), so that what a person defined is
//! never taken for one that has left the file. A schedule that a person cancelled stays cancelled until its
//! declaration changes. Nothing is removed but by [`SchedulerService::prune`].

use std::collections::BTreeMap;

use naq_models::{RawJson, ScheduleDefinition, ScheduleId, ScheduleRecord, ScheduleStatus, Timestamp};

use super::{Result, SchedulerService, SchedulerServiceError, UpsertOutcome};
use crate::storage::Bucket;

/// The field of a record that says where it came from.
const ORIGIN: &str = "origin";
/// What it says of one that a configuration declares.
const CONFIG: &str = "\"config\"";

/// What declaring a schedule found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeclaredOutcome {
    /// As for one that is defined by hand.
    Upserted(UpsertOutcome),
    /// A person cancelled it, and its declaration is the same as then: it stays cancelled.
    StaysCancelled,
}

/// What came of declaring schedules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Declared {
    /// Each schedule that was declared.
    pub outcomes: Vec<(ScheduleId, DeclaredOutcome)>,
    /// Schedules that were declared once, are not now, and have not ended.
    pub undeclared: Vec<ScheduleId>,
}

impl SchedulerService {
    /// Defines each of these, as [`upsert`](Self::upsert) does, but leaves cancelled ones alone whose definition is the
    /// same; finds those that were declared before and are not any more.
    ///
    /// # Errors
    /// If a job could not be enqueued, or the store fails; those before it are defined then.
    pub async fn declare(&self, declared: &BTreeMap<ScheduleId, ScheduleDefinition>) -> Result<Declared> {
        let mut outcomes = Vec::with_capacity(declared.len());
        for (id, definition) in declared {
            self.check(id, definition)?;
            let step = |existing: Option<&ScheduleRecord>, now| {
                let (record, outcome) = declare(existing, id.clone(), definition.clone(), now);
                Ok((record.clone(), (record, outcome)))
            };
            let (stored, outcome) = self.change(id, "define", step).await?;
            if let (Some(record), DeclaredOutcome::Upserted(outcome)) = (&stored, &outcome) {
                self.tell_defined(*outcome, record);
            }
            outcomes.push((id.clone(), outcome));
        }
        let undeclared = self.undeclared(declared).await?;
        let undeclared = undeclared.into_iter().filter(is_open).map(|record| record.id).collect();
        Ok(Declared { outcomes, undeclared })
    }

    /// Removes the schedules that were declared once and are not among these, whatever their status; returns which.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn prune(&self, declared: &BTreeMap<ScheduleId, ScheduleDefinition>) -> Result<Vec<ScheduleId>> {
        let mut removed = Vec::new();
        for record in self.undeclared(declared).await? {
            let deleted = self.jobs.storage().kv_delete(Bucket::Schedules, record.id.as_str(), None).await;
            let deleted = deleted.map_err(|source| {
                SchedulerServiceError::storage(format!("cannot remove schedule {}", record.id), source)
            })?;
            if deleted {
                removed.push(record.id);
            }
        }
        Ok(removed)
    }

    async fn undeclared(&self, declared: &BTreeMap<ScheduleId, ScheduleDefinition>) -> Result<Vec<ScheduleRecord>> {
        let mut list = self.list().await?.schedules;
        list.retain(|record| is_declared(record) && !declared.contains_key(&record.id));
        Ok(list)
    }
}

fn declare(
    existing: Option<&ScheduleRecord>,
    id: ScheduleId,
    definition: ScheduleDefinition,
    now: Timestamp,
) -> (Option<ScheduleRecord>, DeclaredOutcome) {
    let cancelled = existing.filter(|record| record.status == ScheduleStatus::Cancelled);
    if cancelled.is_some_and(|record| record.definition.same_as(&definition)) {
        return (None, DeclaredOutcome::StaysCancelled);
    }
    let (mut record, outcome) = super::defined(existing, id, definition, now);
    record.extra.insert(ORIGIN.to_owned(), RawJson::parse(CONFIG).expect("a JSON text"));
    ((existing != Some(&record)).then_some(record), DeclaredOutcome::Upserted(outcome))
}

/// Whether a configuration declared it.
pub(super) fn is_declared(record: &ScheduleRecord) -> bool {
    record.extra.get(ORIGIN).is_some_and(|origin| origin.get() == CONFIG)
}

/// The record as one that a person defined.
pub(super) fn without_origin(mut record: ScheduleRecord) -> ScheduleRecord {
    if is_declared(&record) {
        record.extra.remove(ORIGIN);
    }
    record
}

fn is_open(record: &ScheduleRecord) -> bool {
    matches!(record.status, ScheduleStatus::Active | ScheduleStatus::Paused)
}
