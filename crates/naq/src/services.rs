//! `naq::services`: everything of `naq_services`, and the modules and names that NAQ and OmniQ have for it.

pub use naq_services::*;
#[doc(no_inline)]
pub use naq_services::{Service as BaseService, Storage as BaseStorage};
#[cfg(feature = "nats")]
#[doc(no_inline)]
pub use naq_services::{
    connection::ConnectionService,
    kv_stores::{KvStoreService, KvStoreService as KVStoreService},
    streams::StreamService,
};

/// What services are and who builds them.
pub mod base {
    pub use naq_services::{Service, Service as BaseService, ServiceError, ServiceManager};
}

/// Key-value stores on NATS.
#[cfg(feature = "nats")]
pub mod kv_stores {
    pub use naq_services::kv_stores::KvStoreService as KVStoreService;
    pub use naq_services::kv_stores::*;
}
