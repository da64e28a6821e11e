//! Lists of jobs, page by page.
//!
//! Invariant: the order is queues by name, then scheduled entries, dead letters, results, each in the order in which they
//! were stored. The cursor names a place and a sequence, so that a page costs what is on it.

use naq_models::{JobResult, JobStatus, QueueName};

use super::{Shared, results::stored_result, scheduled::Waiting};
use crate::{
    kv_stores::{self, is_live},
    storage::{ListFilter, ListPage, Result, Sighting, StorageError, StorageErrorKind},
    streams::last_of_each,
};

/// Where listed jobs lie.
#[derive(Debug, Clone, PartialEq)]
enum Place {
    Queue(QueueName),
    Scheduled,
    Dead,
    Results,
}

impl Place {
    fn cursor(&self, from: u64) -> String {
        match self {
            Self::Queue(name) => format!("q.{name}.{from}"),
            Self::Scheduled => format!("s..{from}"),
            Self::Dead => format!("d..{from}"),
            Self::Results => format!("r..{from}"),
        }
    }

    fn read_cursor(text: &str) -> Option<(Self, u64)> {
        let mut tokens = text.splitn(3, '.');
        let (kind, name, from) = (tokens.next()?, tokens.next()?, tokens.next()?.parse().ok()?);
        let place = match kind {
            "q" => Self::Queue(QueueName::new(name).ok()?),
            "s" => Self::Scheduled,
            "d" => Self::Dead,
            "r" => Self::Results,
            _ => return None,
        };
        Some((place, from))
    }
}

impl Shared {
    pub(super) async fn list(&self, filter: &ListFilter) -> Result<ListPage> {
        let (mut at, mut from) = (0, 1);
        let places = self.places(filter).await?;
        if let Some(cursor) = &filter.cursor {
            let refused = || StorageError::new(StorageErrorKind::Refused, "list", format!("{cursor:?} is no cursor"));
            let (place, sequence) = Place::read_cursor(cursor).ok_or_else(refused)?;
            // A queue that has gone meanwhile is passed over.
            at = places.iter().position(|p| *p == place || is_behind(p, &place)).unwrap_or(places.len());
            from = if places.get(at) == Some(&place) { sequence } else { 1 };
        }
        let limit = filter.limit.max(1);
        let mut page = ListPage { items: Vec::new(), next: None };
        while let Some(place) = places.get(at) {
            let next = self.list_place(place, filter, from, limit, &mut page.items).await?;
            match next {
                Some(next) => from = next,
                None => (at, from) = (at + 1, 1),
            }
            if page.items.len() >= limit {
                page.next = places.get(at).map(|place| place.cursor(from));
                break;
            }
        }
        self.add_running(&mut page.items).await;
        Ok(page)
    }

    async fn places(&self, filter: &ListFilter) -> Result<Vec<Place>> {
        let any = |wanted: &[JobStatus]| {
            filter.statuses.is_empty() || filter.statuses.iter().any(|status| wanted.contains(status))
        };
        let mut places = Vec::new();
        if any(&[JobStatus::Pending, JobStatus::Running]) {
            let queues = self.queues().await?;
            let wanted = queues.into_iter().filter(|queue| filter.queue.as_ref().is_none_or(|only| only == queue));
            places.extend(wanted.map(Place::Queue));
        }
        if any(&[JobStatus::Scheduled, JobStatus::Retry, JobStatus::Waiting]) {
            places.push(Place::Scheduled);
        }
        if any(&[JobStatus::Failed]) {
            places.push(Place::Dead);
        }
        if any(&[JobStatus::Completed, JobStatus::Cancelled]) {
            places.push(Place::Results);
        }
        Ok(places)
    }

    /// Adds items of a place until there are `limit`; where to go on, or `None` at the end of the place.
    async fn list_place(
        &self,
        place: &Place,
        filter: &ListFilter,
        from: u64,
        limit: usize,
        items: &mut Vec<Sighting>,
    ) -> Result<Option<u64>> {
        let failed = |failure| self.streams.error("list", failure);
        if let Place::Queue(queue) = place {
            // A work queue cannot be read by a second consumer, so its messages are asked for one by one.
            let (stream, subject) = (self.names.queue_stream(queue), self.names.all_of_queue(queue));
            let Some(message) = self.streams.next_message(&stream, &subject, from).await.map_err(failed)? else {
                return Ok(None);
            };
            let next = message.sequence + 1;
            items.extend(self.queued(message));
            return Ok(Some(next));
        }
        let (stream, subject) = match place {
            Place::Dead => (self.names.dead_stream(), self.names.all_dead(filter.queue.as_ref())),
            Place::Results => (self.names.results_stream(), kv_stores::subject(&self.names.results_bucket(), ">")),
            _ => (self.names.scheduled_stream(), kv_stores::subject(&self.names.scheduled_bucket(), ">")),
        };
        let page = self.streams.page(&stream, &subject, from, limit - items.len(), false).await.map_err(failed)?;
        let now = self.now("list").await?;
        for message in last_of_each(page.messages) {
            let sighting = match place {
                Place::Dead => Some(Sighting::Dead(self.read_dead_letter(message)?)),
                Place::Results if !is_live(&message, now) => None,
                Place::Results => {
                    let id = self.names.read_result(&message.subject);
                    id.map(|id| Sighting::Ended(stored_result(id, message)))
                }
                _ => {
                    let id = self.names.read_scheduled(&message.subject);
                    id.and_then(|id| Waiting::read(id, message)).map(|waiting| Sighting::Scheduled(waiting.entry))
                }
            };
            items.extend(sighting.filter(|sighting| matches(filter, sighting)));
        }
        Ok(page.next)
    }
}

/// Whether a sighting passes what its place does not select by itself.
fn matches(filter: &ListFilter, sighting: &Sighting) -> bool {
    match sighting {
        Sighting::Scheduled(entry) => {
            (filter.statuses.is_empty() || filter.statuses.contains(&entry.status))
                && filter.queue.as_ref().is_none_or(|queue| *queue == entry.address.queue)
        }
        // Results are JSON on every store; which queue a job was in stands nowhere else.
        Sighting::Ended(result) => filter
            .queue
            .as_ref()
            .is_none_or(|queue| JobResult::decode(&result.body).is_ok_and(|ended| ended.queue == *queue)),
        Sighting::Dead(_) | Sighting::Queued { .. } => true,
    }
}

/// Whether a place comes after another in the order of lists.
fn is_behind(place: &Place, other: &Place) -> bool {
    let rank = |place: &Place| match place {
        Place::Queue(name) => (0, Some(name.clone())),
        Place::Scheduled => (1, None),
        Place::Dead => (2, None),
        Place::Results => (3, None),
    };
    rank(place) > rank(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let queue = Place::Queue(QueueName::new("a-b_c").unwrap());
        for place in [queue, Place::Scheduled, Place::Dead, Place::Results] {
            assert_eq!(Place::read_cursor(&place.cursor(17)), Some((place, 17)));
        }
        for text in ["", "q", "q.a", "x..1", "q.a b.1", "s..x"] {
            assert_eq!(Place::read_cursor(text), None, "{text}");
        }
    }
}
