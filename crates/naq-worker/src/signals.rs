//! Process signals as requests to a [`Shutdown`]: SIGINT and SIGTERM, each taking its next step.
//!
//! Invariant: installed once by the program, never by the worker: a library must not take a host's signals.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

use crate::Shutdown;

/// The task that listens; dropping it stops listening (the signals then do nothing).
#[derive(Debug)]
#[must_use = "signals are heard only while this lives"]
pub struct SignalListener(JoinHandle<()>);

impl Drop for SignalListener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens for SIGINT and SIGTERM: the first asks `shutdown` to stop, the second to stop now.
///
/// # Errors
/// If the operating system refuses the signal handlers.
///
/// # Panics
/// Outside a tokio runtime with I/O enabled.
#[expect(clippy::disallowed_methods, reason = "the handle is kept in the listener and aborted with it")]
pub fn listen(shutdown: Shutdown) -> io::Result<SignalListener> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let task = tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                Some(()) = interrupt.recv() => "SIGINT",
                Some(()) = terminate.recv() => "SIGTERM",
                else => return,
            };
            tracing::info!(signal = name, again = shutdown.is_requested(), "asked to stop");
            shutdown.request();
        }
    });
    Ok(SignalListener(task))
}
