//! What the measurements ran on, as far as Linux says it.
//!
//! Invariant: names hardware, never a host, a user or a date, so that a page with it can be compared and published.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::output;

pub(super) struct Machine {
    processor: String,
    cores: usize,
    memory_gib: u64,
    file_system: String,
    system: String,
}

impl Machine {
    /// `folder` is on the disk that is measured.
    pub(super) fn look(folder: &Path) -> Self {
        let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let kib = field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()));
        let said = |command: &mut Command| output(command).map(|text| text.trim().to_owned()).ok();
        Self {
            processor,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib.unwrap_or(0).div_ceil(1 << 20),
            file_system: said(Command::new("stat").args(["--file-system", "--format=%T"]).arg(folder))
                .unwrap_or_else(|| "unknown file system".into()),
            system: said(Command::new("uname").args(["-s", "-r"])).unwrap_or_else(|| std::env::consts::OS.into()),
        }
    }

    pub(super) fn line(&self) -> String {
        let Self { processor, cores, memory_gib, file_system, system } = self;
        format!("{processor}, {cores} cores, {memory_gib} GiB, {file_system}, {system}")
    }
}

/// The first value of a `name : value` line.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let (_, value) =
        text.lines().filter_map(|line| line.split_once(':')).find(|(found, _)| found.trim() == name)?;
    Some(value.trim().to_owned())
}
