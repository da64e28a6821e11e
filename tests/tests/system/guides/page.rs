//! Does what a page says, block by block, as a reader would in one terminal, and tells what is not as the page says.
//!
//! Invariant: nothing started by a page outlives its check. All blocks become one bash script in a process group of its
//! own, whose last act is to end the group; if it does not come to that within [`LIMIT`], the group is killed. The
//! environment is made from nothing, so what a page does not set is not there. Rust blocks are left to rustdoc.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use naq_config::DEFAULT_CONFIG;
use naq_tests::{NatsServer, ServerVersion, Signal, naq_program, python_modules};
use rustix::process::{Pid, kill_process_group};
use serde_json::Value;
use tokio::process::Command;

use super::{
    expected,
    markdown::{Block, blocks},
};

/// For everything that one page does.
const LIMIT: Duration = Duration::from_secs(60);
/// What a page writes for the address of a server; a server of the test stands in for it.
const NATS_URL: &str = "nats://127.0.0.1:4222";
/// Sections of naq's configuration that the defaults do not have.
const FURTHER_SECTIONS: [&str; 3] = ["handlers", "schedules", "environments"];

/// Something that is not as the page says.
#[derive(Debug)]
pub(crate) struct Problem {
    /// The line of the block's fence.
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// Checks all blocks of a page but those in Rust. An error is a failure of the test, a [`Problem`] one of the page.
pub(crate) async fn problems(text: &str) -> Result<Vec<Problem>> {
    let mut blocks = blocks(text);
    let problems: Vec<Problem> = blocks.iter().filter_map(|block| problem(block, is_output(&blocks, block))).collect();
    if !problems.is_empty() {
        return Ok(problems);
    }
    let server = match blocks.iter().any(|block| !block.has("norun") && block.body.contains(NATS_URL)) {
        true => Some(NatsServer::start(ServerVersion::V2_15).await?),
        false => None,
    };
    if let Some(server) = &server {
        for block in &mut blocks {
            block.body = block.body.replace(NATS_URL, &server.url());
        }
    }
    run(&blocks).await
}

/// Whether the block is given to bash.
fn runs(block: &Block) -> bool {
    block.language == "sh" && !block.has("norun") && block.file_name().is_none()
}

/// Whether the block shows what the sh block right before it writes.
fn is_output(blocks: &[Block], block: &Block) -> bool {
    let before = blocks.iter().rfind(|other| other.line < block.line);
    let shows = ["text", "json"].contains(&block.language.as_str()) && block.file_name().is_none();
    shows && block.follows && before.is_some_and(runs)
}

/// What can be seen without running anything.
fn problem(block: &Block, is_output: bool) -> Option<Problem> {
    let problem = |what: String| Some(Problem { line: block.line, what });
    let parsed = match block.language.as_str() {
        "rust" if block.has("ignore") => return problem("`ignore` is not allowed".into()),
        _ if block.has("norun") || is_output => Ok(()),
        "yaml" => serde_saphyr::from_multiple::<Value>(body(block)).map(drop).map_err(|error| error.to_string()),
        "toml" => body(block).parse::<toml::Table>().map(drop).map_err(|error| error.to_string()),
        "json" => serde_json::from_str::<Value>(body(block)).map(drop).map_err(|error| error.to_string()),
        "jsonl" => {
            let lines = body(block).lines().try_for_each(|line| serde_json::from_str::<Value>(line).map(drop));
            lines.map_err(|error| error.to_string())
        }
        "rust" | "sh" | "python" | "text" => Ok(()),
        "" => return problem("a block needs a language; `text` if there is none".into()),
        language => return problem(format!("nothing here checks `{language}`; say `{language} norun`")),
    };
    parsed.err().and_then(problem)
}

fn body(block: &Block) -> &str {
    if block.file_name().is_some() { block.file_body() } else { &block.body }
}

/// Whether a YAML block is a configuration of naq, or a part of one.
fn is_configuration(yaml: &str) -> bool {
    let keys = |text: &str| -> Vec<String> {
        let key = |line: &str| line.split_once(':').map(|(key, _)| key.to_owned());
        let top = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase());
        text.lines().filter(top).filter_map(key).collect()
    };
    let sections = keys(DEFAULT_CONFIG);
    keys(yaml).iter().any(|key| sections.contains(key) || FURTHER_SECTIONS.contains(&key.as_str()))
}

