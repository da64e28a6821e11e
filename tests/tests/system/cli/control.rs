//! `naq job control ID …`: what an id names, a job or a recurring job, is controlled as `naq job` and `naq scheduler` do.

use anyhow::Result;
use serde_json::json;

use super::{assert_fields, assert_time};
use crate::site::{Backend, Site, on_every_store};

on_every_store!(
    a_job_is_cancelled_and_rescheduled_by_its_id,
    a_recurring_job_is_paused_resumed_and_ended_by_its_id,
    what_an_id_does_not_allow_is_refused
);

async fn a_job_is_cancelled_and_rescheduled_by_its_id(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    site.json(&["job", "enqueue", "naq.noop", "--delay", "1h", "--job-id", "later"]).await?;
    let moved = site.json(&["job", "control", "later", "reschedule", "--at", "2031-01-01T00:00:00Z"]).await?;
    assert_eq!(moved, json!({"job_id": "later", "queue": "default", "status": "scheduled", "duplicate": false}));
    let due = site.json(&["job", "status", "later"]).await?["run_at"].clone();
    assert_eq!(due, "2031-01-01T00:00:00.000Z");
    site.json(&["job", "control", "later", "reschedule", "--delay", "2h"]).await?;
    let sooner = site.json(&["job", "status", "later"]).await?["run_at"].clone();
    assert_time(&sooner);
    assert!(sooner.as_str() < due.as_str(), "{sooner}");
    let cancelled = site.json(&["job", "control", "later", "cancel"]).await?;
    assert_eq!(cancelled, json!({"job_id": "later", "outcome": "cancelled", "was": "scheduled"}));
    let again = site.run(&["job", "control", "later", "cancel"]).await?;
    assert_eq!(again.code(), Some(1), "{again:#?}");
    assert_eq!(again.json()?, json!({"job_id": "later", "outcome": "already_ended", "status": "cancelled"}));
    // Longer than the id of a schedule can be.
    let long = "j".repeat(120);
    site.json(&["job", "enqueue", "naq.noop", "--job-id", &long]).await?;
    assert_eq!(site.json(&["job", "control", &long, "cancel"]).await?["was"], "pending");
    Ok(())
}

async fn a_recurring_job_is_paused_resumed_and_ended_by_its_id(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let upsert = ["scheduler", "upsert", "nightly", "--kind", "naq.noop", "--cron", "0 3 * * *"];
    let next = site.json(&upsert).await?["next"].clone();
    let paused = site.json(&["job", "control", "nightly", "pause"]).await?;
    assert_eq!(paused, json!({"schedule_id": "nightly", "status": "paused", "changed": true, "next": null}));
    let resumed = site.json(&["job", "control", "nightly", "resume"]).await?;
    assert_fields(&resumed, &["schedule_id", "status", "changed", "next"]);
    assert_eq!((&resumed["status"], &resumed["next"]), (&json!("active"), &next));
    let refused = site.run(&["job", "control", "nightly", "reschedule", "--delay", "1h"]).await?;
    assert_eq!(refused.code(), Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("naq scheduler upsert"), "{refused:#?}");
    assert_eq!(site.json(&["scheduler", "show", "nightly"]).await?["next"], next, "nothing was moved");

    // A job of the same id, which has not ended: nobody can tell which is meant, but for what jobs cannot do.
    site.json(&["job", "enqueue", "naq.noop", "--delay", "1h", "--job-id", "nightly"]).await?;
    for verb in [&["cancel"][..], &["reschedule", "--delay", "1h"]] {
        let refused = site.run(&[&["job", "control", "nightly"], verb].concat()).await?;
        assert_eq!(refused.code(), Some(1), "{refused:#?}");
        assert!(refused.stderr.contains("both a job and a recurring job"), "{refused:#?}");
    }
    assert_eq!(site.json(&["job", "control", "nightly", "pause"]).await?["status"], "paused");
    site.json(&["job", "cancel", "nightly"]).await?;
    let ended = site.json(&["job", "control", "nightly", "cancel"]).await?;
    assert_eq!((&ended["schedule_id"], &ended["status"]), (&json!("nightly"), &json!("cancelled")));
    // Of an ended schedule and a job that has not, the job is meant.
    site.json(&["job", "retry", "nightly"]).await?;
    assert_eq!(site.json(&["job", "control", "nightly", "cancel"]).await?["job_id"], "nightly");
    Ok(())
}

async fn what_an_id_does_not_allow_is_refused(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    site.json(&["job", "enqueue", "naq.noop", "--queue", "mail", "--job-id", "single"]).await?;
    for verb in ["pause", "resume"] {
        let refused = site.run(&["job", "control", "single", verb]).await?;
        assert_eq!(refused.code(), Some(1), "{refused:#?}");
        assert!(refused.stderr.contains("naq queue pause mail"), "{refused:#?}");
    }
    assert_eq!(site.json(&["job", "status", "single"]).await?["status"], "pending");
    for verb in [&["cancel"][..], &["pause"], &["resume"], &["reschedule", "--delay", "1h"]] {
        let unknown = site.run(&[&["job", "control", "nobody"], verb].concat()).await?;
        assert_eq!(unknown.code(), Some(3), "{unknown:#?}");
    }
    for wrong in [&["single"][..], &["single", "reschedule"], &["single", "stop"], &["si ngle", "cancel"]] {
        let refused = site.run(&[&["job", "control"], wrong].concat()).await?;
        assert_eq!(refused.code(), Some(2), "{refused:#?}");
    }
    Ok(())
}
