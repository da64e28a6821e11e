//! A producer of the chaos harness: `chaos-producer NAME HISTORY SEED`; enqueues until SIGTERM.
//!
//! Invariant: what it was told is in the history before it asks for the next job.

use std::time::Duration;

use anyhow::{Context as _, Result};
use naq_services::{CancellationToken, ServiceManager};
use naq_tests::chaos::{Load, produce};
use tokio::signal::unix::{SignalKind, signal};

/// Tasks, each with one job under way.
const TASKS: u64 = 4;
/// From one job of a task to the next.
const PACE: Duration = Duration::from_millis(400);

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, history, seed] = &words[..] else { anyhow::bail!("usage: chaos-producer NAME HISTORY SEED") };
    let seed: u64 = seed.parse().context("the seed is a number")?;
    let mut asked = signal(SignalKind::terminate())?;
    let services = ServiceManager::from_loaded(naq_config::load(&naq_config::LoadOptions::of_process(None))?)?;
    let jobs = services.jobs().await?;
    let load = |task| Load {
        name: format!("{name}-{task}"),
        history: history.into(),
        seed: seed.wrapping_add(task),
        pace: PACE,
    };
    let stop = CancellationToken::new();
    let producing = produce((0..TASKS).map(load).collect(), jobs, stop.clone());
    let stopping = async {
        asked.recv().await;
        stop.cancel();
        std::future::pending().await
    };
    tokio::select! {
        done = producing => done?,
        () = stopping => {}
    }
    services.close().await;
    Ok(())
}
