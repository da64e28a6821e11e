//! Arguments and results are types of your own; producers that do not know them send JSON.
//!
//! Run it: `cargo run -p naq --example typed_arguments --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use naq::{NewJob, ServiceManager, Shutdown, Worker, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Debug, Serialize, Deserialize)]
struct Size {
    width: u32,
    height: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Thumbnail {
    path: String,
    size: Size,
}

/// An `Option` that is not given is `None`.
#[naq::job]
async fn resize(path: String, to: Size, suffix: Option<String>) -> Thumbnail {
    Thumbnail { path: format!("{path}{}", suffix.unwrap_or_else(|| ".small".into())), size: to }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://typed_arguments".parse()?);
    naq::install(services.clone()).await?;

    // The compiler checks the arguments, and knows what the job returns.
    let typed = naq::enqueue(resize::job("cat.png", Size { width: 64, height: 48 }, None)).await?;

    // Another program, in any language, gives the kind and its arguments by name or by position.
    let args = json!({"path": "dog.png", "to": {"width": 32, "height": 32}, "suffix": ".icon"});
    let by_name = naq::enqueue(NewJob::new("resize", args)).await?;

    // What does not fit fails once, with an error that says why, and waits among the dead letters.
    let wrong = naq::enqueue(NewJob::new("resize", json!({"path": "fox.png", "size": "huge"}))).await?;

    let worker = Worker::of(&services).await?.registered_handlers().burst().build()?;
    worker.run(Shutdown::new()).await?;

    let thumbnail = typed.result().await?;
    println!("{} is {} pixels wide", thumbnail.path, thumbnail.size.width);
    println!("{}", by_name.result().await?);
    if let Some(error) = wrong.outcome(secs(10)).await?.error {
        println!("{}: {}", error.error_type, error.message);
    }
    Ok(())
}

// Prints:
// cat.png.small is 64 pixels wide
// {"path":"dog.png.icon","size":{"width":32,"height":32}}
// decode: resize has no argument `size`; its arguments are `path`, `to`, `suffix`
