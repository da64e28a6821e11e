//! Programs, HTTP servers and NATS services as handlers: the first against real processes and sockets.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use naq_config::{ExecHandler, ExecProtocol, HandlerConfig, HttpHandler, HttpMethod, NatsHandler, Url};
use naq_models::{Verdict, error_type};
use naq_services::JobContext;
use naq_worker::{
    ErasedHandler,
    external::{self, ExternalErrorReason},
};
use tokio::time::timeout;

mod exec;
mod http;
mod jsonl;
mod nats;

/// Far more than anything here takes; a test that waits longer hangs.
const LIMIT: Duration = Duration::from_secs(20);

fn program(argv: &[&str]) -> ExecHandler {
    ExecHandler {
        command: argv.iter().map(ToString::to_string).collect(),
        protocol: ExecProtocol::Once,
        env: BTreeMap::new(),
        cwd: None,
        timeout: None,
    }
}

fn sh(script: &str) -> ExecHandler {
    program(&["sh", "-c", script])
}

fn exec(script: &str) -> Arc<dyn ErasedHandler> {
    build(HandlerConfig::Exec(sh(script)))
}

fn jsonl(program: ExecHandler, processes: u32) -> HandlerConfig {
    HandlerConfig::Exec(ExecHandler { protocol: ExecProtocol::Jsonl { processes }, ..program })
}

fn http(url: &str, method: HttpMethod) -> HandlerConfig {
    HandlerConfig::Http(HttpHandler { url: Url::new(url), method, timeout: None })
}

fn nats(subject: &str) -> HandlerConfig {
    HandlerConfig::Nats(NatsHandler { subject: subject.into(), timeout: None })
}

fn build(config: HandlerConfig) -> Arc<dyn ErasedHandler> {
    external::handler("ext", &config, None).unwrap()
}

fn refused(config: HandlerConfig) -> ExternalErrorReason {
    match external::handler("ext", &config, None) {
        Ok(_) => panic!("built"),
        Err(error) => error.reason,
    }
}

async fn run(handler: &Arc<dyn ErasedHandler>, args: serde_json::Value) -> Verdict {
    timeout(LIMIT, crate::support::run(handler, args)).await.expect("the handler hangs")
}

/// Runs a job and cancels it when `ready` is done.
async fn cancel_when(handler: &Arc<dyn ErasedHandler>, cx: JobContext, ready: impl Future<Output = ()>) -> Verdict {
    let cancel = async {
        ready.await;
        cx.cancellation().cancel();
    };
    let (verdict, ()) = timeout(LIMIT, async { tokio::join!(handler.call(cx.clone()), cancel) }).await.unwrap();
    verdict
}

/// Waits until a program has written a complete line to a file, and reads it.
async fn line_of(path: &Path) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ if Instant::now() > deadline => panic!("{} was not written", path.display()),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Waits until a process is gone (or a zombie that nobody reaps, which runs no more).
async fn gone(pid: &str) {
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    let deadline = Instant::now() + LIMIT;
    while let Ok(text) = std::fs::read_to_string(&stat) {
        if text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')) {
            return;
        }
        assert!(Instant::now() < deadline, "process {pid} still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn declarations_that_cannot_work_are_refused() {
    assert_eq!(refused(HandlerConfig::Exec(program(&[]))), ExternalErrorReason::NoProgram);
    assert_eq!(refused(HandlerConfig::Exec(program(&[""]))), ExternalErrorReason::NoProgram);
    for processes in [0, 1025] {
        assert_eq!(refused(jsonl(sh("cat"), processes)), ExternalErrorReason::Processes(processes));
    }
    for url in ["example.com/x", "ftp://example.com", "", "http://"] {
        assert!(matches!(refused(http(url, HttpMethod::Post)), ExternalErrorReason::Url { .. }), "{url}");
    }
    for subject in ["", "a..b", "a.*", ">", "a b"] {
        assert!(matches!(refused(nats(subject)), ExternalErrorReason::Subject(_)), "{subject}");
    }
    assert_eq!(refused(nats("svc.x")), ExternalErrorReason::NoConnection);
    let url = refused(http("ftp://user:secret@example.com", HttpMethod::Post)).to_string();
    assert!(!url.contains("secret"), "{url}");
}

#[test]
fn a_configuration_is_its_handlers() {
    let declared = BTreeMap::from([
        ("resize".to_owned(), HandlerConfig::Exec(sh("true"))),
        ("notify".to_owned(), http("http://127.0.0.1:1/", HttpMethod::Post)),
    ]);
    let made = external::handlers(&declared, None).unwrap();
    assert_eq!(made.iter().map(|handler| handler.kind()).collect::<Vec<_>>(), ["notify", "resize"]);
    let broken = BTreeMap::from([("lost".to_owned(), nats("svc"))]);
    assert_eq!(external::handlers(&broken, None).map(|made| made.len()).unwrap_err().handler, "lost");
}

#[tokio::test]
async fn a_handlers_own_limit_ends_what_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("echo $$ > {}; exec sleep 1000", file.display());
    let slow = build(HandlerConfig::Exec(ExecHandler { timeout: Some(Duration::from_millis(500)), ..sh(&script) }));
    assert_eq!(crate::support::error(run(&slow, serde_json::json!({})).await).error_type, error_type::TIMEOUT);
    gone(&line_of(&file).await).await;
    let quick = build(HandlerConfig::Exec(ExecHandler { timeout: Some(LIMIT), ..sh("echo 1") }));
    assert_eq!(crate::support::value(run(&quick, serde_json::json!({})).await), 1);
}
