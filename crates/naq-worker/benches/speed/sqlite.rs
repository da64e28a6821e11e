//! The embedded store: bulk enqueue, runs, latency and footprint.
//!
//! Invariant: files are made by naq, on the disk that is measured, and removed at once. Each turn has one of its own, but
//! for those in [`kept`].

mod kept;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use naq_models::Timestamp;
use naq_services::{
    EventHook, JobService, JobSettings,
    bare::sqlite::{BareSqlite, Row},
    storage::{
        SharedStorage,
        sqlite::{self, SqliteOptions},
    },
};
use tokio::task::spawn_blocking;

use crate::{
    delayed,
    events::{self, Telling},
    footprint,
    jobs::{self, Encoded, Keep},
    latency,
    other_process::{OtherProcess, Role},
    plan::{Plan, Served},
    report::{Found, Report, Store},
    rounds::{Start, Took, compare},
    run,
};

/// For the last settlements of a round.
const PATIENCE: Duration = Duration::from_secs(30);
const QUEUE: &str = "default";

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let bench = Bench { plan };
    let file = bench.file("version")?;
    let storage = file.open().await?;
    report.stores.push(Store {
        version: storage.info().version,
        durability: "write-ahead log, synchronous=FULL: a commit survives a power cut".into(),
    });
    storage.close().await;

    bench.enqueue(report).await?;
    for keep in [Keep::Result, Keep::Nothing] {
        bench.run(report, keep).await?;
    }
    if plan.beyond_ratios() {
        bench.latency(report).await?;
        bench.footprint(report).await?;
        bench.flatness(report).await?;
        bench.pruning(report).await?;
    }
    if plan.delayed {
        bench.delayed(report).await?;
    }
    if plan.events {
        bench.events(report).await?;
    }
    Ok(())
}

struct Bench<'a> {
    plan: &'a Plan,
}

/// A folder with one store in it; gone when dropped.
struct File {
    folder: tempfile::TempDir,
}

impl File {
    fn path(&self) -> PathBuf {
        self.folder.path().join("jobs.db")
    }

    async fn open(&self) -> Result<SharedStorage> {
        open(&self.path()).await
    }

    /// Makes the tables, as naq has them.
    async fn made(self) -> Result<Self> {
        self.open().await?.close().await;
        Ok(self)
    }

    /// The store's time.
    async fn now(&self) -> Result<Timestamp> {
        let storage = self.open().await?;
        let now = storage.now().await?;
        storage.close().await;
        Ok(now)
    }

    /// Runs a bare loop over the file and says what it took, without opening.
    async fn bare<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut BareSqlite) -> Result<T> + Send + 'static,
    ) -> Result<(T, Took)> {
        let path = self.path();
        spawn_blocking(move || {
            let mut bare = BareSqlite::open(&path)?;
            let begin = Start::now();
            let value = work(&mut bare)?;
            Ok((value, begin.took()))
        })
        .await?
    }
}

pub(crate) async fn open(path: &Path) -> Result<SharedStorage> {
    Ok(sqlite::open(SqliteOptions::file(path)).await?)
}

fn rows(jobs: Vec<Encoded>, stored_at: i64) -> Vec<Row> {
    jobs.into_iter().map(|Encoded { id, body }| Row { id, stored_at, body }).collect()
}

impl Bench<'_> {
    fn file(&self, name: &str) -> Result<File> {
        let folder = tempfile::Builder::new().prefix(name).tempdir_in(&self.plan.scratch);
        Ok(File { folder: folder.context("no folder for a store")? })
    }

    async fn rows(&self, file: &File, keep: Keep) -> Result<Vec<Row>> {
        let now = file.now().await?;
        Ok(rows(jobs::encoded(QUEUE, self.plan.jobs(), keep, now)?, now.unix_millis()))
    }

    /// Lets the jobs of one round wait in a file.
    async fn fill(&self, file: &File, keep: Keep) -> Result<()> {
        let rows = self.rows(file, keep).await?;
        file.bare(move |bare| Ok(bare.enqueue(&rows, 1000)?)).await?;
        Ok(())
    }

    /// A file in which the jobs of one round wait.
    async fn filled(&self, keep: Keep) -> Result<File> {
        let file = self.file("run")?.made().await?;
        self.fill(&file, keep).await?;
        Ok(file)
    }

    /// Naq's side of bulk enqueue.
    async fn enqueue_into(&self, file: &File) -> Result<Took> {
        let storage = file.open().await?;
        let service = JobService::new(storage.clone(), JobSettings::default());
        let took = jobs::enqueue_round(&service, QUEUE, self.plan.jobs()).await?;
        storage.close().await;
        Ok(took)
    }

    /// Naq's side of a run: of the jobs that wait in a file.
    async fn run_in(&self, file: &File) -> Result<Took> {
        let storage = file.open().await?;
        let took = run::drain(&storage, QUEUE, self.plan.jobs(), EventHook::silent(), emptied(file.path())).await?;
        storage.close().await;
        Ok(took)
    }

    async fn enqueue(&self, report: &mut Report) -> Result<()> {
        let what = "enqueue in bulk";
        if !self.plan.compares("SQLite", what) {
            return Ok(());
        }
        let jobs = self.plan.jobs();
        let bare = async |batch: usize| {
            let file = self.file("enqueue")?.made().await?;
            let rows = self.rows(&file, Keep::Result).await?;
            let ((), took) = file.bare(move |bare| Ok(bare.enqueue(&rows, batch)?)).await?;
            Ok(took)
        };
        let batch = best(what, self.plan.batches(), bare).await?;
        let compared = compare(
            &format!("SQLite, {what}"),
            self.plan.rounds(),
            jobs,
            async |_| self.enqueue_into(&self.file("enqueue")?).await,
            async |_| bare(batch).await,
        )
        .await?;
        let against = format!("bare rusqlite loop, same rows, batches of {batch}");
        report.add("SQLite", what, true, Found::Ratio { compared, against, at_least: Some(0.80) });
        Ok(())
    }

    async fn run(&self, report: &mut Report, keep: Keep) -> Result<()> {
        let jobs = self.plan.jobs();
        let what = match keep {
            Keep::Result => "run with result",
            Keep::Nothing => "run without result",
        };
        if !self.plan.compares("SQLite", what) {
            return Ok(());
        }
        let result = jobs::result(QUEUE, self.file("clock")?.now().await?)?;
        let bare = async |batch: usize| {
            let file = self.filled(keep).await?;
            let result = result.clone();
            let (ran, took) =
                file.bare(move |bare| Ok(bare.run((keep == Keep::Result).then_some(&*result), batch)?)).await?;
            ensure!(ran == jobs, "{ran} of {jobs} jobs ran");
            Ok(took)
        };
        let batch = best(what, self.plan.batches(), bare).await?;
        let compared = compare(
            &format!("SQLite, {what}"),
            self.plan.rounds(),
            jobs,
            async |_| self.run_in(&self.filled(keep).await?).await,
            async |_| bare(batch).await,
        )
        .await?;
        let against = format!("bare rusqlite loop, same rows, batches of {batch}");
        let (gated, at_least) = if keep == Keep::Result { (true, Some(0.80)) } else { (false, None) };
        report.add("SQLite", what, gated, Found::Ratio { compared, against, at_least });
        Ok(())
    }
}

