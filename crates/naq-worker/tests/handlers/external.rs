//! Programs, HTTP servers and NATS services as handlers: the first against real processes and sockets.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use naq_models::Verdict;
use naq_services::JobContext;
use naq_worker::{
    ErasedHandler,
    external::{ExternalErrorReason, ExternalSpec, Program},
};
use tokio::time::timeout;

mod exec;
mod http;
mod jsonl;
mod nats;

/// Far more than anything here takes; a test that waits longer hangs.
const LIMIT: Duration = Duration::from_secs(20);

fn program(argv: &[&str]) -> Program {
    Program { argv: argv.iter().map(ToString::to_string).collect(), ..Program::default() }
}

fn sh(script: &str) -> Program {
    program(&["sh", "-c", script])
}

fn build(spec: ExternalSpec) -> Arc<dyn ErasedHandler> {
    spec.build("ext", None, None).unwrap()
}

fn refused(spec: ExternalSpec) -> ExternalErrorReason {
    match spec.build("ext", None, None) {
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
    assert_eq!(refused(ExternalSpec::Exec(program(&[]))), ExternalErrorReason::NoProgram);
    assert_eq!(refused(ExternalSpec::Exec(program(&[""]))), ExternalErrorReason::NoProgram);
    for processes in [0, 1025] {
        let spec = ExternalSpec::Jsonl { program: sh("cat"), processes };
        assert_eq!(refused(spec), ExternalErrorReason::Processes(processes));
    }
    for url in ["example.com/x", "ftp://example.com", "", "http://"] {
        let spec = ExternalSpec::Http { url: url.into(), method: "POST".into() };
        assert!(matches!(refused(spec), ExternalErrorReason::Url { .. }), "{url}");
    }
    let spec = ExternalSpec::Http { url: "http://localhost".into(), method: "PO ST".into() };
    assert!(matches!(refused(spec), ExternalErrorReason::Method(_)));
    for subject in ["", "a..b", "a.*", ">", "a b"] {
        let spec = ExternalSpec::Nats { subject: subject.into() };
        assert!(matches!(refused(spec), ExternalErrorReason::Subject(_)), "{subject}");
    }
    assert_eq!(refused(ExternalSpec::Nats { subject: "svc.x".into() }), ExternalErrorReason::NoConnection);
    assert_eq!(build(ExternalSpec::Exec(sh("true"))).kind(), "ext");
}
