//! Random operations on a store, two clients at a time, against a simple model of it in memory.
//!
//! Invariant: whatever a store answers, and whatever it shows afterwards, the model allows; of two calls that exclude each
//! other exactly one wins. A failing case is shrunk, printed, and kept in `regressions.txt`, which is tried first.
//!
//! Not here: time (leases that run out, results that expire), crashes, and what the seam leaves open; the conformance
//! suite and the chaos harness have those.

#![cfg(all(feature = "sqlite", feature = "nats"))]

use std::sync::atomic::{AtomicU64, Ordering};

use naq_services::{
    connection::ConnectionService,
    storage::{
        Result, SharedStorage,
        nats::{self, ConnectionOptions, NatsOptions},
    },
    streams::StreamService,
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};

#[path = "../conformance/nats_server.rs"]
mod nats_server;
mod op;
mod play;
mod state;

/// Operations of one case.
const LONGEST: usize = 40;

/// Where a case's store is made; a number tells the cases apart.
enum Ground {
    File(tempfile::TempDir),
    Memory,
    Nats(nats_server::NatsServer),
}

impl Ground {
    async fn open(&self, case: u64) -> Result<SharedStorage> {
        match self {
            Self::File(dir) => {
                use naq_services::storage::sqlite::{SqliteOptions, open};
                open(SqliteOptions::file(dir.path().join(format!("{case}.db")))).await
            }
            Self::Memory => {
                use naq_services::storage::sqlite::{SqliteOptions, open};
                open(SqliteOptions::memory(format!("model-{case}"))).await
            }
            Self::Nats(server) => {
                let options = NatsOptions { connection: at(server), prefix: prefix(case), ..NatsOptions::default() };
                nats::open(options).await
            }
        }
    }

    /// Removes what a case has left, where many cases share a server.
    async fn clear(&self, case: u64) -> Result<()> {
        let Self::Nats(server) = self else { return Ok(()) };
        let streams = StreamService::new(ConnectionService::connect(at(server)).await?);
        nats::remove_store(&streams, &prefix(case)).await.map(drop)
    }
}

fn at(server: &nats_server::NatsServer) -> ConnectionOptions {
    ConnectionOptions { servers: vec![server.url.clone()], ..ConnectionOptions::default() }
}

fn prefix(case: u64) -> String {
    format!("model-{case}")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Tries so many random cases, or as many as `PROPTEST_CASES` says.
fn judge(runtime: &tokio::runtime::Runtime, ground: &Ground, cases: u32) {
    static CASE: AtomicU64 = AtomicU64::new(0);
    let config = Config::default();
    #[expect(clippy::disallowed_methods, reason = "the variable is proptest's own, which a number here would hide")]
    let told = std::env::var_os("PROPTEST_CASES").is_some();
    let config = Config {
        cases: if told { config.cases } else { cases },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model/regressions.txt"))),
        ..config
    };
    let played = TestRunner::new(config).run(&vec(op::any_op(), 1..LONGEST), |ops| {
        let case = CASE.fetch_add(1, Ordering::Relaxed);
        let outcome = runtime.block_on(async {
            let stores = [open(ground, case).await?, open(ground, case).await?];
            let played = play::play(stores.clone(), &ops).await;
            for store in stores {
                store.close().await;
            }
            ground.clear(case).await.map_err(|error| format!("remove the store: {error}"))?;
            played
        });
        outcome.map_err(TestCaseError::fail)
    });
    if let Err(failure) = played {
        panic!("{failure}");
    }
}

async fn open(ground: &Ground, case: u64) -> std::result::Result<SharedStorage, String> {
    ground.open(case).await.map_err(|error| format!("open: {error}"))
}

#[test]
fn a_sqlite_file_is_what_the_model_says() {
    judge(&runtime(), &Ground::File(tempfile::TempDir::new().expect("a folder")), 60);
}

#[test]
fn memory_is_what_the_model_says() {
    judge(&runtime(), &Ground::Memory, 60);
}

fn judge_nats(name: &str, variable: &str) {
    let runtime = runtime();
    let server = runtime.block_on(nats_server::NatsServer::start(name, variable));
    judge(&runtime, &Ground::Nats(server), 30);
}

#[test]
fn nats_2_9_is_what_the_model_says() {
    judge_nats("nats-server-2.9", "NAQ_TEST_NATS_2_9");
}

#[test]
fn nats_2_15_is_what_the_model_says() {
    judge_nats("nats-server-2.15", "NAQ_TEST_NATS_2_15");
}
