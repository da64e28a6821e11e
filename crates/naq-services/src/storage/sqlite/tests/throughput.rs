//! How fast, against a bare loop over the same rows in the same run. Ignored by default; run in release mode with
//! `cargo test --release -p naq-services throughput -- --ignored --nocapture`.

use std::{path::Path, time::Instant};

use rusqlite::params;

use super::*;

const JOBS: usize = 100_000;
const BATCH: usize = 500;

fn id(n: usize) -> JobId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&(n as u64).to_be_bytes());
    JobId::generate(Timestamp::from_unix_millis(1_800_000_000_000 + n as i64 / 10).unwrap(), random)
}

/// Time passed and processor time used by the whole process; the second hardly depends on who else is busy.
struct Span(Instant, Duration);

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Span {
    fn start() -> Self {
        Self(Instant::now(), processor_time())
    }

    fn report(&self, what: &str) -> (f64, f64) {
        let (passed, used) = (self.0.elapsed(), processor_time() - self.1);
        let (rate, cost) = (JOBS as f64 / passed.as_secs_f64(), used.as_secs_f64() * 1e6 / JOBS as f64);
        println!("{what:<24} {rate:>9.0} jobs/s {cost:>6.2} us of processor time each");
        (rate, cost)
    }
}

/// Enqueue, and claim and finish, without a store around it.
fn bare(path: &Path) -> [(f64, f64); 2] {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
         CREATE TABLE jobs (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, queue TEXT, priority INTEGER,
             status INTEGER, body BLOB);
         CREATE INDEX pending ON jobs (queue, priority, seq) WHERE status = 2;
         CREATE TABLE results (id TEXT PRIMARY KEY, expires_at INTEGER, body BLOB) WITHOUT ROWID;",
    )
    .unwrap();
    let body = [b'x'; 256];
    let started = Span::start();
    for batch in 0..JOBS / BATCH {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut insert = conn
            .prepare_cached("INSERT INTO jobs (id, queue, priority, status, body) VALUES (?1, 'mail', 2, 2, ?2)")
            .unwrap();
        for n in 0..BATCH {
            insert.execute(params![id(batch * BATCH + n).as_str(), body]).unwrap();
        }
        drop(insert);
        conn.execute_batch("COMMIT").unwrap();
    }
    let enqueue = started.report("bare enqueue");
    let started = Span::start();
    for _ in 0..JOBS / BATCH {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        let claimed: Vec<(i64, String, Vec<u8>)> = conn
            .prepare_cached(
                "SELECT seq, id, body FROM jobs WHERE queue = 'mail' AND priority = 2 AND status = 2 ORDER BY seq LIMIT ?1",
            )
            .unwrap()
            .query_map([i64::try_from(BATCH).unwrap()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let last = claimed.last().unwrap().0;
        conn.prepare_cached(
            "UPDATE jobs SET status = 3 WHERE queue = 'mail' AND priority = 2 AND status = 2 AND seq <= ?1",
        )
        .unwrap()
        .execute([last])
        .unwrap();
        conn.execute_batch("COMMIT; BEGIN IMMEDIATE").unwrap();
        let mut delete = conn.prepare_cached("DELETE FROM jobs WHERE seq = ?1").unwrap();
        let mut insert = conn.prepare_cached("INSERT INTO results VALUES (?1, 0, ?2)").unwrap();
        for (seq, id, body) in &claimed {
            delete.execute([seq]).unwrap();
            insert.execute(params![id, body]).unwrap();
        }
        drop((delete, insert));
        conn.execute_batch("COMMIT").unwrap();
    }
    [enqueue, started.report("bare claim + finish")]
}

async fn ours(store: &SharedStorage) -> [(f64, f64); 2] {
    let body = Bytes::from_static(&[b'x'; 256]);
    let entries: Vec<Entry> = (0..JOBS).map(|n| entry_of(id(n), body.clone())).collect();
    let started = Span::start();
    let stored = store.enqueue(entries).await;
    let enqueue = started.report("enqueue");
    assert!(stored.into_iter().all(|outcome| outcome.unwrap() == Enqueued::Stored));
    let started = Span::start();
    let mut receiving = consumer(store, Duration::from_secs(30)).await;
    let mut done = 0;
    let mut settling = tokio::task::JoinSet::new();
    receiving.demand(demand(BATCH));
    while done < JOBS {
        let claimed = claims(&mut receiving).await;
        done += claimed.len();
        receiving.demand(demand(BATCH));
        let settlements: Vec<_> = claimed.iter().map(|claim| completion(claim, body.clone())).collect();
        let store = Arc::clone(store);
        settling.spawn(async move {
            assert!(store.settle(settlements).await.into_iter().all(|outcome| outcome.unwrap() == Settled::Done));
        });
        while settling.len() > 3 {
            settling.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(settled) = settling.join_next().await {
        settled.unwrap();
    }
    [enqueue, started.report("claim + settle")]
}

#[tokio::test]
#[ignore = "prints figures; run in release mode"]
async fn throughput() {
    let dir = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    for round in 0..2 {
        let bare = bare(&dir.path().join(format!("bare-{round}.db")));
        let store = open(SqliteOptions::file(dir.path().join(format!("ours-{round}.db")))).await.unwrap();
        let ours = ours(&store).await;
        store.close().await;
        for (what, ours, bare) in [("enqueue", ours[0], bare[0]), ("run", ours[1], bare[1])] {
            println!("{what}: {:.2} of the rate, {:.2} of the cost", ours.0 / bare.0, ours.1 / bare.1);
        }
    }
}
