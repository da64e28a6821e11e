//! The writer: one thread, one connection, and everything that waits in one transaction.
//!
//! Invariant: a command is answered after the commit of the transaction that holds it, or after that transaction has
//! failed and left no trace. Commands in one transaction share its fate only in its commit: when a statement of one
//! fails, the transaction is undone and each command gets one of its own.
//!
//! Commits of claims and lease extensions are not flushed to the disk by themselves: after a power cut they are gone,
//! and so is every worker that held them. A kill of the process loses neither.

use std::{
    collections::HashMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use naq_models::{JobId, QueueName};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use super::{
    Synchronous,
    checkpointer::Checkpointer,
    clock::{Clock, Moment},
    doorbell::{Doorbell, Listening},
    error::{Failure, is_busy},
    inbox::{Inbox, Taken},
    rows,
    wake::{Changes, Wake},
};

/// At most about so many rows in one transaction, so that nobody waits long behind others.
const MAX_GROUP_ROWS: usize = 2000;
/// How often the file is checked for changes by other processes, while somebody waits for one and nothing is heard of them.
const LOOK_EVERY: Duration = Duration::from_millis(12);
/// The same where commits of others are heard of: for one whose process died before it rang.
const LOOK_EVERY_AT_LEAST: Duration = Duration::from_millis(500);
/// At most so many results are named one by one when another process wrote them.
const MAX_NAMED_RESULTS: usize = 10_000;

/// Whether a commit must survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    /// It must.
    Durable,
    /// It need not.
    Soft,
}

/// One piece of work for the writer.
pub(super) trait Command: Send {
    /// Does the work. May be called again after its transaction was undone.
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()>;
    /// Answers the caller.
    fn finish(self: Box<Self>, committed: Result<(), Failure>);
    /// What its commit has to survive.
    fn commit(&self) -> Commit;
}

/// A command made of a function and the channel for its answer.
pub(super) struct Call<T, F> {
    work: F,
    commit: Commit,
    value: Option<T>,
    reply: oneshot::Sender<Answer<T, F>>,
}

/// The function goes back to the caller: what it holds is dropped there, and not on the writer's thread.
pub(super) type Answer<T, F> = (Result<T, Failure>, F);

impl<T, F> Call<T, F> {
    pub(super) fn new(commit: Commit, work: F) -> (Self, oneshot::Receiver<Answer<T, F>>) {
        let (reply, answer) = oneshot::channel();
        (Self { work, commit, value: None, reply }, answer)
    }
}

impl<T, F> Command for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        self.value = Some((self.work)(tx)?);
        Ok(())
    }

    fn finish(self: Box<Self>, committed: Result<(), Failure>) {
        let answer = match (committed, self.value) {
            (Ok(()), Some(value)) => Ok(value),
            (Ok(()), None) => unreachable!("a committed command has run"),
            (Err(failure), _) => Err(failure),
        };
        // A caller that is gone has chosen not to know.
        self.reply.send((answer, self.work)).ok();
    }

    fn commit(&self) -> Commit {
        self.commit
    }
}

/// What the writer takes.
pub(super) type Commands = Inbox<Box<dyn Command>>;

/// A transaction while it is open.
pub(super) struct Tx<'a> {
    pub(super) conn: &'a Connection,
    pub(super) now: Moment,
    pub(super) changes: &'a mut Changes,
    /// Somebody in this process waits for results.
    pub(super) results_awaited: bool,
    queues: &'a mut HashMap<QueueName, i64>,
    revision: i64,
    revision_read: i64,
    kv_revision: i64,
}

impl Tx<'_> {
    /// The next number of the store.
    pub(super) fn next_revision(&mut self) -> i64 {
        self.revision += 1;
        self.revision
    }

    /// The next number of the store, for a change of a key.
    pub(super) fn next_kv_revision(&mut self) -> i64 {
        self.changes.keys = true;
        self.kv_revision = self.next_revision();
        self.kv_revision
    }

    /// The number of a queue, if it ever held a job.
    pub(super) fn known_queue(&mut self, name: &QueueName) -> rusqlite::Result<Option<i64>> {
        if let Some(known) = self.queues.get(name) {
            return Ok(Some(*known));
        }
        let found = self
            .conn
            .prepare_cached("SELECT queue FROM queues WHERE name = ?1")?
            .query_row([name.as_str()], |row| row.get(0))
            .optional()?;
        if let Some(number) = found {
            self.queues.insert(name.clone(), number);
        }
        Ok(found)
    }

    /// The number of a queue, which is registered if it is new.
    pub(super) fn queue(&mut self, name: &QueueName) -> rusqlite::Result<i64> {
        if let Some(known) = self.known_queue(name)? {
            return Ok(known);
        }
        self.conn.prepare_cached("INSERT INTO queues (name) VALUES (?1)")?.execute([name.as_str()])?;
        let number = self.conn.last_insert_rowid();
        self.queues.insert(name.clone(), number);
        Ok(number)
    }

    fn finish(&self) -> rusqlite::Result<()> {
        if self.revision != self.revision_read {
            self.conn
                .prepare_cached("UPDATE meta SET revision = ?1, kv_revision = ?2")?
                .execute(params![self.revision, self.kv_revision])?;
        }
        Ok(())
    }
}

