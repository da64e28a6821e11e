//! A server that is configured as `docs/operating/permissions.md` says: each role does its work, and nothing that it must not.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{NaqBinary, NatsOptions, RawNats, ServerVersion, eventually};
use serde_json::{Value, json};

use crate::site::{COMMAND_LIMIT, Site, on_every_server};

on_every_server!(each_role_does_its_work, no_role_does_more);

/// For a job to run, or for its result to be there.
const DONE: Duration = Duration::from_secs(30);

/// The roles, as the users of the page are called, with their passwords there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Worker,
    Mailer,
    Producer,
    Viewer,
}

impl Role {
    const fn user(self) -> (&'static str, &'static str) {
        match self {
            Role::Worker => ("worker", "change-me-2"),
            Role::Mailer => ("mailer", "change-me-3"),
            Role::Producer => ("producer", "change-me-4"),
            Role::Viewer => ("viewer", "change-me-5"),
        }
    }

    fn of(self, program: NaqBinary) -> NaqBinary {
        let (user, password) = self.user();
        program.env("NAQ_NATS__AUTH__USER", user).env("NAQ_NATS__AUTH__PASSWORD", password)
    }
}

struct Guarded(Site);

impl Guarded {
    /// A server as the page says; what is asked by the way is asked as viewer.
    async fn start(version: ServerVersion) -> Result<Guarded> {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating/permissions.md");
        let page = fs::read_to_string(page)?;
        let (_, block) = page.split_once("```text\n").context("the page has a block")?;
        let (block, _) = block.split_once("```").context("the block ends")?;
        let options = NatsOptions { extra: block.to_owned(), ..NatsOptions::default() };
        let mut site = Site::on_server(version, options).await?;
        let (user, password) = Role::Viewer.user();
        site.set("NAQ_NATS__AUTH__USER", user);
        site.set("NAQ_NATS__AUTH__PASSWORD", password);
        Ok(Guarded(site))
    }

    async fn worker(&self) -> Result<naq_tests::NaqProcess> {
        let (program, queues) = (Role::Worker.of(self.0.test_worker()), ["default", "mail"]);
        // It makes the streams, which a viewer that looks for it cannot.
        let made = program.run(&[&["worker", "start", "--burst"], &queues[..]].concat(), COMMAND_LIMIT).await?;
        ensure!(made.code() == Some(0), "{made:#?}");
        self.0.worker_of(&program, "w", &queues).await
    }

    async fn run(&self, role: Role, args: &[&str]) -> Result<naq_tests::Finished> {
        role.of(self.0.naq()?).run(&[args, &["--output", "json"]].concat(), COMMAND_LIMIT).await
    }

    async fn does(&self, role: Role, args: &[&str]) -> Result<Value> {
        let finished = self.run(role, args).await?;
        ensure!(finished.code() == Some(0), "as {role:?}, naq {}: {finished:#?}", args.join(" "));
        ensure!(
            !finished.stderr.contains("WARN") && !finished.stderr.contains("ERROR"),
            "as {role:?}, naq {}: {finished:#?}",
            args.join(" ")
        );
        Ok(serde_json::from_str(&finished.stdout).unwrap_or(Value::Null))
    }

    async fn fails(&self, role: Role, args: &[&str]) -> Result<()> {
        let finished = self.run(role, args).await?;
        ensure!(finished.code() != Some(0), "as {role:?}, naq {}: {finished:#?}", args.join(" "));
        Ok(())
    }

    async fn becomes(&self, id: &str, status: &str) -> Result<()> {
        let there = eventually(DONE, format!("{id} is {status}"), async || {
            let job = self.0.json(&["job", "status", id]).await.ok()?;
            (job["status"] == status).then_some(())
        });
        there.await
    }

    fn violations(&mut self) -> Result<Vec<String>> {
        let log = self.0.nats()?.log();
        Ok(log.lines().filter(|line| line.contains("Violation")).map(str::to_owned).collect())
    }
}

