//! What the worker holds: [`Held`], one claimed job and its right to it, and [`Leases`], the table of all of them.
//!
//! Invariant: a claim is in the table from the moment it is handed out until it is settled, handed back or forgotten,
//! and as long as it is there the heartbeat extends it. Who may end it is decided by [`Held::advance`]: of the slot that
//! runs it, the heartbeat that gives it up and the shutdown that hands it back, exactly one wins. From `lease` after the
//! last confirmed extension it is fenced. Reads no clock: time is an argument.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use naq_models::{Job, JobId, Timestamp};
use naq_services::{
    CancellationToken,
    storage::{Claim, Lease, LeaseState, RunningAt, RunningJobs},
};

use crate::{clock::BootTime, job_log::JobLog, progress::RunProgress};

/// Where a held job stands in this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Claimed, not started.
    Buffered = 0,
    /// Its handler runs.
    Running = 1,
    /// Its settlement is on the way.
    Settling = 2,
    /// It overran its grace and was settled by the heartbeat; its slot is stuck in it.
    Abandoned = 3,
    /// It is being handed back, or is no longer this worker's.
    Released = 4,
}

/// Why a running job's token was fired. The first reason stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StopReason {
    Timeout = 1,
    Cancelled = 2,
    LeaseLost = 3,
    Shutdown = 4,
}

/// One claimed job.
#[derive(Debug)]
pub(crate) struct Held {
    ticket: u64,
    pub(crate) claim: Claim,
    pub(crate) claimed: BootTime,
    confirmed: AtomicU64,
    phase: AtomicU8,
    lost: AtomicBool,
    stop: AtomicU8,
    run: OnceLock<Run>,
}

/// What is known of a job once it has started.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) log: JobLog,
    pub(crate) job: Arc<Job>,
    pub(crate) token: CancellationToken,
    pub(crate) started_at: Timestamp,
    pub(crate) begun: BootTime,
    pub(crate) deadline: BootTime,
    /// Where its handler says how far it is.
    pub(crate) progress: RunProgress,
    /// What its settlement has to clear away.
    pub(crate) traces: Traces,
}

/// What earlier deliveries left behind, to be cleared at settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Traces {
    /// There may be an entry in the scheduled store.
    pub(crate) scheduled: bool,
    /// It is counted as a suspect.
    pub(crate) suspect: bool,
}

impl Held {
    pub(crate) fn lease(&self) -> &Lease {
        &self.claim.lease
    }

    pub(crate) fn id(&self) -> &JobId {
        &self.claim.lease.id
    }

    pub(crate) fn run(&self) -> Option<&Run> {
        self.run.get()
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Buffered,
            1 => Phase::Running,
            2 => Phase::Settling,
            3 => Phase::Abandoned,
            _ => Phase::Released,
        }
    }

    /// Moves from one phase to another; `false` if it was not there. Whoever moves it out of `Running` owns its end.
    pub(crate) fn advance(&self, from: Phase, to: Phase) -> bool {
        self.phase.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Records the start. A reason to stop that came before fires the token at once.
    pub(crate) fn start(&self, run: Run) -> &Run {
        let run = self.run.get_or_init(|| run);
        if self.stop_reason().is_some() {
            run.token.cancel();
        }
        run
    }

    /// Fires the job's token, for the first reason given.
    pub(crate) fn stop(&self, reason: StopReason) {
        // A failed exchange means that another reason was first.
        let _first = self.stop.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire);
        if let Some(run) = self.run.get() {
            run.token.cancel();
        }
    }

    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        match self.stop.load(Ordering::Acquire) {
            1 => Some(StopReason::Timeout),
            2 => Some(StopReason::Cancelled),
            3 => Some(StopReason::LeaseLost),
            4 => Some(StopReason::Shutdown),
            _ => None,
        }
    }

    /// Whether the lease is lost or in doubt at `now`.
    pub(crate) fn is_fenced(&self, now: BootTime) -> bool {
        self.lost.load(Ordering::Acquire) || self.unconfirmed(now) >= self.claim.lease.duration
    }

    /// The lease is somebody else's.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.stop(StopReason::LeaseLost);
    }

    fn unconfirmed(&self, now: BootTime) -> Duration {
        now.since(BootTime::from_nanos(self.confirmed.load(Ordering::Acquire)))
    }
}

