//! Other programs that use a SQLite file of naq's.
//!
//! In Python, because only naq-services may name a SQLite library.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

/// Such as a backup.
const LOCK: &str = "import sqlite3, sys, time\n\
    file = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n\
    file.execute('BEGIN IMMEDIATE')\n\
    time.sleep(float(sys.argv[2]))\n\
    file.execute('ROLLBACK')\n";

/// In front of a queue, behind it, and due in no queue. (What is due in a queue stays there, and is counted.)
const INTRUDE: &str = "import sqlite3, sys\n\
    file = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n\
    file.execute('BEGIN IMMEDIATE')\n\
    (low, high) = file.execute('SELECT ifnull(min(seq), 1), ifnull(max(seq), 1) FROM jobs').fetchone()\n\
    for seq, queue, status in (low - 1, 1, 2), (high + 1, 1, 2), (high + 2, 999, 4):\n\
    \x20   name = f'{sys.argv[2]} {seq}'\n\
    \x20   row = (seq, name, queue, 2, status, 1, 0, 0, 5 if status != 2 else None, 0, 0, b'x')\n\
    \x20   file.execute('INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)', row)\n\
    \x20   if status == 2 and seq > 0:\n\
    \x20       file.execute('INSERT INTO ready VALUES (?)', ((queue * 4 + 2 << 44) | seq,))\n\
    file.execute('COMMIT')\n";

/// Locks a file for so long; returns when it is free again.
pub async fn lock_file(file: &Path, time: Duration) -> Result<()> {
    run(LOCK, file, &time.as_secs_f64().to_string()).await
}

/// Writes rows to the first queue of a file and to what waits there, with names that are no ids and begin so.
pub async fn write_foreign_rows(file: &Path, name: &str) -> Result<()> {
    run(INTRUDE, file, name).await
}

async fn run(script: &str, file: &Path, argument: &str) -> Result<()> {
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(file).arg(argument);
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).status().await.context("cannot start python3")?;
    ensure!(ended.success(), "a program that uses {} failed: {ended}", file.display());
    Ok(())
}
