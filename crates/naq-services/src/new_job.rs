//! [`NewJob`]: what a producer asks for, before it has an id and a time.
//!
//! Invariant: building never fails and never panics; the first mistake is kept and comes out of [`NewJob::into_job`],
//! which is pure (id, time and defaults are arguments), so that a [`Job`] that exists is one that can be stored.
//!
//! Not here: storing it, generating its id, and limits that depend on the store (the size of its body).

use std::{collections::BTreeMap, fmt, marker::PhantomData, sync::Arc, time::Duration};

use naq_models::{
    Job, JobId, NameError, OnDependencyFailure, Priority, QueueName, RawJson, RetryStrategy, Timestamp, UniqueError,
    duration::MAX as MAX_DURATION, id::PriorityError,
};
use serde::Serialize;

mod unique;

pub use unique::UniqueBy;
use unique::Uniqueness;

/// The longest [`Job::kind`], in bytes.
pub const MAX_KIND: usize = naq_models::wire::MAX_KIND;

/// What a job gets where its producer said nothing: `queues.default`, `jobs.max_retries`, `jobs.timeout`, `results.ttl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDefaults {
    /// The queue.
    pub queue: QueueName,
    /// How many times a failed job runs again.
    pub max_retries: u32,
    /// How long one run may take.
    pub timeout: Duration,
    /// How long the result is kept; zero keeps none.
    pub result_ttl: Duration,
}

impl Default for JobDefaults {
    fn default() -> Self {
        Self {
            queue: QueueName::default(),
            max_retries: naq_models::RetryPolicy::default().max_retries,
            timeout: naq_models::job::DEFAULT_TIMEOUT,
            result_ttl: naq_models::job::DEFAULT_RESULT_TTL,
        }
    }
}

