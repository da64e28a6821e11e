//! The tasks of an SQLite file of OmniQ.
//!
//! Invariant: a task is removed only as it was read: what a worker of OmniQ has taken or changed meanwhile stays. Nothing
//! else in the file is changed, and no file is made.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use naq_models::{RawJson, Timestamp};
use rusqlite::{Connection, OpenFlags, Row, params};

use super::{Task, task};
use crate::{
    foreign::{Item, Left, LeftReason, Source, mapping::Kinds},
    patterns::run_in_thread,
    storage::{StorageError, StorageErrorKind, sqlite},
};

/// Tasks a page.
const PAGE: u32 = 256;
/// How long to wait for the write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SELECT: &str = "SELECT t.rowid, t.id, t.func_path, t.args, t.kwargs, t.status, t.schedule, t.max_retries, t.timeout, \
     t.attempts, t.updated_at, t.error, r.error \
     FROM tasks t LEFT JOIN results r ON r.task_id = t.id \
     WHERE t.rowid > ?1 AND t.status IN ('PENDING', 'RETRYING', 'RUNNING', 'FAILED') ORDER BY t.rowid LIMIT ?2";
const DELETE: &str = "DELETE FROM tasks WHERE id = ?1 AND status = ?2 AND updated_at = ?3";

/// A file of OmniQ.
#[derive(Debug)]
pub(in crate::foreign) struct Table {
    conn: Arc<Mutex<Connection>>,
    location: Arc<str>,
    after: i64,
}

/// A task as it was read.
#[derive(Debug, Clone)]
pub(in crate::foreign) struct Place {
    id: String,
    status: String,
    updated_at: String,
}

