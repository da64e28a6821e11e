//! [`ServiceManager`]: each service of a process, built once, on first use, from one configuration.
//!
//! Invariant: of each type there is at most one live service, however many ask for it at once; what a service needs is
//! built before it and closed after it. Services never look each other up but through the manager that builds them.
//!
//! Not here: reading configuration (naq-config), what a service does.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use naq_config::{ChosenBy, LoadedConfig, NaqConfig, NoStateDirectory, StoreChoice, StoreUrl};
use tokio::sync::OnceCell;

use crate::{
    EventService, JobService, JobSettings, SchedulerService, StorageError, StorageErrorKind, open::open_choice,
    storage::SharedStorage,
};
#[cfg(feature = "nats")]
use crate::{
    connection::ConnectionService,
    open::{connection_options, nats_options},
    storage::nats,
    streams::StreamService,
};

/// What a [`ServiceManager`] builds. Services of a user's own can be added by implementing it.
pub trait Service: Send + Sync + Sized + 'static {
    /// For errors: `store`, `jobs`.
    const NAME: &'static str;

    /// Builds it. Other services that it needs are asked of `manager`; two services must not need each other.
    fn build(manager: &ServiceManager) -> impl Future<Output = Result<Self, ServiceError>> + Send;

    /// Stops its background work. Called once, while everything that it was built from is still open.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Why there is no service.
#[derive(Debug)]
pub struct ServiceError {
    service: &'static str,
    kind: ServiceErrorKind,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of [`ServiceError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServiceErrorKind {
    /// The manager is closed.
    Closed,
    /// The store cannot be opened.
    Storage(StorageErrorKind),
    /// The service needs something else that failed; the source says what.
    Failed,
}

impl ServiceError {
    /// For a service of a user's own that cannot be built.
    pub fn new(service: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { service, kind: ServiceErrorKind::Failed, hint: None, source: Some(source.into()) }
    }

    fn closed(service: &'static str) -> Self {
        Self { service, kind: ServiceErrorKind::Closed, hint: None, source: None }
    }

    fn storage(service: &'static str, source: StorageError) -> Self {
        Self {
            service,
            kind: ServiceErrorKind::Storage(source.kind()),
            hint: source.hint().map(str::to_owned),
            source: Some(Box::new(source)),
        }
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ServiceErrorKind {
        self.kind
    }

    /// What the user can try, if there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ServiceErrorKind::Closed => write!(f, "cannot open the {}: everything was closed before", self.service),
            ServiceErrorKind::Storage(_) | ServiceErrorKind::Failed => write!(f, "cannot open the {}", self.service),
        }
    }
}

impl Error for ServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Builds and keeps the services of a process. Cheap to clone; all clones are one manager.
///
/// ```
/// # use naq_config::load_config;
/// # use naq_services::{JobService, ServiceManager};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let manager = ServiceManager::from_loaded(load_config(None)?)?;
/// let jobs = manager.get::<JobService>().await?; // connects now
/// let again = manager.get::<JobService>().await?; // the same
/// manager.close().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ServiceManager {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<NaqConfig>,
    store: StoreChoice,
    state: Mutex<State>,
    closing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// By type `S`: an `Arc<OnceCell<Arc<S>>>`.
    cells: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    /// Built services, in the order in which they were finished.
    built: Vec<Arc<dyn Close>>,
}

type BuildFuture<'a, S> = Pin<Box<dyn Future<Output = Result<&'a Arc<S>, ServiceError>> + Send + 'a>>;
type CloseFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

trait Close: Send + Sync {
    fn close_boxed(&self) -> CloseFuture<'_>;
}

impl<S: Service> Close for S {
    fn close_boxed(&self) -> CloseFuture<'_> {
        Box::pin(self.close())
    }
}

impl ServiceManager {
    /// A manager over a configuration and a store, whatever store the configuration means. Opens nothing.
    #[must_use]
    pub fn new(config: Arc<NaqConfig>, store: StoreUrl) -> Self {
        Self::of_choice(config, StoreChoice { url: store, chosen_by: ChosenBy::StorageUrl })
    }

    fn of_choice(config: Arc<NaqConfig>, store: StoreChoice) -> Self {
        let (state, closing) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { inner: Arc::new(Inner { config, store, state, closing }) }
    }

