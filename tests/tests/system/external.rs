//! Handlers in other languages, declared in `naq.yaml` and run by the stock binary: programs, long-lived programs, HTTP, NATS.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{NaqProcess, ServerVersion, eventually};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::site::{Backend, COMMAND_LIMIT, Site, on_every_server, on_every_store};

on_every_store!(
    programs_run_once_per_job,
    a_stuck_program_is_ended_with_all_its_children,
    long_lived_programs_answer_line_by_line_and_are_replaced,
    http_endpoints_are_called
);

/// A stock worker over a site with these handlers.
async fn worker(site: &Site, handlers: &str) -> Result<NaqProcess> {
    fs::write(site.path("naq.yaml"), format!("handlers:\n{handlers}"))?;
    site.worker_of(&site.naq()?, "external", &["--concurrency", "8"]).await
}

/// Runs one job to its end: what `--wait` prints.
async fn run(site: &Site, kind: &str, args: &Value, flags: &[&str]) -> Result<Value> {
    let args = args.to_string();
    let command = [&["job", "enqueue", kind, "--args", &args, "--wait", "25s"], flags].concat();
    let finished = site.run(&command).await?;
    ensure!(matches!(finished.code(), Some(0 | 1)), "{finished:#?}");
    finished.json()
}

const ONCE: &str = r#"
  upper: { exec: ["python3", "upper.py"] }
  env: { exec: ["sh", "-c", 'printf "[\"%s\",\"%s\",\"%s\",\"%s\",\"%s\"]" $NAQ_JOB_ID $NAQ_KIND $NAQ_QUEUE $NAQ_ATTEMPT $COLOUR'], env: { COLOUR: "${COLOUR:red}" } }
  text: { exec: ["echo", "plain text"] }
  empty: { exec: ["true"] }
  later: { exec: ["sh", "-c", "test -e done && exit 0; touch done; echo not yet >&2; exit 75"] }
  data: { exec: ["sh", "-c", "echo this is no picture >&2; exit 65"] }
  other: { exec: ["sh", "-c", "exit 3"] }
  absent: { exec: ["./there-is-no-such-program"] }
"#;

async fn programs_run_once_per_job(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let upper = "import json, sys\nline = sys.stdin.readline()\nassert line.endswith('\\n')\n\
                 print(json.dumps({'text': json.loads(line)['text'].upper()}))";
    fs::write(site.path("upper.py"), upper)?;
    let _worker = worker(&site, ONCE).await?;
    assert_eq!(run(&site, "upper", &json!({"text": "größe\n"}), &[]).await?["result"], json!({"text": "GRÖSSE\n"}));
    let env = run(&site, "env", &json!({}), &["--job-id", "e1"]).await?;
    assert_eq!(env["result"], json!(["e1", "env", "default", "1", "red"]));
    assert_eq!(run(&site, "text", &json!({}), &[]).await?["result"], "plain text\n".trim_end());
    assert_eq!(run(&site, "empty", &json!({}), &[]).await?["result"], Value::Null);

    let later = run(&site, "later", &json!({}), &["--job-id", "l1", "--retry-delay", "100ms"]).await?;
    assert_eq!(later["status"], "completed");
    assert_eq!(site.json(&["job", "status", "l1"]).await?["attempt"], 2);
    let data = run(&site, "data", &json!({}), &["--job-id", "d1", "--retry-delay", "100ms"]).await?;
    assert_eq!(data["status"], "failed");
    assert!(data["error"].to_string().contains("this is no picture"), "stderr is kept with the error: {data}");
    assert_eq!(site.json(&["job", "status", "d1"]).await?["attempt"], 1, "65 is not tried again");
    let other =
        run(&site, "other", &json!({}), &["--job-id", "o1", "--retry-delay", "50ms", "--max-retries", "1"]).await?;
    assert_eq!(other["status"], "failed");
    assert_eq!(site.json(&["job", "status", "o1"]).await?["attempt"], 2);
    let absent = run(&site, "absent", &json!({}), &["--max-retries", "0"]).await?;
    assert!(absent["error"].to_string().contains("there-is-no-such-program"), "{absent}");
    Ok(())
}

fn is_alive(pid_file: &Path) -> Option<bool> {
    let pid: u32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    // A zombie has ended; whoever inherited it has only not looked yet.
    Some(stat.is_ok_and(|stat| !stat.contains(") Z ")))
}

