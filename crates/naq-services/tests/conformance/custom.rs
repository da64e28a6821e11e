//! The store of `examples/custom_storage`, as its own suite run sees it.

use super::*;

#[path = "../../examples/custom_storage/backend.rs"]
mod backend;
#[path = "../../examples/custom_storage/consumer.rs"]
mod consumer;
#[path = "../../examples/custom_storage/event_log.rs"]
mod event_log;
#[path = "../../examples/custom_storage/feeds.rs"]
mod feeds;
#[path = "../../examples/custom_storage/state.rs"]
mod state;

struct Custom(Arc<state::Shared>);

#[async_trait]
impl Fixture for Custom {
    async fn open(&self) -> Result<SharedStorage> {
        Ok(Arc::new(backend::MemoryStorage::new(Arc::clone(&self.0))))
    }
}

async fn fresh() -> Arc<dyn Fixture> {
    Arc::new(Custom(Arc::new(state::Shared::new())))
}

naq_services::conformance_tests!(fresh);
