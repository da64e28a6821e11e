//! Where settings come from, and which source wins.

use std::{path::PathBuf, time::Duration};

use naq_config::{
    ByteSize, ChosenBy, ExecProtocol, HandlerConfig, HttpMethod, JobSerializer, LogFormat, LogMode, NaqConfig, Source,
    StoreUrl,
};
use serde_json::{Value, json};

use crate::{Machine, yaml};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn each_source_wins_over_those_before_it() {
    let concurrency = |machine: &Machine| machine.load().unwrap().config.workers.concurrency;
    let source = |machine: &Machine| machine.load().unwrap().source_of("workers.concurrency");
    let file = |machine: &Machine, name: &str| Source::File { path: machine.path(name), environment: None };

    let machine = Machine::new();
    assert_eq!((concurrency(&machine), source(&machine)), (10, Source::Default));

    let machine = machine.file("etc/config.yaml", "workers: {concurrency: 1, ttl: 99s}");
    assert_eq!((concurrency(&machine), source(&machine)), (1, file(&machine, "etc/config.yaml")));

    let machine = machine.file("home/.naq/config.yaml", "workers: {concurrency: 2}");
    assert_eq!((concurrency(&machine), source(&machine)), (2, file(&machine, "home/.naq/config.yaml")));

    let sections = "workers: {concurrency: 3}\nenvironments: {prod: {workers: {concurrency: 4}}}";
    let machine = machine.file("work/naq.yaml", sections);
    assert_eq!((concurrency(&machine), source(&machine)), (3, file(&machine, "work/naq.yaml")));

    let machine = machine.variable("NAQ_ENVIRONMENT", "prod");
    let section = Source::File { path: machine.path("work/naq.yaml"), environment: Some("prod".into()) };
    assert_eq!((concurrency(&machine), source(&machine)), (4, section));

    let machine = machine.variable("NAQ_WORKER_CONCURRENCY", "5");
    assert_eq!(
        (concurrency(&machine), source(&machine)),
        (5, Source::Variable { name: "NAQ_WORKER_CONCURRENCY".into() })
    );

    let machine = machine.variable("NAQ_WORKERS__CONCURRENCY", "6");
    assert_eq!(
        (concurrency(&machine), source(&machine)),
        (6, Source::Variable { name: "NAQ_WORKERS__CONCURRENCY".into() })
    );

    let machine = machine.flag("--concurrency", "workers.concurrency", "7");
    assert_eq!((concurrency(&machine), source(&machine)), (7, Source::Flag { name: "--concurrency".into() }));

    // What no later source mentions stays.
    assert_eq!(machine.load().unwrap().config.workers.ttl, 99 * SECOND);
}

#[test]
fn an_environment_of_a_lower_file_wins_over_a_higher_file() {
    let machine = Machine::new()
        .file("etc/config.yaml", "environments: {prod: {jobs: {max_retries: 1}}}")
        .file("work/naq.yaml", "jobs: {max_retries: 2}")
        .variable("NAQ_ENVIRONMENT", "prod");
    assert_eq!(machine.load().unwrap().config.jobs.max_retries, 1);
}

#[test]
fn an_explicit_file_replaces_the_search() {
    let machine = Machine::new()
        .file("etc/config.yaml", "jobs: {max_retries: 1}")
        .file("work/naq.yaml", "jobs: {max_crashes: 9}")
        .file("my.toml", "[workers]\nconcurrency = 3");
    let loaded = machine.load_only(&machine.path("my.toml")).unwrap();
    let mut expected = NaqConfig::default();
    expected.workers.concurrency = 3;
    assert_eq!(loaded.config, expected);
    assert_eq!(loaded.files, [machine.path("my.toml")]);
    assert!(machine.load_only(&machine.path("gone.yaml")).is_err());
}

#[test]
fn only_one_file_of_the_working_directory_is_read_and_the_other_is_named() {
    let machine = yaml("jobs: {max_retries: 1}").file("work/naq.toml", "[jobs]\nmax_retries = 2");
    let loaded = machine.load().unwrap();
    assert_eq!(loaded.config.jobs.max_retries, 1);
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(loaded.warnings[0].source, Source::File { path: machine.path("work/naq.toml"), environment: None });
}

