//! The Python NAQ: its streams and its bucket, on each nats-server.

use futures_util::StreamExt as _;
use naq_models::{JobStatus, RawJson, ScheduleId, ScheduleStatus, Timing};
use naq_services::{StorageErrorKind, foreign::ForeignErrorKind, storage::Sighting};
use serde_json::Value;

use super::*;
use crate::server::{Server, on_each_server};

/// What a NAQ with waiting jobs looks like. Streams are made with the options that NAQ gives.
const SETUP: &str = r#"
import asyncio, enum, json, pickle, sys, time, types
import nats
from nats.js.api import RetentionPolicy, StorageType

enums = types.ModuleType("naq.models.enums")
sys.modules.update({"naq": types.ModuleType("naq"), "naq.models": types.ModuleType("naq.models"), "naq.models.enums": enums})
Status = enum.Enum("SCHEDULED_JOB_STATUS", {"ACTIVE": "active", "PAUSED": "paused"}, module="naq.models.enums")
enums.SCHEDULED_JOB_STATUS = Status

def job(id, **fields):
    defaults = dict(job_id=id, enqueue_time=time.time(), function="mails:send_mail", args=["a@b.c"], kwargs={}, max_retries=0,
        retry_delay=0, queue_name="mail", depends_on=[], result_ttl=None, timeout=None, retry_strategy="linear", retry_on=None, ignore_on=None)
    return json.dumps({**defaults, **fields}).encode()

def record(id, due, payload=None, status=Status.ACTIVE, **fields):
    record = dict(job_id=id, scheduled_timestamp_utc=due, queue_name="mail", cron=None, interval_seconds=None, repeat=None,
        _orig_job_payload=payload or job(id), _serializer="json", status=status, schedule_failure_count=0, last_enqueued_utc=None, next_run_utc=due)
    return pickle.dumps({**record, **fields}, protocol=5)

async def main(url, what):
    client = await nats.connect(url)
    js = client.jetstream()
    for name, subjects in [("naq_jobs", ["naq.queue.*"]), ("naq_failed_jobs", ["naq.failed.*"])]:
        await js.add_stream(name=name, subjects=subjects, storage=StorageType.FILE, retention=RetentionPolicy.WORK_QUEUE)
    kv = await js.create_key_value(bucket="naq_scheduled_jobs", description="Stores naq scheduled job details")
    publish = lambda payload: js.publish("naq.queue.mail", payload)
    await publish(job("plain"))
    if what == "all":
        await publish(job("by-name", function="mails:renamed", args=[], kwargs={"to": "x"}))
        await publish(pickle.dumps({"job_id": "pickled"}, protocol=5))
        await publish(job("both", kwargs={"to": "x"}))
        await publish(job("waits", depends_on=["plain"]))
        await publish(job("refused", queue_name="with space"))
        for number in range(200):
            await publish(job(f"many-{number}"))
        await publish(job("ready", depends_on=["ended"]))
        status = await js.create_key_value(bucket="naq_job_status", ttl=86400)
        await status.put("ended", b"completed")
        later, before = time.time() + 3600, time.time() - 3600
        await kv.put("delayed", record("delayed", later))
        await kv.put("overdue", record("overdue", before))
        await kv.put("cancelled", record("cancelled", later))
        await kv.delete("cancelled")
        await kv.put("nightly", record("nightly", later, cron="0 3 * * *"))
        await kv.put("beat", record("beat", before, interval_seconds=3600.5, repeat=3))
        await kv.put("held", record("held", later, interval_seconds=60, status=Status.PAUSED))
        await kv.put("pickled", record("pickled", later, payload=pickle.dumps("job")))
        failed = dict(job_id="broken", enqueue_time=time.time(), function_str="send_mail", args_repr="('a@b.c',)", kwargs_repr="{}",
            max_retries=1, retry_delay=0, queue_name="mail", error="boom", traceback="Traceback")
        await js.publish("naq.failed.mail", json.dumps(failed).encode())
        await js.publish("naq.failed.mail", json.dumps({**failed, "job_id": "shown", "args_repr": "(<object>,)"}).encode())
    await client.close()

asyncio.run(main(*sys.argv[1:]))
"#;

/// Every message of every stream, as bytes, and how the streams are set up.
const DUMP: &str = r#"
import asyncio, json, sys
import nats

async def main(url):
    client = await nats.connect(url)
    async def api(verb, **body):
        return json.loads((await client.request("$JS.API." + verb, json.dumps(body).encode())).data)
    found = {}
    for name in (await api("STREAM.NAMES"))["streams"] or []:
        info = await api("STREAM.INFO." + name)
        state, messages = info["state"], []
        for sequence in range(state["first_seq"], state["last_seq"] + 1):
            message = (await api("STREAM.MSG.GET." + name, seq=sequence)).get("message")
            if message and "hdrs" not in message:
                messages.append([sequence, message["subject"], message["data"]])
        found[name] = {"config": info["config"], "messages": messages}
    print(json.dumps(found))
    await client.close()

