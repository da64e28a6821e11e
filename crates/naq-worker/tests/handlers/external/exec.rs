//! `exec`: real `sh` and `python3` children.

use std::{collections::BTreeMap, time::Duration};

use naq_config::{ExecHandler, HandlerConfig, Secret};
use naq_models::{RawJson, Verdict, error_type};
use naq_worker::external::STDERR_TAIL;
use serde_json::json;

use super::{build, cancel_when, exec, gone, line_of, program, run, sh};
use crate::{
    no_store::MAX_BODY,
    support::{context, error, failure, job, value},
};

#[tokio::test]
async fn arguments_are_one_line_and_the_result_is_json() {
    // `read` fails on input without a line end; `cat` shows whether anything follows.
    let handler = exec(r#"IFS= read -r line || exit 9; rest=$(cat); printf '{"got":%s,"rest":"%s"}' "$line" "$rest""#);
    let mut given = job("ext", json!({}));
    given.args = RawJson::parse("{ \"a\":\n [1, \"x y\"] }").unwrap();
    assert_eq!(value(handler.call(context(given)).await), json!({"got": {"a": [1, "x y"]}, "rest": ""}));
}

#[tokio::test]
async fn python_reads_and_writes() {
    let script = "import json,sys; a=json.load(sys.stdin); print(json.dumps({'sum': sum(a)}))";
    let handler = build(HandlerConfig::Exec(program(&["python3", "-c", script])));
    assert_eq!(value(run(&handler, json!([1, 2, 3])).await), json!({"sum": 6}));
}

#[tokio::test]
async fn text_is_a_string_and_nothing_is_null() {
    assert_eq!(value(run(&exec("echo all done"), json!({})).await), json!("all done"));
    assert_eq!(value(run(&exec("true"), json!({})).await), json!(null));
}

#[tokio::test]
async fn the_environment_says_what_runs() {
    let mut cx = job("ext", json!({}));
    cx.attempt = 3;
    let dir = tempfile::tempdir().unwrap();
    let spec = ExecHandler {
        env: BTreeMap::from([("EXTRA".to_owned(), Secret::new("more"))]),
        cwd: Some(dir.path().to_owned()),
        ..sh(r#"echo "$NAQ_JOB_ID $NAQ_KIND $NAQ_QUEUE $NAQ_ATTEMPT $EXTRA ${PATH:+inherited} $(pwd)""#)
    };
    let verdict = build(HandlerConfig::Exec(spec)).call(context(cx)).await;
    let cwd = dir.path().canonicalize().unwrap();
    assert_eq!(value(verdict), json!(format!("job-1 ext default 3 more inherited {}", cwd.display())));
}

#[tokio::test]
async fn the_exit_status_decides() {
    let died = error(run(&exec("echo one >&2; echo the reason >&2; exit 3"), json!({})).await);
    assert_eq!((died.error_type.as_str(), died.is_retryable), ("exit_3", true));
    assert!(died.message.ends_with("exited with status 3: the reason"), "{}", died.message);
    assert_eq!(died.backtrace.as_deref(), Some("one\nthe reason"));
    let Verdict::Retry { after: None, error: busy } = run(&exec("exit 75"), json!({})).await else { panic!() };
    assert_eq!(busy.error_type, "exit_75");
    let bad = failure(run(&exec("exit 65"), json!({})).await);
    assert_eq!((bad.error_type.as_str(), bad.is_retryable), ("exit_65", false));
    assert_eq!(error(run(&exec("kill -9 $$"), json!({})).await).error_type, "signal_9");
    let missing = build(HandlerConfig::Exec(program(&["/no/such/program"])));
    assert_eq!(error(run(&missing, json!({})).await).error_type, "spawn");
}

#[tokio::test]
async fn only_the_tail_of_stderr_is_kept() {
    let handler = exec("i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1");
    let tail = error(run(&handler, json!({})).await).backtrace.unwrap();
    assert!(tail.len() <= STDERR_TAIL && tail.ends_with("line 2999"), "{} bytes", tail.len());
}

#[tokio::test]
async fn a_child_that_does_not_read_is_no_error() {
    let big = json!({"text": "x".repeat(1 << 20)});
    assert_eq!(value(run(&exec("exec <&-; echo closed"), big.clone()).await), json!("closed"));
    assert_eq!(value(run(&exec("exit 0"), big.clone()).await), json!(null));
    assert_eq!(value(run(&exec("head -c 10 >/dev/null; echo some"), big).await), json!("some"));
}

#[tokio::test]
async fn endless_output_ends_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let handler = exec(&format!("echo $$ > {}; exec yes", pid.display()));
    assert_eq!(failure(run(&handler, json!({})).await).error_type, error_type::RESULT_TOO_LARGE);
    gone(&line_of(&pid).await).await;
    let most = exec(&format!("head -c {} /dev/zero | tr '\\0' x", MAX_BODY));
    assert_eq!(value(run(&most, json!({})).await).as_str().unwrap().len(), MAX_BODY);
}

#[tokio::test]
async fn cancelling_ends_the_whole_group_with_a_chance_to_tidy_up() {
    let dir = tempfile::tempdir().unwrap();
    let (child, tidied) = (dir.path().join("child"), dir.path().join("tidied"));
    // The shell that the worker knows dies at once; its child hears the signal, too, and takes its time.
    let inner = format!(
        "trap 'sleep 0.1; echo tidying >&2; echo yes > {}; exit' TERM; echo $$ > {}; while :; do sleep 0.05; done",
        tidied.display(),
        child.display()
    );
    let handler = exec(&format!("sh -c \"{}\" & wait", inner.replace("$$", "\\$\\$")));
    let verdict = cancel_when(&handler, context(job("ext", json!({}))), async { drop(line_of(&child).await) }).await;
    assert_eq!(error(verdict).error_type, "interrupted");
    gone(&line_of(&child).await).await;
    assert_eq!(line_of(&tidied).await, "yes");
}

#[tokio::test]
async fn what_ignores_sigterm_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let child = dir.path().join("child");
    let handler = exec(&format!(
        "trap '' TERM; (echo started > /dev/null; sh -c 'echo $$ > {}; sleep 1000') & wait",
        child.display()
    ));
    let verdict = cancel_when(&handler, context(job("ext", json!({}))), async { drop(line_of(&child).await) }).await;
    assert_eq!(error(verdict).error_type, "interrupted");
    gone(&line_of(&child).await).await;
}

