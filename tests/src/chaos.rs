//! Chaos: a store under load while everything breaks at random times; what happened is written down and judged.
//!
//! Invariant: what is broken, when and for how long follows from the seed; what it meets at that moment does not. Each
//! fault is in the history before it begins and after it has ended, so that the judge excuses no more than was done.

mod chronicle;
mod crew;
mod load;
mod proxy;
mod recovery;
mod stage;
mod storm;
mod watch;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use naq_config::{ConfigFiles, LoadOptions};
use naq_models::{
    ScheduleId,
    schedule::{Missed, Schedule},
};
use naq_services::{NewJob, ServiceManager};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::faults::{Event, Rules, Verdict, check, read};
use crate::{LEASE, ServerVersion, eventually};
use chronicle::Chronicle;
use crew::Crew;
use storm::Storm;
use watch::Watch;

pub use crew::Programs;
pub use load::{Load, produce};
pub use proxy::{Link, Proxy};
pub use recovery::Recovery;
pub use stage::Store;

const WORKERS: usize = 3;
const PRODUCERS: usize = 2;
/// From one run of the schedule to the next.
const PERIOD: Duration = Duration::from_millis(500);
/// For a new store to be there.
const OPENED: Duration = Duration::from_secs(60);
/// For workers to have opened their queues.
const OPENED_QUEUES: Duration = Duration::from_secs(3);
/// For all to end once nothing is broken any more: clocks that were ahead, leases, retries, chains of dependants.
const DRAINED: Duration = Duration::from_secs(180);
/// For new workers to see that nothing is left.
const DRAINED_AGAIN: Duration = Duration::from_secs(60);
/// What a loaded machine may add to a lease.
const SLACK: Duration = Duration::from_secs(2);
/// To settle a job a store writes a few times, and others wait before it.
const WRITES: u32 = 10;
/// Up to 0.96 s were seen, with 2.15.
const MEMORY: Duration = Duration::from_secs(2);
const MAX_CRASHES: usize = 3;
/// The schedule.
const RUN_OF: &str = "often";

/// One run.
#[derive(Debug)]
pub struct Chaos {
    /// What is under test.
    pub store: Store,
    /// How long things break.
    pub length: Duration,
    /// Decides what breaks when.
    pub seed: u64,
    /// Where the history and the files of all processes are.
    pub folder: PathBuf,
    /// The programs.
    pub programs: Programs,
}

/// What a run has shown.
#[derive(Debug)]
pub struct Report {
    /// The judge's.
    pub verdict: Verdict,
    /// How soon work went on after each kind of fault.
    pub recovery: Recovery,
    /// Processes that ended without being told to.
    pub gave_up: usize,
    /// The longest that the harness waited for the disk. The judge is as patient as that demands.
    pub slowest: Duration,
}

impl Chaos {
    /// Breaks, mends, waits until everything has ended, and judges.
    ///
    /// # Errors
    /// If the harness itself fails. What does not end is a broken promise like any other.
    pub async fn run(&self) -> Result<Report> {
        let (stage, servers) = stage::Stage::start(self.store, &self.folder).await?;
        let history = self.folder.join("history");
        let chronicle = Chronicle::open(&history)?;
        let mut dice = StdRng::seed_from_u64(self.seed);
        let mut child = || StdRng::seed_from_u64(dice.next_u64());

        let environment = stage.env(&stage.addresses);
        let options = LoadOptions {
            environment: environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            files: ConfigFiles::None,
            ..LoadOptions::default()
        };
        let services = ServiceManager::from_loaded(naq_config::load(&options)?)?;
        // A cluster that has just found its leader takes its time to make three copies of a dozen streams.
        let jobs = eventually(OPENED, "the store is open", async || services.jobs().await.ok()).await?;
        let mut watch = Watch::new(&chronicle, jobs, &history, child());
        self.schedule(&services, &chronicle).await?;
        let sizes = (WORKERS, PRODUCERS);
        let mut crew = Crew::start(&chronicle, &stage, &self.programs, &self.folder, child(), sizes).await?;
        let mut storm = Storm {
            chronicle: &chronicle,
            stage: &stage,
            servers,
            forgets_at_its_limit: self.store == Store::Nats(ServerVersion::V2_9),
            dice: child(),
        };

        let (mut calm, mut lull) = (child(), child());
        let until = Instant::now() + self.length;
        let processes = async {
            while Instant::now() < until {
                sleep(Duration::from_millis(calm.random_range(0..2_000))).await;
                crew.suffer().await?;
            }
            anyhow::Ok(())
        };
        let store = async {
            while Instant::now() < until {
                sleep(Duration::from_millis(lull.random_range(1_000..10_000))).await;
                storm.break_out().await?;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            // Each ends between two faults, so that all is mended.
            over = async { tokio::try_join!(processes, store) } => drop(over?),
            broken = watch.keep() => broken?,
        }
        chronicle.say("all is mended");
        crew.stop_producing().await?;
        crew.work_until(watch.drained(DRAINED, RUN_OF)).await?;
        crew.deploy().await?;
        crew.work_until(async {
            sleep(OPENED_QUEUES).await;
            watch.drained(DRAINED_AGAIN, RUN_OF).await
        })
        .await?;
        crew.dismiss().await?;
        watch.look_at_all().await?;

        let lines = read([&history])?;
        let memory = if self.store == Store::Sqlite { Duration::ZERO } else { MEMORY };
        let slowest = chronicle.slowest();
        let rules = Rules { lease: LEASE, slack: SLACK + WRITES * slowest, memory, max_crashes: MAX_CRASHES };
        let (verdict, recovery) = (check(&lines, &rules), Recovery::of(&lines));
        Ok(Report { verdict, recovery, gave_up: crew.gave_up, slowest })
    }

    /// A schedule that is due until shortly before the end.
    async fn schedule(&self, services: &ServiceManager, chronicle: &Chronicle) -> Result<()> {
        let scheduler = services.scheduler().await?;
        let count = u32::try_from(self.length.as_millis() / PERIOD.as_millis())?.max(1);
        let job = NewJob::new("t.recorded", json!({"history": self.folder.join("history"), "ms": 10, "fails": 0}));
        let schedule = Schedule::every(PERIOD).repeat(count.into()).missed(Missed::All);
        let upserted = scheduler.upsert(&ScheduleId::new(RUN_OF)?, scheduler.define(job, schedule)?).await?;
        let first = upserted.record.next.context("a new schedule has a next time")?.unix_millis();
        let period = i64::try_from(PERIOD.as_millis())?;
        chronicle.record(Event::Scheduled { schedule: RUN_OF.to_owned(), first, period, count })
    }
}
