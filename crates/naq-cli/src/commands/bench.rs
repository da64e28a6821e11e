//! `naq bench`: how fast the configured store is, asked by the user, answered by the public layers.
//!
//! Invariant: the user's jobs are not touched. Each round has a ground of its own ([`ground`]) beside the configured
//! store, made for it and removed after it, also when the run fails or is stopped; workers have ended by then. Producer
//! and worker are in this process, on one set of services, unless a question is about processes. Nothing is judged here.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use naq_worker::{Shutdown, signals};
use serde::Serialize;

use crate::{
    args::{BenchArgs, OutputFormat, Question},
    error::{CliError, exit},
    output::Output,
    session::Session,
};

mod delayed;
mod dependants;
mod depth;
mod enqueue;
mod ground;
mod latency;
mod load;
mod mixed;
mod other_process;
mod payload;
mod processes;
mod queues;
mod recovery;
mod report;
mod retries;
mod run;
mod unique;
mod work;

use ground::{Ground, Place};
use load::Load;
use report::{Found, Report, Series};

type Result<T, E = CliError> = std::result::Result<T, E>;

/// For one thing that is waited for. A round takes seconds; a million jobs are enqueued in minutes.
const PATIENCE: Duration = Duration::from_secs(600);
/// For the removal of a ground.
const REMOVAL: Duration = Duration::from_secs(60);

pub(crate) async fn run(session: &Session, args: BenchArgs) -> Result<()> {
    let place = Place::of(session)?;
    if let Some(orders) = &args.as_worker {
        return other_process::serve(session, &place, orders).await;
    }
    let out = if args.json { Output::new(OutputFormat::Json) } else { session.output() };
    if args.clean {
        return clean(session, &place, out).await;
    }
    if cfg!(debug_assertions) {
        session.warn("this is a debug build: its numbers say nothing; build with --release");
    }
    for name in place.left(session).await? {
        let left = place.describe(&name);
        session.warn(&format!("{left}: of another `naq bench`; if it was killed, `naq bench --clean` removes that"));
    }
    let stop = Shutdown::new();
    let _signals =
        signals::listen(stop.clone()).map_err(|e| CliError::failed(format!("cannot listen for signals: {e}")))?;
    let bench = Bench { session, place, stop, load: Load::of(&args), progress: progress() };
    let report = bench.ask(&questions(&args)).await;
    bench.progress.finish_and_clear();
    let report = report?;
    report.show(out)?;
    if report.failed { Err(CliError::failed("not everything could be measured")) } else { Ok(()) }
}

/// Each question once, in the order in which they are declared.
fn questions(args: &BenchArgs) -> Vec<Question> {
    use clap::ValueEnum;
    let all = Question::value_variants().iter().copied();
    let is_asked = |question: &Question| match args.questions.as_slice() {
        _ if args.all => true,
        [] => Question::USUAL.contains(question),
        asked => asked.contains(question),
    };
    all.filter(is_asked).collect()
}

/// What `--clean` did.
#[derive(Serialize)]
struct Cleaned {
    removed: Vec<String>,
}

async fn clean(session: &Session, place: &Place, out: Output) -> Result<()> {
    let mut removed = Vec::new();
    for name in place.left(session).await? {
        place.remove(session, &name).await?;
        removed.push(place.describe(&name));
    }
    out.one(&Cleaned { removed }, || "nothing more is left of earlier runs".to_owned())
}

fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("a fixed template");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// One call of the command.
struct Bench<'a> {
    session: &'a Session,
    place: Place,
    /// What Ctrl-C asks: first to stop and remove the ground, then to leave it.
    stop: Shutdown,
    load: Load,
    progress: ProgressBar,
}

