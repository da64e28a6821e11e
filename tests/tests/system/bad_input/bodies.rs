//! Bodies that are no jobs, and jobs and results that are too large.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{RawNats, ServerVersion};
use serde_json::{Value, json};

use super::{assert_no_panic, assert_refused};
use crate::{
    python,
    site::{Backend, COMMAND_LIMIT, Site, on_every_server, on_every_store},
};

const FIVE_MIB: usize = 5 << 20;

/// Bytes that are no job, each under an id.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let deep = format!(r#"{{"v":1,"kind":"naq.echo","args":{{}},"unique":{}"#, "[".repeat(20_000));
    vec![
        ("text", b"hello".to_vec()),
        ("empty-object", b"{}".to_vec()),
        ("truncated", br#"{"v":1,"kind":"naq.echo","args":{"a":"#.to_vec()),
        ("no-kind", br#"{"v":1,"args":{}}"#.to_vec()),
        ("args-are-text", br#"{"v":1,"kind":"naq.echo","args":"x"}"#.to_vec()),
        ("version-99", br#"{"v":99,"kind":"naq.echo","args":{}}"#.to_vec()),
        ("attempt-is-text", br#"{"v":1,"kind":"naq.echo","args":{},"attempt":"one"}"#.to_vec()),
        ("not-utf-8", vec![0xff, 0xfe, 0x00, 0x80]),
        ("zero", vec![0]),
        ("broken-bincode", vec![0x01, 0xde, 0xad, 0xbe, 0xef]),
        ("huge-bincode-length", [&[0x01, 0xfd][..], &[0xff; 8]].concat()),
        ("deep", deep.into_bytes()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_characters_of_a_job_do_not_reach_a_terminal() -> Result<()> {
    let site = Site::start(Backend::Sqlite).await?;
    let message = "\u{1b}[2J\u{1b}]0;owned\u{7}gone\u{9b}5A";
    site.enqueue("t.panic", &json!({ "message": message }), &["--job-id", "p", "--max-retries", "0"]).await?;
    site.burst(&[], COMMAND_LIMIT).await?;
    for args in [&["dead", "list"][..], &["dead", "show", "p"], &["job", "status", "p"], &["events", "history", "p"]] {
        let told = site.test_worker().run(args, COMMAND_LIMIT).await?;
        assert!(!told.stdout.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{args:?}: {:?}", told.stdout);
        assert!(told.stdout.contains("gone"), "{args:?}: {}", told.stdout);
    }
    let kept = site.json(&["job", "status", "p"]).await?["error"]["message"].to_string();
    assert!(
        kept.starts_with(serde_json::to_string(message)?.trim_end_matches('"')),
        "programs get it as it is: {kept}"
    );
    let waited = site.test_worker().run(&["job", "result", "p"], COMMAND_LIMIT).await?;
    let told = [waited.stdout, waited.stderr].concat();
    assert!(!told.contains('\u{1b}'), "{told:?}");
    Ok(())
}

on_every_server!(garbage_in_a_stream_becomes_dead_letters_byte_for_byte);

async fn garbage_in_a_stream_becomes_dead_letters_byte_for_byte(version: ServerVersion) -> Result<()> {
    let site = Site::start(Backend::Nats(version)).await?;
    site.enqueue("naq.echo", &json!({}), &["--job-id", "good"]).await?;
    let mut nats = site.raw().await?;
    let mut bodies = garbage();
    // On a server a body can be empty, and an id can be one that naq would not take.
    bodies.push(("empty", Vec::new()));
    bodies.push(("not$an~id", b"no job either".to_vec()));
    for (id, body) in &bodies {
        let ack: Value = serde_json::from_slice(&nats.request(&format!("naq.queue.default.2.{id}"), body).await?)?;
        assert!(ack["error"].is_null(), "{id}: {ack}");
    }
    // The place of a message is right where it contradicts what the message says.
    let liar = json!({"v": 1, "id": "good", "queue": "other", "kind": "naq.echo", "args": {"n": 1}});
    nats.request_json("naq.queue.default.1.liar", &liar).await?;

    let worker = site.burst(&[], Duration::from_secs(60)).await?;
    assert_no_panic(&worker);
    let letters = dead_bodies(&mut nats).await?;
    for (id, body) in &bodies {
        assert!(letters.contains(body), "the body of {id} is not among the dead letters as it was");
    }
    assert_eq!(letters.len(), bodies.len());
    check_letters(&site).await?;
    let liar = site.json(&["job", "result", "liar"]).await?;
    assert_eq!((&liar["status"], &liar["result"]), (&json!("completed"), &json!({"n": 1})));
    Ok(())
}

/// The bodies of all dead letters on the server.
async fn dead_bodies(nats: &mut RawNats) -> Result<BTreeSet<Vec<u8>>> {
    let info = nats.request_json("$JS.API.STREAM.INFO.naq_failed_jobs", &Value::Null).await?;
    let last = info["state"]["last_seq"].as_u64().context("a sequence")?;
    let mut bodies = BTreeSet::new();
    for seq in 1..=last {
        let got = nats.request_json("$JS.API.STREAM.MSG.GET.naq_failed_jobs", &json!({"seq": seq})).await?;
        bodies.insert(base64(got["message"]["data"].as_str().unwrap_or_default())?);
    }
    Ok(bodies)
}

fn base64(text: &str) -> Result<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for digit in text.bytes().filter(|byte| *byte != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit).context("not base64")?;
        bits = bits << 6 | u32::try_from(value)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Ok(bytes)
}

/// Garbage is a failed job of type `decode`, can be listed and shown, and did not stop the good job.
async fn check_letters(site: &Site) -> Result<()> {
    let good = site.json(&["job", "result", "good"]).await?;
    assert_eq!(good["status"], "completed");
    let numbers = site.queue("default").await?;
    assert_eq!((&numbers["pending"], &numbers["running"]), (&json!(0), &json!(0)), "{numbers}");
    let letters = site.json(&["dead", "list"]).await?;
    for (id, _) in garbage() {
        let letter = letters.as_array().into_iter().flatten().find(|letter| letter["job_id"] == id);
        let letter = letter.with_context(|| format!("{id} is not among {letters}"))?;
        assert_eq!(
            (&letter["error"]["error_type"], &letter["error"]["is_retryable"]),
            (&json!("decode"), &json!(false))
        );
        site.json(&["dead", "show", id]).await?;
        let retry = site.run(&["dead", "retry", id]).await?;
        assert_refused(&retry, 1, &[id]);
    }
    Ok(())
}

/// SQLite takes no bytes from strangers, but a file can be damaged.
#[tokio::test]
async fn garbage_in_a_file_becomes_dead_letters_byte_for_byte() -> Result<()> {
    let site = Site::start(Backend::Sqlite).await?;
    site.enqueue("naq.echo", &json!({}), &["--job-id", "good"]).await?;
    for (id, body) in garbage() {
        site.enqueue("naq.echo", &json!({}), &["--job-id", id]).await?;
        fs::write(site.path(id), body)?;
    }
    let damage = "
import sqlite3, sys
db = sqlite3.connect('jobs.db')
for name in sys.argv[1:]:
    assert db.execute('UPDATE jobs SET body = ? WHERE id = ?', (open(name, 'rb').read(), name)).rowcount == 1
db.commit()";
    let ids: Vec<&str> = garbage().iter().map(|(id, _)| *id).collect();
    python::run(site.dir(), damage, &ids).await?;
    let worker = site.burst(&[], Duration::from_secs(60)).await?;
    assert_no_panic(&worker);
    let compare = "
import sqlite3, sys
db = sqlite3.connect('jobs.db')
for name in sys.argv[1:]:
    (body,) = db.execute('SELECT body FROM dead WHERE id = ?', (name,)).fetchone()
    assert body == open(name, 'rb').read(), name";
    python::run(site.dir(), compare, &ids).await?;
    check_letters(&site).await
}

on_every_store!(
    lines_that_are_no_envelopes_are_named_and_the_others_stored,
    a_payload_of_five_mib_is_refused,
    a_result_of_five_mib_fails_the_job,
    a_panic_is_a_failure_of_its_job_only
);

async fn lines_that_are_no_envelopes_are_named_and_the_others_stored(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let lines = [
        r#"{"v":1,"kind":"naq.echo","args":{"n":1}}"#,
        "not json",
        r#"{"v":1,"kind":"naq.echo","args":{"n":2},"queue":"a.b"}"#,
        r#"{"v":99,"kind":"naq.echo","args":{}}"#,
        r#"{"v":1,"kind":"naq.echo","args":{},"id":"../up"}"#,
        r#"{"v":1,"kind":"naq.echo","args":{},"priority":7}"#,
        r#"{"v":1,"kind":"","args":{}}"#,
        "",
        r#"{"v":1,"kind":"naq.echo","args":[1,2]}"#,
    ];
    let args = ["job", "enqueue", "--from", "-", "--output", "json"];
    let finished = site.naq()?.spawn_with_input(&args, lines.join("\n").as_bytes())?.wait(COMMAND_LIMIT).await?;
    assert_refused(&finished, 1, &["line 2", "line 3", "line 4", "line 5", "line 6", "line 7"]);
    assert_eq!(finished.json()?, json!({"enqueued": 2, "duplicates": 0, "failed": 6}));
    assert_eq!(site.queue("default").await?["pending"], 2);
    Ok(())
}

async fn a_payload_of_five_mib_is_refused(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let payload = json!({"text": "x".repeat(FIVE_MIB)}).to_string();
    let args = ["job", "enqueue", "naq.echo", "--args", "-"];
    let finished = site.naq()?.spawn_with_input(&args, payload.as_bytes())?.wait(COMMAND_LIMIT).await?;
    // Which limit it was, and how large the job is.
    assert_refused(&finished, 1, &["max_payload", "5243129 bytes", "983040"]);
    assert_eq!(finished.stdout, "");
    ensure!(finished.stderr.len() < 2_000, "the payload is in the error");

    let nearly = json!({"text": "x".repeat(900 << 10)}).to_string();
    let finished = site.naq()?.spawn_with_input(&args, nearly.as_bytes())?.wait(COMMAND_LIMIT).await?;
    assert_eq!(finished.code(), Some(0), "{finished:#?}");
    assert_eq!(site.queue("default").await?["pending"], 1);
    Ok(())
}

async fn a_result_of_five_mib_fails_the_job(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    site.enqueue("t.big_result", &json!({"bytes": FIVE_MIB}), &["--job-id", "big"]).await?;
    site.enqueue("t.big_result", &json!({"bytes": 900 << 10}), &["--job-id", "fits"]).await?;
    let worker = site.burst(&[], COMMAND_LIMIT).await?;
    assert_no_panic(&worker);
    let result = site.run(&["job", "result", "big"]).await?;
    assert_eq!(result.code(), Some(1));
    let error = &result.json()?["error"];
    assert_eq!((&error["error_type"], &error["is_retryable"]), (&json!("result_too_large"), &json!(false)), "{error}");
    assert_eq!(site.json(&["job", "status", "big"]).await?["attempt"], 1, "it must not be tried again");
    let fits = site.json(&["job", "result", "fits"]).await?;
    assert_eq!(fits["result"].as_str().map(str::len), Some(900 << 10));
    Ok(())
}

async fn a_panic_is_a_failure_of_its_job_only(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let message = "oh no ".repeat(2_000);
    site.enqueue("t.panic", &json!({"message": message}), &["--job-id", "panics", "--max-retries", "0"]).await?;
    site.enqueue("naq.echo", &json!({"n": 1}), &["--job-id", "fine"]).await?;
    site.burst(&[], COMMAND_LIMIT).await?;
    let error = site.run(&["job", "result", "panics"]).await?.json()?["error"].clone();
    assert_eq!(error["error_type"], "panic");
    let kept = error["message"].as_str().context("a message")?;
    ensure!(kept.starts_with("oh no") && kept.len() <= 4 << 10, "the message has {} bytes", kept.len());
    assert_eq!(site.json(&["job", "result", "fine"]).await?["status"], "completed");
    Ok(())
}
