//! `http`: one request per job.
//!
//! Invariant: the status decides: 2xx completes, 408, 429 and 5xx retry (after `Retry-After`, if given), everything else
//! fails for good. Redirects are not followed: the operator names the address. Cancelling closes the connection.

use std::{sync::Arc, time::Duration};

use chrono::DateTime;
use naq_config::{HttpHandler, HttpMethod};
use naq_models::{JobError, Verdict};
use naq_services::{JobContext, registration::HandlerFuture, trace_context};
use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, RETRY_AFTER},
    redirect::Policy,
};

use super::{
    ExternalErrorReason, STDERR_TAIL,
    message::compact,
    output::{completed, error, interrupted, too_large},
};
use crate::handler::ErasedHandler;

/// How long connecting may take; the answer may take as long as the job.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest `Retry-After` that is honoured; longer ones are cut to it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

pub(super) fn handler(kind: &str, config: &HttpHandler) -> Result<Arc<dyn ErasedHandler>, ExternalErrorReason> {
    let refused = |reason: String| ExternalErrorReason::Url { url: config.url.clone(), reason };
    let parsed = Url::parse(config.url.expose()).map_err(|e| refused(e.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(refused("it must start with http:// or https://".into()));
    }
    let method = match config.method {
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Get => Method::GET,
    };
    // If the program has chosen a provider already, that one is used.
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::none())
        .user_agent(concat!("naq/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| ExternalErrorReason::Client(chain(&e)))?;
    let shown = shown(&parsed);
    Ok(Arc::new(Http { inner: Arc::new(Inner { kind: kind.to_owned(), client, method, url: parsed, shown }) }))
}

/// The URL without what may be secret.
fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

struct Http {
    inner: Arc<Inner>,
}

struct Inner {
    kind: String,
    client: Client,
    method: Method,
    url: Url,
    shown: String,
}

impl ErasedHandler for Http {
    fn kind(&self) -> &str {
        &self.inner.kind
    }

    fn call(&self, cx: JobContext) -> HandlerFuture {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.run(&cx).await })
    }
}

impl Inner {
    async fn run(&self, cx: &JobContext) -> Verdict {
        tokio::select! {
            verdict = self.exchange(cx) => verdict,
            () = cx.cancelled() => interrupted(&format!("the request to {}", self.shown)),
        }
    }

    async fn exchange(&self, cx: &JobContext) -> Verdict {
        let context = trace_context::current();
        let traced = self.client.request(self.method.clone(), self.url.clone());
        let request = context
            .iter()
            .fold(traced, |request, (name, text)| request.header(name, text))
            .header(CONTENT_TYPE, "application/json")
            .header(HeaderName::from_static("naq-job-id"), cx.id().as_str())
            .header(HeaderName::from_static("naq-queue"), cx.queue().as_str())
            .header(HeaderName::from_static("naq-attempt"), cx.attempt())
            .body(compact(cx.job().args.get()));
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(e) => return self.unanswered(e),
        };
        let max = cx.storage().info().max_body;
        let status = response.status();
        let limit = if status.is_success() { max } else { STDERR_TAIL };
        match body(&mut response, limit).await {
            Ok(Body { complete: false, .. }) if status.is_success() => too_large(&self.shown, max),
            Ok(body) if status.is_success() => completed(&body.bytes),
            Ok(body) => self.refused(status, response.headers(), &body.bytes),
            Err(e) => self.unanswered(e),
        }
    }

    /// No answer, or half of one.
    fn unanswered(&self, e: reqwest::Error) -> Verdict {
        let error_type = match () {
            () if e.is_timeout() => "http_timeout",
            () if e.is_connect() => "http_connect",
            () => "http",
        };
        Verdict::Error(error(error_type, format!("{} {}: {}", self.method, self.shown, chain(&e.without_url()))))
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Verdict {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        let mut message = format!("{} {} answered {status}", self.method, self.shown);
        if let Some(line) = text.lines().next() {
            message.push_str(": ");
            message.extend(line.chars().take(200));
        }
        let mut error: JobError = error(format!("http_{}", status.as_u16()), message);
        if !text.is_empty() {
            error = error.with_backtrace(text);
        }
        let again = status == StatusCode::REQUEST_TIMEOUT
            || status == StatusCode::TOO_MANY_REQUESTS
            || status.is_server_error();
        if again { Verdict::Retry { after: retry_after(headers), error } } else { Verdict::Fail(error.permanent()) }
    }
}

struct Body {
    bytes: Vec<u8>,
    complete: bool,
}

async fn body(response: &mut Response, max: usize) -> reqwest::Result<Body> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = max - bytes.len();
        if chunk.len() > room {
            bytes.extend_from_slice(&chunk[..room]);
            return Ok(Body { bytes, complete: false });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body { bytes, complete: true })
}

/// Seconds, or a date, which is compared with the server's own clock (`Date`).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let after = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let then = DateTime::parse_from_rfc2822(text).ok()?;
            let now = DateTime::parse_from_rfc2822(headers.get(DATE)?.to_str().ok()?).ok()?;
            (then - now).to_std().unwrap_or(Duration::ZERO)
        }
    };
    Some(after.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |retry: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, retry.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            retry_after(&headers)
        };
        let (then, now) = ("Sat, 21 Nov 2026 22:11:30 GMT", "Sat, 21 Nov 2026 22:11:00 GMT");
        assert_eq!(after("7", None), Some(Duration::from_secs(7)));
        assert_eq!(after(then, Some(now)), Some(Duration::from_secs(30)));
        assert_eq!(after(now, Some(then)), Some(Duration::ZERO), "already past");
        assert_eq!(after(then, None), None);
        assert_eq!(after("soon", Some(now)), None);
        assert_eq!(after("99999999999", None), Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn secrets_are_not_shown() {
        let url = Url::parse("https://user:pass@example.com:8443/hook?token=x#y").unwrap();
        assert_eq!(shown(&url), "https://example.com:8443/hook");
    }
}