/// Why a [`NewJob`] is not a job.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NewJobError {
    /// The arguments cannot be written as JSON.
    #[error("the arguments of {kind:?} cannot be written as JSON: {source}")]
    Serialize {
        /// The job's kind.
        kind: String,
        /// What serde said.
        source: Arc<serde_json::Error>,
    },
    /// The arguments are JSON, but neither an object nor an array.
    #[error(
        "the arguments of {kind:?} are {found}; write an object (arguments by name) or an array (arguments by position)"
    )]
    Args {
        /// The job's kind.
        kind: String,
        /// What they are instead: `a string`, `null`.
        found: &'static str,
    },
    /// The kind is empty, longer than [`MAX_KIND`] bytes, or holds a control character.
    #[error("{kind:?} is not a kind: 1 to {MAX_KIND} bytes without control characters")]
    Kind {
        /// The refused text, cut to 64 characters.
        kind: String,
    },
    /// A queue name or job id that is not allowed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A priority over 3.
    #[error(transparent)]
    Priority(#[from] PriorityError),
    /// A duration over [`naq_models::duration::MAX`], or a timeout of zero.
    #[error("{option} = {value:?} is not allowed: {reason}")]
    Duration {
        /// The option's name.
        option: &'static str,
        /// What was given.
        value: Duration,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A jitter that is not a number from 0 to 1.
    #[error("retry_jitter = {value} is not allowed: a number from 0 to 1")]
    Jitter {
        /// What was given.
        value: f64,
    },
    /// A metadata value that cannot be written as JSON.
    #[error("the metadata {key:?} cannot be written as JSON: {source}")]
    Meta {
        /// The metadata's key.
        key: String,
        /// What serde said.
        source: Arc<serde_json::Error>,
    },
    /// A unique key that cannot be used.
    #[error(transparent)]
    Unique(#[from] UniqueError),
    /// An argument that the job is to be unique by is not there.
    #[error("the arguments of {kind:?} have no {field:?} that the job could be unique by; they have to be by name")]
    UniqueField {
        /// The job's kind.
        kind: String,
        /// The argument's name.
        field: String,
    },
    /// An option of unique jobs, and nothing that makes the job unique.
    #[error("{option} is not allowed for a job that is not unique")]
    NotUnique {
        /// The option's name.
        option: &'static str,
    },
    /// The job depends on itself.
    #[error("job {id} cannot depend on itself")]
    DependsOnItself {
        /// Its id.
        id: JobId,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Now,
    After(Duration),
    At(Timestamp),
}

/// A job to be enqueued, whose handler returns an `R`.
///
/// `#[naq::job]` makes one per function (`send_mail::job("a@b.c", "hi")`); [`NewJob::new`] makes one by name. Each
/// method sets one option over the function's and the configuration's defaults; the last call wins. Mistakes (a queue
/// name that is not allowed) are reported when the job is enqueued.
///
/// ```
/// # use naq_services::{NewJob, new_job::secs};
/// # use serde_json::json;
/// let job = NewJob::new("send_mail", json!({"to": "a@b.c"})).queue("mail").delay(secs(5)).meta("tenant", "acme");
/// # assert_eq!(job.kind(), "send_mail");
/// ```
#[must_use = "a new job does nothing until it is enqueued"]
pub struct NewJob<R = RawJson> {
    kind: String,
    args: RawJson,
    id: Option<JobId>,
    queue: Option<QueueName>,
    priority: Priority,
    due: Due,
    max_retries: Option<u32>,
    retry_strategy: Option<RetryStrategy>,
    retry_delay: Option<Vec<Duration>>,
    retry_max_delay: Option<Duration>,
    retry_jitter: Option<f64>,
    retry_on: Vec<String>,
    ignore_on: Vec<String>,
    timeout: Option<Duration>,
    result_ttl: Option<Duration>,
    depends_on: Vec<JobId>,
    on_dependency_failure: OnDependencyFailure,
    uniqueness: Uniqueness,
    meta: BTreeMap<String, RawJson>,
    mistake: Option<NewJobError>,
    output: PhantomData<fn() -> R>,
}

impl NewJob<RawJson> {
    /// A job by its kind, for handlers that this program does not hold. `args` is anything that serializes to an object
    /// or an array, for example `serde_json::json!` or a [`RawJson`].
    pub fn new(kind: impl Into<String>, args: impl Serialize) -> Self {
        Self::typed(kind, args)
    }
}

impl<R> NewJob<R> {
    /// Like [`NewJob::new`], for a handler that is known to return an `R`.
    pub fn typed(kind: impl Into<String>, args: impl Serialize) -> Self {
        let kind = kind.into();
        let (args, mistake) = match RawJson::from_value(&args) {
            Ok(args) => (args, None),
            Err(source) => {
                (RawJson::null(), Some(NewJobError::Serialize { kind: kind.clone(), source: Arc::new(source) }))
            }
        };
        Self {
            kind,
            args,
            id: None,
            queue: None,
            priority: Priority::default(),
            due: Due::Now,
            max_retries: None,
            retry_strategy: None,
            retry_delay: None,
            retry_max_delay: None,
            retry_jitter: None,
            retry_on: Vec::new(),
            ignore_on: Vec::new(),
            timeout: None,
            result_ttl: None,
            depends_on: Vec::new(),
            on_dependency_failure: OnDependencyFailure::default(),
            uniqueness: Uniqueness::default(),
            meta: BTreeMap::new(),
            mistake,
            output: PhantomData,
        }
    }

    /// The handler's name.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The arguments; `null` if they could not be written as JSON, which [`NewJob::into_job`] reports.
    #[must_use]
    pub fn args(&self) -> &RawJson {
        &self.args
    }

    /// The id its producer chose, if any.
    #[must_use]
    pub fn chosen_id(&self) -> Option<&JobId> {
        self.id.as_ref()
    }

    /// Whether its time depends on `now`: only then must [`NewJob::into_job`] be given the store's time.
    #[must_use]
    pub fn has_delay(&self) -> bool {
        matches!(self.due, Due::After(_))
    }

    /// Whether it waits for a time, given as a delay or as such.
    #[must_use]
    pub fn has_time(&self) -> bool {
        !matches!(self.due, Due::Now)
    }

    /// The same job without the type of its result, for batches of different jobs.
    pub fn erased(self) -> NewJob<RawJson> {
        self.returning()
    }

    /// The same job, taken to return an `S`; whether it does shows when its result is read.
    pub fn returning<S>(self) -> NewJob<S> {
        NewJob {
            kind: self.kind,
            args: self.args,
            id: self.id,
            queue: self.queue,
            priority: self.priority,
            due: self.due,
            max_retries: self.max_retries,
            retry_strategy: self.retry_strategy,
            retry_delay: self.retry_delay,
            retry_max_delay: self.retry_max_delay,
            retry_jitter: self.retry_jitter,
            retry_on: self.retry_on,
            ignore_on: self.ignore_on,
            timeout: self.timeout,
            result_ttl: self.result_ttl,
            depends_on: self.depends_on,
            on_dependency_failure: self.on_dependency_failure,
            uniqueness: self.uniqueness,
            meta: self.meta,
            mistake: self.mistake,
            output: PhantomData,
        }
    }

    /// The caller's own id, `[A-Za-z0-9_-]{1,128}`. Enqueueing an id that exists is no error; nothing is stored twice.
    pub fn job_id(mut self, id: impl AsRef<str>) -> Self {
        self.id = self.noting(JobId::new(id));
        self
    }

    /// The queue, `[A-Za-z0-9_-]{1,64}`.
    pub fn queue(mut self, queue: impl AsRef<str>) -> Self {
        self.queue = self.noting(QueueName::new(queue));
        self
    }

    /// How urgent it is within its queue: 0 first, 3 last, 2 by default.
    pub fn priority(mut self, priority: u8) -> Self {
        if let Some(priority) = self.noting(Priority::new(priority)) {
            self.priority = priority;
        }
        self
    }

    /// Runs it no earlier than `delay` after it is enqueued. Replaces [`NewJob::at`].
    pub fn delay(mut self, delay: Duration) -> Self {
        self.due = Due::After(self.bounded("delay", delay));
        self
    }

    /// Runs it no earlier than `time`. Replaces [`NewJob::delay`].
    pub fn at(mut self, time: Timestamp) -> Self {
        self.due = Due::At(time);
        self
    }

    /// How many times it runs again after a failure; 0 means it runs once.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// How a single delay between two attempts grows.
    pub fn retry_strategy(mut self, strategy: RetryStrategy) -> Self {
        self.retry_strategy = Some(strategy);
        self
    }

    /// The base delay between two attempts.
    pub fn retry_delay(self, delay: Duration) -> Self {
        self.retry_delays([delay])
    }

    /// Delays between attempts, taken one by one, the last repeated.
    pub fn retry_delays(mut self, delays: impl IntoIterator<Item = Duration>) -> Self {
        let delays = delays.into_iter().map(|delay| self.bounded("retry_delay", delay)).collect();
        self.retry_delay = Some(delays);
        self
    }

    /// No delay between attempts is longer than this, before jitter.
    pub fn retry_max_delay(mut self, delay: Duration) -> Self {
        self.retry_max_delay = Some(self.bounded("retry_max_delay", delay));
        self
    }

    /// The random share of each delay, 0 to 1.
    pub fn retry_jitter(mut self, share: f64) -> Self {
        if (0.0..=1.0).contains(&share) {
            self.retry_jitter = Some(share);
        } else {
            self.note(NewJobError::Jitter { value: share });
        }
        self
    }

    /// If not empty, only errors of these types are retried.
    pub fn retry_on<T: Into<String>>(mut self, error_types: impl IntoIterator<Item = T>) -> Self {
        self.retry_on = error_types.into_iter().map(Into::into).collect();
        self
    }

    /// Errors of these types are never retried.
    pub fn ignore_on<T: Into<String>>(mut self, error_types: impl IntoIterator<Item = T>) -> Self {
        self.ignore_on = error_types.into_iter().map(Into::into).collect();
        self
    }

    /// How long one run may take; more than zero.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        let timeout = self.bounded("timeout", timeout);
        if timeout.is_zero() {
            let reason = "a run needs some time; leave it out for the default";
            self.note(NewJobError::Duration { option: "timeout", value: timeout, reason });
        }
        self.timeout = Some(timeout);
        self
    }

    /// How long its result is kept. Zero keeps none, and then nobody can wait for it.
    pub fn result_ttl(mut self, ttl: Duration) -> Self {
        self.result_ttl = Some(self.bounded("result_ttl", ttl));
        self
    }

    /// Jobs that must end first, beside those named before.
    pub fn depends_on<I: AsRef<str>>(mut self, ids: impl IntoIterator<Item = I>) -> Self {
        for id in ids {
            if let Some(id) = self.noting(JobId::new(id))
                && !self.depends_on.contains(&id)
            {
                self.depends_on.push(id);
            }
        }
        self
    }

    /// What happens when a job it depends on does not complete.
    pub fn on_dependency_failure(mut self, reaction: OnDependencyFailure) -> Self {
        self.on_dependency_failure = reaction;
        self
    }

    /// One entry of what travels beside the arguments; replaces an earlier one of that key.
    pub fn meta(mut self, key: impl Into<String>, value: impl Serialize) -> Self {
        let key = key.into();
        match RawJson::from_value(&value) {
            Ok(value) => {
                self.meta.insert(key, value);
            }
            Err(source) => self.note(NewJobError::Meta { key, source: Arc::new(source) }),
        }
        self
    }

    pub(crate) fn has_meta(&self, key: &str) -> bool {
        self.meta.contains_key(key)
    }

    /// The job itself. `id` is used unless its producer chose one; `now` is the time of enqueueing, from which a delay
    /// counts (see [`NewJob::has_delay`]).
    ///
    /// # Errors
    /// The first mistake that was made while building it; see [`NewJobError`].
    pub fn into_job(self, id: JobId, now: Timestamp, defaults: &JobDefaults) -> Result<Job, NewJobError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        if self.kind.is_empty() || self.kind.len() > MAX_KIND || self.kind.chars().any(char::is_control) {
            return Err(NewJobError::Kind { kind: self.kind.chars().take(64).collect() });
        }
        if !self.args.is_object() && !self.args.is_array() {
            return Err(NewJobError::Args { kind: self.kind, found: what_json_is(&self.args) });
        }
        let mut job = Job::new(self.id.unwrap_or(id), self.kind, self.args, now);
        if self.depends_on.contains(&job.id) {
            return Err(NewJobError::DependsOnItself { id: job.id });
        }
        job.queue = self.queue.unwrap_or_else(|| defaults.queue.clone());
        job.priority = self.priority;
        job.run_at = match self.due {
            Due::Now => None,
            Due::After(delay) => Some(now.saturating_add(delay)),
            Due::At(time) => Some(time),
        };
        job.retry.max_retries = self.max_retries.unwrap_or(defaults.max_retries);
        job.retry.strategy = self.retry_strategy.unwrap_or(job.retry.strategy);
        job.retry.delay = self.retry_delay.unwrap_or(job.retry.delay);
        job.retry.max_delay = self.retry_max_delay.unwrap_or(job.retry.max_delay);
        job.retry.jitter = self.retry_jitter.unwrap_or(job.retry.jitter);
        job.retry.retry_on = self.retry_on;
        job.retry.ignore_on = self.ignore_on;
        job.timeout = self.timeout.unwrap_or(defaults.timeout);
        job.result_ttl = self.result_ttl.unwrap_or(defaults.result_ttl);
        job.depends_on = self.depends_on;
        job.on_dependency_failure = self.on_dependency_failure;
        job.unique = self.uniqueness.of(&job.kind, &job.queue, &job.args)?;
        job.meta = self.meta;
        Ok(job)
    }

    fn note(&mut self, mistake: NewJobError) {
        self.mistake.get_or_insert(mistake);
    }

    fn noting<T, E: Into<NewJobError>>(&mut self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(mistake) => {
                self.note(mistake.into());
                None
            }
        }
    }

    fn bounded(&mut self, option: &'static str, value: Duration) -> Duration {
        if value > MAX_DURATION {
            self.note(NewJobError::Duration { option, value, reason: "longer than 100 years" });
        }
        value
    }
}

