//! `naq demo`: count the words of every text file below a directory, one job a file.
//!
//! Invariant: the real path and nothing else. A store in a file, a worker and a producer in one process; each count
//! comes out of a stored result. Files are read as they are; what is not UTF-8 text is left out and counted as such.

use std::{
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use naq_config::StoreUrl;
use naq_models::QueueName;
use naq_services::{JobHandle, JobService, NewJob, ServiceManager};
use naq_worker::{Shutdown, Worker};
use serde::{Deserialize, Serialize};

use crate::{
    args::DemoArgs,
    error::{CliError, with_sources},
    output::{Output, note, table},
    session::Session,
};

/// Directories that hold no text a person wrote.
const SKIPPED_DIRS: [&str; 3] = [".git", "target", "node_modules"];
/// Larger files are left out: a text is rarely larger, and a demo should end.
const MAX_FILE: u64 = 8 * 1024 * 1024;
/// The most files that one demo counts.
const MAX_FILES: usize = 100_000;
/// With at most so many files each one's count is shown.
const SHOW_ALL: usize = 20;

/// The handler's name.
const KIND: &str = "demo.count_words";
/// Results that are awaited at once.
const AWAITED: usize = 64;
/// How long one file may take, from enqueue to result.
const PATIENCE: Duration = Duration::from_secs(600);

/// `naq demo`.
pub(crate) async fn run(session: &Session, args: DemoArgs) -> Result<(), CliError> {
    let root = args.dir.unwrap_or_else(|| PathBuf::from("."));
    let fail = |e: io::Error| CliError::usage(format!("cannot read the directory {}: {e}", root.display()));
    let files = files_below(&root).map_err(fail)?;
    if files.is_empty() {
        return Err(CliError::not_found(format!("no files below {}", root.display())));
    }
    let dir = std::env::temp_dir().join(format!("naq-demo-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|e| CliError::failed(format!("cannot create {}: {e}", dir.display())))?;
    let store = StoreUrl::Sqlite { path: dir.join("jobs.db") };
    let services = ServiceManager::new(Arc::new(session.config().clone()), store.clone());
    let summary = count(&services, files, args.concurrency as usize, store.to_string()).await;
    services.close().await;
    show(session.output(), &summary?)
}

/// Runs worker and producer side by side.
async fn count(
    services: &ServiceManager,
    files: Vec<PathBuf>,
    concurrency: usize,
    store: String,
) -> Result<Summary, CliError> {
    let jobs = services.jobs().await?;
    let worker = Worker::of(services)
        .await?
        .queue(QueueName::default())
        .concurrency(concurrency)
        .blocking_handler(KIND, count_words)
        .build()
        .map_err(|e| CliError::failed(e.to_string()))?;
    let shutdown = Shutdown::new();
    let _signals = naq_worker::signals::listen(shutdown.clone())
        .map_err(|e| CliError::failed(format!("cannot listen for signals: {e}")))?;
    let producer = async {
        let summary = tokio::select! {
            summary = produce(&jobs, files, store) => summary,
            () = shutdown.requested() => Err(CliError::failed("stopped before every file was counted")),
        };
        shutdown.request();
        summary
    };
    let (worked, summary) = tokio::join!(worker.run(shutdown.clone()), producer);
    worked.map_err(|e| CliError::failed(with_sources(&e)))?;
    summary
}

async fn produce(jobs: &JobService, files: Vec<PathBuf>, store: String) -> Result<Summary, CliError> {
    let bar = bar(files.len());
    let began = Instant::now();
    let asked = files.iter().map(|path| NewJob::new(KIND, CountWords { path: path.clone() })).collect();
    let mut handles = Vec::with_capacity(files.len());
    for receipt in jobs.enqueue_many(asked).await {
        handles.push(JobHandle::<Count>::new(jobs.clone(), receipt?.job_id));
    }
    let mut results = stream::iter(handles)
        .map(|handle| async move { handle.result_within(PATIENCE).await })
        .buffer_unordered(AWAITED);
    let (mut counts, mut failed) = (Vec::new(), 0);
    while let Some(result) = results.next().await {
        match result {
            Ok(count) => counts.push(count),
            Err(error) => {
                failed += 1;
                bar.suspend(|| note(&with_sources(&error)));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(summarize(counts, failed, began.elapsed(), store))
}

fn bar(jobs: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files {per_sec}").expect("a fixed template");
    ProgressBar::new(jobs as u64).with_style(style)
}

fn show(out: Output, summary: &Summary) -> Result<(), CliError> {
    out.one(summary, || {
        let rows = summary
            .counts
            .iter()
            .map(|count| [count.words.unwrap_or_default().to_string(), count.path.display().to_string()]);
        let Summary { files, not_text, failed, words, seconds, jobs_per_second, store, .. } = summary;
        let which = if *files > SHOW_ALL { "\nthe ten largest of " } else { "\n" };
        format!(
            "{}\n{which}{files} text files: {words} words ({not_text} files were not text, {failed} failed)\n\
             {:.0} jobs in {seconds:.2} s: {jobs_per_second:.0} jobs/s, every result stored and read back\n\
             store: {store} (look: naq job list --url {store})",
            table(["words", "file"], rows),
            (files + not_text + failed) as f64,
        )
    })
}

/// What one job is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CountWords {
    path: PathBuf,
}

/// What one job answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    path: PathBuf,
    /// `None` if the file is not UTF-8 text.
    words: Option<u64>,
}

/// The handler: reads one file and counts.
fn count_words(args: CountWords) -> Result<Count, String> {
    let bytes = fs::read(&args.path).map_err(|e| format!("cannot read {}: {e}", args.path.display()))?;
    let words = std::str::from_utf8(&bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
        .map(|text| u64::try_from(text.split_whitespace().count()).unwrap_or(u64::MAX));
    Ok(Count { path: args.path, words })
}

/// Every regular file below a directory, sorted, without hidden tool directories and links.
fn files_below(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !SKIPPED_DIRS.iter().any(|skipped| entry.file_name() == *skipped) {
                    open.push(entry.path());
                }
            } else if kind.is_file() && entry.metadata()?.len() <= MAX_FILE && files.len() < MAX_FILES {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What a demo found.
#[derive(Debug, Serialize)]
struct Summary {
    /// Text files counted.
    files: usize,
    /// Files that were not text.
    not_text: usize,
    /// Files that could not be read.
    failed: usize,
    /// All words.
    words: u64,
    /// From the first enqueue to the last result.
    seconds: f64,
    /// Jobs per second over that time.
    jobs_per_second: f64,
    /// Where the jobs and results are.
    store: String,
    /// Each file (at most [`SHOW_ALL`]), or the ten with the most words.
    counts: Vec<Count>,
}

/// Adds up. `failed` counts the jobs that gave no count.
fn summarize(mut counts: Vec<Count>, failed: usize, took: Duration, store: String) -> Summary {
    let jobs = counts.len() + failed;
    let words = counts.iter().filter_map(|count| count.words).sum();
    let not_text = counts.iter().filter(|count| count.words.is_none()).count();
    counts.retain(|count| count.words.is_some());
    let files = counts.len();
    if files > SHOW_ALL {
        counts.sort_by(|a, b| b.words.cmp(&a.words).then_with(|| a.path.cmp(&b.path)));
        counts.truncate(10);
    } else {
        counts.sort_by(|a, b| a.path.cmp(&b.path));
    }
    let seconds = took.as_secs_f64();
    Summary {
        files,
        not_text,
        failed,
        words,
        seconds,
        jobs_per_second: if seconds > 0.0 { jobs as f64 / seconds } else { 0.0 },
        store,
        counts,
    }
}