/// The thread's state. See the module.
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) commands: Arc<Commands>,
    pub(super) wake: Arc<Wake>,
    pub(super) synchronous: Synchronous,
    pub(super) clock: Clock,
    /// Other connections can change the database.
    pub(super) shared: bool,
    /// Those of other processes are told of commits, if that can be had.
    pub(super) bell: Option<Doorbell>,
    /// Commits of other processes are heard of.
    pub(super) listening: Option<Listening>,
    /// Where this writer's commits make the log grow.
    pub(super) checkpointer: Option<Checkpointer>,
    /// How long a transaction may wait for other processes.
    pub(super) busy_timeout: Duration,
    pub(super) queues: HashMap<QueueName, i64>,
    pub(super) seen: Seen,
}

/// What of the other processes' work has been announced here.
#[derive(Debug, Default)]
pub(super) struct Seen {
    data_version: i64,
    revision: i64,
    kv_revision: i64,
    full: bool,
}

impl Seen {
    /// Everything up to now.
    pub(super) fn now(conn: &Connection) -> rusqlite::Result<Self> {
        let data_version = conn.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        let (revision, kv_revision) = read_meta(conn)?;
        Ok(Self { data_version, revision, kv_revision, full: false })
    }
}

fn read_meta(conn: &Connection) -> rusqlite::Result<(i64, i64)> {
    conn.prepare_cached("SELECT revision, kv_revision FROM meta")?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Leaves no caller waiting, however the thread ends.
struct CloseAtEnd(Arc<Commands>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close();
        self.0.clear();
    }
}

impl Writer {
    /// The thread's loop; returns when the inbox is closed and empty.
    pub(super) fn run(mut self) {
        let _end = CloseAtEnd(Arc::clone(&self.commands));
        let mut group = Vec::new();
        loop {
            let hears = self.listening.as_ref().is_some_and(Listening::hears);
            let look_every = self.shared.then_some(if hears { LOOK_EVERY_AT_LEAST } else { LOOK_EVERY });
            match self.commands.take(MAX_GROUP_ROWS, look_every, &mut group) {
                Taken::Closed => return,
                Taken::Look => self.look(),
                Taken::Items => {
                    self.run_group(std::mem::take(&mut group));
                    if let Some(checkpointer) = &mut self.checkpointer {
                        checkpointer.committed(&self.conn);
                    }
                }
            }
        }
    }

    fn run_group(&mut self, mut group: Vec<Box<dyn Command>>) {
        match self.attempt(&mut group) {
            Ok(()) => group.into_iter().for_each(|command| command.finish(Ok(()))),
            // Nobody's fault in particular: the disk, or another process.
            Err(Trouble { failure, shared: true }) => {
                let failure = Failure::new(failure);
                group.into_iter().for_each(|command| command.finish(Err(Arc::clone(&failure))));
            }
            Err(Trouble { failure, shared: false }) if group.len() == 1 => {
                let failure = Failure::new(failure);
                group.into_iter().for_each(|command| command.finish(Err(Arc::clone(&failure))));
            }
            Err(_) => {
                for command in group {
                    let mut alone = vec![command];
                    let outcome = self.attempt(&mut alone).map_err(|trouble| Failure::new(trouble.failure));
                    alone.into_iter().for_each(|command| command.finish(outcome.clone()));
                }
            }
        }
    }

    /// One transaction, begun anew while other processes are in the way and there is time.
    fn attempt(&mut self, group: &mut [Box<dyn Command>]) -> Result<(), Trouble> {
        let deadline = Instant::now() + self.busy_timeout;
        loop {
            let mut changes = Changes::default();
            match self.transact(group, &mut changes) {
                Ok(()) => {
                    self.wake.announce(&changes);
                    if let Some(bell) = self.bell.as_ref().filter(|_| changes.are_awaited()) {
                        bell.ring();
                    }
                    return Ok(());
                }
                Err(trouble) => {
                    self.undo();
                    if !is_busy(&trouble.failure) || Instant::now() >= deadline {
                        return Err(trouble);
                    }
                    thread::sleep(Duration::from_micros(rand::random_range(200..1500)));
                }
            }
        }
    }