/// What bash does for a block; `None` for one that is only shown.
fn step(block: &Block, at: &str) -> Option<String> {
    let mut step = String::new();
    if let Some(name) = block.file_name() {
        writeln!(step, "mkdir -p \"$(dirname {name})\"; cp {at} {name}").expect("writing to a string cannot fail");
    }
    let check = match block.language.as_str() {
        "sh" if runs(block) => Some(format!("source {at}")),
        "sh" => Some(format!("bash -n {at}")),
        _ if block.has("norun") => None,
        "yaml" if is_configuration(body(block)) => Some(format!("naq system config --validate --config {at}")),
        "python" => Some(format!("python3 -c 'compile(open(\"{at}\").read(), \"{at}\", \"exec\")'")),
        _ => None,
    };
    step += &check.unwrap_or_default();
    (!step.is_empty()).then_some(step)
}

/// Runs what the blocks say and compares what is shown with what was written.
async fn run(blocks: &[Block]) -> Result<Vec<Problem>> {
    let dir = tempfile::Builder::new().prefix("naq-page-").tempdir()?;
    let notes = tempfile::Builder::new().prefix("naq-page-notes-").tempdir()?;
    let note = |line: usize, kind: &str| notes.path().join(format!("{line}.{kind}"));
    // A page that fails ends its processes too, and bash lives until they are gone: its id stays that of the group.
    let mut script = "trap 'trap \"\" TERM; kill -TERM 0; wait' EXIT\n".to_owned();
    let mut steps = Vec::new();
    for block in blocks {
        let at = note(block.line, if block.language == "yaml" { "yaml" } else { "block" });
        if let Some(step) = step(block, &at.to_string_lossy()) {
            fs::write(at, body(block))?;
            let (out, err) = (note(block.line, "out"), note(block.line, "err"));
            writeln!(script, "exec >{} 2>{}\n{step}", out.display(), err.display())?;
            // What programs in the background write later is not what the block shows.
            writeln!(script, "cp {out} {out}.shown; cp {err} {err}.shown", out = out.display(), err = err.display())?;
            steps.push(block.line);
        }
    }
    let ended = notes.path().join("ended");
    writeln!(script, "exec >/dev/null 2>&1\ntouch {}", ended.display())?;
    let in_time = run_script(&script, notes.path(), dir.path(), &environment(blocks, dir.path())?).await?;

    let read = |line, kind| fs::read_to_string(note(line, kind)).unwrap_or_default();
    if !ended.exists() {
        let line = *steps.iter().rfind(|line| note(**line, "out").exists()).context("bash began nothing")?;
        let how = if in_time { "failed" } else { "did not end in time" };
        let what = format!("{how}; it wrote\n{}{}", read(line, "out"), read(line, "err"));
        return Ok(vec![Problem { line, what }]);
    }
    let differs = |block: &Block| {
        let before = blocks.iter().rfind(|other| other.line < block.line).filter(|_| is_output(blocks, block))?;
        let (out, err) = (read(before.line, "out.shown"), read(before.line, "err.shown"));
        let as_shown = expected::matches(&block.body, &out) || expected::matches(&block.body, &format!("{err}{out}"));
        let what = format!("what is shown is not what was written:\n{out}and on stderr:\n{err}");
        (!as_shown).then_some(Problem { line: block.line, what })
    };
    Ok(blocks.iter().filter_map(differs).collect())
}

fn environment(blocks: &[Block], dir: &Path) -> Result<BTreeMap<&'static str, PathBuf>> {
    let naq = naq_program()?;
    let naq = naq.parent().context("the binary under test has no folder")?;
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", naq.display());
    let folders = [("HOME", dir.to_owned()), ("XDG_STATE_HOME", dir.join(".local/state")), ("PATH", path.into())];
    let mut environment = BTreeMap::from(folders);
    if blocks.iter().any(|block| block.body.contains("import nats")) {
        environment.insert("PYTHONPATH", python_modules()?);
    }
    Ok(environment)
}

/// Runs a script in a process group of its own; false if it was killed because [`LIMIT`] had passed.
async fn run_script(script: &str, notes: &Path, dir: &Path, environment: &BTreeMap<&str, PathBuf>) -> Result<bool> {
    let path = notes.join("page.sh");
    fs::write(&path, script)?;
    let mut bash = Command::new("bash")
        .args(["-eu".as_ref(), path.as_os_str()])
        .current_dir(dir)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(notes.join("bash.err"))?)
        .process_group(0)
        .spawn()
        .context("cannot start bash")?;
    let group = bash.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("bash has no pid")?;
    if let Ok(status) = tokio::time::timeout(LIMIT, bash.wait()).await {
        status.context("cannot wait for bash")?;
        return Ok(true);
    }
    kill_process_group(group, Signal::KILL).context("cannot kill the page's processes")?;
    bash.wait().await.context("cannot wait for bash")?;
    Ok(false)
}