asyncio.run(main(sys.argv[1]))
"#;

async fn dump(server: &Server) -> Value {
    serde_json::from_str(&python(DUMP, &[&server.url()])).unwrap()
}

fn messages(dump: &Value, stream: &str) -> Vec<Value> {
    dump[stream]["messages"].as_array().unwrap().clone()
}

async fn args_of(to: &SchedulerService, id: &str) -> RawJson {
    let seen = to.jobs().storage().get_job(&JobId::new(id).unwrap()).await.unwrap();
    let body = seen.into_iter().find_map(|sighting| match sighting {
        Sighting::Queued { body, address, .. } => Some((body, address)),
        Sighting::Scheduled(entry) => Some((entry.body, entry.address)),
        Sighting::Dead(letter) => Some((letter.body, letter.address)),
        Sighting::Ended(_) => None,
    });
    let (body, address) = body.unwrap();
    naq_models::wire::decode(&body, &address).unwrap().args
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_read_comes_over_and_the_rest_stays_as_it_was() {
    on_each_server(async |server| {
        python(SETUP, &[&server.url(), "all"]);
        let before = dump(&server).await;
        let to = services("memory://python-naq", &NaqConfig::default()).await;
        let foreseen = foresee(ForeignSystem::NaqPython, &server.url(), &to).await;
        assert_eq!(dump(&server).await, before, "to look changes nothing");
        let report = bring_over(ForeignSystem::NaqPython, &server.url(), &to).await;

        assert_eq!(foreseen, report);
        assert_eq!((report.pending, report.scheduled, report.waiting), (2 + 200 + 2, 1, 1), "{report:?}");
        assert_eq!((report.recurring, report.failed, report.already_here), (3, 1, 0), "{report:?}");
        let expected = [
            (LeftReason::ArgsNotKept, 1),
            (LeftReason::ArgsOfBothKinds, 1),
            (LeftReason::NotJson, 2),
            (LeftReason::Refused, 1),
        ];
        assert_eq!(left(&report), expected);
        for (id, stands) in [
            ("plain", JobStatus::Pending),
            ("many-199", JobStatus::Pending),
            ("overdue", JobStatus::Pending),
            ("waits", JobStatus::Waiting),
            ("ready", JobStatus::Pending),
            ("delayed", JobStatus::Scheduled),
            ("broken", JobStatus::Failed),
        ] {
            assert_eq!(status(&to, id).await.status, stands, "{id}");
        }
        assert_eq!(status(&to, "by-name").await.kind, "renamed");
        assert_eq!(args_of(&to, "by-name").await.get(), r#"{"to": "x"}"#);
        assert_eq!(args_of(&to, "plain").await.get(), r#"["a@b.c"]"#);
        let error = status(&to, "broken").await.error.unwrap();
        assert_eq!((error.message.as_str(), error.backtrace.as_deref()), ("boom", Some("Traceback")));
        schedules_are_here(&to).await;

        let after = dump(&server).await;
        let is_left = |stream: &str, at: &[u64]| {
            let kept = messages(&before, stream).into_iter().filter(|m| at.contains(&m[0].as_u64().unwrap()));
            assert_eq!(messages(&after, stream), kept.collect::<Vec<_>>(), "what stays is not changed");
            assert_eq!(after[stream]["config"], before[stream]["config"]);
        };
        // The pickle, the one with both kinds of arguments, the refused one; the record around a pickle; the shown object.
        is_left("naq_jobs", &[3, 4, 6]);
        is_left("KV_naq_scheduled_jobs", &[8]);
        is_left("naq_failed_jobs", &[2]);
        assert_eq!(after.as_object().unwrap().len(), 4, "nothing of naq's own was made there");

        let again = bring_over(ForeignSystem::NaqPython, &server.url(), &to).await;
        assert_eq!(left(&again), expected, "they are found again");
        assert_eq!(ForeignReport { left: Vec::new(), ..again }, ForeignReport::default(), "and nothing else is");
        to.jobs().storage().close().await;
    })
    .await;
}

async fn schedules_are_here(to: &SchedulerService) {
    let get = async |id: &str| to.get(&ScheduleId::new(id).unwrap()).await.unwrap();
    let nightly = get("nightly").await;
    assert!(matches!(nightly.definition.timing, Timing::Cron(_)) && nightly.next.is_some());
    let beat = get("beat").await;
    assert_eq!(beat.definition.timing, Timing::Every(std::time::Duration::from_millis(3_600_500)));
    assert_eq!(beat.definition.repeat, Some(2), "one of three was overdue");
    let due = beat.definition.start.unwrap();
    let run = to.jobs().status(&beat.id.run_id(due)).await.unwrap();
    assert_eq!(run.status, JobStatus::Pending, "and is not lost");
    let held = get("held").await;
    assert_eq!((held.status, held.next), (ScheduleStatus::Paused, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_and_not_removed_is_only_removed_the_next_time() {
    on_each_server(async |server| {
        python(SETUP, &[&server.url(), "one"]);
        let to = services("memory://twice", &NaqConfig::default()).await;
        assert_eq!(bring_over(ForeignSystem::NaqPython, &server.url(), &to).await.pending, 1);
        // As if the process had been killed before it removed anything: the same messages are there once more.
        const AGAIN: &str = "import asyncio, json, sys, nats\nasync def main(url):\n  client = await nats.connect(url)\n  \
            js = client.jetstream()\n  \
            job = dict(job_id='plain', function='mails:send_mail', args=['a@b.c'], kwargs={}, queue_name='mail')\n  \
            await js.publish('naq.queue.mail', json.dumps(job).encode())\n  \
            await js.publish('naq.queue.mail', json.dumps({**job, 'function': 'other'}).encode())\n  \
            await client.close()\nasyncio.run(main(sys.argv[1]))";
        python(AGAIN, &[&server.url()]);
        let report = bring_over(ForeignSystem::NaqPython, &server.url(), &to).await;
        assert_eq!((report.pending, report.already_here), (0, 1));
        assert_eq!(left(&report), [(LeftReason::IdTaken, 1)], "another job of that id is not thrown away");
        assert_eq!(messages(&dump(&server).await, "naq_jobs").len(), 1);
        to.jobs().storage().close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_one_server_naq_needs_another_prefix() {
    on_each_server(async |server| {
        python(SETUP, &[&server.url(), "all"]);
        let before = dump(&server).await;
        let url: StoreUrl = server.url().parse().unwrap();
        let mut config = NaqConfig::default();
        let refused = ForeignStore::check_destination(&url, &config).await.unwrap_err();
        assert_eq!(refused.kind(), ForeignErrorKind::Destination(StorageErrorKind::Incompatible));
        // What happens without the check: naq refuses what it finds, and leaves it alone.
        let opened = open_storage(&url, &config).await.unwrap_err();
        assert_eq!(opened.kind(), StorageErrorKind::Incompatible);
        let after = dump(&server).await;
        for stream in ["naq_jobs", "naq_failed_jobs", "KV_naq_scheduled_jobs"] {
            assert_eq!(after[stream], before[stream], "{stream} is neither changed nor emptied");
        }

        config.queues.prefix = "naq2".to_owned();
        ForeignStore::check_destination(&url, &config).await.unwrap();
        let to = services(&server.url(), &config).await;
        let report = bring_over(ForeignSystem::NaqPython, &server.url(), &to).await;
        assert_eq!((report.pending, report.recurring, report.failed), (204, 3, 1));
        assert_eq!(status(&to, "plain").await.status, JobStatus::Pending);
        assert_eq!(status(&to, "broken").await.status, JobStatus::Failed);
        schedules_are_here(&to).await;
        to.jobs().storage().close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_naq_is_refused() {
    on_each_server(async |server| {
        let url: StoreUrl = server.url().parse().unwrap();
        let opened = ForeignStore::open(ForeignSystem::NaqPython, &url, &NaqConfig::default()).await;
        assert_eq!(opened.unwrap_err().kind(), ForeignErrorKind::Source(StorageErrorKind::NotFound));
        ForeignStore::check_destination(&url, &NaqConfig::default()).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_was_changed_meanwhile_stays() {
    const KEY: &str = "$KV.naq_scheduled_jobs.changed";
    const READ: &str = "$JS.API.STREAM.MSG.GET.KV_naq_scheduled_jobs";
    /// Positions that are asked for at once.
    const PAGE: usize = 64;
    on_each_server(async |server| {
        python(SETUP, &[&server.url(), "one"]);
        let client = async_nats::connect(server.url()).await.unwrap();
        let record = include_bytes!("../../src/foreign/samples/delayed.pickle").as_slice();
        client.request(KEY, record.into()).await.unwrap();
        let reads = client.subscribe(READ).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("naq.db");
        let to = services(&format!("sqlite://{}", path.display()), &NaqConfig::default()).await;

        // Nothing can be stored until the record has been changed after it was read.
        let lock = rusqlite::Connection::open(&path).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        let url = server.url();
        let moving = bring_over(ForeignSystem::NaqPython, &url, &to);
        let changing = async {
            assert_eq!(reads.take(PAGE).count().await, PAGE);
            // Answered after those before it.
            client.request(READ, r#"{"seq":1}"#.into()).await.unwrap();
            client.request(KEY, record.into()).await.unwrap();
            lock.execute_batch("COMMIT").unwrap();
        };
        let (report, ()) = tokio::join!(moving, changing);
        assert_eq!((report.pending, left(&report)), (2, vec![(LeftReason::ChangedMeanwhile, 1)]));
        assert_eq!(messages(&dump(&server).await, "KV_naq_scheduled_jobs").len(), 1);

        let again = bring_over(ForeignSystem::NaqPython, &url, &to).await;
        assert_eq!((again.pending, again.already_here, left(&again)), (0, 1, Vec::new()));
        to.jobs().storage().close().await;
    })
    .await;
}
