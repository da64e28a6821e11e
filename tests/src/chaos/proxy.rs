//! A TCP proxy between one process and one server: whole, slow, lossy or cut, as the harness says.
//!
//! Invariant: bytes arrive whole and in order or the connection ends, as with TCP itself. A cut link is silent, like a pulled
//! cable: nobody is told, and what was sent arrives when it is whole again.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// When a lost piece is sent again for the first time; doubled each time, as TCP does.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// A connection of which one piece was lost so often is given up.
const TRIES: u32 = 5;
const PIECE: usize = 64 * 1024;

/// What becomes of bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Link {
    /// They arrive.
    Whole,
    /// Each piece takes so long.
    Slow(Duration),
    /// Each piece is lost with this probability and sent again later; in the end the connection breaks.
    Lossy(f64),
    /// Nothing arrives until it is whole again.
    Cut,
}

/// A running proxy; dropping it ends every connection through it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: watch::Sender<Link>,
    /// Ends with it.
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port of loopback and passes everything to `target`.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(target: SocketAddr, seed: u64) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (link, follower) = watch::channel(Link::Whole);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, target, follower, StdRng::seed_from_u64(seed)));
        Ok(Proxy { address, link, _serving: serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, for connections that exist too.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, link: watch::Receiver<Link>, mut dice: StdRng) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                let mut way = || Way { link: link.clone(), dice: StdRng::seed_from_u64(dice.random()) };
                connections.spawn(connect(client, target, way(), way()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A connection that breaks is an end like any other.
async fn connect(client: TcpStream, target: SocketAddr, mut there: Way, back: Way) -> io::Result<()> {
    there.travel().await?;
    let server = TcpStream::connect(target).await?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::try_join!(there.pass(from_client, to_server), back.pass(from_server, to_client)).map(drop)
}

/// One direction of a connection.
struct Way {
    link: watch::Receiver<Link>,
    dice: StdRng,
}

impl Way {
    async fn pass(
        mut self,
        mut from: tokio::net::tcp::OwnedReadHalf,
        mut to: tokio::net::tcp::OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let length = from.read(&mut piece).await?;
            self.travel().await?;
            if length == 0 {
                return to.shutdown().await;
            }
            to.write_all(&piece[..length]).await?;
        }
    }

    /// Returns when a piece has arrived; an error if the connection is broken.
    async fn travel(&mut self) -> io::Result<()> {
        loop {
            let link = *self.link.borrow_and_update();
            match link {
                Link::Whole => return Ok(()),
                Link::Slow(delay) => {
                    sleep(delay).await;
                    return Ok(());
                }
                Link::Lossy(share) => {
                    let mut lost = 0;
                    while self.dice.random_bool(share) {
                        sleep(RETRANSMISSION * 2_u32.pow(lost)).await;
                        lost += 1;
                        if lost == TRIES {
                            return Err(io::ErrorKind::ConnectionReset.into());
                        }
                    }
                    return Ok(());
                }
                Link::Cut => {
                    if self.link.changed().await.is_err() {
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                }
            }
        }
    }
}
