//! Every example, run as a program: what it prints is what the comment at its end says.
//!
//! Invariant: each file of `examples/` is listed here and says what it prints. Cargo builds the examples when it builds
//! all tests of the package; this only runs them.
#![expect(clippy::unwrap_used, reason = "a test helper that fails is a failed test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

const PRINTS: &str = "\n// Prints:\n";

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// What the end of an example's source says it prints.
fn promised(name: &str) -> String {
    let source = fs::read_to_string(sources().join(name).with_extension("rs")).unwrap();
    let (_, block) = source.split_once(PRINTS).unwrap_or_else(|| panic!("{name} does not end with `// Prints:`"));
    let line =
        |line: &str| line.strip_prefix("//").map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned() + "\n");
    let lines: Option<String> = block.lines().map(line).collect();
    let lines = lines.unwrap_or_else(|| panic!("in {name}, what follows `// Prints:` is not a comment to the end"));
    assert!(!lines.is_empty(), "{name} prints nothing");
    lines
}

/// The example, to be run in an empty folder that is its home, with no variable of this process.
fn example(name: &str, home: &TempDir) -> Command {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is not built; `cargo build -p naq --examples --all-features`", program.display());
    let mut command = Command::new(program);
    command.current_dir(home.path()).env_clear().env("HOME", home.path());
    command
}

/// Runs to the end and gives what was printed.
fn printed(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn check(name: &str) {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(printed(example(name, &home)), promised(name), "what {name} prints is not what it says");
}

macro_rules! examples {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )+

        const LISTED: &[&str] = &[$(stringify!($name)),+];
    };
}

examples! {
    blocking_handler
    blocking_producer
    bulk_enqueue
    cancellation
    child_jobs
    dead_letters
    delayed
    dependencies
    events
    graceful_shutdown
    logging
    metrics
    old_names
    outcomes
    patterns
    priorities
    progress
    quickstart
    recurring
    retries
    shared_state
    test_kit
    typed_arguments
    unique
}

/// Examples that are run with arguments, each by a test of its own.
const WITH_ARGUMENTS: &[&str] = &["own_binary"];

#[test]
fn every_example_is_listed_here_and_in_the_readme() {
    let files = fs::read_dir(sources()).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let found: BTreeSet<String> = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let listed = LISTED.iter().chain(WITH_ARGUMENTS).map(ToString::to_string).collect();
    assert_eq!(found, listed);

    let readme = fs::read_to_string(sources().join("README.md")).unwrap();
    for name in found {
        assert!(readme.contains(&format!("[{name}]({name}.rs)")), "{name} is missing in the README");
        assert!(!promised(&name).is_empty());
    }
}

/// Ended with the test, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

#[test]
fn own_binary() {
    let home = tempfile::tempdir().unwrap();
    let with = |arguments: &[&str]| {
        let mut command = example("own_binary", &home);
        command.env("NAQ_URL", "sqlite:own_binary.db").args(arguments);
        command
    };
    let _worker = Running(with(&["worker", "start"]).stderr(Stdio::null()).spawn().unwrap());
    let greeted =
        printed(with(&["job", "enqueue", "greet", "--args", "[\"Ada\"]", "--job-id", "ada", "--wait", "30s"]));
    assert_eq!(greeted, promised("own_binary"));
}
