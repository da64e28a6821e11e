//! Jobs of many sorts while workers are killed, stopped and told to end, and the server is killed: the whole history is judged.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{
    NaqProcess, Signal,
    faults::{Event, Plan, Recorder, Rules, Scope, Seen, check, read},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    gate,
    site::{Backend, LEASE, Site, WORKER_LIMIT, envelope, on_every_store, with},
};

const JOBS: usize = 96;
const WORKERS: usize = 3;
const RUNS: u32 = 40;
const PERIOD: Duration = Duration::from_millis(250);
/// For all to end once the last fault has healed: leases that run out, retries, dependants.
const DRAINED: Duration = Duration::from_secs(60);
/// Other tests run beside this one where the runner does not keep them apart.
const RULES: Rules = Rules { lease: LEASE, slack: Duration::from_secs(2), max_crashes: 3 };

on_every_store!(every_promise_is_kept_under_faults);

async fn every_promise_is_kept_under_faults(backend: Backend) -> Result<()> {
    let _alone = gate::heavy().await;
    let mut ordeal = Ordeal::prepare(Site::start(backend).await?).await?;
    ordeal.enqueue().await?;
    ordeal.schedule().await?;
    for round in 0..2 {
        ordeal.kill(round).await?;
        ordeal.sleep(round + 1, LEASE / 2).await?;
        ordeal.sleep(round + 2, LEASE * 2).await?;
        ordeal.replace(round).await?;
        if ordeal.site.server.is_some() {
            ordeal.kill_the_server(Duration::from_secs(2 * round as u64)).await?;
        }
    }
    ordeal.site.drained("default", DRAINED).await?;
    ordeal.look().await?;

    let verdict = check(&read([&ordeal.history])?, &RULES);
    ensure!(verdict.violations.is_empty(), "{verdict}");
    ensure!(verdict.counts.jobs == JOBS + RUNS as usize && verdict.counts.faults >= 8, "{verdict}");
    ensure!(verdict.counts.run_again > 0, "no fault met a job that ran: {verdict}");
    Ok(())
}

/// A site, its workers, and the history of what is done to them.
struct Ordeal {
    site: Site,
    history: PathBuf,
    recorder: Recorder,
    workers: Vec<NaqProcess>,
    plans: BTreeMap<String, Plan>,
    faults: u32,
    started: usize,
}

impl Ordeal {
    async fn prepare(site: Site) -> Result<Ordeal> {
        let history = site.path("history");
        let recorder = Recorder::open(&history)?;
        let (workers, plans) = (Vec::new(), BTreeMap::new());
        let mut ordeal = Ordeal { site, history, recorder, workers, plans, faults: 0, started: 0 };
        for _ in 0..WORKERS {
            let worker = ordeal.worker().await?;
            ordeal.workers.push(worker);
        }
        Ok(ordeal)
    }

    async fn worker(&mut self) -> Result<NaqProcess> {
        self.started += 1;
        self.site.worker(&format!("worker-{}", self.started), &["--concurrency", "4"]).await
    }

    /// Plain jobs, jobs that fail now and then or for good, jobs without results, and jobs that wait for others.
    async fn enqueue(&mut self) -> Result<()> {
        let id = |number: usize| format!("job-{number}");
        for number in 0..JOBS {
            let plan = match number % 6 {
                2 => Plan { fails: 1, max_retries: 2, ..Plan::default() },
                3 => Plan { fails: 9, max_retries: 1, ..Plan::default() },
                4 => Plan { keeps_no_result: true, ..Plan::default() },
                5 => Plan { depends_on: vec![id(number - 5), id(number - 3)], ..Plan::default() },
                _ => Plan::default(),
            };
            self.recorder.record(Event::Enqueue { job: id(number), plan: plan.clone() })?;
            self.plans.insert(id(number), plan);
        }
        let of_plan = |(number, (id, plan)): (usize, (&String, &Plan))| {
            let ms = [20, 300, 900, 2500][number % 4];
            let args = json!({"history": self.history, "ms": ms, "fails": plan.fails});
            let retries = json!({"max_retries": plan.max_retries, "retry_delay": [0.2], "depends_on": plan.depends_on});
            let envelope = with(envelope(id, "t.recorded", args), retries);
            if plan.keeps_no_result { with(envelope, json!({"result_ttl": 0})) } else { envelope }
        };
        let envelopes: Vec<Value> = self.plans.iter().enumerate().map(of_plan).collect();
        self.site.enqueue_all(envelopes).await?;
        for job in self.plans.keys() {
            self.recorder.record(Event::Acknowledged { job: job.clone(), instead: None })?;
        }
        Ok(())
    }

