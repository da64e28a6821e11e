//! Jobs in the hands of workers: claim, settlement, hand-back, lease extension, review.
//!
//! Invariant: a row is `running` under one token, a number of the store that no other claim ever has; every change by a
//! worker is guarded by it in the same transaction. A lease whose time since boot is over, or of another boot, makes its
//! job claimable again, one delivery older.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use naq_models::Address;
use rusqlite::{OptionalExtension, params};

use super::{
    clock::{after, boot_id},
    jobs,
    results::{self, Won},
    rows::{self, PENDING, RUNNING, revision_in, status_number},
    writer::Tx,
};
use crate::storage::{Action, Claim, Lane, Lease, LeaseState, QueueOptions, ResultRecord, Review, Settled, Settlement};

/// At most so many jobs in one claim.
pub(super) const MAX_CLAIM: usize = 1000;

/// What a consumer asks for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) worker_id: Arc<str>,
    pub(super) queues: Arc<[QueueOptions]>,
    pub(super) lanes: Vec<(Lane, usize)>,
    pub(super) total: usize,
    /// Look for leases that have run out first.
    pub(super) reclaim: bool,
}

/// Claims what is asked for, most urgent lane first, in a lane the oldest place first.
pub(super) fn claim(tx: &mut Tx<'_>, ask: &Ask) -> rusqlite::Result<Vec<Claim>> {
    // By index into `ask.queues`: the number of the queue, and how many of its jobs may be claimed.
    let mut open = Vec::with_capacity(ask.queues.len());
    for queue in &*ask.queues {
        let Some(number) = tx.known_queue(&queue.name)? else {
            open.push(None);
            continue;
        };
        if ask.reclaim {
            reclaim(tx, number)?;
        }
        open.push(Some((number, room_in(tx, number, queue.max_ack_pending)?)));
    }
    let mut total = ask.total.min(MAX_CLAIM);
    let mut claims = Vec::new();
    let mut token = None;
    for (lane, want) in &ask.lanes {
        let (Some(queue), Some(Some((number, room)))) = (ask.queues.get(lane.queue), open.get_mut(lane.queue)) else {
            continue;
        };
        let want = (*want).min(total).min(*room);
        if want == 0 {
            continue;
        }
        let before = claims.len();
        let token = *token.get_or_insert_with(|| tx.next_revision());
        claim_lane(tx, ask, queue, *number, *lane, want, token, &mut claims)?;
        let got = claims.len() - before;
        total -= got;
        *room -= got;
    }
    Ok(claims)
}

/// How many more jobs of a queue may be claimed.
fn room_in(tx: &Tx<'_>, queue: i64, max: Option<u32>) -> rusqlite::Result<usize> {
    let Some(max) = max else { return Ok(usize::MAX) };
    let running: i64 = tx
        .conn
        .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM jobs WHERE queue = ?1 AND status = ?2 LIMIT ?3)")?
        .query_row(params![queue, RUNNING, max], |row| row.get(0))?;
    Ok(usize::try_from(i64::from(max) - running).unwrap_or(0))
}

