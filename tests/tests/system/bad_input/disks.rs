//! Files and disks that cannot hold a store.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{Finished, NaqBinary, NatsOptions, ServerVersion, free_port, naq_program, nats_program};
use serde_json::{Value, json};

use super::{assert_no_panic, assert_refused};
use crate::site::{Backend, COMMAND_LIMIT, Site, envelope, on_every_server};

/// Jobs that need far more room than the small disks here have.
fn too_much(site: &Site) -> Result<std::path::PathBuf> {
    let path = site.path("too-much.jsonl");
    let padding = "x".repeat(10_000);
    let line = |n: usize| format!("{}\n", envelope(format!("job-{n}"), "naq.echo", json!({"text": padding})));
    fs::write(&path, (0..1_000).map(line).collect::<String>())?;
    Ok(path)
}

#[tokio::test]
async fn a_text_file_is_not_a_store() -> Result<()> {
    let site = Site::start(Backend::Sqlite).await?;
    let text = "Dear diary,\ntoday I was opened as a database.\n".repeat(100);
    fs::write(site.path("jobs.db"), &text)?;
    for args in [&["job", "enqueue", "naq.echo"][..], &["queue", "list"], &["worker", "start", "--burst"]] {
        assert_refused(&site.run(args).await?, 1, &["jobs.db"]);
        assert_eq!(fs::read_to_string(site.path("jobs.db"))?, text, "somebody's file was changed");
    }
    Ok(())
}

#[tokio::test]
async fn another_programs_database_and_a_newer_store_are_left_alone() -> Result<()> {
    let site = Site::start(Backend::Sqlite).await?;
    let make = "
import sqlite3
db = sqlite3.connect('jobs.db')
db.execute('CREATE TABLE jobs (title TEXT)')
db.commit()";
    crate::python::run(site.dir(), make, &[]).await?;
    let before = fs::read(site.path("jobs.db"))?;
    assert_refused(&site.run(&["job", "enqueue", "naq.echo"]).await?, 1, &["jobs.db"]);
    ensure!(fs::read(site.path("jobs.db"))? == before, "another program's database was changed");

    let site = Site::start(Backend::Sqlite).await?;
    site.enqueue("naq.echo", &json!({}), &[]).await?;
    let age = "
import sqlite3
db = sqlite3.connect('jobs.db')
db.execute('PRAGMA user_version = 1000')
db.commit()";
    crate::python::run(site.dir(), age, &[]).await?;
    assert_refused(&site.run(&["queue", "list"]).await?, 1, &["newer"]);
    Ok(())
}

#[tokio::test]
async fn a_path_that_cannot_be_is_refused() -> Result<()> {
    let mut site = Site::start(Backend::Sqlite).await?;
    fs::create_dir(site.path("folder.db"))?;
    fs::write(site.path("file"), "")?;
    for (path, code) in [("folder.db", 1), ("file/below.db", 4)] {
        site.url = format!("sqlite://{}", site.path(path).display());
        assert_refused(&site.run(&["job", "enqueue", "naq.echo"]).await?, code, &[path]);
    }
    site.url = "sqlite://".to_owned();
    assert_refused(&site.run(&["job", "enqueue", "naq.echo"]).await?, 2, &[]);
    Ok(())
}

/// A program and its arguments that run the binary under test without the rights of root, which no file can refuse.
fn unprivileged(site: &Site) -> Result<(NaqBinary, Vec<String>)> {
    // The target folder may be one that only root can read.
    let copy = site.path("naq");
    fs::copy(naq_program()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    if !rustix::process::getuid().is_root() {
        return Ok((NaqBinary::at(copy, site.dir()), Vec::new()));
    }
    let words = ["--reuid=65534", "--regid=65534", "--clear-groups", "--", &copy.to_string_lossy()];
    Ok((NaqBinary::at("/usr/bin/setpriv".into(), site.dir()), words.map(str::to_owned).into()))
}

#[tokio::test]
async fn a_read_only_file_is_named() -> Result<()> {
    let site = Site::start(Backend::Sqlite).await?;
    site.enqueue("naq.echo", &json!({}), &["--job-id", "kept"]).await?;
    let (program, words) = unprivileged(&site)?;
    let program = program.env("NAQ_URL", &site.url);
    let run = async |args: &[&str]| {
        let args: Vec<&str> = words.iter().map(String::as_str).chain(args.iter().copied()).collect();
        program.run(&args, COMMAND_LIMIT).await
    };
    for name in fs::read_dir(site.dir())? {
        let path = name?.path();
        if path.is_file() && path != site.path("naq") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444))?;
        }
    }
    fs::set_permissions(site.dir(), fs::Permissions::from_mode(0o555))?;
    let version = run(&["system", "version"]).await?;
    ensure!(version.code() == Some(0), "the program does not start at all here: {version:#?}");
    let refused = run(&["job", "enqueue", "naq.echo"]).await;
    fs::set_permissions(site.dir(), fs::Permissions::from_mode(0o755))?;
    assert_refused(&refused?, 1, &["jobs.db"]);
    assert_eq!(site.json(&["job", "status", "kept"]).await?["status"], "pending");
    Ok(())
}

