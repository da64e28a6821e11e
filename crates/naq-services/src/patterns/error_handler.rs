//! [`ErrorHandler`]: what to do about errors, by their type; [`wrap_naq_exception`].
//!
//! Invariant: an error is looked for among its own type and those of its sources, outermost first; nothing is swallowed:
//! whoever hands an error over still has it.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    sync::{Mutex, PoisonError},
};

use crate::{Failure, IntoFailure, failure};

/// Looks whether an error is of its type, and calls what was registered if so.
type Case = Box<dyn Fn(&(dyn Error + 'static), &str) -> bool + Send + Sync>;

/// The most sources of an error that are looked at; a chain may be cyclic.
const MAX_CHAIN: usize = 32;

/// The most contexts that are counted apart; further ones count together, under an empty name.
pub const COUNTED_CONTEXTS_MAX: usize = 1000;

/// What a program does about errors, by their type, in one place: it logs each, counts it, and calls what was registered
/// for it.
///
/// ```
/// # use naq_services::patterns::ErrorHandler;
/// # use std::{io, sync::atomic::{AtomicU32, Ordering}};
/// static DISK: AtomicU32 = AtomicU32::new(0);
/// let handler = ErrorHandler::new().on(|error: &io::Error, _context| {
///     if error.kind() == io::ErrorKind::StorageFull { DISK.fetch_add(1, Ordering::Relaxed); }
/// });
/// assert!(handler.handle(&io::Error::from(io::ErrorKind::StorageFull), "write the report"));
/// assert_eq!((DISK.load(Ordering::Relaxed), handler.counts()["write the report"]), (1, 1));
/// ```
#[derive(Default)]
pub struct ErrorHandler {
    cases: Vec<Case>,
    counts: Mutex<BTreeMap<String, u64>>,
}

impl ErrorHandler {
    /// One that only logs and counts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, and errors of type `E` go to `then`, with what was being done. Of several for one error, the one that was
    /// registered first is called.
    #[must_use]
    pub fn on<E: Error + 'static>(mut self, then: impl Fn(&E, &str) + Send + Sync + 'static) -> Self {
        self.cases.push(Box::new(move |error, context| {
            let of_type = error.downcast_ref::<E>();
            if let Some(error) = of_type {
                then(error, context);
            }
            of_type.is_some()
        }));
        self
    }

    /// Logs an error at `ERROR`, counts it by `context`, and calls what was registered for it or for one of its sources.
    /// `false` if nothing was.
    pub fn handle(&self, error: &(dyn Error + 'static), context: &str) -> bool {
        tracing::error!(operation = context, error = failure::chain(error), "failed");
        self.count(context);
        let chain = std::iter::successors(Some(error), |&error| error.source()).take(MAX_CHAIN);
        chain.into_iter().any(|error| self.cases.iter().any(|case| case(error, context)))
    }

    /// How many errors were handled, by context; at most [`COUNTED_CONTEXTS_MAX`] of them.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, context: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.len() < COUNTED_CONTEXTS_MAX || counts.contains_key(context);
        *counts.entry(if known { context } else { "" }.to_owned()).or_default() += 1;
    }
}

impl fmt::Debug for ErrorHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorHandler").field("cases", &self.cases.len()).field("counts", &self.counts()).finish()
    }
}

/// Any error as a [`Failure`], which a handler can return, with what was being done before its message. What the error says
/// of itself ([`JobFailure`](crate::JobFailure)) is kept.
#[must_use]
pub fn wrap_naq_exception(error: impl IntoFailure, context: &str) -> Failure {
    let failure = error.into_failure();
    Failure { message: format!("{context}: {}", failure.message), ..failure }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot save")]
    struct Save(#[source] io::Error);

    #[test]
    fn the_outermost_type_and_the_first_case_win() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let say = |what: &'static str| {
            let told = Arc::clone(&told);
            move || told.lock().unwrap().push(what)
        };
        let (io_first, io_second, save) = (say("io"), say("io again"), say("save"));
        let handler = ErrorHandler::new()
            .on(move |_: &io::Error, _: &str| io_first())
            .on(move |_: &io::Error, _: &str| io_second())
            .on(move |_: &Save, _: &str| save());
        assert!(handler.handle(&Save(io::Error::other("disk")), "a"));
        assert!(handler.handle(&io::Error::other("disk"), "a"));
        assert!(!handler.handle(&fmt::Error, "b"));
        assert_eq!(*told.lock().unwrap(), ["save", "io"]);
        assert_eq!(handler.counts(), BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
    }

    #[test]
    fn the_contexts_are_bounded() {
        let handler = ErrorHandler::new();
        for n in 0..COUNTED_CONTEXTS_MAX + 5 {
            handler.count(&n.to_string());
        }
        assert_eq!((handler.counts().len(), handler.counts()[""]), (COUNTED_CONTEXTS_MAX + 1, 5));
    }

    #[test]
    fn wrapping_keeps_the_name_for_policies() {
        let failure = wrap_naq_exception(io::Error::other("disk"), "save the report");
        assert_eq!((failure.error_type.as_ref(), failure.message.as_str()), ("io_error", "save the report: disk"));
    }
}
