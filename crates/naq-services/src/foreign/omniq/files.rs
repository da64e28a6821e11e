//! The tasks of a directory of OmniQ's file backend: `queue/<id>.task`, `.running`, `.done`.
//!
//! Invariant: a file is removed only while it holds what was read: a worker of OmniQ takes a task by renaming its file.
//! Nothing else in the directory is changed.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    vec,
};

use bytes::Bytes;
use naq_models::Timestamp;

use super::{Task, task};
use crate::{
    foreign::{
        Item, Left, LeftReason, Source,
        mapping::{Incoming, Kinds},
    },
    patterns::run_in_thread,
    storage::{StorageError, StorageErrorKind},
};

/// Tasks a page.
const PAGE: usize = 256;

/// A directory of OmniQ.
#[derive(Debug)]
pub(in crate::foreign) struct Files {
    queue: PathBuf,
    /// What lay there at the beginning and was not read yet, by name.
    files: vec::IntoIter<PathBuf>,
}

/// A task as it was read.
#[derive(Debug, Clone)]
pub(in crate::foreign) struct Place {
    path: PathBuf,
    content: Bytes,
}

impl Files {
    /// Lists the tasks of a directory that is there.
    pub(in crate::foreign) async fn open(base: &Path) -> Result<Self, StorageError> {
        let queue = base.join("queue");
        let list = queue.clone();
        let files = blocking(&queue, move || {
            let paths = std::fs::read_dir(list)?.map(|entry| entry.map(|entry| entry.path()));
            let mut tasks = paths.filter(|path| path.as_ref().map_or(true, |path| is_task(path)));
            let mut tasks = tasks.by_ref().collect::<io::Result<Vec<PathBuf>>>()?;
            tasks.sort();
            Ok(tasks)
        });
        Ok(Self { files: files.await?.into_iter(), queue })
    }
}

fn is_task(path: &Path) -> bool {
    ["task", "running", "done"].iter().any(|extension| path.extension() == Some(OsStr::new(extension)))
}

impl Source for Files {
    type Place = Place;

    async fn page(&mut self, kinds: &Kinds, now: Timestamp) -> Result<Vec<Item<Place>>, StorageError> {
        loop {
            let paths: Vec<PathBuf> = self.files.by_ref().take(PAGE).collect();
            if paths.is_empty() {
                return Ok(Vec::new());
            }
            let kinds = kinds.clone();
            let page = blocking(&self.queue, move || {
                let items = paths.into_iter().map(|path| item(path, &kinds, now));
                items.filter_map(Result::transpose).collect::<io::Result<Vec<_>>>()
            });
            // An empty page would be the end.
            let page = page.await?;
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }

    async fn remove(&self, places: Vec<Place>) -> Result<Vec<bool>, StorageError> {
        blocking(&self.queue, move || places.iter().map(remove).collect()).await
    }
}

/// `None` for a task that has ended well, or has gone.
fn item(path: PathBuf, kinds: &Kinds, now: Timestamp) -> io::Result<Option<Item<Place>>> {
    let content: Bytes = match std::fs::read(&path) {
        Ok(content) => content.into(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let told = told(&path);
    let label = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let read = match path.extension().and_then(OsStr::to_str) {
        Some("running") => Err(Left::new(LeftReason::Running, "")),
        _ => read(&content, told, kinds, now),
    };
    let is_done = path.extension() == Some(OsStr::new("done"));
    Ok(match read {
        Ok(Incoming::Job(_) | Incoming::Recurring(_)) | Err(_) if is_done => None,
        read => Some(Item { label, place: Place { path, content }, read }),
    })
}

/// What the result of a task says of its failure, if there is one that can be read.
fn told(task: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Told {
        error: Option<String>,
    }
    let mut name = task.file_stem()?.to_owned();
    name.push(".result");
    let result = std::fs::read(task.parent()?.parent()?.join("results").join(name)).ok()?;
    serde_json::from_slice::<Told>(&result).ok()?.error
}

pub(in crate::foreign) fn read(
    content: &[u8],
    told: Option<String>,
    kinds: &Kinds,
    now: Timestamp,
) -> Result<Incoming, Left> {
    let left = |reason| move |error: serde_json::Error| Left::new(reason, error.to_string());
    serde_json::from_slice::<serde::de::IgnoredAny>(content).map_err(left(LeftReason::NotJson))?;
    let found: Task = serde_json::from_slice(content).map_err(left(LeftReason::NotAJob))?;
    task(found, told, kinds, now)
}

fn remove(place: &Place) -> io::Result<bool> {
    match std::fs::read(&place.path) {
        Ok(content) if content == place.content => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    match std::fs::remove_file(&place.path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

async fn blocking<T: Send + 'static>(
    directory: &Path,
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StorageError> {
    run_in_thread(call).await.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => StorageErrorKind::Incompatible,
            io::ErrorKind::PermissionDenied => StorageErrorKind::Denied,
            io::ErrorKind::StorageFull => StorageErrorKind::Full,
            _ => StorageErrorKind::Refused,
        };
        let detail = format!("{}: {error}", directory.display());
        StorageError::new(kind, "read OmniQ", detail).with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_worker_has_taken_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let queue = dir.path().join("queue");
        std::fs::create_dir(&queue).unwrap();
        let task = |id: &str| {
            let task = include_str!("../samples/task.json");
            std::fs::write(queue.join(format!("{id}.task")), task).unwrap();
        };
        ["free", "moved", "taken"].into_iter().for_each(task);
        let mut files = Files::open(dir.path()).await.unwrap();
        let page = files.page(&Kinds::new(), Timestamp::EPOCH).await.unwrap();
        assert!(page.iter().all(|item| item.read.is_ok()) && page.len() == 3);
        std::fs::rename(queue.join("taken.task"), queue.join("taken.running")).unwrap();
        std::fs::write(queue.join("moved.task"), "{}").unwrap();
        let places = page.into_iter().map(|item| item.place).collect();
        assert_eq!(files.remove(places).await.unwrap(), [true, false, false]);
        assert_eq!(std::fs::read_dir(queue).unwrap().count(), 2);
    }
}
