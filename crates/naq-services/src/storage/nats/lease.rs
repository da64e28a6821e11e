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

/// The queue and priority that a lease's delivery came from; its token is the subject that answers the delivery.
pub(super) fn lane(lease: &Lease, names: &Names) -> Option<(QueueName, Priority)> {
    let (stream, consumer) = Delivery::origin(&lease.token)?;
    let priority = Priority::ALL.into_iter().find(|priority| Names::lane_consumer(*priority) == consumer)?;
    Some((names.queue_of_stream(stream)?, priority))
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
        let last = confirmed.get(&lease.token).map_or(Duration::ZERO, |(at, _)| *at).max(lease.since);
        uptime() < last + lease.duration
    }
}

#[cfg(test)]
mod tests {
    use naq_models::JobId;

    use super::*;

    fn lease(token: &str, since: Duration, duration: Duration) -> Lease {
        Lease { id: JobId::new("x").unwrap(), token: token.into(), since, duration }
    }

    #[test]
    fn a_lease_holds_from_its_delivery_or_last_confirmation() {
        let names = Names::new("naq").unwrap();
        let confirmations = Confirmations::default();
        let (minute, now) = (Duration::from_secs(60), uptime());
        let reply = "$JS.ACK.naq_queue_mail.p2.2.30.40.1700000000123456789.5";
        let fresh = lease(reply, now, minute);
        assert_eq!(lane(&fresh, &names), Some((QueueName::new("mail").unwrap(), Priority::default())));
        assert!(confirmations.holds(&fresh));
        let old = lease("of another delivery", Duration::ZERO, Duration::from_millis(1));
        assert!(!confirmations.holds(&old));
        confirmations.confirm([&old].into_iter(), now + minute);
        assert!(confirmations.holds(&old));
    }
}