#[test]
fn yaml_and_toml_say_the_same() {
    let from_yaml = yaml(
        r#"
nats: {servers: ["nats://a:4222", "nats://b:4222"], max_reconnect_attempts: 3, auth: {user: u, password: "123"}}
queues: {default: mail, configs: {mail: {ack_wait: 1m30s}}}
handlers:
  a: {exec: ["./a", "-x"], env: {K: v}, timeout: 2}
  b: {exec: [b], protocol: jsonl, processes: 2}
  c: {http: "http://h/x", method: PUT}
  d: {nats: svc.d}
schedules:
  s: {kind: k, args: [1, {x: null}], cron: "* * * * *", tz: Europe/Berlin, start: "2026-01-01T00:00:00Z"}
"#,
    );
    let from_toml = Machine::new().file(
        "work/naq.toml",
        r#"
[nats]
servers = ["nats://a:4222", "nats://b:4222"]
max_reconnect_attempts = 3
auth = { user = "u", password = "123" }
[queues]
default = "mail"
configs.mail.ack_wait = 90.0
[handlers]
a = { exec = ["./a", "-x"], env = { K = "v" }, timeout = "2s" }
b = { exec = ["b"], protocol = "jsonl", processes = 2 }
c = { http = "http://h/x", method = "put" }
d = { nats = "svc.d" }
[schedules.s]
kind = "k"
args = [1, {}]
cron = "* * * * *"
tz = "Europe/Berlin"
start = "2026-01-01T00:00:00Z"
"#,
    );
    let yaml = from_yaml.load().unwrap().config;
    let mut toml = from_toml.load().unwrap().config;
    assert_eq!(yaml.schedules["s"].args, json!([1, {"x": null}]), "TOML has no null");
    toml.schedules.get_mut("s").unwrap().args = json!([1, {"x": null}]);
    assert_eq!(yaml, toml);
    assert!(matches!(&yaml.handlers["a"], HandlerConfig::Exec(exec)
        if exec.protocol == ExecProtocol::Once && exec.env["K"].expose() == "v" && exec.timeout == Some(2 * SECOND)));
    assert!(matches!(&yaml.handlers["b"], HandlerConfig::Exec(exec)
        if exec.protocol == ExecProtocol::Jsonl { processes: 2 }));
    assert!(matches!(&yaml.handlers["c"], HandlerConfig::Http(http) if http.method == HttpMethod::Put));
    let mail = "mail".parse().unwrap();
    assert_eq!(yaml.queues.ack_wait_of(&mail), 90 * SECOND);
    assert_eq!(yaml.queues.ack_wait_of(&"other".parse().unwrap()), 30 * SECOND);
}

/// One old variable, a value, and where it must arrive.
fn old(variable: &str, value: &str, pointer: &str, expected: Value) {
    let loaded = Machine::new().variable(variable, value).load().unwrap_or_else(|e| panic!("{variable}: {e}"));
    let config = serde_json::to_value(&loaded.config).unwrap();
    assert_eq!(config.pointer(pointer), Some(&expected), "{variable}");
    assert_ne!(serde_json::to_value(NaqConfig::default()).unwrap().pointer(pointer), Some(&expected), "{variable}");
    assert_eq!(loaded.warnings, [], "{variable}");
}

