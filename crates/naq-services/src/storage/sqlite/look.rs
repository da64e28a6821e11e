//! What people ask: one job, lists, numbers.
//!
//! Invariant: every answer is of one committed state, and costs what it shows: lists walk an index from their cursor.

use std::{collections::BTreeMap, str::FromStr};

use naq_models::{JobId, JobStatus, Priority, QueueName};
use rusqlite::{Connection, OptionalExtension, Row, Rows, params};

use super::{
    clock::{Moment, boot_id},
    results,
    rows::{self, JOB_COLUMNS, JOB_TABLES, QUEUED, SEQ_MASK, lane_keys, revision_out, status_number},
};
use crate::storage::{ListFilter, ListPage, QueueStats, ScheduledEntry, Sighting, StoredResult};

/// Every trace of an id.
pub(super) fn job(conn: &Connection, now: Moment, id: &JobId) -> rusqlite::Result<Vec<Sighting>> {
    let mut found = Vec::new();
    found.extend(
        conn.prepare_cached(&format!("SELECT {JOB_COLUMNS} FROM {JOB_TABLES} WHERE j.id = ?1"))?
            .query_row([id.as_str()], |row| rows::job(row, now, boot_id()))
            .optional()?,
    );
    let dead = format!("SELECT {} FROM dead d JOIN queues q USING (queue) WHERE d.id = ?1", results::DEAD_COLUMNS);
    found.extend(
        conn.prepare_cached(&dead)?.query_row([id.as_str()], results::dead_letter).optional()?.map(Sighting::Dead),
    );
    found.extend(results::get(conn, now, id)?.map(Sighting::Ended));
    Ok(found)
}

/// The waiting entries of ids.
pub(super) fn scheduled(
    conn: &Connection,
    now: Moment,
    ids: &[JobId],
) -> rusqlite::Result<Vec<Option<ScheduledEntry>>> {
    let mut statement = conn
        .prepare_cached(&format!("SELECT {JOB_COLUMNS} FROM {JOB_TABLES} WHERE j.id = ?1 AND j.status IN (0, 1, 4)"))?;
    ids.iter()
        .map(|id| {
            let found = statement.query_row([id.as_str()], |row| rows::job(row, now, boot_id())).optional()?;
            Ok(found.and_then(|sighting| match sighting {
                Sighting::Scheduled(entry) => Some(entry),
                _ => None,
            }))
        })
        .collect()
}

/// Where a page begins: in a section, after a place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cursor {
    /// Jobs by queue, state, priority and place.
    Job { queue: i64, status: i64, priority: i64, seq: i64 },
    /// Dead letters in the order in which they came.
    Dead { seq: i64 },
    /// Results by revision.
    Result { revision: i64 },
}

/// Before everything.
const START: Cursor = Cursor::Job { queue: 0, status: -1, priority: -1, seq: -1 };

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Job { queue, status, priority, seq } => write!(f, "j.{queue}.{status}.{priority}.{seq}"),
            Self::Dead { seq } => write!(f, "d.{seq}"),
            Self::Result { revision } => write!(f, "r.{revision}"),
        }
    }
}

/// A text that is no cursor of this store.
#[derive(Debug)]
pub(super) struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (section, rest) = text.split_once('.').ok_or(CursorError)?;
        let numbers: Vec<i64> = rest.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| CursorError)?;
        match (section, numbers.as_slice()) {
            ("j", &[queue, status, priority, seq]) => Ok(Self::Job { queue, status, priority, seq }),
            ("d", &[seq]) => Ok(Self::Dead { seq }),
            ("r", &[revision]) => Ok(Self::Result { revision }),
            _ => Err(CursorError),
        }
    }
}

/// One page: jobs, then dead letters, then results.
pub(super) fn list(
    conn: &Connection,
    now: Moment,
    filter: &ListFilter,
    after: Option<Cursor>,
) -> rusqlite::Result<ListPage> {
    let wanted = |status| filter.statuses.is_empty() || filter.statuses.contains(&status);
    let queues = queues(conn, filter.queue.as_ref())?;
    let mut page = Page { now, limit: filter.limit.max(1), items: Vec::new() };
    let after = after.unwrap_or(START);
    if let Cursor::Job { .. } = after {
        let statuses: Vec<i64> =
            [JobStatus::Scheduled, JobStatus::Waiting, JobStatus::Pending, JobStatus::Running, JobStatus::Retry]
                .into_iter()
                .filter(|status| wanted(*status))
                .map(status_number)
                .collect();
        list_jobs(conn, &queues, &statuses, after, &mut page)?;
    }
    if wanted(JobStatus::Failed) && !page.is_full() {
        let seq = if let Cursor::Dead { seq } = after { Some(seq) } else { None };
        if after < (Cursor::Result { revision: i64::MIN }) {
            list_dead(conn, filter.queue.as_ref(), &queues, seq.unwrap_or(-1), &mut page)?;
        }
    }
    let mut statuses: Vec<i64> =
        [JobStatus::Completed, JobStatus::Cancelled].into_iter().filter(|s| wanted(*s)).map(status_number).collect();
    // Who wants both wants all results; those of jobs whose dead letter was purged stand nowhere else.
    if statuses.len() > 1 {
        statuses.push(status_number(JobStatus::Failed));
    }
    if !statuses.is_empty() && !page.is_full() {
        let revision = if let Cursor::Result { revision } = after { revision } else { -1 };
        list_results(conn, filter.queue.as_ref(), &queues, &statuses, revision, &mut page)?;
    }
    Ok(page.cut())
}

