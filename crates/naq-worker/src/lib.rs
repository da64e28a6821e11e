//! The consumer side of naq: workers, handlers, leases, the scheduler loop
