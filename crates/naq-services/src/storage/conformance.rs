//! The conformance suite: what every [`Storage`](super::Storage) promises, as checks that a custom backend runs too.
//!
//! Invariant: each check gets a fresh store, uses only the public seam, waits with bounds, and fails with the line and the
//! promise that was broken. What a backend may do in several ways is stated in the check that allows it.
//!
//! Not here: crashes between two writes of one call. They need a way to stop a backend in the middle of a call, which the
//! seam does not have; naq's own backends are killed from outside by whole-system tests.
//!
//! # Running it
//! Write a [`Fixture`] and let [`conformance_tests!`](crate::conformance_tests) make one test of each check:
//! ```text
//! async fn fresh() -> Arc<dyn Fixture> { … }
//! naq_services::conformance_tests!(fresh);
//! ```
//! or run everything at once with [`run_all`]. `examples/custom_storage` shows a complete backend that passes.

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::FutureExt;

mod claim;
mod ending;
mod enqueue;
mod events;
mod failure;
mod follow;
mod kv;
mod lease;
mod life;
mod look;
mod remains;
mod scene;
mod schedule;
mod settle;
mod together;
mod unique;

pub use failure::{Failure, Verdict};
use scene::Scene;

use super::{Result, SharedStorage};

/// No check takes longer; one that does has failed.
const CHECK_LIMIT: Duration = Duration::from_secs(90);

/// One fresh, empty store, to which a check opens connections.
#[async_trait]
pub trait Fixture: Send + Sync + 'static {
    /// Opens another connection to the same store. What it holds must not depend on any one connection.
    async fn open(&self) -> Result<SharedStorage>;

    /// The shortest lease that the store takes; checks wait for several of them. One second unless overridden.
    fn shortest_lease(&self) -> Duration {
        Duration::from_secs(1)
    }
}

type Run = fn(Scene) -> Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One promise and how it is tried.
#[derive(Clone, Copy)]
pub struct Check {
    /// What holds, as a path: `lease::a_heartbeat_keeps_a_lease`.
    pub name: &'static str,
    run: Run,
}