/// One more than fits shows whether there is a next page.
struct Page {
    now: Moment,
    limit: usize,
    items: Vec<(Cursor, Sighting)>,
}

impl Page {
    fn is_full(&self) -> bool {
        self.items.len() > self.limit
    }

    /// Takes rows until it is full.
    fn fill(
        &mut self,
        found: &mut Rows<'_>,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<(Cursor, Sighting)>,
    ) -> rusqlite::Result<()> {
        while !self.is_full()
            && let Some(row) = found.next()?
        {
            self.items.extend(rows::known(read(row))?);
        }
        Ok(())
    }

    fn cut(mut self) -> ListPage {
        let more = self.is_full();
        self.items.truncate(self.limit);
        let next = if more { self.items.last().map(|(cursor, _)| cursor.to_string()) } else { None };
        ListPage { items: self.items.into_iter().map(|(_, sighting)| sighting).collect(), next }
    }
}

fn queues(conn: &Connection, only: Option<&QueueName>) -> rusqlite::Result<Vec<(i64, QueueName)>> {
    let mut statement =
        conn.prepare_cached("SELECT queue, name FROM queues WHERE ?1 IS NULL OR name = ?1 ORDER BY queue")?;
    let read = |row: &Row<'_>| rows::known(rows::queue(row, 1).and_then(|name| Ok((row.get(0)?, name))));
    let rows = statement.query_map([only.map(QueueName::as_str)], read)?;
    rows.filter_map(rusqlite::Result::transpose).collect()
}

fn list_jobs(
    conn: &Connection,
    queues: &[(i64, QueueName)],
    statuses: &[i64],
    after: Cursor,
    page: &mut Page,
) -> rusqlite::Result<()> {
    for (queue, _) in queues {
        for status in statuses {
            // Only what is ready is ordered by priority first.
            let priorities: &[Priority] = if *status == QUEUED { &Priority::ALL } else { &Priority::ALL[..1] };
            for priority in priorities {
                let lane = |seq| Cursor::Job { queue: *queue, status: *status, priority: priority.get().into(), seq };
                if lane(i64::MAX) <= after || page.is_full() {
                    continue;
                }
                let from = match after {
                    Cursor::Job { seq, .. } if lane(seq) == after => seq,
                    _ => -1,
                };
                list_lane(conn, (*queue, *status, *priority), from, page, lane)?;
            }
        }
    }
    Ok(())
}

fn list_lane(
    conn: &Connection,
    (queue, status, priority): (i64, i64, Priority),
    after: i64,
    page: &mut Page,
    cursor: impl Fn(i64) -> Cursor,
) -> rusqlite::Result<()> {
    let select = |more: &str| conn.prepare_cached(&format!("SELECT {JOB_COLUMNS}, j.seq FROM {more}"));
    let (mut ready, mut held, mut waiting);
    let mut found = if status == QUEUED {
        let (first, end) = lane_keys(queue, priority);
        ready = select(
            "ready r JOIN jobs j ON j.seq = r.key & ?1 JOIN queues q ON q.queue = j.queue \
             LEFT JOIN leases l ON l.seq = j.seq WHERE r.key > ?2 AND r.key <= ?3 ORDER BY r.key",
        )?;
        ready.query(params![SEQ_MASK, first + after, end])?
    } else if status == status_number(JobStatus::Running) {
        held = select(
            "leases l JOIN jobs j ON j.seq = l.seq JOIN queues q ON q.queue = j.queue \
             WHERE l.queue = ?1 AND l.seq > ?2 ORDER BY l.seq",
        )?;
        held.query(params![queue, after])?
    } else {
        // `status <> 2` tells SQLite that the partial index serves.
        waiting = select(&format!(
            "{JOB_TABLES} WHERE j.queue = ?1 AND j.status = ?3 AND j.status <> 2 AND j.seq > ?2 ORDER BY j.seq"
        ))?;
        waiting.query(params![queue, after, status])?
    };
    let now = page.now;
    page.fill(&mut found, |row| Ok((cursor(row.get(13)?), rows::job(row, now, boot_id())?)))
}

