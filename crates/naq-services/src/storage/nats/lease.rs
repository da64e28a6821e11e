//! Leases as this store knows them: the subject that answers a delivery, and since when the claim is certain.
//!
//! Invariant: a lease that was not confirmed for its length is lost, whether or not anybody took the job: the server
//! answers extensions and hand-backs of a claim that another worker has as if they were that worker's. So the time is
//! kept here, on a clock that counts suspension, and what is lost is never told to the server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use naq_models::{Priority, QueueName};

use super::names::Names;
use crate::{
    storage::{Lease, uptime},
    streams::Delivery,
};

/// Between the subject and the time of a token.
const MARK: char = '@';

/// What a lease's token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// Where to answer the delivery.
    pub(super) reply: &'a str,
    /// When it can have been delivered at the earliest, on the clock of [`uptime`].
    since: Duration,
}

impl<'a> Token<'a> {
    pub(super) fn write(reply: &str, since: Duration) -> Arc<str> {
        let mut token = String::with_capacity(reply.len() + 16);
        token.push_str(reply);
        token.push(MARK);
        token.push_str(&since.as_millis().to_string());
        token.into()
    }

    /// Reads a token; one that is not ours is taken for a subject, and for lost.
    pub(super) fn read(lease: &'a Lease) -> Self {
        let parts = lease.token.rsplit_once(MARK);
        let read = parts.and_then(|(reply, since)| Some((reply, since.parse().ok()?)));
        match read {
            Some((reply, since)) => Self { reply, since: Duration::from_millis(since) },
            None => Self { reply: &lease.token, since: Duration::ZERO },
        }
    }

    pub(super) fn delivery(self) -> Option<Delivery> {
        Delivery::parse(self.reply)
    }

    /// The queue and priority that the delivery came from.
    pub(super) fn lane(self, names: &Names) -> Option<(QueueName, Priority)> {
        let (stream, consumer) = Delivery::origin(self.reply)?;
        let priority = Priority::ALL.into_iter().find(|priority| Names::lane_consumer(*priority) == consumer)?;
        Some((names.queue_of_stream(stream)?, priority))
    }
}

/// When leases were last confirmed, by whichever heartbeat of this store.
#[derive(Debug, Default)]
pub(super) struct Confirmations {
    confirmed: Mutex<HashMap<Arc<str>, (Duration, Duration)>>,
}

impl Confirmations {
    /// Notes that these leases were extended by a request that was sent at `sent`; forgets what is lost.
    pub(super) fn confirm<'a>(&self, leases: impl Iterator<Item = &'a Lease>, sent: Duration) {
        let now = uptime();
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.retain(|_, (at, duration)| now < *at + *duration);
        for lease in leases {
            confirmed.insert(Arc::clone(&lease.token), (sent, lease.duration));
        }
    }

    /// Whether a lease is certain to be this worker's still.
    pub(super) fn holds(&self, lease: &Lease) -> bool {
        let confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        let last = confirmed.get(&lease.token).map_or(Duration::ZERO, |(at, _)| *at).max(Token::read(lease).since);
        uptime() < last + lease.duration
    }
}

#[cfg(test)]
mod tests {
    use naq_models::JobId;

    use super::*;

    fn lease(token: Arc<str>, duration: Duration) -> Lease {
        Lease { id: JobId::new("x").unwrap(), token, duration }
    }

    #[test]
    fn a_lease_holds_from_its_delivery_or_last_confirmation() {
        let names = Names::new("naq").unwrap();
        let confirmations = Confirmations::default();
        let (minute, now) = (Duration::from_secs(60), uptime());
        let reply = "$JS.ACK.naq_queue_mail.p2.2.30.40.1700000000123456789.5";
        let fresh = lease(Token::write(reply, now), minute);
        assert_eq!(Token::read(&fresh).reply, reply);
        assert_eq!(Token::read(&fresh).lane(&names), Some((QueueName::new("mail").unwrap(), Priority::default())));
        assert!(confirmations.holds(&fresh));
        let old = lease(Token::write(reply, Duration::ZERO), Duration::from_millis(1));
        assert!(!confirmations.holds(&old));
        confirmations.confirm([&old].into_iter(), now + minute);
        assert!(confirmations.holds(&old));
    }
}
