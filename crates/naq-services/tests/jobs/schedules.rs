//! Recurring jobs: what each operation makes of the record, and the steps of a fire.

use std::collections::BTreeMap;

use naq_models::{Schedule, ScheduleDefinition, ScheduleId, ScheduleStatus, schedule::LastRun};
use naq_services::{
    JobServiceErrorKind, SchedulerService, SchedulerServiceErrorKind as Kind,
    new_job::secs,
    scheduler::{DeclaredOutcome, StoredSchedule, UpsertOutcome},
    storage::Bucket,
};

use super::*;

fn schedule_id(text: &str) -> ScheduleId {
    ScheduleId::new(text).unwrap()
}

async fn service(stage: &Stage) -> SchedulerService {
    SchedulerService::new(stage.service().await)
}

fn every(service: &SchedulerService, seconds: u64) -> ScheduleDefinition {
    service.define(NewJob::new("k", json!({"n": 1})), Schedule::every(secs(seconds))).unwrap()
}

async fn stored(service: &SchedulerService, id: &ScheduleId) -> StoredSchedule {
    let entry = service.jobs().storage().kv_get(Bucket::Schedules, id.as_str()).await.unwrap().unwrap();
    StoredSchedule::read(&entry).unwrap()
}

pub(crate) async fn defining_again_changes_nothing(stage: &Stage) {
    let service = service(stage).await;
    let id = schedule_id("s");
    assert_eq!(service.get(&id).await.unwrap_err().kind(), Kind::NotFound);
    let created = service.upsert(&id, every(&service, 60)).await.unwrap();
    assert_eq!(created.outcome, UpsertOutcome::Created);
    let before = stored(&service, &id).await;
    assert_eq!(before.record, created.record);
    let unchanged = service.upsert(&id, every(&service, 60)).await.unwrap();
    assert_eq!((unchanged.outcome, &unchanged.record), (UpsertOutcome::Unchanged, &created.record));
    assert_eq!(stored(&service, &id).await.revision, before.revision, "nothing was written");
    let updated = service.upsert(&id, every(&service, 61)).await.unwrap();
    assert_eq!(updated.outcome, UpsertOutcome::Updated);
    assert_eq!(service.cancel(&id).await.unwrap().record.status, ScheduleStatus::Cancelled);
    let anew = service.upsert(&id, every(&service, 61)).await.unwrap();
    assert_eq!((anew.outcome, anew.record.status), (UpsertOutcome::Created, ScheduleStatus::Active));
    let list = service.list().await.unwrap();
    assert_eq!((list.schedules, list.unreadable), (vec![anew.record], vec![]));
}

pub(crate) async fn the_id_is_the_jobs_own_or_made_of_it(stage: &Stage) {
    let service = service(stage).await;
    let daily = || Schedule::cron("0 3 * * *");
    let own = service.schedule(job("nightly"), daily()).await.unwrap();
    assert_eq!(own.record.id, schedule_id("nightly"));
    let made = || NewJob::new("report", json!({"a": 1}));
    let first = service.schedule(made(), daily()).await.unwrap();
    let again = service.schedule(made(), Schedule::every(secs(5))).await.unwrap();
    assert_eq!((&again.record.id, again.outcome), (&first.record.id, UpsertOutcome::Updated));
    let other = service.schedule(NewJob::new("report", json!({"a": 2})), daily()).await.unwrap();
    assert_ne!(other.record.id, first.record.id);
}

pub(crate) async fn a_schedule_that_cannot_run_is_refused(stage: &Stage) {
    let service = service(stage).await;
    let plain = || NewJob::new("k", json!({}));
    let minute = || Schedule::every(secs(60));
    for (job, schedule) in [
        (plain(), Schedule::cron("61 * * * *")),
        (plain(), Schedule::cron("* * * * *").tz("Europe/Berlim")),
        (plain(), Schedule::every(Duration::ZERO)),
        (plain(), minute().repeat(0)),
        (plain().delay(secs(1)), minute()),
        (plain().queue("not allowed"), minute()),
        (plain().depends_on(["other"]), minute()),
    ] {
        assert_eq!(service.define(job, schedule).unwrap_err().kind(), Kind::Invalid);
    }
    let huge = NewJob::new("k", json!({"text": "x".repeat(2 << 20)}));
    let definition = service.define(huge, minute()).unwrap();
    let refused = service.upsert(&schedule_id("huge"), definition).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Job(JobServiceErrorKind::TooLarge));
    assert!(service.list().await.unwrap().schedules.is_empty());
}

