//! [`ConnectionService`]: one connection to NATS servers, and requests over it.
//!
//! Invariant: every request ends: with an answer, with "nobody serves this", or, after its time or a reconnect, with a
//! failure that says the effect is unknown. What is sent and how a failure is repaired is decided above. No public item
//! names the client library, and no text holds a secret.

use std::{
    borrow::Cow,
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ConnectErrorKind, Event, HeaderMap, ServerAddr, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use tokio::{
    runtime::{Handle, Runtime},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub(crate) use batch::{Answer, Requests};
use batch::{Inboxes, WINDOW};

use crate::{
    request_reply::{RequestError, RequestErrorKind, RequestReply},
    storage::{StorageError, StorageErrorKind},
};

mod batch;

/// How to reach the servers.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// `nats://host:port`, `tls://…`, `ws://…`, `wss://…`; tried in random order.
    pub servers: Vec<String>,
    /// Shown in the server's connection list.
    pub client_name: String,
    /// How to prove who connects.
    pub auth: Auth,
    /// Encryption.
    pub tls: Tls,
    /// How long one attempt to connect may take.
    pub connection_timeout: Duration,
    /// How long to wait for an answer before the effect of a request counts as unknown.
    pub request_timeout: Duration,
    /// Attempts to reconnect before the connection is given up; `None` for no limit.
    pub max_reconnect_attempts: Option<usize>,
    /// The longest pause between two attempts; the first few are shorter.
    pub reconnect_wait: Duration,
    /// How often an idle connection is probed; two missed answers count as a lost connection.
    pub ping_interval: Duration,
    /// How long [`ConnectionService::close`] waits for what is still to be sent.
    pub flush_timeout: Duration,
    /// And then for subscriptions to end.
    pub drain_timeout: Duration,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".into()],
            client_name: "naq".into(),
            auth: Auth::None,
            tls: Tls::default(),
            connection_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            max_reconnect_attempts: None,
            reconnect_wait: Duration::from_secs(2),
            ping_interval: Duration::from_secs(20),
            flush_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// How to prove who connects. User and password or a token may also stand in a server's URL.
#[derive(Clone, Default)]
pub enum Auth {
    /// Nothing to prove.
    #[default]
    None,
    /// A user and a password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Token(String),
    /// The seed of an nkey.
    Nkey(String),
    /// A credentials file (JWT and nkey seed).
    CredentialsFile(PathBuf),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::UserPassword { .. } => "UserPassword(…)",
            Self::Token(_) => "Token(…)",
            Self::Nkey(_) => "Nkey(…)",
            Self::CredentialsFile(_) => "CredentialsFile(…)",
        })
    }
}

/// Encryption of the connection. A `tls://` or `wss://` URL asks for it too.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Certificates of authorities to trust beside the system's, PEM.
    pub ca: Option<PathBuf>,
    /// The client's certificate, PEM.
    pub cert: Option<PathBuf>,
    /// The key of the client's certificate, PEM.
    pub key: Option<PathBuf>,
    /// Refuse a connection without encryption.
    pub required: bool,
    /// Begin with the TLS handshake, before the server's greeting; the server has to be set up for it.
    pub first: bool,
}

/// One connection to NATS. Cheap to clone; all clones are the same connection.
#[derive(Clone)]
pub struct ConnectionService {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    location: String,
    options: ConnectionOptions,
    reconnects: watch::Receiver<u64>,
    closed: CancellationToken,
    inboxes: Inboxes,
    _driver: Driver,
}

/// The thread on which the client reads and writes. Handlers that burn the caller's threads must not keep messages in the
/// client: a delivery that waits there is not known to the worker, and its lease runs out unextended.
struct Driver(Option<Runtime>);

