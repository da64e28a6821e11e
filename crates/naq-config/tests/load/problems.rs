//! What is refused, and that all of it is reported at once, with where it stands and what would be right.

use naq_config::{CONCURRENCY_MAX, NaqConfig, ProblemKind, Source};

use crate::{Machine, yaml};

fn kinds(machine: &Machine) -> Vec<(String, ProblemKind)> {
    machine.problems().into_iter().map(|problem| (problem.key, problem.kind)).collect()
}

#[test]
fn everything_wrong_is_reported_at_once_with_its_source() {
    use ProblemKind::*;
    let machine = Machine::new()
        .file("etc/config.yaml", "workres: {ttl: 1}\nscheduler: {scan_intervall: 5s}")
        .file(
            "work/naq.yaml",
            r#"
concurrency: 5
workers: {concurrency: many, heartbeat_interval: 2m, colour: blue}
storage: {synchronous: ful, url: "redis://me:hunter2@h"}
logging: {level: verbos}
nats: {auth: {pasword: hunter2, token: [hunter2]}}
queues: {configs: {"a b": {ack_wait: 1}}}
handlers: {x: {exec: [a], http: "http://h"}, y: {exec: [a], method: get}, z: {exce: [a]}}
schedules: {s: {cron: "* * * * *"}}
jobs: {timeout: "${MISSING}"}
"#,
        )
        .variable("NAQ_EVENTS__BATCH_SIZE", "lots")
        .variable("NAQ_WORKERS__CONCURENCY", "5")
        .flag("--timeout", "jobs.max_crashes", "-3");
    let problems = machine.problems();
    let find = |key: &str| {
        problems.iter().find(|problem| problem.key == key).unwrap_or_else(|| panic!("{key} is not in {problems:#?}"))
    };
    let in_etc = Source::File { path: machine.path("etc/config.yaml"), environment: None };
    let in_work = Source::File { path: machine.path("work/naq.yaml"), environment: None };
    let variable = |name: &str| Source::Variable { name: name.into() };
    for (key, kind, source, suggestion) in [
        ("workres", UnknownKey, &in_etc, Some("workers")),
        ("scheduler.scan_intervall", UnknownKey, &in_etc, Some("scheduler.scan_interval")),
        ("concurrency", UnknownKey, &in_work, Some("workers.concurrency")),
        ("workers.concurrency", WrongType, &in_work, None),
        ("workers.colour", UnknownKey, &in_work, None),
        ("workers.heartbeat_interval", Relation, &in_work, None),
        ("storage.synchronous", InvalidValue, &in_work, Some("full")),
        ("storage.url", InvalidValue, &in_work, None),
        ("logging.level", InvalidValue, &in_work, None),
        ("nats.auth.pasword", UnknownKey, &in_work, Some("nats.auth.password")),
        ("nats.auth.token", WrongType, &in_work, None),
        ("queues.configs.a b", InvalidValue, &in_work, None),
        ("handlers.x", InvalidValue, &in_work, None),
        ("handlers.y", InvalidValue, &in_work, None),
        ("handlers.z.exce", UnknownKey, &in_work, Some("handlers.z.exec")),
        ("schedules.s", MissingKey, &in_work, None),
        ("jobs.timeout", Expansion, &in_work, None),
        ("events.batch_size", WrongType, &variable("NAQ_EVENTS__BATCH_SIZE"), None),
        ("workers.concurency", UnknownKey, &variable("NAQ_WORKERS__CONCURENCY"), Some("workers.concurrency")),
        ("jobs.max_crashes", InvalidValue, &Source::Flag { name: "--timeout".into() }, None),
    ] {
        let problem = find(key);
        assert_eq!((problem.kind, &problem.source, problem.suggestion.as_deref()), (kind, source, suggestion), "{key}");
    }
    assert_eq!(find("workers.concurrency").value.as_deref(), Some("\"many\""));
    assert_eq!(find("events.batch_size").value.as_deref(), Some("\"lots\""));
    assert_eq!(find("handlers.z").kind, InvalidValue, "what is left of it calls nothing");
    assert_eq!(problems.len(), 21, "{problems:#?}");
    let text = machine.load().map(|_| ()).unwrap_err().to_string();
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn relations_are_checked_with_the_source_that_broke_them() {
    for (content, key) in [
        ("workers: {heartbeat_interval: 60}", "workers.heartbeat_interval"),
        ("workers: {ttl: 15s}", "workers.heartbeat_interval"),
        ("scheduler: {lock_renew_interval: 5001ms}", "scheduler.lock_renew_interval"),
        ("workers: {concurrency: 0}", "workers.concurrency"),
        ("workers: {max_job_duration: 10m}", "jobs.timeout"),
        ("workers: {pools: {p: {queues: []}}}", "workers.pools.p.queues"),
        ("workers: {pools: {p: {queues: ['a:0']}}}", "workers.pools.p.queues"),
        ("jobs: {timeout: 0}", "jobs.timeout"),
        ("jobs: {max_crashes: 0}", "jobs.max_crashes"),
        ("nats: {replicas: 6}", "nats.replicas"),
        ("nats: {auth: {user: u}}", "nats.auth.user"),
        ("nats: {auth: {password: p}}", "nats.auth.password"),
        ("nats: {auth: {token: t, nkey_seed: s}}", "nats.auth.token"),
        ("nats: {tls: {cert_file: c}}", "nats.tls.cert_file"),
        ("nats: {tls: {key_file: k}}", "nats.tls.key_file"),
        ("queues: {prefix: a.b}", "queues.prefix"),
        ("queues: {ack_wait: 999ms}", "queues.ack_wait"),
        ("queues: {configs: {q: {ack_wait: 0}}}", "queues.configs.q.ack_wait"),
        ("queues: {configs: {q: {max_ack_pending: 0}}}", "queues.configs.q.max_ack_pending"),
        ("events: {batch_size: 20000}", "events.batch_size"),
        ("serialization: {max_payload: 64KiB}", "serialization.max_payload"),
        ("handlers: {x: {exec: []}}", "handlers.x.exec"),
        ("handlers: {x: {exec: [a], protocol: jsonl, processes: 0}}", "handlers.x.processes"),
        ("handlers: {x: {http: 'ftp://h'}}", "handlers.x.http"),
        ("handlers: {x: {nats: 'a.*'}}", "handlers.x.nats"),
        ("handlers: {x: {nats: a, timeout: 0}}", "handlers.x.timeout"),
        ("schedules: {s: {kind: k}}", "schedules.s"),
        ("schedules: {s: {kind: k, every: 1s, after: 1s}}", "schedules.s"),
        ("schedules: {'s.t': {kind: k, every: 1s}}", "schedules.s.t"),
        ("schedules: {s: {kind: k, every: 0}}", "schedules.s.every"),
        ("schedules: {s: {kind: k, every: 1s, tz: UTC}}", "schedules.s.tz"),
        ("schedules: {s: {kind: k, every: 1s, args: 5}}", "schedules.s.args"),
    ] {
        let machine = yaml(content);
        let problems = machine.problems();
        assert_eq!(problems.len(), 1, "{content}: {problems:#?}");
        assert_eq!((problems[0].key.as_str(), problems[0].kind), (key, ProblemKind::Relation), "{content}");
        let source = Source::File { path: machine.path("work/naq.yaml"), environment: None };
        // An entry as a whole has no single value that some source gave.
        if !["schedules.s", "schedules.s.t"].contains(&key) {
            assert_eq!(problems[0].source, source, "{content}");
        }
    }
}

#[test]
fn a_configuration_built_by_hand_is_checked_the_same() {
    assert_eq!(NaqConfig::default().validate(), Ok(()));
    let mut config = NaqConfig::default();
    config.workers.heartbeat_interval = config.workers.ttl;
    config.jobs.max_crashes = 0;
    config.workers.concurrency = CONCURRENCY_MAX + 1;
    let keys: Vec<String> = config.validate().unwrap_err().problems.into_iter().map(|problem| problem.key).collect();
    assert_eq!(keys, ["jobs.max_crashes", "workers.concurrency", "workers.heartbeat_interval"]);
}

#[test]
fn environments_that_are_not_selected_are_checked_too() {
    let machine = yaml(
        r#"
handlers: {x: {exec: [a]}}
environments:
  staging: {workers: {concurency: 5}}
  production: {workers: {concurrency: many}, nats: {auth: {token: "${PROD_TOKEN}"}}, handlers: {x: {timeout: 5s}}}
"#,
    )
    .variable("NAQ_ENVIRONMENT", "staging");
    assert_eq!(
        kinds(&machine),
        [
            ("environments.staging.workers.concurency".to_owned(), ProblemKind::UnknownKey),
            ("environments.production.workers.concurrency".to_owned(), ProblemKind::WrongType),
        ]
    );
}

#[test]
fn files_that_are_no_configuration_are_named() {
    for (content, kind) in [
        ("workers: [", ProblemKind::Syntax),
        ("- a\n- b", ProblemKind::Syntax),
        ("just text", ProblemKind::Syntax),
        ("workers: {ttl: 1}\nworkers: {ttl: 2}", ProblemKind::Syntax),
        ("environments: 5", ProblemKind::WrongType),
        ("environments: {a: 5}", ProblemKind::WrongType),
    ] {
        assert_eq!(kinds(&yaml(content)), [(String::new(), kind)], "{content}");
    }
    let directory = Machine::new().file("work/naq.yaml/x", "");
    assert_eq!(kinds(&directory), [(String::new(), ProblemKind::Unreadable)]);
}

#[test]
fn a_section_with_every_line_commented_out_is_the_default() {
    for content in ["", "# nothing\n", "workers:\n  # concurrency: 5\nhandlers:\nnats:\n  auth:\n", "---\n"] {
        assert_eq!(yaml(content).load().unwrap().config, NaqConfig::default(), "{content:?}");
    }
}

#[test]
fn secrets_are_never_printed() {
    let machine = yaml(
        r#"
storage: {url: "nats://a:hunter2@h"}
nats: {servers: ["nats://b:hunter2@h"], auth: {user: u, password: hunter2}}
handlers: {x: {exec: [a], env: {KEY: hunter2}}, y: {http: "http://u:hunter2@h"}}
"#,
    );
    let loaded = machine.load().unwrap();
    let texts = [
        format!("{loaded:?}"),
        serde_json::to_string(&loaded.config).unwrap(),
        loaded.store().unwrap().to_string(),
        format!("{:?}", loaded.store().unwrap()),
    ];
    for text in texts {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(loaded.config.nats.auth.password.unwrap().expose(), "hunter2");
    assert_eq!(loaded.config.nats.servers[0].expose(), "nats://b:hunter2@h");
}
