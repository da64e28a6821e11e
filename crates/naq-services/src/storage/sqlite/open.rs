//! Opening: from a path to connections and threads, and the stores in memory that this process shares by name.
//!
//! Invariant: a store that opens can be written to and has the tables of this program; everything else is refused here,
//! with the path and what to try. Nothing is created where something else lies.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicUsize},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};

use super::{
    SqliteLocation, SqliteOptions, Synchronous,
    checkpointer::{self, Checkpointer},
    clock::Clock,
    core::{Core, Session},
    doorbell::{Doorbell, Listening},
    error::{Failure, describe, is_busy},
    feeds::OwnWriter,
    inbox::Inbox,
    reader, schema,
    wake::Wake,
    writer::{Commands, Seen, Writer},
};
use crate::storage::{Result, StorageError, StorageErrorKind, VirtualClock};

const OPERATION: &str = "open";
/// Readers of one store; they serve lists, lookups and waits.
const READERS: usize = 2;
/// Statements that a connection keeps prepared; more than there are.
const CACHED_STATEMENTS: usize = 96;
/// Pages of the log after which it is moved into the file: 16 MiB. Longer logs make bulk work faster and reads
/// slower; SQLite's own default is 4 MiB.
pub(crate) const CHECKPOINT_PAGES: u32 = 4000;
/// Pages that the writer keeps, in KiB. With SQLite's own 2 MiB a batch of a thousand jobs does not fit: it writes pages to the
/// log before the commit, and reads them again.
pub(crate) const WRITER_CACHE_KIB: i64 = 16 << 10;
/// The log is cut to this size after a checkpoint.
const LOG_BYTES: u32 = 64 << 20;

/// Opens a session; blocks on the disk.
pub(super) fn open(options: &SqliteOptions) -> Result<Arc<Session>> {
    match &options.location {
        SqliteLocation::File(path) => open_file(options, path),
        SqliteLocation::Memory(name) => open_memory(options, name, Clock::Host),
    }
}

/// Opens the first session of a store in memory that goes by a clock of its own.
pub(super) fn open_virtual(options: &SqliteOptions, clock: VirtualClock) -> Result<Arc<Session>> {
    match &options.location {
        SqliteLocation::File(path) => {
            let text = format!("{}: only a store in memory can have a virtual clock", path.display());
            Err(StorageError::new(StorageErrorKind::Refused, OPERATION, text).with_hint("open it with memory://NAME"))
        }
        SqliteLocation::Memory(name) => open_memory(options, name, Clock::Virtual(clock)),
    }
}

fn open_file(options: &SqliteOptions, path: &Path) -> Result<Arc<Session>> {
    let location = path.display().to_string();
    if options.create_directories
        && let Some(parent) = path.parent()
    {
        std::fs::create_dir_all(parent).map_err(|error| directory_error(parent, error))?;
    }
    let path = absolute(path);
    let mut conn = connect_file(&path, &location, options.busy_timeout)?;
    prepare(&mut conn, &location, options.busy_timeout)?;
    let mut readers = Vec::with_capacity(READERS);
    for _ in 0..READERS {
        let reader = connect_file(&path, &location, options.busy_timeout)?;
        reader
            .pragma_update(None, "query_only", true)
            .map_err(|error| describe(OPERATION, &location, Failure::new(error)))?;
        readers.push(reader);
    }
    start(options, conn, readers, (location, Some(path)), Clock::Host).map(Session::new)
}

/// Connections are opened later too, when the process may be somewhere else.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn directory_error(parent: &Path, error: io::Error) -> StorageError {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => StorageErrorKind::Denied,
        io::ErrorKind::ReadOnlyFilesystem => StorageErrorKind::ReadOnly,
        io::ErrorKind::StorageFull => StorageErrorKind::Full,
        _ => StorageErrorKind::Unreachable,
    };
    StorageError::new(kind, OPERATION, format!("the directory {} cannot be created: {error}", parent.display()))
        .with_hint("name a path in a directory that this user may write to")
        .with_source(error)
}

/// The stores in memory that live in this process.
static IN_MEMORY: Mutex<Option<HashMap<String, Weak<Core>>>> = Mutex::new(None);

fn open_memory(options: &SqliteOptions, name: &str, clock: Clock) -> Result<Arc<Session>> {
    let mut stores = IN_MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let stores = stores.get_or_insert_default();
    stores.retain(|_, core| core.strong_count() > 0);
    let location = format!("memory://{name}");
    if let Some(session) = stores.get(name).and_then(Weak::upgrade).and_then(|core| core.join()) {
        return match clock {
            Clock::Host => Ok(session),
            Clock::Virtual(_) => {
                let text = format!("{location} is open, by its own clock");
                Err(StorageError::new(StorageErrorKind::Conflict, OPERATION, text).with_hint("take another name"))
            }
        };
    }
    let fail = |error| describe(OPERATION, &location, Failure::new(error));
    let mut conn = Connection::open_in_memory().map_err(fail)?;
    configure(&conn).map_err(fail)?;
    prepare(&mut conn, &location, options.busy_timeout)?;
    let core = start(options, conn, Vec::new(), (location, None), clock)?;
    stores.insert(name.to_owned(), Arc::downgrade(&core));
    Ok(Session::new(core))
}