impl Table {
    /// Opens a file that is there.
    pub(in crate::foreign) async fn open(path: &Path) -> Result<Self, StorageError> {
        let (path, location): (PathBuf, Arc<str>) = (path.to_owned(), path.display().to_string().into());
        let opened = blocking(&location, move || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let conn = Connection::open_with_flags(path, flags)?;
            conn.busy_timeout(BUSY_TIMEOUT)?;
            // As OmniQ itself has it: the result of an earlier attempt goes with its task.
            conn.pragma_update(None, "foreign_keys", true)?;
            let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('tasks', 'results')";
            let tables: u32 = conn.query_row(tables, [], |row| row.get(0))?;
            Ok((conn, tables))
        });
        let (conn, tables) = opened.await?;
        if tables < 2 {
            let detail = format!("{location}: no tables of OmniQ (`tasks` and `results`)");
            return Err(StorageError::new(StorageErrorKind::Incompatible, "open", detail)
                .with_hint("name the file of OmniQ's SQLite backend, or the directory of its file backend"));
        }
        Ok(Self { conn: Arc::new(Mutex::new(conn)), location, after: 0 })
    }

    async fn with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let conn = Arc::clone(&self.conn);
        blocking(&self.location, move || call(&mut conn.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

impl Source for Table {
    type Place = Place;

    async fn page(&mut self, kinds: &Kinds, now: Timestamp) -> Result<Vec<Item<Place>>, StorageError> {
        let (after, kinds) = (self.after, kinds.clone());
        let page = self.with(move |conn| {
            let mut statement = conn.prepare_cached(SELECT)?;
            let rows = statement.query_map(params![after, PAGE], |row| Ok((row.get(0)?, item(row, &kinds, now)?)))?;
            rows.collect::<rusqlite::Result<Vec<(i64, Item<Place>)>>>()
        });
        let page = page.await?;
        self.after = page.last().map_or(self.after, |(row, _)| *row);
        Ok(page.into_iter().map(|(_, item)| item).collect())
    }

    async fn remove(&self, places: Vec<Place>) -> Result<Vec<bool>, StorageError> {
        self.with(move |conn| {
            let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let mut removed = Vec::with_capacity(places.len());
            {
                let mut statement = tx.prepare_cached(DELETE)?;
                for Place { id, status, updated_at } in &places {
                    removed.push(statement.execute(params![id, status, updated_at])? > 0);
                }
            }
            tx.commit()?;
            Ok(removed)
        })
        .await
    }
}

fn item(row: &Row<'_>, kinds: &Kinds, now: Timestamp) -> rusqlite::Result<Item<Place>> {
    let place = Place { id: row.get(1)?, status: row.get(5)?, updated_at: row.get(10)? };
    let read = read(row, &place).and_then(|(found, told)| task(found, told, kinds, now));
    Ok(Item { label: place.id.clone(), place, read })
}

fn read(row: &Row<'_>, place: &Place) -> Result<(Task, Option<String>), Left> {
    let unreadable = |error: &dyn std::error::Error| Left::new(LeftReason::NotJson, error.to_string());
    let text = |at: usize| row.get_ref(at).map_err(|e| unreadable(&e))?.as_str_or_null().map_err(|e| unreadable(&e));
    let json = |at: usize| RawJson::parse(text(at)?.unwrap_or_default()).map_err(|e| unreadable(&e));
    let task = Task {
        id: place.id.clone(),
        func_path: text(2)?.unwrap_or_default().to_owned(),
        args: json(3)?,
        kwargs: json(4)?,
        status: place.status.clone(),
        schedule: json(6)?.to().map_err(|e| unreadable(&e))?,
        max_retries: row.get(7).map_err(|e| unreadable(&e))?,
        timeout: row.get(8).map_err(|e| unreadable(&e))?,
        attempts: row.get(9).map_err(|e| unreadable(&e))?,
        updated_at: Some(place.updated_at.clone()),
        error: text(11)?.map_or(Ok(None), serde_json::from_str).map_err(|e| unreadable(&e))?,
    };
    Ok((task, text(12)?.map(str::to_owned)))
}

/// Runs a call of SQLite where it may block.
async fn blocking<T: Send + 'static>(
    location: &str,
    call: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, StorageError> {
    run_in_thread(call).await.map_err(|failure| sqlite::error::describe("read OmniQ", location, Arc::new(failure)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_worker_has_taken_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("omniq.db");
        let worker = Connection::open(&path).unwrap();
        worker
            .execute_batch(
                "CREATE TABLE tasks (id TEXT PRIMARY KEY, func_path TEXT, args TEXT, kwargs TEXT, status TEXT, schedule TEXT, \
                 max_retries INTEGER, timeout INTEGER, attempts INTEGER, updated_at TEXT, error TEXT);
                 CREATE TABLE results (task_id TEXT PRIMARY KEY, error TEXT);
                 INSERT INTO tasks VALUES ('taken', 'f', '[]', '{}', 'PENDING', '{}', 3, NULL, 0, '1', NULL),
                     ('moved', 'f', '[]', '{}', 'PENDING', '{}', 3, NULL, 0, '1', NULL),
                     ('free', 'f', '[]', '{}', 'PENDING', '{}', 3, NULL, 0, '1', NULL),
                     ('blob', 'f', x'80', '{}', 'PENDING', '{}', 3, NULL, 0, '1', NULL);",
            )
            .unwrap();
        let mut table = Table::open(&path).await.unwrap();
        let page = table.page(&Kinds::new(), Timestamp::EPOCH).await.unwrap();
        let reasons: Vec<_> = page.iter().map(|item| item.read.as_ref().err().map(|left| left.reason)).collect();
        assert_eq!(reasons, [None, None, None, Some(LeftReason::NotJson)]);
        assert!(table.page(&Kinds::new(), Timestamp::EPOCH).await.unwrap().is_empty());
        worker
            .execute_batch(
                "UPDATE tasks SET status = 'RUNNING' WHERE id = 'taken';
                 UPDATE tasks SET updated_at = '2' WHERE id = 'moved';",
            )
            .unwrap();
        let places = page.into_iter().take(3).map(|item| item.place).collect();
        assert_eq!(table.remove(places).await.unwrap(), [false, false, true]);
        let left: u32 = worker.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 3);
    }
}
