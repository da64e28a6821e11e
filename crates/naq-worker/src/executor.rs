//! One job from claim to settlement, as a list of steps: decode, review, start, admit, call, conclude.
//!
//! Invariant: every path ends in exactly one of settlement, hand-back, parking, or forgetting a lost lease. A handler is
//! called only for a job that is not cancelled, not settled elsewhere and held without doubt. What a verdict means is
//! decided in [`naq_models::outcome`]; here, only what the reason for stopping makes of it.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use naq_models::{DecodeError, Job, JobError, Verdict, error_type, outcome, wire};
use naq_services::{
    CancellationToken, JobContext, StorageError,
    jobs::{self, Admission},
    storage::{Action, Review},
};
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use crate::{
    clock::BootTime,
    ending::Subject,
    job_log::{self, JobLog},
    lease::{Held, Phase, Run, StopReason, Traces},
    panic_guard::guarded,
    report::Outcome,
    settlement::Finished,
    shared::Shared,
    suspects::Standing,
    worker::WorkerError,
};

/// Between two tries of a review.
const REVIEW_PAUSE: Duration = Duration::from_millis(200);
/// Before a job is given up for its crashes: as long as a call of a store may take (5 s), and a little.
const SECOND_LOOK: Duration = Duration::from_secs(6);
/// Tries of a review before the job is handed back.
const REVIEW_TRIES: usize = 10;
/// How often a stuck slot looks whether its handler has let go.
const STUCK_PAUSE: Duration = Duration::from_millis(100);

/// How a run of the steps ended.
#[expect(
    clippy::large_enum_variant,
    reason = "made once per run and taken apart at once; a box would cost an allocation"
)]
enum Ending {
    Settle(Action, Traces, Outcome),
    /// Not started, or stopped by the worker's own stop: another run, no attempt counted.
    HandBack(Traces),
    /// The lease is gone; somebody else has the job.
    Forget(Traces),
    /// A suspect that waits for its turn.
    Parked,
}

type Step<T> = ControlFlow<Ending, T>;

/// What a handler did.
enum Said {
    Verdict(Verdict),
    /// It did not end within the grace after its token fired.
    Nothing,
}

/// One slot: takes jobs until there are no more to take.
pub(crate) async fn slot(shared: Arc<Shared>) {
    let mut since = None;
    while let Some(held) = shared.take(since).await {
        since = Some(BootTime::now());
        execute(&shared, &held).await;
    }
}

async fn execute(shared: &Shared, held: &Arc<Held>) {
    let ending = match steps(shared, held).await {
        ControlFlow::Break(ending) | ControlFlow::Continue(ending) => ending,
    };
    conclude(shared, held, ending).await;
    wait_until_let_go(shared, held).await;
}

async fn steps(shared: &Shared, held: &Arc<Held>) -> Step<Ending> {
    check_lease(held)?;
    let job = decode(shared, held)?;
    check_cancelled(shared, held, &job)?;
    let (traces, _alone) = review(shared, held, &job).await?;
    let (run, context) = start(shared, held, job, traces)?;
    admit(shared, held, run).await?;
    let said = call(shared, held, run, context).await;
    ControlFlow::Continue(interpret(shared, held, run, said))
}

fn check_lease(held: &Held) -> Step<()> {
    if held.is_fenced(BootTime::now()) {
        return ControlFlow::Break(Ending::Forget(Traces::default()));
    }
    ControlFlow::Continue(())
}

fn decode(shared: &Shared, held: &Held) -> Step<Arc<Job>> {
    match wire::decode(&held.claim.body, &held.claim.address) {
        // Shared from here on: it is large, and each step would move it.
        Ok(job) => ControlFlow::Continue(Arc::new(job)),
        Err(error @ DecodeError::BincodeNotBuilt) => {
            shared.fail(WorkerError::Format { job: held.id().clone(), reason: error.to_string() });
            ControlFlow::Break(Ending::HandBack(Traces::default()))
        }
        Err(error) => {
            tracing::error!(job = %held.id(), %error, "the job cannot be read and becomes a dead letter");
            let (result, dead_letter) = subject(shared, held).bury(error.to_string());
            let action = Action::End { result: Some(result), dead_letter: Some(dead_letter), unique_key: None };
            let traces = Traces { scheduled: held.claim.doubtful, suspect: false };
            ControlFlow::Break(Ending::Settle(action, traces, Outcome::Failed))
        }
    }
}

fn check_cancelled(shared: &Shared, held: &Held, job: &Job) -> Step<()> {
    if !shared.controls.is_cancelled(held.id()) {
        return ControlFlow::Continue(());
    }
    let (action, outcome) = subject(shared, held).cancel(job, "cancelled before it started");
    ControlFlow::Break(Ending::Settle(action, Traces { scheduled: held.claim.doubtful, suspect: false }, outcome))
}

