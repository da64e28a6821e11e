//! The blocking functions on real stores: as fast as the awaited ones within a factor of two, from within a runtime, beside
//! each other, and without holding up the end of the process. What they do on a store in memory is tested in naq-queue.

use std::{
    env,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use naq::{NewJob, services::StorageErrorKind};
use naq_tests::ServerVersion;
use serde_json::json;

use crate::{
    gate,
    site::{Backend, Site, on_every_server, on_every_store},
};

on_every_store!(ten_thousand_calls_keep_pace, a_process_that_never_disconnects_ends);
on_every_server!(the_connection_of_the_process_is_shared);

/// Rounds of both kinds in turn; the machine is shared, so the best of them counts.
const ROUNDS: usize = 5;
/// Set in the process that plays the user's program.
const CHILD: &str = "NAQ_TEST_BLOCKING_CHILD";

fn noop() -> NewJob {
    NewJob::new("naq.noop", json!({}))
}

#[expect(clippy::print_stdout, reason = "a ratio that was measured is worth seeing")]
async fn ten_thousand_calls_keep_pace(backend: Backend) -> Result<()> {
    let _alone = gate::heavy().await;
    // On SQLite each call waits for a flush of the disk, which takes far longer than everything else.
    let calls = if backend == Backend::Sqlite { 1_000 } else { 10_000 };
    let site = Site::start(backend).await?;
    naq::connect(&site.url).await?;
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..calls / ROUNDS {
            naq::enqueue(noop()).await?;
        }
        let awaited = begun.elapsed();
        // In one task, without a pause: this is also where a call could wait for a budget that is used up.
        let begun = Instant::now();
        for _ in 0..calls / ROUNDS {
            naq::enqueue_sync(noop())?;
        }
        ratios.push(awaited.as_secs_f64() / begun.elapsed().as_secs_f64());
    }
    println!("rate of enqueue_sync to that of enqueue().await, by round: {ratios:.2?}");
    ensure!(ratios.iter().any(|ratio| *ratio >= 0.5), "rate of blocking calls to awaited ones: {ratios:?}");
    let queued = naq::Queue::open("default").await?.stats().await?.pending;
    ensure!(queued == 2 * calls as u64, "{queued} jobs");
    Ok(())
}

/// Connections stay open, a thread waits for a result that never comes: `main` returns, and that is the end.
async fn a_process_that_never_disconnects_ends(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let mut child = tokio::process::Command::new(env::current_exe()?)
        .args(["--exact", "blocking::in_a_child_process", "--nocapture"])
        .env(CHILD, &site.url)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait()).await;
    ensure!(ended.context("the process hangs")??.success(), "the process failed");
    let stats = site.json(&["queue", "stats", "default"]).await?;
    ensure!(stats["pending"] == 4, "{stats}");
    Ok(())
}

/// The user's program; as a test of its own it has nothing to do.
#[expect(clippy::disallowed_methods, reason = "how the test tells its child what to do")]
#[test]
fn in_a_child_process() -> Result<()> {
    let Ok(url) = env::var(CHILD) else { return Ok(()) };
    naq::connect_sync(&url)?;
    let calls: Vec<_> = (0..4).map(|_| thread::spawn(|| naq::enqueue_sync(noop()))).collect();
    for call in calls {
        let job = call.join().ok().context("a call panicked")??;
        thread::spawn(move || naq::wait_for_result_sync(&job, Duration::from_secs(600)));
    }
    Ok(())
}

async fn the_connection_of_the_process_is_shared(version: ServerVersion) -> Result<()> {
    let site = Site::start(Backend::Nats(version)).await?;
    naq::connect(&site.url).await?;
    naq::enqueue(noop()).await?;
    let connection = naq::get_nats_connection().await?;
    ensure!(connection.is_connected());
    let context = naq::get_jetstream_context().await?;
    let streams = context.names("naq.queue.>").await?;
    ensure!(streams.iter().any(|name| name.ends_with("queue_default")), "{streams:?}");
    naq::close_nats_connection().await?;
    let after = context.names("naq.queue.>").await;
    ensure!(
        after.is_err_and(|error| error.kind() == StorageErrorKind::Closed),
        "it is the one that the jobs went over"
    );
    Ok(())
}
