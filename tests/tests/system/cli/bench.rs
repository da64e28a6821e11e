//! `naq bench` on every store: the report field by field, and that nothing of it is left and nothing of the user's is touched.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{NaqProcess, ServerVersion, Signal, eventually};
use serde_json::{Value, json};

use super::assert_fields;
use crate::site::{Backend, COMMAND_LIMIT, Site, on_every_server, on_every_store};

/// For a few dozen jobs of every question, on a machine that does other things too.
const BENCH_LIMIT: Duration = Duration::from_secs(150);
/// What every question needs at least.
const TINY: [&str; 4] = ["--quick", "--jobs", "40", "--json"];
/// Every question, in the order in which it is answered.
const QUESTIONS: [&str; 15] = [
    "enqueue",
    "run",
    "mixed",
    "latency",
    "payload",
    "queues",
    "depth",
    "delayed",
    "retries",
    "dependants",
    "unique",
    "startup",
    "idle",
    "memory",
    "recovery",
];

on_every_store!(
    every_question_is_answered_and_nothing_is_left,
    a_stopped_run_leaves_nothing,
    what_a_killed_run_left_is_named_and_removed,
);

/// What is in the store that a bench could have made: files beside the store's, or streams.
async fn grounds(site: &Site) -> Result<BTreeSet<String>> {
    let names: Vec<String> = if site.server.is_some() {
        let answer = site.raw().await?.request_json("$JS.API.STREAM.NAMES", &Value::Null).await?;
        serde_json::from_value(answer["streams"].clone()).unwrap_or_default()
    } else {
        let names = fs::read_dir(site.dir())?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<Result<_>>()?
    };
    Ok(names.into_iter().filter(|name| name.contains("naqbench")).collect())
}

/// Jobs of the user's, in the states in which a careless bench could find them.
async fn a_user(site: &Site) -> Result<Vec<Value>> {
    site.enqueue("naq.noop", &json!({}), &["--job-id", "waits"]).await?;
    site.enqueue("naq.noop", &json!({}), &["--job-id", "later", "--delay", "1h", "--queue", "bench"]).await?;
    statuses(site).await
}

async fn statuses(site: &Site) -> Result<Vec<Value>> {
    Ok(vec![site.json(&["job", "status", "waits"]).await?, site.json(&["job", "status", "later"]).await?])
}

#[track_caller]
fn assert_row(row: &Value) {
    assert_fields(row, &["question", "what", "at", "setup", "found"]);
    assert!(row["what"].as_str().is_some_and(|what| !what.contains(|c: char| c.is_ascii_digit())), "{row}");
    if !row["at"].is_null() {
        assert_fields(&row["at"], &["name", "value"]);
    }
    let (kind, found) = row["found"].as_object().and_then(|found| found.iter().next()).expect("something was found");
    let number = |field: &str| found[field].as_f64().unwrap_or_else(|| panic!("{field} is no number: {row}"));
    match kind.as_str() {
        "rate" => {
            assert_fields(found, &["per_s", "low", "high", "rounds"]);
            assert!(
                0.0 < number("low") && number("low") <= number("per_s") && number("per_s") <= number("high"),
                "{row}"
            );
            assert_eq!(found["rounds"], 1, "{row}");
        }
        "latency" => {
            assert_fields(found, &["p50_ms", "p99_ms", "p999_ms", "max_ms", "samples", "offered_per_s"]);
            assert!(0.0 < number("max_ms") && number("p50_ms") <= number("p99_ms"), "{row}");
            assert!(0.0 < number("samples") && 0.0 < number("offered_per_s"), "{row}");
        }
        "amount" => {
            assert_fields(found, &["value", "unit"]);
            assert!(["MiB", "ms", "s", "% of one core"].contains(&found["unit"].as_str().unwrap_or_default()), "{row}");
        }
        other => panic!("{other} is not documented: {row}"),
    }
}