    fn undo(&mut self) {
        // Names registered in the transaction are gone with it.
        self.queues.clear();
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back; the next one will fail with its reason");
        }
    }

    fn transact(&mut self, group: &mut [Box<dyn Command>], changes: &mut Changes) -> Result<(), Trouble> {
        let durable = group.iter().any(|command| command.commit() == Commit::Durable);
        self.flush_on_commit(durable && self.synchronous == Synchronous::Full).map_err(Trouble::shared)?;
        self.conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])).map_err(Trouble::shared)?;
        if self.shared {
            self.notice_others().map_err(Trouble::shared)?;
        }
        let (revision, kv_revision) = read_meta(&self.conn).map_err(Trouble::shared)?;
        let mut tx = Tx {
            conn: &self.conn,
            now: self.clock.now(),
            changes,
            results_awaited: self.wake.awaits_results(),
            queues: &mut self.queues,
            revision,
            revision_read: revision,
            kv_revision,
        };
        for command in group {
            command.run(&mut tx).map_err(Trouble::own)?;
        }
        tx.finish().map_err(Trouble::shared)?;
        let (revision, kv_revision) = (tx.revision, tx.kv_revision);
        self.conn.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([])).map_err(Trouble::shared)?;
        self.seen.revision = revision;
        self.seen.kv_revision = kv_revision;
        Ok(())
    }

    /// `synchronous` can change only between transactions.
    fn flush_on_commit(&mut self, full: bool) -> rusqlite::Result<()> {
        if self.shared && self.seen.full != full {
            self.conn.execute_batch(if full { "PRAGMA synchronous=FULL" } else { "PRAGMA synchronous=NORMAL" })?;
            self.seen.full = full;
        }
        Ok(())
    }

    fn look(&mut self) {
        let Err(error) = self.notice_others() else { return };
        if is_busy(&error) {
            // Another process opens or closes the file at this moment; the look is still due.
            thread::sleep(Duration::from_millis(1));
            self.commands.ring();
        } else {
            // The next transaction meets the same failure and reports it to a caller.
            tracing::warn!(%error, "the store could not be checked for changes by other processes");
        }
    }

    /// Announces what other connections have committed since the last look.
    fn notice_others(&mut self) -> rusqlite::Result<()> {
        let data_version =
            self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get::<_, i64>(0))?;
        if data_version == self.seen.data_version {
            return Ok(());
        }
        let (revision, kv_revision) = read_meta(&self.conn)?;
        let mut changes = Changes {
            jobs: true,
            freed: true,
            due: true,
            events: true,
            keys: kv_revision != self.seen.kv_revision,
            ..Changes::default()
        };
        let mut all_results = false;
        if revision != self.seen.revision && self.wake.awaits_results() {
            let mut newer =
                self.conn.prepare_cached("SELECT id FROM results WHERE revision > ?1 ORDER BY revision LIMIT ?2")?;
            let mut rows =
                newer.query(params![self.seen.revision, i64::try_from(MAX_NAMED_RESULTS).unwrap_or(i64::MAX)])?;
            let mut found = 0;
            while let Some(row) = rows.next()? {
                found += 1;
                changes.results.extend(rows::known(rows::id(row, 0))?);
            }
            all_results = found == MAX_NAMED_RESULTS;
        }
        self.wake.announce(&changes);
        if all_results {
            self.wake.announce_all_results();
        }
        self.seen.data_version = data_version;
        self.seen.revision = revision;
        self.seen.kv_revision = kv_revision;
        Ok(())
    }
}

/// Notes a result for those who wait for it.
pub(super) fn note_result(tx: &mut Tx<'_>, id: &JobId) {
    if tx.results_awaited {
        tx.changes.results.push(id.clone());
    } else {
        tx.changes.unnamed_results = true;
    }
}

/// Why a transaction failed.
struct Trouble {
    failure: rusqlite::Error,
    /// Every command in it would have failed alike.
    shared: bool,
}

impl Trouble {
    fn shared(failure: rusqlite::Error) -> Self {
        Self { failure, shared: true }
    }

    fn own(failure: rusqlite::Error) -> Self {
        Self { failure, shared: false }
    }
}