impl Driver {
    fn start() -> Result<Self, StorageError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("naq-nats")
            .enable_all()
            .build()
            .map_err(|error| {
                StorageError::new(StorageErrorKind::Refused, "connect", format!("cannot start a thread: {error}"))
                    .with_source(error)
            })?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> &Handle {
        self.0.as_ref().expect("it is taken only when dropped").handle()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // In the background, because the last handle may be dropped on an async thread, which must not block.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestFailure {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the connection was lost while waiting for the answer")]
    Disconnected,
    #[error("nobody serves this request")]
    NoResponders,
    #[error("the message is larger than the server takes")]
    TooLarge,
    #[error("the connection is closed")]
    Closed,
    #[error("the client refused the request")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A request on its way out.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) subject: String,
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) payload: Bytes,
}

impl ConnectionService {
    /// Connects, trying each server once.
    ///
    /// # Errors
    /// [`StorageErrorKind::Unreachable`] if no server answers, [`StorageErrorKind::Denied`] if one refuses the
    /// credentials, [`StorageErrorKind::Refused`] if an address or a file is no good.
    pub async fn connect(options: ConnectionOptions) -> Result<Self, StorageError> {
        let addresses = parse_servers(&options.servers)?;
        let location = addresses
            .iter()
            .map(|a| format!("{}://{}:{}", a.scheme(), a.host(), a.port()))
            .collect::<Vec<_>>()
            .join(",");
        let (reconnected, reconnects) = watch::channel(0);
        let lost = Arc::new(AtomicBool::new(false));
        let reconnected = Arc::new(reconnected);
        let settings =
            with_auth(client_settings(&options), &options.auth, &addresses).await?.event_callback(move |event| {
                match event {
                    Event::Disconnected => lost.store(true, Ordering::Relaxed),
                    // The first connection is announced too; only a later one puts answers in doubt.
                    Event::Connected if lost.swap(false, Ordering::Relaxed) => reconnected.send_modify(|n| *n += 1),
                    _ => {}
                }
                std::future::ready(())
            });
        let driver = Driver::start()?;
        let connected = driver.handle().spawn(async move { settings.connect(addresses).await }).await;
        let client = connected
            .map_err(|error| {
                StorageError::new(StorageErrorKind::Closed, "connect", "connecting was interrupted").with_source(error)
            })?
            .map_err(|error| connect_error(error, &location))?;
        let closed = CancellationToken::new();
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                location,
                options,
                reconnects,
                closed,
                inboxes: Inboxes::default(),
                _driver: driver,
            }),
        })
    }

    /// A second connection with the same settings and another name.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn another(&self, client_name: String) -> Result<Self, StorageError> {
        Self::connect(ConnectionOptions { client_name, ..self.inner.options.clone() }).await
    }

    /// The servers, without credentials.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.inner.location
    }

    /// The version that the connected server names.
    #[must_use]
    pub fn server_version(&self) -> String {
        self.inner.client.server_info().version
    }

    /// The id of the connected server; another one after each of its restarts.
    #[must_use]
    pub fn server_id(&self) -> String {
        self.inner.client.server_info().server_id
    }

    /// The largest message that the server takes, headers included, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.inner.client.max_payload()
    }

    /// Whether there is a connection at the moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Sends what is left, within the drain timeout, and closes. Idempotent.
    pub async fn close(&self) {
        if self.inner.closed.is_cancelled() {
            return;
        }
        self.inner.closed.cancel();
        // A failure means that the connection is gone already, or that the server does not take the rest in time.
        if tokio::time::timeout(self.inner.options.flush_timeout, self.inner.client.flush()).await.is_err() {
            tracing::debug!(location = self.location(), "closed with unsent messages");
        }
        match tokio::time::timeout(self.inner.options.drain_timeout, self.inner.client.drain()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the connection was closed already"),
            Err(_) => tracing::debug!(location = self.location(), "closed with open subscriptions"),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.closed.is_cancelled()
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.inner.closed
    }

    /// Counts reconnects: a change puts every answer that is waited for in doubt.
    pub(crate) fn reconnects(&self) -> watch::Receiver<u64> {
        let mut reconnects = self.inner.reconnects.clone();
        reconnects.mark_unchanged();
        reconnects
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.inner.options.request_timeout
    }

    pub(crate) fn new_inbox(&self) -> String {
        self.inner.client.new_inbox()
    }

    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscriber, RequestFailure> {
        self.inner.client.subscribe(subject).await.map_err(|_| RequestFailure::Closed)
    }

    /// Sends without waiting for an answer. While disconnected it waits until there is room to buffer the message.
    pub(crate) async fn publish(
        &self,
        subject: String,
        reply: Option<String>,
        payload: Bytes,
    ) -> Result<(), RequestFailure> {
        let client = &self.inner.client;
        let sent = async {
            match reply {
                Some(reply) => client.publish_with_reply(subject, reply, payload).await,
                None => client.publish(subject, payload).await,
            }
        };
        match tokio::time::timeout(self.request_timeout(), sent).await {
            Ok(sent) => sent.map_err(|_| RequestFailure::Closed),
            Err(_) => Err(RequestFailure::Timeout(self.request_timeout())),
        }
    }

    /// Sends messages in order without asking for answers. After the request timeout the rest is given up.
    pub(crate) async fn publish_all(&self, messages: Vec<Outgoing>) -> Vec<Result<(), RequestFailure>> {
        let (client, count) = (&self.inner.client, messages.len());
        let mut sent = Vec::with_capacity(count);
        let sending = async {
            for Outgoing { subject, headers, payload } in messages {
                let taken = match headers {
                    Some(headers) => client.publish_with_headers(subject, headers, payload).await,
                    None => client.publish(subject, payload).await,
                };
                sent.push(taken.map_err(batch::refusal));
            }
        };
        // Who cannot send all in time sees in `sent` how far it went.
        let _complete = tokio::time::timeout(self.request_timeout(), sending).await;
        sent.resize_with(count, || Err(RequestFailure::Timeout(self.request_timeout())));
        sent
    }

    /// Sends requests in order, a bounded number in flight, and returns their answers in order. Gives up what is still
    /// open after `silence` without any answer, and what is in flight when the connection was lost.
    ///
    /// # Cancel safety
    /// A dropped call may have sent any of its requests.
    pub(crate) async fn request_all(&self, requests: Vec<Outgoing>, silence: Duration) -> Vec<Answer> {
        self.exchange_all(Box::new(requests.into_iter()), |answer| answer, silence).await
    }

    /// The same with requests that are made when there is room for them, and with answers that are read as they come.
    pub(crate) async fn exchange_all<T>(
        &self,
        requests: Requests<'_>,
        read: impl Fn(Answer) -> T,
        silence: Duration,
    ) -> Vec<T> {
        self.send_all(requests, read, silence, None).await
    }

    /// The same, and gives up what is still open after `bound`.
    pub(crate) async fn request_all_within(&self, requests: Vec<Outgoing>, bound: Duration) -> Vec<Answer> {
        self.send_all(Box::new(requests.into_iter()), |answer| answer, bound, Some(Instant::now() + bound)).await
    }
}

