//! Handlers as the executor sees them: [`ErasedHandler`] by kind, in a [`HandlerRegistry`].
//!
//! Invariant: types are erased once, at registration; a kind has exactly one handler. Timeout, panic guard, cancellation
//! and settlement are the executor's.

use std::{collections::HashMap, fmt, sync::Arc};

pub use naq_services::registration::HandlerFuture;
use naq_services::{
    JobContext,
    context::States,
    registration::{JobFunction, registered},
};

mod typed;

pub use typed::{BlockingHandler, JobHandler, blocking, typed};

/// A handler without its types.
pub trait ErasedHandler: Send + Sync + 'static {
    /// The stable name that jobs carry.
    fn kind(&self) -> &str;

    /// Runs a job: decodes its arguments, calls the function, turns what it says into a verdict. Arguments that do not
    /// fit are a `decode` failure. Dropping the future abandons the run; what it started outside (a child process)
    /// must end with it.
    fn call(&self, cx: JobContext) -> HandlerFuture;

    /// What a worker with these shared values lacks to run it: the name of a type. Asked once, when the worker starts.
    fn missing_from(&self, states: &States) -> Option<&'static str> {
        let _ = states;
        None
    }

    /// Where it was written, for messages: `file:line`.
    fn origin(&self) -> Option<&str> {
        None
    }

    /// Ends what the handler keeps between runs (long-lived child processes). Called once, after its last run has ended;
    /// bounded by a few seconds.
    fn close(&self) -> CloseFuture {
        Box::pin(std::future::ready(()))
    }
}

/// The future of [`ErasedHandler::close`].
pub type CloseFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// The handlers of a worker, one per kind.
#[derive(Default, Clone)]
pub struct HandlerRegistry {
    by_kind: HashMap<String, Arc<dyn ErasedHandler>>,
}

/// A second handler for a kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two handlers are registered for kind {kind:?}: {first} and {second}")]
pub struct DuplicateHandler {
    /// The kind.
    pub kind: String,
    /// Where the first was written, if that is known.
    pub first: String,
    /// Where the second was written, if that is known.
    pub second: String,
}

/// A handler needs a shared value that the worker was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the handler of {kind:?} takes State<{state}>, but the worker was given no such value; add it with `.state(…)`"
)]
pub struct MissingState {
    /// The handler's kind.
    pub kind: String,
    /// The type of the value.
    pub state: &'static str,
}

impl HandlerRegistry {
    /// Adds a handler.
    ///
    /// # Errors
    /// If its kind has one already.
    pub fn insert(&mut self, handler: Arc<dyn ErasedHandler>) -> Result<(), DuplicateHandler> {
        let kind = handler.kind().to_owned();
        if let Some(first) = self.by_kind.get(&kind) {
            let place = |handler: &dyn ErasedHandler| handler.origin().unwrap_or("one added by hand").to_owned();
            return Err(DuplicateHandler { kind, first: place(&**first), second: place(&*handler) });
        }
        self.by_kind.insert(kind, handler);
        Ok(())
    }

    /// Adds every `#[naq::job]` function that is linked into the program.
    ///
    /// # Errors
    /// If two functions, or a function and a handler that is here already, have one kind.
    pub fn insert_registered(&mut self) -> Result<(), DuplicateHandler> {
        registered().try_for_each(|function| self.insert(Arc::new(Registered(function))))
    }

    /// The handler of a kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&Arc<dyn ErasedHandler>> {
        self.by_kind.get(kind)
    }

    /// Every kind, sorted.
    #[must_use]
    pub fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = self.by_kind.keys().map(String::as_str).collect();
        kinds.sort_unstable();
        kinds
    }

    /// Checks that every handler can be given what it takes.
    ///
    /// # Errors
    /// The first handler, by kind, that needs a value that is not among `states`.
    pub fn check_states(&self, states: &States) -> Result<(), MissingState> {
        for kind in self.kinds() {
            if let Some(state) = self.by_kind[kind].missing_from(states) {
                return Err(MissingState { kind: kind.to_owned(), state });
            }
        }
        Ok(())
    }

    /// Ends what handlers keep between runs, all at the same time. To be called after the last run has ended.
    pub async fn close(&self) {
        futures_util::future::join_all(self.by_kind.values().map(|handler| handler.close())).await;
    }
}

impl fmt::Debug for HandlerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandlerRegistry").field(&self.kinds()).finish()
    }
}

/// A `#[naq::job]` function.
struct Registered(&'static JobFunction);

impl ErasedHandler for Registered {
    fn kind(&self) -> &str {
        self.0.kind
    }

    fn call(&self, cx: JobContext) -> HandlerFuture {
        (self.0.call)(cx)
    }

    fn missing_from(&self, states: &States) -> Option<&'static str> {
        (self.0.missing_from)(states)
    }

    fn origin(&self) -> Option<&str> {
        Some(self.0.location)
    }
}