/// Runs a shell script that has a file system of its own at `disk`, so many MiB large, and whose processes end with it. `None` where
/// that is not allowed.
#[expect(clippy::print_stderr, reason = "whoever reads the test's output has to know what was not tested")]
async fn on_small_disk(site: &Site, disk: &Path, size: u32, script: &str) -> Result<Option<Finished>> {
    const ALONE: [&str; 2] = ["-rmpf", "--kill-child"];
    let unshare = NaqBinary::at("/usr/bin/unshare".into(), site.dir()).env("NAQ_URL", &site.url);
    let allowed = unshare.run(&[&ALONE[..], &["true"]].concat(), COMMAND_LIMIT).await;
    if !allowed.is_ok_and(|finished| finished.code() == Some(0)) {
        eprintln!("SKIPPED: this machine does not allow a user namespace, so no small disk can be mounted");
        return Ok(None);
    }
    fs::create_dir(disk)?;
    let script = format!("mount -t tmpfs -o size={size}m none '{}' || exit 99\n{script}", disk.display());
    Ok(Some(unshare.run(&[&ALONE[..], &["sh", "-c", &script]].concat(), COMMAND_LIMIT * 3).await?))
}

#[tokio::test]
async fn a_full_disk_is_said_and_loses_nothing() -> Result<()> {
    let mut site = Site::start(Backend::Sqlite).await?;
    let (disk, jobs) = (site.path("disk"), too_much(&site)?);
    site.url = format!("sqlite://{}", disk.join("jobs.db").display());
    let naq = naq_program()?;
    let script = format!(
        "'{naq}' job enqueue --from '{jobs}' --output json >report.json; echo $? >code
        '{naq}' queue stats default --output json >numbers.json",
        naq = naq.display(),
        jobs = jobs.display()
    );
    let Some(finished) = on_small_disk(&site, &disk, 2, &script).await? else { return Ok(()) };
    assert_eq!(finished.code(), Some(0), "{finished:#?}");
    assert_no_panic(&finished);
    assert_eq!(fs::read_to_string(site.path("code"))?.trim(), "1");
    assert!(finished.stderr.to_lowercase().contains("full"), "{}", finished.stderr);
    let read = |name: &str| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(site.path(name))?)?) };
    let (report, numbers) = (read("report.json")?, read("numbers.json")?);
    assert_eq!(report["enqueued"], numbers["pending"], "what was acknowledged is not what is there");
    assert_eq!(
        report["enqueued"].as_u64().context("a number")? + report["failed"].as_u64().context("a number")?,
        1_000
    );
    assert!(report["failed"].as_u64() > Some(0), "it was not full: {report}");
    Ok(())
}

on_every_server!(a_full_server_is_said_and_loses_nothing);

async fn a_full_server_is_said_and_loses_nothing(version: ServerVersion) -> Result<()> {
    let options = NatsOptions { max_file_store: Some(4 << 20), ..NatsOptions::default() };
    let site = Site::on_server(version, options).await?;
    let jobs = too_much(&site)?;
    let args = ["job", "enqueue", "--from", &jobs.to_string_lossy(), "--output", "json"];
    let finished = site.naq()?.run(&args, COMMAND_LIMIT * 2).await?;
    assert_refused(&finished, 1, &["line", "resources"]);
    let (report, numbers) = (finished.json()?, site.queue("default").await?);
    assert_eq!(report["enqueued"], numbers["pending"], "what was acknowledged is not what is there");
    assert!(report["failed"].as_u64() > Some(0), "it was not full: {report}");
    Ok(())
}

on_every_server!(a_full_disk_of_a_server_loses_nothing_that_was_acknowledged);

/// A server that could not write once answers no write any more until it is restarted, however much room there is.
async fn a_full_disk_of_a_server_loses_nothing_that_was_acknowledged(version: ServerVersion) -> Result<()> {
    let mut site = Site::start(Backend::Sqlite).await?;
    let (disk, jobs, port) = (site.path("disk"), too_much(&site)?, free_port()?);
    site.url = format!("nats://127.0.0.1:{port}");
    let limit = 1_u64 << 40;
    let config = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {disk:?}, max_file_store: {limit} }}\n",
        disk = disk.display()
    );
    fs::write(site.path("server.conf"), config)?;
    let script = format!(
        "serve() {{
            '{server}' -c server.conf -l server.log & server=$!
            until '{naq}' queue list >listed.txt 2>&1; do sleep 0.1; done
        }}
        serve
        '{naq}' job enqueue --from '{jobs}' --output json >report.json 2>errors.txt; echo $? >code
        mount -o remount,size=100m '{disk}'
        '{naq}' job enqueue naq.noop; echo $? >code-with-room
        kill -9 $server
        serve
        '{naq}' worker start --burst
        '{naq}' queue stats default --output json >numbers.json
        '{naq}' job list --status completed --limit 10000 --output json >completed.json",
        server = nats_program(version)?.display(),
        naq = naq_program()?.display(),
        jobs = jobs.display(),
        disk = disk.display(),
    );
    let Some(finished) = on_small_disk(&site, &disk, 8, &script).await? else { return Ok(()) };
    assert_eq!(finished.code(), Some(0), "{finished:#?}");
    let read = |name: &str| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(site.path(name))?)?) };
    let (report, numbers, completed) = (read("report.json")?, read("numbers.json")?, read("completed.json")?);
    let errors = fs::read_to_string(site.path("errors.txt"))?;
    assert_eq!(fs::read_to_string(site.path("code"))?.trim(), "1");
    ensure!(errors.contains("no answer"), "{errors}");
    assert_eq!(fs::read_to_string(site.path("code-with-room"))?.trim(), "5", "the pages say that it answers no more");
    ensure!(report["failed"].as_u64() > Some(0), "it was not full: {report}");
    ensure!(numbers["pending"] == 0 && numbers["failed"] == 0, "{numbers}");
    let done = completed.as_array().map_or(0, Vec::len) as u64;
    // What got no answer may be there or not.
    ensure!(Some(done) >= report["enqueued"].as_u64(), "{done} of {report}");
    Ok(())
}
