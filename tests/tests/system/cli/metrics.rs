//! `--listen`: what a scrape and the probes say while jobs run, while the store is away, and while a worker stops.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{NaqProcess, ServerVersion, Signal, eventually};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::site::{Backend, COMMAND_LIMIT, LEASE, Site, WORKER_LIMIT, on_every_store};

on_every_store!(
    a_scrape_says_what_was_done_and_what_waits,
    a_scheduler_alone_is_probed_and_scraped,
    a_worker_that_stops_is_not_ready_and_answers_to_the_end,
);

/// An answer is there at once, or something waits that must not.
const AT_ONCE: Duration = Duration::from_secs(3);

struct Answer {
    status: u16,
    head: String,
    body: String,
}

async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: naq\r\nConnection: close\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        anyhow::Ok(text)
    };
    let text = timeout(AT_ONCE, asking).await.with_context(|| format!("no answer to {path} within {AT_ONCE:?}"))??;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no answer of HTTP: {text:?}"))?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

/// Where a process says that it listens.
async fn address(process: &mut NaqProcess) -> Result<SocketAddr> {
    const SAID: &str = "listens at http://";
    process.wait_for_stderr(SAID, WORKER_LIMIT).await?;
    let stderr = process.stderr();
    let (_, after) = stderr.split_once(SAID).context("it was there")?;
    after.split(' ').next().context("an address")?.parse().with_context(|| stderr.clone())
}

/// The samples of a scrape, by name and labels.
async fn scrape(address: SocketAddr) -> Result<BTreeMap<String, f64>> {
    let answer = get(address, "/metrics").await?;
    ensure!(answer.status == 200 && answer.body.ends_with("# EOF\n"), "{}\n{}", answer.head, answer.body);
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    ensure!(answer.head.contains(kind), "{}", answer.head);
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (series, n) = line.rsplit_once(' ').context("a sample")?;
        Ok((series.to_owned(), n.parse()?))
    });
    samples.collect()
}

/// Waits until a scrape says all of this.
async fn says(address: SocketAddr, expected: &[(&str, f64)]) -> Result<BTreeMap<String, f64>> {
    let mut wrong = String::new();
    let waiting = eventually(COMMAND_LIMIT, "a scrape says what it should", async || {
        let found = match scrape(address).await {
            Ok(found) => found,
            Err(error) => {
                wrong = format!("{error:#}");
                return None;
            }
        };
        let differs = expected.iter().find(|(series, n)| found.get(*series) != Some(n));
        wrong = differs.map_or_else(String::new, |(series, n)| {
            format!("{series} is {:?} and should be {n} in {found:#?}", found.get(*series))
        });
        differs.is_none().then_some(found)
    });
    let found = waiting.await;
    found.with_context(|| wrong)
}

/// Waits until a probe answers with this status, and returns what it says.
async fn answers(address: SocketAddr, path: &str, status: u16) -> Result<String> {
    let mut last = String::new();
    let waiting = eventually(COMMAND_LIMIT, format!("{path} answers {status}"), async || {
        match get(address, path).await {
            Ok(answer) if answer.status == status => return Some(answer.body),
            Ok(answer) => last = format!("{} {}", answer.status, answer.body),
            Err(error) => last = format!("{error:#}"),
        }
        None
    });
    let answer = waiting.await;
    answer.with_context(|| format!("last: {last}"))
}