/// For a doubtful claim: whether it has ended, waits for a later run, or may have killed a worker.
async fn review<'a>(shared: &'a Shared, held: &Arc<Held>, job: &Job) -> Step<(Traces, Option<Alone<'a>>)> {
    if !held.claim.doubtful {
        return ControlFlow::Continue((Traces::default(), None));
    }
    let review = patiently(shared, held, || shared.storage.review(&held.claim)).await?;
    let mut traces = Traces { scheduled: true, suspect: false };
    let Review { result, scheduled_run, suspect } = review;
    if let Some(result) = result.filter(|result| result.revision > job.generation) {
        let action = subject(shared, held).complete(job, &result.body);
        // The settlement of an ended job also drops what was counted against it.
        let traces = Traces { suspect: true, ..traces };
        return ControlFlow::Break(Ending::Settle(action, traces, Outcome::AlreadyEnded));
    }
    if scheduled_run.is_some_and(|run| run > job.run) {
        let action = Action::End { result: None, dead_letter: None, unique_key: None };
        let traces = Traces { scheduled: false, suspect: true };
        return ControlFlow::Break(Ending::Settle(action, traces, Outcome::AlreadyEnded));
    }
    if !suspect {
        return ControlFlow::Continue((traces, None));
    }
    let max_crashes = shared.adjuster.look().max_crashes;
    let standing = || shared.suspects.standing(held.id(), max_crashes);
    let mut stands = patiently(shared, held, standing).await?;
    if matches!(stands, Standing::Poison { .. }) {
        // A worker that lives and lost it, as the store was away, may be about to take its count back.
        sleep(SECOND_LOOK).await;
        check_lease(held)?;
        stands = patiently(shared, held, standing).await?;
    }
    let alone = match stands {
        Standing::Poison { crashes } => {
            let message = format!("{crashes} worker processes died while they ran it");
            tracing::error!(job = %held.id(), crashes, "the job has ended several workers and becomes a dead letter");
            let subject = subject(shared, held);
            let (action, outcome) = subject.fail(job, JobError::new(error_type::WORKER_LOST, message, subject.now));
            traces.suspect = true;
            return ControlFlow::Break(Ending::Settle(action, traces, outcome));
        }
        Standing::Beside => None,
        Standing::Alone => Some(Alone::enter(shared, held)?),
    };
    patiently(shared, held, || shared.suspects.count(held.id())).await?;
    traces.suspect = true;
    ControlFlow::Continue((traces, alone))
}

/// Asks the store again while it fails and the lease holds.
async fn patiently<T, F>(shared: &Shared, held: &Held, mut ask: impl FnMut() -> F) -> Step<T>
where
    F: Future<Output = Result<T, StorageError>>,
{
    for _ in 0..REVIEW_TRIES {
        match ask().await {
            Ok(answer) => return ControlFlow::Continue(answer),
            Err(error) => tracing::warn!(job = %held.id(), %error, "the store could not be asked about a job"),
        }
        if shared.is_closing() {
            break;
        }
        sleep(REVIEW_PAUSE).await;
        check_lease(held)?;
    }
    ControlFlow::Break(Ending::HandBack(Traces::default()))
}

/// The right to be the only suspect that runs alone.
struct Alone<'a>(&'a Shared);

impl<'a> Alone<'a> {
    fn enter(shared: &'a Shared, held: &Arc<Held>) -> Step<Self> {
        if shared.intake().enter_alone(held) {
            ControlFlow::Continue(Self(shared))
        } else {
            ControlFlow::Break(Ending::Parked)
        }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let slots = self.0.intake().leave_alone();
        self.0.wake(slots);
    }
}

fn start<'a>(shared: &Shared, held: &'a Held, job: Arc<Job>, traces: Traces) -> Step<(&'a Run, JobContext)> {
    let now = BootTime::now();
    if held.is_fenced(now) {
        return ControlFlow::Break(Ending::Forget(traces));
    }
    // The worker was asked to stop while this was reviewed.
    if shared.is_closing() {
        return ControlFlow::Break(Ending::HandBack(traces));
    }
    if !held.advance(Phase::Buffered, Phase::Running) {
        return ControlFlow::Break(Ending::Forget(traces));
    }
    let limit = shared.adjuster.look().max_job_duration;
    let granted = limit.map_or(job.timeout, |limit| limit.min(job.timeout));
    let run = held.start(Run {
        log: JobLog::start(&job, &shared.worker_id),
        job,
        token: CancellationToken::new(),
        started_at: shared.clock.at(now),
        begun: now,
        deadline: now.plus(granted),
        progress: shared.progress.begin(),
        traces,
    });
    // An intent that arrived before the start was recorded found nobody to tell.
    if shared.controls.is_cancelled(held.id()) {
        held.stop(StopReason::Cancelled);
    }
    shared.tell_attempt(run);
    let context = JobContext::new(
        Arc::clone(&run.job),
        Arc::clone(&shared.worker_id),
        run.token.clone(),
        shared.storage.clone(),
        Arc::clone(&shared.states),
    );
    let context = context.with_progress(run.progress.slot().clone());
    ControlFlow::Continue((run, context))
}