    /// A manager over a configuration as it was read.
    ///
    /// # Errors
    /// If it names no store and there is no place for the embedded one.
    pub fn from_loaded(loaded: LoadedConfig) -> Result<Self, NoStateDirectory> {
        let store = loaded.store()?;
        Ok(Self::of_choice(Arc::new(loaded.config), store))
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<NaqConfig> {
        &self.inner.config
    }

    /// Where jobs are kept, and which setting says so.
    #[must_use]
    pub fn store(&self) -> &StoreChoice {
        &self.inner.store
    }

    /// The service of a type, built now if it was not before. A build that fails is tried again by the next call.
    ///
    /// # Errors
    /// If it, or something it needs, cannot be built, or the manager is closed.
    ///
    /// # Cancel safety
    /// Cancel safe: a build that is dropped is begun anew by the next call.
    pub async fn get<S: Service>(&self) -> Result<Arc<S>, ServiceError> {
        let cell = {
            let mut state = self.state();
            if state.closed {
                return Err(ServiceError::closed(S::NAME));
            }
            let cell = state.cells.entry(TypeId::of::<S>()).or_insert_with(|| Arc::new(OnceCell::<Arc<S>>::new()));
            Arc::clone(cell).downcast::<OnceCell<Arc<S>>>().expect("each cell stands under its own type")
        };
        // Without its type: building nests services in services, and their futures in the futures of every caller.
        let building: BuildFuture<'_, S> = Box::pin(cell.get_or_try_init(|| self.build::<S>()));
        building.await.map(Arc::clone)
    }

    async fn build<S: Service>(&self) -> Result<Arc<S>, ServiceError> {
        let service = Arc::new(S::build(self).await?);
        let closed = {
            let mut state = self.state();
            if !state.closed {
                let built: Arc<S> = Arc::clone(&service);
                state.built.push(built);
            }
            state.closed
        };
        if closed {
            service.close().await;
            return Err(ServiceError::closed(S::NAME));
        }
        Ok(service)
    }

    /// The store.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn storage(&self) -> Result<SharedStorage, ServiceError> {
        Ok(Arc::clone(&self.get::<StorageService>().await?.0))
    }

    /// Jobs.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn jobs(&self) -> Result<JobService, ServiceError> {
        Ok(JobService::clone(&*self.get::<JobService>().await?))
    }

    /// Events.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn events(&self) -> Result<Arc<EventService>, ServiceError> {
        self.get::<EventService>().await
    }

    /// Recurring jobs.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn scheduler(&self) -> Result<SchedulerService, ServiceError> {
        Ok(SchedulerService::clone(&*self.get::<SchedulerService>().await?))
    }

    /// Closes all services, the last built first, and refuses to build more. Returns when everything is closed, also if
    /// another call began it.
    pub async fn close(&self) {
        let _closing = self.inner.closing.lock().await;
        let built = {
            let mut state = self.state();
            state.closed = true;
            state.cells.clear();
            std::mem::take(&mut state.built)
        };
        for service in built.into_iter().rev() {
            service.close_boxed().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half-way through a change.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ServiceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceManager").field("store", &self.inner.store).finish_non_exhaustive()
    }
}

/// The store as a service.
#[derive(Debug)]
pub struct StorageService(pub SharedStorage);

impl Service for StorageService {
    const NAME: &'static str = "store";