#[test]
fn every_old_variable_still_works() {
    old("NAQ_URL", "memory://x", "/storage/url", json!("memory://x"));
    old("NAQ_NATS_URL", "nats://h:1,h:2", "/nats/servers", json!(["nats://h:1", "nats://h:2"]));
    old("NAQ_CLIENT_NAME", "me", "/nats/client_name", json!("me"));
    old("NAQ_MAX_RECONNECT_ATTEMPTS", "5", "/nats/max_reconnect_attempts", json!(5));
    old("NAQ_RECONNECT_TIME_WAIT", "2.5", "/nats/reconnect_time_wait", json!("2s 500ms"));
    old("NAQ_CONNECTION_TIMEOUT", "3", "/nats/connection_timeout", json!("3s"));
    old("NAQ_DRAIN_TIMEOUT", "3", "/nats/drain_timeout", json!("3s"));
    old("NAQ_DEFAULT_QUEUE", "123", "/queues/default", json!("123"));
    old("NAQ_QUEUE_PREFIX", "p", "/queues/prefix", json!("p"));
    old("NAQ_DEFAULT_ACK_WAIT", "60", "/queues/ack_wait", json!("1m"));
    old("NAQ_ACK_WAIT_PER_QUEUE", r#"{"Mail-1": 120}"#, "/queues/configs/Mail-1/ack_wait", json!("2m"));
    old("NAQ_WORKER_CONCURRENCY", "4", "/workers/concurrency", json!(4));
    old("NAQ_WORKER_HEARTBEAT_INTERVAL", "5", "/workers/heartbeat_interval", json!("5s"));
    old("NAQ_WORKER_TTL", "90", "/workers/ttl", json!("1m 30s"));
    old("NAQ_MAX_JOB_DURATION", "7200", "/workers/max_job_duration", json!("2h"));
    old("NAQ_WORKER_SHUTDOWN_TIMEOUT", "5", "/workers/shutdown_timeout", json!("5s"));
    old("NAQ_SCHEDULER_ENABLED", "false", "/scheduler/enabled", json!(false));
    old("NAQ_SCHEDULER_LOCK_TTL", "30", "/scheduler/lock_ttl", json!("30s"));
    old("NAQ_SCHEDULER_LOCK_RENEW_INTERVAL", "5", "/scheduler/lock_renew_interval", json!("5s"));
    old("NAQ_SCHEDULER_SCAN_INTERVAL", "0.5", "/scheduler/scan_interval", json!("500ms"));
    old("NAQ_EVENTS_ENABLED", "0", "/events/enabled", json!(false));
    old("NAQ_PING_INTERVAL", "5", "/nats/ping_interval", json!("5s"));
    old("NAQ_EVENTS_BATCH_SIZE", "7", "/events/batch_size", json!(7));
    old("NAQ_EVENTS_FLUSH_INTERVAL", "5.0", "/events/flush_interval", json!("5s"));
    old("NAQ_EVENTS_MAX_BUFFER_SIZE", "700", "/events/max_buffer_size", json!(700));
    old("NAQ_EVENTS_STREAM_NAME", "E", "/events/stream/name", json!("E"));
    old("NAQ_EVENT_LOGGER_BATCH_SIZE", "7", "/events/batch_size", json!(7));
    old("NAQ_EVENT_LOGGER_FLUSH_INTERVAL", "5.0", "/events/flush_interval", json!("5s"));
    old("NAQ_EVENT_LOGGER_MAX_BUFFER_SIZE", "500", "/events/max_buffer_size", json!(500));
    old("NAQ_EVENT_STREAM_NAME", "E", "/events/stream/name", json!("E"));
    old("NAQ_JOB_STATUS_TTL", "60", "/results/ttl", json!("1m"));
    old("NAQ_DEFAULT_RESULT_TTL", "60", "/results/ttl", json!("1m"));
    old("NAQ_RESULT_CLEANUP_INTERVAL", "60", "/results/cleanup_interval", json!("1m"));
    old("NAQ_JOB_SERIALIZER", "bincode", "/serialization/job_serializer", json!("bincode"));
    old("NAQ_LOG_LEVEL", "DEBUG", "/logging/level", json!("debug"));
    old("NAQ_LOG_MODE", "PROD", "/logging/mode", json!("prod"));
    old("NAQ_LOG_FORMAT", "text", "/logging/format", json!("text"));
    old("NAQ_LOG_FILE", "/l", "/logging/file", json!("/l"));
    old("NAQ_LOG_FILE_PATH", "/l", "/logging/file", json!("/l"));
    old("NAQ_LOG_TO_FILE_ENABLED", "true", "/logging/to_file_enabled", json!(true));
    old("NAQ_LOG_MAX_SIZE", "50MB", "/logging/max_size", json!("50MB"));
    old("NAQ_LOG_ROTATION", "50 MB", "/logging/max_size", json!("50MB"));
    old("NAQ_LOG_BACKUP_COUNT", "2", "/logging/backup_count", json!(2));
    old("NAQ_LOG_RETENTION", "7 days", "/logging/retention", json!("7days"));
    old("OMNIQ_LOG_LEVEL", "WARNING", "/logging/level", json!("warn"));
    old("OMNIQ_LOG_MODE", "PROD", "/logging/mode", json!("prod"));
    old("OMNIQ_LOG_FILE", "logs/omniq.log", "/logging/file", json!("logs/omniq.log"));
    old("OMNIQ_LOG_ROTATION", "1 GB", "/logging/max_size", json!("1GB"));
    old("OMNIQ_LOG_RETENTION", "1 week", "/logging/retention", json!("7days"));
}

#[test]
fn naq_variables_win_over_those_of_omniq() {
    let machine = Machine::new().variable("NAQ_LOG_MODE", "dev").variable("OMNIQ_LOG_MODE", "PROD");
    assert_eq!(machine.load().unwrap().config.logging.mode, LogMode::Dev);
}

#[test]
fn variables_become_what_the_setting_is() {
    let loaded = Machine::new()
        .variable("NAQ_NATS__AUTH__USER", "007")
        .variable("NAQ_NATS__AUTH__PASSWORD", "[1]{2}")
        .variable("NAQ_NATS__TLS__ENABLED", "yes")
        .variable("NAQ_NATS__TLS__CA_FILE", "")
        .variable("NAQ_SERIALIZATION__COMPRESSION", "true")
        .variable("NAQ_HANDLERS__WC__EXEC", "[python3, wc.py]")
        .variable("NAQ_SCHEDULES__S__KIND", "k")
        .variable("NAQ_SCHEDULES__S__EVERY", "5")
        .variable("NAQ_SCHEDULES__S__ARGS", r#"{"n": 1}"#)
        .variable("NAQ_WORKERS__POOLS__P__QUEUES", r#"["a:2"]"#)
        .variable("NAQ_WORKERS__LISTEN", "9464")
        .load()
        .unwrap()
        .config;
    assert_eq!(loaded.nats.auth.user.as_deref(), Some("007"));
    assert_eq!(loaded.nats.auth.password.unwrap().expose(), "[1]{2}");
    assert!(loaded.nats.tls.enabled);
    assert_eq!(loaded.nats.tls.ca_file, None);
    assert_eq!(loaded.schedules["s"].args, json!({"n": 1}));
    assert_eq!(loaded.schedules["s"].every, Some(5 * SECOND));
    assert!(matches!(&loaded.handlers["wc"], HandlerConfig::Exec(exec) if exec.command == ["python3", "wc.py"]));
    assert_eq!(loaded.workers.pools["p"].queues, ["a:2"]);
    assert_eq!(loaded.workers.listen.unwrap().to_string(), "127.0.0.1:9464");
}

#[test]
fn the_variables_of_opentelemetry_are_below_those_of_naq() {
    let endpoint = |variables: &[(&str, &str)]| {
        let machine = variables.iter().fold(yaml(""), |machine, (name, value)| machine.variable(name, value));
        machine.load().unwrap().config.traces.endpoint.map(|url| url.expose().to_owned())
    };
    let (every, traces) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    assert_eq!(endpoint(&[(every, "http://a:4318")]).as_deref(), Some("http://a:4318"));
    assert_eq!(endpoint(&[(every, "http://a"), (traces, "http://b")]).as_deref(), Some("http://b"));
    assert_eq!(endpoint(&[(every, "http://a"), ("NAQ_TRACES__ENDPOINT", "http://c")]).as_deref(), Some("http://c"));
    assert_eq!(endpoint(&[(every, ""), (traces, "")]), None, "empty means not set");
    let wrong = yaml("traces: {endpoint: 'ftp://u:secret@a', sample: 1.5}").load().unwrap_err().to_string();
    assert!(wrong.contains("http:// or https://") && wrong.contains("between 0 and 1"), "{wrong}");
    assert!(!wrong.contains("secret"), "{wrong}");
}

#[test]
fn texts_in_files_are_expanded_before_they_get_their_type() {
    let loaded = yaml(
        r#"
nats: {servers: "${NATS:nats://localhost:4222}", auth: {token: "${TOKEN}"}}
workers: {concurrency: "${N:4}", heartbeat_interval: "${HB:5}s"}
events: {enabled: "${EVENTS:false}"}
handlers: {x: {exec: [sh, -c, "echo $${HOME} ${WHO:me}"]}}
"#,
    )
    .variable("TOKEN", "12345")
    .load()
    .unwrap()
    .config;
    assert_eq!(loaded.nats.servers[0].expose(), "nats://localhost:4222");
    assert_eq!(loaded.nats.auth.token.unwrap().expose(), "12345");
    assert_eq!(loaded.workers.concurrency, 4);
    assert_eq!(loaded.workers.heartbeat_interval, 5 * SECOND);
    assert!(!loaded.events.enabled);
    assert!(matches!(&loaded.handlers["x"], HandlerConfig::Exec(exec) if exec.command[2] == "echo ${HOME} me"));
}

#[test]
fn an_old_file_loads_and_says_what_has_no_effect() {
    let loaded = yaml(
        r#"
nats: {auth: {username: u, password: p}, tls: {enabled: false}, max_outstanding_pings: 3}
scheduler: {max_failures: 9}
queues: {configs: {mail: {ack_wait: 60, max_deliver: 3, max_ack_pending: 5}}}
events: {storage_url: null, subject_prefix: naq.jobs.events, filters: {min_job_duration: 250}, stream: {max_age: 168h}}
results: {ttl: 604800, kv_bucket: naq_results}
serialization: {job_serializer: pickle, compression: false, json: {encoder: json.JSONEncoder}}
logging: {level: CRITICAL, format: json, max_size: 100MB}
environments:
  production: {name: production, overrides: {logging.level: INFO, workers.concurrency: 50}}
"#,
    )
    .variable("NAQ_ENVIRONMENT", "production")
    .variable("NAQ_RESULT_KV_BUCKET", "b")
    .load()
    .unwrap();
    let keys: Vec<&str> = loaded.warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "environments.production.name",
            "scheduler.max_failures",
            "nats.max_outstanding_pings",
            "events.storage_url",
            "events.subject_prefix",
            "results.kv_bucket",
            "serialization.json",
            "queues.configs.mail.max_deliver",
            "serialization.job_serializer",
            "",
        ]
    );
    let config = loaded.config;
    assert_eq!(config.nats.auth.user.as_deref(), Some("u"));
    assert_eq!(config.events.filters.min_job_duration, Duration::from_millis(250));
    assert_eq!(config.serialization.job_serializer, JobSerializer::Json);
    assert_eq!(config.logging.level.as_str(), "info");
    assert_eq!(config.logging.format, LogFormat::Json);
    assert_eq!(config.logging.max_size, ByteSize(100_000_000));
    assert_eq!(config.workers.concurrency, 50);
}

#[test]
fn unknown_variables_and_environments_are_named() {
    let loaded = yaml("environments: {production: {}}")
        .variable("NAQ_WORKER_CONCURENCY", "4")
        .variable("NAQ_ENVIRONMENT", "producton")
        .variable("NAQ_JOB_ID", "0199")
        .load()
        .unwrap();
    let texts: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("NAQ_ENVIRONMENT") && texts[0].contains("production"), "{texts:?}");
    assert!(texts[1].contains("NAQ_WORKER_CONCURRENCY"), "{texts:?}");
}

