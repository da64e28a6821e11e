//! Jobs in the hands of workers: claim, settlement, hand-back, lease extension, review.
//!
//! Invariant: a claimed job has a row in `leases` under one token, a number of the store that no other claim ever has;
//! every change by a worker is guarded by it in the same transaction. A lease whose time since boot is over, or of another
//! boot, makes its job ready again, with one more delivery counted as lost.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use naq_models::{Address, JobStatus, Priority};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::{
    clock::{Moment, after, boot_id},
    jobs, kv,
    results::{self, ResultInsert, Won},
    rows::{self, SEQ_MASK, lane_keys, ready_key, revision_in, status_number},
    writer::Tx,
};
use crate::storage::{
    Action, Claim, Demand, Entry, Lane, Lease, LeaseState, QueueOptions, ResultRecord, Review, Settled, Settlement,
};

/// At most so many jobs in one claim.
pub(super) const MAX_CLAIM: usize = 1000;

/// What a consumer asks for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) worker_id: Arc<str>,
    pub(super) queues: Arc<[QueueOptions]>,
    pub(super) demand: Demand,
    /// Look for leases that have run out first.
    pub(super) reclaim: bool,
}

/// What was claimed, and which lanes had less than was asked of them.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    pub(super) claims: Vec<Claim>,
    pub(super) empty: Vec<Lane>,
}

/// Claims what is asked for, most urgent lane first, in a lane the oldest place first.
pub(super) fn claim(tx: &mut Tx<'_>, ask: &Ask) -> rusqlite::Result<Claimed> {
    if ask.reclaim {
        reclaim(tx)?;
    }
    // By index into `ask.queues`: the number of the queue, if it ever held a job.
    let numbers = ask.queues.iter().map(|queue| tx.known_queue(&queue.name)).collect::<rusqlite::Result<Vec<_>>>()?;
    let (mut claims, mut empty) = (Vec::new(), Vec::new());
    let mut token = None;
    let limited = ask.queues.iter().any(|queue| queue.max_ack_pending.is_some());
    let held = if limited { count(tx, "SELECT count(*) FROM leases", &[])? } else { 0 };
    for (lane, want) in &ask.demand.lanes {
        let before = claims.len();
        let want = (*want).min(MAX_CLAIM).saturating_sub(before);
        if want == 0 {
            continue;
        }
        if let (Some(queue), Some(Some(number))) = (ask.queues.get(lane.queue), numbers.get(lane.queue)) {
            let room = match queue.max_ack_pending.map(|max| max as usize) {
                // All priorities of all queues together are seldom too many.
                Some(max) if held + before + want > max => {
                    want.min(max.saturating_sub(held_of(tx, *number, lane.priority)?))
                }
                _ => want,
            };
            if room > 0 {
                let token = *token.get_or_insert_with(|| tx.next_revision());
                loop {
                    let room = room - (claims.len() - before);
                    let foreign = claim_lane(tx, ask, (*lane, room), (queue, *number), token, &mut claims)?;
                    // Others may lie behind them.
                    if foreign == 0 {
                        break;
                    }
                }
            }
        }
        if claims.len() - before < want {
            empty.push(*lane);
        }
    }
    Ok(Claimed { claims, empty })
}

/// How many jobs of a lane are claimed.
fn held_of(tx: &Tx<'_>, queue: i64, priority: Priority) -> rusqlite::Result<usize> {
    let of_lane = "SELECT count(*) FROM leases l JOIN jobs j ON j.seq = l.seq WHERE l.queue = ?1 AND j.priority = ?2";
    count(tx, of_lane, &[&queue, &i64::from(priority.get())])
}

fn count(tx: &Tx<'_>, sql: &str, params: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<usize> {
    let found = tx.conn.prepare_cached(sql)?.query_row(params, |row| row.get::<_, i64>(0))?;
    Ok(usize::try_from(found).unwrap_or(0))
}

