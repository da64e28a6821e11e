//! `naq system migrate` is killed at each of its writes, and at many moments of a long move, and called again: every job
//! runs once at the destination, and nothing is left at the source.
//!
//! Jobs that keep no result are the hard ones: once they have run, nothing tells that they were there. So workers of the
//! destination run what they get before the migration is called again.

use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{Finished, NaqBinary, ServerVersion};
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, LocalSet},
};

use crate::{
    gate,
    run_log::RunLog,
    site::{Backend, Site, WORKER_LIMIT, anonymous, envelope, on_every_server, with},
};

on_every_server!(
    from_a_file_killed_after_each_write,
    to_a_file_killed_after_each_write,
    every_job_runs_once_however_often_a_move_is_killed
);

const AT_ONCE: usize = 6;
const MIGRATION_LIMIT: Duration = Duration::from_secs(60);
/// Steps of the migration itself that every story passes.
const STEPS: [&str; 8] = ["noted", "held", "removed", "released", "remains", "results", "schedule", "key"];
/// Jobs of the long move.
const MANY: usize = 3_000;
const QUEUES: [&str; 3] = ["default", "mail", "bulk"];
/// How long migrations of the long move live.
const LIVES: [u64; 8] = [120, 250, 400, 550, 700, 900, 1_200, 1_600];

/// From where to where.
struct Route {
    from: Site,
    to: Site,
}

impl Route {
    /// Between a new file and a prefix of its own on a server.
    async fn new(server: &Site, prefix: &str, to_file: bool) -> Result<Route> {
        let (file, nats) = (Site::start(Backend::Sqlite).await?, server.beside(prefix)?);
        let (from, to) = if to_file { (nats, file) } else { (file, nats) };
        Ok(Route { from, to })
    }

    /// The test worker, which can be killed at a write, with the settings of the side that has a prefix.
    fn binary(&self) -> NaqBinary {
        let nats = if self.from.url.starts_with("nats") { &self.from } else { &self.to };
        nats.test_worker()
    }

    fn args(&self) -> [&str; 8] {
        ["system", "migrate", "--from", &self.from.url, "--to", &self.to.url, "--output", "json"]
    }

    async fn migrate(&self, binary: &NaqBinary) -> Result<Finished> {
        binary.run(&self.args(), MIGRATION_LIMIT).await
    }

    /// Jobs of every kind at the source; the ids of those that are to run.
    async fn fill(&self, log: &RunLog) -> Result<Vec<String>> {
        let from = &self.from;
        let count = |id: &str| envelope(id, "t.count", json!({"file": log.path()}));
        let silent = || json!({"result_ttl": 0});
        from.enqueue_all([
            with(envelope("dead", "t.fail", json!({"times": 9})), json!({"max_retries": 0})),
            envelope("done", "naq.echo", json!({"a": 1})),
            with(
                envelope("once", "naq.noop", json!({})),
                json!({"unique": {"key": "once", "while": "ttl", "ttl": 3600}}),
            ),
        ])
        .await?;
        from.burst(&[], WORKER_LIMIT).await?;
        from.enqueue_all([
            with(count("silent"), silent()),
            with(count("urgent"), json!({"priority": 0, "queue": "mail", "result_ttl": 0})),
            with(count("keyed"), json!({"unique": {"key": "keyed"}, "result_ttl": 0})),
            count("kept"),
            with(count("after"), json!({"depends_on": ["done", "kept"], "result_ttl": 0})),
            with(anonymous("t.count", json!({"file": log.path()})), silent()),
            with(count("later"), json!({"run_at": "2099-01-01T00:00:00Z"})),
        ])
        .await?;
        // It is due before anybody leads again.
        from.enqueue("t.count", &count("due")["args"], &["--job-id", "due", "--delay", "1s", "--result-ttl", "0s"])
            .await?;
        from.json(&["scheduler", "upsert", "nightly", "--kind", "naq.noop", "--cron", "0 3 * * *"]).await?;
        from.json(&["queue", "pause", "parked"]).await?;
        Ok(["silent", "urgent", "keyed", "kept", "due", "after"].map(str::to_owned).into())
    }

