//! A user's own producer: enqueues jobs one by one, many at a time, and writes down which the store has acknowledged.
//!
//! `test-producer KIND ARGS QUEUE PREFIX COUNT IN_FLIGHT LOG`: the ids are `PREFIX<n>`. A line of the log is `ok <id>` or
//! `error <id> <text>`, written (one write each) after the store has answered and before the next job of that task. The
//! store is configured as for every naq program.

use std::{fs::File, io::Write as _, sync::Arc};

use anyhow::{Context as _, Result};
use naq_models::RawJson;
use naq_services::{NewJob, ServiceManager};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, args, queue, prefix, count, in_flight, log] = &words[..] else {
        anyhow::bail!("usage: test-producer KIND ARGS QUEUE PREFIX COUNT IN_FLIGHT LOG");
    };
    let (count, in_flight): (usize, usize) = (count.parse()?, in_flight.parse()?);
    let args = RawJson::parse(args)?;
    let log = Arc::new(File::options().create(true).append(true).open(log).context("cannot open the log")?);

    let manager = ServiceManager::from_loaded(naq_config::load(&naq_config::LoadOptions::of_process(None))?)?;
    let jobs = manager.jobs().await?;
    let mut tasks = JoinSet::new();
    for task in 0..in_flight {
        let (jobs, log, args) = (jobs.clone(), Arc::clone(&log), args.clone());
        let (kind, queue, prefix) = (kind.clone(), queue.clone(), prefix.clone());
        tasks.spawn(async move {
            for number in (task..count).step_by(in_flight) {
                let id = format!("{prefix}{number}");
                let job = NewJob::new(&kind, args.clone()).queue(&queue).job_id(&id);
                let line = match jobs.enqueue(job).await {
                    Ok(_) => format!("ok {id}\n"),
                    Err(error) => format!("error {id} {}\n", format!("{error:?}").replace('\n', " ")),
                };
                (&*log).write_all(line.as_bytes())?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    manager.close().await;
    Ok(())
}