    async fn build(manager: &ServiceManager) -> Result<Self, ServiceError> {
        #[cfg(feature = "nats")]
        if let StoreUrl::Nats { servers } = &manager.store().url {
            let connection = manager.get::<ConnectionService>().await?;
            let options = nats_options(servers, manager.config());
            let opened = nats::open_on(ConnectionService::clone(&connection), options).await;
            return opened.map(Self).map_err(|source| ServiceError::storage(Self::NAME, source));
        }
        let opened = open_choice(manager.store(), manager.config()).await;
        opened.map(Self).map_err(|source| ServiceError::storage(Self::NAME, source))
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

/// The connection to NATS, which the store uses too if it is there; else one to `nats.servers`, for requests to the
/// user's own services.
#[cfg(feature = "nats")]
impl Service for ConnectionService {
    const NAME: &'static str = "NATS connection";

    async fn build(manager: &ServiceManager) -> Result<Self, ServiceError> {
        let servers = match &manager.store().url {
            StoreUrl::Nats { servers } => servers,
            StoreUrl::Sqlite { .. } | StoreUrl::Memory { .. } => &manager.config().nats.servers,
        };
        if servers.is_empty() {
            let detail = format!("no NATS server is configured, and the store is {}", manager.store().url);
            let error = StorageError::new(StorageErrorKind::Refused, "connect", detail);
            return Err(ServiceError::storage(Self::NAME, error.with_hint("set nats.servers to nats://HOST:PORT")));
        }
        let connected = Self::connect(connection_options(servers, manager.config())).await;
        connected.map_err(|source| ServiceError::storage(Self::NAME, source))
    }

    async fn close(&self) {
        Self::close(self).await;
    }
}

#[cfg(feature = "nats")]
impl Service for StreamService {
    const NAME: &'static str = "stream service";

    async fn build(manager: &ServiceManager) -> Result<Self, ServiceError> {
        let connection = manager.get::<ConnectionService>().await?;
        Ok(Self::new(ConnectionService::clone(&connection)))
    }
}

impl Service for JobService {
    const NAME: &'static str = "job service";

    async fn build(manager: &ServiceManager) -> Result<Self, ServiceError> {
        let events = manager.events().await?.hook().clone();
        Ok(Self::new(manager.storage().await?, JobSettings::from(&**manager.config())).with_events(events))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// What the test services did, in order; found by each test's own configuration.
    static BUILDS: AtomicUsize = AtomicUsize::new(0);
    static LOG: Mutex<Vec<(String, &str)>> = Mutex::new(Vec::new());
    static GATE: Semaphore = Semaphore::const_new(0);

    fn manager(test: &str) -> ServiceManager {
        let mut config = NaqConfig::default();
        config.queues.prefix = test.to_owned();
        ServiceManager::new(Arc::new(config), "memory://".parse().unwrap())
    }

    fn log(test: &str, what: &'static str) {
        LOG.lock().unwrap().push((test.to_owned(), what));
    }

    fn logged(test: &str) -> Vec<&'static str> {
        LOG.lock().unwrap().iter().filter(|(of, _)| of == test).map(|(_, what)| *what).collect()
    }

    struct Lower(String);
    impl Service for Lower {
        const NAME: &'static str = "lower";
        async fn build(manager: &ServiceManager) -> Result<Self, ServiceError> {
            tokio::task::yield_now().await;
            log(&manager.config().queues.prefix, "lower built");
            Ok(Self(manager.config().queues.prefix.clone()))
        }
        async fn close(&self) {
            log(&self.0, "lower closed");
        }
    }

    struct Upper(Arc<Lower>);
    impl Service for Upper {
        const NAME: &'static str = "upper";
        async fn build(manager: &ServiceManager) -> Result<Self, ServiceError> {
            let lower = manager.get::<Lower>().await?;
            log(&lower.0, "upper built");
            Ok(Self(lower))
        }
        async fn close(&self) {
            log(&self.0.0, "upper closed");
        }
    }

    struct SecondTime;
    impl Service for SecondTime {
        const NAME: &'static str = "second";
        async fn build(_: &ServiceManager) -> Result<Self, ServiceError> {
            match BUILDS.fetch_add(1, Ordering::SeqCst) {
                0 => Err(ServiceError::new(Self::NAME, "not yet")),
                _ => Ok(Self),
            }
        }
    }

    struct Slow(String);
    impl Service for Slow {
        const NAME: &'static str = "slow";
        async fn build(manager: &ServiceManager) -> Result<Self, ServiceError> {
            log(&manager.config().queues.prefix, "slow begun");
            GATE.acquire().await.unwrap().forget();
            Ok(Self(manager.config().queues.prefix.clone()))
        }
        async fn close(&self) {
            log(&self.0, "slow closed");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn builds_once_and_closes_in_reverse() {
        let manager = manager("once");
        let mut asking = tokio::task::JoinSet::new();
        for n in 0..20 {
            let manager = manager.clone();
            asking.spawn(async move {
                if n % 2 == 0 {
                    manager.get::<Lower>().await.unwrap()
                } else {
                    Arc::clone(&manager.get::<Upper>().await.unwrap().0)
                }
            });
        }
        let got = asking.join_all().await;
        assert!(got.iter().all(|lower| Arc::ptr_eq(lower, &got[0])));
        manager.close().await;
        manager.close().await;
        assert_eq!(logged("once"), ["lower built", "upper built", "upper closed", "lower closed"]);
        assert_eq!(manager.get::<Lower>().await.err().map(|e| e.kind()), Some(ServiceErrorKind::Closed));
    }

    #[tokio::test]
    async fn a_failed_build_is_tried_again() {
        let manager = manager("again");
        assert_eq!(manager.get::<SecondTime>().await.err().map(|e| e.kind()), Some(ServiceErrorKind::Failed));
        assert!(manager.get::<SecondTime>().await.is_ok());
    }

    #[tokio::test]
    async fn a_service_that_is_finished_after_the_close_is_closed_too() {
        let manager = manager("late");
        let mut building = tokio::task::JoinSet::new();
        let asking = manager.clone();
        building.spawn(async move { asking.get::<Slow>().await.err().map(|e| e.kind()) });
        while logged("late").is_empty() {
            tokio::task::yield_now().await;
        }
        manager.close().await;
        GATE.add_permits(1);
        assert_eq!(building.join_all().await, [Some(ServiceErrorKind::Closed)]);
        assert_eq!(logged("late"), ["slow begun", "slow closed"]);
    }
}