/// Makes ready what is held by leases that have run out, of any queue: there are no more leases than running jobs.
fn reclaim(tx: &mut Tx<'_>) -> rusqlite::Result<()> {
    let mut select = tx.conn.prepare_cached(
        "SELECT l.seq, j.queue, j.priority FROM leases l LEFT JOIN jobs j ON j.seq = l.seq \
         WHERE l.lease_until <= ?1 OR l.boot <> ?2",
    )?;
    let found = select.query_map(params![tx.now.boot, boot_id()], |row| {
        // Nothing is known of a row that somebody removed or changed beside naq.
        let place = rows::known(rows::priority(row, 2).and_then(|priority| Ok((row.get(1)?, priority))))?;
        Ok((row.get::<_, i64>(0)?, place))
    })?;
    let freed: Vec<_> = found.collect::<rusqlite::Result<_>>()?;
    for (seq, place) in &freed {
        tx.conn.prepare_cached("UPDATE jobs SET lost = lost + 1 WHERE seq = ?1")?.execute([seq])?;
        tx.conn.prepare_cached("DELETE FROM leases WHERE seq = ?1")?.execute([seq])?;
        if let Some((queue, priority)) = place {
            make_ready(tx, *queue, *priority, *seq)?;
        }
    }
    if !freed.is_empty() {
        tracing::info!(jobs = freed.len(), "jobs came back because their leases ran out");
        tx.changes.freed = true;
    }
    Ok(())
}

/// A job goes (back) to its place.
fn make_ready(tx: &mut Tx<'_>, queue: i64, priority: Priority, seq: i64) -> rusqlite::Result<()> {
    tx.conn.prepare_cached("INSERT INTO ready (key) VALUES (?1)")?.execute([ready_key(queue, priority, seq)])?;
    tx.changes.jobs = true;
    Ok(())
}

/// Claims the beginning of a lane. How many of its rows were none of naq's and have left it.
fn claim_lane(
    tx: &Tx<'_>,
    ask: &Ask,
    (lane, want): (Lane, usize),
    (queue, number): (&QueueOptions, i64),
    token: i64,
    claims: &mut Vec<Claim>,
) -> rusqlite::Result<usize> {
    let (first, end) = lane_keys(number, lane.priority);
    let mut select = tx.conn.prepare_cached(
        "SELECT r.key, j.seq, j.id, j.stored_at, j.lost, j.body FROM ready r LEFT JOIN jobs j ON j.seq = r.key & ?4 \
         WHERE r.key BETWEEN ?1 AND ?2 ORDER BY r.key LIMIT ?3",
    )?;
    let mut found = select.query(params![first, end, i64::try_from(want).unwrap_or(i64::MAX), SEQ_MASK])?;
    let since = Duration::from_millis(tx.now.boot.unsigned_abs());
    let (mut last, mut foreign) = (None, Vec::new());
    let mut text = String::with_capacity(24);
    let mut read = |row: &Row<'_>| {
        let id = rows::id(row, 2)?;
        text.clear();
        write!(text, "{}.{token}", row.get::<_, i64>(1)?).expect("writing to a String cannot fail");
        Ok(Claim {
            lease: Lease { id: id.clone(), token: Arc::from(text.as_str()), since, duration: queue.lease },
            lane,
            address: Address { id, queue: queue.name.clone(), priority: lane.priority, stored_at: rows::time(row, 3)? },
            body: rows::body(row, 5)?,
            doubtful: row.get::<_, i64>(4)? > 0,
        })
    };
    while let Some(row) = found.next()? {
        let key: i64 = row.get(0)?;
        last = Some(key);
        match rows::known(read(row))? {
            Some(claim) => claims.push(claim),
            None => foreign.push(key),
        }
    }
    let Some(last) = last else { return Ok(0) };
    // They leave the lane, else they would be in the way of every claim. What is in `jobs` stays for whoever wrote it.
    for key in &foreign {
        tx.conn.prepare_cached("DELETE FROM ready WHERE key = ?1")?.execute([key])?;
    }
    if let Some(key) = foreign.first() {
        tracing::error!(
            rows = foreign.len(),
            first = key & SEQ_MASK,
            "rows that no naq wrote were taken out of a queue; see `naq system doctor`"
        );
    }
    // Exactly the rows just read: the lane up to the last of them.
    tx.conn
        .prepare_cached(
            "INSERT INTO leases (seq, queue, token, lease_until, boot, claimed_at, worker) \
             SELECT key & ?3, ?4, ?5, ?6, ?7, ?8, ?9 FROM ready WHERE key BETWEEN ?1 AND ?2",
        )?
        .execute(params![
            first,
            last,
            SEQ_MASK,
            number,
            token,
            after(tx.now.boot, queue.lease),
            boot_id(),
            tx.now.wall,
            &*ask.worker_id,
        ])?;
    tx.conn.prepare_cached("DELETE FROM ready WHERE key BETWEEN ?1 AND ?2")?.execute([first, last])?;
    Ok(foreign.len())
}

