//! [`Place`] and [`Ground`]: where a measurement runs, apart from the user's jobs and gone after it.
//!
//! Invariant: a ground has a name of its own that begins with [`BEGINNING`]: on NATS it is the prefix of its streams, on
//! SQLite the file beside the configured one. Only what has such a name is ever removed. Everything else is as the user's
//! configuration says. What a run leaves that was killed is found by the name.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use naq_config::{ChosenBy, NaqConfig, StoreUrl, Synchronous};
use naq_models::QueueName;
use naq_services::{JobService, NewJob, ServiceManager, new_job::secs, storage::QueueStats};
#[cfg(feature = "nats")]
use naq_services::{storage::nats, streams::StreamService};

use super::{Result, load::Load, report::Store};
use crate::{error::CliError, session::Session};

/// What the names of all grounds begin with; eight hex digits follow.
const BEGINNING: &str = "naqbench";
/// Of a file of SQLite: itself, its log, the index of that, and the log that it has before that.
const SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-journal"];
/// Between two looks whether a store is empty; much shorter than a round.
const LOOK: Duration = Duration::from_millis(2);
/// Queues that are made at once.
const AT_ONCE: usize = 32;
/// The queue of everything that needs only one.
pub(super) const QUEUE: &str = "bench";

/// Where grounds are made: beside the configured store.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// The folder of the configured file.
    Folder(PathBuf),
    Memory,
    /// The account, on the servers, of the configured store.
    Account,
}

/// A store that is measured.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) name: String,
    pub(super) services: ServiceManager,
    pub(super) jobs: JobService,
}

impl Place {
    /// Beside the store of this configuration, whose folder is made if nobody chose the store.
    pub(super) fn of(session: &Session) -> Result<Self> {
        let store = session.services().store();
        Ok(match &store.url {
            StoreUrl::Memory { .. } => Self::Memory,
            StoreUrl::Nats { .. } => Self::Account,
            StoreUrl::Sqlite { path } => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
                if store.chosen_by == ChosenBy::Default {
                    fs::create_dir_all(folder).map_err(|e| in_folder("make", folder, &e))?;
                }
                Self::Folder(folder.to_owned())
            }
        })
    }

    /// A name that no other ground has.
    pub(super) fn name() -> String {
        format!("{BEGINNING}{:08x}", rand::random::<u32>())
    }

    /// Whether another process can open a ground.
    pub(super) fn is_shared(&self) -> bool {
        !matches!(self, Self::Memory)
    }

    /// The services over the ground of a name, with the user's settings.
    pub(super) fn services(&self, session: &Session, name: &str) -> ServiceManager {
        let mut config = session.config().clone();
        name.clone_into(&mut config.queues.prefix);
        // So that events get a stream of this prefix, and what is due is fired by the measured worker.
        config.events.stream.name = NaqConfig::default().events.stream.name;
        config.scheduler.enabled = true;
        let url = match self {
            Self::Folder(folder) => StoreUrl::Sqlite { path: file(folder, name) },
            Self::Memory => StoreUrl::Memory { name: name.to_owned() },
            Self::Account => session.services().store().url.clone(),
        };
        ServiceManager::new(Arc::new(config), url)
    }

    /// Removes the ground of a name, which nobody uses any more, or what is left of it.
    pub(super) async fn remove(&self, session: &Session, name: &str) -> Result<()> {
        match self {
            Self::Memory => Ok(()),
            Self::Folder(folder) => {
                let file = file(folder, name);
                for suffix in SUFFIXES {
                    let mut path = file.clone().into_os_string();
                    path.push(suffix);
                    match fs::remove_file(path) {
                        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(in_folder("remove", &file, &e)),
                        _ => {}
                    }
                }
                Ok(())
            }
            Self::Account => remove_streams(session, name).await,
        }
    }

    /// The names of all grounds that are there: of runs that were killed, and of those that go on now.
    pub(super) async fn left(&self, session: &Session) -> Result<BTreeSet<String>> {
        match self {
            Self::Memory => Ok(BTreeSet::new()),
            Self::Folder(folder) => {
                let entries = match fs::read_dir(folder) {
                    Ok(entries) => entries,
                    // The store cannot be opened then, which says it better.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
                    Err(e) => return Err(in_folder("read", folder, &e)),
                };
                let names = entries.filter_map(|entry| {
                    let name = entry.ok()?.file_name().into_string().ok()?;
                    let (name, suffix) = name.split_once(".db")?;
                    (SUFFIXES.contains(&suffix) && is_ground(name)).then(|| name.to_owned())
                });
                Ok(names.collect())
            }
            Self::Account => prefixes(session).await,
        }
    }

    /// Where the ground of a name lies, for people.
    pub(super) fn describe(&self, name: &str) -> String {
        match self {
            Self::Folder(folder) => format!("the file {}", file(folder, name).display()),
            Self::Memory => format!("memory://{name}"),
            Self::Account => format!("the streams of the prefix {name}"),
        }
    }
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.db"))
}

