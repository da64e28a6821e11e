//! Every promise under random faults, on every store: a short run of `cargo xtask chaos` with a fixed seed.
//!
//! The seed fixes what is broken, when and for how long. What a fault meets is up to the machine, so that each run shows a
//! little more than the last.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use naq_tests::{
    ServerVersion,
    chaos::{Chaos, Programs, Store},
    temp_folder,
};

use crate::gate;

const LENGTH: Duration = Duration::from_secs(40);

async fn holds(store: Store, seed: u64) -> Result<()> {
    let _alone = gate::heavy().await;
    let folder = temp_folder("naq-chaos-")?;
    let program = |path: &str| Path::new(path).to_owned();
    let programs = Programs {
        worker: program(env!("CARGO_BIN_EXE_test-worker")),
        producer: program(env!("CARGO_BIN_EXE_chaos-producer")),
    };
    let chaos = Chaos { store, length: LENGTH, seed, folder: folder.path().to_owned(), programs };
    let report = chaos.run().await?;
    let counts = &report.verdict.counts;
    ensure!(report.verdict.violations.is_empty(), "seed {seed}: {}", report.verdict);
    ensure!(counts.faults >= 8 && counts.acknowledged >= 100, "seed {seed}: {}", report.verdict);
    ensure!(counts.run_again > 0, "seed {seed}: no fault met a job that ran: {}", report.verdict);
    Ok(())
}

/// One test for each store, with a seed of its own.
macro_rules! holds_on {
    ($($name:ident: $store:expr, $seed:literal;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> Result<()> {
            holds($store, $seed).await
        }
    )+};
}

holds_on! {
    every_promise_is_kept_in_chaos_on_sqlite: Store::Sqlite, 5;
    every_promise_is_kept_in_chaos_on_nats_2_9: Store::Nats(ServerVersion::V2_9), 4;
    every_promise_is_kept_in_chaos_on_nats_2_15: Store::Nats(ServerVersion::V2_15), 1;
    every_promise_is_kept_in_chaos_on_a_cluster: Store::Cluster(ServerVersion::V2_15), 3;
}
