//! A program of a user's own: every command of `naq`, with handlers and what they share.

use anyhow::Result;
use naq_tests::Finished;
use serde_json::json;

use crate::site::{Backend, COMMAND_LIMIT, Site, on_every_store};

on_every_store!(jobs_of_a_program_share_what_it_was_given);

/// Catches: an `App` whose values do not reach its workers, that gives each job a value of its own, and whose own commands
/// do not work.
async fn jobs_of_a_program_share_what_it_was_given(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    for n in 1..=3 {
        site.enqueue("t.run", &json!({}), &["--job-id", &format!("run-{n}")]).await?;
    }
    site.burst(&["--concurrency", "1"], COMMAND_LIMIT).await?;
    let mut counted = Vec::new();
    for n in 1..=3 {
        counted.push(site.json(&["job", "result", &format!("run-{n}")]).await?["result"].as_u64());
    }
    counted.sort_unstable();
    assert_eq!(counted, [Some(1), Some(2), Some(3)]);

    // Another process, another value; this time with the handler that was given by hand, and all by the program itself.
    let _worker = site.worker("w", &[]).await?;
    let by_hand = async |more: u32| -> Result<Finished> {
        let args = json!([more]).to_string();
        let flags = ["job", "enqueue", "t.run_by_hand", "--args", &args, "--wait", "20s", "--output", "json"];
        site.test_worker().run(&flags, COMMAND_LIMIT).await
    };
    assert_eq!(by_hand(10).await?.json()?["result"], 11);
    assert_eq!(by_hand(20).await?.json()?["result"], 22);
    Ok(())
}
