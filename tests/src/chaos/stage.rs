//! The stage: a store of one kind, its servers, and what every process has to know to use it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    BadDisk, ClockShift, NatsOptions, NatsServer, RawNats, ServerVersion, eventually, nats_server::free_port,
    short_times,
};

/// What an account may store while nothing is wrong, bytes.
pub(super) const PLENTY: u64 = 8 << 30;
/// Servers of a cluster, and copies of each stream.
const CLUSTER: usize = 3;

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// One file.
    Sqlite,
    /// One server.
    Nats(ServerVersion),
    /// Three servers, with three copies of every stream.
    Cluster(ServerVersion),
}

impl Store {
    /// Each with its name.
    pub const ALL: [(&str, Store); 5] = [
        ("sqlite", Store::Sqlite),
        ("nats-2.9", Store::Nats(ServerVersion::V2_9)),
        ("nats-2.15", Store::Nats(ServerVersion::V2_15)),
        ("cluster-2.9", Store::Cluster(ServerVersion::V2_9)),
        ("cluster-2.15", Store::Cluster(ServerVersion::V2_15)),
    ];
}

impl FromStr for Store {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Store> {
        let named = Store::ALL.into_iter().find(|(name, _)| *name == text);
        named.map(|(_, store)| store).with_context(|| {
            let names = Store::ALL.map(|(name, _)| name).join(", ");
            format!("{text:?} is no store: {names}")
        })
    }
}

/// A store, and the clock and the disk that its users share.
#[derive(Debug)]
pub(super) struct Stage {
    /// Where servers listen; empty for a file.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) clock: ClockShift,
    pub(super) database: PathBuf,
    /// Of the database.
    pub(super) disk: BadDisk,
}

impl Stage {
    /// The stage, and the servers, which whoever breaks them owns.
    pub(super) async fn start(store: Store, folder: &Path) -> Result<(Stage, Vec<NatsServer>)> {
        let servers = match store {
            Store::Sqlite => Vec::new(),
            Store::Nats(version) => {
                let options = NatsOptions { extra: limited(PLENTY), ..NatsOptions::default() };
                vec![NatsServer::start_with(version, options).await?]
            }
            Store::Cluster(version) => cluster(version).await?,
        };
        let addresses = servers.iter().map(NatsServer::address).collect();
        let database = folder.join("jobs.db");
        let (clock, disk) = (ClockShift::prepare(folder)?, BadDisk::prepare(folder, &database)?);
        Ok((Stage { addresses, clock, database, disk }, servers))
    }

    /// The variables of a process that reaches servers at these addresses.
    pub(super) fn env(&self, addresses: &[SocketAddr]) -> Vec<(String, String)> {
        let url = if addresses.is_empty() {
            format!("sqlite://{}", self.database.display())
        } else {
            addresses.iter().map(|address| format!("nats://{address}")).collect::<Vec<_>>().join(",")
        };
        let copies = self.addresses.len().max(1).to_string();
        let store =
            [("NAQ_URL", url), ("NAQ_NATS__REPLICAS", copies.clone()), ("NAQ_EVENTS__STREAM__REPLICAS", copies)];
        store.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(short_times()).collect()
    }
}

/// Configuration of a server whose only account may store so many bytes.
pub(super) fn limited(bytes: u64) -> String {
    format!(
        "accounts {{ jobs {{ jetstream {{ max_mem: 1G, max_file: {bytes} }}, users [{{ user: j, password: j }}] }} }}\n\
         no_auth_user: j\n"
    )
}

async fn cluster(version: ServerVersion) -> Result<Vec<NatsServer>> {
    let ports = (0..CLUSTER).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
    let routes: Vec<String> = ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
    let mut servers = Vec::new();
    for port in &ports {
        // Clients must not learn of ways around their proxies.
        let extra = format!(
            "cluster {{ name: naq, listen: \"127.0.0.1:{port}\", no_advertise: true, routes: [{}] }}\n",
            routes.join(", ")
        );
        servers.push(NatsServer::start_with(version, NatsOptions { extra, ..NatsOptions::default() }).await?);
    }
    healthy(&servers, Duration::from_secs(30)).await?;
    Ok(servers)
}

/// Returns once a cluster has a leader that answers.
pub(super) async fn healthy(servers: &[NatsServer], limit: Duration) -> Result<()> {
    let answers = async |server: &NatsServer| {
        let info = async {
            let mut raw = RawNats::connect(server.address()).await?;
            raw.request_json("$JS.API.INFO", &Value::Null).await
        };
        matches!(tokio::time::timeout(Duration::from_secs(1), info).await, Ok(Ok(_)))
    };
    let one = eventually(limit, "a server that has a leader", async || {
        for server in servers {
            if answers(server).await {
                return Some(());
            }
        }
        None
    });
    one.await.with_context(|| servers[0].log())
}
