//! The stores of an account, told apart by their prefix: which there are, and the removal of one with all it holds.
//!
//! Invariant: a stream belongs to a prefix if naq would give it that very name; nothing else is touched. For stores that are
//! made for a purpose and go with it, as those of `naq bench`; nothing here asks whether somebody still uses one.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::names::{Names, prefix_of_stream};
use crate::{kv_stores, storage::Result, streams::StreamService};

/// Streams that are removed at once.
const AT_ONCE: usize = 16;

/// The prefixes that begin with `beginning` and have streams on the account.
///
/// # Errors
/// If the server does not answer or refuses.
///
/// # Cancel safety
/// Cancel safe: it only reads.
pub async fn prefixes(streams: &StreamService, beginning: &str) -> Result<BTreeSet<String>> {
    let names = streams.names(">").await?;
    let prefixes = names.iter().filter_map(|name| prefix_of_stream(name));
    Ok(prefixes.filter(|prefix| prefix.starts_with(beginning)).map(str::to_owned).collect())
}

/// Removes every stream of a prefix, jobs, results and all; returns how many there were. Idempotent.
///
/// # Errors
/// If the prefix is none, or the server does not answer or refuses; the streams that are left are named by another call of
/// [`prefixes`].
///
/// # Cancel safety
/// Dropped, it may have removed a part.
pub async fn remove_store(streams: &StreamService, prefix: &str) -> Result<usize> {
    let names = Names::new(prefix)?;
    let mut gone: BTreeSet<String> = names.all_buckets().iter().map(|bucket| kv_stores::stream_name(bucket)).collect();
    gone.extend(
        streams.names(&names.everything()).await?.into_iter().filter(|name| prefix_of_stream(name) == Some(prefix)),
    );
    let removed = stream::iter(gone).map(|name| async move { streams.delete_stream(&name).await });
    let removed: Vec<bool> = removed.buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(removed.into_iter().filter(|was_there| *was_there).count())
}
