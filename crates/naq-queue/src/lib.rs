//! The producer side of naq: queues, enqueueing, job handles
