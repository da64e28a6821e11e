//! The NATS connection of the process, for requests of one's own beside naq's.
//!
//! Invariant: the connection that the free functions use, or one to `nats.servers` if the store is another; never one more.
//! No type of a NATS client shows: what these services offer is what naq itself is built on.

use std::sync::Arc;

use naq_services::{connection::ConnectionService, streams::StreamService};

use crate::{Result, process};

/// The connection to NATS, opened if it is not open; see [`connect`](crate::connect) for where to.
///
/// # Errors
/// If no NATS server is configured or none can be reached.
pub async fn get_nats_connection() -> Result<Arc<ConnectionService>> {
    process::service().await
}

/// Streams over the connection to NATS.
///
/// # Errors
/// As [`get_nats_connection`].
pub async fn get_jetstream_context() -> Result<Arc<StreamService>> {
    process::service().await
}
