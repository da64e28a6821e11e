//! One NATS server: enqueue, runs with and without results, latency and footprint.
//!
//! Invariant: each turn has a queue of its own, laid out by naq, which is removed after it, with the results it left.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use naq_config::EventStreamConfig;
use naq_services::{
    EventHook, JobService, JobSettings,
    bare::nats::{BareNats, Results},
    connection::ConnectionOptions,
    storage::{
        SharedStorage,
        nats::{self, NatsOptions},
    },
};

use crate::{
    delayed,
    events::{self, Telling},
    footprint,
    jobs::{self, Encoded, Keep},
    latency,
    other_process::{OtherProcess, Role},
    plan::{Plan, Served, Server},
    report::{Found, Report, Store},
    rounds::{Start, Took, compare},
    run,
};

const RESULT_STREAM: &str = "KV_naq_results";

pub(crate) async fn measure(plan: &Plan, server: &Server, report: &mut Report) -> Result<()> {
    let storage = open(&server.url).await?;
    let bare = BareNats::connect(&server.url).await?;
    let version = bare.server_version();
    report.stores.push(Store {
        version: format!("nats-server {version}"),
        durability: "one server, file storage, default sync_interval: an acknowledged write survives a kill of the \
                     server, a power cut may take back the last two minutes"
            .into(),
    });
    let bench = Bench { plan, server, name: format!("NATS {}", server.name), storage, bare };
    bench.enqueue(report).await?;
    for keep in [Keep::Result, Keep::Nothing] {
        bench.run(report, keep).await?;
    }
    if plan.beyond_ratios() {
        bench.against_fixed(report).await?;
        bench.latency(report).await?;
        bench.footprint(report).await?;
    }
    if plan.delayed {
        bench.delayed(report).await?;
    }
    if plan.events {
        bench.events(report).await?;
    }
    bench.storage.close().await;
    Ok(())
}

pub(crate) async fn open(url: &str) -> Result<SharedStorage> {
    let connection = ConnectionOptions { servers: vec![url.to_owned()], ..ConnectionOptions::default() };
    Ok(nats::open(NatsOptions { connection, ..NatsOptions::default() }).await?)
}

struct Bench<'a> {
    plan: &'a Plan,
    server: &'a Server,
    name: String,
    storage: SharedStorage,
    bare: BareNats,
}

/// A queue of one turn.
struct Queue {
    name: String,
    stream: String,
}

impl Queue {
    fn filter(&self) -> String {
        format!("naq.queue.{}.2.*", self.name)
    }

    fn messages(&self, jobs: Vec<Encoded>) -> Vec<(String, Bytes)> {
        let message = |Encoded { id, body }| (format!("naq.queue.{}.2.{id}", self.name), body);
        jobs.into_iter().map(message).collect()
    }
}

