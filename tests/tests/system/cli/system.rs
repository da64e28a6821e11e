//! `naq system …`, and what is said where nobody chose a store.

use anyhow::{Context as _, Result};
use naq_tests::{NaqBinary, eventually};
use serde_json::json;

use super::assert_fields;
use crate::site::{Backend, COMMAND_LIMIT, Site, on_every_store};

on_every_store!(doctor_looks_at_the_store);

async fn doctor_looks_at_the_store(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    site.enqueue("naq.noop", &json!({}), &[]).await?;
    let report = site.json(&["system", "doctor"]).await?;
    assert_fields(&report, &["store", "backend", "version", "findings"]);
    let backend_name = if site.server.is_some() { "nats" } else { "sqlite" };
    assert_eq!(report["backend"], backend_name);
    let findings = report["findings"].as_array().context("findings")?;
    findings.iter().for_each(|finding| assert_fields(finding, &["severity", "subject", "message", "advice"]));
    let of = |subject: &str| findings.iter().find(|finding| finding["subject"] == subject);
    assert_eq!(of("workers").context("nothing on workers")?["severity"], "warning", "no worker is alive");
    let old = backend == Backend::Nats(naq_tests::ServerVersion::V2_9);
    let advice = findings.iter().any(|finding| {
        finding["severity"] == "warning" && finding["message"].as_str().is_some_and(|m| m.contains("2.9"))
    });
    assert_eq!(advice, old, "2.9 is supported and not recommended: {findings:?}");

    let finding = async |subject: &str| -> Result<(String, String)> {
        let report = site.json(&["system", "doctor"]).await?;
        let found = report["findings"].as_array().into_iter().flatten().find(|finding| finding["subject"] == subject);
        let text = |key: &str| found.and_then(|finding| finding[key].as_str()).unwrap_or_default().to_owned();
        Ok((text("severity"), text("message")))
    };
    assert_eq!(finding("queue default").await?.1, "1 jobs wait and no live worker serves it");
    let mut worker = site.worker("only", &[]).await?;
    assert_eq!(finding("workers").await?.0, "ok");
    eventually(COMMAND_LIMIT, "the worker leads", async || {
        finding("scheduler").await.ok().filter(|(_, message)| message.contains(" leads, term 1"))
    })
    .await?;
    if site.server.is_some() {
        assert_eq!(finding("stream NAQ_JOB_EVENTS").await?.0, "ok");
    }
    // Nobody gives up its lock.
    worker.kill().await?;
    let (severity, message) = finding("scheduler").await?;
    assert!(severity == "warning" && message.contains("leads no more"), "{severity}: {message}");
    Ok(())
}

#[tokio::test]
async fn version_completions_and_help_need_no_store() -> Result<()> {
    let mut site = Site::start(Backend::Sqlite).await?;
    site.url = "nats://127.0.0.1:1".to_owned();
    let version = site.json(&["system", "version"]).await?;
    assert_fields(&version, &["version", "features"]);
    assert_eq!(version["features"], json!(["nats", "sqlite", "bincode", "otel"]));
    for shell in ["bash", "zsh", "fish"] {
        let script = site.naq()?.run(&["system", "completions", shell], COMMAND_LIMIT).await?;
        assert_eq!(script.code(), Some(0));
        assert!(script.stdout.contains("enqueue"), "{shell}: {script:#?}");
    }
    let man = site.naq()?.run(&["system", "man"], COMMAND_LIMIT).await?;
    assert!(man.stdout.contains(".TH"), "{man:#?}");
    let help = site.naq()?.run(&["--help"], COMMAND_LIMIT).await?;
    assert_eq!(help.code(), Some(0));
    for word in ["worker", "job", "queue", "dead", "Exit codes"] {
        assert!(help.stdout.contains(word), "{word} is not in the help");
    }
    assert_eq!(site.naq()?.run(&["worker", "begin"], COMMAND_LIMIT).await?.code(), Some(2));
    Ok(())
}