pub(crate) async fn a_schedule_is_paused_resumed_modified_and_cancelled(stage: &Stage) {
    let service = service(stage).await;
    let id = schedule_id("s");
    for refused in [service.pause(&id).await, service.resume(&id).await, service.cancel(&id).await] {
        assert_eq!(refused.unwrap_err().kind(), Kind::NotFound);
    }
    service.upsert(&id, every(&service, 60)).await.unwrap();
    let paused = service.pause(&id).await.unwrap();
    assert_eq!((paused.changed, paused.record.status, paused.record.next), (true, ScheduleStatus::Paused, None));
    assert!(!service.pause(&id).await.unwrap().changed);
    let resumed = service.resume(&id).await.unwrap();
    assert!(resumed.changed && resumed.record.next.is_some());
    let modified = service.modify(&id, every(&service, 3600)).await.unwrap();
    assert!(modified.record.next > resumed.record.next);
    assert!(service.cancel(&id).await.unwrap().changed);
    assert!(!service.cancel(&id).await.unwrap().changed);
    for refused in [service.pause(&id).await, service.resume(&id).await, service.modify(&id, every(&service, 5)).await]
    {
        assert_eq!(refused.unwrap_err().kind(), Kind::Conflict);
    }
    assert_eq!(service.trigger(&id).await.unwrap_err().kind(), Kind::Conflict);
}

pub(crate) async fn of_many_triggers_at_once_none_is_lost(stage: &Stage) {
    let service = service(stage).await;
    let id = schedule_id("s");
    service.upsert(&id, every(&service, 3600)).await.unwrap();
    let triggers = futures_util::future::join_all((0..8).map(|_| service.trigger(&id))).await;
    let runs: HashSet<JobId> = triggers
        .into_iter()
        .map(|run| run.unwrap())
        .map(|run| {
            assert!(run.enqueued);
            run.job_id
        })
        .collect();
    assert_eq!(runs.len(), 8);
    for run in &runs {
        assert_eq!(service.jobs().status(run).await.unwrap().status, JobStatus::Pending);
    }
    let record = service.get(&id).await.unwrap();
    assert_eq!((record.pending.len(), record.runs), (0, 0), "they do not count");
    assert!(runs.contains(record.last_run_id.as_ref().unwrap()));
}

pub(crate) async fn of_two_leaders_one_advances_and_both_publish_one_run(stage: &Stage) {
    let service = service(stage).await;
    let id = schedule_id("s");
    service.upsert(&id, every(&service, 60)).await.unwrap();
    let before = stored(&service, &id).await;
    let due = before.record.next.unwrap();
    let idle = service.advance(&before, due.saturating_sub(secs(1)), LastRun::Unknown).await.unwrap().unwrap();
    assert_eq!(idle, before, "nothing is due");
    let advanced = service.advance(&before, due, LastRun::Unknown).await.unwrap().unwrap();
    assert_eq!(service.advance(&before, due, LastRun::Unknown).await.unwrap(), None, "the second leader has lost");
    // The first one dies here. The second one finds the fire and publishes it; so does the first one, which woke up.
    let found = stored(&service, &id).await;
    assert_eq!(found, advanced);
    assert_eq!(found.record.pending, [due]);
    for _ in 0..2 {
        let published = service.publish(&found.record, &found.record.pending).await;
        assert_eq!(published.done, [due]);
        assert!(published.trouble.is_none());
    }
    let run = id.run_id(due);
    let claims = claim(service.jobs(), &QueueName::default(), 5).await;
    assert_eq!(claims.iter().map(|claim| &claim.address.id).collect::<Vec<_>>(), [&run]);
    let body: Job = wire::decode(&claims[0].body, &claims[0].address).unwrap();
    assert_eq!(body.schedule_id.as_deref(), Some("s"));
    // Somebody pauses it before the run is noted as published: both stay.
    service.pause(&id).await.unwrap();
    let noted = service.published_from(found, &[due]).await.unwrap().unwrap();
    assert_eq!((noted.record.pending.len(), noted.record.status), (0, ScheduleStatus::Paused));
}

pub(crate) async fn a_run_without_a_result_is_not_run_by_a_late_leader(stage: &Stage) {
    let service = service(stage).await;
    let id = schedule_id("s");
    let quick = NewJob::new("k", json!({})).result_ttl(secs(0));
    service.upsert(&id, service.define(quick, Schedule::every(secs(60))).unwrap()).await.unwrap();
    let run = service.trigger(&id).await.unwrap();
    let claim = claim_one(service.jobs()).await;
    finish(service.jobs(), claim, Ok(value("1"))).await;
    let published = service.publish(&run.record, &[run.due]).await;
    assert_eq!(published.done, [run.due]);
    assert_eq!(service.jobs().status(&run.job_id).await.unwrap().status, JobStatus::Completed);
    assert!(claim_none(service.jobs()).await);
}

