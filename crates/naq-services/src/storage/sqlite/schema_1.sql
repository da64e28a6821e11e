-- One row. `revision` numbers everything that is changed by compare-and-set, and claims; `kv_revision` is the last
-- revision that touched `kv`, so that a watcher in another process sees at one glance whether it has to look.
CREATE TABLE meta (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    revision INTEGER NOT NULL,
    kv_revision INTEGER NOT NULL
) STRICT;
INSERT INTO meta VALUES (1, 0, 0);

-- Every queue that ever held a job. The bound is that of ready.key.
CREATE TABLE queues (
    queue INTEGER PRIMARY KEY CHECK (queue < 131072),
    name TEXT NOT NULL UNIQUE
) STRICT;

-- status: 0 scheduled, 1 waiting, 2 queued (ready or leased), 4 retry.
-- lost: deliveries that ended with their lease, and not with a settlement or a hand-back.
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    queue INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    status INTEGER NOT NULL,
    run INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    run_at INTEGER,
    stored_at INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX jobs_waiting ON jobs (queue, status) WHERE status <> 2;
CREATE INDEX jobs_dependent ON jobs (revision) WHERE status = 1;
CREATE INDEX jobs_due ON jobs (run_at) WHERE status IN (0, 4);

-- Queued jobs that may be claimed. key = (queue * 4 + priority) << 44 | seq: a lane is a range of keys in its order, and
-- a claim takes its beginning without touching the rows of jobs.
CREATE TABLE ready (
    key INTEGER PRIMARY KEY
) STRICT;

-- Queued jobs that are claimed. token is the number of the claim; lease_until counts from boot.
CREATE TABLE leases (
    seq INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL,
    token INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    claimed_at INTEGER NOT NULL,
    worker TEXT NOT NULL
) STRICT;

-- status: 5 completed, 6 failed, 7 cancelled.
CREATE TABLE results (
    revision INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    queue INTEGER NOT NULL,
    status INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX results_expiry ON results (expires_at);

CREATE TABLE dead (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    queue INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    kind TEXT,
    error TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX dead_queue ON dead (queue);

-- boot is set where expires_at counts from boot (locks, workers) and not from 1970.
CREATE TABLE kv (
    bucket INTEGER NOT NULL,
    key TEXT NOT NULL,
    revision INTEGER NOT NULL,
    expires_at INTEGER,
    boot INTEGER,
    value BLOB NOT NULL,
    PRIMARY KEY (bucket, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX kv_expiry ON kv (expires_at) WHERE expires_at IS NOT NULL;
