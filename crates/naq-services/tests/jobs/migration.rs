//! Migration: from memory to the store of the stage, on to another of its kind, and back to memory.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use naq_models::{Schedule, ScheduleId, Timestamp, UniqueHolder, UniqueWhile, WireFormat};
use naq_services::{
    SchedulerService,
    migration::{self, LeftWhat, Migration, MigrationErrorKind, MigrationReport},
    new_job::secs,
    scheduler::StoredSchedule,
    storage::{Bucket, Enqueued, Entry, ListFilter, Remains, Sighting},
};

use super::*;

const GARBAGE: &[u8] = b"\0\xff{not a job\r\n";

/// Memory, two stores of the stage, memory.
async fn stations(stage: &Stage) -> Vec<JobService> {
    let memory = Stage { server: None };
    vec![memory.service().await, stage.service().await, stage.service().await, memory.service().await]
}

async fn migrate(from: &JobService, to: &JobService) -> MigrationReport {
    let migration = Migration::new(from.clone(), to.clone());
    tokio::time::timeout(4 * LONG, migration.run(&|_| ())).await.unwrap().unwrap()
}

async fn store(jobs: &JobService, entry: Entry) {
    assert_eq!(jobs.storage().enqueue(vec![entry]).await.pop().unwrap().unwrap(), Enqueued::Stored);
}

/// Everything that a store holds, but for times at which it took it.
async fn everything(jobs: &JobService) -> BTreeSet<String> {
    let (mut all, mut filter) =
        (BTreeSet::new(), ListFilter { queue: None, statuses: Vec::new(), limit: 50, cursor: None });
    loop {
        let page = jobs.storage().list(&filter).await.unwrap();
        for sighting in page.items {
            all.insert(match sighting {
                Sighting::Queued { address, body, .. } => {
                    format!("pending {} {} {} {body:?}", address.id, address.queue, address.priority)
                }
                Sighting::Scheduled(entry) => {
                    let (address, run_at) = (entry.address, entry.run_at);
                    let place = (address.id, address.queue, address.priority, address.stored_at);
                    format!("{} {place:?} {run_at:?} {} {:?}", entry.status, entry.run, entry.body)
                }
                Sighting::Dead(letter) => {
                    let (address, error) = (letter.address, letter.error);
                    let place = (address.id, address.queue, address.priority);
                    format!("dead {place:?} {error:?} {:?} {:?}", letter.kind, letter.body)
                }
                Sighting::Ended(result) => format!("result {} {:?}", result.id, result.body),
            });
        }
        filter.cursor = page.next;
        if filter.cursor.is_none() {
            break;
        }
    }
    let prefixes = [
        (Bucket::Schedules, ""),
        (Bucket::Control, "pause."),
        (Bucket::Control, "migration"),
        (Bucket::Unique, "key."),
    ];
    for (bucket, prefix) in prefixes {
        for entry in jobs.storage().kv_list(bucket, prefix).await.unwrap() {
            all.insert(format!("{bucket:?} {} {:?}", entry.key, entry.value));
        }
    }
    all
}