#[tokio::test]
async fn the_configuration_is_shown_with_where_it_comes_from_and_checked() -> Result<()> {
    let home = tempfile::tempdir()?;
    let file = "workers: {concurrency: 4}\nnats: {servers: ['nats://ann:secret@localhost:4222']}\n";
    std::fs::write(home.path().join("naq.yaml"), file)?;
    let naq = NaqBinary::in_dir(home.path())?.env("NAQ_WORKERS__SHUTDOWN_TIMEOUT", "5");
    let run = async |args: &[&str]| naq.run(args, COMMAND_LIMIT).await;
    let shown = run(&["system", "config", "--show", "--output", "json", "--log-level", "debug"]).await?;
    assert_eq!(shown.code(), Some(0), "{shown:#?}");
    assert!(!shown.stdout.contains("secret") && shown.stdout.contains("localhost:4222"), "{}", shown.stdout);
    let settings = shown.json()?["settings"].as_array().context("no settings")?.clone();
    let one = |key: &str| settings.iter().find(|setting| setting["key"] == key).cloned().unwrap_or_default();
    assert_eq!(one("workers.concurrency"), json!({"key": "workers.concurrency", "value": 4, "source": "./naq.yaml"}));
    assert_eq!(one("workers.shutdown_timeout")["source"], "NAQ_WORKERS__SHUTDOWN_TIMEOUT");
    assert_eq!([&one("logging.level")["value"], &one("logging.level")["source"]], ["debug", "--log-level"]);
    assert_eq!(one("workers.heartbeat_interval")["source"], "default");
    let table = run(&["system", "config"]).await?;
    let row = table.stdout.lines().find(|line| line.starts_with("workers.concurrency")).context("no row")?;
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["workers.concurrency", "4", "./naq.yaml"]);
    assert!(table.stderr.contains("read ./naq.yaml"), "{}", table.stderr);
    assert_eq!(run(&["system", "config", "--validate"]).await?.code(), Some(0));

    std::fs::write(home.path().join("naq.yaml"), "workers: {concurency: 4, ttl: 1s}\n")?;
    let wrong = run(&["system", "config", "--validate", "--output", "json"]).await?;
    let verdict = wrong.json()?;
    assert_eq!((wrong.code(), &verdict["valid"]), (Some(1), &json!(false)));
    let keys: Vec<_> = verdict["problems"].as_array().context("none")?.iter().map(|problem| &problem["key"]).collect();
    assert_eq!(keys, ["workers.concurency", "workers.heartbeat_interval"]);
    assert_eq!(verdict["problems"][0]["suggestion"], "workers.concurrency");
    // What needs no configuration works in spite of it.
    assert_eq!(run(&["system", "version"]).await?.code(), Some(0));
    for environment in ["development", "production", "testing"] {
        let made = run(&["system", "generate-config", "--environment", environment]).await?;
        std::fs::write(home.path().join("naq.yaml"), &made.stdout)?;
        let checked = run(&["system", "config", "--validate"]).await?;
        assert_eq!(checked.code(), Some(0), "{environment}: {checked:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn without_any_configuration_two_processes_meet_in_one_file() -> Result<()> {
    let home = tempfile::tempdir()?;
    let naq = NaqBinary::in_dir(home.path())?;
    let worker = naq.spawn(&["worker", "start"])?;
    let args = ["job", "enqueue", "naq.echo", "--args", "{\"hello\":\"world\"}", "--wait", "20s"];
    let finished = naq.run(&args, COMMAND_LIMIT).await?;
    assert_eq!((finished.code(), finished.stdout.trim()), (Some(0), "{\"hello\":\"world\"}"), "{finished:#?}");
    let said: Vec<&str> = finished.stderr.lines().filter(|line| line.starts_with("store:")).collect();
    assert_eq!(said.len(), 1, "which store it is, is said in one line: {}", finished.stderr);
    let state = home.path().join("state").to_string_lossy().into_owned();
    assert!(said[0].contains(&state), "the file is in the user's state folder: {said:?}");
    drop(worker);
    Ok(())
}