impl Check {
    /// Tries the promise on a fresh store, for at most 90 s, and closes every connection it opened.
    ///
    /// # Errors
    /// If the promise does not hold. A panic of the store's code is such a failure too.
    pub async fn run(&self, fixture: Arc<dyn Fixture>) -> Verdict {
        let scene = Scene::new(fixture);
        let outcome =
            AssertUnwindSafe(failure::within(CHECK_LIMIT, self.name, (self.run)(scene.clone()))).catch_unwind();
        let verdict = match outcome.await {
            Ok(in_time) => in_time.and_then(|verdict| verdict),
            Err(_) => Err(Failure::new("panicked")),
        };
        let closed = scene.close().await;
        verdict.and(closed)
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What became of every check.
#[derive(Debug)]
pub struct Report {
    /// Each check's name, time and verdict, in the order of [`checks`].
    pub outcomes: Vec<(&'static str, Duration, Verdict)>,
}

impl Report {
    /// Whether every promise holds.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.outcomes.iter().all(|(_, _, verdict)| verdict.is_ok())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, time, verdict) in &self.outcomes {
            match verdict {
                Ok(()) => writeln!(f, "ok    {name} ({:.1} s)", time.as_secs_f64())?,
                Err(failure) => writeln!(f, "FAIL  {name} ({:.1} s)\n      {failure}", time.as_secs_f64())?,
            }
        }
        let failed = self.outcomes.iter().filter(|(_, _, verdict)| verdict.is_err()).count();
        write!(f, "{} checks, {failed} failed", self.outcomes.len())
    }
}

/// Runs every check, one after the other, each on the store that `fresh` makes for it.
pub async fn run_all<F>(mut fresh: impl FnMut() -> F) -> Report
where
    F: Future<Output = Arc<dyn Fixture>>,
{
    let mut outcomes = Vec::new();
    for check in checks() {
        let begun = Instant::now();
        let verdict = check.run(fresh().await).await;
        outcomes.push((check.name, begun.elapsed(), verdict));
    }
    Report { outcomes }
}

/// Runs the check of a name, for generated tests.
///
/// # Errors
/// If it fails, or if there is no such check.
#[doc(hidden)]
pub async fn run_one(name: &str, fixture: Arc<dyn Fixture>) -> Verdict {
    match checks().into_iter().find(|check| check.name == name) {
        Some(check) => check.run(fixture).await,
        None => Err(Failure::new(format!("the suite has no check {name:?}"))),
    }
}

/// The list of all checks, given to another macro: `then! { [args] group: name name; … }`.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_checks {
    ($($then:ident)::+ [$($args:tt)*]) => {
        $($then)::+! { [$($args)*]
            enqueue:
                receipts_follow_the_batch
                an_acknowledged_job_outlives_its_connection
                a_queued_id_is_refused_everywhere
                a_generated_id_is_refused_in_its_lane
                a_scheduled_id_is_refused
                a_running_id_is_refused
                an_id_with_a_kept_result_is_refused
                an_id_is_free_again_after_its_result_expired
                an_id_without_kept_result_is_free_at_once
                of_twenty_enqueues_of_an_id_one_is_stored
                of_twenty_enqueues_across_queues_one_is_stored
                five_thousand_in_one_batch
                hostile_bytes_pass_through
                the_body_limit_is_exact;
            together:
                all_are_stored_in_their_order
                a_taken_id_refuses_all
                an_id_given_twice_refuses_all
                a_body_that_is_too_large_refuses_all
                of_two_with_a_common_id_one_is_stored
                what_a_store_cannot_do_leaves_nothing;
            claim:
                first_in_first_out_within_a_lane
                urgent_lanes_come_first
                a_lanes_demand_is_its_bound
                nothing_comes_without_demand
                a_new_demand_replaces_the_old
                empty_follows_everything_that_was_there
                empty_comes_again_when_lanes_are_empty_again
                a_claim_says_what_and_from_where
                four_consumers_share_two_thousand_jobs
                an_idle_consumer_wakes_within_100_ms
                dropping_next_loses_no_claim
                closing_gives_back_what_was_not_handed_out
                max_ack_pending_holds_over_consumers;
            lease:
                a_dead_workers_job_runs_elsewhere
                a_heartbeat_keeps_a_lease
                a_lost_lease_is_reported_lost
                extensions_answer_in_order
                handed_back_jobs_run_elsewhere_at_once
                a_hand_back_wakes_idle_consumers
                handing_back_a_lost_lease_changes_nothing
                a_newcomer_leaves_claims_alone;
            settle:
                completed_leaves_only_a_result
                failed_leaves_a_result_and_a_dead_letter
                cancelled_leaves_only_a_result
                without_a_result_nothing_is_left
                the_first_result_stays
                settling_twice_is_harmless
                outcomes_follow_the_batch
                a_new_life_replaces_exactly_its_generation
                an_old_generation_is_refused
                an_expired_generation_is_as_good_as_none
                a_fenced_result_that_wins_ends_the_job
                a_fenced_result_that_loses_changes_nothing
                a_fenced_retry_changes_nothing
                a_stale_settlement_after_the_later_owners
                a_stale_settlement_before_the_later_owners
                an_oversized_result_is_refused_and_the_job_kept
                a_result_expires;
            schedule:
                a_retry_waits_and_runs_again
                a_job_can_retry_many_times
                promoting_twice_runs_once
                racing_promotions_run_once
                promotions_answer_in_order
                an_ended_job_is_not_promoted
                rescheduling_is_compare_and_set
                only_waiting_jobs_are_rescheduled
                the_feed_gives_what_is_due_soonest_first
                the_feed_misses_nothing_while_entries_go
                a_sooner_entry_wakes_the_feed_within_200_ms
                a_change_between_two_calls_is_reported
                a_feed_reports_what_waits_for_others
                scheduled_entries_come_in_the_order_asked
                a_retry_after_a_cancel_never_runs;
            ending:
                ending_a_pending_job
                ending_a_scheduled_job
                ending_a_running_job_tells_its_worker
                ending_an_ended_job_changes_nothing
                ending_without_a_result_leaves_nothing
                an_unreadable_scheduled_entry_becomes_a_dead_letter
                dead_letters_keep_every_byte
                removing_a_dead_letter
                requeueing_a_dead_job
                requeueing_a_cancelled_job
                requeueing_a_job_that_waits_for_others
                ending_an_earlier_life_spares_the_new_one;
            remains:
                what_is_left_of_a_job_is_stored_once
                remains_are_as_good_as_a_jobs_own
                remains_of_an_id_that_lives_here_are_refused
                a_result_is_removed_at_its_revision
                oversized_remains_are_refused
                a_held_entry_becomes_what_it_is_to_be;
            unique:
                the_end_of_a_job_frees_its_key
                a_key_that_names_another_job_stays
                ending_a_job_frees_its_key
                a_settlement_without_its_lease_leaves_the_key;
            look:
                a_job_is_seen_in_every_state
                an_unknown_id_is_not_found
                pages_have_no_gaps_and_no_repetitions
                lists_obey_their_filter
                numbers_follow_every_state
                a_waiting_caller_gets_the_result_within_200_ms
                waiting_for_a_result_ends_at_its_timeout
                waiting_skips_results_that_are_not_newer;
            follow:
                news_of_followed_results_comes_within_200_ms
                no_result_after_following_goes_unnoticed
                one_feed_follows_a_thousand;
            kv:
                a_key_lives_from_create_to_delete
                a_stale_writer_conflicts
                what_a_heartbeat_puts_replaces_and_runs_out
                of_twenty_creates_of_a_key_one_wins
                concurrent_increments_all_count
                a_key_expires_and_renewal_counts_anew
                a_gone_key_can_be_created_again
                lists_are_by_prefix
                watchers_see_state_and_changes
                watchers_see_keys_expire
                dropping_a_watchs_next_loses_no_change;
            events:
                batches_come_back_in_order_and_byte_for_byte
                reading_leaves_out_no_batch_in_range
                a_batch_reaches_followers_within_200_ms
                followers_begin_where_they_say_and_miss_nothing
                positions_grow_over_connections;
            life:
                the_clock_runs_like_the_hosts
                a_healthy_store_has_no_errors
                a_closed_connection_says_so;
        }
    };
}