async fn claim_none(jobs: &JobService) -> bool {
    claim(jobs, &QueueName::default(), 1).await.is_empty()
}

pub(crate) async fn the_last_run_is_looked_at_only_if_it_counts(stage: &Stage) {
    let service = service(stage).await;
    let (plain, after) = (schedule_id("plain"), schedule_id("after"));
    service.upsert(&plain, every(&service, 60)).await.unwrap();
    let definition = service.define(NewJob::new("k", json!({})), Schedule::after_completion(secs(1))).unwrap();
    service.upsert(&after, definition).await.unwrap();
    assert_eq!(service.last_run(&service.get(&after).await.unwrap()).await.unwrap(), LastRun::Unknown);
    let run = service.trigger(&after).await.unwrap();
    assert_eq!(service.last_run(&run.record).await.unwrap(), LastRun::Live);
    finish(service.jobs(), claim_one(service.jobs()).await, Ok(value("1"))).await;
    assert!(matches!(service.last_run(&run.record).await.unwrap(), LastRun::Ended(_)));
    let run = service.trigger(&plain).await.unwrap();
    assert_eq!(service.last_run(&run.record).await.unwrap(), LastRun::Unknown);
}

pub(crate) async fn a_record_that_cannot_be_read_stays_and_is_reported(stage: &Stage) {
    let service = service(stage).await;
    service.upsert(&schedule_id("good"), every(&service, 60)).await.unwrap();
    let storage = service.jobs().storage();
    storage.kv_create(Bucket::Schedules, "bad", "{\"v\":99}".into(), None).await.unwrap();
    let list = service.list().await.unwrap();
    assert_eq!((list.schedules.len(), list.unreadable), (1, vec!["bad".to_owned()]));
    let bad = schedule_id("bad");
    assert_eq!(service.get(&bad).await.unwrap_err().kind(), Kind::Undecodable);
    assert_eq!(service.upsert(&bad, every(&service, 60)).await.unwrap_err().kind(), Kind::Undecodable);
    assert!(storage.kv_get(Bucket::Schedules, "bad").await.unwrap().is_some());
}

pub(crate) async fn declared_schedules_are_defined_reported_and_pruned(stage: &Stage) {
    let service = service(stage).await;
    let declare = |names: &[(&str, u64)]| -> BTreeMap<_, _> {
        names.iter().map(|(name, period)| (schedule_id(name), every(&service, *period))).collect()
    };
    let of = |outcome| DeclaredOutcome::Upserted(outcome);
    service.upsert(&schedule_id("by-hand"), every(&service, 60)).await.unwrap();
    let both = declare(&[("a", 60), ("b", 60)]);
    let first = service.declare(&both).await.unwrap();
    assert_eq!(first.outcomes.iter().map(|(_, outcome)| *outcome).collect::<Vec<_>>(), [of(UpsertOutcome::Created); 2]);
    let again = service.declare(&both).await.unwrap();
    assert_eq!(again.outcomes[0].1, of(UpsertOutcome::Unchanged));
    assert!(again.undeclared.is_empty());

    // Cancelled by a person: the same declaration leaves it so, another revives it.
    service.cancel(&schedule_id("a")).await.unwrap();
    assert_eq!(service.declare(&both).await.unwrap().outcomes[0].1, DeclaredOutcome::StaysCancelled);
    assert_eq!(service.get(&schedule_id("a")).await.unwrap().status, ScheduleStatus::Cancelled);
    let changed = declare(&[("a", 61), ("b", 60)]);
    assert_eq!(service.declare(&changed).await.unwrap().outcomes[0].1, of(UpsertOutcome::Created));

    // Gone from the file: reported, goes on, and is removed only when asked.
    let one = declare(&[("a", 61)]);
    assert_eq!(service.declare(&one).await.unwrap().undeclared, [schedule_id("b")]);
    assert_eq!(service.get(&schedule_id("b")).await.unwrap().status, ScheduleStatus::Active);
    assert_eq!(service.prune(&one).await.unwrap(), [schedule_id("b")]);
    assert_eq!(service.get(&schedule_id("b")).await.unwrap_err().kind(), Kind::NotFound);

    // Taken over by a person: it is the file's no more.
    service.upsert(&schedule_id("a"), every(&service, 61)).await.unwrap();
    assert_eq!(service.declare(&declare(&[])).await.unwrap().undeclared, []);
    assert!(service.prune(&declare(&[])).await.unwrap().is_empty());
    let left: Vec<_> = service.list().await.unwrap().schedules.into_iter().map(|record| record.id).collect();
    assert_eq!(left, [schedule_id("a"), schedule_id("by-hand")]);
}