fn list_dead(
    conn: &Connection,
    only: Option<&QueueName>,
    queues: &[(i64, QueueName)],
    after: i64,
    page: &mut Page,
) -> rusqlite::Result<()> {
    let Some(queue) = queue_number(only, queues) else { return Ok(()) };
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {}, d.seq FROM dead d JOIN queues q USING (queue) \
         WHERE d.seq > ?1 AND (?2 IS NULL OR d.queue = ?2) ORDER BY d.seq",
        results::DEAD_COLUMNS
    ))?;
    let mut found = statement.query(params![after, queue])?;
    page.fill(&mut found, |row| Ok((Cursor::Dead { seq: row.get(7)? }, Sighting::Dead(results::dead_letter(row)?))))
}

fn list_results(
    conn: &Connection,
    only: Option<&QueueName>,
    queues: &[(i64, QueueName)],
    statuses: &[i64],
    after: i64,
    page: &mut Page,
) -> rusqlite::Result<()> {
    let Some(queue) = queue_number(only, queues) else { return Ok(()) };
    let one_of = |n: usize| statuses.get(n).copied().unwrap_or(-1);
    let mut statement = conn.prepare_cached(
        "SELECT id, revision, body, expires_at FROM results WHERE revision > ?1 AND (?2 IS NULL OR queue = ?2) \
         AND status IN (?3, ?4, ?5) AND expires_at > ?6 ORDER BY revision",
    )?;
    let mut found = statement.query(params![after, queue, one_of(0), one_of(1), one_of(2), page.now.wall])?;
    page.fill(&mut found, |row| {
        let revision: i64 = row.get(1)?;
        let result = StoredResult {
            id: rows::id(row, 0)?,
            body: rows::body(row, 2)?,
            revision: revision_out(revision),
            expires_at: rows::time(row, 3)?,
        };
        Ok((Cursor::Result { revision }, Sighting::Ended(result)))
    })
}

/// The number to filter by: `Some(None)` for every queue, `None` if the queue is unknown and nothing can match.
fn queue_number(only: Option<&QueueName>, queues: &[(i64, QueueName)]) -> Option<Option<i64>> {
    match only {
        None => Some(None),
        Some(_) => queues.first().map(|(number, _)| Some(*number)),
    }
}

/// The numbers of queues.
pub(super) fn stats(conn: &Connection, only: Option<&QueueName>) -> rusqlite::Result<Vec<QueueStats>> {
    let queues = queues(conn, only)?;
    let mut all: BTreeMap<i64, QueueStats> =
        queues.into_iter().map(|(number, name)| (number, QueueStats::empty(name))).collect();
    let mut waiting =
        conn.prepare_cached("SELECT status, count(*) FROM jobs WHERE queue = ?1 AND status <> 2 GROUP BY status")?;
    let mut ready = conn.prepare_cached("SELECT count(*) FROM ready WHERE key BETWEEN ?1 AND ?2")?;
    let mut running = conn.prepare_cached("SELECT count(*) FROM leases WHERE queue = ?1")?;
    let mut failed = conn.prepare_cached("SELECT count(*) FROM dead WHERE queue = ?1")?;
    // The head of a lane is its oldest, but for what was promoted into it.
    let mut oldest = conn.prepare_cached(
        "SELECT j.stored_at FROM ready r JOIN jobs j ON j.seq = r.key & ?3 WHERE r.key BETWEEN ?1 AND ?2 \
         ORDER BY r.key LIMIT 1",
    )?;
    for (number, stats) in &mut all {
        let mut rows = waiting.query([number])?;
        while let Some(row) = rows.next()? {
            let n = count(row, 1)?;
            match row.get::<_, i64>(0)? {
                0 => stats.scheduled = n,
                1 => stats.waiting = n,
                4 => stats.retry = n,
                // What no naq wrote.
                _ => {}
            }
        }
        stats.running = running.query_row([number], |row| count(row, 0))?;
        stats.failed = failed.query_row([number], |row| count(row, 0))?;
        for (pending, priority) in stats.pending.iter_mut().zip(Priority::ALL) {
            let (first, end) = lane_keys(*number, priority);
            *pending = ready.query_row([first, end], |row| count(row, 0))?;
            if *pending > 0 {
                let head = oldest.query_row([first, end, SEQ_MASK], |row| rows::time(row, 0)).optional()?;
                stats.oldest_pending = stats.oldest_pending.into_iter().chain(head).min();
            }
        }
    }
    if let (Some(name), true) = (only, all.is_empty()) {
        return Ok(vec![QueueStats::empty(name.clone())]);
    }
    Ok(all.into_values().collect())
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}