/// For a unique job: whether it has its key. After the start, because a key that holds until then is freed by this; and only
/// where there is a handler to start.
async fn admit(shared: &Shared, held: &Arc<Held>, run: &Run) -> Step<()> {
    let job = &run.job;
    if job.unique.is_none() || shared.handlers.get(&job.kind).is_none() {
        return ControlFlow::Continue(());
    }
    let by = match patiently(shared, held, || jobs::admit(&*shared.storage, job)).await {
        ControlFlow::Continue(Admission::Start) => return ControlFlow::Continue(()),
        ControlFlow::Continue(Admission::Superseded { by }) => by,
        ControlFlow::Break(Ending::Forget(_)) => return ControlFlow::Break(Ending::Forget(run.traces)),
        ControlFlow::Break(_) => return ControlFlow::Break(Ending::HandBack(run.traces)),
    };
    tracing::info!(job = %job.id, %by, "another job has the unique key of this one, which is cancelled");
    let (action, outcome) = subject(shared, held).supersede(job, &by);
    ControlFlow::Break(Ending::Settle(action, run.traces, outcome))
}

async fn call(shared: &Shared, held: &Held, run: &Run, context: JobContext) -> Said {
    let Some(handler) = shared.handlers.get(&run.job.kind) else {
        run.log.span().in_scope(|| tracing::warn!("this worker has no handler of this kind"));
        return Said::Verdict(Verdict::UnknownKind);
    };
    let called = guarded(|| handler.call(context), || shared.clock.now());
    let mut said = std::pin::pin!(called.instrument(run.log.span().clone()));
    // Looks at the clock only if the handler has to be waited for.
    let deadline = async { sleep(run.deadline.since(BootTime::now())).await };
    tokio::select! {
        biased;
        verdict = &mut said => return Said::Verdict(verdict),
        () = run.token.cancelled() => {}
        () = deadline => held.stop(StopReason::Timeout),
    }
    match timeout(shared.options.timeout_grace, said).await {
        Ok(verdict) => Said::Verdict(verdict),
        Err(_) => Said::Nothing,
    }
}

/// What becomes of the job, given what its handler did and why it was told to stop, if it was.
fn interpret(shared: &Shared, held: &Held, run: &Run, said: Said) -> Ending {
    let now = BootTime::now();
    let completed = matches!(said, Said::Verdict(Verdict::Complete(_)));
    if held.is_fenced(now) && !completed {
        return Ending::Forget(run.traces);
    }
    let verdict = match (said, held.stop_reason()) {
        // Work that is done is done, however late.
        (Said::Verdict(verdict @ Verdict::Complete(_)), _) | (Said::Verdict(verdict), None) => verdict,
        (_, Some(StopReason::Cancelled)) => Verdict::Cancel("cancelled while it ran".to_owned()),
        (Said::Verdict(verdict @ Verdict::Snooze(_)), Some(_)) => verdict,
        (_, Some(StopReason::Shutdown | StopReason::LeaseLost)) => return Ending::HandBack(run.traces),
        (said, Some(StopReason::Timeout) | None) => Verdict::Error(timed_out(shared, run, said)),
    };
    let subject = subject_at(shared, held, now);
    // Only a retry delay has a random part.
    let jitter = if matches!(verdict, Verdict::Complete(_)) { 0.5 } else { rand::random::<f64>() };
    let next = outcome::next(&run.job, verdict, subject.now, jitter);
    let end = job_log::End::of(&next);
    match subject.conclude(&run.job, next, shared.options.wire_format) {
        Ok((action, outcome)) => {
            run.log.end(&end, outcome, now.since(run.begun));
            Ending::Settle(action, run.traces, outcome)
        }
        Err(error) => {
            shared.fail(WorkerError::Format { job: held.id().clone(), reason: error.to_string() });
            Ending::HandBack(run.traces)
        }
    }
}

