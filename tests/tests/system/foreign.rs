//! Another language, no naq code: nats-py enqueues a job and reads its result as `docs/protocol.md` says.

use anyhow::Result;
use naq_tests::ServerVersion;
use serde_json::{Value, json};

use crate::{
    python,
    site::{Backend, COMMAND_LIMIT, Site, on_every_server},
};

on_every_server!(a_python_producer_gets_its_result);

const PRODUCER: &str = r#"
import asyncio, json, sys
import nats

async def main(url):
    client = await nats.connect(url)
    stream = client.jetstream()

    async def enqueue(id, priority, envelope):
        return await stream.publish(f"naq.queue.default.{priority}.{id}", json.dumps(envelope).encode())

    async def result(id):
        subject = f"$KV.naq_results.{id}"
        wake = await client.subscribe(subject)
        while True:
            try:
                stored = await stream.get_last_msg("KV_naq_results", subject)
                return json.loads(stored.data)
            except nats.js.errors.NotFoundError:
                await wake.next_msg(timeout=20)

    await enqueue("python-1", 2, {"v": 1, "kind": "naq.echo", "args": {"text": "grüße", "n": 1.5}, "mine": [1]})
    try:
        await enqueue("python-1", 2, {"v": 1, "kind": "naq.echo", "args": {}})
        twice = "stored twice"
    except nats.js.errors.APIError as error:
        twice = error.description
    await enqueue("python-2", 0, {"v": 1, "kind": "naq.sleep", "args": {"seconds": "soon"}, "max_retries": 0})
    open("enqueued", "w").close()
    print(json.dumps({"twice": twice, "good": await result("python-1"), "bad": await result("python-2")}))
    await client.close()

asyncio.run(main(sys.argv[1]))
"#;

async fn a_python_producer_gets_its_result(version: ServerVersion) -> Result<()> {
    let site = Site::start(Backend::Nats(version)).await?;
    // The stream of a queue exists from its first use on; the jobs run only after all of them were sent.
    let first = site.enqueue("naq.noop", &json!({}), &[]).await?;
    let args = [site.url.as_str()];
    let producing = python::run_with_modules(site.dir(), PRODUCER, &args);
    let serving = async {
        let sent = async || site.path("enqueued").exists().then_some(());
        naq_tests::eventually(COMMAND_LIMIT, "Python has sent its jobs", sent).await?;
        site.worker_of(&site.naq()?, "stock", &[]).await
    };
    let (printed, worker) = tokio::join!(producing, serving);
    let (printed, _worker): (Value, _) = (serde_json::from_str(&printed?)?, worker?);

    assert!(printed["twice"].as_str().is_some_and(|said| said.contains("per subject exceeded")), "{printed}");
    let good = &printed["good"];
    assert_eq!((&good["id"], &good["status"], &good["attempt"]), (&json!("python-1"), &json!("completed"), &json!(1)));
    assert_eq!(good["result"], json!({"text": "grüße", "n": 1.5}));
    for field in ["kind", "queue", "worker_id", "enqueued_at", "started_at", "finished_at"] {
        assert!(good.get(field).is_some(), "the protocol promises {field}: {good}");
    }
    let bad = &printed["bad"];
    assert_eq!((&bad["status"], &bad["error"]["error_type"]), (&json!("failed"), &json!("decode")), "{bad}");
    assert_eq!(site.json(&["job", "result", "python-1"]).await?["result"], good["result"]);
    assert_eq!(site.json(&["job", "result", &first]).await?["status"], "completed");
    Ok(())
}
