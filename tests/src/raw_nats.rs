//! The NATS protocol by hand, for tests that must not trust a client library: greeting, ping, publish, request, serve.
//!
//! One request at a time, and a connection that serves does nothing else. It keeps no state that a real client would (no reconnect, no headers); anything it does not
//! expect is an error.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For the answer to anything.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What the server says of itself to everyone who connects.
pub(crate) async fn greeting(address: SocketAddr) -> Result<Value> {
    let stream = BufReader::new(TcpStream::connect(address).await?);
    Ok(greeted(stream).await?.0)
}

async fn greeted(mut stream: BufReader<TcpStream>) -> Result<(Value, BufReader<TcpStream>)> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let info = line.strip_prefix("INFO ").with_context(|| format!("no greeting but {line:?}"))?;
    Ok((serde_json::from_str(info)?, stream))
}

/// A connection.
#[derive(Debug)]
pub struct RawNats {
    /// The server's greeting: `version`, `jetstream`, `max_payload` and so on.
    pub info: Value,
    stream: BufReader<TcpStream>,
    requests: u64,
}

impl RawNats {
    /// Connects without credentials and waits until the server has accepted that.
    pub async fn connect(address: SocketAddr) -> Result<RawNats> {
        RawNats::connect_as(address, "", "").await
    }

    /// Connects as a user and waits until the server has accepted that.
    pub async fn connect_as(address: SocketAddr, user: &str, password: &str) -> Result<RawNats> {
        let stream = BufReader::new(TcpStream::connect(address).await?);
        let (info, stream) = timeout(ANSWER_LIMIT, greeted(stream)).await.context("no greeting")??;
        let mut connection = RawNats { info, stream, requests: 0 };
        let mut options = json!({"verbose": false, "pedantic": false, "headers": false});
        if !user.is_empty() {
            options["user"] = user.into();
            options["pass"] = password.into();
        }
        connection.write(format!("CONNECT {options}\r\n").as_bytes()).await?;
        connection.ping().await?;
        Ok(connection)
    }

    /// Whether the server lets this connection publish to a subject. An empty message goes there if it does.
    pub async fn may_publish(&mut self, subject: &str) -> Result<bool> {
        self.publish(subject, b"").await?;
        self.passed().await
    }

    /// Whether the server lets this connection subscribe to a subject.
    pub async fn may_subscribe(&mut self, subject: &str) -> Result<bool> {
        self.requests += 1;
        self.write(format!("SUB {subject} {0}\r\nUNSUB {0}\r\n", self.requests).as_bytes()).await?;
        self.passed().await
    }

    /// Whether the server took what was written last.
    async fn passed(&mut self) -> Result<bool> {
        self.write(b"PING\r\n").await?;
        let line = self.line().await?;
        if line == "PONG" {
            return Ok(true);
        }
        ensure!(line.starts_with("-ERR 'Permissions Violation"), "no refusal but {line:?}");
        let pong = self.line().await?;
        ensure!(pong == "PONG", "no pong but {pong:?}");
        Ok(false)
    }

    /// Returns once the server has answered a ping, so that it has seen everything written before.
    pub async fn ping(&mut self) -> Result<()> {
        self.write(b"PING\r\n").await?;
        let line = self.line().await?;
        ensure!(line == "PONG", "no pong but {line:?}");
        Ok(())
    }

    /// Publishes without waiting for anything.
    pub async fn publish(&mut self, subject: &str, payload: &[u8]) -> Result<()> {
        self.publish_with_reply(subject, "", payload).await
    }

    /// Publishes and returns the first answer.
    pub async fn request(&mut self, subject: &str, payload: &[u8]) -> Result<Vec<u8>> {
        self.requests += 1;
        let id = self.requests;
        let inbox = format!("_INBOX.raw.{}.{id}", self.info["client_id"]);
        self.write(format!("SUB {inbox} {id}\r\nUNSUB {id} 1\r\n").as_bytes()).await?;
        self.publish_with_reply(subject, &inbox, payload).await?;

        let line = self.line().await?;
        Ok(self.message(&line).await?.1)
    }

    /// Subscribes to a subject, to be served with [`RawNats::next_request`].
    pub async fn subscribe(&mut self, subject: &str) -> Result<()> {
        self.requests += 1;
        self.write(format!("SUB {subject} {}\r\n", self.requests).as_bytes()).await?;
        self.ping().await
    }

    /// Waits, however long, for the next message of the subscription: where to reply to, and its payload.
    pub async fn next_request(&mut self) -> Result<(String, Vec<u8>)> {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await?;
            match line.trim_end() {
                "" => bail!("the server closed the connection"),
                "PING" => self.write(b"PONG\r\n").await?,
                line if line.starts_with("INFO ") => {}
                line => return self.message(line).await,
            }
        }
    }

    /// The rest of a message whose first line is `MSG <subject> <sid> [reply] <size>`: where to reply to, and its payload.
    async fn message(&mut self, line: &str) -> Result<(String, Vec<u8>)> {
        let words: Vec<&str> = line.split(' ').collect();
        let (reply, size) = match words[..] {
            ["MSG", _, _, size] => ("", size),
            ["MSG", _, _, reply, size] => (reply, size),
            _ => bail!("no message but {line:?}"),
        };
        let size: usize = size.parse()?;
        let mut payload = vec![0; size + b"\r\n".len()];
        timeout(ANSWER_LIMIT, self.stream.read_exact(&mut payload)).await.context("no whole message")??;
        payload.truncate(size);
        Ok((reply.to_owned(), payload))
    }

    /// Publishes and returns the answer of the JetStream API as JSON; an error if it holds one.
    pub async fn request_json(&mut self, subject: &str, payload: &Value) -> Result<Value> {
        let payload = if payload.is_null() { String::new() } else { payload.to_string() };
        let answer: Value = serde_json::from_slice(&self.request(subject, payload.as_bytes()).await?)?;
        if !answer["error"].is_null() {
            bail!("{subject}: {}", answer["error"]);
        }
        Ok(answer)
    }

    async fn publish_with_reply(&mut self, subject: &str, reply: &str, payload: &[u8]) -> Result<()> {
        let mut message = format!("PUB {subject} {reply} {}\r\n", payload.len()).into_bytes();
        message.extend_from_slice(payload);
        message.extend_from_slice(b"\r\n");
        self.write(&message).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(ANSWER_LIMIT, self.stream.write_all(bytes)).await.context("the server does not read")??;
        Ok(())
    }

    /// The next line that is not the server's own ping or a newer greeting.
    async fn line(&mut self) -> Result<String> {
        loop {
            let mut line = String::new();
            let read = self.stream.read_line(&mut line);
            timeout(ANSWER_LIMIT, read).await.context("the server does not answer")??;
            match line.trim_end() {
                "" => bail!("the server closed the connection"),
                "PING" => self.write(b"PONG\r\n").await?,
                line if line.starts_with("INFO ") => {}
                line => return Ok(line.to_owned()),
            }
        }
    }
}
