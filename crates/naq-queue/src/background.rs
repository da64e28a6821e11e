//! The runtime that the process-wide connection lives on: one thread, started on first use, for the life of the process.
//!
//! Invariant: it runs only naq's own futures, and whoever blocks on one polls it on the blocked thread, so that this works
//! from anywhere, also from within another runtime. It is never shut down: what the store has acknowledged needs nothing of
//! it any more, so the process may end at any time.

use std::{
    future::{self, Future},
    panic::resume_unwind,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use tokio::{
    runtime::{Builder, Handle},
    task::unconstrained,
};

use crate::{QueueError, Result};

static RUNTIME: Mutex<Option<Handle>> = Mutex::new(None);

/// Runs a future on the background runtime and waits for it there. A dropped call does not stop the future.
pub(crate) async fn run<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    match runtime()?.spawn(future).await {
        Ok(value) => Ok(value),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => unreachable!("nobody cancels tasks of the background runtime"),
        },
    }
}

/// Runs a future to its end and blocks the thread meanwhile: what each `*_sync` twin does. Works on any thread, also on one
/// of a runtime, which it blocks; tokio's timers and sockets work in it.
///
/// ```
/// # fn main() -> Result<(), naq_queue::QueueError> {
/// let answer = naq_queue::run_async_from_sync(async { 6 * 7 })?;
/// assert_eq!(answer, 42);
/// # Ok(()) }
/// ```
///
/// # Errors
/// If the thread for timers and sockets cannot be started.
///
/// # Panics
/// If the future panics.
pub fn run_async_from_sync<F: Future>(future: F) -> Result<F::Output> {
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let woken = Arc::new(Woken { thread: thread::current(), woken: AtomicBool::new(true) });
    let waker = Waker::from(Arc::clone(&woken));
    // Without the budget of the task that this may be called from: used up, it would let nothing become ready.
    let mut future = pin!(unconstrained(future));
    loop {
        if woken.woken.swap(false, Ordering::Acquire) {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Ok(value);
            }
        } else {
            thread::park();
        }
    }
}

/// Of its own beside the thread's token, which a call within the call may use up.
struct Woken {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

fn runtime() -> Result<Handle> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    match &*runtime {
        Some(handle) => Ok(handle.clone()),
        None => Ok(runtime.insert(start()?).clone()),
    }
}

fn start() -> Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(QueueError::thread)?;
    let handle = runtime.handle().clone();
    let thread = thread::Builder::new().name("naq-connection".to_owned());
    thread.spawn(move || runtime.block_on(future::pending::<()>())).map_err(QueueError::thread)?;
    Ok(handle)
}
