//! `naq scheduler …`: recurring jobs from the command line and from `naq.yaml`, to their runs.

use std::fs;

use anyhow::{Context as _, Result};
use naq_tests::{Signal, eventually};
use serde_json::{Value, json};

use super::{assert_fields, assert_time};
use crate::site::{Backend, COMMAND_LIMIT, Site, on_every_store};

on_every_store!(
    a_schedule_is_defined_shown_changed_and_ended,
    schedules_of_the_configuration_run_and_are_missed_when_they_leave_it
);

const VIEW: [&str; 14] = [
    "schedule_id",
    "status",
    "kind",
    "queue",
    "next",
    "runs",
    "skipped",
    "pending",
    "last_due",
    "last_run_id",
    "created_at",
    "updated_at",
    "from_config",
    "definition",
];
const NIGHTLY: [&str; 10] =
    ["scheduler", "upsert", "nightly", "--kind", "naq.echo", "--args", r#"{"a":1}"#, "--cron", "0 3 * * *", "--tz"];

async fn a_schedule_is_defined_shown_changed_and_ended(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    assert_eq!(site.json(&["scheduler", "jobs"]).await?, json!([]));
    let nightly = [&NIGHTLY[..], &["Europe/Berlin", "--queue", "reports"]].concat();
    let created = site.json(&nightly).await?;
    assert_fields(&created, &["schedule_id", "outcome", "status", "next"]);
    assert_eq!((&created["outcome"], &created["status"]), (&json!("created"), &json!("active")));
    assert_eq!(site.json(&nightly).await?["outcome"], "unchanged");
    let other = [&NIGHTLY[..], &["America/New_York", "--queue", "reports"]].concat();
    assert_eq!(site.json(&other).await?["outcome"], "updated");
    assert_eq!(site.json(&nightly).await?["outcome"], "updated");

    let listed = site.json(&["scheduler", "jobs"]).await?;
    assert_fields(&listed[0], &VIEW);
    let shown = site.json(&["scheduler", "show", "nightly"]).await?;
    assert_fields(&shown, &[&VIEW[..], &["upcoming"]].concat());
    let plain = json!({"kind": "naq.echo", "queue": "reports", "runs": 0, "pending": 0, "from_config": false,
        "last_run_id": null});
    for (field, value) in plain.as_object().into_iter().flatten() {
        assert_eq!(&shown[field], value, "{field}");
    }
    assert_eq!(
        (&shown["definition"]["cron"], &shown["definition"]["tz"]),
        (&json!("0 3 * * *"), &json!("Europe/Berlin"))
    );
    let upcoming = shown["upcoming"].as_array().context("upcoming")?;
    assert_eq!(upcoming.len(), 5);
    assert_eq!(upcoming[0]["utc"], shown["next"]);
    for run in upcoming {
        assert_fields(run, &["utc", "local"]);
        assert_time(&run["utc"]);
        let local = run["local"].as_str().unwrap_or_default();
        assert!(local.contains("T03:00:00+0"), "03:00 in Berlin, not {local}");
    }
    let text = site.naq()?.run(&["scheduler", "show", "nightly"], COMMAND_LIMIT).await?;
    for part in ["cron 0 3 * * * (Europe/Berlin)", r#"{"a":1}"#, upcoming[4]["utc"].as_str().unwrap_or("?")] {
        assert!(text.stdout.contains(part), "{part}: {text:#?}");
    }

    let paused = site.json(&["scheduler", "pause", "nightly"]).await?;
    assert_eq!(paused, json!({"schedule_id": "nightly", "status": "paused", "changed": true, "next": null}));
    assert_eq!(site.json(&["scheduler", "pause", "nightly"]).await?["changed"], false);
    assert_eq!(site.json(&["scheduler", "resume", "nightly"]).await?["next"], shown["next"]);
    let triggered = site.json(&["scheduler", "trigger", "nightly"]).await?;
    assert_fields(&triggered, &["schedule_id", "job_id", "queue", "due", "enqueued"]);
    assert_eq!((&triggered["queue"], &triggered["enqueued"]), (&json!("reports"), &json!(true)));
    let run = triggered["job_id"].as_str().unwrap_or_default();
    site.burst(&["reports"], COMMAND_LIMIT).await?;
    assert_eq!(site.json(&["job", "result", run]).await?["result"], json!({"a": 1}));
    assert_eq!(site.json(&["scheduler", "show", "nightly"]).await?["last_run_id"], run);
    assert_eq!(site.json(&["scheduler", "cancel", "nightly"]).await?["status"], "cancelled");
    let refused = site.run(&["scheduler", "resume", "nightly"]).await?;
    assert_eq!(refused.code(), Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("a cancelled schedule cannot be resumed"), "{refused:#?}");
    assert_eq!(site.json(&nightly).await?["outcome"], "created");

    for verb in ["show", "pause", "resume", "trigger", "cancel"] {
        let unknown = site.run(&["scheduler", verb, "nobody"]).await?;
        assert_eq!(unknown.code(), Some(3), "{verb}: {unknown:#?}");
        assert!(unknown.stderr.contains("hint: "), "{unknown:#?}");
    }
    let wrong = [
        (["--cron", "0 25 * * *"], "hour (field 2, column 3)"),
        (["--cron", "0 3 * *"], "5 fields"),
        (["--every", "1ms"], "100ms"),
        (["--missed", "never"], "skip, once or all"),
        (["--repeat", "0"], "repeat"),
    ];
    for (flags, said) in wrong {
        let timing: &[&str] = if matches!(flags[0], "--cron" | "--every") { &[] } else { &["--every", "1h"] };
        let refused = site.run(&[&["scheduler", "upsert", "x", "--kind", "k"], timing, &flags].concat()).await?;
        assert_eq!(refused.code(), Some(2), "{refused:#?}");
        assert!(refused.stderr.contains(said), "{said}: {refused:#?}");
        assert_eq!(refused.stderr.contains("hint: the fields are"), flags[0] == "--cron", "{refused:#?}");
    }
    Ok(())
}

async fn schedules_of_the_configuration_run_and_are_missed_when_they_leave_it(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let declare = |text: &str| fs::write(site.path("naq.yaml"), format!("schedules:\n{text}"));
    let often = "  often: { kind: naq.echo, args: {n: 1}, every: 300ms }\n";
    declare(&format!("{often}  rare: {{ kind: naq.noop, cron: \"0 3 1 1 *\", tz: Europe/Berlin }}\n"))?;
    let worker = site.worker("declares", &[]).await?;
    let ran = eventually(COMMAND_LIMIT, "two runs have completed", async || {
        let done = site.ids("default", "completed").await.ok()?;
        let runs: Vec<String> = done.into_iter().filter(|id| id.starts_with("often_")).collect();
        (runs.len() >= 2).then_some(runs)
    });
    let runs = ran.await.with_context(|| worker.stderr())?;
    assert_eq!(site.json(&["job", "result", &runs[0]]).await?["result"], json!({"n": 1}));
    let list = site.json(&["scheduler", "jobs"]).await?;
    let names: Vec<&Value> = list.as_array().into_iter().flatten().map(|view| &view["schedule_id"]).collect();
    assert_eq!(names, ["often", "rare"]);
    assert_eq!(list[0]["from_config"], true);
    assert_eq!(site.json(&["scheduler", "cancel", "often"]).await?["changed"], true);
    worker.signal(Signal::TERM)?;
    assert_eq!(worker.wait(COMMAND_LIMIT).await?.code(), Some(0));

    // The next worker finds one cancelled and one gone from the file: it says so and leaves both as they are.
    declare(often)?;
    let burst = site.burst(&[], COMMAND_LIMIT).await?;
    assert!(burst.stderr.contains("schedule often is declared, but was cancelled"), "{burst:#?}");
    assert!(burst.stderr.contains("schedule rare was declared"), "{burst:#?}");
    assert_eq!(site.json(&["scheduler", "show", "often"]).await?["status"], "cancelled");
    assert_eq!(site.json(&["scheduler", "show", "rare"]).await?["status"], "active");
    assert_eq!(site.run(&["scheduler", "prune"]).await?.code(), Some(2), "it needs --yes");
    assert_eq!(site.json(&["scheduler", "prune", "--yes"]).await?, json!({"removed": ["rare"]}));
    assert_eq!(site.run(&["scheduler", "show", "rare"]).await?.code(), Some(3));

    declare(
        "  often: { kind: naq.echo, cron: \"* * 32 * *\" }\n  zone: { kind: k, cron: \"@daily\", tz: Europe/Berlim }\n",
    )?;
    let refused = site.test_worker().run(&["worker", "start", "--burst"], COMMAND_LIMIT).await?;
    assert_eq!(refused.code(), Some(2), "{refused:#?}");
    for said in ["schedules.often", "day of month (field 3", "schedules.zone", "Europe/Berlin"] {
        assert!(refused.stderr.contains(said), "{said}: {refused:#?}");
    }
    Ok(())
}
