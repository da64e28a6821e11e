//! Servers that are absent, closed to us, or not what naq needs.

use std::time::{Duration, Instant};

use anyhow::Result;
use naq_tests::{NatsOptions, ServerVersion};
use serde_json::json;

use super::assert_refused;
use crate::site::{Backend, Site, on_every_server};

on_every_server!(a_server_without_jetstream_is_said, wrong_credentials_are_said_and_not_printed);

async fn a_server_without_jetstream_is_said(version: ServerVersion) -> Result<()> {
    let options = NatsOptions { jetstream: false, ..NatsOptions::default() };
    let site = Site::on_server(version, options).await?;
    for args in [&["job", "enqueue", "naq.echo"][..], &["worker", "start", "--burst"]] {
        assert_refused(&site.run(args).await?, 1, &["JetStream", "hint"]);
    }
    Ok(())
}

async fn wrong_credentials_are_said_and_not_printed(version: ServerVersion) -> Result<()> {
    let extra = "authorization { user: naq, password: right }".to_owned();
    let mut site = Site::on_server(version, NatsOptions { extra, ..NatsOptions::default() }).await?;
    let address = site.nats()?.address();
    assert_refused(&site.run(&["job", "enqueue", "naq.echo"]).await?, 1, &["authoriz"]);
    site.url = format!("nats://naq:secret-mistake@{address}");
    let refused = site.run(&["job", "enqueue", "naq.echo"]).await?;
    assert_refused(&refused, 1, &["authoriz"]);
    assert!(!refused.stderr.contains("secret-mistake"), "{}", refused.stderr);

    site.url = format!("nats://naq:right@{address}");
    site.enqueue("naq.echo", &json!({}), &["--job-id", "in"]).await?;
    site.url = format!("nats://{address}");
    site.set("NAQ_NATS__AUTH__USER", "naq");
    site.set("NAQ_NATS__AUTH__PASSWORD", "right");
    assert_eq!(site.json(&["job", "status", "in"]).await?["status"], "pending");
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_exit_code_4_with_a_way_out() -> Result<()> {
    let mut site = Site::start(Backend::Sqlite).await?;
    // Port 1 is reserved, and nothing listens there.
    site.url = "nats://127.0.0.1:1".to_owned();
    let commands = [
        &["job", "enqueue", "naq.echo"][..],
        &["queue", "list"],
        &["system", "doctor"],
        &["worker", "start", "--burst"],
    ];
    for args in commands {
        let begun = Instant::now();
        let finished = site.run(args).await?;
        assert_refused(&finished, 4, &["127.0.0.1:1", "hint", "nats-server"]);
        assert!(begun.elapsed() < Duration::from_secs(20), "`{}` took {:?}", args.join(" "), begun.elapsed());
        assert_eq!(finished.stdout, "");
    }
    site.url = "postgres://127.0.0.1/jobs".to_owned();
    assert_refused(&site.run(&["queue", "list"]).await?, 2, &["postgres"]);
    Ok(())
}