/// The row and the token; a text that no claim gave matches no row.
fn read_token(text: &str) -> (i64, i64) {
    text.split_once('.').and_then(|(seq, token)| Some((seq.parse().ok()?, token.parse().ok()?))).unwrap_or((-1, -1))
}

/// From so many on, rows that follow each other leave with one statement for all.
const MIN_RUN: usize = 4;

/// The statements of the happy path, prepared once for a batch.
struct Endings<'c> {
    lease: CachedStatement<'c>,
    job: CachedStatement<'c>,
    held: CachedStatement<'c>,
    leases: CachedStatement<'c>,
    jobs: CachedStatement<'c>,
    result: ResultInsert<'c>,
}

impl<'c> Endings<'c> {
    fn new(conn: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            lease: conn.prepare_cached("DELETE FROM leases WHERE seq = ?1 AND token = ?2")?,
            job: conn.prepare_cached("DELETE FROM jobs WHERE seq = ?1")?,
            held: conn.prepare_cached("SELECT count(*) FROM leases WHERE seq BETWEEN ?1 AND ?2 AND token = ?3")?,
            leases: conn.prepare_cached("DELETE FROM leases WHERE seq BETWEEN ?1 AND ?2")?,
            jobs: conn.prepare_cached("DELETE FROM jobs WHERE seq BETWEEN ?1 AND ?2")?,
            result: ResultInsert::new(conn)?,
        })
    }

    /// Removes a job; `false` if it is not held under `token`.
    fn remove(&mut self, seq: i64, token: i64) -> rusqlite::Result<bool> {
        if self.lease.execute([seq, token])? == 0 {
            return Ok(false);
        }
        self.job.execute([seq])?;
        Ok(true)
    }

    /// Removes the jobs `first..=last`; `false`, and nothing is removed, if one of them is not held under `token`.
    fn remove_run(&mut self, first: i64, last: i64, token: i64) -> rusqlite::Result<bool> {
        let held: i64 = self.held.query_row([first, last, token], |row| row.get(0))?;
        if held != last - first + 1 {
            return Ok(false);
        }
        self.leases.execute([first, last])?;
        self.jobs.execute([first, last])?;
        Ok(true)
    }
}

/// A settlement in its batch, with what its token says.
struct Settling<'a> {
    settlement: &'a Settlement,
    /// In the batch as it was given.
    index: usize,
    seq: i64,
    token: i64,
}

