//! The harness itself: if servers do not start, die and come back as it says, no other test here means anything.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use naq_tests::{NaqBinary, NatsOptions, NatsServer, RawNats, ServerVersion, Signal};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(10);

async fn stored(nats: &mut RawNats) -> Result<Value> {
    Ok(nats.request_json("$JS.API.STREAM.INFO.T", &Value::Null).await?["state"]["messages"].clone())
}

#[tokio::test]
async fn a_stored_message_survives_kill_and_restart_on_every_version() -> Result<()> {
    for (version, prefix) in [(ServerVersion::V2_9, "2.9."), (ServerVersion::V2_15, "2.15.")] {
        let mut server = NatsServer::start(version).await?;
        let url = server.url();
        let mut nats = RawNats::connect(server.address()).await?;
        let said = nats.info["version"].as_str().unwrap_or_default().to_owned();
        assert!(said.starts_with(prefix), "asked for {prefix}, got {said}");

        let stream = json!({"name": "T", "subjects": ["t.>"], "storage": "file", "retention": "workqueue"});
        nats.request_json("$JS.API.STREAM.CREATE.T", &stream).await?;
        assert_eq!(nats.request_json("t.one", &json!("hello")).await?["seq"], 1);

        server.kill()?;
        assert!(RawNats::connect(server.address()).await.is_err(), "killed, but it still answers");
        assert!(nats.ping().await.is_err(), "killed, but an old connection still answers");

        server.restart().await?;
        assert_eq!(server.url(), url);
        let mut nats = RawNats::connect(server.address()).await?;
        assert_eq!(stored(&mut nats).await?, 1, "{}", server.log());
    }
    Ok(())
}

#[tokio::test]
async fn a_server_stops_when_asked_and_keeps_its_store() -> Result<()> {
    for version in ServerVersion::ALL {
        let mut server = NatsServer::start(version).await?;
        let mut nats = RawNats::connect(server.address()).await?;
        nats.request_json("$JS.API.STREAM.CREATE.T", &json!({"name": "T", "subjects": ["t.>"]})).await?;
        nats.request_json("t.one", &json!(1)).await?;
        server.stop().await?;
        assert!(RawNats::connect(server.address()).await.is_err());
        server.restart().await?;
        assert_eq!(stored(&mut RawNats::connect(server.address()).await?).await?, 1);
    }
    Ok(())
}

#[tokio::test]
async fn options_reach_the_server_at_start_and_at_restart() -> Result<()> {
    for version in ServerVersion::ALL {
        let options = NatsOptions { jetstream: false, max_payload: Some(2048), ..NatsOptions::default() };
        let mut server = NatsServer::start_with(version, options).await?;
        let nats = RawNats::connect(server.address()).await?;
        assert_eq!(nats.info["max_payload"], 2048);
        assert_eq!(nats.info["jetstream"], Value::Null);

        let extra = "authorization { user: u, password: p }".to_owned();
        server.options = NatsOptions { max_file_store: Some(1 << 20), extra, ..NatsOptions::default() };
        server.restart().await?;
        assert!(RawNats::connect(server.address()).await.is_err(), "no credentials were given");
        assert!(server.log().contains("Max Storage:     1.00 MB"), "{}", server.log());
    }
    Ok(())
}

#[tokio::test]
async fn many_servers_do_not_share_a_port() -> Result<()> {
    let mut servers = Vec::new();
    for _ in 0..5 {
        servers.push(NatsServer::start(ServerVersion::V2_15).await?);
    }
    let mut ports: Vec<u16> = servers.iter().map(|server| server.address().port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), servers.len());
    Ok(())
}

#[tokio::test]
async fn a_dropped_server_is_gone_with_its_files() -> Result<()> {
    let server = NatsServer::start(ServerVersion::V2_15).await?;
    let (address, store) = (server.address(), server.store_dir());
    assert!(store.exists());
    drop(server);
    assert!(!store.exists());
    assert!(RawNats::connect(address).await.is_err());
    Ok(())
}

fn shell(dir: &tempfile::TempDir) -> NaqBinary {
    NaqBinary::at(PathBuf::from("/bin/sh"), dir.path())
}

#[tokio::test]
async fn the_binary_under_test_is_found_and_starts() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let finished = NaqBinary::in_dir(dir.path())?.run(&["--version"], LIMIT).await?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    Ok(())
}

#[tokio::test]
async fn a_process_gets_its_input_and_its_own_environment_and_both_outputs_are_kept() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let script = "cat; env | grep ^NAQ_; echo $HOME >&2; exit 3";
    let process = shell(&dir).env("NAQ_URL", "sqlite://x").spawn_with_input(&["-c", script], b"in\n")?;
    let finished = process.wait(LIMIT).await?;
    assert_eq!(finished.code(), Some(3));
    assert_eq!(finished.stdout, "in\nNAQ_URL=sqlite://x\n");
    assert_eq!(finished.stderr.trim_end(), dir.path().to_string_lossy());
    Ok(())
}

#[tokio::test]
async fn a_process_that_does_not_end_is_killed_and_its_output_told() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let process = shell(&dir).spawn(&["-c", "echo so far; exec sleep 100"])?;
    let stat = PathBuf::from(format!("/proc/{}", process.pid()));
    let error = process.wait(Duration::from_millis(500)).await.expect_err("it sleeps");
    assert!(error.to_string().contains("so far"), "{error}");
    assert!(!stat.exists());
    Ok(())
}

#[tokio::test]
async fn a_signal_reaches_the_process_after_it_said_that_it_is_ready() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let script = "trap 'exit 7' TERM; echo ready >&2; while :; do sleep 0.01; done";
    let mut process = shell(&dir).spawn(&["-c", script])?;
    process.wait_for_stderr("ready", LIMIT).await?;
    process.signal(Signal::TERM)?;
    assert_eq!(process.wait(LIMIT).await?.code(), Some(7));

    let mut process = shell(&dir).spawn(&["-c", "echo done >&2"])?;
    assert!(process.wait_for_stderr("ready", LIMIT).await.is_err(), "it ended without");
    Ok(())
}
