//! What a [`NewJob`] says of being unique: by what, how long, and what if it is not.
//!
//! Invariant: the key is made when the job is ([`NewJob::into_job`]), so that it counts for the final kind, queue and
//! arguments; nothing is asked of the store.

use std::time::Duration;

use naq_models::{OnConflict, QueueName, RawJson, Unique, UniqueWhile, duration::Seconds, unique};

use super::{NewJob, NewJobError};

/// What makes two jobs the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UniqueBy {
    /// A key of the producer's own, across kinds and queues.
    Key(String),
    /// Kind, queue and all arguments.
    Args,
    /// Kind, queue and the arguments of these names.
    Fields(Vec<String>),
}

impl UniqueBy {
    /// A key of the producer's own, 1 to 1024 bytes.
    #[must_use]
    pub fn key(key: impl Into<String>) -> Self {
        Self::Key(key.into())
    }

    /// Kind, queue and all arguments.
    #[must_use]
    pub fn args() -> Self {
        Self::Args
    }

    /// Kind, queue and the arguments of these names, of which each has to be there.
    #[must_use]
    pub fn fields<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        Self::Fields(names.into_iter().map(Into::into).collect())
    }
}

impl From<&str> for UniqueBy {
    fn from(key: &str) -> Self {
        Self::key(key)
    }
}

impl From<String> for UniqueBy {
    fn from(key: String) -> Self {
        Self::Key(key)
    }
}

/// The options of a job that is unique, as far as they were given.
#[derive(Debug, Clone, Default)]
pub(super) struct Uniqueness {
    by: Option<UniqueBy>,
    holds: Option<UniqueWhile>,
    ttl: Option<Duration>,
    on_conflict: Option<OnConflict>,
}

impl Uniqueness {
    /// The key of a job; `None` if it is not unique.
    pub(super) fn of(self, kind: &str, queue: &QueueName, args: &RawJson) -> Result<Option<Unique>, NewJobError> {
        let Some(by) = self.by else {
            let alone = [
                (self.holds.is_some(), "unique_while"),
                (self.ttl.is_some(), "unique_ttl"),
                (self.on_conflict.is_some(), "on_conflict"),
            ];
            return match alone.into_iter().find(|(given, _)| *given) {
                Some((_, option)) => Err(NewJobError::NotUnique { option }),
                None => Ok(None),
            };
        };
        let no_field = |field| NewJobError::UniqueField { kind: kind.to_owned(), field };
        let key = match by {
            UniqueBy::Key(key) => key,
            UniqueBy::Args => unique::key_of_args(kind, queue, args, None).map_err(no_field)?,
            UniqueBy::Fields(fields) if fields.is_empty() => return Err(no_field(String::new())),
            UniqueBy::Fields(fields) => unique::key_of_args(kind, queue, args, Some(&fields)).map_err(no_field)?,
        };
        let usual = if self.ttl.is_some() { UniqueWhile::Ttl } else { UniqueWhile::default() };
        let unique = Unique { key, holds: self.holds.unwrap_or(usual), ttl: self.ttl.map(Seconds) };
        unique.check()?;
        Ok(Some(unique))
    }
}

impl<R> NewJob<R> {
    /// Stores the job only if no other one with the same key is there: `.unique("order-17")` with a key of one's own,
    /// `.unique(UniqueBy::args())` or `.unique(UniqueBy::fields(["to"]))` with one made of kind, queue and arguments. The
    /// key holds until the job has ended, unless [`unique_while`](Self::unique_while) or
    /// [`unique_ttl`](Self::unique_ttl) say otherwise.
    pub fn unique(mut self, by: impl Into<UniqueBy>) -> Self {
        self.uniqueness.by = Some(by.into());
        self
    }

    /// How long the key holds: until the job first starts, until it has ended, or for a time.
    pub fn unique_while(mut self, holds: UniqueWhile) -> Self {
        self.uniqueness.holds = Some(holds);
        self
    }

    /// The key holds for so long after enqueueing, whatever becomes of the job.
    pub fn unique_ttl(mut self, ttl: Duration) -> Self {
        self.uniqueness.ttl = Some(self.bounded("unique_ttl", ttl));
        self
    }