impl fmt::Debug for ConnectionService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionService").field("location", &self.inner.location).finish_non_exhaustive()
    }
}

fn parse_servers(servers: &[String]) -> Result<Vec<ServerAddr>, StorageError> {
    let refuse = |detail: String| {
        StorageError::new(StorageErrorKind::Refused, "connect", detail)
            .with_hint("write servers as nats://HOST:PORT, for example nats://127.0.0.1:4222")
    };
    if servers.is_empty() {
        return Err(refuse("no NATS server is given".into()));
    }
    servers
        .iter()
        .enumerate()
        .map(|(index, text)| {
            // The text may hold a password, so the message names its place instead.
            text.trim()
                .parse::<ServerAddr>()
                .map_err(|error| refuse(format!("server address {} is no good: {error}", index + 1)))
        })
        .collect()
}

fn client_settings(options: &ConnectionOptions) -> async_nats::ConnectOptions {
    let longest = options.reconnect_wait;
    let mut settings = async_nats::ConnectOptions::new()
        .name(&options.client_name)
        .connection_timeout(options.connection_timeout)
        .request_timeout(Some(options.request_timeout))
        .ping_interval(options.ping_interval)
        .client_capacity(2 * WINDOW)
        .max_reconnects(options.max_reconnect_attempts)
        .reconnect_delay_callback(move |attempt| match attempt {
            0 | 1 => Duration::ZERO,
            // 10, 20, 40 … ms: a server that restarts is found again quickly.
            n => Duration::from_millis(10 << (n - 2).min(10)).min(longest),
        })
        .require_tls(options.tls.required);
    if options.tls.first {
        settings = settings.tls_first();
    }
    if let Some(ca) = &options.tls.ca {
        settings = settings.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&options.tls.cert, &options.tls.key) {
        settings = settings.add_client_certificate(cert.clone(), key.clone());
    }
    settings
}

