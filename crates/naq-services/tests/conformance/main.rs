//! The conformance suite over every backend: the SQLite file, memory, both NATS servers, and the example of a custom one.
//!
//! Invariant: each check has a store of its own, made for it and gone with it. The nats-servers are those that
//! `cargo xtask tools` fetches, or `NAQ_TEST_NATS_2_9` and `NAQ_TEST_NATS_2_15` name.
//!
//! Not here: what the suite checks; that is `naq_services::storage::conformance`.

use std::sync::Arc;

use async_trait::async_trait;
use naq_services::storage::{Result, SharedStorage, conformance::Fixture};

mod custom;

#[cfg(feature = "sqlite")]
mod sqlite_file {
    use naq_services::storage::sqlite::{self, SqliteOptions};
    use tempfile::TempDir;

    use super::*;

    struct File(TempDir);

    #[async_trait]
    impl Fixture for File {
        async fn open(&self) -> Result<SharedStorage> {
            sqlite::open(SqliteOptions::file(self.0.path().join("naq.db"))).await
        }
    }

    async fn fresh() -> Arc<dyn Fixture> {
        Arc::new(File(TempDir::new().expect("a temporary directory")))
    }

    naq_services::conformance_tests!(fresh);
}

#[cfg(feature = "sqlite")]
mod memory {
    use std::sync::atomic::{AtomicU64, Ordering};

    use naq_services::storage::sqlite::{self, SqliteOptions};

    use super::*;

    /// The store ends with its last connection: one is kept open.
    struct Memory {
        name: String,
        _kept: SharedStorage,
    }

    #[async_trait]
    impl Fixture for Memory {
        async fn open(&self) -> Result<SharedStorage> {
            sqlite::open(SqliteOptions::memory(&self.name)).await
        }
    }

    async fn fresh() -> Arc<dyn Fixture> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("conformance-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let kept = sqlite::open(SqliteOptions::memory(&name)).await.expect("a store in memory opens");
        Arc::new(Memory { name, _kept: kept })
    }

    naq_services::conformance_tests!(fresh);
}

#[cfg(feature = "nats")]
mod nats_server;

#[cfg(feature = "nats")]
mod nats {
    use naq_services::storage::nats::{self, ConnectionOptions, NatsOptions};

    use super::{nats_server::NatsServer, *};

    pub(crate) struct Nats(pub(crate) NatsServer);

    #[async_trait]
    impl Fixture for Nats {
        async fn open(&self) -> Result<SharedStorage> {
            let connection = ConnectionOptions { servers: vec![self.0.url.clone()], ..ConnectionOptions::default() };
            nats::open(NatsOptions { connection, ..NatsOptions::default() }).await
        }
    }
}

#[cfg(feature = "nats")]
mod nats_2_9 {
    use super::{nats::Nats, nats_server::NatsServer, *};

    async fn fresh() -> Arc<dyn Fixture> {
        Arc::new(Nats(NatsServer::start("nats-server-2.9", "NAQ_TEST_NATS_2_9").await))
    }

    naq_services::conformance_tests!(fresh);
}

#[cfg(feature = "nats")]
mod nats_2_15 {
    use super::{nats::Nats, nats_server::NatsServer, *};

    async fn fresh() -> Arc<dyn Fixture> {
        Arc::new(Nats(NatsServer::start("nats-server-2.15", "NAQ_TEST_NATS_2_15").await))
    }

    naq_services::conformance_tests!(fresh);
}
