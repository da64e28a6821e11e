//! A [`Site`]: one store of one kind, a folder, and the programs that share them. What every behaviour starts from.
//!
//! Invariant: whatever a test does to a job it does through a process, as a user would. Times are short (a lease of two
//! seconds) and the same for all processes of a site, because they are part of how the store is set up.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use naq::Timestamp;
pub(crate) use naq_tests::LEASE;
use naq_tests::{Finished, NaqBinary, NaqProcess, NatsOptions, NatsServer, RawNats, ServerVersion, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

/// For one command of the binary; it usually takes some 50 ms.
pub(crate) const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// For a worker to say that it is ready, or to end.
pub(crate) const WORKER_LIMIT: Duration = Duration::from_secs(30);

/// The stores that every promise is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Nats(ServerVersion),
}

/// Makes three tests of each function: in a module of its name, one for each [`Backend`].
macro_rules! on_every_store {
    ($($test:ident),+ $(,)?) => { $(
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() -> anyhow::Result<()> {
                super::$test(crate::site::Backend::Sqlite).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn nats_2_9() -> anyhow::Result<()> {
                super::$test(crate::site::Backend::Nats(naq_tests::ServerVersion::V2_9)).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn nats_2_15() -> anyhow::Result<()> {
                super::$test(crate::site::Backend::Nats(naq_tests::ServerVersion::V2_15)).await
            }
        }
    )+ };
}
pub(crate) use on_every_store;

/// Makes two tests of each function, one for each version of the server.
macro_rules! on_every_server {
    ($($test:ident),+ $(,)?) => { $(
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn nats_2_9() -> anyhow::Result<()> {
                super::$test(naq_tests::ServerVersion::V2_9).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn nats_2_15() -> anyhow::Result<()> {
                super::$test(naq_tests::ServerVersion::V2_15).await
            }
        }
    )+ };
}
pub(crate) use on_every_server;

/// One store and those who use it.
pub(crate) struct Site {
    pub(crate) server: Option<NatsServer>,
    pub(crate) url: String,
    env: Vec<(String, String)>,
    dir: TempDir,
}

impl Site {
    pub(crate) async fn start(backend: Backend) -> Result<Site> {
        match backend {
            Backend::Sqlite => {
                let dir = folder()?;
                let url = format!("sqlite://{}", dir.path().join("jobs.db").display());
                Ok(Site { server: None, url, env: naq_tests::short_times(), dir })
            }
            Backend::Nats(version) => Site::on_server(version, NatsOptions::default()).await,
        }
    }

    pub(crate) async fn on_server(version: ServerVersion, options: NatsOptions) -> Result<Site> {
        let server = NatsServer::start_with(version, options).await?;
        Ok(Site { url: server.url(), server: Some(server), env: naq_tests::short_times(), dir: folder()? })
    }

    /// Another naq on the same store: own names on the server, own folder.
    pub(crate) fn beside(&self, prefix: &str) -> Result<Site> {
        let mut site = Site { server: None, url: self.url.clone(), env: self.env.clone(), dir: folder()? };
        site.set("NAQ_QUEUES__PREFIX", prefix);
        Ok(site)
    }

    /// Sets a variable for every process started from now on.
    pub(crate) fn set(&mut self, name: &str, value: impl ToString) {
        self.env.push((name.to_owned(), value.to_string()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The server, of a site that has one.
    pub(crate) fn nats(&mut self) -> Result<&mut NatsServer> {
        self.server.as_mut().context("a site without a server")
    }

    /// A connection of no naq code.
    pub(crate) async fn raw(&self) -> Result<RawNats> {
        RawNats::connect(self.server.as_ref().context("a site without a server")?.address()).await
    }

    fn with_env(&self, program: NaqBinary) -> NaqBinary {
        program.env("NAQ_URL", &self.url).envs(self.env.clone())
    }

    /// The stock binary.
    pub(crate) fn naq(&self) -> Result<NaqBinary> {
        Ok(self.with_env(NaqBinary::in_dir(self.dir())?))
    }

    /// The worker binary with the test jobs compiled in.
    pub(crate) fn test_worker(&self) -> NaqBinary {
        self.with_env(NaqBinary::at(env!("CARGO_BIN_EXE_test-worker").into(), self.dir()))
    }

    /// The producer that writes down what was acknowledged.
    pub(crate) fn producer(&self) -> NaqBinary {
        self.with_env(NaqBinary::at(env!("CARGO_BIN_EXE_test-producer").into(), self.dir()))
    }

    /// Starts a worker with the test jobs and returns once it is in the list of workers.
    pub(crate) async fn worker(&self, name: &str, args: &[&str]) -> Result<NaqProcess> {
        self.worker_of(&self.test_worker(), name, args).await
    }

    pub(crate) async fn worker_of(&self, binary: &NaqBinary, name: &str, args: &[&str]) -> Result<NaqProcess> {
        let process = binary.spawn(&[&["worker", "start", "--name", name], args].concat())?;
        let what = format!("worker {name} is in the list");
        let listed = eventually(WORKER_LIMIT, &what, async || {
            let workers = self.json(&["worker", "list"]).await.ok()?;
            workers.as_array()?.iter().find(|worker| worker["name"] == name).map(drop)
        });
        listed.await.with_context(|| format!("its stderr:\n{}", process.stderr()))?;
        Ok(process)
    }

    /// Runs a worker of the test jobs until there is nothing left to do.
    pub(crate) async fn burst(&self, args: &[&str], limit: Duration) -> Result<Finished> {
        let finished = self.test_worker().run(&[&["worker", "start", "--burst"], args].concat(), limit).await?;
        ensure!(finished.code() == Some(0), "a burst worker ended with {finished:#?}");
        Ok(finished)
    }

    /// Runs a command with `--output json`, whatever its exit code.
    pub(crate) async fn run(&self, args: &[&str]) -> Result<Finished> {
        self.naq()?.run(&[args, &["--output", "json"]].concat(), COMMAND_LIMIT).await
    }

    /// Runs a command with `--output json` that has to exit with 0, and returns what it printed.
    pub(crate) async fn json(&self, args: &[&str]) -> Result<Value> {
        let finished = self.run(args).await?;
        ensure!(finished.code() == Some(0), "naq {}: {finished:#?}", args.join(" "));
        finished.json()
    }

    /// Enqueues one job and returns its id.
    pub(crate) async fn enqueue(&self, kind: &str, args: &Value, flags: &[&str]) -> Result<String> {
        let args = args.to_string();
        let receipt = self.json(&[&["job", "enqueue", kind, "--args", &args], flags].concat()).await?;
        Ok(receipt["job_id"].as_str().context("a receipt without an id")?.to_owned())
    }

    /// Defines a schedule, one run each period, that makes up for every run it missed. Returns when the first is due.
    pub(crate) async fn every(
        &self,
        id: &str,
        kind: &str,
        args: &Value,
        period: Duration,
        runs: usize,
    ) -> Result<Timestamp> {
        let (args, period, runs) = (args.to_string(), format!("{}ms", period.as_millis()), runs.to_string());
        let what = ["scheduler", "upsert", id, "--kind", kind, "--args", &args];
        let when = ["--every", &period, "--repeat", &runs, "--missed", "all"];
        let defined = self.json(&[&what[..], &when].concat()).await?;
        Ok(defined["next"].as_str().context("it is due")?.parse()?)
    }

    /// Enqueues many envelopes in one go; all of them have to be taken as new.
    pub(crate) async fn enqueue_all(&self, envelopes: impl IntoIterator<Item = Value>) -> Result<()> {
        let mut lines = String::new();
        let mut count = 0;
        for envelope in envelopes {
            lines += &format!("{envelope}\n");
            count += 1;
        }
        let path = self.path(&format!("bulk-{count}-{}.jsonl", lines.len()));
        fs::write(&path, lines)?;
        let args = ["job", "enqueue", "--from", &path.to_string_lossy(), "--output", "json"];
        let finished = self.naq()?.run(&args, Duration::from_secs(200)).await?;
        ensure!(finished.code() == Some(0), "bulk enqueue: {finished:#?}");
        assert_eq!(finished.json()?, json!({"enqueued": count, "duplicates": 0, "failed": 0}));
        Ok(())
    }

    /// The numbers of a queue.
    pub(crate) async fn queue(&self, queue: &str) -> Result<Value> {
        self.json(&["queue", "stats", queue]).await
    }

    /// Every job of a queue in one status, as `job list` prints them.
    pub(crate) async fn jobs(&self, queue: &str, status: &str) -> Result<Vec<Value>> {
        let args = ["job", "list", "--queue", queue, "--status", status, "--limit", "100000"];
        Ok(self.json(&args).await?.as_array().context("job list prints an array")?.clone())
    }

    /// The ids of every job of a queue in one status, sorted.
    pub(crate) async fn ids(&self, queue: &str, status: &str) -> Result<Vec<String>> {
        let jobs = self.jobs(queue, status).await?;
        let mut ids: Vec<String> = jobs.iter().filter_map(|job| Some(job["job_id"].as_str()?.to_owned())).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Waits until nothing of a queue is pending, running or waiting for its time.
    pub(crate) async fn drained(&self, queue: &str, limit: Duration) -> Result<()> {
        let (mut last, mut before) = (Value::Null, false);
        let drained = eventually(limit, format!("queue {queue} is empty"), async || {
            last = self.queue(queue).await.ok()?;
            let open = ["pending", "running", "scheduled", "retry", "waiting"];
            let empty = open.iter().all(|state| last[*state] == 0);
            // Twice in a row: a job that moves from one to the other between two counts is in none of them.
            (empty && std::mem::replace(&mut before, empty)).then_some(())
        });
        drained.await.with_context(|| format!("it holds {last}"))
    }

    /// How many results the store has ever written, where that can be seen: settling a job twice would count twice.
    pub(crate) async fn results_written(&self) -> Result<Option<u64>> {
        if self.server.is_none() {
            return Ok(None);
        }
        let info = self.raw().await?.request_json("$JS.API.STREAM.INFO.KV_naq_results", &Value::Null).await?;
        Ok(info["state"]["last_seq"].as_u64())
    }
}

fn folder() -> Result<TempDir> {
    Ok(naq_tests::temp_folder("naq-site-")?)
}

/// An envelope with an id of the test's own.
pub(crate) fn envelope(id: impl AsRef<str>, kind: &str, args: Value) -> Value {
    json!({"v": 1, "id": id.as_ref(), "kind": kind, "args": args})
}

/// An envelope to which the store gives its id.
pub(crate) fn anonymous(kind: &str, args: Value) -> Value {
    json!({"v": 1, "kind": kind, "args": args})
}

/// The same with further fields.
pub(crate) fn with(mut envelope: Value, fields: Value) -> Value {
    if let (Value::Object(envelope), Value::Object(fields)) = (&mut envelope, fields) {
        envelope.extend(fields);
    }
    envelope
}