pub(super) fn is_ground(name: &str) -> bool {
    let digits = name.strip_prefix(BEGINNING);
    digits.is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn in_folder(verb: &str, path: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!("cannot {verb} {}: {error}", path.display()))
}

#[cfg(feature = "nats")]
async fn prefixes(session: &Session) -> Result<BTreeSet<String>> {
    let streams = session.services().get::<StreamService>().await?;
    let found = nats::prefixes(&streams, BEGINNING).await?;
    Ok(found.into_iter().filter(|prefix| is_ground(prefix)).collect())
}

#[cfg(feature = "nats")]
async fn remove_streams(session: &Session, prefix: &str) -> Result<()> {
    // The session's own connection: that of the ground is closed, so that nothing of it makes a stream anew.
    let streams = session.services().get::<StreamService>().await?;
    nats::remove_store(&streams, prefix).await?;
    Ok(())
}

#[cfg(not(feature = "nats"))]
async fn prefixes(_: &Session) -> Result<BTreeSet<String>> {
    Ok(BTreeSet::new())
}

#[cfg(not(feature = "nats"))]
async fn remove_streams(_: &Session, _: &str) -> Result<()> {
    Ok(())
}

impl Ground {
    /// Opens the store, whose streams or tables are made.
    pub(super) async fn open(services: ServiceManager, name: String) -> Result<Self> {
        let jobs = services.jobs().await?;
        Ok(Self { name, services, jobs })
    }

    /// Makes the queues, so that no measurement counts it, and leaves them empty.
    ///
    /// # Cancel safety
    /// Not cancel safe: a queue that is being made may be there after the removal of the ground.
    pub(super) async fn make_queues(&self, load: &Load, queues: &[QueueName]) -> Result<()> {
        let first = queues.iter().map(|queue| load.job().queue(queue).result_ttl(secs(0))).collect();
        let receipts = self.jobs.enqueue_many(first).await;
        let removed = stream::iter(receipts)
            .map(|receipt| async { self.jobs.cancel(&receipt?.job_id, "it has made the queue").await.map(drop) });
        removed.buffer_unordered(AT_ONCE).try_collect::<()>().await.map_err(CliError::from)
    }

    /// Stores jobs in bulk.
    pub(super) async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<()> {
        self.jobs.enqueue_many(jobs).await.into_iter().try_for_each(|receipt| receipt.map(drop))?;
        Ok(())
    }

    /// Returns when [`QUEUE`] holds nothing that is to run, runs, or waits.
    ///
    /// # Cancel safety
    /// Cancel safe: it only looks.
    pub(super) async fn emptied(&self) -> Result<()> {
        loop {
            if self.stats().await?.is_none_or(|stats| is_empty(&stats)) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn stats(&self) -> Result<Option<QueueStats>> {
        Ok(self.jobs.storage().queue_stats(Some(&queue())).await?.pop())
    }

    /// The largest job that it takes, in bytes.
    pub(super) fn max_body(&self) -> usize {
        self.jobs.storage().info().max_body.min(self.jobs.settings().max_body)
    }

    /// What it is, for the report.
    pub(super) fn store(&self) -> Store {
        let info = self.jobs.storage().info();
        let config = self.services.config();
        match &self.services.store().url {
            StoreUrl::Nats { .. } => {
                let servers = match config.nats.replicas {
                    1 => "one copy".to_owned(),
                    copies => format!("{copies} copies"),
                };
                let durability = format!(
                    "{servers}, file storage: an acknowledged write survives a kill of the server; it is flushed to the disk \
                     up to sync_interval later (2 minutes by default), until then a power cut of every copy may take it back"
                );
                Store { kind: "nats", version: format!("nats-server {}", info.version), durability }
            }
            StoreUrl::Sqlite { .. } => {
                let survives = match config.storage.synchronous {
                    Synchronous::Full => "synchronous=FULL: a commit survives a power cut",
                    Synchronous::Normal => "synchronous=NORMAL: a power cut may take back the last commits",
                };
                let durability = format!("one file, write-ahead log, {survives}");
                Store { kind: "sqlite", version: info.version, durability }
            }
            StoreUrl::Memory { .. } => {
                let durability = "in memory: nothing survives the process".to_owned();
                Store { kind: "sqlite", version: info.version, durability }
            }
        }
    }
}

/// [`QUEUE`].
pub(super) fn queue() -> QueueName {
    QueueName::new(QUEUE).expect("a fixed name")
}

fn is_empty(stats: &QueueStats) -> bool {
    let QueueStats { pending, running, scheduled, retry, waiting, .. } = stats;
    pending.iter().sum::<u64>() + running + scheduled + retry + waiting == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches: `--clean` that removes what somebody else has named.
    #[test]
    fn only_names_of_its_own_making_are_grounds() {
        assert!(is_ground(&Place::name()));
        for name in ["naqbench", "naqbench-mine", "naqbench0123456", "naqbench012345678", "naq", "xnaqbench01234567"] {
            assert!(!is_ground(name), "{name}");
        }
    }
}