async fn each_role_does_its_work(version: ServerVersion) -> Result<()> {
    let mut guarded = Guarded::start(version).await?;
    let worker = guarded.worker().await?;
    let mail = ["--queue", "mail"];
    let echo = ["job", "enqueue", "naq.echo"];

    let receipt = guarded.does(Role::Mailer, &[&echo[..], &mail].concat()).await?;
    guarded.becomes(receipt["job_id"].as_str().context("an id")?, "completed").await?;

    let with = |flags: &[&'static str]| [&echo[..], &mail, flags].concat();
    let said = guarded.does(Role::Producer, &with(&["--job-id", "own", "--args", "[7]", "--wait", "20s"])).await?;
    ensure!(said == json!([7]) || said["result"] == json!([7]), "{said}");
    guarded.does(Role::Producer, &with(&["--job-id", "once", "--unique-key", "k", "--delay", "1h"])).await?;
    guarded.does(Role::Producer, &with(&["--job-id", "twice", "--unique-key", "k"])).await?;
    guarded.does(Role::Producer, &with(&["--job-id", "later", "--delay", "300ms"])).await?;
    guarded.does(Role::Producer, &with(&["--job-id", "after", "--depends-on", "later"])).await?;
    guarded.becomes("after", "completed").await?;
    for look in [["job", "status", "own"], ["job", "result", "own"]] {
        guarded.does(Role::Producer, &look).await?;
    }

    // Who may run jobs may do everything that an operator does.
    let enqueue = ["job", "enqueue", "t.second_life", "--max-retries", "0", "--job-id", "dead"];
    guarded.does(Role::Worker, &enqueue).await?;
    guarded.becomes("dead", "failed").await?;
    let sleep = ["job", "enqueue", "naq.sleep", "--args", "{\"seconds\": 60}", "--job-id", "slow"];
    guarded.does(Role::Worker, &sleep).await?;
    guarded.becomes("slow", "running").await?;
    let upsert = ["scheduler", "upsert", "tick", "--kind", "naq.noop", "--every", "200ms", "--repeat", "2"];
    let operator: [&[&str]; 9] = [
        &["job", "cancel", "slow"],
        &["job", "enqueue", "naq.noop", "--delay", "1h", "--job-id", "moved"],
        &["job", "reschedule", "moved", "--delay", "2h"],
        &["job", "cancel", "moved"],
        &["queue", "pause", "mail"],
        &["queue", "resume", "mail"],
        &upsert,
        &["scheduler", "trigger", "tick"],
        &["dead", "retry", "dead"],
    ];
    for args in operator {
        guarded.does(Role::Worker, args).await?;
    }
    guarded.becomes("slow", "cancelled").await?;
    guarded.becomes("dead", "completed").await?;

    let viewer: [&[&str]; 13] = [
        &["queue", "list"],
        &["queue", "stats", "mail"],
        &["job", "list", "--limit", "100"],
        &["job", "status", "own"],
        &["job", "result", "own"],
        &["dead", "list"],
        &["events", "history", "own"],
        &["events", "stats"],
        &["events", "workers"],
        &["worker", "list"],
        &["worker", "status"],
        &["scheduler", "jobs"],
        &["scheduler", "show", "tick"],
    ];
    for args in viewer {
        guarded.does(Role::Viewer, args).await?;
    }
    let doctor = guarded.run(Role::Viewer, &["system", "doctor"]).await?;
    ensure!(doctor.stdout.contains("durability"), "{doctor:#?}");

    let violations = guarded.violations()?;
    ensure!(violations.is_empty(), "the page lacks what was needed:\n{}", violations.join("\n"));
    drop(worker);
    Ok(())
}

async fn no_role_does_more(version: ServerVersion) -> Result<()> {
    let mut guarded = Guarded::start(version).await?;
    let worker = guarded.worker().await?;
    guarded.does(Role::Worker, &["queue", "pause", "mail"]).await?;
    guarded.does(Role::Worker, &["job", "enqueue", "naq.echo", "--queue", "mail", "--job-id", "kept"]).await?;

    let echo = ["job", "enqueue", "naq.echo", "--queue"];
    let (to_default, to_mail) = ([&echo[..], &["default"]].concat(), [&echo[..], &["mail"]].concat());
    let later = [&to_mail[..], &["--delay", "1h"]].concat();
    // At once, because a refused request is answered by nobody.
    tokio::try_join!(
        guarded.fails(Role::Mailer, &to_default),
        guarded.fails(Role::Mailer, &later),
        guarded.fails(Role::Producer, &to_default),
        guarded.fails(Role::Producer, &["queue", "resume", "mail"]),
        guarded.fails(Role::Producer, &["job", "cancel", "kept"]),
        guarded.fails(Role::Viewer, &to_mail),
        guarded.fails(Role::Viewer, &["job", "cancel", "kept"]),
        guarded.fails(Role::Viewer, &["queue", "resume", "mail"]),
    )?;

    let claim = "$JS.API.CONSUMER.MSG.NEXT.naq_queue_mail.p2";
    let forged = ["$KV.naq_results.kept", "naq.failed.mail.kept", "$JS.ACK.naq_queue_mail.p2.1.1.1.1.0"];
    let ruin = [
        "$JS.API.STREAM.DELETE.naq_queue_mail",
        "$JS.API.STREAM.PURGE.naq_queue_mail",
        "$JS.API.STREAM.UPDATE.naq_queue_mail",
        "$JS.API.STREAM.MSG.DELETE.naq_queue_mail",
        "$JS.API.CONSUMER.DELETE.naq_queue_mail.p2",
        "$KV.naq_control.paused.mail",
        "$KV.naq_scheduler_lock.leader",
        "naq.control.cancel",
    ];
    let address = guarded.0.nats()?.address();
    for role in [Role::Mailer, Role::Producer, Role::Viewer] {
        let (user, password) = role.user();
        let mut raw = RawNats::connect_as(address, user, password).await?;
        for subject in ruin.iter().chain(&forged).chain([&claim]) {
            ensure!(!raw.may_publish(subject).await?, "{role:?} may publish {subject}");
        }
        for subject in [">", "naq.queue.>", "$JS.API.>", "$KV.naq_control.>"] {
            ensure!(!raw.may_subscribe(subject).await?, "{role:?} may subscribe to {subject}");
        }
    }
    let (user, password) = Role::Worker.user();
    let mut raw = RawNats::connect_as(address, user, password).await?;
    for subject in ["$JS.API.STREAM.DELETE.naq_queue_mail", "$JS.API.STREAM.PURGE.naq_queue_mail", "elsewhere"] {
        ensure!(!raw.may_publish(subject).await?, "a worker may publish {subject}");
    }

    let kept = guarded.0.json(&["job", "status", "kept"]).await?;
    assert_eq!(kept["status"], "pending");
    assert_eq!(guarded.0.queue("mail").await?["pending"], 1);
    assert_eq!(guarded.0.queue("default").await?["pending"], 0);
    drop(worker);
    Ok(())
}
