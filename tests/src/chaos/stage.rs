//! The stage: a store of one kind, its servers, and what every process has to know to use it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::sleep;

use crate::{NatsOptions, NatsServer, ServerVersion, nats_server::free_port};

/// How long a job stays with a worker that is silent.
pub(super) const LEASE: Duration = Duration::from_secs(2);
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

/// A store, and a clock that its users share.
#[derive(Debug)]
pub(super) struct Stage {
    /// Where servers listen; empty for a file.
    pub(super) addresses: Vec<SocketAddr>,
    folder: PathBuf,
    shift: PathBuf,
    library: PathBuf,
}

impl Stage {
    /// The stage, and the servers, which whoever breaks them owns.
    pub(super) async fn start(store: Store, folder: &Path) -> Result<(Stage, Vec<NatsServer>)> {
        let (shift, library) = (folder.join("clock_shift"), folder.join("clock_shift.so"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/clock_shift.c");
        // The compiler that has built SQLite for these tests.
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status()?;
        ensure!(built.success(), "cc: {built}");
        let servers = match store {
            Store::Sqlite => Vec::new(),
            Store::Nats(version) => {
                let options = NatsOptions { extra: limited(PLENTY), ..NatsOptions::default() };
                vec![NatsServer::start_with(version, options).await?]
            }
            Store::Cluster(version) => cluster(version).await?,
        };
        let addresses = servers.iter().map(NatsServer::address).collect();
        let stage = Stage { addresses, folder: folder.to_owned(), shift, library };
        stage.shift_clock(0)?;
        Ok((stage, servers))
    }

    pub(super) fn database(&self) -> PathBuf {
        self.folder.join("jobs.db")
    }

    /// The variables of a process that reaches servers at these addresses.
    pub(super) fn env(&self, addresses: &[SocketAddr]) -> Vec<(String, String)> {
        let url = if addresses.is_empty() {
            format!("sqlite://{}", self.database().display())
        } else {
            addresses.iter().map(|address| format!("nats://{address}")).collect::<Vec<_>>().join(",")
        };
        let copies = self.addresses.len().max(1).to_string();
        let variables = [
            ("NAQ_URL", url),
            ("NAQ_NATS__REPLICAS", copies.clone()),
            ("NAQ_EVENTS__STREAM__REPLICAS", copies),
            ("NAQ_QUEUES__ACK_WAIT", format!("{}s", LEASE.as_secs())),
            ("NAQ_SCHEDULER__LOCK_TTL", "2s".to_owned()),
            ("NAQ_SCHEDULER__LOCK_RENEW_INTERVAL", "500ms".to_owned()),
            ("NAQ_WORKERS__HEARTBEAT_INTERVAL", "500ms".to_owned()),
            ("NAQ_WORKERS__TTL", "2s".to_owned()),
            ("NAQ_RESULTS__CLEANUP_INTERVAL", "1s".to_owned()),
            ("NAQ_NATS__RECONNECT_TIME_WAIT", "100ms".to_owned()),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// What lets a process see the shifted clock.
    pub(super) fn clock(&self) -> [(String, String); 2] {
        let text = |path: &Path| path.display().to_string();
        [("LD_PRELOAD".to_owned(), text(&self.library)), ("NAQ_TEST_CLOCK_SHIFT".to_owned(), text(&self.shift))]
    }

    /// From now on the wall clock of every process is so many seconds off.
    pub(super) fn shift_clock(&self, seconds: i64) -> Result<()> {
        // In one step, because a process may look at any moment.
        let new = self.shift.with_extension("new");
        fs::write(&new, seconds.to_string())?;
        Ok(fs::rename(&new, &self.shift)?)
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
    let until = tokio::time::Instant::now() + limit;
    while tokio::time::Instant::now() < until {
        for server in servers {
            let info = async {
                let mut raw = crate::RawNats::connect(server.address()).await?;
                raw.request_json("$JS.API.INFO", &serde_json::Value::Null).await
            };
            if let Ok(Ok(info)) = tokio::time::timeout(Duration::from_secs(1), info).await
                && info["error"].is_null()
            {
                return Ok(());
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    bail!("the cluster has no leader within {limit:?}\n{}", servers[0].log())
}
