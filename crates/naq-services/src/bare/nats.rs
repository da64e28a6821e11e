//! Bare loops over async-nats: publish; pull and ack; pull, publish the result, ack.
//!
//! Invariant: one task, one connection, a bounded number of unanswered publishes, every acknowledgement of the server
//! awaited. Streams and consumers are those that naq made, but for [`BareNats::create_fixed`], the layout without ids.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use async_nats::{
    HeaderMap,
    jetstream::{
        self, Message,
        consumer::{AckPolicy, PullConsumer, pull},
        context::PublishAckFuture,
        message::PublishMessage,
        stream::{DiscardPolicy, RetentionPolicy},
    },
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

use super::{BareError, Result, failed};

/// Unanswered publishes at once: beyond about 2 000 nothing gets faster.
pub const WINDOW: usize = 2048;
/// Messages of one pull request.
const PULL: usize = 1000;
/// No step of a loop may be silent for longer.
const SILENCE: Duration = Duration::from_secs(10);

/// A connection of its own.
#[derive(Debug)]
pub struct BareNats {
    context: jetstream::Context,
}

/// Where a loop puts results.
#[derive(Debug, Clone)]
pub enum Results {
    /// Under the last token of the job's subject, once: `<prefix><id>`, each with these headers.
    ById {
        /// Everything before the id.
        prefix: String,
        /// Beside the one that makes the write happen once.
        headers: Vec<(String, String)>,
    },
    /// All under one subject.
    Fixed(String),
}

/// The layout without ids as addresses: one subject for all jobs, one for all results.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// The stream of the jobs.
    pub stream: String,
    /// Their subject.
    pub subject: String,
    /// The stream of the results.
    pub result_stream: String,
    /// Their subject.
    pub result_subject: String,
}