async fn every_question_is_answered_and_nothing_is_left(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let before = a_user(&site).await?;
    let finished = site.naq()?.run(&[&["bench", "--all"][..], &TINY].concat(), BENCH_LIMIT).await?;
    ensure!(finished.code() == Some(0), "{finished:#?}");
    let report = finished.json()?;
    assert_fields(&report, &["naq", "store", "rows", "skipped"]);
    assert_fields(&report["store"], &["kind", "version", "durability"]);
    let (kind, version) = match backend {
        Backend::Sqlite => ("sqlite", "SQLite 3."),
        Backend::Nats(ServerVersion::V2_9) => ("nats", "nats-server 2.9."),
        Backend::Nats(ServerVersion::V2_15) => ("nats", "nats-server 2.15."),
    };
    assert_eq!(report["store"]["kind"], kind);
    assert!(report["store"]["version"].as_str().is_some_and(|said| said.starts_with(version)), "{report}");
    assert_eq!(report["skipped"], json!([]));
    let rows = report["rows"].as_array().context("rows")?;
    rows.iter().for_each(assert_row);
    let mut asked: Vec<&str> = rows.iter().filter_map(|row| row["question"].as_str()).collect();
    asked.dedup();
    assert_eq!(asked, QUESTIONS);
    let recovery = rows.last().context("no row")?;
    assert!(recovery["found"]["amount"]["value"].as_f64().is_some_and(|s| (1.0..20.0).contains(&s)), "{recovery}");

    assert_eq!(grounds(&site).await?, BTreeSet::new());
    assert_eq!(statuses(&site).await?, before);
    assert_eq!(site.json(&["worker", "list"]).await?, json!([]), "a worker of the bench is in the user's list");
    Ok(())
}

/// Starts a run that takes long, and returns when jobs enter its ground. The first ground of a run is only looked at.
async fn long_run(site: &Site) -> Result<NaqProcess> {
    const LOOKED_AT: u64 = 1 << 20;
    let running = site.naq()?.spawn(&["bench", "run", "--jobs", "1000000"])?;
    let in_use = |name: &String| match site.server {
        Some(_) => name.contains("_queue_"),
        None => fs::metadata(site.dir().join(name)).is_ok_and(|file| file.len() > LOOKED_AT),
    };
    eventually(COMMAND_LIMIT, "jobs enter the ground of the bench", async || {
        grounds(site).await.ok()?.iter().any(in_use).then_some(())
    })
    .await?;
    Ok(running)
}

/// The grounds once they have ceased to change: what a killed run had asked for is still made after its end.
async fn settled(site: &Site) -> Result<BTreeSet<String>> {
    const LOOKS: usize = 10;
    let (mut seen, mut looks) = (grounds(site).await?, 0);
    eventually(COMMAND_LIMIT, "the grounds are settled", async || {
        let now = grounds(site).await.ok()?;
        looks = if now == seen { looks + 1 } else { 0 };
        seen = now;
        (looks >= LOOKS).then(|| seen.clone())
    })
    .await
}

async fn a_stopped_run_leaves_nothing(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let before = a_user(&site).await?;
    let running = long_run(&site).await?;
    running.signal(Signal::INT)?;
    let stopped = running.wait(COMMAND_LIMIT).await?;
    assert_eq!((stopped.code(), stopped.stdout.as_str()), (Some(1), ""), "{stopped:#?}");
    assert_eq!(grounds(&site).await?, BTreeSet::new());
    assert_eq!(statuses(&site).await?, before);
    Ok(())
}

