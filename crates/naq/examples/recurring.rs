//! Recurring jobs: cron in a time zone, a fixed rate, pausing, an extra run.
//!
//! In a program a worker fires what is due. Here the test kit's clock lets three nights pass at once, among them the one in
//! which Berlin sets its clocks forward.
//!
//! Run it: `cargo run -p naq --example recurring --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use naq::{JobContext, Schedule, secs, testing::TestStore};

const DAY: u64 = 24 * 3600;

#[naq::job]
async fn report(of: String, cx: JobContext) {
    let due = cx.job().run_at.unwrap_or(cx.job().enqueued_at);
    println!("{due} {of}");
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let store = TestStore::starting_at("2026-03-28T00:00:00Z".parse()?).await?;
    store.install().await?;

    // Every deploy may say this again: the id makes it the same schedule.
    let nightly = Schedule::cron("0 3 * * *").tz("Europe/Berlin");
    for _ in 0..2 {
        let night = naq::schedule(report::job("the night").job_id("nightly"), nightly.clone()).await?;
        println!("nightly is {:?}", night.outcome);
    }
    naq::schedule(report::job("twice a day").job_id("rate"), Schedule::every(secs(DAY / 2)).repeat(2)).await?;

    store.drain_for(secs(3 * DAY), |worker| worker.registered_handlers()).await?;

    naq::pause_scheduled_job("nightly").await?;
    store.drain_for(secs(DAY), |worker| worker.registered_handlers()).await?;
    println!("paused for a day; now one by hand:");
    naq::trigger_scheduled_job("nightly").await?;
    store.drain(|worker| worker.registered_handlers()).await?;

    for schedule in naq::list_scheduled_jobs().await?.schedules {
        println!("{} is {:?} after {} runs", schedule.id, schedule.status, schedule.runs);
    }
    Ok(())
}

// Prints:
// nightly is Created
// nightly is Unchanged
// 2026-03-28T02:00:00.000Z the night
// 2026-03-28T12:00:00.000Z twice a day
// 2026-03-29T00:00:00.000Z twice a day
// 2026-03-29T01:00:00.000Z the night
// 2026-03-30T01:00:00.000Z the night
// paused for a day; now one by hand:
// 2026-04-01T00:00:00.000Z the night
// nightly is Paused after 3 runs
// rate is Completed after 2 runs
