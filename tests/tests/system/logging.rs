//! What a worker logs, as those see it who collect it: JSON lines on stderr and in files, of jobs, retries and children;
//! and that a log which takes nothing, or a worker that is killed, does no harm.

use std::{collections::BTreeSet, fs, io::Read as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use flate2::read::MultiGzDecoder;
use naq_tests::{NaqProcess, Signal, eventually};
use serde_json::{Value, json};

use crate::site::{Backend, COMMAND_LIMIT, Site, WORKER_LIMIT, anonymous, on_every_store};

on_every_store!(json_lines_tell_of_a_job_its_retry_and_its_child);

fn parsed(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}"))).collect()
}

/// What the lines with a message say of their jobs, in the order of the log.
fn told(lines: &[Value], message: &str) -> Vec<Value> {
    let lines = lines.iter().filter(|line| line["message"] == message);
    lines.map(|line| json!([line["task_id"], line["operation"], line["attempt"], line["correlation_id"]])).collect()
}

async fn stopped(worker: NaqProcess) -> Result<String> {
    worker.signal(Signal::TERM)?;
    Ok(worker.wait(WORKER_LIMIT).await?.stderr)
}

async fn json_lines_tell_of_a_job_its_retry_and_its_child(backend: Backend) -> Result<()> {
    let mut site = Site::start(backend).await?;
    site.set("NAQ_LOG_MODE", "PROD");
    let script = "read args; echo \"from $NAQ_CORRELATION_ID\" >&2; test -e done && exit 0; touch done; exit 75";
    let talk = "import json, sys\nfor line in sys.stdin:\n    job = json.loads(line)\n\
                \x20   print('talks', file=sys.stderr, flush=True)\n    print(json.dumps({'id': job['id'], 'result': 1}), flush=True)";
    fs::write(site.path("talk.py"), talk)?;
    let handlers = format!(
        "handlers:\n  script: {{ exec: [sh, -c, {script:?}] }}\n\
         \x20 talk: {{ exec: [python3, talk.py], protocol: jsonl, processes: 1 }}\n"
    );
    fs::write(site.path("naq.yaml"), handlers)?;
    let worker = site.worker("talker", &["--concurrency", "4"]).await?;
    let given = ["--meta", "correlation_id=order-7", "--retry-delay", "100ms"];
    let say = json!({"text": "hello", "times": 1});
    site.enqueue("t.say", &say, &[&given[..], &["--job-id", "r1"]].concat()).await?;
    let pass_on = json!({"text": "passed on", "child": "c1"});
    site.enqueue("t.say_and_pass_on", &pass_on, &["--job-id", "p1"]).await?;
    site.enqueue("script", &json!({"secret": "hunter2"}), &[&given[..], &["--job-id", "s1"]].concat()).await?;
    site.enqueue("talk", &json!({}), &["--job-id", "t1"]).await?;
    for id in ["r1", "p1", "s1", "c1", "t1"] {
        let done = eventually(COMMAND_LIMIT, format!("{id} has completed"), async || {
            let status = site.json(&["job", "status", id]).await.ok()?;
            (status["status"] == "completed").then_some(())
        });
        done.await.with_context(|| worker.stderr())?;
    }
    let text = stopped(worker).await?;
    assert!(!text.contains("hunter2"), "arguments are not logged: {text}");
    let lines = parsed(&text)?;
    let run = |id: &str, operation: &str, attempt: u32, correlation: &str| json!([id, operation, attempt, correlation]);
    assert_eq!(told(&lines, "hello"), [run("r1", "t.say", 1, "order-7"), run("r1", "t.say", 2, "order-7")]);
    let from_program = told(&lines, "stderr: from order-7");
    assert_eq!(from_program, [run("s1", "script", 1, "order-7"), run("s1", "script", 2, "order-7")]);
    assert_eq!(told(&lines, "stderr: talks"), [run("t1", "talk", 1, "t1")]);
    let family = [run("p1", "t.say_and_pass_on", 1, "p1"), run("c1", "t.say", 1, "p1")];
    assert_eq!(told(&lines, "passed on"), family);

    let failed = lines.iter().find(|line| line["message"] == "failed, runs again" && line["task_id"] == "r1");
    let failed = failed.context("a failed attempt is logged")?;
    assert_eq!([&failed["level"], &failed["error_type"], &failed["error"]], ["WARN", "boom", "not yet"]);
    let ends: BTreeSet<_> = told(&lines, "completed").iter().map(|told| told[0].to_string()).collect();
    assert_eq!(ends, ["r1", "p1", "s1", "c1", "t1"].map(|id| format!("{id:?}")).into());
    let end = lines.iter().find(|line| line["message"] == "completed").context("no end")?;
    for name in ["timestamp", "level", "logger", "worker"] {
        assert!(end[name].is_string(), "{name} of {end}");
    }
    assert!(end["duration_ms"].is_f64(), "{end}");
    Ok(())
}

