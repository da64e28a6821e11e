//! A failed attempt is followed by another: how often, after which delays, and after which errors.
//!
//! Run it: `cargo run -p naq --example retries --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{borrow::Cow, sync::Arc};

use naq::{JobContext, JobFailure, ServiceManager, Worker, secs};

#[derive(Debug, thiserror::Error)]
#[error("the mail server says {self:?}")]
enum MailError {
    Busy,
    Greylisted,
    BadAddress,
}

impl JobFailure for MailError {
    /// What `retry_on` and `ignore_on` match, so it has to stay when the code is renamed.
    fn error_type(&self) -> Cow<'static, str> {
        match self {
            Self::Busy => "busy".into(),
            Self::Greylisted => "greylisted".into(),
            Self::BadAddress => "bad_address".into(),
        }
    }

    /// No policy retries what can never go well.
    fn is_retryable(&self) -> bool {
        !matches!(self, Self::BadAddress)
    }
}

// In production rather `retry_delay = "10s", retry_strategy = "exponential"`, and the jitter that is there by default.
#[naq::job(max_retries = 3, retry_delay = ["10ms", "20ms"], retry_jitter = 0, ignore_on = ["greylisted"])]
async fn send_mail(to: String, cx: JobContext) -> Result<(), MailError> {
    println!("{to}: attempt {}", cx.attempt());
    match to.as_str() {
        "a@b.c" if cx.attempt() < 3 => Err(MailError::Busy),
        "grey@b.c" => Err(MailError::Greylisted),
        "nobody" => Err(MailError::BadAddress),
        _ => Ok(()),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://retries".parse()?);
    naq::install(services.clone()).await?;
    let worker = Worker::of(&services).await?.registered_handlers().build()?;
    worker.run_until(send_all()).await?.0
}

async fn send_all() -> anyhow::Result<()> {
    for to in ["a@b.c", "grey@b.c", "nobody"] {
        let mail = naq::enqueue(send_mail::job(to)).await?;
        let ended = mail.outcome(secs(10)).await?;
        match ended.error {
            None => println!("{to}: {}", ended.status),
            Some(error) => println!("{to}: {}, {}", ended.status, error.error_type),
        }
    }
    Ok(())
}

// Prints:
// a@b.c: attempt 1
// a@b.c: attempt 2
// a@b.c: attempt 3
// a@b.c: completed
// grey@b.c: attempt 1
// grey@b.c: failed, greylisted
// nobody: attempt 1
// nobody: failed, bad_address
