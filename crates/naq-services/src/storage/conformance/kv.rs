//! Checks of the key-value side: compare-and-set, expiry, prefixes, watches.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{
    failure::{Failure, Verdict, ensure, ensure_eq, eventually, within},
    scene::{PATIENCE, QUIET, Scene},
};
use crate::storage::{Bucket, KvChange, KvWatch, SharedStorage, StorageErrorKind};

/// The shortest time to live that every store keeps.
const TTL: Duration = Duration::from_secs(1);

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn value(store: &SharedStorage, bucket: Bucket, key: &str) -> Result<Option<Bytes>, Failure> {
    Ok(within(PATIENCE, "kv_get", store.kv_get(bucket, key)).await??.map(|entry| entry.value))
}

fn kind<T>(outcome: crate::storage::Result<T>) -> Result<T, StorageErrorKind> {
    outcome.map_err(|error| error.kind())
}

/// Catches: values, revisions or keys that do not come back as they were given; buckets that share keys.
pub(super) async fn a_key_lives_from_create_to_delete(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    for bucket in Bucket::ALL {
        for key in ["a", "pause.mail", "x/y=z-1_2.3"] {
            ensure_eq!(value(&other, bucket, key).await?, None, "{key} in {bucket:?} at first");
            let first = store.kv_create(bucket, key, bytes("one"), None).await?;
            let seen = other.kv_get(bucket, key).await?.ok_or_else(|| Failure::new("a created key is not there"))?;
            ensure_eq!((seen.key.as_str(), seen.value, seen.revision), (key, bytes("one"), first), "created");
            let second = other.kv_update(bucket, key, Bytes::new(), first, None).await?;
            ensure!(second > first, "revision {second} after {first}");
            let seen = store.kv_get(bucket, key).await?.map(|entry| (entry.value, entry.revision));
            ensure_eq!(seen, Some((Bytes::new(), second)), "updated");
            ensure!(store.kv_delete(bucket, key, Some(second)).await?, "nothing was deleted");
            ensure_eq!(value(&other, bucket, key).await?, None, "{key} in {bucket:?} after its deletion");
            ensure!(!store.kv_delete(bucket, key, None).await?, "deleted a second time");
        }
    }
    let binary: Bytes = (0..=255).collect();
    store.kv_create(Bucket::Unique, "binary", binary.clone(), None).await?;
    ensure_eq!(value(&other, Bucket::Unique, "binary").await?, Some(binary), "a binary value");
    Ok(())
}

/// Catches: writes that do not look at what is there.
pub(super) async fn a_stale_writer_conflicts(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let b = Bucket::Locks;
    let missing = store.kv_update(b, "leader", bytes("x"), 1, None).await;
    ensure_eq!(kind(missing), Err(StorageErrorKind::Conflict), "updating a key that is not there");
    let first = store.kv_create(b, "leader", bytes("one"), None).await?;
    let again = other.kv_create(b, "leader", bytes("two"), None).await;
    ensure_eq!(kind(again), Err(StorageErrorKind::Conflict), "creating a key that is there");
    let second = store.kv_update(b, "leader", bytes("three"), first, None).await?;
    for stale in [0, first, second + 1_000] {
        let update = other.kv_update(b, "leader", bytes("four"), stale, None).await;
        ensure_eq!(kind(update), Err(StorageErrorKind::Conflict), "updating at revision {stale}, it is at {second}");
        let deleted = other.kv_delete(b, "leader", Some(stale)).await?;
        ensure!(!deleted, "deleted at revision {stale}, it is at {second}");
    }
    ensure_eq!(value(&other, b, "leader").await?, Some(bytes("three")), "the value afterwards");
    ensure!(other.kv_delete(b, "leader", None).await?, "nothing was deleted without a revision");
    let gone = store.kv_update(b, "leader", bytes("five"), second, None).await;
    ensure_eq!(kind(gone), Err(StorageErrorKind::Conflict), "updating a deleted key");
    Ok(())
}

