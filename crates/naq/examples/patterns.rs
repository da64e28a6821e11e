//! `naq::utils`, within one attempt: a call that is tried again, several at once but not too many, and what is always given back.
//!
//! Run it: `cargo run -p naq --example patterns --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{io, sync::Arc, time::Duration};

use naq::{
    RetryPolicy, ServiceManager, Shutdown, Worker,
    utils::{gather_with_concurrency, managed_resource, retry_async},
};

struct Site;

impl Site {
    /// Tried again here, so that a busy moment costs no attempt of the job; the policy is that of jobs.
    async fn log_in() -> io::Result<Self> {
        let pause = vec![Duration::from_millis(1)];
        let policy = RetryPolicy { max_retries: 5, delay: pause, ..RetryPolicy::default() };
        let log_in = async |n| {
            println!("login, try {n}");
            if n < 3 { Err(io::Error::other("busy")) } else { Ok(Self) }
        };
        retry_async(&policy, log_in).await
    }

    async fn fetch(&self, page: String) -> io::Result<usize> {
        if page.is_empty() { Err(io::Error::other("there is no such page")) } else { Ok(page.len()) }
    }

    async fn log_out(self) {
        println!("logout");
    }
}

#[naq::job(max_retries = 0)]
async fn crawl(pages: Vec<String>) -> io::Result<Vec<usize>> {
    let fetch_all = async |site: &mut Site| {
        let fetches = pages.into_iter().map(|page| site.fetch(page));
        gather_with_concurrency(fetches, 2).await.into_iter().collect() // in the order of the pages
    };
    // `Drop` cannot wait; this does, also if the work fails.
    managed_resource(Site::log_in(), fetch_all, Site::log_out).await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://patterns".parse()?);
    naq::install(services.clone()).await?;

    let good = naq::enqueue(crawl::job(["start".into(), "faq".into(), "contact".into()])).await?;
    let bad = naq::enqueue(crawl::job(["start".into(), String::new()])).await?;
    let worker = Worker::of(&services).await?.registered_handlers().concurrency(1).burst().build()?;
    worker.run(Shutdown::new()).await?;

    println!("{:?}", good.result().await?);
    println!("{:?}", bad.result().await.map_err(|error| error.kind()));
    Ok(())
}

// Prints:
// login, try 1
// login, try 2
// login, try 3
// logout
// login, try 1
// login, try 2
// login, try 3
// logout
// [5, 3, 7]
// Err(Failed)
