//! `http`: a real socket with a server of a few lines.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use naq_config::HttpMethod;
use naq_models::{Verdict, error_type};
use naq_services::trace_context::{self, Propagator};
use naq_worker::ErasedHandler;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tracing::Span;

use super::{build, cancel_when, http, run};
use crate::{
    no_store::MAX_BODY,
    support::{context, error, failure, job, value},
};

/// Answers every request with the same bytes, and passes on what was asked. Ends when it is dropped.
struct Server {
    address: SocketAddr,
    requests: mpsc::Receiver<String>,
    _serving: JoinSet<()>,
}

impl Server {
    /// `None`: takes the request and never answers.
    async fn start(answer: Option<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel(16);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                sender.send(request).await.unwrap();
                match &answer {
                    Some(answer) => drop(stream.write_all(answer).await),
                    // The client closes the connection when it is cancelled.
                    None => {
                        let mut rest = [0; 1];
                        assert_eq!(stream.read(&mut rest).await.unwrap_or(0), 0);
                        sender.send("closed".into()).await.unwrap();
                    }
                }
            }
        });
        Self { address, requests, _serving: serving }
    }

    fn handler(&self, method: HttpMethod) -> Arc<dyn ErasedHandler> {
        let url = format!("http://user:secret@{}/hooks?token=secret", self.address);
        build(http(&url, method))
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "half a request: {text}");
    }
}

fn answer(status: &str, headers: &str, body: &str) -> Option<Vec<u8>> {
    let length = body.len();
    Some(
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
            .into_bytes(),
    )
}

async fn answered(status: &str, headers: &str, body: &str) -> Verdict {
    let server = Server::start(answer(status, headers, body)).await;
    run(&server.handler(HttpMethod::Post), json!({"a": 1})).await
}

#[tokio::test]
async fn the_arguments_are_the_body() {
    let mut server = Server::start(answer("200 OK", "", "{\"ok\": true}")).await;
    assert_eq!(value(run(&server.handler(HttpMethod::Put), json!({"a": [1, "x y"]})).await), json!({"ok": true}));
    let request = server.requests.recv().await.unwrap();
    assert!(request.starts_with("PUT /hooks?token=secret HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"a\":[1,\"x y\"]}"), "{request}");
    let request = request.to_ascii_lowercase();
    for header in ["content-type: application/json", "naq-job-id: job-1", "naq-attempt: 1", "naq-queue: default"] {
        assert!(request.contains(header), "{header} is missing: {request}");
    }
}

/// Stands for a library of traces.
#[derive(Debug)]
struct Traced;

impl Propagator for Traced {
    fn inject(&self, span: &Span) -> BTreeMap<String, String> {
        let name = span.metadata().map_or("nowhere", |metadata| metadata.name());
        BTreeMap::from([("traceparent".to_owned(), format!("00-{name}-01"))])
    }

    fn extract(&self, _: &Span, _: BTreeMap<String, String>) {}

    fn describe(&self, _: &Span, _: &[(&'static str, &str)]) {}
}

#[tokio::test]
async fn a_request_belongs_to_the_trace_of_its_run() {
    let mut server = Server::start(answer("200 OK", "", "1")).await;
    trace_context::set_propagator(Traced);
    run(&server.handler(HttpMethod::Post), json!({})).await;
    let request = server.requests.recv().await.unwrap().to_ascii_lowercase();
    assert!(request.contains("\r\ntraceparent: 00-nowhere-01\r\n"), "{request}");
}

#[tokio::test]
async fn success_is_json_or_text_or_null() {
    assert_eq!(value(answered("201 Created", "", "[1]").await), json!([1]));
    assert_eq!(value(answered("200 OK", "", "thanks\n").await), json!("thanks"));
    assert_eq!(value(answered("204 No Content", "", "").await), json!(null));
}

#[tokio::test]
async fn the_status_decides() {
    for (status, error_type) in
        [("408 Request Timeout", "http_408"), ("429 Too Many", "http_429"), ("503 Busy", "http_503")]
    {
        let Verdict::Retry { after: None, error } = answered(status, "", "later").await else { panic!("{status}") };
        assert_eq!((error.error_type.as_str(), error.backtrace.as_deref()), (error_type, Some("later")));
        assert!(error.message.contains("later") && !error.message.contains("secret"), "{}", error.message);
    }
    for (status, error_type) in [("400 Bad", "http_400"), ("404 Not Found", "http_404"), ("302 Found", "http_302")] {
        assert_eq!(failure(answered(status, "Location: /x\r\n", "").await).error_type, error_type);
    }
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let Verdict::Retry { after, .. } = answered("503 Busy", "Retry-After: 17\r\n", "").await else { panic!() };
    assert_eq!(after, Some(Duration::from_secs(17)));
}

#[tokio::test]
async fn a_body_is_bounded() {
    let verdict = answered("200 OK", "", &"x".repeat(MAX_BODY + 1)).await;
    assert_eq!(failure(verdict).error_type, error_type::RESULT_TOO_LARGE);
    let Verdict::Retry { error, .. } = answered("500 Oops", "", &"x".repeat(100_000)).await else { panic!() };
    assert!(error.backtrace.unwrap().len() <= 8 * 1024 && error.message.len() < 400);
}

#[tokio::test]
async fn no_answer_is_an_error_under_the_policy() {
    let server = Server::start(Some(b"nonsense\r\n\r\n".to_vec())).await;
    let told = error(run(&server.handler(HttpMethod::Post), json!({})).await);
    assert_eq!(told.error_type, "http");
    let handler = server.handler(HttpMethod::Post);
    drop(server);
    let told = error(run(&handler, json!({})).await);
    assert_eq!(told.error_type, "http_connect");
    assert!(!told.message.contains("secret"), "{}", told.message);
}

#[tokio::test]
async fn cancelling_closes_the_connection() {
    let mut server = Server::start(None).await;
    let handler = server.handler(HttpMethod::Post);
    let asked = async { drop(server.requests.recv().await.unwrap()) };
    let verdict = cancel_when(&handler, context(job("ext", json!({}))), asked).await;
    assert_eq!(error(verdict).error_type, "interrupted");
    assert_eq!(server.requests.recv().await.unwrap(), "closed");
}

#[tokio::test]
async fn https_is_spoken() {
    // A plain server answers a TLS greeting with something else: the failure must come from TLS, not from a missing scheme.
    let server = Server::start_raw().await;
    let handler = build(http(&format!("https://{}/", server.0), HttpMethod::Post));
    let told = error(run(&handler, json!({})).await);
    assert_eq!(told.error_type, "http_connect");
}

/// Answers whatever comes first in plain HTTP.
struct Raw(SocketAddr, #[expect(dead_code, reason = "ends the server when it is dropped")] JoinSet<()>);

impl Server {
    async fn start_raw() -> Raw {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut hello = [0; 1];
                stream.read_exact(&mut hello).await.unwrap();
                assert_eq!(hello[0], 0x16, "not a TLS handshake");
                drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
            }
        });
        Raw(address, serving)
    }
}
