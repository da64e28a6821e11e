//! `jsonl`: real `python3` children that live longer than a job.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use naq_models::{JobId, RawJson, Verdict, error_type};
use naq_services::ProgressSlot;
use naq_worker::ErasedHandler;
use serde_json::json;

use super::{LIMIT, build, cancel_when, gone, jsonl, line_of, program, run};
use crate::support::{context, error, failure, job, value};

/// Answers each request as its arguments say.
const SERVICE: &str = r#"
import json, os, sys, time
def reply(**fields): print(json.dumps(fields), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    args, id = job["args"], job["id"]
    do = args.get("do", "pid")
    if "pid_file" in args:
        open(args["pid_file"], "w").write(f"{os.getpid()}\n")
    if do == "pid": reply(id=id, result=os.getpid())
    elif do == "request": reply(id=id, result=job)
    elif do == "null": reply(id=id, result=None)
    elif do == "error": reply(id=id, error={"type": "busy", "message": "later", "retry": args["retry"]})
    elif do == "die": print("last words", file=sys.stderr); sys.exit(3)
    elif do == "garbage": print("hello", flush=True)
    elif do == "wrong": reply(id="other", result=1)
    elif do == "twice": reply(id=id, result=os.getpid()); reply(id=id, result=os.getpid())
    elif do == "hang": time.sleep(1000)
    elif do == "huge": print("x" * 2_000_000, flush=True)
    elif do == "sleep": time.sleep(args["s"]); reply(id=id, result=os.getpid())
    elif do == "progress":
        reply(id=id, progress=0.25); reply(id=id, progress=0.5, message="half")
        reply(id=args.get("whose", id), progress=1); reply(id=id, result="done")
    elif do == "then_die": reply(id=id, result=os.getpid()); sys.exit(0)
"#;

fn service(processes: u32) -> Arc<dyn ErasedHandler> {
    build(jsonl(program(&["python3", "-u", "-c", SERVICE]), processes))
}

async fn pid(handler: &Arc<dyn ErasedHandler>) -> u64 {
    value(run(handler, json!({})).await).as_u64().unwrap()
}

#[tokio::test]
async fn a_process_answers_job_after_job() {
    let handler = service(2);
    let first = pid(&handler).await;
    for _ in 0..5 {
        assert_eq!(pid(&handler).await, first, "one at a time needs one process");
    }
    assert_eq!(value(run(&handler, json!({"do": "null"})).await), json!(null));
    handler.close().await;
    gone(&first.to_string()).await;
}

#[tokio::test]
async fn a_process_says_how_far_its_own_job_is() {
    let (handler, slot) = (service(1), ProgressSlot::default());
    let call = |args| handler.call(context(job("ext", args)).with_progress(slot.clone()));
    assert_eq!(value(call(json!({"do": "progress"})).await), json!("done"));
    assert_eq!(slot.newest(), Some((1.0, String::new())));
    let told = error(call(json!({"do": "progress", "whose": "other"})).await);
    assert_eq!((told.error_type.as_str(), slot.newest()), ("protocol", Some((0.5, "half".to_owned()))));
}

#[tokio::test]
async fn the_request_holds_what_the_protocol_says() {
    let mut given = job("ext", json!({}));
    given.args = RawJson::parse("{ \"do\" :\n \"request\" }").unwrap();
    given.attempt = 2;
    given.meta.insert("tenant".into(), RawJson::parse("\"acme\"").unwrap());
    let expected = json!({
        "id": "job-1", "kind": "ext", "args": {"do": "request"}, "attempt": 2, "meta": {"tenant": "acme"},
    });
    assert_eq!(value(service(1).call(context(given)).await), expected);
}

#[tokio::test]
async fn errors_say_whether_to_retry() {
    let handler = service(1);
    let before = pid(&handler).await;
    let busy = error(run(&handler, json!({"do": "error", "retry": true})).await);
    assert_eq!((busy.error_type.as_str(), busy.message.as_str()), ("busy", "later"));
    assert_eq!(failure(run(&handler, json!({"do": "error", "retry": false})).await).error_type, "busy");
    assert_eq!(pid(&handler).await, before, "an error reply is no reason to replace the process");
}

#[tokio::test]
async fn as_many_jobs_at_once_as_processes() {
    let handler = service(2);
    let jobs = (0..6).map(|_| run(&handler, json!({"do": "sleep", "s": 0.1})));
    let pids = futures_util::future::join_all(jobs).await.into_iter().map(value).collect::<Vec<_>>();
    let different = pids.iter().map(ToString::to_string).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(different.len(), 2, "{pids:?}");
}

#[tokio::test]
async fn a_broken_process_is_replaced() {
    let handler = service(1);
    for (request, error_type) in [
        (json!({"do": "die"}), "process_died"),
        (json!({"do": "garbage"}), "protocol"),
        (json!({"do": "wrong"}), "protocol"),
    ] {
        let before = pid(&handler).await;
        let told = error(run(&handler, request.clone()).await);
        assert_eq!(told.error_type, error_type, "{request}");
        if error_type == "process_died" {
            assert_eq!(told.backtrace.as_deref(), Some("last words"));
        }
        gone(&before.to_string()).await;
        assert_ne!(pid(&handler).await, before);
    }
    assert_eq!(failure(run(&handler, json!({"do": "huge"})).await).error_type, error_type::RESULT_TOO_LARGE);
    assert!(pid(&handler).await > 0);
}

#[tokio::test]
async fn an_answer_too_many_never_reaches_the_next_job() {
    let handler = service(1);
    value(run(&handler, json!({"do": "twice"})).await);
    let mut next = job("ext", json!({"do": "null"}));
    next.id = JobId::new("job-2").unwrap();
    // Whether the answer too many was seen in time decides between a fresh process and an error.
    match handler.call(context(next)).await {
        Verdict::Complete(json) => assert_eq!(json.get(), "null", "took the answer of another job"),
        other => assert_eq!(error(other).error_type, "protocol"),
    }
}

#[tokio::test]
async fn one_that_ended_while_idle_costs_no_attempt() {
    let handler = service(1);
    let first = value(run(&handler, json!({"do": "then_die"})).await).as_u64().unwrap();
    gone(&first.to_string()).await;
    assert_ne!(pid(&handler).await, first);
}

#[tokio::test]
async fn a_stuck_process_is_ended_and_replaced() {
    let handler = service(1);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let args = json!({"do": "hang", "pid_file": file});
    let verdict = cancel_when(&handler, context(job("ext", args)), async { drop(line_of(&file).await) }).await;
    assert_eq!(error(verdict).error_type, "interrupted");
    gone(&line_of(&file).await).await;
    assert!(pid(&handler).await > 0);
}

#[tokio::test]
async fn dropping_a_run_kills_its_process_and_frees_its_place() {
    let handler = service(1);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    tokio::select! {
        verdict = handler.call(context(job("ext", json!({"do": "hang", "pid_file": file})))) => panic!("{verdict:?}"),
        _ = line_of(&file) => {}
    }
    gone(&line_of(&file).await).await;
    assert!(pid(&handler).await > 0);
}

#[tokio::test]
async fn waiting_for_a_place_can_be_cancelled() {
    let handler = service(1);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let (first, second) =
        (context(job("ext", json!({"do": "hang", "pid_file": file}))), context(job("ext", json!({}))));
    let waiting = async {
        line_of(&file).await;
        let verdict = cancel_when(&handler, second, std::future::ready(())).await;
        first.cancellation().cancel();
        verdict
    };
    let (hung, waited) = tokio::join!(handler.call(first.clone()), waiting);
    assert_eq!((error(hung).error_type, error(waited).error_type), ("interrupted".into(), "interrupted".into()));
}

#[tokio::test]
async fn one_that_dies_at_once_is_started_with_growing_pauses() {
    let dir = tempfile::tempdir().unwrap();
    let starts = dir.path().join("starts");
    let handler = dying(&starts);
    let begin = Instant::now();
    for _ in 0..4 {
        assert_eq!(error(run(&handler, json!({})).await).error_type, "process_died");
    }
    // Pauses of 100, 200 and 400 ms stand between four starts.
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(700) && took < LIMIT, "{took:?}");
    assert_eq!(std::fs::read_to_string(&starts).unwrap().lines().count(), 4);
}

fn dying(starts: &Path) -> Arc<dyn ErasedHandler> {
    build(jsonl(super::sh(&format!("echo x >> {}; exit 1", starts.display())), 1))
}
