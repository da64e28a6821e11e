//! What is seen: of one job at once, of everything at the end.

use bytes::Bytes;
use naq_models::{JobStatus, QueueName};
use naq_services::storage::{ListFilter, QueueStats, SharedStorage, Sighting, StorageErrorKind};

use super::{DAY, MANY, Play, QUEUE, Verdict, eventually, pending, said, same};
use crate::{
    op::KEYS,
    state::{Entry, Place},
};

impl Play {
    /// Both clients see of an id what the model knows.
    pub(super) async fn look(&self, n: usize) -> Verdict {
        let entry = &self.entries[n];
        let mut expected = Vec::new();
        let body = pending(&entry.job).body;
        match &entry.place {
            Place::Nowhere => {}
            Place::Queued { .. } => expected.push(("queued".to_owned(), body)),
            Place::Waits { status, revision } => {
                expected.push((format!("{status} at {revision}, run {}", entry.job.run), body))
            }
        }
        if entry.letter {
            expected.push(("dead".to_owned(), Bytes::new()));
        }
        if let Some(kept) = &entry.result {
            expected.push((format!("ended at {}", kept.revision), kept.body.clone()));
        }
        expected.sort();
        for store in &self.stores {
            eventually(|| async {
                let seen = match store.get_job(&entry.job.id).await {
                    Err(error) if error.kind() == StorageErrorKind::NotFound => Vec::new(),
                    seen => said("get a job", seen)?,
                };
                let mut seen: Vec<_> = seen.into_iter().map(seen_as).collect();
                seen.sort();
                same(&format!("what is seen of {}", entry.job.id), &seen, &expected)
            })
            .await?;
        }
        Ok(())
    }

    pub(super) async fn finish(&self) -> Verdict {
        for n in 0..self.entries.len() {
            self.look(n).await?;
        }
        for key in 0..KEYS {
            self.look_at_key(key).await?;
        }
        let store = &self.stores[1];
        eventually(|| async { same("the list", &self.listed(store).await?, &self.all()) }).await?;
        eventually(|| async {
            let queue = QueueName::new(QUEUE).expect("a name");
            let mut found = said("queue stats", store.queue_stats(Some(&queue)).await)?;
            let mut found = found.pop().ok_or("no numbers")?;
            found.oldest_pending = None;
            let mut expected = self.numbers(queue);
            if !self.in_order && store.info().backend == "nats" {
                // What was handed back counts as claimed there until it is claimed again.
                for numbers in [&mut found, &mut expected] {
                    (numbers.pending, numbers.running) =
                        ([numbers.pending.iter().sum::<u64>() + numbers.running, 0, 0, 0], 0);
                }
            }
            same("the numbers", &found, &expected)
        })
        .await?;
        self.due(store).await
    }

    /// All that there is, as a list shows it: which ids, and as what.
    fn all(&self) -> Vec<(String, &'static str)> {
        let mut all = Vec::new();
        for entry in &self.entries {
            let id = entry.job.id.to_string();
            match entry.place {
                Place::Nowhere => {}
                Place::Queued { .. } => all.push((id.clone(), "queued")),
                Place::Waits { .. } => all.push((id.clone(), "waits")),
            }
            all.extend(entry.letter.then(|| (id.clone(), "dead")));
            all.extend(entry.result.is_some().then_some((id, "ended")));
        }
        all.sort();
        all
    }

    async fn listed(&self, store: &SharedStorage) -> Verdict<Vec<(String, &'static str)>> {
        let mut filter = ListFilter { queue: None, statuses: Vec::new(), limit: 3, cursor: None };
        let mut all = Vec::new();
        loop {
            let page = said("list", store.list(&filter).await)?;
            all.extend(page.items.iter().map(|item| {
                let what = match item {
                    Sighting::Queued { .. } => "queued",
                    Sighting::Scheduled(_) => "waits",
                    Sighting::Dead(_) => "dead",
                    Sighting::Ended(_) => "ended",
                };
                (item.id().to_string(), what)
            }));
            filter.cursor = page.next;
            if filter.cursor.is_none() {
                all.sort();
                return Ok(all);
            }
        }
    }

    fn numbers(&self, queue: QueueName) -> QueueStats {
        let mut numbers = QueueStats::empty(queue);
        for entry in &self.entries {
            match &entry.place {
                Place::Nowhere => {}
                Place::Queued { .. } if entry.is_held() => numbers.running += 1,
                Place::Queued { .. } => numbers.pending[usize::from(entry.job.priority.get())] += 1,
                Place::Waits { status: JobStatus::Retry, .. } => numbers.retry += 1,
                Place::Waits { status: JobStatus::Waiting, .. } => numbers.waiting += 1,
                Place::Waits { .. } => numbers.scheduled += 1,
            }
            numbers.failed += u64::from(entry.letter);
        }
        numbers
    }

    /// A feed that is opened now has what waits for its time, and no more.
    async fn due(&self, store: &SharedStorage) -> Verdict {
        let mut feed = said("open a due feed", store.open_due_feed().await)?;
        let far = self.now.saturating_add(DAY * 1000);
        let mut found: Vec<_> = said("due", feed.due(far, MANY).await)?.into_iter().map(|entry| entry.id).collect();
        let timed = |entry: &&Entry| entry.waits().is_some_and(|(_, status)| status != JobStatus::Waiting);
        let mut expected: Vec<_> = self.entries.iter().filter(timed).map(|entry| entry.job.id.clone()).collect();
        found.sort();
        expected.sort();
        same("what is due", &found, &expected)
    }
}

fn seen_as(sighting: Sighting) -> (String, Bytes) {
    match sighting {
        Sighting::Queued { body, .. } => ("queued".to_owned(), body),
        Sighting::Scheduled(entry) => {
            (format!("{} at {}, run {}", entry.status, entry.revision, entry.run), entry.body)
        }
        Sighting::Dead(_) => ("dead".to_owned(), Bytes::new()),
        Sighting::Ended(result) => (format!("ended at {}", result.revision), result.body),
    }
}
