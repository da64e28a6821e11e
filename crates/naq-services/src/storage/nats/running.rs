//! Who runs a job: asked of all workers, because the store does not know.
//!
//! Invariant: an answer is a hint for people. No worker needs to answer; a question ends after [`BOUND`].

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::Subscriber;
use futures_util::StreamExt;
use naq_models::{JobId, QueueName};
use tokio::time::Instant;

use super::{Shared, names::Names};
use crate::{
    connection::ConnectionService,
    storage::{RunningAt, RunningJobs},
};

/// How long answers are waited for.
const BOUND: Duration = Duration::from_millis(200);
/// Ids in one question; far below the smallest payload a server takes.
const IDS_MAX: usize = 1000;

/// Answers questions from this worker's memory, for as long as there is a subscription.
pub(super) async fn answer(connection: ConnectionService, mut questions: Subscriber, running: Arc<dyn RunningJobs>) {
    while let Some(question) = questions.next().await {
        let (Some(reply), Ok(ids)) = (question.reply, serde_json::from_slice::<Vec<JobId>>(&question.payload)) else {
            continue;
        };
        let found: HashMap<JobId, RunningAt> =
            ids.into_iter().take(IDS_MAX).filter_map(|id| Some((id.clone(), running.running(&id)?))).collect();
        if found.is_empty() {
            continue;
        }
        let answer = serde_json::to_vec(&found).expect("ids are strings and RunningAt is plain");
        if let Err(failure) = connection.publish(reply.to_string(), None, answer.into()).await {
            tracing::debug!(%failure, "the question who runs a job was not answered");
        }
    }
}

impl Shared {
    /// Who runs these jobs, as far as workers tell in time. Not asked if no claim is open on these queues.
    pub(super) async fn who_runs(&self, queues: &[QueueName], ids: &[&JobId]) -> HashMap<JobId, RunningAt> {
        if ids.is_empty() || !self.any_claimed(queues).await {
            return HashMap::new();
        }
        self.ask_all(ids).await
    }

    /// The same for jobs that are known to be claimed.
    pub(super) async fn ask_all(&self, ids: &[&JobId]) -> HashMap<JobId, RunningAt> {
        let mut found = HashMap::new();
        for ids in ids.chunks(IDS_MAX) {
            if let Some(answers) = self.ask(ids).await {
                found.extend(answers);
            }
        }
        found
    }

    async fn any_claimed(&self, queues: &[QueueName]) -> bool {
        for queue in queues {
            for priority in naq_models::Priority::ALL {
                let stream = self.names.queue_stream(queue);
                match self.streams.consumer_info(&stream, &Names::lane_consumer(priority)).await {
                    Ok(Some(lane)) if lane.num_ack_pending == 0 => {}
                    Ok(None) => {}
                    // Claims, or no answer: then it is worth asking.
                    _ => return true,
                }
            }
        }
        false
    }

    async fn ask(&self, ids: &[&JobId]) -> Option<HashMap<JobId, RunningAt>> {
        let inbox = self.connection.new_inbox();
        let mut answers = self.connection.subscribe(inbox.clone()).await.ok()?;
        let question = serde_json::to_vec(ids).expect("ids are strings").into();
        self.connection.publish(self.names.running(), Some(inbox), question).await.ok()?;
        let deadline = Instant::now() + BOUND;
        let mut found = HashMap::new();
        while found.len() < ids.len() {
            let Ok(Some(answer)) = tokio::time::timeout_at(deadline, answers.next()).await else { break };
            if answer.status.is_some() {
                // No worker is there to answer.
                break;
            }
            let answer: HashMap<JobId, RunningAt> = serde_json::from_slice(&answer.payload).unwrap_or_default();
            found.extend(answer);
        }
        Some(found)
    }
}
