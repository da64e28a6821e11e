//! A storage backend of one's own: a small one in memory, complete, and the conformance suite that proves it.
//!
//! Run it: `cargo run -p naq-services --example custom_storage --features testing`. It prints every check of the suite and
//! exits with 1 if one fails. Read `state.rs` first: each move of a job is one function there, under one lock; the other
//! files only put the seam's traits in front of it.
//!
//! Not shown here: storing anything durably. A real backend makes each function of `state.rs` one transaction.

use std::{process::ExitCode, sync::Arc};

use async_trait::async_trait;
use naq_services::storage::{
    self, SharedStorage,
    conformance::{self, Fixture},
};

mod backend;
mod consumer;
mod event_log;
mod feeds;
mod state;

use backend::MemoryStorage;
use state::Shared;

/// One fresh store; every connection of a check shares it.
struct Fresh(Arc<Shared>);

#[async_trait]
impl Fixture for Fresh {
    async fn open(&self) -> storage::Result<SharedStorage> {
        Ok(Arc::new(MemoryStorage::new(Arc::clone(&self.0))))
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it found")]
async fn main() -> ExitCode {
    let report = conformance::run_all(|| async { Arc::new(Fresh(Arc::new(Shared::new()))) as Arc<dyn Fixture> }).await;
    println!("{report}");
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
