//! `naq top` on a terminal of 80 × 24, as an operator uses it over ssh.

use anyhow::{Result, ensure};
use naq_tests::{ServerVersion, Signal, eventually};
use serde_json::json;

use crate::{
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, on_every_store},
};

const SMALL: (u16, u16) = (80, 24);

on_every_store!(
    a_screen_shows_what_goes_on_and_keys_step_in,
    one_frame_goes_to_scripts_and_no_terminal_is_said,
    a_signal_gives_the_terminal_back
);

/// The line of the screen that begins with this word.
fn row(screen: &str, first: &str) -> String {
    screen.lines().find(|line| line.split_whitespace().next() == Some(first)).unwrap_or_default().to_owned()
}

async fn a_screen_shows_what_goes_on_and_keys_step_in(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    let _worker = site.worker("w1", &[]).await?;
    let args = json!({"file": log.path(), "until": site.path("release")});
    site.enqueue("t.log_sleep", &args, &["--job-id", "long"]).await?;
    log.wait("start", 1, None, COMMAND_LIMIT).await?;
    site.enqueue("t.second_life", &json!({}), &["--job-id", "broken", "--max-retries", "0"]).await?;

    // Log lines must not go where the screen is.
    let mut top = site.naq()?.env("NAQ_LOGGING__LEVEL", "debug").open_terminal(&["top"], SMALL)?;
    let shown = |screen: &str| {
        row(screen, "default").contains(" 1 ")
            && row(screen, "w1").contains("1/")
            && row(screen, "long").contains("t.log_sleep")
            && row(screen, "broken").contains("dead")
    };
    top.wait_until(COMMAND_LIMIT, "all four lists are filled", shown).await?;
    ensure!(top.text().lines().count() == 24 && top.text().contains("? help  q end"), "{}", top.text());

    top.type_keys("p").await?;
    top.shows(COMMAND_LIMIT, "default paused: nothing new starts").await?;
    assert_eq!(site.queue("default").await?["paused"], true);
    top.wait_until(COMMAND_LIMIT, "the list says so", |screen| row(screen, "default").contains("paused")).await?;
    top.type_keys("p").await?;
    top.shows(COMMAND_LIMIT, "default resumed").await?;
    assert_eq!(site.queue("default").await?["paused"], false);

    top.type_keys("\t\tc").await?;
    top.shows(COMMAND_LIMIT, "cancel long? y/n").await?;
    top.type_keys("n").await?;
    top.shows(COMMAND_LIMIT, "long was not cancelled").await?;
    top.type_keys("cy").await?;
    top.shows(COMMAND_LIMIT, "long cancelled (was running)").await?;
    assert_eq!(site.json(&["job", "status", "long"]).await?["status"], "cancelled");

    top.type_keys("\th").await?;
    let history = |screen: &str| {
        ["enqueued", "started", "failed"].iter().all(|step| screen.contains(step)) && screen.contains("1 run took")
    };
    top.wait_until(COMMAND_LIMIT, "the history of the failed job", history).await?;
    top.type_keys("q").await?;
    top.wait_until(COMMAND_LIMIT, "the history is closed", |screen| !screen.contains("1 run took")).await?;
    top.type_keys("r").await?;
    top.shows(COMMAND_LIMIT, "broken pending in default").await?;
    eventually(COMMAND_LIMIT, "its second life is a success", async || {
        (site.json(&["job", "status", "broken"]).await.ok()?["status"] == "completed").then_some(())
    })
    .await?;
    top.shows(COMMAND_LIMIT, "FAILED (0)").await?;
    let counted = |screen: &str| screen.contains("/s  done ") && !screen.contains("done 0/s");
    top.wait_until(COMMAND_LIMIT, "its success is counted", counted).await?;

    top.resize((132, 43))?;
    top.wait_until(COMMAND_LIMIT, "the screen has grown", |screen| screen.lines().count() == 43).await?;
    top.type_keys("q").await?;
    assert_eq!(top.ends(COMMAND_LIMIT).await?.code(), Some(0));
    Ok(())
}

async fn one_frame_goes_to_scripts_and_no_terminal_is_said(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    site.enqueue("naq.noop", &json!({}), &["--queue", "mail"]).await?;
    site.enqueue("naq.noop", &json!({}), &["--queue", "other"]).await?;
    let naq = site.naq()?;
    let frame = naq.run(&["top", "--once"], COMMAND_LIMIT).await?;
    assert_eq!(frame.code(), Some(0), "{frame:#?}");
    ensure!(row(&frame.stdout, "mail").contains(" 1 ") && row(&frame.stdout, "other").contains(" 1 "), "{frame:#?}");
    ensure!(frame.stdout.contains("done 0/s  failed 0/s"), "{frame:#?}");
    ensure!(frame.stdout.contains("BAD: no worker is alive"), "{frame:#?}");
    ensure!(!frame.stdout.contains('\u{1b}'), "plain text: {frame:#?}");
    let of_mail = naq.run(&["top", "--once", "--queue", "mail"], COMMAND_LIMIT).await?;
    ensure!(of_mail.stdout.contains("mail") && !of_mail.stdout.contains("other"), "{of_mail:#?}");
    for (args, hint) in [
        (&["top"][..], "naq queue stats"),
        (&["top", "--once", "--output", "json"], "naq queue list"),
        (&["top", "--once", "--interval", "1ms"], "--interval"),
        (&["top", "--once", "--queue", "a.b"], "--queue"),
    ] {
        let refused = naq.run(args, COMMAND_LIMIT).await?;
        ensure!(refused.code() == Some(2) && refused.stderr.contains(hint), "{args:?}: {refused:#?}");
        assert_eq!(refused.stdout, "", "nothing is drawn on what is no terminal");
    }
    Ok(())
}

async fn a_signal_gives_the_terminal_back(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    for (signal, keys) in [(Some(Signal::TERM), ""), (Some(Signal::HUP), "?"), (None, "/\u{3}")] {
        let mut top = site.naq()?.open_terminal(&["top"], SMALL)?;
        top.shows(COMMAND_LIMIT, "no worker is alive").await?;
        top.type_keys(keys).await?;
        if let Some(signal) = signal {
            top.signal(signal)?;
        }
        assert_eq!(top.ends(COMMAND_LIMIT).await?.code(), Some(0));
    }
    Ok(())
}

/// Catches: a screen that ends, freezes or stays silent when its server is gone, or does not recover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_and_comes_back_is_told_and_survived() -> Result<()> {
    let mut site = Site::start(Backend::Nats(ServerVersion::V2_15)).await?;
    site.enqueue("naq.noop", &json!({}), &["--job-id", "first"]).await?;
    let mut top = site.naq()?.open_terminal(&["top", "--interval", "200ms"], SMALL)?;
    top.wait_until(COMMAND_LIMIT, "the queue is shown", |screen| row(screen, "default").contains(" 1 ")).await?;
    site.nats()?.kill()?;
    top.shows(COMMAND_LIMIT, "BAD: the store ").await?;
    top.type_keys("?").await?;
    top.shows(COMMAND_LIMIT, "any key closes").await?;
    top.type_keys("x").await?;
    site.nats()?.restart().await?;
    top.wait_until(COMMAND_LIMIT, "all is as before", |screen| !screen.contains("BAD: the store")).await?;
    site.enqueue("naq.noop", &json!({}), &["--job-id", "second"]).await?;
    top.wait_until(COMMAND_LIMIT, "the store is read again", |screen| row(screen, "default").contains(" 2 ")).await?;
    top.type_keys("q").await?;
    assert_eq!(top.ends(COMMAND_LIMIT).await?.code(), Some(0));
    Ok(())
}