impl BareNats {
    /// Connects to one server.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn connect(url: &str) -> Result<Self> {
        let client = async_nats::ConnectOptions::new()
            .client_capacity(2 * WINDOW)
            .connect(url)
            .await
            .map_err(failed("connect"))?;
        let context = jetstream::ContextBuilder::new().max_ack_inflight(2 * WINDOW).build(client);
        Ok(Self { context })
    }

    /// The version that the server names.
    #[must_use]
    pub fn server_version(&self) -> String {
        self.context.client().server_info().version
    }

    /// Makes the streams and the consumer of the layout without ids.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn create_fixed(&self, name: &str) -> Result<Fixed> {
        let fixed = Fixed {
            stream: format!("{name}_jobs"),
            subject: format!("{name}.job"),
            result_stream: format!("{name}_results"),
            result_subject: format!("{name}.result"),
        };
        let jobs = jetstream::stream::Config {
            name: fixed.stream.clone(),
            subjects: vec![fixed.subject.clone()],
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            ..Default::default()
        };
        let stream = self.context.create_stream(jobs).await.map_err(failed("create the stream of jobs"))?;
        let consumer = pull::Config {
            durable_name: Some("all".into()),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: 20_000,
            ..Default::default()
        };
        stream.create_consumer(consumer).await.map_err(failed("create the consumer"))?;
        let results = jetstream::stream::Config {
            name: fixed.result_stream.clone(),
            subjects: vec![fixed.result_subject.clone()],
            ..Default::default()
        };
        self.context.create_stream(results).await.map_err(failed("create the stream of results"))?;
        Ok(fixed)
    }

    /// Removes a stream.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn delete(&self, stream: &str) -> Result<()> {
        self.context.delete_stream(stream).await.map(drop).map_err(failed("delete a stream"))
    }

    /// Removes every message of a stream.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn purge(&self, stream: &str) -> Result<()> {
        let stream = self.context.get_stream_no_info(stream).await.map_err(failed("find the stream to purge"))?;
        stream.purge().await.map(drop).map_err(failed("purge"))
    }

    /// How many messages a stream holds.
    ///
    /// # Errors
    /// If the server does not say.
    pub async fn held(&self, stream: &str) -> Result<u64> {
        let stream = self.context.get_stream(stream).await.map_err(failed("look into the stream"))?;
        Ok(stream.cached_info().state.messages)
    }

    /// Waits until a stream is empty, looking every two milliseconds.
    ///
    /// # Errors
    /// If it does not become empty for ten seconds.
    pub async fn wait_empty(&self, stream: &str) -> Result<()> {
        let until = Instant::now() + SILENCE;
        loop {
            let held = self.held(stream).await?;
            if held == 0 {
                return Ok(());
            }
            if Instant::now() > until {
                let text = format!("{stream} still holds {held} messages");
                return Err(BareError { operation: "wait for the acknowledgements", source: text.into() });
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Publishes messages, each a subject and a body, [`WINDOW`] of them unanswered at once.
    ///
    /// # Errors
    /// If one is not stored.
    pub async fn publish(&self, messages: Vec<(String, Bytes)>) -> Result<()> {
        let mut unanswered = VecDeque::with_capacity(WINDOW);
        for (subject, body) in messages {
            if unanswered.len() == WINDOW
                && let Some(oldest) = unanswered.pop_front()
            {
                acknowledged(oldest).await?;
            }
            unanswered.push_back(self.context.publish(subject, body).await.map_err(failed("publish"))?);
        }
        for rest in unanswered {
            acknowledged(rest).await?;
        }
        Ok(())
    }

    /// Takes `count` jobs of the consumer with this filter and acknowledges each. Returns the time from the first job
    /// until the stream is empty.
    ///
    /// # Errors
    /// If the server fails, or sends nothing for ten seconds.
    pub async fn run(&self, stream: &str, filter: &str, count: usize) -> Result<Duration> {
        let mut jobs = self.jobs(stream, filter).await?;
        let mut begin = None;
        for _ in 0..count {
            let job = next(&mut jobs).await?;
            begin.get_or_insert_with(Instant::now);
            job.ack().await.map_err(failed("acknowledge a job"))?;
        }
        drop(jobs);
        self.finish(stream, begin).await
    }

    /// Takes `count` jobs of the consumer with this filter, stores `result` for each, and acknowledges it then. Returns
    /// the time from the first job until the stream is empty.
    ///
    /// # Errors
    /// If the server fails, refuses a result, or sends nothing for ten seconds.
    pub async fn run_with_result(
        &self,
        stream: &str,
        filter: &str,
        count: usize,
        results: &Results,
        result: Bytes,
    ) -> Result<Duration> {
        let mut jobs = self.jobs(stream, filter).await?;
        let mut begin = None;
        let mut unanswered: VecDeque<(PublishAckFuture, Message)> = VecDeque::with_capacity(WINDOW);
        for _ in 0..count {
            if unanswered.len() == WINDOW
                && let Some(oldest) = unanswered.pop_front()
            {
                settle(oldest).await?;
            }
            let job = next(&mut jobs).await?;
            begin.get_or_insert_with(Instant::now);
            let stored = match results {
                Results::ById { prefix, headers } => {
                    let id = job.subject.rsplit('.').next().unwrap_or_default();
                    let subject = format!("{prefix}{id}");
                    self.context.send_publish(subject, once(headers, result.clone())).await
                }
                Results::Fixed(subject) => self.context.publish(subject.clone(), result.clone()).await,
            };
            unanswered.push_back((stored.map_err(failed("publish a result"))?, job));
        }
        drop(jobs);
        for rest in unanswered {
            settle(rest).await?;
        }
        self.finish(stream, begin).await
    }

    async fn finish(&self, stream: &str, begin: Option<Instant>) -> Result<Duration> {
        self.context.client().flush().await.map_err(failed("flush"))?;
        self.wait_empty(stream).await?;
        Ok(begin.map_or(Duration::ZERO, |begin| begin.elapsed()))
    }

    /// The jobs of the consumer of a stream that has this filter (or of its only one).
    async fn jobs(&self, stream: &str, filter: &str) -> Result<pull::Stream> {
        let stream = self.context.get_stream_no_info(stream).await.map_err(failed("find the stream"))?;
        let mut consumers = stream.consumers();
        let mut name = None;
        while let Some(info) = consumers.try_next().await.map_err(failed("list consumers"))? {
            if info.config.filter_subject == filter || filter.is_empty() {
                name = Some(info.name);
            }
        }
        let name = name.ok_or_else(|| failed("find the consumer")(format!("none has the filter {filter:?}")))?;
        let consumer: PullConsumer = stream.get_consumer(&name).await.map_err(failed("get the consumer"))?;
        consumer
            .stream()
            .max_messages_per_batch(PULL)
            .expires(Duration::from_secs(30))
            .messages()
            .await
            .map_err(failed("pull"))
    }
}

async fn next(jobs: &mut pull::Stream) -> Result<Message> {
    match tokio::time::timeout(SILENCE, jobs.next()).await {
        Ok(Some(job)) => job.map_err(failed("pull")),
        Ok(None) => Err(failed("pull")("the server ended the pull")),
        Err(_) => Err(failed("pull")("no job arrived in time")),
    }
}

fn once(headers: &[(String, String)], body: Bytes) -> PublishMessage {
    let mut all = HeaderMap::new();
    all.insert("Nats-Expected-Last-Subject-Sequence", "0");
    for (name, value) in headers {
        all.insert(name.as_str(), value.as_str());
    }
    PublishMessage::build().payload(body).headers(all)
}

async fn acknowledged(publish: PublishAckFuture) -> Result<()> {
    publish.await.map(drop).map_err(failed("publish"))
}

async fn settle((stored, job): (PublishAckFuture, Message)) -> Result<()> {
    acknowledged(stored).await?;
    job.ack().await.map_err(failed("acknowledge a job"))
}
