//! The job service over every store: what each operation does to jobs that a real store holds.
//!
//! Invariant: each test runs on each store, with jobs of its own.
//!
//! Not here: the store itself (its conformance suite) and running handlers (naq-worker): a job is run here by claiming
//! and settling it by hand.
#![cfg(all(feature = "sqlite", feature = "nats"))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use naq_config::{NaqConfig, StoreUrl};
use naq_models::{Job, JobError, JobId, JobResult, JobStatus, Priority, QueueName, RawJson, wire};
use naq_services::{
    JobService, JobSettings, NewJob, open_storage,
    storage::{
        Action, Claim, Consumer, ConsumerEvent, ConsumerOptions, DeadLetter, Demand, Lane, ResultRecord, RunningAt,
        RunningJobs, Settled, Settlement,
    },
};
use serde_json::json;

mod change;
mod dead;
mod enqueue;
mod lists;
mod migration;
mod purge;
mod results;
mod schedules;
#[allow(dead_code, clippy::print_stdout, reason = "shared with the tests of the NATS store")]
#[path = "../nats/server.rs"]
mod server;
mod services;
mod together;
mod unique;

use server::Server;

/// Longer than anything takes that does not hang.
const LONG: Duration = Duration::from_secs(20);

/// Where a test's jobs lie.
struct Stage {
    server: Option<Server>,
}

impl Stage {
    /// A service over a store of its own.
    async fn service(&self) -> JobService {
        self.service_with(JobSettings::default()).await
    }

    async fn service_with(&self, settings: JobSettings) -> JobService {
        let (url, config) = self.fresh();
        JobService::new(open_storage(&url, &config).await.unwrap(), settings)
    }

    /// Services over one store, each with a connection of its own.
    async fn services(&self, count: usize) -> Vec<JobService> {
        let (url, config) = self.fresh();
        connect(&url, &config, count).await
    }

    /// The address of a store of its own.
    fn fresh(&self) -> (StoreUrl, NaqConfig) {
        static STORES: AtomicU64 = AtomicU64::new(0);
        let name = format!("jobs-{}", STORES.fetch_add(1, Ordering::Relaxed));
        let url = match &self.server {
            None => format!("memory://{name}"),
            Some(server) => server.url(),
        };
        let mut config = NaqConfig::default();
        config.queues.prefix = name;
        (url.parse().unwrap(), config)
    }
}

async fn connect(url: &StoreUrl, config: &NaqConfig, count: usize) -> Vec<JobService> {
    let mut services = Vec::new();
    for _ in 0..count {
        services.push(JobService::new(open_storage(url, config).await.unwrap(), JobSettings::default()));
    }
    services
}

/// Five handles on one file, as five processes would have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_producers_of_a_unique_key_on_a_file_one_stores_its_job() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("naq.db").display()).parse().unwrap();
    unique::one_of_fifty_stores(connect(&url, &NaqConfig::default(), 5).await).await;
}

macro_rules! on_each_store {
    ($($module:ident: $($test:ident)*;)*) => {
        mod on_memory {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::$module::$test(&crate::Stage { server: None }).await;
                })*
            })*
        }
        mod on_nats {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    for binary in crate::server::binaries() {
                        let server = Some(crate::Server::start(&binary));
                        crate::$module::$test(&crate::Stage { server }).await;
                    }
                })*
            })*
        }
    };
}

on_each_store! {
    change:
        cancels_wherever_the_job_stands
        what_keeps_no_result_is_cancelled_too
        cancel_and_finish_have_one_winner
        a_failed_job_starts_a_new_life
        a_cancelled_job_starts_a_new_life_from_its_result
        a_cancelled_job_that_hardly_fits_is_cancelled_all_the_same
        of_ten_retries_one_starts_a_life
        only_what_waits_is_rescheduled
    ;
    dead:
        lists_and_shows
        retries_one_and_all
        what_cannot_be_read_stays_and_is_reported
        purges_one_and_all
    ;
    enqueue:
        the_receipt_says_where_the_job_went
        generated_ids_differ_and_sort_by_time
        a_taken_id_is_a_duplicate_with_the_status_of_the_job_that_has_it
        one_id_twice_in_a_batch_is_stored_once
        of_twenty_producers_of_one_id_one_stores_it
        what_is_too_large_is_refused_with_both_numbers
        what_cannot_run_is_refused
        a_submission_takes_from_the_configuration_what_it_leaves_out
    ;
    lists:
        pages_hold_each_job_once
        filters_by_kind_and_queue
        a_retried_job_is_listed_as_it_stands
        queues_are_counted_and_paused
    ;
    migration:
        everything_moves_there_and_back
        jobs_keep_their_order
        a_new_life_goes_on
        a_failure_that_was_cut_off_gets_its_dead_letter
        recorded_fires_run_and_schedules_that_are_there_stay
        what_cannot_move_is_left
        a_job_of_a_dead_worker_comes_when_its_lease_ends
        what_must_not_begin_is_refused
    ;
    purge:
        cancels_what_is_pending_and_nothing_else
        a_paused_queue_can_be_purged
        garbage_becomes_a_dead_letter_byte_for_byte
        a_producer_that_goes_on_does_not_keep_the_purge_from_ending
    ;
    results:
        a_waiting_handle_gets_the_value
        a_failure_and_a_cancellation_are_typed
        waiting_ends
        a_job_without_a_result_cannot_be_waited_for
        a_retried_job_is_unfinished_again
        a_child_names_its_parent_and_goes_to_its_store
    ;
    schedules:
        defining_again_changes_nothing
        the_id_is_the_jobs_own_or_made_of_it
        a_schedule_that_cannot_run_is_refused
        a_schedule_is_paused_resumed_modified_and_cancelled
        of_many_triggers_at_once_none_is_lost
        of_two_leaders_one_advances_and_both_publish_one_run
        a_run_without_a_result_is_not_run_by_a_late_leader
        the_last_run_is_looked_at_only_if_it_counts
        a_record_that_cannot_be_read_stays_and_is_reported
        declared_schedules_are_defined_reported_and_pruned
    ;
    together:
        all_are_stored_with_a_receipt_each
        what_is_in_the_way_of_one_refuses_all_and_frees_the_keys
        a_job_that_waits_is_replaced_with_the_others_or_stays
        what_one_batch_cannot_hold_is_refused_up_front
        callers_with_the_same_keys_do_not_block_each_other
    ;
    unique:
        of_fifty_producers_of_a_key_one_stores_its_job
        the_job_that_has_the_key_is_the_answer
        computed_keys_tell_jobs_apart
        every_end_of_a_job_frees_its_key
        a_key_is_taken_over_from_a_job_that_has_ended
        a_key_without_a_job_is_respected_for_half_a_minute
        a_job_that_waits_is_replaced_and_a_running_one_is_not
        a_replacement_that_was_cut_off_is_made_up_for
        a_key_that_waits_for_the_start_is_free_then
        a_key_for_a_time_outlives_its_job
        a_batch_has_each_key_once
        a_fresh_key_holds_up_nobody_else_of_a_batch
        two_thousand_keys_in_one_batch
        an_id_and_a_key_of_ones_own
        a_new_life_takes_the_key_again
        only_a_live_job_keeps_another_from_starting
        what_cannot_be_a_key_is_refused
        a_schedule_leaves_out_runs_while_its_key_is_taken
    ;
}