async fn fill(jobs: &JobService) {
    for priority in 0..4 {
        for n in 0..5 {
            let of = |queue: &str| NewJob::new("k", json!({"n": n})).queue(queue).priority(priority);
            jobs.enqueue(of("mail")).await.unwrap();
            jobs.enqueue(of("paused").job_id(format!("chosen-{priority}-{n}"))).await.unwrap();
        }
    }
    jobs.pause(&queue("paused")).await.unwrap();
    jobs.enqueue(job("done")).await.unwrap();
    let claimed = claim_one(jobs).await;
    finish(jobs, claimed, Ok(value("[1,2]"))).await;
    for name in ["dead", "dead-too"] {
        failed(jobs, name).await;
    }
    jobs.enqueue(job("dead-garbage")).await.unwrap();
    let Claim { lease, address, .. } = claim_one(jobs).await;
    let letter = DeadLetter { address: address.clone(), body: GARBAGE.into(), error: failure(), kind: None };
    let action = Action::End { result: None, dead_letter: Some(letter), unique_key: None };
    let settlement = Settlement { lease, address, action, fenced: false, clear_scheduled: false };
    jobs.storage().settle(vec![settlement]).await.pop().unwrap().unwrap();

    jobs.enqueue(job("later").delay(secs(3600)).unique("later")).await.unwrap();
    jobs.enqueue(job("active").unique("active")).await.unwrap();
    let once = || job("once").unique("once").unique_while(UniqueWhile::Ttl).unique_ttl(secs(7200));
    jobs.enqueue(once().queue("short")).await.unwrap();
    let claimed = claim(jobs, &queue("short"), 1).await.pop().unwrap();
    finish(jobs, claimed, Ok(value("null"))).await;
    for (name, awaited) in [("after", vec!["done", "later"]), ("last", vec!["after"]), ("between", vec!["after"])] {
        jobs.enqueue(job(name).depends_on(awaited)).await.unwrap();
    }
    let mut retry: Job = Job::new(id("retry"), "k", value("{}"), jobs.storage().now().await.unwrap());
    (retry.attempt, retry.run, retry.run_at) = (3, 4, Some(retry.enqueued_at.saturating_add(secs(600))));
    store(jobs, Entry::new(&retry, JobStatus::Retry, WireFormat::Json).unwrap()).await;
    let garbage = Job::new(id("garbage"), "k", value("{}"), retry.enqueued_at);
    let entry = Entry::new(&garbage, JobStatus::Pending, WireFormat::Json).unwrap();
    store(jobs, Entry { kind: String::new(), body: Bytes::from_static(GARBAGE), ..entry }).await;

    let schedules = SchedulerService::new(jobs.clone());
    for (name, schedule) in
        [("nightly", Schedule::cron("0 3 * * *").tz("Europe/Berlin")), ("often", Schedule::every(secs(60)))]
    {
        schedules.schedule(job(name), schedule).await.unwrap();
    }
    schedules.pause(&ScheduleId::new("often").unwrap()).await.unwrap();
}

/// Catches: anything that is lost, changed or doubled, in whatever direction.
pub(crate) async fn everything_moves_there_and_back(stage: &Stage) {
    let stations = stations(stage).await;
    fill(&stations[0]).await;
    let before = everything(&stations[0]).await;
    assert!(before.len() > 50, "{before:#?}");
    let counted = migration::count(&stations[0]).await.unwrap();
    for pair in stations.windows(2) {
        let report = migrate(&pair[0], &pair[1]).await;
        let expected = MigrationReport { remaining: 0, ..counted.clone() };
        assert_eq!(report, expected);
        assert_eq!(everything(&pair[0]).await, BTreeSet::new(), "at the source");
        let (after, there) = (everything(&pair[1]).await, before.clone());
        let (lost, new): (Vec<_>, Vec<_>) = (there.difference(&after).collect(), after.difference(&there).collect());
        assert!(lost.is_empty() && new.is_empty(), "lost: {lost:#?}\nnew: {new:#?}");
        // Nothing is left to do.
        assert_eq!(migrate(&pair[0], &pair[1]).await, MigrationReport::default());
    }
    let last = &stations[3];
    let kept = last.storage().get_result(&id("done")).await.unwrap().unwrap().expires_at;
    let week = kept.since(last.storage().now().await.unwrap());
    assert!((secs(604_000)..=secs(604_800)).contains(&week), "a result of a week is kept for {week:?}");
    assert_eq!(last.dead_retry(&id("dead")).await.unwrap().status, JobStatus::Pending);
    let holder = last.storage().kv_get(Bucket::Unique, "key.once").await.unwrap().unwrap();
    assert_eq!(UniqueHolder::decode(&holder.value).unwrap().id, id("once"));
}

/// Catches: a lane that is shuffled on its way.
pub(crate) async fn jobs_keep_their_order(stage: &Stage) {
    let stations = stations(stage).await;
    for n in 0..600 {
        stations[0].enqueue(job(&format!("{n:03}"))).await.unwrap();
    }
    for pair in stations.windows(2) {
        assert_eq!(migrate(&pair[0], &pair[1]).await.pending, 600);
    }
    let names: Vec<String> = claim(&stations[3], &QueueName::default(), 600)
        .await
        .iter()
        .map(|claim| claim.address.id.to_string())
        .collect();
    assert_eq!(names, (0..600).map(|n| format!("{n:03}")).collect::<Vec<_>>());
}