impl<'a> Settling<'a> {
    fn new((index, settlement): (usize, &'a Settlement)) -> Self {
        let (seq, token) = read_token(&settlement.lease.token);
        Self { settlement, index, seq, token }
    }

    /// All that it takes to remove it is its lease.
    fn is_plain_end(&self) -> bool {
        !self.settlement.fenced && matches!(self.settlement.action, Action::End { .. })
    }

    fn runs_on(&self, next: &Self) -> bool {
        self.token == next.token
            && self.seq.checked_add(1) == Some(next.seq)
            && self.is_plain_end()
            && next.is_plain_end()
    }
}

/// Ends or moves leased jobs, one outcome each.
///
/// The jobs of a claim lie beside each other, and quick ones end together: their rows leave in runs.
pub(super) fn settle(tx: &mut Tx<'_>, settlements: &[Settlement]) -> rusqlite::Result<Vec<Settled>> {
    tx.changes.freed = true;
    let mut endings = Endings::new(tx.conn)?;
    let mut batch: Vec<_> = settlements.iter().enumerate().map(Settling::new).collect();
    batch.sort_by_key(|settling| (settling.token, settling.seq));
    let mut outcomes = vec![Settled::LeaseLost; settlements.len()];
    for run in batch.chunk_by(Settling::runs_on) {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        let removed = run.len() >= MIN_RUN && endings.remove_run(first.seq, last.seq, first.token)?;
        for settling in run {
            outcomes[settling.index] = settle_one(tx, &mut endings, settling, removed)?;
        }
    }
    Ok(outcomes)
}

/// `removed`: the job is gone already.
fn settle_one(
    tx: &mut Tx<'_>,
    endings: &mut Endings<'_>,
    &Settling { settlement, seq, token, .. }: &Settling<'_>,
    removed: bool,
) -> rusqlite::Result<Settled> {
    let (result, dead_letter, key) = match &settlement.action {
        Action::End { result, dead_letter, unique_key } => {
            (result.as_ref(), dead_letter.as_ref(), unique_key.as_deref())
        }
        Action::Again(_) if settlement.fenced => return Ok(Settled::LeaseLost),
        Action::Again(entry) => {
            let moved = again(tx, seq, token, entry)?;
            return Ok(if moved { Settled::Done } else { Settled::LeaseLost });
        }
    };
    if settlement.fenced {
        return end_fenced(tx, endings, settlement, (result, key));
    }
    if !removed && !endings.remove(seq, token)? {
        return without_lease(tx, settlement, result);
    }
    kv::release(tx, key, &settlement.address.id)?;
    if let Some(result) = result
        && let Won::No { .. } = endings.result.store(tx, &settlement.address, result)?
    {
        return Ok(Settled::AlreadyEnded);
    }
    if let Some(letter) = dead_letter {
        results::store_dead_letter(tx, letter)?;
    }
    Ok(Settled::Done)
}

/// The lease is gone. The job may have been ended meanwhile (then its cancel intent has reached its worker), or it is
/// with somebody else.
fn without_lease(tx: &mut Tx<'_>, settlement: &Settlement, result: Option<&ResultRecord>) -> rusqlite::Result<Settled> {
    let id = &settlement.address.id;
    let lives: bool = tx
        .conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1)")?
        .query_row([id.as_str()], |row| row.get(0))?;
    if lives {
        return Ok(Settled::LeaseLost);
    }
    jobs::remove_cancel_intent(tx, id)?;
    let ended = match result {
        Some(result) => results::newer_than_generation(tx, id, result.generation)?,
        None => false,
    };
    Ok(if ended { Settled::AlreadyEnded } else { Settled::LeaseLost })
}

/// In doubt, only a terminal result may come, and only with it does the job go.
fn end_fenced(
    tx: &mut Tx<'_>,
    endings: &mut Endings<'_>,
    settlement: &Settlement,
    (result, key): (Option<&ResultRecord>, Option<&str>),
) -> rusqlite::Result<Settled> {
    let Some(result) = result else { return Ok(Settled::LeaseLost) };
    let (seq, token) = read_token(&settlement.lease.token);
    let held: bool = tx
        .conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM leases WHERE seq = ?1 AND token = ?2)")?
        .query_row(params![seq, token], |row| row.get(0))?;
    if !held {
        return without_lease(tx, settlement, Some(result));
    }
    if let Won::No { .. } = endings.result.store(tx, &settlement.address, result)? {
        return Ok(Settled::AlreadyEnded);
    }
    endings.remove(seq, token)?;
    kv::release(tx, key, &settlement.address.id)?;
    Ok(Settled::Done)
}

