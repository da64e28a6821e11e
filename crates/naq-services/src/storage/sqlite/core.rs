//! [`Core`]: the threads and connections of one open store; [`Session`]: one handle to it.
//!
//! Invariant: every thread here has its end: closing the last session, or dropping it, closes the inboxes, and a thread
//! leaves when its inbox is closed and empty. A closed session refuses; others on the same store go on.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use rusqlite::Connection;

use super::{
    SqliteOptions,
    clock::{Clock, Moment},
    error::{Failure, closed, describe},
    inbox::{Inbox, InboxClosed, Watching},
    reader::Read,
    wake::Wake,
    writer::{Call, Command, Commands, Commit, Tx},
};
use crate::storage::{Result, StorageError, StorageErrorKind};

/// See the module.
pub(super) struct Core {
    pub(super) commands: Arc<Commands>,
    /// `None` in memory, where the one connection serves reads too.
    pub(super) reads: Option<Arc<Inbox<Read>>>,
    pub(super) wake: Arc<Wake>,
    pub(super) location: String,
    /// `None` in memory.
    pub(super) path: Option<PathBuf>,
    pub(super) options: SqliteOptions,
    pub(super) clock: Clock,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(super) sessions: AtomicUsize,
}

impl Core {
    /// One more session, unless the last has gone.
    pub(super) fn join(self: &Arc<Self>) -> Option<Arc<Session>> {
        let joined = self.sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n > 0).then_some(n + 1));
        joined.ok().map(|_| Session::new(Arc::clone(self)))
    }

    fn leave(&self) {
        if self.sessions.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.commands.close();
            if let Some(reads) = &self.reads {
                reads.close();
            }
        }
    }
}

/// Why a call was not done.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    /// The session or the store is closed.
    Closed,
    /// The transaction failed and left no trace.
    Failed(Failure),
}

/// One handle to a store; the store closes with its last.
pub(super) struct Session {
    pub(super) core: Arc<Core>,
    closed: AtomicBool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Session {
    /// Counted in `sessions` already.
    pub(super) fn new(core: Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core, closed: AtomicBool::new(false) })
    }

    fn leave(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.core.leave();
        }
    }

    /// Refuses new calls and, as the last session, waits until the threads are done.
    pub(super) async fn close(&self) {
        self.leave();
        if self.core.sessions.load(Ordering::Acquire) > 0 {
            return;
        }
        let threads = std::mem::take(&mut *self.core.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(JoinHandle::join).filter(std::result::Result::is_err).count()
        });
        match joined.await {
            Ok(0) => {}
            Ok(panicked) => tracing::error!(panicked, store = self.core.location, "threads of the store panicked"),
            Err(error) => tracing::error!(%error, store = self.core.location, "the store's end could not be awaited"),
        }
    }

    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed(operation, &self.core.location)) } else { Ok(()) }
    }

    pub(super) fn error(
        &self,
        kind: StorageErrorKind,
        operation: &'static str,
        detail: impl std::fmt::Display,
    ) -> StorageError {
        StorageError::new(kind, operation, format!("{}: {detail}", self.core.location))
    }

    /// Runs work in the writer's next transaction; `weight` is about how many rows it touches.
    pub(super) async fn write<T, F>(&self, operation: &'static str, commit: Commit, weight: usize, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let outcome = self.call(&self.core.commands, commit, weight, work).await;
        outcome.map_err(|refusal| self.explain(operation, refusal))
    }

    /// [`write`](Self::write) by any writer of this store, with an error that several callers can share.
    pub(super) async fn call<T, F>(
        &self,
        commands: &Commands,
        commit: Commit,
        weight: usize,
        work: F,
    ) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        if self.closed.load(Ordering::Acquire) {
            return Err(Refusal::Closed);
        }
        let (call, answer) = Call::new(commit, work);
        let command: Box<dyn Command> = Box::new(call);
        commands.put(weight, command).await.map_err(|InboxClosed| Refusal::Closed)?;
        let (answer, _work) = answer.await.map_err(|_| Refusal::Closed)?;
        answer.map_err(Refusal::Failed)
    }

    /// The error of an operation that was refused.
    pub(super) fn explain(&self, operation: &'static str, refusal: Refusal) -> StorageError {
        match refusal {
            Refusal::Closed => closed(operation, &self.core.location),
            Refusal::Failed(failure) => describe(operation, &self.core.location, failure),
        }
    }

    /// Runs work that only looks, on one committed state, at one moment.
    pub(super) async fn read<T, F>(&self, operation: &'static str, mut work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection, Moment) -> rusqlite::Result<T> + Send + 'static,
    {
        let Some(reads) = &self.core.reads else {
            return self.write(operation, Commit::Soft, 1, move |tx| work(tx.conn, tx.now)).await;
        };
        self.check_open(operation)?;
        let (reply, answer) = tokio::sync::oneshot::channel();
        let clock = self.core.clock.clone();
        let read: Read = Box::new(move |conn| {
            let value = conn.unchecked_transaction().and_then(|tx| work(&tx, clock.now()));
            // A caller that is gone has chosen not to know.
            reply.send(value).ok();
        });
        let gone = || closed(operation, &self.core.location);
        reads.put(1, read).await.map_err(|InboxClosed| gone())?;
        let value = answer.await.map_err(|_| gone())?;
        value.map_err(|error| self.explain(operation, Refusal::Failed(Failure::new(error))))
    }

    /// While it lives, changes by other processes are noticed within 20 ms.
    pub(super) fn watch(&self) -> Watching<'_, Box<dyn Command>> {
        self.core.commands.watch()
    }
}