/// Catches: jobs that are not counted or counted under the wrong outcome, empty histograms, queue numbers that are missing.
async fn a_scrape_says_what_was_done_and_what_waits(backend: Backend) -> Result<()> {
    let mut site = Site::start(backend).await?;
    // Metrics are not made of stored events.
    site.set("NAQ_EVENTS__ENABLED", backend == Backend::Sqlite);
    fs::write(site.path("naq.yaml"), "handlers:\n  flop: { exec: [\"sh\", \"-c\", \"exit 1\"] }\n")?;
    for _ in 0..5 {
        site.enqueue("naq.echo", &json!({}), &[]).await?;
    }
    site.enqueue("flop", &json!({}), &["--max-retries", "1", "--retry-delay", "100ms"]).await?;
    site.enqueue("naq.echo", &json!({}), &["--delay", "1h"]).await?;
    for _ in 0..3 {
        site.enqueue("naq.echo", &json!({}), &["--queue", "idle"]).await?;
    }
    let mut worker = site.naq()?.spawn(&["worker", "start", "--listen", "0", "--concurrency", "7"])?;
    let address = address(&mut worker).await?;
    ensure!(address.ip().is_loopback() && address.port() != 0, "{address}");
    let found = says(
        address,
        &[
            (r#"naq_jobs_started_total{queue="default",kind="naq.echo"}"#, 5.0),
            (r#"naq_jobs_ended_total{queue="default",kind="naq.echo",outcome="completed"}"#, 5.0),
            (r#"naq_jobs_ended_total{queue="default",kind="naq.echo",outcome="failed"}"#, 0.0),
            (r#"naq_jobs_started_total{queue="default",kind="flop"}"#, 2.0),
            (r#"naq_jobs_ended_total{queue="default",kind="flop",outcome="retried"}"#, 1.0),
            (r#"naq_jobs_ended_total{queue="default",kind="flop",outcome="failed"}"#, 1.0),
            (r#"naq_job_wait_seconds_count{queue="default",kind="naq.echo"}"#, 5.0),
            (r#"naq_job_run_seconds_count{queue="default",kind="naq.echo"}"#, 5.0),
            (r#"naq_job_run_seconds_bucket{le="+Inf",queue="default",kind="flop"}"#, 2.0),
            (r#"naq_queue_jobs{queue="idle",state="pending"}"#, 3.0),
            (r#"naq_queue_jobs{queue="default",state="pending"}"#, 0.0),
            (r#"naq_queue_jobs{queue="default",state="scheduled"}"#, 1.0),
            (r#"naq_dead_letters{queue="default"}"#, 1.0),
            ("naq_worker_slots", 7.0),
            ("naq_worker_running", 0.0),
            ("naq_scheduler_leader", 1.0),
            ("naq_events_dropped_total", 0.0),
        ],
    )
    .await?;
    let at = |series: &str| *found.get(series).unwrap_or(&-1.0);
    ensure!(at("naq_settle_seconds_count{}") >= 2.0, "{found:#?}");
    ensure!(at("naq_scheduler_lag_seconds_count{}") == 1.0, "the retry was fired: {found:#?}");
    let waited = at(r#"naq_job_wait_seconds_sum{queue="default",kind="naq.echo"}"#);
    ensure!(waited > 0.0 && waited < 100.0, "{waited}");
    let oldest = at(r#"naq_queue_oldest_pending_seconds{queue="idle"}"#);
    ensure!(oldest > 0.0 && oldest < 100.0, "{oldest}");
    ensure!(found.keys().any(|series| series.starts_with("naq_build_info{version=")), "{found:#?}");

    let marker = site.path("until");
    let long = json!({"file": site.path("log"), "until": marker});
    let mut runs = site.test_worker().spawn(&["worker", "start", "other", "--listen", "0", "--no-scheduler"])?;
    let its = self::address(&mut runs).await?;
    site.enqueue("t.log_sleep", &long, &["--queue", "other"]).await?;
    let leases = says(its, &[("naq_worker_running", 1.0), ("naq_scheduler_leader", 0.0)]).await?;
    ensure!(leases[r#"naq_lease_extensions_total{outcome="lost"}"#] == 0.0);
    eventually(4 * LEASE, "its lease is extended", async || {
        let found = scrape(its).await.ok()?;
        (found[r#"naq_lease_extensions_total{outcome="held"}"#] >= 1.0).then_some(())
    })
    .await?;
    fs::write(&marker, "")?;
    says(its, &[("naq_worker_running", 0.0)]).await?;
    for process in [worker, runs] {
        process.signal(Signal::TERM)?;
        ensure!(process.wait(COMMAND_LIMIT).await?.code() == Some(0));
    }
    Ok(())
}

/// Catches: a scheduler that never gets ready, that shows no queues, and one whose end waits for HTTP.
async fn a_scheduler_alone_is_probed_and_scraped(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    site.enqueue("naq.echo", &json!({}), &["--delay", "300ms"]).await?;
    let mut scheduler = site.naq()?.spawn(&["scheduler", "start", "--listen", "0", "--output", "json"])?;
    let address = address(&mut scheduler).await?;
    ensure!(answers(address, "/readyz", 200).await? == "ok\n");
    ensure!(answers(address, "/healthz", 200).await? == "ok\n");
    let pending = (r#"naq_queue_jobs{queue="default",state="pending"}"#, 1.0);
    says(address, &[pending, ("naq_scheduler_leader", 1.0), ("naq_scheduler_lag_seconds_count{}", 1.0)]).await?;
    ensure!(get(address, "/nothing").await?.status == 404);
    // A connection that is open and silent.
    let _open = TcpStream::connect(address).await?;
    let asked = Instant::now();
    scheduler.signal(Signal::TERM)?;
    let finished = scheduler.wait(COMMAND_LIMIT).await?;
    ensure!(finished.code() == Some(0) && asked.elapsed() < AT_ONCE, "{:?}, {finished:#?}", asked.elapsed());
    Ok(())
}

/// Catches: probes that are silent or 200 while a worker lets its jobs end, and a stop that waits for a scrape.
async fn a_worker_that_stops_is_not_ready_and_answers_to_the_end(backend: Backend) -> Result<()> {
    let mut site = Site::start(backend).await?;
    site.set("NAQ_WORKERS__LISTEN", 0);
    let (log, marker) = (site.path("log"), site.path("until"));
    site.enqueue("t.log_sleep", &json!({"file": log, "until": marker}), &[]).await?;
    let mut worker = site.test_worker().spawn(&["worker", "start"])?;
    let address = address(&mut worker).await?;
    answers(address, "/readyz", 200).await?;
    eventually(COMMAND_LIMIT, "the job runs", async || log.exists().then_some(())).await?;
    worker.signal(Signal::TERM)?;
    ensure!(answers(address, "/readyz", 503).await? == "stopping\n");
    ensure!(answers(address, "/healthz", 200).await? == "ok\n");
    says(address, &[("naq_worker_running", 1.0)]).await?;
    let _open = TcpStream::connect(address).await?;
    fs::write(&marker, "")?;
    let finished = worker.wait(COMMAND_LIMIT).await?;
    ensure!(finished.code() == Some(0) && finished.stdout.contains("1 completed"), "{finished:#?}");
    ensure!(TcpStream::connect(address).await.is_err(), "it has ended and still listens");
    Ok(())
}

/// Catches: a worker that counts as ready without its store or as dead because of it, scrapes that wait for the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_server_a_worker_is_not_ready_but_lives() -> Result<()> {
    let mut site = Site::start(Backend::Nats(ServerVersion::V2_15)).await?;
    let mut worker = site.naq()?.spawn(&["worker", "start", "--listen", "0"])?;
    let mut scheduler = site.naq()?.spawn(&["scheduler", "start", "--listen", "0"])?;
    let both = [address(&mut worker).await?, address(&mut scheduler).await?];
    for address in both {
        answers(address, "/readyz", 200).await?;
    }
    site.nats()?.kill()?;
    for address in both {
        let why = answers(address, "/readyz", 503).await?;
        ensure!(why.starts_with("the store has not answered for ") && why.matches('\n').count() == 1, "{why:?}");
        ensure!(get(address, "/healthz").await?.status == 200, "it lives");
        scrape(address).await?;
    }
    site.nats()?.restart().await?;
    for address in both {
        answers(address, "/readyz", 200).await?;
    }
    site.json(&["job", "enqueue", "naq.echo", "--wait", "20s"]).await?;
    says(both[0], &[(r#"naq_jobs_ended_total{queue="default",kind="naq.echo",outcome="completed"}"#, 1.0)]).await?;
    for process in [worker, scheduler] {
        process.signal(Signal::TERM)?;
        ensure!(process.wait(COMMAND_LIMIT).await?.code() == Some(0));
    }
    Ok(())
}

/// Catches: HTTP on the threads of handlers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_while_handlers_burn_every_thread() -> Result<()> {
    let site = Site::start(Backend::Sqlite).await?;
    let log = site.path("log");
    for _ in 0..16 {
        site.enqueue("t.burn", &json!({"file": log, "ms": 3000}), &[]).await?;
    }
    let mut worker = site.test_worker().spawn(&["worker", "start", "--listen", "0", "--concurrency", "16"])?;
    let address = address(&mut worker).await?;
    eventually(COMMAND_LIMIT, "jobs run", async || log.exists().then_some(())).await?;
    // It may take a beat of the heart until it is known to be ready; the jobs burn for longer than this waits.
    for path in ["/healthz", "/readyz", "/metrics"] {
        eventually(Duration::from_secs(2), path, async || (get(address, path).await.ok()?.status == 200).then_some(()))
            .await?;
    }
    worker.kill().await
}

/// Catches: a worker that claims before it finds out that it cannot listen, and addresses that mean something else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_an_error_before_anything_is_claimed() -> Result<()> {
    let site = Site::start(Backend::Sqlite).await?;
    let id = site.enqueue("naq.echo", &json!({}), &[]).await?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    for command in [&["worker", "start"], &["scheduler", "start"]] {
        let finished = site.naq()?.run(&[command, &["--listen", &port][..]].concat(), COMMAND_LIMIT).await?;
        assert_eq!(finished.code(), Some(1), "{finished:#?}");
        for text in [&format!("cannot listen on 127.0.0.1:{port}"), "hint: another program listens there"] {
            ensure!(finished.stderr.contains(text), "no {text:?} in {}", finished.stderr);
        }
        let wrong = site.naq()?.run(&[command, &["--listen", ":9464"][..]].concat(), COMMAND_LIMIT).await?;
        assert_eq!(wrong.code(), Some(2), "{wrong:#?}");
        ensure!(wrong.stderr.contains("write PORT for 127.0.0.1:PORT"), "{}", wrong.stderr);
    }
    assert_eq!(site.json(&["job", "status", &id]).await?["status"], "pending");
    Ok(())
}