macro_rules! list_checks {
    ([] $($group:ident: $($name:ident)+;)+) => {
        /// Every check of the suite.
        #[must_use]
        pub fn checks() -> Vec<Check> {
            vec![$($(Check {
                name: concat!(stringify!($group), "::", stringify!($name)),
                run: |scene| Box::pin($group::$name(scene)),
            },)+)+]
        }
    };
}

__conformance_checks! { list_checks [] }

/// Makes one `#[tokio::test]` of each check, in a module per group. The argument is the path of an async function without
/// parameters that returns an `Arc<dyn Fixture>` for a fresh store. The crate needs `tokio` with `macros` and
/// `rt-multi-thread`.
#[macro_export]
macro_rules! conformance_tests {
    ($fresh:path) => {
        $crate::__conformance_checks! { $crate::conformance_tests [$fresh] }
    };
    ([$fresh:path] $($group:ident: $($name:ident)+;)+) => {
        $(mod $group {
            #[allow(unused_imports, reason = "the path of the fixture may be relative to the module of the call")]
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let name = concat!(stringify!($group), "::", stringify!($name));
                let verdict = $crate::storage::conformance::run_one(name, $fresh().await).await;
                if let Err(failure) = verdict {
                    panic!("{name}: {failure}");
                }
            })+
        })+
    };
}