#[test]
fn a_variable_that_is_too_deep_sets_nothing() {
    let variable = format!("NAQ_{}B", "A__".repeat(20_000));
    let loaded = yaml("").variable(&variable, "1").load().unwrap();
    let sources: Vec<_> = loaded.warnings.iter().map(|warning| warning.source.clone()).collect();
    assert_eq!(sources, [Source::Variable { name: variable }]);
}

#[test]
fn the_store_is_chosen_in_order() {
    let choice = |machine: &Machine| machine.load().unwrap().store().map(|choice| (choice.url, choice.chosen_by));
    let machine = Machine::new();
    assert!(choice(&machine).is_err(), "no home, no embedded store");

    let machine = machine.variable("XDG_STATE_HOME", "/state");
    let embedded = StoreUrl::Sqlite { path: PathBuf::from("/state/naq/naq.db") };
    assert_eq!(choice(&machine), Ok((embedded, ChosenBy::Default)));

    let machine = machine.variable("NAQ_NATS_URL", "localhost:4222");
    let servers = vec!["nats://localhost:4222".parse().unwrap()];
    assert_eq!(choice(&machine), Ok((StoreUrl::Nats { servers }, ChosenBy::NatsServers)));

    let machine = machine.file("work/naq.yaml", "storage: {url: 'sqlite:a.db'}");
    assert_eq!(choice(&machine), Ok((StoreUrl::Sqlite { path: "a.db".into() }, ChosenBy::StorageUrl)));

    let machine = machine.variable("NAQ_URL", "sqlite:b.db");
    assert_eq!(choice(&machine), Ok((StoreUrl::Sqlite { path: "b.db".into() }, ChosenBy::StorageUrl)));

    let machine = machine.flag("--url", "storage.url", "memory://c");
    assert_eq!(choice(&machine), Ok((StoreUrl::Memory { name: "c".into() }, ChosenBy::StorageUrl)));
}

#[test]
fn log_lines_go_where_the_settings_together_say() {
    for (file, enabled, target) in [
        (None, None, None),
        (Some("a.log"), None, Some("a.log")),
        (Some("a.log"), Some("false"), None),
        (None, Some("true"), Some("naq.log")),
    ] {
        let mut machine = Machine::new();
        if let Some(file) = file {
            machine = machine.variable("NAQ_LOG_FILE", file);
        }
        if let Some(enabled) = enabled {
            machine = machine.variable("NAQ_LOG_TO_FILE_ENABLED", enabled);
        }
        assert_eq!(machine.load().unwrap().config.logging.target_file(), target.map(PathBuf::from));
    }
}