/// Catches: a new life that takes the result of the one before for its own, or comes second to it.
pub(crate) async fn a_new_life_goes_on(stage: &Stage) {
    let stations = stations(stage).await;
    for name in ["a", "b"] {
        failed(&stations[0], name).await;
    }
    assert_eq!(stations[0].dead_retry_all(None).await.unwrap().retried, 2);
    for pair in stations.windows(2) {
        let report = migrate(&pair[0], &pair[1]).await;
        assert_eq!((report.pending, report.dead, report.duplicates), (2, 0, 0), "{report:?}");
        assert_eq!(pair[1].status(&id("a")).await.unwrap().status, JobStatus::Pending);
    }
    let last = &stations[3];
    for claim in claim(last, &QueueName::default(), 2).await {
        assert_eq!(finish(last, claim, Ok(value("2"))).await, Settled::Done);
    }
    assert_eq!(last.status(&id("b")).await.unwrap().status, JobStatus::Completed);
}

/// Catches: a fire that its leader did not live to publish, and a schedule of the destination's own that is overwritten.
pub(crate) async fn recorded_fires_run_and_schedules_that_are_there_stay(stage: &Stage) {
    let (from, to) = (Stage { server: None }.service().await, stage.service().await);
    let due = Timestamp::from_unix_millis(1_700_000_000_000).unwrap();
    for (jobs, period) in [(&from, 60), (&to, 90)] {
        SchedulerService::new(jobs.clone()).schedule(job("s"), Schedule::every(secs(period))).await.unwrap();
    }
    let entry = from.storage().kv_get(Bucket::Schedules, "s").await.unwrap().unwrap();
    let mut record = StoredSchedule::read(&entry).unwrap().record;
    record.pending = vec![due];
    let value = serde_json::to_vec(&record).unwrap().into();
    from.storage().kv_update(Bucket::Schedules, "s", value, entry.revision, None).await.unwrap();
    let own = to.storage().kv_get(Bucket::Schedules, "s").await.unwrap();

    let report = migrate(&from, &to).await;
    assert_eq!((report.pending, report.schedules, report.schedules_there), (1, 1, 1));
    assert_eq!(to.status(&id("s_1700000000000")).await.unwrap().status, JobStatus::Pending);
    assert_eq!(to.storage().kv_get(Bucket::Schedules, "s").await.unwrap(), own);
}

/// Catches: a dead letter that nobody writes, because the result that asks for it was moved before its job was looked at.
pub(crate) async fn a_failure_that_was_cut_off_gets_its_dead_letter(stage: &Stage) {
    let mut settings = JobSettings::default();
    settings.queues.ack_wait = secs(1);
    let (from, to) = (stage.service_with(settings).await, Stage { server: None }.service().await);
    from.enqueue(NewJob::new("k", json!({}))).await.unwrap();
    let claimed = claim_one(&from).await;
    let job: Job = wire::decode(&claimed.body, &claimed.address).unwrap();
    let result = JobResult { error: Some(failure()), ..JobResult::of(&job, JobStatus::Failed, job.enqueued_at) };
    let (status, body) = (JobStatus::Failed, result.encode().into());
    let result = Some(ResultRecord { status, body, generation: 0, ttl: job.result_ttl });
    let remains = Remains { address: claimed.address, result, dead_letter: None };
    // A store that ends jobs in one transaction does not take it, and never comes into this state.
    let cut_off = from.storage().store_remains(vec![remains]).await.pop().unwrap().unwrap() == Enqueued::Stored;
    assert_eq!(cut_off, stage.server.is_some());
    let report = migrate(&from, &to).await;
    assert_eq!((report.dead, report.pending), if cut_off { (1, 0) } else { (0, 1) }, "{report:?}");
    let status = to.status(&job.id).await.unwrap().status;
    assert_eq!(status, if cut_off { JobStatus::Failed } else { JobStatus::Pending });
    assert_eq!(to.dead_show(&job.id).await.is_ok(), cut_off);
}

