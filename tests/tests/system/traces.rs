//! Traces as a collector of OpenTelemetry sees them: from the enqueue through each attempt to child jobs and to programs in
//! other languages; and that a collector which is not there does no harm.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{Collector, Seen, Signal, eventually};
use serde_json::json;

use crate::site::{Backend, COMMAND_LIMIT, Site, WORKER_LIMIT, on_every_store};

on_every_store!(a_trace_goes_from_the_enqueue_through_each_attempt_to_children);

/// A trace that somebody else has begun.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// The spans of one job, in the order in which they ended.
struct Told(BTreeMap<String, Vec<Seen>>);

impl Told {
    fn of(collector: &Collector) -> Self {
        let mut jobs: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
        for span in collector.spans() {
            if let Some(job) = span.attributes.get("messaging.message.id") {
                jobs.entry(job.clone()).or_default().push(span);
            }
        }
        Self(jobs)
    }

    /// The spans of a job with a name.
    fn named(&self, job: &str, name: &str) -> Vec<&Seen> {
        self.0.get(job).into_iter().flatten().filter(|span| span.name == name).collect()
    }

    fn one(&self, job: &str, name: &str) -> Result<&Seen> {
        let found = self.named(job, name);
        ensure!(found.len() == 1, "{} spans {name:?} of {job}: {:#?}", found.len(), self.0);
        Ok(found[0])
    }
}

fn traceparent(span: &Seen) -> String {
    format!("00-{}-{}-01", span.trace, span.id)
}

async fn a_trace_goes_from_the_enqueue_through_each_attempt_to_children(backend: Backend) -> Result<()> {
    let collector = Collector::start()?;
    let mut site = Site::start(backend).await?;
    site.set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    site.set("OTEL_SERVICE_NAME", "shop");
    let talk = "import json, sys\nfor line in sys.stdin:\n    job = json.loads(line)\n\
                \x20   print(json.dumps({'id': job['id'], 'result': job['meta']['traceparent']}), flush=True)";
    fs::write(site.path("talk.py"), talk)?;
    let handlers = "handlers:\n  script: { exec: [sh, -c, 'read args; echo \"\\\"$TRACEPARENT\\\"\"'] }\n\
                    \x20 talk: { exec: [python3, talk.py], protocol: jsonl, processes: 1 }\n";
    fs::write(site.path("naq.yaml"), handlers)?;
    let worker = site.worker("traced", &["--concurrency", "4"]).await?;
    let say = json!({"text": "hello", "times": 1});
    site.enqueue("t.say", &say, &["--job-id", "r1", "--retry-delay", "100ms"]).await?;
    site.enqueue("t.say_and_pass_on", &json!({"text": "on", "child": "c1"}), &["--job-id", "p1"]).await?;
    let theirs = format!("traceparent=00-{TRACE}-{PARENT}-01");
    site.enqueue("script", &json!({}), &["--job-id", "s1", "--meta", &theirs]).await?;
    site.enqueue("talk", &json!({}), &["--job-id", "t1"]).await?;
    let mut results = BTreeMap::new();
    for id in ["r1", "p1", "s1", "c1", "t1"] {
        let done = eventually(COMMAND_LIMIT, format!("{id} has completed"), async || {
            let result = site.json(&["job", "result", id]).await.ok()?;
            (result["status"] == "completed").then(|| result["result"].clone())
        });
        results.insert(id, done.await.with_context(|| worker.stderr())?);
    }
    worker.signal(Signal::TERM)?;
    let ended = worker.wait(WORKER_LIMIT).await?;
    assert!(!ended.stderr.contains("otel."), "what is for traces is not in the log: {}", ended.stderr);
    assert_eq!(collector.refused(), 0);
    let told = Told::of(&collector);

    // From the producer's process through two attempts.
    let enqueue = told.one("r1", "enqueue t.say")?;
    assert_eq!((enqueue.parent.as_str(), &*format!("{:?}", enqueue.kind)), ("", "Producer"));
    assert_eq!(enqueue.attributes["messaging.destination.name"], "default");
    let runs = told.named("r1", "run t.say");
    let seen: Vec<_> = runs.iter().map(|run| (&*run.attributes["attempt"], run.error.as_deref())).collect();
    assert_eq!(seen, [("1", Some("not yet")), ("2", None)]);
    for run in runs {
        assert_eq!((&run.trace, &run.parent), (&enqueue.trace, &enqueue.id), "{run:#?}");
        assert_eq!(format!("{:?} {}", run.kind, run.service), "Consumer shop");
        assert_eq!([&run.attributes["messaging.system"], &run.attributes["operation"]], ["naq", "t.say"]);
        assert!(!run.attributes.contains_key("otel.name") && run.nanoseconds > 0, "{run:#?}");
    }

    // On to a child.
    let parent = told.one("p1", "run t.say_and_pass_on")?;
    assert_eq!(parent.parent, told.one("p1", "enqueue t.say_and_pass_on")?.id);
    let enqueue = told.one("c1", "enqueue t.say")?;
    assert_eq!((&enqueue.trace, &enqueue.parent), (&parent.trace, &parent.id));
    let child = told.one("c1", "run t.say")?;
    assert_eq!((&child.trace, &child.parent), (&parent.trace, &enqueue.id));

    // From somebody else's trace, and on to programs.
    let script = told.one("s1", "run script")?;
    assert_eq!((&*script.trace, &*script.parent), (TRACE, PARENT), "a context that was given stays");
    assert_eq!(results["s1"], traceparent(script));
    assert_eq!(results["t1"], traceparent(told.one("t1", "run talk")?));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_share_that_is_wanted_is_sent_and_a_trace_is_kept_whole() -> Result<()> {
    let collector = Collector::start()?;
    let mut site = Site::start(Backend::Sqlite).await?;
    site.set("NAQ_TRACES__ENDPOINT", collector.url());
    site.set("NAQ_TRACES__SAMPLE", "0");
    site.set("NAQ_LOG_MODE", "PROD");
    let worker = site.worker("sampling", &[]).await?;
    site.enqueue("t.say", &json!({"text": "left out"}), &["--job-id", "a"]).await?;
    let theirs = format!("traceparent=00-{TRACE}-{PARENT}-01");
    site.enqueue("t.say", &json!({"text": "kept"}), &["--job-id", "b", "--meta", &theirs]).await?;
    site.drained("default", COMMAND_LIMIT).await?;
    worker.signal(Signal::TERM)?;
    let ended = worker.wait(WORKER_LIMIT).await?;
    assert!(!ended.stderr.contains("otel."), "what is for traces is not in the log: {}", ended.stderr);
    let spans: Vec<_> = collector.spans().into_iter().map(|span| (span.name, span.trace, span.service)).collect();
    assert_eq!(spans, [("run t.say".to_owned(), TRACE.to_owned(), "naq".to_owned())]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_collector_jobs_go_on_and_it_is_said() -> Result<()> {
    let mut site = Site::start(Backend::Sqlite).await?;
    site.set("NAQ_TRACES__ENDPOINT", "http://127.0.0.1:1");
    let worker = site.worker("alone", &[]).await?;
    site.enqueue("t.say", &json!({"text": "hello"}), &["--job-id", "a"]).await?;
    let done = eventually(COMMAND_LIMIT, "a has completed", async || {
        let status = site.json(&["job", "status", "a"]).await.ok()?;
        (status["status"] == "completed").then_some(())
    });
    done.await?;
    worker.signal(Signal::TERM)?;
    let ended = worker.wait(WORKER_LIMIT).await?;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("opentelemetry"), "{}", ended.stderr);
    Ok(())
}
