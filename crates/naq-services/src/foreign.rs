//! [`ForeignStore`]: brings jobs over from the Python NAQ and from OmniQ.
//!
//! Invariant: a record is removed there only after naq has it durably, and only as it was read. The id stays the same, so
//! what is brought over twice is stored once, and a run that was cut off is finished by the next one. What cannot be read
//! without loss stays where it is, unchanged, and is reported with its reason.
//!
//! Not here: moving jobs between two stores of naq, results, running Python. Code that was stored (pickled functions) is
//! never loaded. Workers of the other system have to be stopped by whoever calls this: a job that one of them runs
//! meanwhile runs here too.

use std::collections::BTreeMap;

use naq_config::{NaqConfig, StoreUrl};
use naq_models::Timestamp;

#[cfg(feature = "nats")]
use crate::open::connection_options;
#[cfg(not(all(feature = "nats", feature = "sqlite")))]
use crate::open::not_built;
use crate::{CallError, SchedulerService, StorageError, StorageErrorKind, storage::crash::crash_point};

mod arrival;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "nats")]
mod literal;
mod mapping;
mod omniq;
#[cfg(feature = "nats")]
mod pickle;
#[cfg(feature = "nats")]
mod python_naq;
mod report;
#[cfg(test)]
mod samples;

use arrival::Stored;
use mapping::{Incoming, Kinds};
use omniq::files::Files;
#[cfg(feature = "sqlite")]
use omniq::table::Table;
#[cfg(feature = "nats")]
use python_naq::streams::{self, Streams};
pub use report::{ForeignReport, LeftBehind, LeftExample, LeftReason};

/// A system whose jobs can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignSystem {
    /// NAQ for Python, on a NATS server.
    NaqPython,
    /// OmniQ, in an SQLite file or a directory.
    OmniQ,
}

/// How to bring jobs over.
#[derive(Debug, Clone, Default)]
pub struct ForeignOptions {
    /// What a function's path there is called as a kind here. A path that is not named is its own kind.
    pub kinds: BTreeMap<String, String>,
    /// Nothing is stored and nothing removed: what would come over is only counted. An id that is taken here, or a job that
    /// is too large, does not show then.
    pub dry_run: bool,
}

/// Why bringing jobs over ended early. What was stored until then is stored, and the rest is where it was.
pub type ForeignError = CallError<ForeignErrorKind>;

/// The kinds of [`ForeignError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ForeignErrorKind {
    /// The other system's store failed, or is none.
    Source(StorageErrorKind),
    /// The store of naq failed.
    Destination(StorageErrorKind),
}

impl ForeignError {
    fn source_failed(message: impl Into<String>, source: StorageError) -> Self {
        Self::new(ForeignErrorKind::Source(source.kind()), message).with_hint_of(source.hint()).with_source(source)
    }

    fn destination_failed(source: StorageError) -> Self {
        Self::new(ForeignErrorKind::Destination(source.kind()), NOT_STORED)
            .with_hint_of(source.hint())
            .with_source(source)
    }
}

type Result<T, E = ForeignError> = std::result::Result<T, E>;

const NOT_STORED: &str = "cannot store what was read";

/// Why a record is not brought over, with a detail for people.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Left {
    reason: LeftReason,
    detail: String,
}

