//! [`Server`]: HTTP for metrics and probes: `/metrics`, `/healthz`, `/readyz`.
//!
//! Invariant: it answers from a thread of its own, whatever handlers do to the program's threads and whether the store is
//! there; it holds up nothing, least of all an end of the program. Connections are bounded in number and in silence. It
//! takes no input but the path. No TLS and no passwords: it listens on loopback unless it is told otherwise.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metrics::{CONTENT_TYPE, Metrics};

/// Connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 64;
/// A connection on which nothing moves for so long is cut: longer than from one scrape to the next, as a rule.
const SILENCE: Duration = Duration::from_secs(180);
/// After a connection could not be accepted: usually there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Answers one probe; an error says in one line why not.
pub type Probe = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the probes ask. Called on the server's thread; must not block.
pub struct Probes {
    /// `/healthz`: whether the process is of any use.
    pub alive: Probe,
    /// `/readyz`: whether it does its work now.
    pub ready: Probe,
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").finish_non_exhaustive()
    }
}

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl ListenError {
    /// Whether another program listens there.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// A server that runs until it is dropped, which does not wait for it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Server {
    /// Listens from now on, and answers on a thread of its own, which also reads the numbers of queues for `metrics`.
    ///
    /// # Errors
    /// If the address cannot be had, or the system gives no thread.
    pub fn start(address: SocketAddr, metrics: Metrics, probes: Probes) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(failed)?
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = metrics.keep_queues_read() => {}
                    never = serve(listener, metrics.clone(), probes) => match never {},
                }
            });
            // A read of the store that is under way must not hold up the end.
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name("naq-http".to_owned()).spawn(serve).map_err(failed)?;
        Ok(Self { address: bound, _stop: stop.drop_guard() })
    }

    /// Where it listens, with the port that it got if none was named.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: tokio::net::TcpListener, metrics: Metrics, probes: Probes) -> std::convert::Infallible {
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(async |State((_, probes)): State<Shared>| answer((probes.alive)())))
        .route("/readyz", get(async |State((_, probes)): State<Shared>| answer((probes.ready)())))
        .with_state((metrics, Arc::new(probes)));
    let listener = Bounded { listener, permits: Arc::new(Semaphore::new(CONNECTIONS)) };
    let ended = axum::serve(listener, router).await;
    unreachable!("a server that nobody stops goes on: {ended:?}")
}

type Shared = (Metrics, Arc<Probes>);

async fn scrape(State((metrics, _)): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.encode()).into_response()
}

fn answer(probed: Result<(), String>) -> Response {
    match probed {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Accepts so many connections at once.
struct Bounded {
    listener: tokio::net::TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => return (Connection::new(stream, permit), peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection to the metrics cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when nothing has moved on it for long.
struct Connection {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> Self {
        Self { stream, silence: Box::pin(sleep(SILENCE)), _permit: permit }
    }

    /// `moved` unless nothing has, for too long.
    fn watched<T>(&mut self, cx: &mut Context<'_>, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.silence.as_mut().reset(Instant::now() + SILENCE);
            return moved;
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watched(cx, moved)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watched(cx, moved)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watched(cx, moved)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
