//! What processes under test are configured with.

use std::time::Duration;

/// How long a job stays with a worker that is silent.
pub const LEASE: Duration = Duration::from_secs(2);

/// Short leases, locks and beats, so that what is late is so within seconds.
pub fn short_times() -> Vec<(String, String)> {
    let times = [
        ("NAQ_QUEUES__ACK_WAIT", format!("{}s", LEASE.as_secs())),
        ("NAQ_SCHEDULER__LOCK_TTL", "2s".to_owned()),
        ("NAQ_SCHEDULER__LOCK_RENEW_INTERVAL", "500ms".to_owned()),
        ("NAQ_WORKERS__HEARTBEAT_INTERVAL", "500ms".to_owned()),
        ("NAQ_WORKERS__TTL", "2s".to_owned()),
        ("NAQ_RESULTS__CLEANUP_INTERVAL", "1s".to_owned()),
        ("NAQ_NATS__RECONNECT_TIME_WAIT", "100ms".to_owned()),
    ];
    times.map(|(name, value)| (name.to_owned(), value)).into()
}