    async fn schedule(&mut self) -> Result<()> {
        let args = json!({"history": self.history, "ms": 10, "fails": 0});
        let first = self.site.every("often", "t.recorded", &args, PERIOD, RUNS as usize).await?.unix_millis();
        let period = PERIOD.as_millis() as i64;
        self.recorder.record(Event::Scheduled { schedule: "often".into(), first, period, count: RUNS })?;
        let runs = (0..i64::from(RUNS)).map(|number| (format!("often_{}", first + number * period), Plan::default()));
        self.plans.extend(runs);
        Ok(())
    }

    fn fault(&mut self, name: &str, scope: Scope) -> Result<u32> {
        self.faults += 1;
        self.recorder.record(Event::Fault { fault: self.faults, name: name.to_owned(), scope })?;
        Ok(self.faults)
    }

    fn healed(&self, fault: u32) -> Result<()> {
        Ok(self.recorder.record(Event::Healed { fault })?)
    }

    async fn kill(&mut self, which: usize) -> Result<()> {
        let worker = &mut self.workers[which % WORKERS];
        let process = worker.pid();
        worker.kill().await?;
        self.recorder.record(Event::Died { process })?;
        let fault = self.fault("kill -9 of a worker", Scope::Process(process))?;
        self.workers[which % WORKERS] = self.worker().await?;
        self.healed(fault)
    }

    async fn sleep(&mut self, which: usize, how_long: Duration) -> Result<()> {
        let process = self.workers[which % WORKERS].pid();
        let fault = self.fault("a worker is stopped", Scope::Frozen(process))?;
        let worker = &self.workers[which % WORKERS];
        worker.signal(Signal::STOP)?;
        sleep(how_long).await;
        worker.signal(Signal::CONT)?;
        self.healed(fault)
    }

    /// A deploy: the new one is there before the old one ends.
    async fn replace(&mut self, which: usize) -> Result<()> {
        let new = self.worker().await?;
        let old = std::mem::replace(&mut self.workers[which % WORKERS], new);
        let process = old.pid();
        let fault = self.fault("a worker is replaced", Scope::Process(process))?;
        old.signal(Signal::TERM)?;
        let ended = old.wait(WORKER_LIMIT).await?;
        ensure!(ended.code() == Some(0), "{ended:#?}");
        self.recorder.record(Event::Died { process })?;
        self.healed(fault)
    }

    async fn kill_the_server(&mut self, away: Duration) -> Result<()> {
        let fault = self.fault("kill -9 of the server", Scope::Everybody)?;
        self.site.nats()?.kill()?;
        sleep(away).await;
        self.site.nats()?.restart().await?;
        self.healed(fault)
    }

    /// Looks at every job at the end.
    async fn look(&self) -> Result<()> {
        let mut listed = BTreeMap::new();
        for status in ["completed", "failed", "cancelled"] {
            for job in self.site.jobs("default", status).await? {
                let id = job["job_id"].as_str().context("a listed job has an id")?.to_owned();
                ensure!(listed.insert(id.clone(), (status, job)).is_none(), "{id} has ended twice");
            }
        }
        for id in self.plans.keys() {
            let seen = match listed.get(id) {
                Some((status, job)) => self.ended(id, status, job).await?,
                None => self.unended(id).await?,
            };
            self.recorder.record(Event::Looked { job: id.clone(), seen })?;
        }
        Ok(())
    }

    async fn ended(&self, id: &str, status: &str, job: &Value) -> Result<Seen> {
        let attempt = job["attempt"].as_u64().context("a listed job has an attempt")?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (run, error_type) = if status == "completed" {
            (text(&self.site.json(&["job", "result", id]).await?["result"]), None)
        } else {
            (None, text(&self.site.json(&["job", "status", id]).await?["error"]["error_type"]))
        };
        Ok(Seen::Ended { status: status.to_owned(), attempt: u32::try_from(attempt)?, run, error_type })
    }

    /// What there is of a job that no list of ended ones has.
    async fn unended(&self, id: &str) -> Result<Seen> {
        let finished = self.site.run(&["job", "status", id]).await?;
        match finished.code() {
            Some(0) => Ok(Seen::Alive { status: finished.json()?["status"].to_string() }),
            Some(3) => Ok(Seen::Nothing),
            _ => anyhow::bail!("status of {id}: {finished:#?}"),
        }
    }
}