    /// What is to happen if another job has the key; by default that job is the answer.
    pub fn on_conflict(mut self, answer: OnConflict) -> Self {
        self.uniqueness.on_conflict = Some(answer);
        self
    }

    /// What was said to [`on_conflict`](Self::on_conflict).
    #[must_use]
    pub fn conflict_answer(&self) -> Option<OnConflict> {
        self.uniqueness.on_conflict
    }
}

#[cfg(test)]
mod tests {
    use naq_models::{Job, JobId, Timestamp, UniqueError};
    use serde_json::json;

    use super::*;
    use crate::new_job::{JobDefaults, secs};

    fn build(job: NewJob) -> Result<Job, NewJobError> {
        job.into_job(JobId::new("j").unwrap(), Timestamp::EPOCH, &JobDefaults::default())
    }

    fn key(job: NewJob) -> Unique {
        build(job).unwrap().unique.unwrap()
    }

    fn job() -> NewJob {
        NewJob::new("mail", json!({"to": "a", "n": 1}))
    }

    #[test]
    fn a_given_key_is_taken_as_it_is() {
        let unique = key(job().unique("order-17").queue("q"));
        assert_eq!((unique.key.as_str(), unique.holds, unique.ttl), ("order-17", UniqueWhile::Active, None));
        assert_eq!(build(job()).unwrap().unique, None);
        let unique = key(job().unique(String::from("x")).unique_while(UniqueWhile::Pending));
        assert_eq!(unique.holds, UniqueWhile::Pending);
    }

    #[test]
    fn a_computed_key_is_of_kind_queue_and_arguments() {
        let by_args = key(job().unique(UniqueBy::args())).key;
        assert_eq!(key(job().unique(UniqueBy::args())).key, by_args);
        assert_ne!(key(job().unique(UniqueBy::args()).queue("q")).key, by_args, "the queue said afterwards counts");
        let by_field = key(job().unique(UniqueBy::fields(["to"]))).key;
        let other = NewJob::new("mail", json!({"to": "a", "n": 2}));
        assert_eq!(key(other.clone().unique(UniqueBy::fields(["to"]))).key, by_field);
        assert_ne!(key(other.unique(UniqueBy::args())).key, by_args);
    }

    #[test]
    fn a_time_means_for_a_time() {
        let unique = key(job().unique("k").unique_ttl(secs(60)));
        assert_eq!((unique.holds, unique.ttl), (UniqueWhile::Ttl, Some(Seconds(secs(60)))));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let of = |job| build(job).unwrap_err();
        for (job, alone) in [
            (job().unique_ttl(secs(1)), "unique_ttl"),
            (job().unique_while(UniqueWhile::Active), "unique_while"),
            (job().on_conflict(OnConflict::Error), "on_conflict"),
        ] {
            assert!(matches!(of(job), NewJobError::NotUnique { option } if option == alone));
        }
        let misspelt = job().unique(UniqueBy::fields(["to", "subjekt"]));
        assert!(matches!(of(misspelt), NewJobError::UniqueField { field, .. } if field == "subjekt"));
        let none: [&str; 0] = [];
        assert!(matches!(of(job().unique(UniqueBy::fields(none))), NewJobError::UniqueField { .. }));
        let both = job().unique("k").unique_while(UniqueWhile::Active).unique_ttl(secs(1));
        assert!(matches!(of(both), NewJobError::Unique(UniqueError::TtlUnused { .. })));
        assert!(matches!(of(job().unique("")), NewJobError::Unique(UniqueError::Length { length: 0 })));
        assert!(matches!(of(job().unique("k").unique_ttl(Duration::MAX)), NewJobError::Duration { .. }));
    }

    #[test]
    fn the_answer_survives_changes_of_type() {
        let job = job().unique("k").on_conflict(OnConflict::Replace).returning::<u32>().clone().erased();
        assert_eq!(job.conflict_answer(), Some(OnConflict::Replace));
        assert_eq!(key(job).key, "k");
    }
}