impl Bench<'_> {
    async fn events(&self, report: &mut Report) -> Result<()> {
        let (rounds, jobs) = (self.plan.telling_rounds(), self.plan.jobs());
        let enqueue = async |on| {
            let file = self.file("events")?;
            let storage = file.open().await?;
            let telling = Telling::start(&storage, on);
            let service = JobService::new(storage.clone(), JobSettings::default()).with_events(telling.hook());
            let took = jobs::enqueue_round(&service, QUEUE, jobs).await?;
            telling.end().await;
            storage.close().await;
            Ok(took)
        };
        let what = "enqueue in bulk, events on";
        let compared =
            compare(what, rounds, jobs, async |_| enqueue(true).await, async |_| enqueue(false).await).await?;
        events::report(report, "SQLite", what, true, compared);
        let run = async |on| {
            let file = self.filled(Keep::Result).await?;
            let storage = file.open().await?;
            let telling = Telling::start(&storage, on);
            let took = run::drain(&storage, QUEUE, jobs, telling.hook(), emptied(file.path())).await?;
            telling.end().await;
            storage.close().await;
            Ok(took)
        };
        let what = "run with result, events on";
        let compared = compare(what, rounds, jobs, async |_| run(true).await, async |_| run(false).await).await?;
        events::report(report, "SQLite", what, true, compared);
        let file = self.file("history")?;
        let storage = file.open().await?;
        events::history(self.plan, "SQLite", true, &storage, report).await?;
        storage.close().await;
        Ok(())
    }

    async fn latency(&self, report: &mut Report) -> Result<()> {
        let samples = self.plan.samples();
        let file = self.file("latency")?;
        let storage = file.open().await?;
        let service = JobService::new(Arc::clone(&storage), JobSettings::default());
        eprintln!("  SQLite, latency in process");
        let found = latency::in_process(&service, Arc::clone(&storage), samples, Some(2.0)).await?;
        report.add("SQLite", "enqueue to start, idle, in process", true, found);
        eprintln!("  SQLite, latency across processes");
        let mut worker = OtherProcess::start(Role::Worker, Served::Sqlite(file.path()))?;
        let found = latency::across_processes(&service, &mut worker, samples, Some(25.0)).await?;
        report.add("SQLite", "enqueue to start, idle, across processes", true, found);
        worker.stop().await?;
        storage.close().await;
        Ok(())
    }

    async fn footprint(&self, report: &mut Report) -> Result<()> {
        let file = self.file("footprint")?;
        let storage = file.open().await?;
        let service = JobService::new(Arc::clone(&storage), JobSettings::default());
        let worker = OtherProcess::start(Role::Worker, Served::Sqlite(file.path()))?;
        footprint::measure(self.plan, "SQLite", true, &service, &worker, report).await?;
        worker.stop().await?;
        storage.close().await;
        Ok(())
    }

    async fn delayed(&self, report: &mut Report) -> Result<()> {
        let file = self.file("delayed")?;
        let storage = file.open().await?;
        let service = JobService::new(Arc::clone(&storage), JobSettings::default());
        delayed::measure(self.plan, "SQLite", true, &service, Served::Sqlite(file.path()), report).await?;
        storage.close().await;
        Ok(())
    }
}

/// Waits until the file holds no job.
async fn emptied(path: PathBuf) -> Result<()> {
    spawn_blocking(move || {
        let bare = BareSqlite::open(&path)?;
        let until = Instant::now() + PATIENCE;
        while bare.held()? > 0 {
            ensure!(Instant::now() < until, "{} jobs are left", bare.held()?);
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    })
    .await?
}

/// The batch size with which the bare side is fastest, of two tries each.
async fn best(what: &str, batches: &[usize], mut bare: impl AsyncFnMut(usize) -> Result<Took>) -> Result<usize> {
    let mut fastest = (Duration::MAX, batches[0]);
    for &batch in batches {
        let took = bare(batch).await?.wall.min(bare(batch).await?.wall);
        eprintln!("  {what}: bare in batches of {batch}: {took:?}");
        fastest = fastest.min((took, batch));
    }
    Ok(fastest.1)
}
