//! Which settings go together: bounds, and pairs that must not contradict each other.
//!
//! Invariant: a pure function of a typed configuration, the same for one that was read and one that was built by hand.
//! Each check names every setting that it looks at, so that one already reported as faulty is not reported again.

use std::time::Duration;

use naq_models::QueueName;

use crate::{
    ConfigError, ConfigProblem, ExecProtocol, HandlerConfig, NaqConfig, ProblemKind, ScheduleConfig, Source,
    TracesConfig, Url, text::redacted,
};

/// The shortest lease that a worker takes: a heartbeat has to keep it alive over a network.
const ACK_WAIT_MIN: Duration = Duration::from_secs(1);
/// What every store needs besides the payload, in bytes; see `serialization.max_payload`.
pub const PAYLOAD_HEADROOM: u64 = 64 << 10;
/// The most jobs that one worker runs at once: each has a slot, which a slip of the keyboard must not make by the million.
pub const CONCURRENCY_MAX: u32 = 10_000;
/// The longest id of a schedule, in characters: a run's id adds its due time.
const SCHEDULE_ID_MAX: usize = 100;

/// Something that does not hold.
pub(crate) struct Violation {
    /// The settings that were looked at; the first one is reported.
    pub(crate) keys: Vec<String>,
    pub(crate) value: String,
    pub(crate) message: String,
}

impl NaqConfig {
    /// Checks a configuration that was built by hand. One that [`load`](crate::load) returned was checked already.
    ///
    /// # Errors
    /// Everything that does not hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let problems: Vec<_> = violations(self).into_iter().map(|v| v.into_problem(Source::Default)).collect();
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }
}

impl Violation {
    pub(crate) fn into_problem(mut self, source: Source) -> ConfigProblem {
        let key = if self.keys.is_empty() { String::new() } else { self.keys.swap_remove(0) };
        ConfigProblem {
            source,
            key,
            value: Some(self.value),
            kind: ProblemKind::Relation,
            message: self.message,
            suggestion: None,
        }
    }
}

#[derive(Default)]
struct Check(Vec<Violation>);

impl Check {
    fn fail(&mut self, keys: &[&str], value: impl ToString, message: impl Into<String>) {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self.0.push(Violation { keys, value: value.to_string(), message: message.into() });
    }

    fn positive(&mut self, key: &str, duration: Duration) {
        if duration.is_zero() {
            self.fail(&[key], "0s", "must be longer than nothing");
        }
    }

    fn within(&mut self, key: &str, number: u64, min: u64, max: u64) {
        if number < min {
            self.fail(&[key], number, format!("must be at least {min}"));
        } else if number > max {
            self.fail(&[key], number, format!("must be at most {max}"));
        }
    }

    fn at_least_one(&mut self, key: &str, number: u32) {
        self.within(key, number.into(), 1, u32::MAX.into());
    }

    fn concurrency(&mut self, key: &str, number: u32) {
        self.within(key, number.into(), 1, CONCURRENCY_MAX.into());
    }

    fn shorter(&mut self, key: &str, duration: Duration, than_key: &str, than: Duration, why: &str) {
        if duration >= than {
            let message = format!("must be shorter than {than_key} ({}): {why}", show(than));
            self.fail(&[key, than_key], show(duration), message);
        }
    }
}

fn show(duration: Duration) -> String {
    naq_models::duration::format(duration)
}

/// Everything that does not hold.
pub(crate) fn violations(config: &NaqConfig) -> Vec<Violation> {
    let mut check = Check::default();
    nats(config, &mut check);
    queues(config, &mut check);
    jobs_and_workers(config, &mut check);
    scheduler_and_events(config, &mut check);
    for (kind, handler) in &config.handlers {
        self::handler(kind, handler, &mut check);
    }
    for (id, schedule) in &config.schedules {
        self::schedule(id, schedule, &mut check);
    }
    check.0
}