fn id(text: &str) -> JobId {
    JobId::new(text).unwrap()
}

fn queue(text: &str) -> QueueName {
    QueueName::new(text).unwrap()
}

fn job(id: &str) -> NewJob {
    NewJob::new("k", json!({})).job_id(id)
}

/// What the worker of a test says it runs.
struct Runs(Option<JobId>);

impl RunningJobs for Runs {
    fn running(&self, id: &JobId) -> Option<RunningAt> {
        let started_at = naq_models::Timestamp::EPOCH;
        (self.0.as_ref() == Some(id)).then(|| RunningAt { worker_id: "w1".into(), started_at })
    }
}

async fn consumer(jobs: &JobService, queue: &QueueName, runs: Runs) -> Box<dyn Consumer> {
    let queues = vec![jobs.settings().options_of(queue)];
    let options = ConsumerOptions { worker_id: "w1".into(), queues, running: Arc::new(runs) };
    jobs.storage().open_consumer(options).await.unwrap()
}

async fn take(consumer: &mut dyn Consumer, max: usize) -> Vec<Claim> {
    let lanes = Priority::ALL.map(|priority| (Lane { queue: 0, priority }, max)).to_vec();
    consumer.demand(Demand { lanes });
    let (mut claims, mut empty) = (Vec::new(), HashSet::new());
    while claims.len() < max && empty.len() < Priority::ALL.len() {
        match tokio::time::timeout(LONG, consumer.next()).await.unwrap() {
            ConsumerEvent::Claimed(more) => {
                empty.retain(|lane| more.iter().all(|claim| claim.lane != *lane));
                claims.extend(more);
            }
            ConsumerEvent::Empty(lanes) => empty.extend(lanes),
            ConsumerEvent::Trouble(error) => panic!("{error}"),
        }
    }
    claims
}

/// Claims what is pending in a queue, at most `max`, as a worker would that is gone then.
async fn claim(jobs: &JobService, queue: &QueueName, max: usize) -> Vec<Claim> {
    let mut consumer = consumer(jobs, queue, Runs(None)).await;
    let claims = take(consumer.as_mut(), max).await;
    consumer.close().await.unwrap();
    claims
}

async fn claim_one(jobs: &JobService) -> Claim {
    claim(jobs, &QueueName::default(), 1).await.pop().expect("nothing to claim")
}

/// Ends a claimed job as a worker would.
async fn finish(jobs: &JobService, claim: Claim, ended: Result<RawJson, JobError>) -> Settled {
    let job: Job = wire::decode(&claim.body, &claim.address).unwrap();
    let status = if ended.is_ok() { JobStatus::Completed } else { JobStatus::Failed };
    let finished_at = jobs.storage().now().await.unwrap();
    let mut result = JobResult::of(&job, status, finished_at);
    (result.result, result.error) = (ended.clone().ok(), ended.clone().err());
    let record = (!job.result_ttl.is_zero()).then(|| ResultRecord {
        status,
        body: result.encode().into(),
        generation: job.generation,
        ttl: job.result_ttl,
    });
    let dead_letter = ended.err().map(|error| DeadLetter {
        address: claim.address.clone(),
        body: claim.body.clone(),
        error,
        kind: Some(job.kind.clone()),
    });
    let Claim { lease, address, .. } = claim;
    let action = Action::End { result: record, dead_letter, unique_key: job.key_freed_at_end() };
    let settlement = Settlement { lease, address, action, fenced: false, clear_scheduled: true };
    jobs.storage().settle(vec![settlement]).await.pop().unwrap().unwrap()
}

fn value(text: &str) -> RawJson {
    RawJson::parse(text).unwrap()
}

fn failure() -> JobError {
    JobError::new("net", "down", naq_models::Timestamp::EPOCH)
}

/// Enqueues a job and lets it fail.
async fn failed(jobs: &JobService, name: &str) {
    jobs.enqueue(job(name)).await.unwrap();
    let claim = claim_one(jobs).await;
    assert_eq!(finish(jobs, claim, Err(failure())).await, Settled::Done);
}