impl<R> Clone for NewJob<R> {
    fn clone(&self) -> Self {
        Self {
            kind: self.kind.clone(),
            args: self.args.clone(),
            id: self.id.clone(),
            queue: self.queue.clone(),
            priority: self.priority,
            due: self.due,
            max_retries: self.max_retries,
            retry_strategy: self.retry_strategy,
            retry_delay: self.retry_delay.clone(),
            retry_max_delay: self.retry_max_delay,
            retry_jitter: self.retry_jitter,
            retry_on: self.retry_on.clone(),
            ignore_on: self.ignore_on.clone(),
            timeout: self.timeout,
            result_ttl: self.result_ttl,
            depends_on: self.depends_on.clone(),
            on_dependency_failure: self.on_dependency_failure,
            uniqueness: self.uniqueness.clone(),
            meta: self.meta.clone(),
            mistake: self.mistake.clone(),
            output: PhantomData,
        }
    }
}

impl<R> fmt::Debug for NewJob<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewJob")
            .field("kind", &self.kind)
            .field("args", &self.args)
            .field("id", &self.id)
            .field("queue", &self.queue)
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

/// A duration of whole seconds: `send_mail::job("a@b.c").delay(secs(5))`.
#[must_use]
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn what_json_is(json: &RawJson) -> &'static str {
    match json.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn build<R>(job: NewJob<R>) -> Result<Job, NewJobError> {
        let now = Timestamp::from_unix_millis(1_000).unwrap();
        let defaults = JobDefaults {
            queue: QueueName::new("standard").unwrap(),
            max_retries: 7,
            timeout: secs(11),
            result_ttl: secs(13),
        };
        job.into_job(JobId::new("generated").unwrap(), now, &defaults)
    }

    #[test]
    fn defaults_fill_what_was_not_said() {
        let job = build(NewJob::new("k", json!({}))).unwrap();
        assert_eq!((job.id.as_str(), job.queue.as_str(), job.retry.max_retries), ("generated", "standard", 7));
        assert_eq!((job.timeout, job.result_ttl, job.run_at), (secs(11), secs(13), None));
    }

    #[test]
    fn what_was_said_wins() {
        let job = NewJob::new("k", json!([1]))
            .job_id("mine")
            .queue("mail")
            .priority(0)
            .delay(secs(5))
            .max_retries(0)
            .retry_delays([secs(1), secs(2)])
            .retry_strategy(RetryStrategy::Fixed)
            .retry_on(["net"])
            .ignore_on(["parse"])
            .timeout(secs(2))
            .result_ttl(secs(0))
            .depends_on(["a", "b", "a"])
            .meta("tenant", "acme");
        assert!(job.has_delay());
        let job = build(job.clone()).unwrap();
        assert_eq!((job.id.as_str(), job.queue.as_str(), job.priority.get()), ("mine", "mail", 0));
        assert_eq!(job.run_at, Timestamp::from_unix_millis(6_000));
        assert_eq!(job.retry.max_retries, 0);
        assert_eq!(job.retry.delay, [secs(1), secs(2)]);
        assert_eq!(job.retry.strategy, RetryStrategy::Fixed);
        assert_eq!((job.retry.retry_on, job.retry.ignore_on), (vec!["net".into()], vec!["parse".into()]));
        assert_eq!((job.timeout, job.result_ttl), (secs(2), secs(0)));
        assert_eq!(job.depends_on, [JobId::new("a").unwrap(), JobId::new("b").unwrap()]);
        assert_eq!(job.meta["tenant"].get(), "\"acme\"");
    }

    #[test]
    fn every_mistake_has_its_kind() {
        let ok = || NewJob::new("k", json!({}));
        let of = |job: NewJob| build(job).unwrap_err();
        assert!(matches!(of(NewJob::new("k", json!("text"))), NewJobError::Args { found: "a string", .. }));
        assert!(matches!(of(NewJob::new("k", 5)), NewJobError::Args { found: "a number", .. }));
        let keys = std::collections::HashMap::from([(vec![1], 1)]);
        assert!(matches!(of(NewJob::new("k", keys)), NewJobError::Serialize { .. }));
        for kind in [String::new(), "a\nb".into(), "x".repeat(257)] {
            assert!(matches!(of(NewJob::new(kind, json!({}))), NewJobError::Kind { .. }));
        }
        assert!(matches!(of(ok().queue("a.b")), NewJobError::Name(_)));
        assert!(matches!(of(ok().job_id("")), NewJobError::Name(_)));
        assert!(matches!(of(ok().depends_on(["*"])), NewJobError::Name(_)));
        assert!(matches!(of(ok().priority(4)), NewJobError::Priority(_)));
        assert!(matches!(of(ok().timeout(Duration::ZERO)), NewJobError::Duration { option: "timeout", .. }));
        assert!(matches!(of(ok().delay(Duration::MAX)), NewJobError::Duration { option: "delay", .. }));
        assert!(matches!(of(ok().retry_jitter(f64::NAN)), NewJobError::Jitter { .. }));
        assert!(matches!(of(ok().job_id("a").depends_on(["a"])), NewJobError::DependsOnItself { .. }));
    }

    #[test]
    fn the_first_mistake_is_reported() {
        let job = NewJob::new("k", json!({})).priority(9).queue("not allowed");
        assert!(matches!(build(job), Err(NewJobError::Priority(_))));
    }
}
