//! [`Checkpointer`]: moves the log into the database while the writer goes on.
//!
//! Invariant: the log is bounded, as far as readers let it be. SQLite begins it anew only once all of it has been moved, which never
//! comes while the writer is busy and another thread moves; so the writer itself moves the rest of a log of
//! [`MAX_LOG_PAGES`]. Nothing depends on when a page is moved: what is committed is in the log or in the database.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
    mpsc::{Receiver, SyncSender, sync_channel},
};

use rusqlite::{Connection, wal::CheckpointMode};

use super::{error::is_busy, open::CHECKPOINT_PAGES};

/// 64 MiB. Most of it has been moved by then.
const MAX_LOG_PAGES: u32 = 4 * CHECKPOINT_PAGES;

/// The writer's end.
#[derive(Debug)]
pub(super) struct Checkpointer {
    /// Of the log, after the writer's last commit.
    pages: Arc<AtomicU32>,
    begin: SyncSender<()>,
    before: u32,
    due: u32,
}

impl Checkpointer {
    /// From now on `writer` moves nothing by itself. What comes out is for [`serve`].
    pub(super) fn new(writer: &mut Connection) -> rusqlite::Result<(Self, Receiver<()>)> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&pages);
        writer.wal_hook(Some(move |_: &mut _, pages| {
            counted.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        // Without a place to wait in: a call reaches a thread that waits, or none.
        let (begin, calls) = sync_channel(0);
        Ok((Self { pages, begin, before: 0, due: CHECKPOINT_PAGES }, calls))
    }

    /// After each commit of the writer.
    pub(super) fn committed(&mut self, writer: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.before {
            self.due = CHECKPOINT_PAGES;
        }
        self.before = pages;
        if pages < self.due {
            return;
        }
        self.due = pages + CHECKPOINT_PAGES;
        if pages >= MAX_LOG_PAGES {
            checkpoint(writer);
        } else {
            // A thread that does not wait is moving already.
            self.begin.try_send(()).ok();
        }
    }
}

/// Moves when it is called, until the writer's end is gone.
pub(super) fn serve(conn: &Connection, calls: &Receiver<()>) {
    while calls.recv().is_ok() {
        checkpoint(conn);
    }
}

fn checkpoint(conn: &Connection) {
    if let Err(error) = conn.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE)
        && !is_busy(&error)
    {
        tracing::warn!(%error, "the log could not be moved into the database; it grows until that succeeds");
    }
}
