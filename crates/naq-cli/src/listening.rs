//! `--listen`: metrics and probes of a worker or scheduler, from before the store is opened until it has stopped.
//!
//! Invariant: probes are answered at any time in between: not ready before it serves and while it stops. Without an
//! address, nothing listens and nothing is counted.

use std::sync::{Arc, OnceLock};

use naq_config::ListenAddress;
use naq_telemetry::{
    http::{Probe, Probes, Server},
    metrics::Metrics,
};
use naq_worker::Health;

use crate::{
    error::{CliError, with_sources},
    session::Session,
};

/// Listens until it is dropped.
pub(crate) struct Listening {
    metrics: Metrics,
    /// Set once there is somebody to ask.
    health: Arc<OnceLock<Health>>,
    _server: Server,
}

impl Listening {
    /// Begins to listen, if there is an address, and says where.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub(crate) fn start(session: &Session, address: Option<ListenAddress>) -> Result<Option<Self>, CliError> {
        let Some(ListenAddress(address)) = address else { return Ok(None) };
        let (metrics, health) = (Metrics::new(), Arc::new(OnceLock::<Health>::new()));
        let (of_alive, of_ready) = (Arc::clone(&health), Arc::clone(&health));
        let alive: Probe = Box::new(move || match of_alive.get() {
            Some(health) => health.alive().map_err(|why| why.to_string()),
            None => Ok(()),
        });
        let ready: Probe = Box::new(move || match of_ready.get() {
            Some(health) => health.ready().map_err(|why| why.to_string()),
            None => Err("starting".to_owned()),
        });
        let server = Server::start(address, metrics.clone(), Probes { alive, ready }).map_err(|error| {
            let failed = CliError::failed(with_sources(&error));
            if error.is_taken() {
                failed.with_hint("another program listens there; name another port, or 0 for any that is free")
            } else {
                failed
            }
        })?;
        session.tell(&format!("listens at http://{} (/metrics, /healthz, /readyz)", server.address()));
        Ok(Some(Self { metrics, health, _server: server }))
    }

    /// Counts what happens in this process from now on, and answers probes by `health`.
    ///
    /// # Errors
    /// If the store cannot be opened.
    pub(crate) async fn observe(&self, session: &Session, health: Health) -> Result<(), CliError> {
        let events = session.services().events().await?;
        events.hook().add(Arc::new(self.metrics.clone()));
        self.metrics.set_events(events);
        self.metrics.set_store(session.services().storage().await?);
        self.health.get_or_init(|| health);
        Ok(())
    }
}
