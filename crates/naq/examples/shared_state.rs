//! What all handlers of a worker share, such as a connection pool, found by its type.
//!
//! Run it: `cargo run -p naq --example shared_state --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use naq::{ServiceManager, Shutdown, State, Worker, worker::BuildError};

struct Mailer {
    from: String,
    sent: AtomicUsize,
}

#[naq::job]
async fn send_mail(to: String, mailer: State<Mailer>) -> String {
    let number = mailer.sent.fetch_add(1, Ordering::Relaxed) + 1;
    format!("mail {number} from {} to {to}", mailer.from)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://shared_state".parse()?);
    naq::install(services.clone()).await?;

    // What is missing is found when the worker is built, not when the first job fails.
    let without = Worker::of(&services).await?.registered_handlers().build();
    println!("without a mailer: {}", matches!(without, Err(BuildError::State(_))));

    let first = naq::enqueue(send_mail::job("ada@b.c")).await?;
    let second = naq::enqueue(send_mail::job("bob@b.c")).await?;

    let mailer = Mailer { from: "shop@b.c".into(), sent: AtomicUsize::new(0) };
    let worker = Worker::of(&services).await?.registered_handlers().state(mailer).concurrency(1).burst();
    worker.build()?.run(Shutdown::new()).await?;

    println!("{}", first.result().await?);
    println!("{}", second.result().await?);
    Ok(())
}

// Prints:
// without a mailer: true
// mail 1 from shop@b.c to ada@b.c
// mail 2 from shop@b.c to bob@b.c
