//! Keeps tests that need the whole machine from running beside each other in one process. Between processes (nextest),
//! `.config/nextest.toml` does.

use tokio::sync::{Mutex, MutexGuard};

/// Waits until no other heavy test runs; the heavy part lasts as long as the value lives.
pub(crate) async fn heavy() -> MutexGuard<'static, ()> {
    static GATE: Mutex<()> = Mutex::const_new(());
    GATE.lock().await
}
