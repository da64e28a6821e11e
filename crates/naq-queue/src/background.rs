//! The runtime that the process-wide connection lives on: one thread, started on first use, for the life of the process.
//!
//! Invariant: it runs only naq's own futures, so that a thread may block on it from anywhere, also from within another
//! runtime. It is never shut down: what the store has acknowledged needs nothing of it any more, so the process may end
//! at any time.

use std::{
    future::{self, Future},
    panic::resume_unwind,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    task::JoinHandle,
};

use crate::{QueueError, Result};

static RUNTIME: Mutex<Option<Handle>> = Mutex::new(None);

/// Runs a future on the background runtime and waits for it there. A dropped call does not stop the future.
pub(crate) async fn run<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    Ok(finished(spawn(future)?.await))
}

/// The same for a caller that is no future: blocks its thread. Works within a runtime too, where it blocks one of its
/// threads.
pub(crate) fn block_on<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let (answer, answered) = mpsc::sync_channel(1);
    let task = spawn(future)?;
    let waiter = spawn(async move {
        // The receiver waits below until it has this.
        let _gone = answer.send(task.await);
    })?;
    let outcome = answered.recv().expect("the runtime runs as long as the process");
    drop(waiter);
    Ok(finished(outcome))
}

fn finished<T>(outcome: std::result::Result<T, tokio::task::JoinError>) -> T {
    match outcome {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => unreachable!("nobody cancels tasks of the background runtime"),
        },
    }
}

fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<JoinHandle<T>> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let handle = match &*runtime {
        Some(handle) => handle.clone(),
        None => runtime.insert(start()?).clone(),
    };
    Ok(handle.spawn(future))
}

fn start() -> Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(QueueError::thread)?;
    let handle = runtime.handle().clone();
    let thread = thread::Builder::new().name("naq-connection".to_owned());
    thread.spawn(move || runtime.block_on(future::pending::<()>())).map_err(QueueError::thread)?;
    Ok(handle)
}
