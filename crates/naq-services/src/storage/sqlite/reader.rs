//! Readers: threads with a connection each, for what only looks.
//!
//! Invariant: a read sees one committed state of the whole store (it runs in one transaction) and never waits for writers.

use std::sync::Arc;

use rusqlite::Connection;

use super::inbox::{Inbox, Taken};

/// One piece of work for a reader.
pub(super) type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Serves reads until the inbox is closed and empty.
pub(super) fn serve(conn: &Connection, reads: &Arc<Inbox<Read>>) {
    struct CloseAtEnd<'a>(&'a Inbox<Read>);
    impl Drop for CloseAtEnd<'_> {
        fn drop(&mut self) {
            self.0.close();
            self.0.clear();
        }
    }
    let _end = CloseAtEnd(reads);
    let mut batch = Vec::with_capacity(1);
    loop {
        // One at a time, so that the other readers get their share.
        match reads.take(1, None, &mut batch) {
            Taken::Closed => return,
            Taken::Look => {}
            Taken::Items => batch.drain(..).for_each(|read| read(conn)),
        }
    }
}
