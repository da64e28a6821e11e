//! [`Health`]: whether a worker or scheduler lives and is ready, for probes that ask from outside.
//!
//! Invariant: who asks reads three atomics and waits for nothing, so a probe is answered while the store is away and while
//! handlers burn every thread. *Ready* is said only on evidence: the store answered not long ago. Nothing is decided by it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::clock::BootTime;

/// The heartbeat beats at least twice a second. So long without a beat, its thread has died, or is starved so badly that
/// leases are being lost.
const BEAT_MAX: Duration = Duration::from_secs(30);

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const STOPPING: u8 = 2;
const ENDED: u8 = 3;

/// Tells whether a worker or scheduler lives and is ready. Cheap to clone; all clones are about the same one.
#[derive(Debug, Clone)]
pub struct Health {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    stage: AtomicU8,
    /// In boot time; 0 before the first.
    beat: AtomicU64,
    answer: AtomicU64,
    /// The store may be silent so long.
    silence_max: Duration,
}

/// Why a worker does not live.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the heartbeat has not beaten for {} s", silent.as_secs())]
pub struct NotAlive {
    /// Since the last beat.
    pub silent: Duration,
}

/// Why a worker or scheduler is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// It does not serve yet.
    #[error("starting")]
    Starting,
    /// The store has not answered for too long.
    #[error("the store has not answered for {} s", silent.as_secs())]
    StoreSilent {
        /// Since its last answer.
        silent: Duration,
    },
    /// It was asked to stop, and lets what runs end.
    #[error("stopping")]
    Stopping,
    /// It has ended.
    #[error("ended")]
    Ended,
}

impl Health {
    pub(crate) fn new(silence_max: Duration) -> Self {
        let (stage, beat, answer) = (AtomicU8::new(STARTING), AtomicU64::new(0), AtomicU64::new(0));
        Self { state: Arc::new(State { stage, beat, answer, silence_max }) }
    }

    /// Whether it lives. It does until its heartbeat, once begun, is silent for 30 s.
    ///
    /// # Errors
    /// If it does not.
    pub fn alive(&self) -> Result<(), NotAlive> {
        self.alive_at(BootTime::now())
    }

    fn alive_at(&self, now: BootTime) -> Result<(), NotAlive> {
        let silent = self.silent(&self.state.beat, now);
        // Nobody beats before the start and after the end.
        let beats = matches!(self.state.stage.load(Ordering::Acquire), SERVING | STOPPING);
        match silent {
            Some(silent) if beats && silent > BEAT_MAX => Err(NotAlive { silent }),
            _ => Ok(()),
        }
    }

    /// Whether it takes jobs: it serves its queues, and the store answered within the worker's `ttl` (a scheduler's
    /// `lock_ttl`).
    ///
    /// # Errors
    /// If it does not; says why.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.ready_at(BootTime::now())
    }

    fn ready_at(&self, now: BootTime) -> Result<(), NotReady> {
        match self.state.stage.load(Ordering::Acquire) {
            STARTING => Err(NotReady::Starting),
            SERVING => match self.silent(&self.state.answer, now) {
                None => Err(NotReady::Starting),
                Some(silent) if silent > self.state.silence_max => Err(NotReady::StoreSilent { silent }),
                Some(_) => Ok(()),
            },
            STOPPING => Err(NotReady::Stopping),
            _ => Err(NotReady::Ended),
        }
    }

    /// Since a sign that was noted; `None` before the first.
    fn silent(&self, sign: &AtomicU64, now: BootTime) -> Option<Duration> {
        let last = sign.load(Ordering::Acquire);
        (last > 0).then(|| now.since(BootTime::from_nanos(last)))
    }

    pub(crate) fn beats(&self) {
        self.state.beat.store(BootTime::now().nanos(), Ordering::Release);
    }

    pub(crate) fn store_answered(&self) {
        self.state.answer.store(BootTime::now().nanos(), Ordering::Release);
    }

    pub(crate) fn serves(&self) {
        self.state.stage.store(SERVING, Ordering::Release);
    }

    pub(crate) fn stops(&self) {
        self.state.stage.store(STOPPING, Ordering::Release);
    }

    /// Notes the end when it is dropped, however that comes about.
    pub(crate) fn ends(&self) -> impl Drop + use<> {
        Ends(self.clone())
    }
}

struct Ends(Health);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.state.stage.store(ENDED, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(health: &Health, answer: u64, beat: u64) {
        health.state.answer.store(answer * 1_000_000_000, Ordering::Release);
        health.state.beat.store(beat * 1_000_000_000, Ordering::Release);
    }

    fn seconds(n: u64) -> BootTime {
        BootTime::from_nanos(n * 1_000_000_000)
    }

    #[test]
    fn it_is_ready_while_it_serves_and_the_store_answers() {
        let health = Health::new(Duration::from_secs(60));
        assert_eq!(health.ready_at(seconds(100)), Err(NotReady::Starting));
        health.serves();
        assert_eq!(health.ready_at(seconds(100)), Err(NotReady::Starting), "the store has never answered");
        at(&health, 100, 100);
        assert_eq!(health.ready_at(seconds(160)), Ok(()));
        let silent = Duration::from_secs(61);
        assert_eq!(health.ready_at(seconds(161)), Err(NotReady::StoreSilent { silent }));
        at(&health, 162, 100);
        assert_eq!(health.ready_at(seconds(163)), Ok(()), "it is back");
        health.stops();
        assert_eq!(health.ready_at(seconds(163)), Err(NotReady::Stopping));
        drop(health.ends());
        assert_eq!(health.ready_at(seconds(163)), Err(NotReady::Ended));
    }

    #[test]
    fn it_lives_until_its_heart_has_stood_still_for_long() {
        let health = Health::new(Duration::from_secs(60));
        assert_eq!(health.alive_at(seconds(1000)), Ok(()), "not begun");
        health.serves();
        at(&health, 100, 100);
        assert_eq!(health.alive_at(seconds(130)), Ok(()));
        assert_eq!(health.alive_at(seconds(131)), Err(NotAlive { silent: Duration::from_secs(31) }));
        health.stops();
        assert!(health.alive_at(seconds(131)).is_err(), "running jobs need it while the worker stops");
        drop(health.ends());
        assert_eq!(health.alive_at(seconds(500)), Ok(()), "ended in order");
    }

    #[test]
    fn every_reason_is_one_line() {
        let silent = Duration::from_millis(12_900);
        assert_eq!(NotReady::StoreSilent { silent }.to_string(), "the store has not answered for 12 s");
        assert_eq!(NotAlive { silent }.to_string(), "the heartbeat has not beaten for 12 s");
        assert_eq!(NotReady::Starting.to_string(), "starting");
    }
}
