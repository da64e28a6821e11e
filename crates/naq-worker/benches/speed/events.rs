//! Events on against events off, the same jobs on the same store; and how fast the history of one job is found.
//!
//! Invariant: the only difference between the two sides is whether somebody listens; what was dropped is said, because a
//! log that drops everything costs nothing. Jobs that are looked for have ids that do not tell their time, and all events
//! happen within seconds, so that no window of time makes the search easier.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use naq_config::EventsConfig;
use naq_models::{
    Event, EventId, EventType, JobId, QueueName,
    event::{self, EventOrigin},
};
use naq_services::{EventHook, EventService, Service, storage::SharedStorage};

use crate::{
    plan::Plan,
    report::{Found, Report},
    rounds::{Compared, quantile},
};

/// Of each job: enqueued, started, completed.
const STEPS: [EventType; 3] = [EventType::Enqueued, EventType::Started, EventType::Completed];
/// What a busy worker's logger writes at once.
const AT_ONCE: usize = 400;
/// Looks for one job each.
const LOOKS: usize = 40;

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

pub(crate) async fn history(
    plan: &Plan,
    store: &str,
    gated: bool,
    storage: &SharedStorage,
    report: &mut Report,
) -> Result<()> {
    let jobs = plan.told() / STEPS.len();
    eprintln!("{store}, {} events", plan.told());
    let (begin, id) = (storage.now().await?, |n: usize| JobId::new(format!("told-{n}")));
    let mut told = Vec::with_capacity(plan.told());
    // As jobs overlap: the steps of one lie some hundred events apart.
    for block in (0..jobs).collect::<Vec<_>>().chunks(AT_ONCE / 2) {
        for (step, event_type) in STEPS.iter().enumerate() {
            for n in block {
                let number = u32::try_from(n * STEPS.len() + step)?;
                let time = begin.saturating_add(Duration::from_micros(20) * number);
                let event = Event::new(EventId::new(time, EventOrigin::new([1; 6]), number), event_type.clone());
                let mut event = event.of_job(id(*n)?, QueueName::default());
                (event.kind, event.worker_id) = (Some("bench.kind".into()), Some("host-00000001".into()));
                event.details.duration = (step == 2).then_some(Duration::from_micros(1234));
                told.push(event);
            }
        }
    }
    for some in told.chunks(20 * AT_ONCE) {
        let batches = some.chunks(AT_ONCE).flat_map(event::encode).collect();
        storage.append_events(batches).await?;
    }
    let service = EventService::new(storage.clone(), &EventsConfig { enabled: false, ..EventsConfig::default() });
    let mut looks = Vec::with_capacity(LOOKS);
    for look in 0..LOOKS {
        let wanted = id(look * (jobs / LOOKS) + look)?;
        let begun = Instant::now();
        let found = service.history(&wanted).await?;
        looks.push(begun.elapsed().as_secs_f64() * 1000.0);
        ensure!(found.len() == STEPS.len(), "{} events of {wanted}", found.len());
    }
    let (p50_ms, p99_ms) = (quantile(&looks, 0.5), quantile(&looks, 0.99));
    let what = format!("history of one job among {} k events", plan.told() / 1000);
    let found = Found::Latency { p50_ms, p99_ms, samples: LOOKS, p50_below_ms: Some(200.0), note: None };
    report.add(store, &what, gated, found);
    Ok(())
}