/// Everything the worker holds.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<u64, Arc<Held>>>,
    next_ticket: AtomicU64,
}

impl Leases {
    fn table(&self) -> MutexGuard<'_, HashMap<u64, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over claims that were handed out at `now`. Those of jobs that are here already are lost from the beginning.
    pub(crate) fn insert(&self, claims: Vec<Claim>, now: BootTime) -> Vec<Arc<Held>> {
        let first = self.next_ticket.fetch_add(claims.len() as u64, Ordering::Relaxed);
        let mut table = self.table();
        let known = known(&table, &claims, now);
        (first..)
            .zip(claims)
            .zip(known)
            .map(|((ticket, claim), is_known)| {
                let since = BootTime::from(claim.lease.since).min(now);
                let held = Arc::new(Held {
                    ticket,
                    claim,
                    claimed: now,
                    confirmed: AtomicU64::new(since.nanos()),
                    phase: AtomicU8::new(Phase::Buffered as u8),
                    lost: AtomicBool::new(is_known),
                    stop: AtomicU8::new(0),
                    run: OnceLock::new(),
                });
                table.insert(ticket, Arc::clone(&held));
                held
            })
            .collect()
    }

    /// Forgets claims that are settled, handed back or lost.
    pub(crate) fn remove<'a>(&self, held: impl IntoIterator<Item = &'a Arc<Held>>) {
        let mut table = self.table();
        for held in held {
            table.remove(&held.ticket);
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Held>> {
        self.table().values().cloned().collect()
    }

    /// The claim on a job, if it is held here.
    pub(crate) fn find(&self, id: &JobId) -> Option<Arc<Held>> {
        self.table().values().find(|held| held.id() == id).cloned()
    }

    /// The jobs whose handlers run.
    pub(crate) fn running(&self) -> Vec<Arc<Held>> {
        let mut running: Vec<_> =
            self.table().values().filter(|held| held.phase() == Phase::Running).cloned().collect();
        running.sort_unstable_by_key(|held| held.ticket);
        running
    }

    /// How many handlers run.
    pub(crate) fn running_count(&self) -> usize {
        self.table().values().filter(|held| held.phase() == Phase::Running).count()
    }

    /// What has to be extended at `now`: a third of the lease has gone since the last confirmation.
    pub(crate) fn to_extend(&self, now: BootTime) -> Vec<Arc<Held>> {
        let due = |held: &&Arc<Held>| {
            matches!(held.phase(), Phase::Buffered | Phase::Running | Phase::Settling)
                && !held.lost.load(Ordering::Acquire)
                && held.unconfirmed(now) >= held.claim.lease.duration / 3
        };
        self.table().values().filter(due).cloned().collect()
    }

    /// Notes what an extension found that was asked for at `asked`, before which the store cannot have answered.
    pub(crate) fn note(held: &Held, state: LeaseState, asked: BootTime) {
        match state {
            LeaseState::Held => held.confirmed.store(asked.nanos(), Ordering::Release),
            // A settlement that is on its way takes the lease with it: that is no loss.
            LeaseState::Lost if matches!(held.phase(), Phase::Settling | Phase::Released) => {}
            LeaseState::Lost => held.lose(),
            LeaseState::Unknown => {}
        }
    }

    /// Enforces fences and deadlines at `now`: fires the tokens of what is fenced or out of time, and returns what has
    /// not ended within `grace` after its deadline.
    pub(crate) fn enforce(&self, now: BootTime, grace: Duration) -> Vec<Arc<Held>> {
        let mut overdue = Vec::new();
        for held in self.table().values() {
            let Some(run) = held.run() else { continue };
            if held.phase() != Phase::Running {
                continue;
            }
            if held.is_fenced(now) {
                held.stop(StopReason::LeaseLost);
            }
            if now >= run.deadline {
                held.stop(StopReason::Timeout);
            }
            if now >= run.deadline.plus(grace) {
                overdue.push(Arc::clone(held));
            }
        }
        overdue
    }
}

/// Which claims are of jobs that are here already: a server that was killed may not know to whom it gave a job just before, and
/// give it again, to the same worker too. The run that there is settles it, and its extensions are those of both.
fn known(table: &HashMap<u64, Arc<Held>>, claims: &[Claim], now: BootTime) -> Vec<bool> {
    if !claims.iter().any(|claim| claim.doubtful) {
        return vec![false; claims.len()];
    }
    // What is claimed while it settles is its next run.
    let is_here = |held: &&Arc<Held>| matches!(held.phase(), Phase::Buffered | Phase::Running) && !held.is_fenced(now);
    let mut here: HashSet<&JobId> = table.values().filter(is_here).map(|held| held.id()).collect();
    claims.iter().map(|claim| claim.doubtful && !here.insert(&claim.lease.id)).collect()
}

/// Answers for [`Leases`] who runs a job.
#[derive(Debug)]
pub(crate) struct RunningHere {
    pub(crate) worker_id: Arc<str>,
    pub(crate) leases: Arc<Leases>,
}

impl RunningJobs for RunningHere {
    fn running(&self, id: &JobId) -> Option<RunningAt> {
        let held = self.leases.find(id)?;
        if held.phase() == Phase::Buffered {
            return None;
        }
        let started_at = held.run()?.started_at;
        Some(RunningAt { worker_id: self.worker_id.to_string(), started_at })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use naq_models::{Address, Priority, QueueName, RawJson};
    use naq_services::storage::Lane;

    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    pub(crate) fn at(seconds: u64) -> BootTime {
        BootTime::from_nanos(seconds * 1_000_000_000)
    }

    pub(crate) fn claim(name: &str, lane: Lane) -> Claim {
        let id = JobId::new(name).unwrap();
        Claim {
            lease: Lease { id: id.clone(), token: Arc::from("t"), since: Duration::MAX, duration: LEASE },
            lane,
            address: Address { id, queue: QueueName::default(), priority: lane.priority, stored_at: Timestamp::EPOCH },
            body: Bytes::from_static(b"{}"),
            doubtful: false,
        }
    }

    fn lane() -> Lane {
        Lane { queue: 0, priority: Priority::default() }
    }

    fn started(leases: &Leases, name: &str, now: BootTime, timeout: Duration) -> Arc<Held> {
        let held = leases.insert(vec![claim(name, lane())], now).remove(0);
        assert!(held.advance(Phase::Buffered, Phase::Running));
        let job = Job::new(held.id().clone(), "k", RawJson::parse("{}").unwrap(), Timestamp::EPOCH);
        held.start(Run {
            log: JobLog::start(&job, "w"),
            job: Arc::new(job),
            token: CancellationToken::new(),
            started_at: Timestamp::EPOCH,
            begun: BootTime::from_nanos(0),
            deadline: now.plus(timeout),
            progress: RunProgress::default(),
            traces: Traces::default(),
        });
        held
    }

    #[test]
    fn a_job_that_is_here_is_not_taken_again_unless_its_lease_is_lost() {
        let leases = Leases::default();
        let again = |doubtful| Claim { doubtful, ..claim("a", lane()) };
        let insert = |claim, now| leases.insert(vec![claim], now).remove(0);
        let first = insert(again(true), at(100));
        let other = insert(Claim { doubtful: true, ..claim("b", lane()) }, at(100));
        let second = insert(again(true), at(101));
        assert!(second.is_fenced(at(101)) && !first.is_fenced(at(101)));
        assert!(!other.is_fenced(at(101)));
        let third = insert(again(true), at(130));
        assert!(!third.is_fenced(at(130)), "the first one's lease is lost");
        assert!(third.advance(Phase::Buffered, Phase::Settling));
        let next = insert(again(true), at(131));
        assert!(!next.is_fenced(at(131)), "what is claimed while it settles is its next run");
        let both = leases.insert(vec![again(true), again(true)], at(200));
        assert_eq!(both.iter().map(|held| held.is_fenced(at(200))).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn what_took_long_to_arrive_is_not_fresh() {
        let leases = Leases::default();
        let claimed = |since| {
            let claim = claim("a", lane());
            Claim { lease: Lease { since, ..claim.lease }, ..claim }
        };
        let claims = vec![claimed(Duration::from_secs(70)), claimed(Duration::from_secs(95)), claimed(Duration::MAX)];
        let held = leases.insert(claims, at(100));
        assert_eq!(held.iter().map(|held| held.is_fenced(at(100))).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(held.iter().map(|held| held.is_fenced(at(127))).collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn a_lease_without_confirmation_is_fenced_after_its_duration_and_fires_the_token() {
        let leases = Leases::default();
        let held = started(&leases, "a", at(100), Duration::from_secs(3600));
        assert!(leases.to_extend(at(109)).is_empty());
        assert_eq!(leases.to_extend(at(110)).len(), 1);
        Leases::note(&held, LeaseState::Unknown, at(110));
        assert!(!held.is_fenced(at(129)));
        Leases::note(&held, LeaseState::Held, at(111));
        assert!(!held.is_fenced(at(140)), "the confirmation counts from when it was asked for");
        assert!(held.is_fenced(at(141)));
        assert!(leases.enforce(at(140), LEASE).is_empty());
        assert_eq!(held.stop_reason(), None);
        leases.enforce(at(141), LEASE);
        assert_eq!(held.stop_reason(), Some(StopReason::LeaseLost));
        assert!(held.run().unwrap().token.is_cancelled());
    }

    #[test]
    fn a_lost_lease_stops_the_job_but_not_its_settlement() {
        let leases = Leases::default();
        let (running, settling) = (started(&leases, "a", at(0), LEASE), started(&leases, "b", at(0), LEASE));
        assert!(settling.advance(Phase::Running, Phase::Settling));
        Leases::note(&running, LeaseState::Lost, at(1));
        Leases::note(&settling, LeaseState::Lost, at(1));
        assert!(running.is_fenced(at(1)) && running.run().unwrap().token.is_cancelled());
        assert!(!settling.is_fenced(at(1)));
        assert_eq!(leases.to_extend(at(15)).len(), 1, "what is lost is not extended");
    }

    #[test]
    fn a_deadline_fires_the_token_and_the_grace_ends_the_patience() {
        let leases = Leases::default();
        let held = started(&leases, "a", at(0), Duration::from_secs(5));
        let grace = Duration::from_secs(10);
        assert!(leases.enforce(at(4), grace).is_empty());
        assert!(!held.run().unwrap().token.is_cancelled());
        assert!(leases.enforce(at(5), grace).is_empty());
        assert_eq!(held.stop_reason(), Some(StopReason::Timeout));
        assert_eq!(leases.enforce(at(15), grace).len(), 1);
        assert!(held.advance(Phase::Running, Phase::Abandoned));
        assert!(!held.advance(Phase::Running, Phase::Settling), "only one may end it");
        assert!(leases.enforce(at(16), grace).is_empty());
    }

    #[test]
    fn a_reason_to_stop_from_before_the_start_fires_at_the_start() {
        let leases = Leases::default();
        let held = leases.insert(vec![claim("a", lane())], at(0)).remove(0);
        held.stop(StopReason::Cancelled);
        held.stop(StopReason::Timeout);
        assert!(held.advance(Phase::Buffered, Phase::Running));
        let job = Job::new(held.id().clone(), "k", RawJson::parse("{}").unwrap(), Timestamp::EPOCH);
        let run = held.start(Run {
            log: JobLog::start(&job, "w"),
            job: Arc::new(job),
            token: CancellationToken::new(),
            started_at: Timestamp::EPOCH,
            begun: BootTime::from_nanos(0),
            deadline: at(1),
            progress: RunProgress::default(),
            traces: Traces::default(),
        });
        assert!(run.token.is_cancelled());
        assert_eq!(held.stop_reason(), Some(StopReason::Cancelled));
    }

    #[test]
    fn only_started_jobs_are_reported_as_running() {
        let leases = Arc::new(Leases::default());
        let here = RunningHere { worker_id: Arc::from("w"), leases: Arc::clone(&leases) };
        leases.insert(vec![claim("buffered", lane())], at(0));
        started(&leases, "running", at(0), LEASE);
        assert!(here.running(&JobId::new("buffered").unwrap()).is_none());
        assert_eq!(here.running(&JobId::new("running").unwrap()).unwrap().worker_id, "w");
    }
}