/// Catches: a worker's entry that depends on what was there, or that outlives its worker.
pub(super) async fn what_a_heartbeat_puts_replaces_and_runs_out(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let heartbeat = within(PATIENCE, "opening a heartbeat", store.open_heartbeat()).await??;
    let mut watch = within(PATIENCE, "watching", other.kv_watch(Bucket::Workers, "")).await??;
    for change in [KvChange::Restart, KvChange::Current] {
        ensure_eq!(within(PATIENCE, "the watch", watch.next()).await?, change, "the watch of an empty bucket");
    }
    for entry in ["idle", "busy"] {
        heartbeat.put(Bucket::Workers, "w1", bytes(entry), 30 * TTL).await?;
        ensure_eq!(value(&other, Bucket::Workers, "w1").await?, Some(bytes(entry)), "the entry");
        match within(PATIENCE, "the watch", watch.next()).await? {
            KvChange::Put(put) => ensure_eq!((put.key.as_str(), put.value), ("w1", bytes(entry)), "the change"),
            change => return Err(Failure::new(format!("{change:?} instead of {entry}"))),
        }
    }
    ensure!(other.kv_delete(Bucket::Workers, "w1", None).await?, "nothing was deleted");
    heartbeat.put(Bucket::Workers, "w1", bytes("again"), TTL).await?;
    ensure_eq!(value(&other, Bucket::Workers, "w1").await?, Some(bytes("again")), "the entry after its removal");
    let gone = async || Ok(value(&other, Bucket::Workers, "w1").await?.is_none());
    eventually(TTL + PATIENCE, "the entry of a silent worker is gone", gone).await
}

/// Catches: two leaders.
pub(super) async fn of_twenty_creates_of_a_key_one_wins(scene: Scene) -> Verdict {
    let stores = [scene.open().await?, scene.open().await?, scene.open().await?];
    for round in 0..3 {
        let mut tasks = JoinSet::new();
        for n in 0..20usize {
            let store = stores[n % 3].clone();
            tasks
                .spawn(async move { kind(store.kv_create(Bucket::Locks, "leader", vec![n as u8].into(), None).await) });
        }
        let mut won = Vec::new();
        while let Some(outcome) = within(PATIENCE, "twenty creates", tasks.join_next()).await? {
            match outcome.map_err(|error| Failure::new(error.to_string()))? {
                Ok(revision) => won.push(revision),
                Err(kind) => ensure_eq!(kind, StorageErrorKind::Conflict, "a loser's error"),
            }
        }
        ensure_eq!(won.len(), 1, "winners in round {round}");
        ensure!(
            stores[1].kv_delete(Bucket::Locks, "leader", Some(won[0])).await?,
            "the winner's revision is not right"
        );
    }
    Ok(())
}