async fn a_stuck_program_is_ended_with_all_its_children(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    // One that ignores the polite signal, with a child of its own.
    let script = "trap '' TERM; sleep 1000 & echo $! >$0.child; echo $$ >$0.parent; wait; sleep 1000";
    let handlers = format!(
        "  by_time: {{ exec: [sh, -c, {script:?}, by_time] }}\n  by_hand: {{ exec: [sh, -c, {script:?}, by_hand] }}\n"
    );
    let mut worker = worker(&site, &handlers).await?;
    let timed = run(&site, "by_time", &json!({}), &["--timeout", "1s", "--max-retries", "0"]).await?;
    assert_eq!((&timed["status"], &timed["error"]["error_type"]), (&json!("failed"), &json!("timeout")));
    site.enqueue("by_hand", &json!({}), &["--job-id", "h1"]).await?;
    let started = eventually(COMMAND_LIMIT, "the second one runs", async || is_alive(&site.path("by_hand.parent")));
    assert!(started.await?);
    site.json(&["job", "cancel", "h1"]).await?;
    for name in ["by_time.parent", "by_time.child", "by_hand.parent", "by_hand.child"] {
        let gone = eventually(Duration::from_secs(15), format!("{name} has ended"), async || {
            (is_alive(&site.path(name)) == Some(false)).then_some(())
        });
        gone.await?;
    }
    assert_eq!(site.json(&["job", "status", "h1"]).await?["status"], "cancelled");
    assert!(!worker.has_ended());
    Ok(())
}

const JSONL: &str = r#"
import json, os, sys, time
for line in sys.stdin:
    job = json.loads(line)
    args = job["args"]
    if args.get("die"):
        os._exit(9)
    if args.get("hang"):
        time.sleep(1000)
    if args.get("chatter"):
        print("not json", flush=True)
        continue
    if args.get("fail"):
        reply = {"id": job["id"], "error": {"type": "bad_text", "message": "no", "retry": False}}
    else:
        reply = {"id": job["id"], "result": {"words": len(args["text"].split()), "pid": os.getpid(), "attempt": job["attempt"]}}
    print(json.dumps(reply), flush=True)
"#;

async fn long_lived_programs_answer_line_by_line_and_are_replaced(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    fs::write(site.path("wc.py"), JSONL)?;
    let _worker = worker(&site, "  wc: { exec: [python3, wc.py], protocol: jsonl, processes: 2 }\n").await?;
    let good = json!({"text": "three little words"});
    let mut pids = std::collections::BTreeSet::new();
    for _ in 0..6 {
        let result = run(&site, "wc", &good, &[]).await?["result"].clone();
        assert_eq!((&result["words"], &result["attempt"]), (&json!(3), &json!(1)), "{result}");
        pids.insert(result["pid"].to_string());
    }
    assert!(pids.len() <= 2, "two long-lived processes, not {pids:?}");
    let failed = run(&site, "wc", &json!({"fail": true}), &["--job-id", "f1"]).await?;
    assert_eq!((&failed["status"], &failed["error"]["error_type"]), (&json!("failed"), &json!("bad_text")));
    assert_eq!(site.json(&["job", "status", "f1"]).await?["attempt"], 1, "it said not to retry");
    for bad in ["die", "chatter", "hang"] {
        let flags = ["--max-retries", "0", "--timeout", "1s"];
        let lost = run(&site, "wc", &json!({bad: true}), &flags).await?;
        assert_eq!(lost["status"], "failed", "{bad}: {lost}");
        for _ in 0..2 {
            assert_eq!(run(&site, "wc", &good, &[]).await?["result"]["words"], 3, "after {bad}");
        }
    }
    Ok(())
}

/// An endpoint that answers by path: `/echo` what it got, `/busy` 503 once and then 200, `/gone` 410.
async fn endpoint() -> Result<(u16, JoinSet<Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut busy = true;
        loop {
            answer(listener.accept().await?.0, &mut busy).await?;
        }
    });
    Ok((port, tasks))
}

async fn answer(stream: TcpStream, busy: &mut bool) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        if stream.read_line(&mut head).await? == 0 {
            return Ok(());
        }
        let line = head[start..].trim().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let path = head.split(' ').nth(1).context("no path")?;
    let (status, more, text) = match path {
        "/echo" => (
            "200 OK",
            "",
            format!("{{\"method\":{:?},\"got\":{}}}", head.split(' ').next().unwrap_or(""), String::from_utf8(body)?),
        ),
        "/busy" if std::mem::take(busy) => ("503 Service Unavailable", "Retry-After: 1\r\n", "wait".to_owned()),
        "/busy" => ("200 OK", "", "\"now\"".to_owned()),
        _ => ("410 Gone", "", "never again".to_owned()),
    };
    let reply = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}