fn nats(config: &NaqConfig, check: &mut Check) {
    let nats = &config.nats;
    check.within("nats.replicas", nats.replicas.into(), 1, 5);
    check.positive("nats.ping_interval", nats.ping_interval);
    check.positive("nats.connection_timeout", nats.connection_timeout);
    check.positive("nats.flush_timeout", nats.flush_timeout);
    let auth = &nats.auth;
    if auth.user.is_some() != auth.password.is_some() {
        let (given, missing) = if auth.user.is_some() { ("user", "password") } else { ("password", "user") };
        let (given, missing) = (format!("nats.auth.{given}"), format!("nats.auth.{missing}"));
        check.fail(&[&given, &missing], "***", format!("needs {missing} too"));
    }
    let methods = [
        ("nats.auth.user", auth.user.is_some() || auth.password.is_some()),
        ("nats.auth.token", auth.token.is_some()),
        ("nats.auth.nkey_seed", auth.nkey_seed.is_some()),
        ("nats.auth.credentials_file", auth.credentials_file.is_some()),
    ];
    let given: Vec<&str> = methods.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
    if given.len() > 1 {
        check.fail(&given, "***", format!("only one way to log in can be used, but there are {}", given.join(", ")));
    }
    let tls = &nats.tls;
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        let (given, missing, file) = match (&tls.cert_file, &tls.key_file) {
            (Some(file), _) => ("nats.tls.cert_file", "nats.tls.key_file", file.display().to_string()),
            (None, file) => {
                let file = file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
                ("nats.tls.key_file", "nats.tls.cert_file", file)
            }
        };
        check.fail(&[given, missing], format!("{file:?}"), format!("needs {missing} too"));
    }
}

fn queues(config: &NaqConfig, check: &mut Check) {
    let queues = &config.queues;
    if QueueName::new(&queues.prefix).is_err() {
        check.fail(&["queues.prefix"], format!("{:?}", queues.prefix), "must be 1 to 64 of A-Z a-z 0-9 _ and -");
    }
    let mut lease = |key: &str, ack_wait: Duration| {
        if ack_wait < ACK_WAIT_MIN {
            let message = format!("must be at least {}: a lease has to outlive the heartbeats", show(ACK_WAIT_MIN));
            check.fail(&[key], show(ack_wait), message);
        }
    };
    lease("queues.ack_wait", queues.ack_wait);
    for (name, queue) in &queues.configs {
        if let Some(ack_wait) = queue.ack_wait {
            lease(&format!("queues.configs.{name}.ack_wait"), ack_wait);
        }
    }
    check.at_least_one("queues.max_ack_pending", queues.max_ack_pending);
    for (name, queue) in &queues.configs {
        if let Some(pending) = queue.max_ack_pending {
            check.at_least_one(&format!("queues.configs.{name}.max_ack_pending"), pending);
        }
    }
}

fn jobs_and_workers(config: &NaqConfig, check: &mut Check) {
    let (jobs, workers) = (&config.jobs, &config.workers);
    check.positive("jobs.timeout", jobs.timeout);
    check.at_least_one("jobs.max_crashes", jobs.max_crashes);
    if jobs.timeout > workers.max_job_duration {
        let limit = show(workers.max_job_duration);
        let message = format!("must not be longer than workers.max_job_duration ({limit}): no worker would grant it");
        check.fail(&["jobs.timeout", "workers.max_job_duration"], show(jobs.timeout), message);
    }
    check.concurrency("workers.concurrency", workers.concurrency);
    check.positive("workers.heartbeat_interval", workers.heartbeat_interval);
    check.shorter(
        "workers.heartbeat_interval",
        workers.heartbeat_interval,
        "workers.ttl",
        workers.ttl,
        "a live worker would vanish from the list between two heartbeats",
    );
    for (name, pool) in &workers.pools {
        if pool.queues.is_empty() {
            check.fail(&[&format!("workers.pools.{name}.queues")], "[]", "a pool serves at least one queue");
        }
        for queue in &pool.queues {
            let (queue_name, weight) = queue.split_once(':').unwrap_or((queue, "1"));
            if QueueName::new(queue_name).is_err() || !weight.parse::<u32>().is_ok_and(|weight| weight > 0) {
                let key = format!("workers.pools.{name}.queues");
                check.fail(&[&key], format!("{queue:?}"), "must be QUEUE or QUEUE:WEIGHT with a weight from 1");
            }
        }
        if let Some(concurrency) = pool.concurrency {
            check.concurrency(&format!("workers.pools.{name}.concurrency"), concurrency);
        }
    }
}