/// Returns to the queue what is held by leases that have run out.
fn reclaim(tx: &mut Tx<'_>, queue: i64) -> rusqlite::Result<()> {
    let freed = tx
        .conn
        .prepare_cached(
            "UPDATE jobs SET status = ?2, token = NULL, lease_until = NULL, boot = NULL, claimed_at = NULL, worker = NULL \
             WHERE queue = ?1 AND status = ?3 AND (lease_until <= ?4 OR boot <> ?5)",
        )?
        .execute(params![queue, PENDING, RUNNING, tx.now.boot, boot_id()])?;
    if freed > 0 {
        tracing::info!(freed, "jobs came back because their leases ran out");
        tx.changes.jobs = true;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the parts of one statement, with one caller")]
fn claim_lane(
    tx: &Tx<'_>,
    ask: &Ask,
    queue: &QueueOptions,
    number: i64,
    lane: Lane,
    want: usize,
    token: i64,
    claims: &mut Vec<Claim>,
) -> rusqlite::Result<()> {
    let mut select = tx.conn.prepare_cached(
        "SELECT seq, id, stored_at, deliveries, body FROM jobs WHERE queue = ?1 AND status = 2 AND priority = ?2 \
         ORDER BY seq LIMIT ?3",
    )?;
    let mut found = select.query(params![number, lane.priority.get(), i64::try_from(want).unwrap_or(i64::MAX)])?;
    let mut last = None;
    while let Some(row) = found.next()? {
        let seq: i64 = row.get(0)?;
        last = Some(seq);
        claims.push(Claim {
            lease: Lease { id: rows::id(row, 1)?, token: write_token(seq, token), duration: queue.lease },
            lane,
            address: Address {
                id: rows::id(row, 1)?,
                queue: queue.name.clone(),
                priority: lane.priority,
                stored_at: rows::time(row, 2)?,
            },
            body: rows::body(row, 4)?,
            doubtful: row.get::<_, i64>(3)? > 0,
        });
    }
    let Some(last) = last else { return Ok(()) };
    // Exactly the rows just read: the lane up to the last of them.
    tx.conn
        .prepare_cached(
            "UPDATE jobs SET status = 3, deliveries = deliveries + 1, token = ?4, lease_until = ?5, boot = ?6, \
             claimed_at = ?7, worker = ?8 WHERE queue = ?1 AND status = 2 AND priority = ?2 AND seq <= ?3",
        )?
        .execute(params![
            number,
            lane.priority.get(),
            last,
            token,
            after(tx.now.boot, queue.lease),
            boot_id(),
            tx.now.wall,
            &*ask.worker_id,
        ])?;
    Ok(())
}

fn write_token(seq: i64, token: i64) -> Arc<str> {
    let mut text = String::with_capacity(24);
    write!(text, "{seq}.{token}").expect("writing to a String cannot fail");
    Arc::from(text)
}

/// The row and the token; a text that no claim gave matches no row.
fn read_token(text: &str) -> (i64, i64) {
    text.split_once('.').and_then(|(seq, token)| Some((seq.parse().ok()?, token.parse().ok()?))).unwrap_or((-1, -1))
}

/// Ends or moves leased jobs, one outcome each.
pub(super) fn settle(tx: &mut Tx<'_>, settlements: &[Settlement]) -> rusqlite::Result<Vec<Settled>> {
    tx.changes.freed = true;
    settlements.iter().map(|settlement| settle_one(tx, settlement)).collect()
}

fn settle_one(tx: &mut Tx<'_>, settlement: &Settlement) -> rusqlite::Result<Settled> {
    let (seq, token) = read_token(&settlement.lease.token);
    let (result, dead_letter) = match &settlement.action {
        Action::End { result, dead_letter } => (result.as_ref(), dead_letter.as_ref()),
        Action::Again(_) if settlement.fenced => return Ok(Settled::LeaseLost),
        Action::Again(entry) => {
            let moved = again(tx, seq, token, entry)?;
            return Ok(if moved { Settled::Done } else { Settled::LeaseLost });
        }
    };
    if settlement.fenced {
        return end_fenced(tx, settlement, seq, token, result);
    }
    let rows =
        tx.conn.prepare_cached("DELETE FROM jobs WHERE seq = ?1 AND token = ?2")?.execute(params![seq, token])?;
    if rows == 0 {
        return without_lease(tx, settlement, result);
    }
    if let Some(result) = result
        && let Won::No { .. } = results::store(tx, &settlement.address, result)?
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
    settlement: &Settlement,
    seq: i64,
    token: i64,
    result: Option<&ResultRecord>,
) -> rusqlite::Result<Settled> {
    let Some(result) = result else { return Ok(Settled::LeaseLost) };
    let held: bool = tx
        .conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM jobs WHERE seq = ?1 AND token = ?2)")?
        .query_row(params![seq, token], |row| row.get(0))?;
    if !held {
        return without_lease(tx, settlement, Some(result));
    }
    if let Won::No { .. } = results::store(tx, &settlement.address, result)? {
        return Ok(Settled::AlreadyEnded);
    }
    tx.conn.prepare_cached("DELETE FROM jobs WHERE seq = ?1")?.execute([seq])?;
    Ok(Settled::Done)
}

fn again(tx: &mut Tx<'_>, seq: i64, token: i64, entry: &crate::storage::Entry) -> rusqlite::Result<bool> {
    let queue = tx.queue(&entry.address.queue)?;
    let revision = tx.next_revision();
    let rows = tx
        .conn
        .prepare_cached(
            "UPDATE jobs SET queue = ?3, priority = ?4, status = ?5, run = ?6, generation = ?7, revision = ?8, \
             run_at = ?9, deliveries = 0, token = NULL, lease_until = NULL, boot = NULL, claimed_at = NULL, \
             worker = NULL, body = ?10 WHERE seq = ?1 AND token = ?2",
        )?
        .execute(params![
            seq,
            token,
            queue,
            entry.address.priority.get(),
            status_number(entry.status),
            entry.run,
            revision_in(entry.generation),
            revision,
            entry.run_at.map(|at| at.unix_millis()),
            &*entry.body,
        ])?;
    if rows == 1 {
        jobs::note_entered(tx, entry.status);
    }
    Ok(rows == 1)
}

/// Returns jobs to their places, as if they had not been delivered.
pub(super) fn hand_back(tx: &mut Tx<'_>, leases: &[Lease]) -> rusqlite::Result<()> {
    let mut statement = tx.conn.prepare_cached(
        "UPDATE jobs SET status = 2, deliveries = deliveries - 1, token = NULL, lease_until = NULL, boot = NULL, \
         claimed_at = NULL, worker = NULL WHERE seq = ?1 AND token = ?2",
    )?;
    for lease in leases {
        let (seq, token) = read_token(&lease.token);
        statement.execute(params![seq, token])?;
    }
    tx.changes.jobs = true;
    tx.changes.freed = true;
    Ok(())
}

/// Extends leases by their durations from now.
pub(super) fn extend(tx: &mut Tx<'_>, leases: &[Lease]) -> rusqlite::Result<Vec<LeaseState>> {
    let mut statement =
        tx.conn.prepare_cached("UPDATE jobs SET lease_until = ?3 WHERE seq = ?1 AND token = ?2 AND boot = ?4")?;
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
pub(super) fn review(conn: &rusqlite::Connection, lease: &Lease) -> rusqlite::Result<Review> {
    let (seq, token) = read_token(&lease.token);
    let deliveries: Option<i64> = conn
        .prepare_cached("SELECT deliveries FROM jobs WHERE seq = ?1 AND token = ?2")?
        .query_row(params![seq, token], |row| row.get(0))
        .optional()?;
    let result = results::get(conn, &lease.id)?;
    let scheduled_run = conn
        .prepare_cached("SELECT run FROM jobs WHERE id = ?1 AND status IN (0, 1, 4)")?
        .query_row([lease.id.as_str()], |row| row.get(0))
        .optional()?;
    Ok(Review { result, scheduled_run, suspect: deliveries.is_some_and(|deliveries| deliveries > 1) })
}

/// The shortest third of a lease: how long an extension may take.
pub(super) fn patience(leases: &[Lease]) -> Duration {
    leases.iter().map(|lease| lease.duration).min().unwrap_or_default() / 3
}
