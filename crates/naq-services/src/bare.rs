//! What naq is measured against: the shortest loops over the raw clients that make the same writes.
//!
//! Invariant: the same rows, subjects and bytes, at the best window or batch size, and nothing else: no lease is
//! extended, nothing is checked, nothing is decided. Not a queue; only for `cargo xtask bench` (feature `bench`).

use std::{error::Error, fmt};

#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "sqlite")]
pub mod sqlite;

/// A bare loop could not be run.
#[derive(Debug)]
pub struct BareError {
    operation: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for BareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bare loop: {}", self.operation)
    }
}

impl Error for BareError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// Says in which step a raw client failed.
#[cfg(any(feature = "nats", feature = "sqlite"))]
fn failed<E: Into<Box<dyn Error + Send + Sync>>>(operation: &'static str) -> impl FnOnce(E) -> BareError {
    move |source| BareError { operation, source: source.into() }
}

/// The result of a bare loop.
pub type Result<T, E = BareError> = std::result::Result<T, E>;
