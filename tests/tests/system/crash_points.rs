//! Processes are killed after each single write of each move: the end is the same as without the kill.
//!
//! On NATS the writes have names (`naq_services::storage::crash`), and a run without a kill tells which it passed, so that
//! a write that is added later is tried too. On SQLite a move is one transaction, of several writes to the file and the log
//! beside it: there a library that is loaded before the C library counts them, and kills between any two.

use std::{cell::Cell, collections::BTreeMap, fs, rc::Rc, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{BadDisk, NaqBinary, ServerVersion, Signal, eventually};
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, LocalSet},
};

use crate::{
    gate,
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, envelope, on_every_server, with},
};

on_every_server!(the_end_is_the_same_after_each_write);

/// Where each job of the story stands at its end, in which attempt, and with which error.
const END: [(&str, &str, u64, &str); 15] = [
    ("again", "completed", 2, ""),
    ("cancelled", "cancelled", 1, "cancelled"),
    ("cancelled-early", "cancelled", 1, "cancelled"),
    ("dead", "failed", 2, "boom"),
    ("dead-without-result", "failed", 1, "boom"),
    ("done", "completed", 1, ""),
    ("for-a-time", "completed", 1, ""),
    ("handed", "completed", 1, ""),
    ("later", "completed", 1, ""),
    ("only", "completed", 1, ""),
    ("replaced", "cancelled", 1, "replaced"),
    ("replacing", "completed", 1, ""),
    ("second", "completed", 1, ""),
    ("snoozed", "completed", 1, ""),
    ("until-started", "completed", 1, ""),
];
/// The moves that the story makes; each has to show among the crash points.
const MOVES: [&str; 14] = [
    "enqueue.",
    "settle.result",
    "settle.key",
    "settle.again",
    "promote.",
    "end.",
    "end.key",
    "requeue.",
    "hand_back.",
    "unique.key",
    "unique.takeover",
    "unique.stored",
    "unique.start",
    "settle.ack",
];
/// Commands that store jobs with keys.
const UNIQUE: [&[&str]; 5] = [
    &["--job-id", "only", "--unique-key", "k1"],
    &["--job-id", "until-started", "--unique-key", "k2", "--unique-while", "pending"],
    &["--job-id", "for-a-time", "--unique-key", "k3", "--unique-ttl", "1h"],
    &["--job-id", "replaced", "--unique-key", "k4", "--delay", "1h"],
    &["--job-id", "replacing", "--unique-key", "k4", "--on-conflict", "replace"],
];
/// The keys that are free when the story has ended.
const FREE_KEYS: [&str; 8] = ["k1", "k2", "k4", "dead", "silent", "cancelled", "second", "again"];
/// What a worker takes at least for the story; some 370 were counted.
const FEWEST_STEPS: usize = 150;
/// How many steps from a step to the next that is tried: one more than this part of it.
const SPARSER: usize = 16;
const AT_ONCE: usize = 6;
/// A hundred times what it takes: six stories share the machine, and whatever else runs there.
const WORKER_LIMIT: Duration = Duration::from_secs(120);

/// What happens to the processes of one story.
#[derive(Debug, Clone)]
enum Kill {
    /// They tell which points they pass.
    Never,
    /// Each that passes this point dies there.
    At(String),
    /// Each that changes or syncs the file so often dies instead of doing it once more.
    Step(usize),
}

async fn the_end_is_the_same_after_each_write(version: ServerVersion) -> Result<()> {
    let _alone = gate::heavy().await;
    let site = Arc::new(Site::start(Backend::Nats(version)).await?);
    let points = play(&site.beside("calm")?, &Kill::Never).await?.seen;
    for part in MOVES {
        ensure!(points.iter().any(|point| point.contains(part)), "no crash point in {part} was passed: {points:?}");
    }
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let here = LocalSet::new();
    let mut stories = JoinSet::new();
    for (number, point) in points.into_iter().enumerate() {
        let (site, room) = (Arc::clone(&site), Arc::clone(&room));
        let story = async move {
            let _permit = room.acquire().await?;
            let site = site.beside(&format!("kill{number}"))?;
            let played = play(&site, &Kill::At(point.clone())).await.with_context(|| format!("killed at {point}"))?;
            ensure!(played.died, "nothing died at {point}");
            anyhow::Ok(())
        };
        stories.spawn_local_on(story, &here);
    }
    here.run_until(all(stories)).await
}