fn timed_out(shared: &Shared, run: &Run, said: Said) -> JobError {
    let granted = naq_models::duration::format(run.deadline.since(run.begun));
    let mut message = format!("did not end within {granted}");
    match said {
        Said::Nothing => {
            let grace = naq_models::duration::format(shared.options.timeout_grace);
            message.push_str(&format!(", nor within {grace} after it was told to"));
        }
        Said::Verdict(Verdict::Error(error) | Verdict::Fail(error) | Verdict::Retry { error, .. }) => {
            message.push_str(&format!("; told to, it said: {}", error.message));
        }
        Said::Verdict(_) => {}
    }
    JobError::new(error_type::TIMEOUT, message, shared.clock.now())
}

/// Gives up a job whose slot does not come back from its handler; `false` if it has come back, or there is no room now.
pub(crate) fn give_up(shared: &Shared, held: &Arc<Held>, run: &Run) -> bool {
    match interpret(shared, held, run, Said::Nothing) {
        Ending::Settle(action, traces, outcome) => {
            shared.settler.abandon(Finished::new(Arc::clone(held), action, traces, outcome))
        }
        Ending::Forget(_) => {
            let mine = held.advance(Phase::Running, Phase::Abandoned);
            if mine {
                shared.leases.remove([held]);
                shared.tally.lost.fetch_add(1, Ordering::Relaxed);
            }
            mine
        }
        // The worker stops and hands back what runs.
        Ending::HandBack(_) | Ending::Parked => false,
    }
}

async fn conclude(shared: &Shared, held: &Arc<Held>, ending: Ending) {
    let from = if held.run().is_some() { Phase::Running } else { Phase::Buffered };
    match ending {
        Ending::Settle(action, traces, outcome) => {
            let finished = Finished::new(Arc::clone(held), action, traces, outcome);
            if !shared.settler.settle(finished, from).await {
                back_from_stuck(shared, held);
            }
        }
        Ending::HandBack(traces) if held.advance(from, Phase::Released) => {
            hand_back(shared, &[Arc::clone(held)], traces).await;
        }
        Ending::Forget(traces) if held.advance(from, Phase::Released) => {
            shared.leases.remove([held]);
            shared.tally.lost.fetch_add(1, Ordering::Relaxed);
            forgive(shared, held, traces).await;
        }
        Ending::HandBack(_) | Ending::Forget(_) => back_from_stuck(shared, held),
        Ending::Parked => {}
    }
}

/// Gives released jobs back to their queues. What the store does not take back comes back when its lease runs out.
pub(crate) async fn hand_back(shared: &Shared, released: &[Arc<Held>], traces: Traces) {
    for held in released {
        // First, so that a count never outlives the hand-back.
        forgive(shared, held, traces).await;
    }
    let leases = released.iter().map(|held| held.lease().clone()).collect();
    match shared.storage.hand_back(leases).await {
        Ok(()) => {
            shared.tally.handed_back.fetch_add(released.len() as u64, Ordering::Relaxed);
            shared.tell_handed_back(released);
        }
        Err(error) => tracing::warn!(jobs = released.len(), %error, "jobs could not be handed back"),
    }
    shared.leases.remove(released);
}

async fn forgive(shared: &Shared, held: &Held, traces: Traces) {
    if traces.suspect {
        shared.suspects.forgive(held.id()).await;
    }
}

/// A slot that was counted as stuck has come back.
fn back_from_stuck(shared: &Shared, held: &Held) {
    if held.phase() == Phase::Abandoned {
        shared.tally.stuck.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An abandoned handler may still run where dropping its future does not reach: on a blocking thread. As long as it holds
/// its context it holds the slot, which counts as stuck.
async fn wait_until_let_go(shared: &Shared, held: &Held) {
    let holds = || held.run().is_some_and(|run| held.stop_reason().is_some() && Arc::strong_count(&run.job) > 1);
    if !holds() {
        return;
    }
    shared.count_stuck();
    while holds() && !shared.is_closing() {
        sleep(STUCK_PAUSE).await;
    }
    if !holds() {
        shared.tally.stuck.fetch_sub(1, Ordering::Relaxed);
    }
}

fn subject<'a>(shared: &'a Shared, held: &'a Held) -> Subject<'a> {
    subject_at(shared, held, BootTime::now())
}

fn subject_at<'a>(shared: &'a Shared, held: &'a Held, now: BootTime) -> Subject<'a> {
    Subject {
        address: &held.claim.address,
        body: &held.claim.body,
        worker_id: Some(&shared.worker_id),
        started_at: held.run().map(|run| run.started_at),
        now: shared.clock.at(now),
        max_body: shared.max_body,
    }
}
