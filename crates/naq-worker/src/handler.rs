//! Handlers as the executor sees them: [`ErasedHandler`] by kind, in a [`HandlerRegistry`].
//!
//! Invariant: types are erased once, at registration; a kind has exactly one handler. Timeout, panic guard, cancellation
//! and settlement are the executor's.

use std::{collections::HashMap, fmt, future::Future, pin::Pin, sync::Arc};

use naq_models::Verdict;
use naq_services::JobContext;

/// The future of one run.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// A handler without its types.
pub trait ErasedHandler: Send + Sync + 'static {
    /// The stable name that jobs carry.
    fn kind(&self) -> &str;

    /// Runs a job: decodes its arguments, calls the function, turns what it says into a verdict. Arguments that do not
    /// fit are a `decode` failure. Dropping the future abandons the run; what it started outside (a child process)
    /// must end with it.
    fn call(&self, cx: JobContext) -> HandlerFuture;
}

/// The handlers of a worker, one per kind.
#[derive(Default, Clone)]
pub struct HandlerRegistry {
    by_kind: HashMap<String, Arc<dyn ErasedHandler>>,
}

/// A second handler for a kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two handlers are registered for kind {kind:?}")]
pub struct DuplicateHandler {
    /// The kind.
    pub kind: String,
}

impl HandlerRegistry {
    /// Adds a handler.
    ///
    /// # Errors
    /// If its kind has one already.
    pub fn insert(&mut self, handler: Arc<dyn ErasedHandler>) -> Result<(), DuplicateHandler> {
        let kind = handler.kind().to_owned();
        if self.by_kind.contains_key(&kind) {
            return Err(DuplicateHandler { kind });
        }
        self.by_kind.insert(kind, handler);
        Ok(())
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
}

impl fmt::Debug for HandlerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandlerRegistry").field(&self.kinds()).finish()
    }
}
