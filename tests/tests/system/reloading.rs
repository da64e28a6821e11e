//! SIGHUP: a running worker takes what can change in its configuration, says what it took and what waits, and goes on
//! whatever the file holds.

use std::{fs, os::unix::process::ExitStatusExt as _};

use anyhow::{Context as _, Result};
use naq_tests::{NaqBinary, NaqProcess, Signal, eventually, naq_program};
use serde_json::{Value, json};

use crate::site::{Backend, COMMAND_LIMIT, Site, WORKER_LIMIT, on_every_store};

on_every_store!(a_worker_takes_level_concurrency_and_pause);

const RELOADED: &str = "reloaded";
const UNCHANGED: &str = "reloaded: nothing has changed";

/// A site whose programs log JSON lines.
async fn site(backend: Backend) -> Result<Site> {
    let mut site = Site::start(backend).await?;
    site.set("NAQ_LOG_MODE", "prod");
    Ok(site)
}

fn lines(process: &NaqProcess) -> Vec<Value> {
    process.stderr().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn with_message(process: &NaqProcess, message: &str) -> Vec<Value> {
    lines(process).into_iter().filter(|line| line["message"] == message).collect()
}

/// Writes the file and sends the signal.
fn reload(site: &Site, process: &NaqProcess, yaml: &str) -> Result<()> {
    fs::write(site.path("naq.yaml"), yaml)?;
    process.signal(Signal::HUP)
}

/// Waits until a line is there as `is_it` wants it.
async fn said(process: &NaqProcess, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    let said = eventually(COMMAND_LIMIT, what, async || lines(process).into_iter().find(&is_it));
    said.await.with_context(|| process.stderr())
}

/// What was taken, in the order of the log: setting, before, after.
fn taken(process: &NaqProcess) -> Vec<Value> {
    let told = with_message(process, RELOADED);
    told.iter().map(|line| json!([line["level"], line["setting"], line["old"], line["new"]])).collect()
}

async fn concurrency(site: &Site, expected: usize) -> Result<()> {
    let shown = eventually(COMMAND_LIMIT, format!("the list of workers says {expected}"), async || {
        let workers = site.json(&["worker", "list"]).await.ok()?;
        (workers[0]["concurrency"] == expected).then_some(())
    });
    shown.await
}

async fn until(site: &Site, id: &str, status: &str) -> Result<()> {
    let there = eventually(COMMAND_LIMIT, format!("{id} is {status}"), async || {
        (site.json(&["job", "status", id]).await.ok()?["status"] == status).then_some(())
    });
    there.await
}

async fn enqueue(site: &Site, id: &str, queue: &str) -> Result<()> {
    site.enqueue("naq.echo", &json!([id]), &["--job-id", id, "--queue", queue]).await.map(drop)
}

async fn a_worker_takes_level_concurrency_and_pause(backend: Backend) -> Result<()> {
    let site = site(backend).await?;
    let paused = "logging: {level: warn}\nworkers: {concurrency: 1}\nqueues: {configs: {mail: {paused: true}}}\n";
    fs::write(site.path("naq.yaml"), paused)?;
    let mut worker = site.worker("w", &["mail", "default"]).await?;
    enqueue(&site, "mail-1", "mail").await?;
    enqueue(&site, "default-1", "default").await?;
    until(&site, "default-1", "completed").await?;
    assert_eq!(site.json(&["job", "status", "mail-1"]).await?["status"], "pending");
    assert!(lines(&worker).iter().all(|line| line["level"] == "WARN"), "{}", worker.stderr());

    let more = "logging: {level: debug}\nworkers: {concurrency: 7}\n";
    reload(&site, &worker, more)?;
    until(&site, "mail-1", "completed").await?;
    concurrency(&site, 7).await?;
    said(&worker, "a line of the lower level", |line| line["message"] == "started" && line["task_id"] == "mail-1")
        .await?;
    let changes = [
        json!(["INFO", "logging.level", "warn", "debug"]),
        json!(["INFO", "queues.configs.mail.paused", "true", "-"]),
        json!(["INFO", "workers.concurrency", "1", "7"]),
    ];
    assert_eq!(taken(&worker), changes);

    // Back again: the lines that tell of it are not silenced by it.
    reload(&site, &worker, paused)?;
    concurrency(&site, 1).await?;
    let again =
        eventually(COMMAND_LIMIT, "six settings were taken", async || (taken(&worker).len() == 6).then_some(()));
    again.await.with_context(|| worker.stderr())?;
    enqueue(&site, "mail-2", "mail").await?;
    enqueue(&site, "default-2", "default").await?;
    until(&site, "default-2", "completed").await?;
    assert_eq!(site.json(&["job", "status", "mail-2"]).await?["status"], "pending");
    assert!(!lines(&worker).iter().any(|line| line["task_id"] == "default-2"), "{}", worker.stderr());
    assert!(!worker.has_ended());
    worker.signal(Signal::TERM)?;
    assert_eq!(worker.wait(WORKER_LIMIT).await?.code(), Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_changes_nothing_and_every_mistake_is_reported() -> Result<()> {
    let site = site(Backend::Sqlite).await?;
    // A file of the worker alone: every other command would refuse it, too.
    let write = |yaml: &str| fs::write(site.path("worker.yaml"), yaml);
    write("workers: {concurrency: 2}\n")?;
    let worker = site.worker("w", &["--config", "worker.yaml"]).await?;
    write("workers: {concurrency: 9}\njobs: {max_crashes: 0}\nlogging: {level: loud}\n")?;
    worker.signal(Signal::HUP)?;
    for setting in ["jobs.max_crashes", "logging.level"] {
        said(&worker, setting, |line| line["level"] == "ERROR" && line["setting"] == setting).await?;
    }
    write("workers: {concurrency: [2\n")?;
    worker.signal(Signal::HUP)?;
    said(&worker, "a file that is no YAML", |line| line["level"] == "ERROR" && line["setting"] == "").await?;
    // A filter that only the log itself finds to be wrong.
    write("workers: {concurrency: 9}\nlogging: {level: \"info,a[b\"}\n")?;
    worker.signal(Signal::HUP)?;
    said(&worker, "a filter that is none", |line| line["level"] == "ERROR" && line["setting"].is_null()).await?;
    enqueue(&site, "still", "default").await?;
    until(&site, "still", "completed").await?;
    concurrency(&site, 2).await?;
    assert_eq!(taken(&worker), [json!(null); 0]);

    write("workers: {concurrency: 3}\n")?;
    worker.signal(Signal::HUP)?;
    concurrency(&site, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_restart_is_named_and_what_a_flag_decides_is_not() -> Result<()> {
    let site = site(Backend::Sqlite).await?;
    let worker = site.worker("w", &["--concurrency", "3", "--log-level", "debug"]).await?;
    let waits =
        "workers: {concurrency: 9}\nlogging: {level: error}\njobs: {timeout: 30m}\nnats: {auth: {token: hunter2}}\n";
    reload(&site, &worker, waits)?;
    let line = said(&worker, "settings that wait", |line| line["settings"].is_string()).await?;
    assert_eq!([&line["level"], &line["settings"]], ["WARN", "jobs.timeout, nats.auth.token"]);
    assert!(!worker.stderr().contains("hunter2"), "{}", worker.stderr());
    concurrency(&site, 3).await?;

    // Still: the store has not been opened anew.
    reload(&site, &worker, "jobs: {timeout: 30m}\nworkers: {shutdown_timeout: 7s}\n")?;
    said(&worker, "again", |line| line["settings"] == "jobs.timeout").await?;
    reload(&site, &worker, "workers: {shutdown_timeout: 7s}\n")?;
    let unchanged = said(&worker, "nothing", |line| line["message"] == UNCHANGED).await?;
    assert_eq!(unchanged["level"], "INFO");
    assert_eq!(taken(&worker), [json!(["INFO", "workers.shutdown_timeout", "30s", "7s"])]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_has_its_own_concurrency_and_a_scheduler_its_level() -> Result<()> {
    let site = site(Backend::Sqlite).await?;
    let pool = |concurrency: &str| {
        format!("workers: {{concurrency: 2, pools: {{p: {{queues: [default], concurrency: {concurrency}}}}}}}\n")
    };
    fs::write(site.path("naq.yaml"), pool("5"))?;
    let worker = site.worker("w", &["--pool", "p"]).await?;
    let scheduler = site.naq()?.spawn(&["scheduler", "start"])?;
    said(&scheduler, "the scheduler runs", |line| line["logger"] == "naq_cli::session").await?;
    concurrency(&site, 5).await?;
    reload(&site, &worker, &pool("6"))?;
    concurrency(&site, 6).await?;
    reload(&site, &worker, &pool("null"))?;
    concurrency(&site, 2).await?;

    reload(&site, &scheduler, "logging: {level: debug}\nworkers: {concurrency: 4}\n")?;
    said(&scheduler, "its level", |line| line["message"] == RELOADED).await?;
    assert_eq!(taken(&scheduler), [json!(["INFO", "logging.level", "info,async_nats=warn", "debug"])]);
    scheduler.signal(Signal::TERM)?;
    assert_eq!(scheduler.wait(WORKER_LIMIT).await?.code(), Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_means_what_it_always_did_where_nothing_can_be_reloaded() -> Result<()> {
    let mut site = site(Backend::Sqlite).await?;
    let stream = site.naq()?.spawn(&["events", "stream"])?;
    let mut worker = site.worker("w", &[]).await?;
    let events = eventually(COMMAND_LIMIT, "it streams", async || (!stream.stdout().is_empty()).then_some(()));
    events.await?;
    stream.signal(Signal::HUP)?;
    assert_eq!(stream.wait(COMMAND_LIMIT).await?.status.signal(), Some(Signal::HUP.as_raw()));
    worker.kill().await?;

    // Started by nohup, it reloads; on a terminal that goes away, it stops.
    let nohup = NaqBinary::at("/usr/bin/nohup".into(), site.dir());
    let nohup = nohup.env("NAQ_URL", &site.url).env("NAQ_LOG_MODE", "prod");
    let naq = naq_program()?;
    let mut worker = nohup.spawn(&[naq.as_os_str(), "worker".as_ref(), "start".as_ref()])?;
    said(&worker, "the worker runs", |line| line["logger"] == "naq_cli::session").await?;
    worker.signal(Signal::HUP)?;
    said(&worker, "it reloads", |line| line["message"] == UNCHANGED).await?;
    assert!(!worker.has_ended());
    worker.signal(Signal::TERM)?;
    assert_eq!(worker.wait(WORKER_LIMIT).await?.code(), Some(0));

    site.set("NAQ_LOG_FILE", site.path("terminal.log").display());
    let mut terminal = site.naq()?.open_terminal(&["worker", "start"], (100, 30))?;
    terminal.shows(WORKER_LIMIT, "Ctrl-C stops").await?;
    let told = |message: &str| {
        let text = fs::read_to_string(site.path("terminal.log")).unwrap_or_default();
        text.contains(message).then_some(())
    };
    terminal.signal(Signal::HUP)?;
    eventually(COMMAND_LIMIT, "it reloads", async || told(UNCHANGED)).await?;
    // Its report finds nobody to read it.
    assert_eq!(terminal.hang_up(WORKER_LIMIT).await?.code(), Some(1));
    told("stops: claims nothing more").context("it stopped in order")
}
