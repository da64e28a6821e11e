//! [`ResultFeed`]: who follows many results at once, and only those.
//!
//! Invariant: news only wakes: what the result is, the store tells. No result of a followed job goes unnoticed, but for
//! those that [`ResultNews::Lost`] announces. Results that nobody follows cost a store nothing.

use async_trait::async_trait;
use naq_models::JobId;

use super::Result;

/// News of the results of chosen jobs.
#[async_trait]
pub trait ResultFeed: Send {
    /// Follows more jobs: each result of theirs that is stored after this call has returned is reported.
    ///
    /// # Errors
    /// If the store cannot be reached; none of `ids` need be followed then, and the call can be repeated.
    async fn follow(&mut self, ids: &[JobId]) -> Result<()>;

    /// Follows a job no longer.
    fn forget(&mut self, id: &JobId);

    /// The next news. Waits while there is none; never ends.
    ///
    /// # Cancel safety
    /// Cancel safe: no news is lost by dropping the future.
    async fn next(&mut self) -> ResultNews;
}

/// What a [`ResultFeed`] reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultNews {
    /// This job may have a new result. If a look finds none, more news of it follows should it come after all.
    Of(JobId),
    /// News may have been lost: each followed job should be looked at.
    Lost,
}
