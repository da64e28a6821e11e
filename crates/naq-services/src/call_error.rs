//! [`CallError`]: what every error of a service says: what could not be done, of what kind, why, and what to try.
//!
//! Invariant: callers decide by the kind, never by text; the cause is kept as the source and is not repeated in the text.
//! Each service has a kind of its own, and so an error type of its own.

use std::{error::Error, fmt, sync::Arc};

/// Why a call of a service failed, of kind `K`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CallError<K> {
    kind: K,
    message: String,
    hint: Option<String>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl<K: Copy> CallError<K> {
    pub(crate) fn new(kind: K, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The hint of the cause, if it has one.
    #[must_use]
    pub(crate) fn with_hint_of(mut self, hint: Option<&str>) -> Self {
        self.hint = hint.map(str::to_owned);
        self
    }

    #[must_use]
    pub(crate) fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> K {
        self.kind
    }

    /// What the user can try, if there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl<K> fmt::Display for CallError<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<K: fmt::Debug> Error for CallError<K> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