/// Catches: lost updates.
pub(super) async fn concurrent_increments_all_count(scene: Scene) -> Verdict {
    let stores = [scene.open().await?, scene.open().await?];
    stores[0].kv_create(Bucket::Control, "suspect.x", vec![0].into(), None).await?;
    let mut tasks = JoinSet::new();
    for n in 0..10 {
        let store = stores[n % 2].clone();
        tasks.spawn(async move {
            for _ in 0..100 {
                let entry = store.kv_get(Bucket::Control, "suspect.x").await?;
                let entry = entry.ok_or_else(|| Failure::new("the key is gone"))?;
                let next = Bytes::from(vec![entry.value[0] + 1]);
                match store.kv_update(Bucket::Control, "suspect.x", next, entry.revision, None).await {
                    Ok(_) => return Ok(()),
                    Err(error) if error.kind() == StorageErrorKind::Conflict => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(Failure::new("a hundred conflicts in a row"))
        });
    }
    while let Some(outcome) = within(PATIENCE, "ten increments", tasks.join_next()).await? {
        outcome.map_err(|error| Failure::new(error.to_string()))??;
    }
    ensure_eq!(value(&stores[0], Bucket::Control, "suspect.x").await?, Some(vec![10].into()), "ten increments");
    Ok(())
}

/// Catches: locks that never expire, expire early, or whose renewal does not count.
pub(super) async fn a_key_expires_and_renewal_counts_anew(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let b = Bucket::Locks;
    let begun = Instant::now();
    store.kv_create(b, "short", bytes("x"), Some(TTL)).await?;
    let mut revision = store.kv_create(b, "renewed", bytes("x"), Some(TTL * 2)).await?;
    store.kv_create(b, "kept", bytes("x"), None).await?;
    ensure!(value(&other, b, "short").await?.is_some(), "gone at once");
    eventually(PATIENCE, "the key expires", async || Ok(value(&other, b, "short").await?.is_none())).await?;
    let kept = begun.elapsed();
    ensure!(kept + Duration::from_millis(100) >= TTL, "a key of {TTL:?} was kept {kept:?}");
    ensure!(kept < TTL * 2, "a key of {TTL:?} was kept {kept:?}");
    let listed: Vec<_> = other.kv_list(b, "").await?.into_iter().map(|entry| entry.key).collect();
    ensure!(!listed.contains(&"short".to_owned()), "an expired key is listed: {listed:?}");
    for _ in 0..3 {
        revision = store.kv_update(b, "renewed", bytes("y"), revision, Some(TTL * 2)).await?;
        tokio::time::sleep(TTL).await;
        ensure!(value(&other, b, "renewed").await?.is_some(), "a renewed key is gone");
    }
    eventually(PATIENCE, "a key that is renewed no more", async || Ok(value(&other, b, "renewed").await?.is_none()))
        .await?;
    let late = store.kv_update(b, "renewed", bytes("z"), revision, Some(TTL)).await;
    ensure_eq!(kind(late), Err(StorageErrorKind::Conflict), "renewing an expired key");
    ensure!(value(&other, b, "kept").await?.is_some(), "a key without a time to live is gone");
    Ok(())
}

/// Catches: delete markers and expired rows that keep a key from being created again.
pub(super) async fn a_gone_key_can_be_created_again(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let b = Bucket::Unique;
    let mut last = 0;
    for round in 0..3 {
        let revision = store.kv_create(b, "key", bytes("deleted"), Some(TTL * 30)).await?;
        ensure!(revision > last, "revision {revision} in round {round} after {last}");
        ensure!(other.kv_delete(b, "key", None).await?, "nothing was deleted");
        last = other.kv_create(b, "key", bytes("expiring"), Some(TTL)).await?;
        eventually(PATIENCE, "created again after it expired", async || {
            match kind(store.kv_create(b, "key", bytes("again"), Some(TTL * 30)).await) {
                Ok(_) => Ok(true),
                Err(StorageErrorKind::Conflict) => Ok(false),
                Err(kind) => Err(Failure::new(format!("creating: {kind:?}"))),
            }
        })
        .await?;
        ensure_eq!(value(&other, b, "key").await?, Some(bytes("again")), "the value in round {round}");
        // The time to live of the entry before must not count for this one.
        tokio::time::sleep(TTL + QUIET).await;
        ensure!(value(&other, b, "key").await?.is_some(), "a key with a long time to live is gone");
        last = last.max(other.kv_get(b, "key").await?.map_or(0, |entry| entry.revision));
        ensure!(store.kv_delete(b, "key", None).await?, "nothing was deleted");
    }
    Ok(())
}

/// Catches: prefixes taken for patterns, tokens or whole names.
pub(super) async fn lists_are_by_prefix(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let b = Bucket::Control;
    let keys = ["cancel.a", "cancel.ab", "cancel.a_b", "cancel.axb", "cancelx", "pause.q", "CANCEL.a", "suspect.a"];
    for key in keys {
        store.kv_create(b, key, Bytes::from_static(key.as_bytes()), None).await?;
    }
    store.kv_create(Bucket::Workers, "cancel.other", bytes("x"), None).await?;
    for prefix in ["", "cancel.", "cancel.a", "cancel.a_", "cancel", "c", "pause.q", "pause.qq", "nothing"] {
        let mut found: Vec<_> = other.kv_list(b, prefix).await?.into_iter().map(|entry| entry.key).collect();
        found.sort();
        let mut expected: Vec<_> =
            keys.iter().filter(|key| key.starts_with(prefix)).map(|&key| key.to_owned()).collect();
        expected.sort();
        ensure_eq!(found, expected, "keys with prefix {prefix:?}");
    }
    for entry in other.kv_list(b, "").await? {
        ensure_eq!(entry.value, Bytes::from(entry.key.clone()), "value of {}", entry.key);
        let alone = store.kv_get(b, &entry.key).await?;
        ensure_eq!(alone.map(|alone| alone.revision), Some(entry.revision), "revision of {}", entry.key);
    }
    Ok(())
}

/// What a watch has told so far.
struct Picture {
    watch: Box<dyn KvWatch>,
    keys: BTreeMap<String, Bytes>,
    gone: Vec<String>,
}

impl Picture {
    /// Opens a watch and takes the current state.
    async fn open(store: &SharedStorage, prefix: &str) -> Result<Self, Failure> {
        let watch = within(PATIENCE, "watching", store.kv_watch(Bucket::Control, prefix)).await??;
        let mut picture = Self { watch, keys: BTreeMap::new(), gone: Vec::new() };
        let first = within(PATIENCE, "the first event", picture.watch.next()).await?;
        ensure_eq!(first, KvChange::Restart, "the first event of a watch");
        loop {
            let change = within(PATIENCE, "the current state", picture.watch.next()).await?;
            if change == KvChange::Current {
                return Ok(picture);
            }
            picture.apply(change);
        }
    }

    fn apply(&mut self, change: KvChange) {
        match change {
            KvChange::Restart => self.keys.clear(),
            KvChange::Put(entry) => {
                self.keys.insert(entry.key, entry.value);
            }
            KvChange::Gone(key) => {
                self.keys.remove(&key);
                self.gone.push(key);
            }
            KvChange::Current => {}
        }
    }

    /// Applies changes until the keys and values are these.
    async fn until(&mut self, limit: Duration, expected: &[(&str, &'static str)]) -> Verdict {
        let expected: BTreeMap<_, _> = expected.iter().map(|(key, value)| ((*key).to_owned(), bytes(value))).collect();
        let end = Instant::now() + limit;
        while self.keys != expected {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(change) = tokio::time::timeout(left, self.watch.next()).await else {
                return Err(Failure::new(format!("the watch shows {:?} after {limit:?}, not {expected:?}", self.keys)));
            };
            self.apply(change);
        }
        Ok(())
    }
}

/// Catches: watchers that miss what was there, what changes, what goes, or each other's events.
pub(super) async fn watchers_see_state_and_changes(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let b = Bucket::Control;
    store.kv_create(b, "pause.a", bytes("1"), None).await?;
    store.kv_create(b, "cancel.x", bytes("1"), None).await?;
    let deleted = store.kv_create(b, "pause.deleted", bytes("1"), None).await?;
    ensure!(store.kv_delete(b, "pause.deleted", Some(deleted)).await?, "nothing was deleted");
    let mut here = Picture::open(&store, "pause.").await?;
    let mut there = Picture::open(&other, "pause.").await?;
    let mut all = Picture::open(&other, "").await?;
    ensure_eq!(here.keys, BTreeMap::from([("pause.a".to_owned(), bytes("1"))]), "the state at first");
    ensure_eq!(there.keys, here.keys, "the state at first, other connection");
    let revision = store.kv_create(b, "pause.b", bytes("1"), None).await?;
    store.kv_update(b, "pause.b", bytes("2"), revision, None).await?;
    ensure!(other.kv_delete(b, "pause.a", None).await?, "nothing was deleted");
    let second = Duration::from_secs(1);
    for watch in [&mut here, &mut there] {
        watch.until(second, &[("pause.b", "2")]).await?;
    }
    for bucket in Bucket::ALL.into_iter().filter(|bucket| *bucket != b) {
        store.kv_create(bucket, "pause.elsewhere", bytes("1"), None).await?;
    }
    store.kv_create(b, "cancel.y", bytes("1"), None).await?;
    store.kv_create(b, "pause.a", bytes("3"), None).await?;
    for watch in [&mut here, &mut there] {
        watch.until(second, &[("pause.a", "3"), ("pause.b", "2")]).await?;
        ensure!(watch.gone.iter().all(|key| key == "pause.a"), "keys that went: {:?}", watch.gone);
    }
    all.until(second, &[("cancel.x", "1"), ("cancel.y", "1"), ("pause.a", "3"), ("pause.b", "2")]).await
}

/// Catches: dead workers and old locks that watchers hold for alive.
pub(super) async fn watchers_see_keys_expire(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let b = Bucket::Control;
    store.kv_create(b, "w.before", bytes("1"), Some(TTL)).await?;
    let mut watch = Picture::open(&other, "w.").await?;
    ensure_eq!(watch.keys.len(), 1, "keys at first");
    store.kv_create(b, "w.after", bytes("1"), Some(TTL)).await?;
    store.kv_create(b, "w.stays", bytes("1"), None).await?;
    watch.until(Duration::from_secs(1), &[("w.after", "1"), ("w.before", "1"), ("w.stays", "1")]).await.or_else(
        // The first may have expired before the others were seen.
        |failure| if watch.keys.contains_key("w.stays") { Ok(()) } else { Err(failure) },
    )?;
    watch.until(TTL + Duration::from_secs(5), &[("w.stays", "1")]).await?;
    watch.gone.sort();
    watch.gone.dedup();
    ensure_eq!(watch.gone, vec!["w.after".to_owned(), "w.before".to_owned()], "keys that went");
    Ok(())
}

/// Catches: changes lost with a dropped `next()`.
pub(super) async fn dropping_a_watchs_next_loses_no_change(scene: Scene) -> Verdict {
    let (store, other) = scene.pair().await?;
    let mut watch = Picture::open(&other, "n.").await?;
    let mut names = Vec::new();
    for n in 0..60 {
        let name = format!("n.{n}");
        store.kv_create(Bucket::Control, &name, bytes("1"), None).await?;
        names.push(name);
        if let Ok(change) = tokio::time::timeout(Duration::from_micros(300), watch.watch.next()).await {
            watch.apply(change);
        }
    }
    let expected: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    watch.until(PATIENCE, &expected).await
}