/// Catches: one job that cannot move and takes others with it, or is lost, or is cancelled for waiting on one that is left.
pub(crate) async fn what_cannot_move_is_left(stage: &Stage) {
    let from = Stage { server: None }.service().await;
    let (url, mut config) = stage.fresh();
    config.serialization.max_payload.0 = 128 * 1024;
    let to = JobService::new(open_storage(&url, &config).await.unwrap(), JobSettings::from(&config));
    let large = |name: &str| NewJob::new("k", json!({"x": "x".repeat(200_000)})).job_id(name);
    from.enqueue(large("large-dead")).await.unwrap();
    let claimed = claim_one(&from).await;
    finish(&from, claimed, Err(failure())).await;
    from.enqueue(large("large")).await.unwrap();
    from.enqueue(large("large-later").delay(secs(60))).await.unwrap();
    from.enqueue(job("waits").depends_on(["large"])).await.unwrap();
    from.enqueue(job("waits-too").depends_on(["waits"])).await.unwrap();
    from.enqueue(job("second").unique("k").delay(secs(60))).await.unwrap();
    to.enqueue(job("first").unique("k")).await.unwrap();
    from.enqueue(job("there")).await.unwrap();
    to.enqueue(job("there").delay(secs(60))).await.unwrap();
    from.pause(&queue("default")).await.unwrap();
    for name in ["a", "b"] {
        from.enqueue(job(name)).await.unwrap();
    }
    let report = migrate(&from, &to).await;
    assert_eq!((report.pending, report.duplicates, report.remaining), (2, 1, 6), "{report:?}");
    let left: BTreeMap<&str, LeftWhat> = report.left.iter().map(|left| (left.id.as_str(), left.what)).collect();
    let expected = ["large", "large-later", "second", "waits", "waits-too"];
    let mut expected = BTreeMap::from(expected.map(|name| (name, LeftWhat::Job)));
    expected.insert("large-dead", LeftWhat::DeadLetter);
    assert_eq!((left, report.left.len()), (expected, 6));
    assert_eq!(from.status(&id("large-dead")).await.unwrap().status, JobStatus::Failed);
    assert!(from.storage().get_result(&id("large-dead")).await.unwrap().is_some(), "a letter without its result");
    assert!(from.is_paused(&queue("default")).await.unwrap() && to.is_paused(&queue("default")).await.unwrap());
    assert_eq!(to.status(&id("there")).await.unwrap().status, JobStatus::Scheduled);
    assert_eq!(from.status(&id("second")).await.unwrap().status, JobStatus::Scheduled);
    // It was given back, not kept under a lease.
    assert_eq!(claim_one(&from).await.address.id, id("large"));
}

/// Catches: a job under the lease of a dead worker that is taken from under it, or forgotten.
pub(crate) async fn a_job_of_a_dead_worker_comes_when_its_lease_ends(stage: &Stage) {
    let mut settings = JobSettings::default();
    settings.queues.ack_wait = secs(2);
    let (from, to) = (stage.service_with(settings).await, Stage { server: None }.service().await);
    from.enqueue(job("held")).await.unwrap();
    let _dead = claim_one(&from).await;
    from.enqueue(job("free")).await.unwrap();
    let report = migrate(&from, &to).await;
    assert_eq!((report.pending, report.left.len()), (2, 0));
    assert_eq!(to.status(&id("held")).await.unwrap().status, JobStatus::Pending);
}

/// Catches: a migration under live workers, onto itself, or away from one that was cut off.
pub(crate) async fn what_must_not_begin_is_refused(stage: &Stage) {
    let twice = stage.services(2).await;
    let other = Stage { server: None }.service().await;
    let begin = async |from: &JobService, to: &JobService| {
        Migration::new(from.clone(), to.clone()).run(&|_| ()).await.map_err(|error| error.kind())
    };
    twice[0].enqueue(job("a")).await.unwrap();
    assert_eq!(begin(&twice[0], &twice[1]).await, Err(MigrationErrorKind::SameStore));
    let worker = twice[0].storage().kv_create(Bucket::Workers, "w1", "{}".into(), Some(secs(60))).await.unwrap();
    assert_eq!(begin(&twice[0], &other).await, Err(MigrationErrorKind::Occupied));
    twice[0].storage().kv_delete(Bucket::Workers, "w1", Some(worker)).await.unwrap();
    let moving = json!({"name": "m", "moving": [{"id": "x", "generation": 0, "status": "pending", "run_at": null}]});
    let journal = twice[0].storage().kv_create(Bucket::Control, "migration", moving.to_string().into(), None);
    let journal = journal.await.unwrap();
    assert_eq!(begin(&twice[0], &other).await, Err(MigrationErrorKind::OtherDestination));
    twice[0].storage().kv_delete(Bucket::Control, "migration", Some(journal)).await.unwrap();
    assert_eq!(twice[0].status(&id("a")).await.unwrap().status, JobStatus::Pending);
    assert_eq!(begin(&twice[0], &other).await.map(|report| report.pending), Ok(1));
}
