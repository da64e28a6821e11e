//! A producer that may enqueue and wants to do harm: to the worker's memory, its time, its shell, its secrets.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{NaqProcess, NatsOptions, ServerVersion};
use serde_json::{Value, json};

use super::assert_no_panic;
use crate::site::{Backend, COMMAND_LIMIT, Site, on_every_server, on_every_store};

on_every_server!(what_is_huge_hurts_no_worker);

/// What the server takes as one message.
const MESSAGE_MAX: usize = 32 << 20;
/// For a worker to get through all of it; it takes seconds.
const LIMIT: Duration = Duration::from_secs(120);
/// The most memory that the worker may ever have held: a few times the largest message, and the worker itself.
const HELD_MAX_KIB: u64 = 600 << 10;

/// Bodies that take time or memory from whoever reads them carelessly, each under an id.
fn huge() -> Vec<(&'static str, String)> {
    let meta: Vec<String> = (0..1_000_000).map(|number| format!("\"k{number}\":{number}")).collect();
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let job = |rest: &str| format!(r#"{{"v":1,"kind":"naq.echo",{rest}}}"#);
    vec![
        ("meta-keys", job(&format!(r#""args":{{}},"meta":{{{}}}"#, meta.join(",")))),
        ("same-key", job(&format!(r#""args":{{}},"meta":{{{}}}"#, vec![r#""k":1"#; 1_000_000].join(",")))),
        ("deep-args", job(&format!(r#""args":{}"#, nested(500_000)))),
        ("deep-meta", job(&format!(r#""args":{{}},"meta":{{"a":{}}}"#, nested(500_000)))),
        ("long-number", job(&format!(r#""args":[{}]"#, "9".repeat(5_000_000)))),
        ("high-number", job(r#""args":[1e999999999]"#)),
        ("long-text", job(&format!(r#""args":["{}"]"#, "\\u0041".repeat(1_000_000)))),
        ("long-kind", format!(r#"{{"v":1,"kind":"{}","args":{{}}}}"#, "k".repeat(5_000_000))),
        ("many-parents", job(&format!(r#""args":{{}},"depends_on":[{}]"#, vec![r#""p""#; 1_000_000].join(",")))),
        ("high-attempt", job(r#""args":{},"attempt":4294967295,"max_retries":4294967295"#)),
        ("long-delay", job(r#""args":{},"retry_delay":1e308,"timeout":1e308,"result_ttl":1e308"#)),
        ("many-delays", job(&format!(r#""args":{{}},"retry_delay":[{}1]"#, "1,".repeat(1_000_000)))),
    ]
}

async fn what_is_huge_hurts_no_worker(version: ServerVersion) -> Result<()> {
    let options = NatsOptions { max_payload: Some(u32::try_from(MESSAGE_MAX)?), ..NatsOptions::default() };
    let site = Site::on_server(version, options).await?;
    let worker = site.worker("victim", &[]).await?;
    let mut nats = site.raw().await?;
    for (id, body) in huge() {
        let ack = nats.request(&format!("naq.queue.default.2.{id}"), body.as_bytes()).await?;
        let ack: Value = serde_json::from_slice(&ack)?;
        ensure!(ack["error"].is_null(), "{id}: {ack}");
    }
    site.enqueue("naq.echo", &json!([1]), &["--job-id", "good"]).await?;
    let drained = site.drained("default", LIMIT).await;
    drained.with_context(|| worker.stderr().chars().take(20_000).collect::<String>())?;
    assert_eq!(site.json(&["job", "result", "good"]).await?["status"], "completed");
    for (id, _) in huge() {
        let status = site.json(&["job", "status", id]).await?;
        let ended = ["completed", "failed"].iter().any(|end| status["status"] == *end);
        ensure!(ended, "{id} is neither done nor a dead letter: {}", cut(&status));
    }
    let held = most_held(&worker)?;
    ensure!(held < HELD_MAX_KIB, "the worker held {held} KiB");
    worker.signal(naq_tests::Signal::TERM)?;
    let finished = worker.wait(COMMAND_LIMIT).await?;
    assert_eq!(finished.code(), Some(0));
    assert_no_panic(&finished);
    ensure!(finished.stderr.len() < 1 << 20, "it wrote {} bytes to its log", finished.stderr.len());
    Ok(())
}

fn cut(value: &Value) -> String {
    value.to_string().chars().take(300).collect()
}

/// The most memory that a process ever held, KiB.
fn most_held(process: &NaqProcess) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

on_every_store!(nothing_of_a_payload_reaches_a_shell);

/// Text that does something wherever a shell reads it.
const INJECTED: &str = "'\"; touch injected; $(touch injected) `touch injected` | touch injected &\n touch injected #";

async fn nothing_of_a_payload_reaches_a_shell(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    // The command line and the variables of the program.
    let look = r#"["sh", "-c", "tr '\\0' ' ' < /proc/$$/cmdline; tr '\\0' ' ' < /proc/$$/environ"]"#;
    fs::write(site.path("naq.yaml"), format!("handlers:\n  look: {{ exec: {look} }}\n"))?;
    let _worker = site.worker_of(&site.naq()?, "external", &[]).await?;
    let body = json!({"v": 1, "kind": "look", "args": {INJECTED: INJECTED}, "max_retries": 0,
        "meta": {INJECTED: INJECTED, "correlation_id": INJECTED, "traceparent": INJECTED, "PATH": INJECTED}});
    site.enqueue_all([crate::site::with(body, json!({"id": "mean"}))]).await?;
    site.drained("default", COMMAND_LIMIT).await?;
    let told = site.json(&["job", "result", "mean"]).await?;
    assert_eq!(told["status"], "completed", "{told}");
    let told = told["result"].as_str().context("a text")?;
    ensure!(told.contains("NAQ_JOB_ID=mean"), "{told}");
    // The only text of a producer's choice that a program finds among its variables: one line of at most 256 characters.
    let (before, _) = told.split_once("NAQ_CORRELATION_ID=").context("a correlation id")?;
    ensure!(!before.contains("touch injected"), "the program was told: {told}");
    ensure!(told.matches("touch injected").count() == INJECTED.matches("touch injected").count(), "{told}");
    ensure!(!site.path("injected").exists(), "a shell did what a payload says");
    Ok(())
}

/// What only a worker may know.
const SECRETS: [&str; 3] = ["pw-4711-secret", "env-4711-secret", "url-4711-secret"];

/// With everything logged that can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_stay_in_the_worker() -> Result<()> {
    let [password, of_program, of_url] = SECRETS;
    let extra = format!("authorization {{ user: naq, password: {password} }}");
    let options = NatsOptions { extra, ..NatsOptions::default() };
    let mut site = Site::on_server(ServerVersion::V2_15, options).await?;
    site.set("NAQ_NATS__AUTH__USER", "naq");
    site.set("NAQ_NATS__AUTH__PASSWORD", password);
    site.set("OF_URL", of_url);
    site.set("OF_PROGRAM", of_program);
    let handlers = "handlers:\n  \
        program: { exec: [\"sh\", \"-c\", \"echo no >&2; exit 65\"], env: { TOKEN: \"${OF_PROGRAM}\" } }\n  \
        endpoint: { http: \"http://user:${OF_URL}@127.0.0.1:9/\" }\n";
    fs::write(site.path("naq.yaml"), handlers)?;
    let loud = site.naq()?.env("RUST_LOG", "trace").env("NAQ_LOGGING__LEVEL", "trace");
    let worker = site.worker_of(&loud, "loud", &[]).await?;
    for kind in ["program", "endpoint"] {
        site.enqueue(kind, &json!({}), &["--job-id", kind, "--max-retries", "0"]).await?;
    }
    site.drained("default", COMMAND_LIMIT).await?;
    worker.signal(naq_tests::Signal::TERM)?;
    let mut said = worker.wait(COMMAND_LIMIT).await?.stderr;
    ensure!(said.contains("TRACE"), "the worker says all that it can");
    let looks: [&[&str]; 8] = [
        &["dead", "show", "program"],
        &["dead", "show", "endpoint"],
        &["job", "status", "program"],
        &["events", "history", "program"],
        &["events", "history", "endpoint"],
        &["worker", "list"],
        &["system", "config", "--show"],
        &["system", "doctor"],
    ];
    for look in looks {
        let told = loud.run(look, COMMAND_LIMIT).await?;
        said += &told.stdout;
        said += &told.stderr;
    }
    let wrong = loud.clone().env("NAQ_NATS__AUTH__PASSWORD", "guess-4711-secret");
    let refused = wrong.run(&["queue", "list"], COMMAND_LIMIT).await?;
    assert_ne!(refused.code(), Some(0));
    said += &refused.stderr;
    for secret in SECRETS.iter().chain(&["guess-4711-secret"]) {
        let place = said.lines().find(|line| line.contains(secret));
        ensure!(place.is_none(), "{secret} is told: {place:?}");
    }
    Ok(())
}