async fn http_endpoints_are_called(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let (port, _endpoint) = endpoint().await?;
    let handler = |kind: &str, method: &str| {
        format!("  {kind}: {{ http: 'http://127.0.0.1:{port}/{kind}', method: {method} }}\n")
    };
    let closed = "  closed: { http: 'http://127.0.0.1:1/' }\n";
    let handlers =
        [handler("echo", "put"), handler("busy", "post"), handler("gone", "post"), closed.to_owned()].concat();
    let _worker = worker(&site, &handlers).await?;
    let echo = run(&site, "echo", &json!({"a": [1, "ü"]}), &[]).await?;
    assert_eq!(echo["result"], json!({"method": "PUT", "got": {"a": [1, "ü"]}}));
    let busy = run(&site, "busy", &json!({}), &["--job-id", "b1", "--retry-delay", "1h"]).await?;
    assert_eq!(busy["result"], "now", "the endpoint's own time counts, not the job's");
    assert_eq!(site.json(&["job", "status", "b1"]).await?["attempt"], 2);
    let gone = run(&site, "gone", &json!({}), &["--job-id", "g1"]).await?;
    assert_eq!(gone["status"], "failed");
    assert!(gone["error"].to_string().contains("410"), "{gone}");
    assert_eq!(site.json(&["job", "status", "g1"]).await?["attempt"], 1);
    let closed = run(&site, "closed", &json!({}), &["--max-retries", "0"]).await?;
    assert_eq!(closed["status"], "failed");
    Ok(())
}

on_every_server!(nats_services_are_asked);

async fn nats_services_are_asked(version: ServerVersion) -> Result<()> {
    let site = Site::start(Backend::Nats(version)).await?;
    let mut service = site.raw().await?;
    service.subscribe("svc.legacy").await?;
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (reply, request) = service.next_request().await?;
            let request: Value = serde_json::from_slice(&request)?;
            let id = &request["id"];
            let answer = match request["args"]["fail"].as_bool() {
                Some(retry) => json!({"id": id, "error": {"type": "legacy", "message": "no", "retry": retry}}),
                None => json!({"id": id, "result": [request["kind"], request["args"], request["attempt"]]}),
            };
            service.publish(&reply, answer.to_string().as_bytes()).await?;
        }
        #[expect(unreachable_code, reason = "it names the error type")]
        anyhow::Ok(())
    });
    let _worker = worker(&site, "  legacy: { nats: svc.legacy }\n  nobody: { nats: svc.nobody }\n").await?;
    let asked = run(&site, "legacy", &json!({"a": 1}), &[]).await?;
    assert_eq!(asked["result"], json!(["legacy", {"a": 1}, 1]));
    let failed = run(&site, "legacy", &json!({"fail": false}), &["--job-id", "f1"]).await?;
    assert_eq!(failed["error"]["error_type"], "legacy");
    assert_eq!(site.json(&["job", "status", "f1"]).await?["attempt"], 1);
    let flags = &["--job-id", "f2", "--max-retries", "1", "--retry-delay", "50ms"];
    let again = run(&site, "legacy", &json!({"fail": true}), flags).await?;
    assert_eq!(again["status"], "failed");
    assert_eq!(site.json(&["job", "status", "f2"]).await?["attempt"], 2);
    let nobody = run(&site, "nobody", &json!({}), &["--max-retries", "0"]).await?;
    assert_eq!(nobody["status"], "failed", "nobody listens there: {nobody}");
    Ok(())
}

/// The stock worker on SQLite has no NATS connection: that is said when it starts, not when a job comes.
#[tokio::test]
async fn a_nats_handler_without_nats_is_refused_at_the_start() -> Result<()> {
    let site = Site::start(Backend::Sqlite).await?;
    fs::write(site.path("naq.yaml"), "handlers:\n  legacy: { nats: svc.legacy }\n")?;
    let finished = site.naq()?.run(&["worker", "start", "--burst"], COMMAND_LIMIT).await?;
    assert!(finished.code().is_some_and(|code| code == 1 || code == 2), "{finished:#?}");
    assert!(finished.stderr.contains("legacy"), "{finished:#?}");
    Ok(())
}
