//! Keys: compare-and-set, lives, watches.

use std::time::Duration;

use bytes::Bytes;
use naq_services::storage::{Bucket, KvChange, KvWatch, StorageErrorKind};

use crate::server::on_each_server;

fn text(value: &'static str) -> Bytes {
    Bytes::from_static(value.as_bytes())
}

async fn next(watch: &mut Box<dyn KvWatch>) -> KvChange {
    tokio::time::timeout(Duration::from_secs(5), watch.next()).await.expect("a change is reported")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_by_revision_and_can_be_made_again_at_once() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let first = storage.kv_create(Bucket::Locks, "leader", text("a"), None).await.unwrap();
        let refused = storage.kv_create(Bucket::Locks, "leader", text("b"), None).await.unwrap_err();
        assert_eq!(refused.kind(), StorageErrorKind::Conflict);
        let second = storage.kv_update(Bucket::Locks, "leader", text("c"), first, None).await.unwrap();
        assert!(second > first);
        let refused = storage.kv_update(Bucket::Locks, "leader", text("d"), first, None).await.unwrap_err();
        assert_eq!(refused.kind(), StorageErrorKind::Conflict);
        assert!(!storage.kv_delete(Bucket::Locks, "leader", Some(first)).await.unwrap());
        assert!(storage.kv_delete(Bucket::Locks, "leader", Some(second)).await.unwrap());
        assert!(!storage.kv_delete(Bucket::Locks, "leader", None).await.unwrap());
        storage.kv_create(Bucket::Locks, "leader", text("e"), None).await.unwrap();
        assert_eq!(storage.kv_list(Bucket::Locks, "lea").await.unwrap()[0].value, text("e"));
        assert!(storage.kv_list(Bucket::Locks, "x").await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_does_not_exist_and_is_swept() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let ttl = Some(Duration::from_millis(300));
        storage.sweep(10).await.unwrap();
        let revision = storage.kv_create(Bucket::Workers, "w1", text("a"), ttl).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(storage.kv_get(Bucket::Workers, "w1").await.unwrap(), None);
        assert!(storage.kv_list(Bucket::Workers, "").await.unwrap().is_empty());
        let late = storage.kv_update(Bucket::Workers, "w1", text("b"), revision, ttl).await.unwrap_err();
        assert_eq!(late.kind(), StorageErrorKind::Conflict);
        storage.kv_create(Bucket::Workers, "w1", text("c"), ttl).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(storage.sweep(10).await.unwrap(), 1);
        assert_eq!(storage.sweep(10).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_reports_state_changes_removals_and_expiry() {
    on_each_server(async |server| {
        let storage = server.open().await;
        storage.kv_create(Bucket::Control, "cancel.a", text("1"), None).await.unwrap();
        storage.kv_create(Bucket::Control, "pause.q", text("1"), None).await.unwrap();
        let mut watch = storage.kv_watch(Bucket::Control, "cancel.").await.unwrap();
        assert_eq!(next(&mut watch).await, KvChange::Restart);
        assert!(matches!(next(&mut watch).await, KvChange::Put(entry) if entry.key == "cancel.a"));
        assert_eq!(next(&mut watch).await, KvChange::Current);
        storage.kv_create(Bucket::Control, "cancel.b", text("2"), Some(Duration::from_millis(500))).await.unwrap();
        assert!(matches!(next(&mut watch).await, KvChange::Put(entry) if entry.key == "cancel.b"));
        storage.kv_delete(Bucket::Control, "cancel.a", None).await.unwrap();
        assert_eq!(next(&mut watch).await, KvChange::Gone("cancel.a".into()));
        assert_eq!(next(&mut watch).await, KvChange::Gone("cancel.b".into()));
        let mut empty = storage.kv_watch(Bucket::Schedules, "").await.unwrap();
        assert_eq!(next(&mut empty).await, KvChange::Restart);
        assert_eq!(next(&mut empty).await, KvChange::Current);
    })
    .await;
}