/// Waits for all stories; an error that tells of each that failed.
async fn all(mut stories: JoinSet<Result<()>>) -> Result<()> {
    let mut failures = Vec::new();
    while let Some(story) = stories.join_next().await {
        failures.extend(story?.err().map(|error| format!("{error:#}")));
    }
    ensure!(failures.is_empty(), "{} stories ended differently:\n{}", failures.len(), failures.join("\n\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_the_same_on_sqlite_after_each_write_to_the_file() -> Result<()> {
    let _alone = gate::heavy().await;
    play(&Site::start(Backend::Sqlite).await?, &Kill::Never).await?;
    let survived = Rc::new(Cell::new(None));
    let mut next = 1;
    while survived.get().is_none() {
        let here = LocalSet::new();
        let mut stories = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (step, survived) = (next, Rc::clone(&survived));
            // Every one of the first steps, which are those of commands too; those of the worker lie ever farther apart.
            next += 1 + next / SPARSER;
            let story = async move {
                let site = Site::start(Backend::Sqlite).await?;
                let played = play(&site, &Kill::Step(step)).await.with_context(|| format!("killed at step {step}"))?;
                if !played.died {
                    survived.set(Some(step));
                }
                anyhow::Ok(())
            };
            stories.spawn_local_on(story, &here);
        }
        here.run_until(all(stories)).await?;
    }
    ensure!(survived.get() >= Some(FEWEST_STEPS), "after step {:?} nothing dies any more", survived.get());
    Ok(())
}

struct Played {
    /// Whether a process died at its point.
    died: bool,
    seen: Vec<String>,
}

/// Plays the story: every move once, with the processes dying as told, and checks its end.
async fn play(site: &Site, kill: &Kill) -> Result<Played> {
    let (log, seen) = (RunLog::at(site.path("runs")), site.path("seen"));
    let armed = match kill {
        Kill::Never => site.test_worker().env("NAQ_TEST_CRASH_SEEN", seen.display()),
        Kill::At(point) => site.test_worker().env("NAQ_TEST_CRASH", format!("{point}:1")),
        Kill::Step(step) => {
            let disk = BadDisk::prepare(site.dir(), &site.path("jobs.db"))?;
            site.test_worker().envs(disk.env()).envs([BadDisk::kill_at(*step)])
        }
    };
    let release = site.path("release");
    let jobs = [
        with(
            envelope("dead", "t.fail", json!({"times": 9})),
            json!({"max_retries": 1, "retry_delay": 0.1, "unique": {"key": "dead"}}),
        ),
        with(
            envelope("again", "t.fail", json!({"times": 1})),
            json!({"max_retries": 3, "retry_delay": 0.1, "unique": {"key": "again"}}),
        ),
        envelope("snoozed", "t.snooze", json!({"ms": 100})),
        with(
            envelope("dead-without-result", "t.fail", json!({"times": 1})),
            json!({"max_retries": 0, "result_ttl": 0, "unique": {"key": "silent"}}),
        ),
        with(envelope("cancelled", "naq.echo", json!({})), json!({"queue": "parked", "unique": {"key": "cancelled"}})),
        with(envelope("second", "t.second_life", json!({})), json!({"unique": {"key": "second"}})),
        envelope("handed", "t.log_sleep", json!({"file": log.path(), "until": release})),
    ];
    site.enqueue_all(jobs).await?;
    let mut died = false;
    for (id, delay) in [("later", "300ms"), ("cancelled-early", "1h")] {
        died |= command(site, &armed, &["job", "enqueue", "naq.echo", "--job-id", id, "--delay", delay]).await?;
    }
    died |= command(site, &armed, &["job", "enqueue", "naq.echo", "--job-id", "done"]).await?;
    for flags in UNIQUE {
        died |= command(site, &armed, &[&["job", "enqueue", "naq.echo"], flags].concat()).await?;
    }
    for id in ["cancelled", "cancelled-early"] {
        died |= command(site, &armed, &["job", "cancel", id]).await?;
    }
    died |= work_until_stopped(site, &armed).await?;
    fs::write(&release, "")?;
    site.burst(&[], WORKER_LIMIT).await?;
    died |= command(site, &armed, &["job", "retry", "second"]).await?;
    site.burst(&[], WORKER_LIMIT).await?;
    check_end(site).await?;

    let seen = fs::read_to_string(seen).unwrap_or_default();
    let mut seen: Vec<String> = seen.lines().map(str::to_owned).collect();
    seen.sort_unstable();
    seen.dedup();
    Ok(Played { died, seen })
}

/// Runs a command; once more, in a process that is not killed, if it died.
async fn command(site: &Site, armed: &NaqBinary, args: &[&str]) -> Result<bool> {
    let finished = armed.run(args, COMMAND_LIMIT).await?;
    if finished.code() == Some(0) {
        return Ok(false);
    }
    ensure!(finished.code().is_none(), "`{}` failed: {finished:#?}", args.join(" "));
    let again = site.test_worker().run(args, COMMAND_LIMIT).await?;
    // It may find that nothing is left to do.
    ensure!(again.code().is_some_and(|code| code <= 1), "after a kill, `{}` failed: {again:#?}", args.join(" "));
    Ok(true)
}

/// A worker that does everything it can, hands back the job that does not end, and stops; or dies.
async fn work_until_stopped(site: &Site, armed: &NaqBinary) -> Result<bool> {
    let binary = armed.clone().env("NAQ_WORKERS__SHUTDOWN_TIMEOUT", "100ms");
    let mut worker = binary.spawn(&["worker", "start", "--name", "armed"])?;
    let done = eventually(WORKER_LIMIT, "the worker has done all but one job, or died", async || {
        if worker.has_ended() {
            return Some(());
        }
        let numbers = site.queue("default").await.ok()?;
        let open = ["pending", "scheduled", "retry", "waiting"];
        (open.iter().all(|state| numbers[*state] == 0) && numbers["running"] == 1).then_some(())
    });
    done.await.with_context(|| worker.stderr())?;
    if !worker.has_ended() {
        worker.signal(Signal::TERM)?;
    }
    let finished = worker.wait(WORKER_LIMIT).await?;
    ensure!(finished.code().is_none_or(|code| code == 0), "the armed worker failed: {finished:#?}");
    Ok(finished.code().is_none())
}

async fn check_end(site: &Site) -> Result<()> {
    for queue in ["default", "parked"] {
        let numbers = site.queue(queue).await?;
        for state in ["pending", "running", "scheduled", "retry", "waiting"] {
            ensure!(numbers[state] == 0, "something is left in {queue}: {numbers}");
        }
    }
    let listed = site.json(&["job", "list", "--limit", "1000"]).await?;
    let mut end = BTreeMap::new();
    for job in listed.as_array().context("a list")? {
        let stand = (text(&job["status"]), job["attempt"].as_u64().unwrap_or(0), text(&job["error"]["error_type"]));
        if let Some(other) = end.insert(text(&job["job_id"]), stand.clone()) {
            ensure!(other == stand, "{} stands in two places: {other:?} and {stand:?}", job["job_id"]);
        }
    }
    let expected: BTreeMap<String, _> =
        END.map(|(id, status, attempt, error)| (id.to_owned(), (status.to_owned(), attempt, error.to_owned()))).into();
    ensure!(end == expected, "the story ended differently:\n{end:#?}\nexpected:\n{expected:#?}");
    let second = site.json(&["job", "result", "second"]).await?;
    ensure!(second["result"] == "alive", "{second}");
    check_keys(site).await
}

/// Whether everybody can have each key at once that is to be free, and nobody the other.
async fn check_keys(site: &Site) -> Result<()> {
    let keyed =
        |key: &str| with(envelope(format!("after-{key}"), "naq.noop", json!({})), json!({"unique": {"key": key}}));
    let lines: String = FREE_KEYS.iter().chain(&["k3"]).map(|key| format!("{}\n", keyed(key))).collect();
    let file = site.path("after.jsonl");
    fs::write(&file, lines)?;
    let report = site.json(&["job", "enqueue", "--from", &file.to_string_lossy()]).await?;
    ensure!(report == json!({"enqueued": FREE_KEYS.len(), "duplicates": 1, "failed": 0}), "the keys: {report}");
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