fn again(tx: &mut Tx<'_>, seq: i64, token: i64, entry: &Entry) -> rusqlite::Result<bool> {
    let held =
        tx.conn.prepare_cached("DELETE FROM leases WHERE seq = ?1 AND token = ?2")?.execute(params![seq, token])?;
    if held == 0 {
        return Ok(false);
    }
    let queue = tx.queue(&entry.address.queue)?;
    let revision = tx.next_revision();
    tx.conn
        .prepare_cached(
            "UPDATE jobs SET queue = ?2, priority = ?3, status = ?4, run = ?5, generation = ?6, revision = ?7, \
             run_at = ?8, lost = 0, body = ?9 WHERE seq = ?1",
        )?
        .execute(params![
            seq,
            queue,
            entry.address.priority.get(),
            status_number(entry.status),
            entry.run,
            revision_in(entry.generation),
            revision,
            entry.run_at.map(|at| at.unix_millis()),
            &*entry.body,
        ])?;
    if entry.status == JobStatus::Pending {
        make_ready(tx, queue, entry.address.priority, seq)?;
    }
    jobs::note_entered(tx, entry.status);
    Ok(true)
}

/// Returns jobs to their places, as if they had not been delivered.
pub(super) fn hand_back(tx: &mut Tx<'_>, leases: &[Lease]) -> rusqlite::Result<()> {
    let mut delete = tx.conn.prepare_cached("DELETE FROM leases WHERE seq = ?1 AND token = ?2")?;
    let mut select = tx.conn.prepare_cached("SELECT queue, priority FROM jobs WHERE seq = ?1")?;
    for lease in leases {
        let (seq, token) = read_token(&lease.token);
        if delete.execute(params![seq, token])? == 0 {
            continue;
        }
        let (queue, priority) = select.query_row([seq], |row| Ok((row.get(0)?, rows::priority(row, 1)?)))?;
        make_ready(tx, queue, priority, seq)?;
    }
    tx.changes.freed = true;
    Ok(())
}

/// Extends leases by their durations from now.
pub(super) fn extend(tx: &mut Tx<'_>, leases: &[Lease]) -> rusqlite::Result<Vec<LeaseState>> {
    let mut statement =
        tx.conn.prepare_cached("UPDATE leases SET lease_until = ?3 WHERE seq = ?1 AND token = ?2 AND boot = ?4")?;
    leases
        .iter()
        .map(|lease| {
            let (seq, token) = read_token(&lease.token);
            let until = after(tx.now.boot, lease.duration);
            let rows = statement.execute(params![seq, token, until, boot_id()])?;
            Ok(if rows == 1 { LeaseState::Held } else { LeaseState::Lost })
        })
        .collect()
}

/// What earlier deliveries of a claim left behind. An entry in the scheduled store it cannot have: it is the same row.
pub(super) fn review(conn: &Connection, now: Moment, lease: &Lease) -> rusqlite::Result<Review> {
    let (seq, token) = read_token(&lease.token);
    let lost: Option<i64> = conn
        .prepare_cached("SELECT lost FROM jobs JOIN leases USING (seq) WHERE seq = ?1 AND token = ?2")?
        .query_row(params![seq, token], |row| row.get(0))
        .optional()?;
    let result = results::get(conn, now, &lease.id)?;
    let scheduled_run = conn
        .prepare_cached("SELECT run FROM jobs WHERE id = ?1 AND status IN (0, 1, 4)")?
        .query_row([lease.id.as_str()], |row| row.get(0))
        .optional()?;
    Ok(Review { result, scheduled_run, suspect: lost.is_some_and(|lost| lost > 0) })
}

/// The shortest third of a lease: how long an extension may take.
pub(super) fn patience(leases: &[Lease]) -> Duration {
    leases.iter().map(|lease| lease.duration).min().unwrap_or_default() / 3
}
