-- Batches of events. seq counts them and is never given twice. jobs are the fingerprints of the jobs in
-- the batch, 4 bytes each, little endian; they stand before body, so that looking for a job does not touch bodies. upto
-- counts the bytes of all bodies up to this one, so that two rows tell the size of what is between them.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    upto INTEGER NOT NULL,
    jobs BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX events_time ON events (last_at);