impl Left {
    fn new(reason: LeftReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// One record of the other system.
#[derive(Debug)]
struct Item<P> {
    /// Where it lies, for people.
    label: String,
    /// Where it lies, as it was read.
    place: P,
    read: std::result::Result<Incoming, Left>,
}

/// A store of another system.
trait Source: Sync {
    /// Where a record lies, as it was read.
    type Place: Send;

    /// The next records; none at the end.
    fn page(
        &mut self,
        kinds: &Kinds,
        now: Timestamp,
    ) -> impl Future<Output = std::result::Result<Vec<Item<Self::Place>>, StorageError>> + Send;

    /// Removes records that are still as they were read; whether each was. A failure may come after some were removed.
    fn remove(
        &self,
        places: Vec<Self::Place>,
    ) -> impl Future<Output = std::result::Result<Vec<bool>, StorageError>> + Send;
}

/// An open store of another system.
#[derive(Debug)]
pub struct ForeignStore(Opened);

#[derive(Debug)]
enum Opened {
    #[cfg(feature = "nats")]
    Streams(Box<Streams>),
    #[cfg(feature = "sqlite")]
    Table(Table),
    Files(Files),
}

impl ForeignStore {
    /// Opens the store of another system, to read and to remove what was read. Changes nothing there.
    ///
    /// `from` is a NATS URL for [`ForeignSystem::NaqPython`] (user, password and TLS as for naq's own connections), and
    /// `sqlite:PATH` for [`ForeignSystem::OmniQ`], of its file or of the directory of its file backend.
    ///
    /// # Errors
    /// [`ForeignErrorKind::Source`] if it cannot be reached, or is no store of that system.
    #[cfg_attr(not(feature = "nats"), expect(unused_variables, reason = "only a server has settings"))]
    pub async fn open(system: ForeignSystem, from: &StoreUrl, config: &NaqConfig) -> Result<Self> {
        let opened = match (system, from) {
            #[cfg(feature = "nats")]
            (ForeignSystem::NaqPython, StoreUrl::Nats { servers }) => {
                let streams = Streams::open(connection_options(servers, config)).await;
                streams.map(|streams| Opened::Streams(Box::new(streams)))
            }
            (ForeignSystem::OmniQ, StoreUrl::Sqlite { path }) if path.is_dir() => {
                Files::open(path).await.map(Opened::Files)
            }
            #[cfg(feature = "sqlite")]
            (ForeignSystem::OmniQ, StoreUrl::Sqlite { path }) => Table::open(path).await.map(Opened::Table),
            #[cfg(not(feature = "nats"))]
            (ForeignSystem::NaqPython, StoreUrl::Nats { .. }) => Err(not_built(from, "nats")),
            #[cfg(not(feature = "sqlite"))]
            (ForeignSystem::OmniQ, StoreUrl::Sqlite { .. }) => Err(not_built(from, "sqlite")),
            (ForeignSystem::NaqPython, _) => Err(misplaced(from, "NAQ has its jobs at nats://HOST:PORT")),
            (ForeignSystem::OmniQ, _) => Err(misplaced(from, "write sqlite:PATH, of OmniQ's file or directory")),
        };
        opened.map(Self).map_err(|source| ForeignError::source_failed("cannot open the other system's store", source))
    }

    /// That `to` is no store of naq under the very names that a Python NAQ uses on that server: opening it there would
    /// meet buckets and streams of NAQ's. To be asked before the store of naq is opened.
    ///
    /// # Errors
    /// [`ForeignErrorKind::Destination`], of kind [`StorageErrorKind::Incompatible`], if it is; or the server cannot be
    /// reached.
    #[cfg_attr(not(feature = "nats"), allow(unused_variables, clippy::unused_async, reason = "nothing to ask there"))]
    pub async fn check_destination(to: &StoreUrl, config: &NaqConfig) -> Result<()> {
        #[cfg(feature = "nats")]
        if let StoreUrl::Nats { servers } = to
            && config.queues.prefix == streams::PREFIX
            && Streams::are_at(connection_options(servers, config)).await.map_err(ForeignError::destination_failed)?
        {
            let kind = ForeignErrorKind::Destination(StorageErrorKind::Incompatible);
            let message = format!("a Python NAQ has its jobs at {to}, under the prefix {:?} as well", streams::PREFIX);
            return Err(ForeignError::new(kind, message).with_hint(
                "give naq another prefix there (queues.prefix, NAQ_QUEUE_PREFIX=naq2), and its workers the same",
            ));
        }
        Ok(())
    }

    /// Brings over everything that can be read, and removes it there. What is added or changed there meanwhile is left for
    /// another call.
    ///
    /// # Errors
    /// If either store fails. Called again, it goes on where it stopped.
    pub async fn bring_over(&mut self, to: &SchedulerService, options: &ForeignOptions) -> Result<ForeignReport> {
        match &mut self.0 {
            #[cfg(feature = "nats")]
            Opened::Streams(source) => bring_over(&mut **source, to, options).await,
            #[cfg(feature = "sqlite")]
            Opened::Table(source) => bring_over(source, to, options).await,
            Opened::Files(source) => bring_over(source, to, options).await,
        }
    }

    /// Ends the connection.
    pub async fn close(self) {
        match self.0 {
            #[cfg(feature = "nats")]
            Opened::Streams(streams) => streams.close().await,
            #[cfg(feature = "sqlite")]
            Opened::Table(_) => {}
            Opened::Files(_) => {}
        }
    }
}

fn misplaced(from: &StoreUrl, hint: &str) -> StorageError {
    let detail = format!("{from} is no place where that system keeps jobs");
    StorageError::new(StorageErrorKind::Refused, "open", detail).with_hint(hint)
}

async fn bring_over<S: Source>(
    source: &mut S,
    to: &SchedulerService,
    options: &ForeignOptions,
) -> Result<ForeignReport> {
    let reading = |source| ForeignError::source_failed("cannot read the other system's store", source);
    let mut report = ForeignReport::default();
    loop {
        let now = to.jobs().storage().now().await.map_err(ForeignError::destination_failed)?;
        let page = source.page(&options.kinds, now).await.map_err(reading)?;
        if page.is_empty() {
            return Ok(report);
        }
        let mut stored = Stored::new(&mut report);
        if options.dry_run {
            stored.foresee(to, page, now);
            continue;
        }
        stored.take(to, page, now).await;
        let Stored { places, failure, .. } = stored;
        crash_point("foreign.stored");
        let (labels, places): (Vec<String>, Vec<S::Place>) = places.into_iter().unzip();
        let removed = source.remove(places).await.map_err(|source| {
            ForeignError::source_failed("cannot remove what was stored from the other system's store", source)
        })?;
        crash_point("foreign.removed");
        for (label, _) in labels.into_iter().zip(removed).filter(|(_, removed)| !removed) {
            report.leave(label, Left::new(LeftReason::ChangedMeanwhile, "it is here too"));
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
}
