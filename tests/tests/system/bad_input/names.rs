//! Names of queues and jobs that would mean something to a file system, a subject or a shell.

use anyhow::Result;
use serde_json::json;

use super::assert_refused;
use crate::site::{Backend, COMMAND_LIMIT, Site, WORKER_LIMIT, on_every_store};

on_every_store!(hostile_names_are_refused_and_the_strangest_good_ones_work);

const HOSTILE: [&str; 18] = [
    "",
    " ",
    "a b",
    "a.b",
    "*",
    ">",
    "a.>",
    "$JS",
    "../up",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\nb",
    "a\tb",
    "näq",
    "a;b",
    "a'b",
    "'; DROP TABLE jobs; --",
];

async fn hostile_names_are_refused_and_the_strangest_good_ones_work(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    for name in HOSTILE {
        for flag in ["--queue", "--job-id"] {
            let finished = site.run(&["job", "enqueue", "naq.echo", &format!("{flag}={name}")]).await?;
            assert_refused(&finished, 2, &[flag]);
        }
    }
    let name = HOSTILE[4];
    for command in [["queue", "stats"], ["queue", "pause"], ["job", "status"], ["job", "cancel"], ["dead", "show"]] {
        assert_refused(&site.run(&[&command[..], &[name]].concat()).await?, 2, &[]);
    }
    assert_refused(&site.run(&["worker", "start", "a.b"]).await?, 2, &["a.b"]);
    let (long_queue, long_id) = ("q".repeat(64), "i".repeat(128));
    assert_refused(&site.run(&["job", "enqueue", "k", &format!("--queue={long_queue}q")]).await?, 2, &["64"]);
    assert_refused(&site.run(&["job", "enqueue", "k", &format!("--job-id={long_id}i")]).await?, 2, &["128"]);

    let queues = ["-", "_", "--", "0", "CON", &long_queue];
    for (number, queue) in queues.iter().enumerate() {
        let (queue, args) = (format!("--queue={queue}"), json!({"n": number}));
        site.enqueue("naq.echo", &args, &[&queue, &format!("--job-id=-{number}")]).await?;
    }
    site.enqueue("naq.echo", &json!({"n": "long"}), &[&format!("--job-id={long_id}")]).await?;
    let serve: Vec<&str> = ["default", "--", "-", "_", "--", "0", "CON", &long_queue].to_vec();
    site.burst(&serve, WORKER_LIMIT).await?;
    for number in 0..queues.len() {
        let args = ["--output", "json", "job", "result", "--", &format!("-{number}")];
        let result = site.naq()?.run(&args, COMMAND_LIMIT).await?;
        assert_eq!(result.json()?["result"], json!({"n": number}));
    }
    assert_eq!(site.json(&["job", "result", &long_id]).await?["status"], "completed");
    Ok(())
}