/// A connection to a file, in WAL, that can write.
fn connect_file(path: &Path, location: &str, busy_timeout: Duration) -> Result<Connection> {
    if path.is_dir() {
        let text = format!("{location} is a directory");
        return Err(StorageError::new(StorageErrorKind::Incompatible, OPERATION, text)
            .with_hint("name a file in it, for example jobs.db"));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connected = retry_busy(busy_timeout, || {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(busy_timeout)?;
        // Opened for reading only, silently, if the file may not be written to.
        if conn.is_readonly("main")? {
            return Ok(None);
        }
        // A file of another program is refused before its journal mode is changed.
        if let Err(refusal) = schema::check(&conn, location)? {
            return Ok(Some(Err(refusal)));
        }
        let mode: String = conn.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            let text = format!("{location}: write-ahead logging is not possible there (journal mode {mode})");
            let refusal = StorageError::new(StorageErrorKind::Incompatible, OPERATION, text)
                .with_hint("put the file on a local disk; network file systems do not work");
            return Ok(Some(Err(refusal)));
        }
        configure(&conn)?;
        Ok(Some(Ok(conn)))
    });
    match connected {
        Ok(Some(conn)) => conn,
        Ok(None) => Err(read_only(location)),
        Err(error) => Err(describe(OPERATION, location, Failure::new(error))),
    }
}

fn read_only(location: &str) -> StorageError {
    StorageError::new(StorageErrorKind::ReadOnly, OPERATION, format!("{location} may only be read"))
        .with_hint("give this user write permission on the file and its directory")
}

fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    conn.query_row(&format!("PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}"), [], |_| Ok(()))
}

fn prepare(conn: &mut Connection, location: &str, busy_timeout: Duration) -> Result<()> {
    retry_busy(busy_timeout, || schema::prepare(conn, location))
        .map_err(|error| describe(OPERATION, location, Failure::new(error)))?
}

/// Some locks of opening are refused without the connection's own patience.
fn retry_busy<T>(limit: Duration, mut attempt: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            outcome => return outcome,
        }
    }
}

fn start(
    options: &SqliteOptions,
    conn: Connection,
    readers: Vec<Connection>,
    (location, path): (String, Option<PathBuf>),
    clock: Clock,
) -> Result<Arc<Core>> {
    let wake = Arc::new(Wake::new());
    let commands = Arc::new(Commands::new());
    let reads = path.is_some().then(|| Arc::new(Inbox::new()));
    let mut writer = writer(options, conn, &commands, &wake, &clock, path.as_deref())
        .map_err(|error| describe(OPERATION, &location, Failure::new(error)))?;
    writer.listening = writer.bell.as_ref().and_then(|bell| listen(bell, &commands));
    let mut threads = Vec::new();
    if let Some(path) = &path {
        let other = connect_file(path, &location, options.busy_timeout)?;
        let (checkpointer, calls) =
            Checkpointer::new(&mut writer.conn).map_err(|error| describe(OPERATION, &location, Failure::new(error)))?;
        writer.checkpointer = Some(checkpointer);
        threads.push(spawn("naq-sqlite-checkpoint", move || checkpointer::serve(&other, &calls))?);
    }
    threads.push(spawn("naq-sqlite-writer", move || writer.run())?);
    if let Some(reads) = &reads {
        for conn in readers {
            let reads = Arc::clone(reads);
            threads.push(spawn("naq-sqlite-reader", move || reader::serve(&conn, &reads))?);
        }
    }
    Ok(Arc::new(Core {
        commands,
        reads,
        wake,
        location,
        path,
        options: options.clone(),
        clock,
        threads: Mutex::new(threads),
        sessions: AtomicUsize::new(1),
    }))
}

fn writer(
    options: &SqliteOptions,
    conn: Connection,
    commands: &Arc<Commands>,
    wake: &Arc<Wake>,
    clock: &Clock,
    path: Option<&Path>,
) -> rusqlite::Result<Writer> {
    // The writer waits by itself, so that it can give way to others fairly and in small steps.
    conn.busy_timeout(Duration::ZERO)?;
    conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    Ok(Writer {
        seen: Seen::now(&conn)?,
        conn,
        commands: Arc::clone(commands),
        wake: Arc::clone(wake),
        synchronous: options.synchronous,
        clock: clock.clone(),
        shared: path.is_some(),
        bell: path.and_then(|path| Doorbell::of(path).ok()),
        listening: None,
        checkpointer: None,
        busy_timeout: options.busy_timeout,
        queues: HashMap::new(),
    })
}

/// Without it, and that is all, the file is looked at more often.
fn listen(bell: &Doorbell, commands: &Arc<Commands>) -> Option<Listening> {
    let commands = Arc::clone(commands);
    bell.listen(move || commands.ring())
        // To be heard by itself: until then it is not known whether anything is.
        .inspect(|_| bell.ring())
        .inspect_err(|error| tracing::debug!(%error, "commits of other processes are looked for, not heard of"))
        .ok()
}

/// A further writer of a file, with its own connection and thread.
pub(super) fn open_own_writer(core: &Core, path: &Path) -> Result<OwnWriter> {
    let options = SqliteOptions { synchronous: Synchronous::Normal, ..core.options.clone() };
    let conn = connect_file(path, &core.location, options.busy_timeout)?;
    // The log is the first writer's to move: a heartbeat is not to wait for that.
    conn.query_row("PRAGMA wal_autocheckpoint=0", [], |_| Ok(()))
        .map_err(|error| describe(OPERATION, &core.location, Failure::new(error)))?;
    let commands = Arc::new(Commands::new());
    let writer = writer(&options, conn, &commands, &Arc::new(Wake::new()), &core.clock, Some(path))
        .map_err(|error| describe(OPERATION, &core.location, Failure::new(error)))?;
    let thread = spawn("naq-sqlite-heartbeat", move || writer.run())?;
    Ok(OwnWriter { commands, thread: Some(thread) })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(body).map_err(|error| {
        StorageError::new(StorageErrorKind::Refused, OPERATION, format!("no thread for {name}: {error}"))
            .with_hint("raise the limit of threads of this user")
            .with_source(error)
    })
}