async fn what_a_killed_run_left_is_named_and_removed(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let before = a_user(&site).await?;
    let mut running = long_run(&site).await?;
    running.kill().await?;
    let left = settled(&site).await?;
    let nothing = || format!("nothing was left of a run that said: {}", running.stderr());
    let name: String = left.first().with_context(nothing)?.replace("KV_", "").chars().take(16).collect();

    let next = site.naq()?.run(&[&["bench", "enqueue"][..], &TINY].concat(), BENCH_LIMIT).await?;
    assert_eq!(next.code(), Some(0), "{next:#?}");
    assert!(next.stderr.contains(&name) && next.stderr.contains("--clean"), "{}", next.stderr);
    assert_eq!(grounds(&site).await?, left, "it was not asked to remove them");

    let cleaned = site.json(&["bench", "--clean"]).await?;
    assert_fields(&cleaned, &["removed"]);
    let removed = cleaned["removed"].as_array().context("removed")?;
    assert!(removed.len() == 1 && removed[0].as_str().is_some_and(|said| said.contains(&name)), "{cleaned}");
    assert_eq!(grounds(&site).await?, BTreeSet::new());
    assert_eq!(statuses(&site).await?, before);
    assert_eq!(site.json(&["bench", "--clean"]).await?, json!({"removed": []}));
    Ok(())
}

on_every_server!(a_stream_that_may_not_be_made_is_named);

async fn a_stream_that_may_not_be_made_is_named(version: ServerVersion) -> Result<()> {
    // It may look at everything and make nothing.
    let extra = r#"authorization { users: [{ user: u, password: p, permissions: { publish: { allow: [
        "$JS.API.INFO", "$JS.API.STREAM.INFO.>", "$JS.API.STREAM.NAMES", "_INBOX.>"] } } }] }"#;
    let options = naq_tests::NatsOptions { extra: extra.to_owned(), ..naq_tests::NatsOptions::default() };
    let mut site = Site::on_server(version, options).await?;
    site.set("NAQ_NATS__AUTH__USER", "u");
    site.set("NAQ_NATS__AUTH__PASSWORD", "p");
    let refused = site.naq()?.run(&[&["bench", "enqueue"][..], &TINY].concat(), BENCH_LIMIT).await?;
    assert_ne!(refused.code(), Some(0), "{refused:#?}");
    let error = refused.stderr.lines().find(|line| line.starts_with("error")).unwrap_or_default();
    assert!(error.contains("stream KV_naqbench") || error.contains("stream naqbench"), "{}", refused.stderr);
    Ok(())
}

#[tokio::test]
async fn what_is_in_memory_skips_the_questions_of_processes() -> Result<()> {
    let mut site = Site::start(Backend::Sqlite).await?;
    site.url = "memory://".to_owned();
    let words = ["bench", "unique", "startup", "idle", "memory", "recovery"];
    let finished = site.naq()?.run(&[&words[..], &TINY].concat(), BENCH_LIMIT).await?;
    assert_eq!(finished.code(), Some(0), "{finished:#?}");
    let report = finished.json()?;
    let questions = |of: &str| -> Vec<Value> {
        report[of].as_array().into_iter().flatten().map(|entry| entry["question"].clone()).collect()
    };
    assert_eq!(questions("rows"), ["unique"]);
    assert_eq!(questions("skipped"), words[2..]);
    report["skipped"].as_array().into_iter().flatten().for_each(|entry| assert_fields(entry, &["question", "why"]));
    Ok(())
}

#[tokio::test]
async fn wrong_words_and_stores_that_do_not_answer_have_the_usual_exit_codes() -> Result<()> {
    let mut site = Site::start(Backend::Sqlite).await?;
    let wrong = site.naq()?.run(&["bench", "enqeue"], COMMAND_LIMIT).await?;
    assert_eq!(wrong.code(), Some(2), "{wrong:#?}");
    assert!(wrong.stderr.contains("'enqueue'"), "{}", wrong.stderr);
    let both = site.naq()?.run(&["bench", "enqueue", "--all"], COMMAND_LIMIT).await?;
    assert_eq!(both.code(), Some(2), "{both:#?}");
    let orders = r#"{"ground":"jobs","role":"run","slots":1}"#;
    let posing = site.naq()?.run(&["bench", "--as-worker", orders], COMMAND_LIMIT).await?;
    assert_eq!(posing.code(), Some(2), "it serves no store but its own: {posing:#?}");
    site.url = "nats://127.0.0.1:1".to_owned();
    assert_eq!(site.naq()?.run(&["bench", "enqueue"], COMMAND_LIMIT).await?.code(), Some(4));
    Ok(())
}
