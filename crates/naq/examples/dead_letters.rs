//! Jobs that failed for good: look at them, mend what was wrong, let them run again.
//!
//! Run it: `cargo run -p naq --example dead_letters --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use naq::{Failure, JobHandle, ServiceManager, Shutdown, Worker, services::jobs::DeadLetterView};

static BANK_IS_OPEN: AtomicBool = AtomicBool::new(false);

#[naq::job(max_retries = 0)]
async fn transfer(cents: u64) -> Result<String, Failure> {
    if BANK_IS_OPEN.load(Ordering::Relaxed) {
        Ok(format!("{cents} cents"))
    } else {
        Err(Failure::new("bank_closed", "the bank is closed"))
    }
}

async fn work(services: &ServiceManager) -> anyhow::Result<()> {
    let worker = Worker::of(services).await?.registered_handlers().burst().build()?;
    worker.run(Shutdown::new()).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://dead_letters".parse()?);
    naq::install(services.clone()).await?;
    let jobs = services.jobs().await?;

    naq::enqueue(transfer::job(950).job_id("rent")).await?;
    naq::enqueue(transfer::job(5).job_id("tip")).await?;
    work(&services).await?;

    // On the command line: `naq dead list`, `naq dead retry ID`, `naq dead retry --all`, `naq dead purge`.
    let mut letters: Vec<_> = jobs.dead_list(None, 100, None).await?.letters.iter().map(DeadLetterView::from).collect();
    letters.sort_by(|a, b| a.job_id.cmp(&b.job_id));
    for letter in &letters {
        println!("{}: {} ({})", letter.job_id, letter.error.error_type, letter.error.message);
    }

    BANK_IS_OPEN.store(true, Ordering::Relaxed);
    let rent = jobs.dead_retry(&"rent".parse()?).await?;
    println!("rent is {} again", rent.status);
    jobs.dead_purge(&"tip".parse()?).await?;
    work(&services).await?;

    println!("rent: {}", JobHandle::<String>::new(jobs.clone(), rent.job_id).result().await?);
    println!("dead letters: {}", jobs.dead_list(None, 100, None).await?.letters.len());
    Ok(())
}

// Prints:
// rent: bank_closed (the bank is closed)
// tip: bank_closed (the bank is closed)
// rent is pending again
// rent: 950 cents
// dead letters: 0
