//! [`Collector`]: takes spans as an OpenTelemetry collector does, over HTTP, and keeps them.
//!
//! Invariant: it decodes what it is sent with the protocol's own definitions, and refuses everything else, so that what it
//! holds is what a real collector would hold.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;

/// More than a batch of spans ever has.
const MAX_BODY: usize = 16 << 20;

/// A span as it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// `service.name` of the process that sent it.
    pub service: String,
    /// What it is called.
    pub name: String,
    /// Which part of an exchange it is.
    pub kind: SpanKind,
    /// Its trace, in hex.
    pub trace: String,
    /// Itself, in hex.
    pub id: String,
    /// The span it belongs to, in hex; empty for the first of a trace.
    pub parent: String,
    /// Whether it failed, and why.
    pub error: Option<String>,
    /// What is said of it.
    pub attributes: BTreeMap<String, String>,
    /// Nanoseconds between its start and its end.
    pub nanoseconds: u64,
}

/// A running collector; ends with the test's process.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    refused: Arc<AtomicU64>,
}

impl Collector {
    /// Starts to listen on a free port of loopback.
    ///
    /// # Errors
    /// If there is none.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for a collector")?;
        let collector = Self { address: listener.local_addr()?, seen: Arc::default(), refused: Arc::default() };
        let (seen, refused) = (Arc::clone(&collector.seen), Arc::clone(&collector.refused));
        thread::Builder::new().name("collector".to_owned()).spawn(move || {
            for stream in listener.incoming().map_while(io::Result::ok) {
                let (seen, refused) = (Arc::clone(&seen), Arc::clone(&refused));
                thread::spawn(move || {
                    if serve(&stream, &seen).is_err() {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        })?;
        Ok(collector)
    }

    /// What to put into `traces.endpoint`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that has come in.
    #[must_use]
    pub fn spans(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests that were not what the protocol says.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Takes requests from one connection until it is closed.
fn serve(stream: &TcpStream, seen: &Mutex<Vec<Seen>>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let target = line.trim_end().to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, text)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), text.trim().to_owned());
        }
        let length: usize = headers.get("content-length").context("no length")?.parse()?;
        ensure!(length <= MAX_BODY, "{length} bytes");
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let is_traces = target == "POST /v1/traces HTTP/1.1"
            && headers.get("content-type").is_some_and(|kind| kind == "application/x-protobuf");
        let decoded = ExportTraceServiceRequest::decode(&*body).ok().filter(|_| is_traces);
        let status = if decoded.is_some() { "200 OK" } else { "400 Bad Request" };
        write!(&*stream, "HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")?;
        let Some(request) = decoded else { bail!("{target:?} with {headers:?} is not an export of traces") };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.resource_spans {
            let service = attributes(&resource.resource.unwrap_or_default().attributes);
            let service = service.get("service.name").cloned().unwrap_or_default();
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            seen.extend(spans.map(|span| see(&service, span)));
        }
    }
}

fn see(service: &str, span: Span) -> Seen {
    let kind = span.kind();
    let failed = span.status.as_ref().filter(|status| status.code() == StatusCode::Error);
    Seen {
        service: service.to_owned(),
        kind,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        error: failed.map(|status| status.message.clone()),
        attributes: attributes(&span.attributes),
        nanoseconds: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
        name: span.name,
    }
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    list.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