#[tokio::test]
async fn dropping_the_run_kills_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let (child, grandchild) = (dir.path().join("child"), dir.path().join("grandchild"));
    let handler =
        exec(&format!("sh -c 'echo $$ > {}; sleep 1000' & echo $$ > {}; wait", grandchild.display(), child.display()));
    let running = handler.call(context(job("ext", json!({}))));
    tokio::select! {
        verdict = running => panic!("ended: {verdict:?}"),
        _ = async { line_of(&child).await; line_of(&grandchild).await } => {}
    }
    gone(&line_of(&child).await).await;
    gone(&line_of(&grandchild).await).await;
}

#[tokio::test]
async fn what_is_left_running_ends_with_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("left");
    // It holds stdout open: without an end of the group the job would last as long as it.
    let handler = exec(&format!("sleep 1000 & echo $! > {}; echo done", left.display()));
    assert_eq!(value(run(&handler, json!({})).await), json!("done"));
    gone(&line_of(&left).await).await;
}

#[tokio::test]
async fn what_left_the_group_does_not_hold_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let away = dir.path().join("away");
    let handler = exec(&format!(
        "setsid sh -c 'echo $$ > {}; exec sleep 15' & while ! [ -s {0} ]; do sleep 0.01; done; echo done",
        away.display()
    ));
    let start = std::time::Instant::now();
    assert_eq!(value(run(&handler, json!({})).await), json!("done"));
    assert!(start.elapsed() < Duration::from_secs(10));
    let pid = rustix::process::Pid::from_raw(line_of(&away).await.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn many_at_once_do_not_mix() {
    let handler = exec(r#"read -r line; printf '%s' "$line""#);
    let runs = (0..20).map(|n| {
        let handler = handler.clone();
        async move { value(run(&handler, json!([n])).await) }
    });
    let results = futures_util::future::join_all(runs).await;
    assert_eq!(results, (0..20).map(|n| json!([n])).collect::<Vec<_>>());
}