async fn with_auth(
    settings: async_nats::ConnectOptions,
    auth: &Auth,
    servers: &[ServerAddr],
) -> Result<async_nats::ConnectOptions, StorageError> {
    Ok(match auth {
        // The client itself passes over what stands in a URL. A name alone is a token, as everywhere in NATS.
        Auth::None => match servers.iter().find_map(|server| Some((server.username()?, server.password()))) {
            Some((user, Some(password))) => settings.user_and_password(unescape(user), unescape(password)),
            Some((token, None)) => settings.token(unescape(token)),
            None => settings,
        },
        Auth::UserPassword { user, password } => settings.user_and_password(user.clone(), password.clone()),
        Auth::Token(token) => settings.token(token.clone()),
        Auth::Nkey(seed) => settings.nkey(seed.clone()),
        Auth::CredentialsFile(path) => settings.credentials_file(path).await.map_err(|error| {
            StorageError::new(
                StorageErrorKind::Refused,
                "connect",
                format!("cannot read the credentials file {}: {error}", path.display()),
            )
            .with_source(error)
        })?,
    })
}

/// Undoes the `%40` of a URL. What is no such escape, or then no text, stays as it is.
fn unescape(text: &str) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(|_| text.to_owned(), Cow::into_owned)
}

fn connect_error(error: async_nats::ConnectError, location: &str) -> StorageError {
    let (kind, what, hint) = match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => (
            StorageErrorKind::Denied,
            "refused the credentials",
            "check nats.auth, or the user and password in the URL",
        ),
        ConnectErrorKind::ServerParse => (StorageErrorKind::Refused, "is no address", "write nats://HOST:PORT"),
        ConnectErrorKind::Tls => {
            (StorageErrorKind::Refused, "cannot be reached over TLS", "check nats.tls: certificates, names, key")
        }
        ConnectErrorKind::TimedOut | ConnectErrorKind::Dns | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
            (
                StorageErrorKind::Unreachable,
                "cannot be reached",
                "is the server running? start one with `nats-server -js`, or use the embedded store by leaving NAQ_URL unset",
            )
        }
    };
    StorageError::new(kind, "connect", format!("NATS at {location} {what}: {error}")).with_hint(hint).with_source(error)
}

#[async_trait]
impl RequestReply for ConnectionService {
    async fn request(&self, subject: &str, body: Bytes, timeout: Duration) -> Result<Bytes, RequestError> {
        let question = Outgoing { subject: subject.to_owned(), headers: None, payload: body };
        let mut answers = self.request_all(vec![question], timeout).await;
        let failure = match answers.pop() {
            Some(Ok(answer)) => return Ok(answer.payload),
            Some(Err(failure)) => failure,
            None => RequestFailure::Closed,
        };
        let kind = match failure {
            RequestFailure::NoResponders => RequestErrorKind::NoResponder,
            RequestFailure::Timeout(_) => RequestErrorKind::Timeout,
            RequestFailure::TooLarge => RequestErrorKind::TooLarge,
            RequestFailure::Disconnected | RequestFailure::Closed | RequestFailure::Client(_) => {
                RequestErrorKind::Unreachable
            }
        };
        Err(RequestError { kind, message: format!("{subject} at {}: {failure}", self.location()) })
    }
}