fn scheduler_and_events(config: &NaqConfig, check: &mut Check) {
    let scheduler = &config.scheduler;
    check.positive("scheduler.lock_renew_interval", scheduler.lock_renew_interval);
    let (interval, ttl) = (scheduler.lock_renew_interval, scheduler.lock_ttl);
    if interval > ttl / 2 {
        let message = format!("must be at most half of scheduler.lock_ttl ({}): one renewal may fail", show(ttl));
        check.fail(&["scheduler.lock_renew_interval", "scheduler.lock_ttl"], show(interval), message);
    }
    check.positive("scheduler.scan_interval", scheduler.scan_interval);
    let events = &config.events;
    check.at_least_one("events.batch_size", events.batch_size);
    if events.batch_size > events.max_buffer_size {
        let message =
            format!("must not exceed events.max_buffer_size ({}): a batch would never fill", events.max_buffer_size);
        check.fail(&["events.batch_size", "events.max_buffer_size"], events.batch_size, message);
    }
    check.positive("events.flush_interval", events.flush_interval);
    check.within("events.stream.replicas", events.stream.replicas.into(), 1, 5);
    if QueueName::new(&events.stream.name).is_err() {
        let message = "must be 1 to 64 of A-Z a-z 0-9 _ and -";
        check.fail(&["events.stream.name"], format!("{:?}", events.stream.name), message);
    }
    check.positive("results.cleanup_interval", config.results.cleanup_interval);
    check.within("serialization.max_payload", config.serialization.max_payload.0, PAYLOAD_HEADROOM + 1024, u64::MAX);
    check.within("logging.max_size", config.logging.max_size.0, 1024, u64::MAX);
    traces(&config.traces, check);
}

fn traces(traces: &TracesConfig, check: &mut Check) {
    if let Some(url) = traces.endpoint.as_ref().map(Url::expose)
        && !is_http(url)
    {
        check.fail(&["traces.endpoint"], format!("{:?}", redacted(url)), "must start with http:// or https://");
    }
    if !(0.0..=1.0).contains(&traces.sample) {
        check.fail(&["traces.sample"], traces.sample, "must be between 0 and 1");
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

fn handler(kind: &str, handler: &HandlerConfig, check: &mut Check) {
    let key = |name: &str| format!("handlers.{kind}.{name}");
    if let Some(timeout) = handler.timeout() {
        check.positive(&key("timeout"), timeout);
    }
    match handler {
        HandlerConfig::Exec(exec) => {
            if exec.command.first().is_none_or(|program| program.is_empty()) {
                check.fail(&[&key("exec")], format!("{:?}", exec.command), "names no program");
            }
            if let ExecProtocol::Jsonl { processes } = exec.protocol {
                check.within(&key("processes"), processes.into(), 1, 1024);
            }
        }
        HandlerConfig::Http(http) => {
            let url = http.url.expose();
            if !is_http(url) {
                check.fail(&[&key("http")], format!("{:?}", redacted(url)), "must start with http:// or https://");
            }
        }
        HandlerConfig::Nats(nats) => {
            let subject = &nats.subject;
            let is_literal = subject
                .split('.')
                .all(|token| !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || "*>".contains(c)));
            if !is_literal {
                check.fail(&[&key("nats")], format!("{subject:?}"), "must be a subject without wildcards");
            }
        }
    }
}

fn schedule(id: &str, schedule: &ScheduleConfig, check: &mut Check) {
    let key = |name: &str| format!("schedules.{id}.{name}");
    let entry = format!("schedules.{id}");
    let is_id = id.len() <= SCHEDULE_ID_MAX && naq_models::JobId::new(id).is_ok();
    if !is_id {
        let message = format!("must be 1 to {SCHEDULE_ID_MAX} of A-Z a-z 0-9 _ and -");
        check.fail(&[&entry], format!("{id:?}"), message);
    }
    let times = [schedule.cron.is_some(), schedule.every.is_some(), schedule.after.is_some()];
    let given = times.iter().filter(|given| **given).count();
    if given != 1 {
        check.fail(&[&entry], "{…}", format!("needs exactly one of cron, every, after; it has {given}"));
    }
    if schedule.tz.is_some() && schedule.cron.is_none() {
        check.fail(&[&key("tz")], format!("{:?}", schedule.tz), "goes with cron only");
    }
    for (name, duration) in [("every", schedule.every), ("after", schedule.after)] {
        if let Some(duration) = duration {
            check.positive(&key(name), duration);
        }
    }
    if !(schedule.args.is_object() || schedule.args.is_array()) {
        check.fail(&[&key("args")], "…", "must be an object or a list");
    }
    if let (Some(start), Some(end)) = (schedule.start, schedule.end)
        && start >= end
    {
        check.fail(&[&key("end"), &key("start")], end, "must be after start");
    }
}
