//! Events on against events off, the same jobs on the same store.
//!
//! Invariant: the only difference between the two sides is whether somebody listens; what was dropped is said, because a
//! log that drops everything costs nothing.

use naq_config::EventsConfig;
use naq_services::{EventHook, EventService, Service, storage::SharedStorage};

use crate::{
    report::{Found, Report},
    rounds::Compared,
};

/// One turn, with events or without.
pub(crate) struct Telling {
    service: EventService,
    on: bool,
}

impl Telling {
    pub(crate) fn start(storage: &SharedStorage, on: bool) -> Self {
        Self {
            service: EventService::new(storage.clone(), &EventsConfig { enabled: on, ..EventsConfig::default() }),
            on,
        }
    }

    pub(crate) fn hook(&self) -> EventHook {
        self.service.hook().clone()
    }

    pub(crate) async fn end(self) {
        self.service.close().await;
        if self.on {
            eprintln!("    {} events dropped", self.service.dropped());
        }
    }
}

pub(crate) fn report(report: &mut Report, store: &str, what: &str, gated: bool, compared: Compared) {
    let against = "the same with events off".to_owned();
    report.add(store, what, gated, Found::Ratio { compared, against, at_least: Some(0.95) });
}