    /// Runs what the destination has, until these have run.
    async fn run_all(&self, log: &RunLog, ids: &[String]) -> Result<()> {
        for _ in 0..10 {
            self.to.burst(&["default", "mail"], WORKER_LIMIT).await?;
            let run = log.counts("end")?;
            if ids.iter().all(|id| run.contains_key(id)) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn check(&self, log: &RunLog, ids: &[String]) -> Result<()> {
        let run = log.counts("end")?;
        ensure!(run.values().all(|count| *count == 1), "more than once: {run:?}");
        ensure!(run.len() == ids.len() + 1 && ids.iter().all(|id| run.contains_key(id)), "ran: {run:?}");
        for (id, status) in [("dead", "failed"), ("done", "completed"), ("later", "scheduled"), ("kept", "completed")] {
            let found = self.to.json(&["job", "status", id]).await?;
            ensure!(found["status"] == status, "{found}");
        }
        let letter = self.to.json(&["dead", "show", "dead"]).await?;
        ensure!(letter["error"]["error_type"] == "boom", "{letter}");
        let again = self.to.json(&["job", "enqueue", "naq.noop", "--job-id", "twice", "--unique-key", "once"]).await?;
        ensure!(again["duplicate"] == true && again["job_id"] == "once", "{again}");
        let free = self.to.json(&["job", "enqueue", "naq.noop", "--job-id", "free", "--unique-key", "keyed"]).await?;
        ensure!(free["duplicate"] == false, "{free}");
        let schedules = self.to.json(&["scheduler", "jobs"]).await?;
        ensure!(schedules.as_array().is_some_and(|all| all.len() == 1), "{schedules}");
        self.check_source().await
    }

    async fn check_source(&self) -> Result<()> {
        let left = self.from.json(&["job", "list", "--limit", "1000"]).await?;
        ensure!(left == json!([]), "left at the source: {left}");
        let schedules = self.from.json(&["scheduler", "jobs"]).await?;
        ensure!(schedules == json!([]), "left at the source: {schedules}");
        Ok(())
    }
}

async fn from_a_file_killed_after_each_write(version: ServerVersion) -> Result<()> {
    each_write(version, false).await
}

async fn to_a_file_killed_after_each_write(version: ServerVersion) -> Result<()> {
    each_write(version, true).await
}

async fn each_write(version: ServerVersion, to_file: bool) -> Result<()> {
    let _alone = gate::heavy().await;
    let server = Arc::new(Site::start(Backend::Nats(version)).await?);
    let points = calm(&Route::new(&server, "calm", to_file).await?).await?;
    for step in STEPS {
        ensure!(points.contains(&format!("migration.{step}")), "{step} was not passed: {points:?}");
    }
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let here = LocalSet::new();
    let mut stories = JoinSet::new();
    for (number, point) in points.into_iter().enumerate() {
        let (server, room) = (Arc::clone(&server), Arc::clone(&room));
        let story = async move {
            let _permit = room.acquire().await?;
            let route = Route::new(&server, &format!("kill{number}"), to_file).await?;
            killed_at(&route, &point).await.with_context(|| format!("killed at {point}"))
        };
        stories.spawn_local_on(story, &here);
    }
    here.run_until(async {
        let mut failures = Vec::new();
        while let Some(story) = stories.join_next().await {
            failures.extend(story?.err().map(|error| format!("{error:#}")));
        }
        ensure!(failures.is_empty(), "{} stories went wrong:\n{}", failures.len(), failures.join("\n\n"));
        Ok(())
    })
    .await
}

/// A migration that nobody kills; returns the writes that it made.
async fn calm(route: &Route) -> Result<BTreeSet<String>> {
    let (log, seen) = (RunLog::at(route.to.path("runs")), route.to.path("seen"));
    let ids = route.fill(&log).await?;
    let dry = route.binary().run(&[&route.args()[..], &["--dry-run"]].concat(), MIGRATION_LIMIT).await?;
    let finished = route.migrate(&route.binary().env("NAQ_TEST_CRASH_SEEN", seen.display())).await?;
    ensure!(finished.code() == Some(0), "{finished:#?}");
    let (dry, report) = (dry.json()?, finished.json()?);
    for (field, count) in
        [("pending", 5), ("scheduled", 2), ("waiting", 1), ("dead", 1), ("results", 2), ("schedules", 1)]
    {
        ensure!(report[field] == count && dry[field] == count, "{field}: {report}, to be moved: {dry}");
    }
    ensure!(dry["dry_run"] == true && report["remaining"] == 0 && report["left"] == json!([]), "{report}");
    route.run_all(&log, &ids).await?;
    route.check(&log, &ids).await?;
    Ok(fs::read_to_string(seen)?.lines().map(str::to_owned).collect())
}

async fn killed_at(route: &Route, point: &str) -> Result<()> {
    let log = RunLog::at(route.to.path("runs"));
    let ids = route.fill(&log).await?;
    let killed = route.migrate(&route.binary().env("NAQ_TEST_CRASH", format!("{point}:1"))).await?;
    ensure!(killed.code().is_none(), "nothing died: {killed:#?}");
    route.to.burst(&["default", "mail"], WORKER_LIMIT).await?;
    let again = route.migrate(&route.binary()).await?;
    ensure!(again.code() == Some(0), "{again:#?}");
    route.run_all(&log, &ids).await?;
    route.check(&log, &ids).await
}

async fn every_job_runs_once_however_often_a_move_is_killed(version: ServerVersion) -> Result<()> {
    let _alone = gate::heavy().await;
    let server = Site::start(Backend::Nats(version)).await?;
    let route = Route::new(&server, "many", false).await?;
    let log = RunLog::at(route.to.path("runs"));
    let jobs = (0..MANY).map(|n| {
        let fields = json!({"priority": n % 4, "queue": QUEUES[n % QUEUES.len()], "result_ttl": 0});
        with(envelope(format!("job-{n}"), "t.count", json!({"file": log.path()})), fields)
    });
    route.from.enqueue_all(jobs).await?;
    let worker = route.to.worker("busy", &QUEUES).await?;
    let mut kills = 0;
    for life in LIVES {
        let mut migration = route.binary().spawn(&route.args())?;
        if tokio::time::timeout(Duration::from_millis(life), migration.ended()).await.is_ok() {
            break;
        }
        migration.kill().await?;
        kills += 1;
    }
    ensure!(kills >= 3, "{kills} migrations were killed");
    let finished = route.migrate(&route.binary()).await?;
    ensure!(finished.code() == Some(0), "{finished:#?}");
    log.wait("end", MANY, None, MIGRATION_LIMIT).await?;
    for queue in QUEUES {
        route.to.drained(queue, WORKER_LIMIT).await?;
    }
    drop(worker);
    let run = log.counts("end")?;
    let twice: Vec<_> = run.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(run.len() == MANY && twice.is_empty(), "{} jobs ran; more than once: {twice:?}", run.len());
    route.check_source().await
}

/// The refusals, and what they exit with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_begin_is_refused() -> Result<()> {
    let (from, to) = (Site::start(Backend::Sqlite).await?, Site::start(Backend::Sqlite).await?);
    from.enqueue("naq.noop", &json!({}), &[]).await?;
    from.enqueue("naq.noop", &json!({}), &["--delay", "1h"]).await?;
    let refused = async |site: &Site, from: &str, to: &str, more: &[&str]| {
        let finished = site.run(&[&["system", "migrate", "--from", from, "--to", to], more].concat()).await?;
        anyhow::Ok((finished.code(), finished.stdout))
    };
    let missing = format!("{}-missing", from.url);
    let counted = from.json(&["system", "migrate", "--from", &from.url, "--to", &missing, "--dry-run"]).await?;
    ensure!(counted["pending"] == 1 && counted["scheduled"] == 1, "{counted}");
    let exits = [
        (refused(&from, &from.url, &from.url, &[]).await?, 2),
        (refused(&from, "sqlit://x", &to.url, &[]).await?, 2),
        (refused(&from, &from.url, &to.url, &["--url", "memory://"]).await?, 2),
        (refused(&from, &missing, &to.url, &[]).await?, 4),
        (refused(&from, "nats://127.0.0.1:1", &to.url, &[]).await?, 4),
    ];
    for ((code, stdout), expected) in exits {
        ensure!(code == Some(expected) && stdout.is_empty(), "{code:?} instead of {expected}: {stdout}");
    }
    let worker = from.worker("w", &["other", "--no-scheduler"]).await?;
    ensure!(refused(&from, &from.url, &to.url, &[]).await?.0 == Some(1), "under a live worker");
    drop(worker);
    let scheduler = from.naq()?.spawn(&["scheduler", "start"])?;
    naq_tests::eventually(WORKER_LIMIT, "somebody leads, and the worker is forgotten", async || {
        // It may exit with 1: nobody serves the queues.
        let findings = from.run(&["system", "doctor"]).await.ok()?.json().ok()?;
        let led = |finding: &Value| finding["subject"] == "scheduler" && finding["severity"] == "ok";
        let workers = from.json(&["worker", "list"]).await.ok()?;
        (findings["findings"].as_array()?.iter().any(led) && workers == json!([])).then_some(())
    })
    .await?;
    ensure!(refused(&from, &from.url, &to.url, &[]).await?.0 == Some(1), "under a live scheduler");
    drop(scheduler);
    // It was killed: its lock is waited for.
    let finished = from.run(&["system", "migrate", "--from", &from.url, "--to", &to.url]).await?;
    ensure!(finished.code() == Some(0), "{finished:#?}");
    let report = finished.json()?;
    ensure!(report["pending"] == 1 && report["scheduled"] == 1, "{report}");
    Ok(())
}
