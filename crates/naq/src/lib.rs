//! naq: a background job queue on one SQLite file or a NATS JetStream cluster