impl Bench<'_> {
    async fn ask(&self, questions: &[Question]) -> Result<Report> {
        // Before anything else, so that a store which cannot be used is found at once.
        let store = self.on_ground(async |ground| Ok(ground.store())).await?;
        let mut report = Report::of(store);
        let mut capacity = None;
        for question in questions {
            match self.answer(*question, &mut report, &mut capacity).await {
                // What was found already is not to be lost for one thing that this store refuses.
                Err(error) if error.code() == exit::FAILED && !self.stop.is_requested() => {
                    report.failed = true;
                    report.skip(*question, error.to_string());
                }
                outcome => outcome?,
            }
        }
        Ok(report)
    }

    /// `capacity` is what `mixed` has found before, if it was asked.
    async fn answer(&self, question: Question, report: &mut Report, capacity: &mut Option<f64>) -> Result<()> {
        // Each is boxed: their futures together are large.
        match question {
            Question::Enqueue => Box::pin(enqueue::measure(self, report)).await,
            Question::Run => Box::pin(run::measure(self, report)).await,
            Question::Mixed => {
                *capacity = Some(Box::pin(mixed::measure(self, report)).await?);
                Ok(())
            }
            Question::Latency => Box::pin(latency::measure(self, report, *capacity)).await,
            Question::Payload => Box::pin(payload::measure(self, report)).await,
            Question::Queues => Box::pin(queues::measure(self, report)).await,
            Question::Depth => Box::pin(depth::measure(self, report)).await,
            Question::Delayed => Box::pin(delayed::measure(self, report)).await,
            Question::Retries => Box::pin(retries::measure(self, report)).await,
            Question::Dependants => Box::pin(dependants::measure(self, report)).await,
            Question::Unique => Box::pin(unique::measure(self, report)).await,
            Question::Startup | Question::Idle | Question::Memory | Question::Recovery if !self.place.is_shared() => {
                report.skip(question, other_process::NONE);
                Ok(())
            }
            Question::Startup => Box::pin(processes::startup(self, report)).await,
            Question::Idle => Box::pin(processes::idle(self, report)).await,
            Question::Memory => Box::pin(processes::memory(self, report)).await,
            Question::Recovery => Box::pin(recovery::measure(self, report)).await,
        }
    }

    /// Makes a ground, works on it, and removes it, whatever becomes of the work.
    async fn on_ground<T>(&self, work: impl AsyncFnOnce(&Ground) -> Result<T>) -> Result<T> {
        let name = Place::name();
        let services = self.place.services(self.session, &name);
        // Not dropped when it is to be stopped: what is being made would be made after its removal. It is a matter of seconds.
        let outcome = match Ground::open(services.clone(), name.clone()).await {
            Ok(ground) => work(&ground).await,
            Err(error) => Err(error),
        };
        services.close().await;
        let removed = tokio::select! {
            removed = tokio::time::timeout(REMOVAL, self.place.remove(self.session, &name)) => {
                removed.unwrap_or_else(|_| Err(CliError::timed_out(format!("no answer within {REMOVAL:?}"))))
            }
            () = self.stop.requested_now() => Err(stopped()),
        };
        let removed = removed.inspect_err(|_| {
            let left = self.place.describe(&name);
            self.session.warn(&format!("{left} could not be removed; `naq bench --clean` does it later"));
        });
        // A child that got the signal too, or a store that was closed, is not what ended this.
        let value = outcome.map_err(|error| if self.stop.is_requested() { stopped() } else { error })?;
        removed.map(|()| value)
    }

    /// Some work that can be dropped at any moment, but for the two ways in which it may have to end early.
    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            outcome = work => outcome,
            () = self.stop.requested() => Err(stopped()),
            () = tokio::time::sleep(PATIENCE) => Err(CliError::timed_out(format!("nothing came of it within {PATIENCE:?}"))),
        }
    }

    /// One rate: the rounds, each on a ground of its own with one queue, and the row. Returns the median.
    async fn rate(
        &self,
        report: &mut Report,
        series: Series,
        setup: String,
        round: impl AsyncFn(&Ground) -> Result<f64>,
    ) -> Result<f64> {
        let mut rates = Vec::with_capacity(self.load.rounds);
        for number in 1..=self.load.rounds {
            self.tell(series, &format!("round {number} of {}", self.load.rounds));
            let rate = self.on_ground(async |ground| {
                ground.make_queues(&self.load, &[ground::queue()]).await?;
                round(ground).await
            });
            rates.push(rate.await?);
        }
        let (median, found) = Found::rates(rates);
        report.add(series, setup, found);
        Ok(median)
    }

    /// Lets a time go by in which something is watched.
    async fn pause(&self, time: Duration) -> Result<()> {
        self.unless_stopped(async {
            tokio::time::sleep(time).await;
            Ok(())
        })
        .await
    }

    /// The slots of a worker that is told nothing.
    fn slots(&self) -> usize {
        self.session.config().workers.concurrency as usize
    }

    fn tell(&self, series: Series, what: &str) {
        let at = series.at.map(|at| format!(", {} {}", at.value, at.name)).unwrap_or_default();
        self.progress.set_message(format!("{}: {}{at}: {what}", series.question.name(), series.what));
    }
}

fn stopped() -> CliError {
    CliError::failed("stopped before everything was measured")
}
