//! The storage seam of naq, its NATS and SQLite implementations, and the services above it