/// The lines of a log with all its rotated files, and how many of those are compressed.
fn with_rotated(log: &Path) -> Result<(Vec<Value>, usize)> {
    let folder = log.parent().context("a file lies in a folder")?;
    let (mut lines, mut compressed) = (Vec::new(), 0);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let mut text = String::new();
        if path.extension().is_some_and(|extension| extension == "gz") {
            MultiGzDecoder::new(fs::File::open(&path)?).read_to_string(&mut text)?;
            compressed += 1;
        } else if path.extension().is_none_or(|extension| extension != "part") {
            text = fs::read_to_string(&path)?;
        }
        lines.extend(parsed(&text).with_context(|| path.display().to_string())?);
    }
    Ok((lines, compressed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_share_a_file_that_is_rotated_and_compressed() -> Result<()> {
    let mut site = Site::start(Backend::Sqlite).await?;
    let log = site.path("logs/naq.log");
    site.set("OMNIQ_LOG_MODE", "PROD");
    site.set("NAQ_LOG_FILE", log.display());
    site.set("NAQ_LOG_ROTATION", "20 KB");
    site.set("NAQ_LOG_BACKUP_COUNT", 1000);
    let one = site.worker("one", &[]).await?;
    let two = site.worker("two", &[]).await?;
    site.enqueue_all((0..1000).map(|number| anonymous("naq.echo", json!([number])))).await?;
    site.drained("default", COMMAND_LIMIT).await?;
    let said = [stopped(one).await?, stopped(two).await?].concat();
    assert!(said.lines().all(|line| !line.starts_with('{')), "the log is in the file: {said}");
    // Rotated files that nobody had the time to compress: the next process does.
    let (mut lines, mut compressed) = (Vec::new(), 0);
    let settled = eventually(COMMAND_LIMIT, "all rotated files are compressed", async || {
        site.json(&["worker", "list"]).await.ok()?;
        (lines, compressed) = with_rotated(&log).ok()?;
        let files = fs::read_dir(log.parent()?).ok()?.count();
        (compressed + 1 == files).then_some(())
    });
    settled.await?;
    let jobs: BTreeSet<_> = told(&lines, "completed").iter().map(|told| told[0].to_string()).collect();
    assert_eq!((jobs.len(), told(&lines, "completed").len()), (1000, 1000), "each job once");
    assert!(compressed > 5, "{compressed} rotated files");
    assert!(fs::metadata(&log)?.len() <= 20_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_leaves_whole_lines() -> Result<()> {
    let mut site = Site::start(Backend::Sqlite).await?;
    let log = site.path("naq.log");
    site.set("NAQ_LOG_MODE", "PROD");
    site.set("NAQ_LOG_FILE", log.display());
    site.enqueue_all((0..20_000).map(|_| anonymous("naq.noop", json!([])))).await?;
    let mut seen = 0;
    for name in ["first", "second", "third"] {
        let mut worker = site.naq()?.spawn(&["worker", "start", "--name", name, "--concurrency", "50"])?;
        let logging = eventually(WORKER_LIMIT, "it logs", async || {
            let size = fs::metadata(&log).map_or(0, |metadata| metadata.len());
            (size > seen + 20_000).then_some(())
        });
        logging.await.with_context(|| worker.stderr())?;
        ensure!(!worker.has_ended(), "it is to be killed at work");
        worker.kill().await?;
        let text = fs::read_to_string(&log)?;
        seen = text.len() as u64;
        assert!(text.ends_with('\n'), "{:?}", &text[text.len() - 200..]);
        parsed(&text)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_takes_nothing_holds_up_no_job() -> Result<()> {
    for mode in ["dev", "prod"] {
        let mut site = Site::start(Backend::Sqlite).await?;
        site.set("NAQ_LOG_MODE", mode);
        site.set("NAQ_LOG_LEVEL", "debug");
        // Nobody reads from this pipe, which takes 64 KiB.
        let (unread, stderr) = std::io::pipe()?;
        let mut worker = site.naq()?.spawn_with_stderr(&["worker", "start", "--name", "mute"], stderr)?;
        site.enqueue_all((0..2000).map(|_| anonymous("naq.noop", json!([])))).await?;
        site.drained("default", COMMAND_LIMIT).await?;
        assert!(!worker.has_ended());
        worker.signal(Signal::TERM)?;
        // It gives its log five seconds to take the last lines.
        let finished = worker.wait(WORKER_LIMIT).await?;
        assert_eq!(finished.code(), Some(0), "{finished:#?}");
        let mut text = String::new();
        (&unread).read_to_string(&mut text)?;
        // Of each of its 16 pages, what whole lines take: a page may have room for a part of one more line.
        assert!(text.len() > 32_000, "the pipe was full: {}", text.len());
        assert!(text.ends_with('\n'), "whole lines: {:?}", &text[text.len() - 200..]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flag_wins_over_variables_and_a_bad_file_is_said_at_once() -> Result<()> {
    let mut site = Site::start(Backend::Sqlite).await?;
    site.set("NAQ_LOG_MODE", "prod");
    site.set("NAQ_LOG_LEVEL", "off");
    let silent = stopped(site.worker("silent", &[]).await?).await?;
    assert!(!silent.contains('{'), "{silent}");
    let worker = site.worker("loud", &["--log-level", "debug"]).await?;
    site.enqueue("naq.noop", &json!([]), &["--job-id", "n1"]).await?;
    site.drained("default", COMMAND_LIMIT).await?;
    let loud = parsed(&stopped(worker).await?)?;
    assert_eq!(told(&loud, "started"), [json!(["n1", "naq.noop", 1, "n1"])]);

    fs::write(site.path("a-file"), "")?;
    site.set("NAQ_LOG_FILE", site.path("a-file/naq.log").display());
    let refused = site.run(&["worker", "list"]).await?;
    assert_eq!(refused.code(), Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("a-file/naq.log"), "{refused:#?}");
    Ok(())
}
