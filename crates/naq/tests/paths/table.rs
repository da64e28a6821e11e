//! The table: every path that the facade gives a name to, and its home.

use super::same;

same! {
    facade {
        naq::AsyncTaskQueue = naq_queue::Queue;
        naq::CancellationToken = naq_services::CancellationToken;
        naq::ConfigurationError = naq_config::ConfigError;
        naq::DEFAULT_NATS_URL = naq_config::DEFAULT_NATS_URL;
        naq::DEFAULT_QUEUE_NAME = naq_models::id::DEFAULT_QUEUE_NAME;
        naq::Event = naq_models::Event;
        naq::EventType = naq_models::EventType;
        naq::Failure = naq_services::Failure;
        naq::FromContext = naq_services::FromContext;
        naq::IntoFailure = naq_services::IntoFailure;
        naq::JOB_STATUS = naq_models::JobStatus;
        naq::Job = naq_models::Job;
        naq::JobContext = naq_services::JobContext;
        naq::JobError = naq_models::JobError;
        naq::JobEvent = naq_models::Event;
        naq::JobEventType = naq_models::EventType;
        naq::JobExecutionError = naq_models::JobError;
        naq::JobFailure = naq_services::JobFailure;
        naq::JobHandle = naq_services::JobHandle;
        naq::JobId = naq_models::JobId;
        naq::JobNotFoundError = naq_services::JobServiceError;
        naq::JobResult = naq_models::JobResult;
        naq::JobService = naq_services::JobService;
        naq::JobServiceError = naq_services::JobServiceError;
        naq::JobServiceErrorKind = naq_services::JobServiceErrorKind;
        naq::JobStatus = naq_models::JobStatus;
        naq::NaqConfig = naq_config::NaqConfig;
        naq::NaqConnectionError = naq_services::ServiceError;
        naq::NaqException = naq_services::Failure;
        naq::NewJob = naq_services::NewJob;
        naq::OnConflict = naq_models::OnConflict;
        naq::Outcome = naq_services::Outcome;
        naq::Priority = naq_models::Priority;
        naq::Queue = naq_queue::Queue;
        naq::QueueError = naq_queue::QueueError;
        naq::QueueErrorKind = naq_queue::QueueErrorKind;
        naq::QueueName = naq_models::QueueName;
        naq::QueueSpec = naq_worker::QueueSpec;
        naq::RawJson = naq_models::RawJson;
        naq::Receipt = naq_services::Receipt;
        naq::ResultError = naq_services::ResultError;
        naq::ResultErrorKind = naq_services::ResultErrorKind;
        naq::Results = naq_services::JobService;
        naq::RetryDelayType = naq_models::retry::RetryDelays;
        naq::RetryPolicy = naq_models::RetryPolicy;
        naq::RetryStrategy = naq_models::RetryStrategy;
        naq::SCHEDULED_JOB_STATUS = naq_models::ScheduleStatus;
        naq::Schedule = naq_models::Schedule;
        naq::ScheduleId = naq_models::ScheduleId;
        naq::Scheduler = naq_worker::Scheduler;
        naq::SchedulerService = naq_services::SchedulerService;
        naq::SchedulerServiceError = naq_services::SchedulerServiceError;
        naq::SchedulerServiceErrorKind = naq_services::SchedulerServiceErrorKind;
        naq::SerializationError = naq_models::DecodeError;
        naq::ServiceManager = naq_services::ServiceManager;
        naq::Shutdown = naq_worker::Shutdown;
        naq::State = naq_services::State;
        naq::StoreUrl = naq_config::StoreUrl;
        naq::Timestamp = naq_models::Timestamp;
        naq::UniqueBy = naq_services::new_job::UniqueBy;
        naq::UniqueWhile = naq_models::UniqueWhile;
        naq::WORKER_STATUS = naq_services::workers::WorkerStatus;
        naq::Worker = naq_worker::Worker;
        naq::WorkerBuilder = naq_worker::WorkerBuilder;
        naq::WorkerEvent = naq_models::Event;
        naq::WorkerEventType = naq_models::EventType;
        naq::WorkerInfo = naq_services::WorkerInfo;
        naq::WorkerOptions = naq_worker::WorkerOptions;
        naq::WorkerReport = naq_worker::WorkerReport;
        naq::__private = naq_services::__private;
        naq::cancel_scheduled_job = naq_queue::cancel_scheduled_job;
        naq::cancel_scheduled_job_sync = naq_queue::cancel_scheduled_job_sync;
        naq::close_nats_connection = naq_queue::disconnect;
        naq::close_sync_connections = naq_queue::disconnect_sync;
        naq::connect = naq_queue::connect;
        naq::connect_sync = naq_queue::connect_sync;
        naq::disconnect = naq_queue::disconnect;
        naq::disconnect_sync = naq_queue::disconnect_sync;
        naq::enqueue = naq_queue::enqueue;
        naq::enqueue_all = naq_queue::enqueue_all;
        naq::enqueue_all_sync = naq_queue::enqueue_all_sync;
        naq::enqueue_at = naq_queue::enqueue_at;
        naq::enqueue_at_sync = naq_queue::enqueue_at_sync;
        naq::enqueue_in = naq_queue::enqueue_in;
        naq::enqueue_in_sync = naq_queue::enqueue_in_sync;
        naq::enqueue_many = naq_queue::enqueue_many;
        naq::enqueue_many_sync = naq_queue::enqueue_many_sync;
        naq::enqueue_sync = naq_queue::enqueue_sync;
        naq::fetch_job_result = naq_queue::fetch_job_result;
        naq::fetch_job_result_sync = naq_queue::fetch_job_result_sync;
        naq::get_config = naq_config::get_config;
        naq::get_jetstream_context = naq_queue::connection::get_jetstream_context;
        naq::get_nats_connection = naq_queue::connection::get_nats_connection;
        naq::get_scheduled_job = naq_queue::get_scheduled_job;
        naq::get_scheduled_job_sync = naq_queue::get_scheduled_job_sync;
        naq::http = naq_telemetry::http;
        naq::install = naq_queue::install;
        naq::install_sync = naq_queue::install_sync;
        naq::job = naq_macros::job;
        naq::list_scheduled_jobs = naq_queue::list_scheduled_jobs;
        naq::list_scheduled_jobs_sync = naq_queue::list_scheduled_jobs_sync;
        naq::list_workers = naq_queue::list_workers;
        naq::list_workers_sync = naq_queue::list_workers_sync;
        naq::load_config = naq_config::load_config;
        naq::logging = naq_telemetry::logging;
        naq::metrics = naq_telemetry::metrics;
        naq::modify_scheduled_job = naq_queue::modify_scheduled_job;
        naq::modify_scheduled_job_sync = naq_queue::modify_scheduled_job_sync;
        naq::otel = naq_telemetry::otel;
        naq::pause_scheduled_job = naq_queue::pause_scheduled_job;
        naq::pause_scheduled_job_sync = naq_queue::pause_scheduled_job_sync;
        naq::purge_queue = naq_queue::purge_queue;
        naq::purge_queue_sync = naq_queue::purge_queue_sync;
        naq::resume_scheduled_job = naq_queue::resume_scheduled_job;
        naq::resume_scheduled_job_sync = naq_queue::resume_scheduled_job_sync;
        naq::run_async_from_sync = naq_queue::run_async_from_sync;
        naq::schedule = naq_queue::schedule;
        naq::schedule_sync = naq_queue::schedule_sync;
        naq::secs = naq_services::new_job::secs;
        naq::testing = naq_testing;
        naq::trigger_scheduled_job = naq_queue::trigger_scheduled_job;
        naq::trigger_scheduled_job_sync = naq_queue::trigger_scheduled_job_sync;
        naq::wait_for_result_sync = naq_queue::wait_for_result_sync;
    }
    cli {
        naq::cli::main = naq_cli::run;
    }
    config {
        naq::config::NAQConfig = naq_config::NaqConfig;
    }
    connection {
        naq::connection::close_nats_connection = naq_queue::disconnect;
        naq::connection::get_jetstream_context = naq_queue::connection::get_jetstream_context;
        naq::connection::get_nats_connection = naq_queue::connection::get_nats_connection;
    }
    events {
        naq::events::AsyncJobEventLogger = naq_services::events::EventLogger;
        naq::events::AsyncJobEventProcessor = naq_services::events::EventProcessor;
        naq::events::Event = naq_models::Event;
        naq::events::EventFilter = naq_models::EventFilter;
        naq::events::EventLogger = naq_services::events::EventLogger;
        naq::events::EventProcessor = naq_services::events::EventProcessor;
        naq::events::EventService = naq_services::events::EventService;
        naq::events::EventType = naq_models::EventType;
        naq::events::JobEvent = naq_models::Event;
        naq::events::JobEventLogger = naq_services::events::EventLogger;
        naq::events::JobEventType = naq_models::EventType;
        naq::events::WorkerEvent = naq_models::Event;
        naq::events::WorkerEventType = naq_models::EventType;
    }
    exceptions {
        naq::exceptions::ConfigurationError = naq_config::ConfigError;
        naq::exceptions::JobExecutionError = naq_models::JobError;
        naq::exceptions::JobNotFoundError = naq_services::JobServiceError;
        naq::exceptions::NaqConnectionError = naq_services::ServiceError;
        naq::exceptions::NaqException = naq_services::Failure;
        naq::exceptions::NotFoundError = naq_services::StorageError;
        naq::exceptions::SerializationError = naq_models::DecodeError;
        naq::exceptions::StorageError = naq_services::StorageError;
    }
    models {
        naq::models::JOB_STATUS = naq_models::JobStatus;
        naq::models::JobEvent = naq_models::Event;
        naq::models::JobEventType = naq_models::EventType;
        naq::models::RetryDelayType = naq_models::retry::RetryDelays;
        naq::models::Task = naq_models::Job;
        naq::models::TaskResult = naq_models::JobResult;
        naq::models::TaskStatus = naq_models::JobStatus;
        naq::models::VALID_RETRY_STRATEGIES = naq_models::retry::RETRY_STRATEGIES;
        naq::models::WorkerEvent = naq_models::Event;
        naq::models::WorkerEventType = naq_models::EventType;
    }
    models_enums {
        naq::models::enums::JOB_STATUS = naq_models::JobStatus;
        naq::models::enums::JobEventType = naq_models::EventType;
        naq::models::enums::JobStatus = naq_models::JobStatus;
        naq::models::enums::RETRY_STRATEGY = naq_models::RetryStrategy;
        naq::models::enums::RetryDelayType = naq_models::retry::RetryDelays;
        naq::models::enums::RetryStrategy = naq_models::RetryStrategy;
        naq::models::enums::SCHEDULED_JOB_STATUS = naq_models::ScheduleStatus;
        naq::models::enums::ScheduleStatus = naq_models::ScheduleStatus;
        naq::models::enums::VALID_RETRY_STRATEGIES = naq_models::retry::RETRY_STRATEGIES;
        naq::models::enums::WorkerEventType = naq_models::EventType;
    }
    models_events {
        naq::models::events::Event = naq_models::Event;
        naq::models::events::EventDetails = naq_models::EventDetails;
        naq::models::events::EventFilter = naq_models::EventFilter;
        naq::models::events::EventType = naq_models::EventType;
        naq::models::events::JobEvent = naq_models::Event;
        naq::models::events::JobEventType = naq_models::EventType;
        naq::models::events::WorkerEvent = naq_models::Event;
        naq::models::events::WorkerEventType = naq_models::EventType;
    }
    models_jobs {
        naq::models::jobs::Job = naq_models::Job;
        naq::models::jobs::JobResult = naq_models::JobResult;
        naq::models::jobs::RetryDelayType = naq_models::retry::RetryDelays;
        naq::models::jobs::RetryPolicy = naq_models::RetryPolicy;
    }
    models_schedules {
        naq::models::schedules::Schedule = naq_models::Schedule;
        naq::models::schedules::ScheduleDefinition = naq_models::ScheduleDefinition;
        naq::models::schedules::ScheduleId = naq_models::ScheduleId;
        naq::models::schedules::ScheduleRecord = naq_models::ScheduleRecord;
        naq::models::schedules::ScheduleStatus = naq_models::ScheduleStatus;
    }
    queue {
        naq::queue::AsyncTaskQueue = naq_queue::Queue;
        naq::queue::ScheduledJobManager = naq_services::SchedulerService;
        naq::queue::close_sync_connections = naq_queue::disconnect_sync;
    }
    queue_async_api {
        naq::queue::async_api::cancel_scheduled_job = naq_queue::cancel_scheduled_job;
        naq::queue::async_api::enqueue = naq_queue::enqueue;
        naq::queue::async_api::enqueue_all = naq_queue::enqueue_all;
        naq::queue::async_api::enqueue_at = naq_queue::enqueue_at;
        naq::queue::async_api::enqueue_in = naq_queue::enqueue_in;
        naq::queue::async_api::enqueue_many = naq_queue::enqueue_many;
        naq::queue::async_api::modify_scheduled_job = naq_queue::modify_scheduled_job;
        naq::queue::async_api::pause_scheduled_job = naq_queue::pause_scheduled_job;
        naq::queue::async_api::purge_queue = naq_queue::purge_queue;
        naq::queue::async_api::resume_scheduled_job = naq_queue::resume_scheduled_job;
        naq::queue::async_api::schedule = naq_queue::schedule;
        naq::queue::async_api::trigger_scheduled_job = naq_queue::trigger_scheduled_job;
    }
    queue_core {
        naq::queue::core::Queue = naq_queue::Queue;
        naq::queue::core::ScheduledJobManager = naq_services::SchedulerService;
    }
    queue_scheduled {
        naq::queue::scheduled::ScheduledJobManager = naq_services::SchedulerService;
    }
    queue_sync_api {
        naq::queue::sync_api::cancel_scheduled_job_sync = naq_queue::cancel_scheduled_job_sync;
        naq::queue::sync_api::close_sync_connections = naq_queue::disconnect_sync;
        naq::queue::sync_api::enqueue_all_sync = naq_queue::enqueue_all_sync;
        naq::queue::sync_api::enqueue_at_sync = naq_queue::enqueue_at_sync;
        naq::queue::sync_api::enqueue_in_sync = naq_queue::enqueue_in_sync;
        naq::queue::sync_api::enqueue_many_sync = naq_queue::enqueue_many_sync;
        naq::queue::sync_api::enqueue_sync = naq_queue::enqueue_sync;
        naq::queue::sync_api::modify_scheduled_job_sync = naq_queue::modify_scheduled_job_sync;
        naq::queue::sync_api::pause_scheduled_job_sync = naq_queue::pause_scheduled_job_sync;
        naq::queue::sync_api::purge_queue_sync = naq_queue::purge_queue_sync;
        naq::queue::sync_api::resume_scheduled_job_sync = naq_queue::resume_scheduled_job_sync;
        naq::queue::sync_api::schedule_sync = naq_queue::schedule_sync;
        naq::queue::sync_api::trigger_scheduled_job_sync = naq_queue::trigger_scheduled_job_sync;
    }
    results {
        naq::results::JobResult = naq_models::JobResult;
        naq::results::ResultState = naq_services::jobs::ResultState;
        naq::results::Results = naq_services::JobService;
        naq::results::fetch_job_result = naq_queue::fetch_job_result;
        naq::results::fetch_job_result_sync = naq_queue::fetch_job_result_sync;
    }
    scheduler {
        naq::scheduler::Scheduler = naq_worker::Scheduler;
        naq::scheduler::SchedulerError = naq_worker::SchedulerError;
        naq::scheduler::SchedulerOptions = naq_worker::SchedulerOptions;
    }
    services {
        naq::services::BaseService = naq_services::Service;
        naq::services::BaseStorage = naq_services::Storage;
        naq::services::ConnectionService = naq_services::connection::ConnectionService;
        naq::services::KVStoreService = naq_services::kv_stores::KvStoreService;
        naq::services::KvStoreService = naq_services::kv_stores::KvStoreService;
        naq::services::StreamService = naq_services::streams::StreamService;
    }
    services_base {
        naq::services::base::BaseService = naq_services::Service;
        naq::services::base::Service = naq_services::Service;
        naq::services::base::ServiceError = naq_services::ServiceError;
        naq::services::base::ServiceManager = naq_services::ServiceManager;
    }
    services_kv_stores {
        naq::services::kv_stores::KVStoreService = naq_services::kv_stores::KvStoreService;
    }
    settings {
        naq::settings::DEFAULT_NATS_URL = naq_config::DEFAULT_NATS_URL;
        naq::settings::DEFAULT_QUEUE_NAME = naq_models::id::DEFAULT_QUEUE_NAME;
        naq::settings::JOB_STATUS = naq_models::JobStatus;
        naq::settings::SCHEDULED_JOB_STATUS = naq_models::ScheduleStatus;
        naq::settings::WORKER_STATUS = naq_services::workers::WorkerStatus;
    }
    utils {
        naq::utils::ErrorHandler = naq_services::patterns::ErrorHandler;
        naq::utils::SerializationHelper = naq_models::WireFormat;
        naq::utils::StructuredLogger = naq_telemetry::logging::TaskLogger;
        naq::utils::error_context = naq_services::patterns::error_context;
        naq::utils::gather_with_concurrency = naq_services::patterns::gather_with_concurrency;
        naq::utils::log_errors = naq_services::patterns::log_errors;
        naq::utils::managed_resource = naq_services::patterns::managed_resource;
        naq::utils::retry = naq_services::patterns::retry;
        naq::utils::retry_async = naq_services::patterns::retry_async;
        naq::utils::run_async_from_sync = naq_queue::run_async_from_sync;
        naq::utils::run_in_thread = naq_services::patterns::run_in_thread;
        naq::utils::serialize_with_metadata = naq_models::wire::encode;
        naq::utils::setup_logging = naq_telemetry::logging::configure;
        naq::utils::setup_structured_logging = naq_telemetry::logging::configure_structured;
        naq::utils::timeout_context = naq_services::patterns::timeout_context;
        naq::utils::timing = naq_services::patterns::timing;
        naq::utils::wrap_naq_exception = naq_services::patterns::wrap_naq_exception;
    }
    worker {
        naq::worker::FailedJobHandler = naq_services::JobService;
        naq::worker::JobStatusManager = naq_services::JobService;
        naq::worker::WorkerStatusManager = naq_services::WorkerRegistry;
    }
    worker_core {
        naq::worker::core::Worker = naq_worker::Worker;
        naq::worker::core::WorkerBuilder = naq_worker::WorkerBuilder;
        naq::worker::core::WorkerOptions = naq_worker::WorkerOptions;
        naq::worker::core::WorkerReport = naq_worker::WorkerReport;
    }
    worker_failed {
        naq::worker::failed::DeadLetterView = naq_services::jobs::DeadLetterView;
        naq::worker::failed::FailedJobHandler = naq_services::JobService;
    }
    worker_jobs {
        naq::worker::jobs::JobStatusManager = naq_services::JobService;
        naq::worker::jobs::JobStatusView = naq_services::jobs::JobStatusView;
    }
    worker_status {
        naq::worker::status::WORKER_STATUS = naq_services::workers::WorkerStatus;
        naq::worker::status::WorkerInfo = naq_services::WorkerInfo;
        naq::worker::status::WorkerRegistry = naq_services::WorkerRegistry;
        naq::worker::status::WorkerStatus = naq_services::workers::WorkerStatus;
        naq::worker::status::WorkerStatusManager = naq_services::WorkerRegistry;
    }
}

/// What comes along as a whole.
pub(crate) const GLOBS: &[(&str, &str)] = &[
    ("naq::cli::*", "naq_cli::*"),
    ("naq::config::*", "naq_config::*"),
    ("naq::models::*", "naq_models::*"),
    ("naq::queue::*", "naq_queue::*"),
    ("naq::queue::scheduled::*", "naq_queue::scheduled::*"),
    ("naq::services::*", "naq_services::*"),
    ("naq::services::kv_stores::*", "naq_services::kv_stores::*"),
    ("naq::worker::*", "naq_worker::*"),
];