impl Bench<'_> {
    fn service(&self) -> JobService {
        JobService::new(self.storage.clone(), JobSettings::default())
    }

    /// An empty queue, with its stream and consumers as naq makes them.
    async fn queue(&self, name: String) -> Result<Queue> {
        jobs::enqueue(&self.service(), jobs::new_jobs(&name, 1, Keep::Nothing)).await?;
        let stream = format!("naq_queue_{name}");
        self.bare.purge(&stream).await?;
        Ok(Queue { name, stream })
    }

    /// A queue in which the jobs of one round wait.
    async fn filled(&self, name: String, keep: Keep) -> Result<Queue> {
        let queue = self.queue(name).await?;
        let now = self.storage.now().await?;
        let jobs = jobs::encoded(&queue.name, self.plan.jobs(), keep, now)?;
        self.bare.publish(queue.messages(jobs)).await?;
        Ok(queue)
    }

    async fn remove(&self, queue: Queue) -> Result<()> {
        self.bare.delete(&queue.stream).await?;
        self.bare.purge(RESULT_STREAM).await?;
        Ok(())
    }

    async fn enqueue(&self, report: &mut Report) -> Result<()> {
        let jobs = self.plan.jobs();
        let what = "enqueue, pipelined";
        if !self.plan.compares(&self.name, what) {
            return Ok(());
        }
        let compared = compare(
            &format!("{}, {what}", self.name),
            self.plan.rounds(),
            jobs,
            async |turn| {
                let queue = self.queue(format!("enqueue-{turn}")).await?;
                let took = jobs::enqueue_round(&self.service(), &queue.name, jobs).await?;
                self.remove(queue).await?;
                Ok(took)
            },
            async |turn| {
                let queue = self.queue(format!("enqueue-{turn}")).await?;
                let now = self.storage.now().await?;
                let messages = queue.messages(jobs::encoded(&queue.name, jobs, Keep::Result, now)?);
                let begin = Start::now();
                self.bare.publish(messages).await?;
                let took = begin.took();
                self.remove(queue).await?;
                Ok(took)
            },
        )
        .await?;
        let against = "bare async-nats publish loop, same subjects and bytes, window 2048".to_owned();
        report.add(&self.name, what, self.server.gated, Found::Ratio { compared, against, at_least: Some(0.90) });
        Ok(())
    }

    /// Runs a filled queue with naq.
    async fn naq(&self, name: String, keep: Keep, events: EventHook) -> Result<Took> {
        let queue = self.filled(name, keep).await?;
        let emptied = async { Ok(self.bare.wait_empty(&queue.stream).await?) };
        let took = run::drain(&self.storage, &queue.name, self.plan.jobs(), events, emptied).await?;
        self.remove(queue).await?;
        Ok(took)
    }

    async fn events(&self, report: &mut Report) -> Result<()> {
        let (rounds, jobs) = (self.plan.telling_rounds(), self.plan.jobs());
        let enqueue = async |turn, on| {
            let queue = self.queue(format!("told-{turn}")).await?;
            let telling = Telling::start(&self.storage, on);
            let service = self.service().with_events(telling.hook());
            let took = jobs::enqueue_round(&service, &queue.name, jobs).await?;
            telling.end().await;
            self.remove(queue).await?;
            Ok(took)
        };
        let what = "enqueue, pipelined, events on";
        let compared = compare(
            what,
            rounds,
            jobs,
            async |turn| enqueue(turn, true).await,
            async |turn| enqueue(turn, false).await,
        );
        events::report(report, &self.name, what, self.server.gated, compared.await?);
        let run = async |turn, on| {
            let telling = Telling::start(&self.storage, on);
            let took = self.naq(format!("told-run-{turn}"), Keep::Result, telling.hook()).await?;
            telling.end().await;
            Ok(took)
        };
        let what = "run with result, events on";
        let compared =
            compare(what, rounds, jobs, async |turn| run(turn, true).await, async |turn| run(turn, false).await);
        events::report(report, &self.name, what, self.server.gated, compared.await?);
        // What the rounds have told is not to be searched too.
        self.bare.purge(&EventStreamConfig::default().name).await?;
        events::history(self.plan, &self.name, self.server.gated, &self.storage, report).await
    }

    fn results(&self) -> Results {
        let lives_by_itself = self.server.name != "2.9";
        let header = if lives_by_itself { ("Nats-TTL", "604800") } else { ("Naq-Ttl", "604800000") };
        Results::ById { prefix: "$KV.naq_results.".into(), headers: vec![(header.0.into(), header.1.into())] }
    }

    async fn run(&self, report: &mut Report, keep: Keep) -> Result<()> {
        let jobs = self.plan.jobs();
        let (label, what, against) = match keep {
            Keep::Result => ("with", "run with result", "bare loop of pull, result publish, ack"),
            Keep::Nothing => ("without", "run without result", "bare loop of pull and ack"),
        };
        if !self.plan.compares(&self.name, what) {
            return Ok(());
        }
        let compared = compare(
            &format!("{}, {what}", self.name),
            self.plan.rounds(),
            jobs,
            async |turn| self.naq(format!("{label}-{turn}"), keep, EventHook::silent()).await,
            async |turn| {
                let queue = self.filled(format!("{label}-{turn}"), keep).await?;
                let begin = Start::now();
                let wall = match keep {
                    Keep::Nothing => self.bare.run(&queue.stream, &queue.filter(), jobs).await?,
                    Keep::Result => {
                        let result = jobs::result(&queue.name, self.storage.now().await?)?;
                        let (results, filter) = (self.results(), queue.filter());
                        self.bare.run_with_result(&queue.stream, &filter, jobs, &results, result).await?
                    }
                };
                let took = Took { wall, ..begin.took() };
                self.remove(queue).await?;
                Ok(took)
            },
        )
        .await?;
        let against = against.to_owned();
        report.add(&self.name, what, self.server.gated, Found::Ratio { compared, against, at_least: Some(0.85) });
        Ok(())
    }

    /// Producer and worker have a connection each, so one process is as far from the other as two would be.
    async fn latency(&self, report: &mut Report) -> Result<()> {
        eprintln!("  {}, latency", self.name);
        let worker_side = open(&self.server.url).await?;
        let samples = self.plan.samples();
        let found = latency::in_process(&self.service(), Arc::clone(&worker_side), samples, Some(2.0)).await?;
        report.add(&self.name, "enqueue to start, idle", self.server.gated, found);
        worker_side.close().await;
        Ok(())
    }

    async fn footprint(&self, report: &mut Report) -> Result<()> {
        let worker = OtherProcess::start(Role::Worker, Served::Nats(self.server.url.clone()))?;
        footprint::measure(self.plan, &self.name, self.server.gated, &self.service(), &worker, report).await?;
        worker.stop().await
    }

    async fn delayed(&self, report: &mut Report) -> Result<()> {
        let served = Served::Nats(self.server.url.clone());
        delayed::measure(self.plan, &self.name, self.server.gated, &self.service(), served, report).await
    }

    /// The price of ids as addresses: one subject for all jobs and one for all results is the fastest there is.
    async fn against_fixed(&self, report: &mut Report) -> Result<()> {
        let jobs = self.plan.jobs();
        let what = "run with result, against one fixed subject";
        let compared = compare(
            &format!("{}, {what}", self.name),
            self.plan.rounds(),
            jobs,
            async |turn| self.naq(format!("layout-{turn}"), Keep::Result, EventHook::silent()).await,
            async |turn| {
                let fixed = self.bare.create_fixed(&format!("fixed-{turn}")).await?;
                let now = self.storage.now().await?;
                let bodies = jobs::encoded("default", jobs, Keep::Result, now)?;
                let messages = bodies.into_iter().map(|job| (fixed.subject.clone(), job.body)).collect();
                self.bare.publish(messages).await?;
                let results = Results::Fixed(fixed.result_subject.clone());
                let result = jobs::result("default", now)?;
                let begin = Start::now();
                let wall = self.bare.run_with_result(&fixed.stream, "", jobs, &results, result).await?;
                let took = Took { wall, ..begin.took() };
                self.bare.delete(&fixed.stream).await?;
                self.bare.delete(&fixed.result_stream).await?;
                Ok(took)
            },
        )
        .await?;
        let against = "bare loop over one subject for all jobs and one for all results".to_owned();
        report.add(&self.name, what, false, Found::Ratio { compared, against, at_least: None });
        Ok(())
    }
}
