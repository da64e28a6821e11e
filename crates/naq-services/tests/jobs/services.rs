use naq_services::{
    ServiceErrorKind, ServiceManager, StorageErrorKind, connection::ConnectionService, streams::StreamService,
};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_of_nats_share_one_connection() {
    for binary in server::binaries() {
        let server = Server::start(&binary);
        let manager = ServiceManager::new(Arc::default(), server.url().parse().unwrap());
        let jobs = manager.jobs().await.unwrap();
        let connection = manager.get::<ConnectionService>().await.unwrap();
        assert!(connection.is_connected());
        let streams = manager.get::<StreamService>().await.unwrap();
        let handle = jobs.enqueue(job("a")).await.unwrap();
        manager.close().await;
        assert!(streams.names("naq.>").await.is_err(), "the store's connection is this one");
        let closed = naq_services::JobServiceErrorKind::Storage(StorageErrorKind::Closed);
        assert_eq!(handle.status().await.unwrap_err().kind(), closed);
    }
}

#[tokio::test]
async fn another_store_has_no_connection() {
    let manager = ServiceManager::new(Arc::default(), "memory://services".parse().unwrap());
    manager.jobs().await.unwrap();
    let refused = manager.get::<ConnectionService>().await.err().map(|error| error.kind());
    assert_eq!(refused, Some(ServiceErrorKind::Storage(StorageErrorKind::Refused)));
    let nobody = ServiceManager::new(Arc::default(), "nats://127.0.0.1:1".parse().unwrap());
    let unreachable = nobody.jobs().await.unwrap_err();
    assert_eq!(unreachable.kind(), ServiceErrorKind::Storage(StorageErrorKind::Unreachable));
}
