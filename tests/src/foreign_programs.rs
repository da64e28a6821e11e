//! Another program that keeps everybody from writing to a SQLite file, such as a backup.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

/// In Python, because only naq-services may name a SQLite library.
const LOCK: &str = "import sqlite3, sys, time\n\
    file = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n\
    file.execute('BEGIN IMMEDIATE')\n\
    time.sleep(float(sys.argv[2]))\n\
    file.execute('ROLLBACK')\n";

/// Locks a file for so long; returns when it is free again.
pub async fn lock_file(file: &Path, time: Duration) -> Result<()> {
    let mut command = Command::new("python3");
    command.args(["-c", LOCK]).arg(file).arg(time.as_secs_f64().to_string());
    let locked = command.stdin(Stdio::null()).kill_on_drop(true).status().await.context("cannot start python3")?;
    ensure!(locked.success(), "{} could not be locked: {locked}", file.display());
    Ok(())
}
