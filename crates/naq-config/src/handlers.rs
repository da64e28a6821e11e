//! Handlers in other languages, as the operator declares them: a program, an HTTP endpoint, a NATS service.
//!
//! Invariant: a `HandlerConfig` has exactly one way to call it, and holds only what that way uses; what does not fit
//! together (`http` with `cwd`) is refused when it is read. Values of `env` are secrets.
//!
//! Not here: running them (naq-worker).

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    serde_forms,
    text::{Secret, Url, words},
};

/// How jobs of one kind are handled outside this process.
#[derive(Debug, Clone, PartialEq)]
pub enum HandlerConfig {
    /// `exec`: run a program.
    Exec(ExecHandler),
    /// `http`: call an endpoint with the args as body.
    Http(HttpHandler),
    /// `nats`: ask a service on the NATS connection.
    Nats(NatsHandler),
}

/// A program that handles jobs. No shell is involved.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecHandler {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How jobs are handed to it.
    pub protocol: ExecProtocol,
    /// Variables to set besides the worker's own.
    pub env: BTreeMap<String, Secret>,
    /// Its working directory; unset means the worker's.
    pub cwd: Option<PathBuf>,
    /// Longest time of one run, if shorter than the job's own.
    pub timeout: Option<Duration>,
}

/// How jobs are handed to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecProtocol {
    /// One process per job: args on stdin, result on stdout, the outcome as exit code.
    Once,
    /// Long-lived processes: one JSON request and one JSON reply a line.
    Jsonl {
        /// How many processes.
        processes: u32,
    },
}

/// An HTTP endpoint that handles jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpHandler {
    /// `http://` or `https://`.
    pub url: Url,
    /// The method of the request.
    pub method: HttpMethod,
    /// Longest time of one call, if shorter than the job's own.
    pub timeout: Option<Duration>,
}

words! {
    /// The method of an HTTP handler's request.
    #[derive(Default)]
    HttpMethod {
        /// The usual one.
        #[default]
        Post = "post",
        /// For endpoints that replace.
        Put = "put",
        /// For endpoints that change.
        Patch = "patch",
        /// For endpoints that remove.
        Delete = "delete",
        /// For endpoints that only look.
        Get = "get",
    }
}

/// A NATS service that handles jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct NatsHandler {
    /// The subject to send requests to.
    pub subject: String,
    /// Longest wait for the reply, if shorter than the job's own timeout.
    pub timeout: Option<Duration>,
}

impl HandlerConfig {
    /// Longest time of one run, if the handler sets one.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Exec(exec) => exec.timeout,
            Self::Http(http) => http.timeout,
            Self::Nats(nats) => nats.timeout,
        }
    }
}

/// `protocol` as it is written.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProtocolWord {
    Once,
    Jsonl,
}

/// A handler as it is written: all keys side by side.
#[derive(Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct WrittenHandler {
    exec: Option<Vec<String>>,
    protocol: Option<ProtocolWord>,
    processes: Option<u32>,
    env: Option<BTreeMap<String, Secret>>,
    cwd: Option<PathBuf>,
    http: Option<Url>,
    method: Option<HttpMethod>,
    nats: Option<String>,
    #[serde(with = "serde_forms::optional_duration")]
    timeout: Option<Duration>,
}

/// Which keys of a handler do not go together.
#[derive(Debug, thiserror::Error)]
enum Mismatch {
    #[error("a handler needs exactly one of exec, http, nats; it has {0}")]
    NotOneCall(usize),
    #[error("{key} belongs to handlers with {owner}")]
    WrongOwner { key: &'static str, owner: &'static str },
}

impl WrittenHandler {
    fn read(self) -> Result<HandlerConfig, Mismatch> {
        let calls = [self.exec.is_some(), self.http.is_some(), self.nats.is_some()];
        let given = calls.iter().filter(|given| **given).count();
        if given != 1 {
            return Err(Mismatch::NotOneCall(given));
        }
        if self.exec.is_none() {
            let exec_keys = [
                ("protocol", self.protocol.is_some()),
                ("processes", self.processes.is_some()),
                ("env", self.env.is_some()),
                ("cwd", self.cwd.is_some()),
            ];
            if let Some((key, _)) = exec_keys.into_iter().find(|(_, given)| *given) {
                return Err(Mismatch::WrongOwner { key, owner: "exec" });
            }
        }
        if self.http.is_none() && self.method.is_some() {
            return Err(Mismatch::WrongOwner { key: "method", owner: "http" });
        }
        if let Some(command) = self.exec {
            let protocol = match (self.protocol.unwrap_or(ProtocolWord::Once), self.processes) {
                (ProtocolWord::Jsonl, processes) => ExecProtocol::Jsonl { processes: processes.unwrap_or(1) },
                (ProtocolWord::Once, None) => ExecProtocol::Once,
                (ProtocolWord::Once, Some(_)) => {
                    return Err(Mismatch::WrongOwner { key: "processes", owner: "protocol: jsonl" });
                }
            };
            let env = self.env.unwrap_or_default();
            return Ok(HandlerConfig::Exec(ExecHandler {
                command,
                protocol,
                env,
                cwd: self.cwd,
                timeout: self.timeout,
            }));
        }
        if let Some(url) = self.http {
            let method = self.method.unwrap_or_default();
            return Ok(HandlerConfig::Http(HttpHandler { url, method, timeout: self.timeout }));
        }
        let subject = self.nats.unwrap_or_default();
        Ok(HandlerConfig::Nats(NatsHandler { subject, timeout: self.timeout }))
    }

    fn write(handler: &HandlerConfig) -> Self {
        let timeout = handler.timeout();
        match handler.clone() {
            HandlerConfig::Exec(exec) => {
                let (protocol, processes) = match exec.protocol {
                    ExecProtocol::Once => (ProtocolWord::Once, None),
                    ExecProtocol::Jsonl { processes } => (ProtocolWord::Jsonl, Some(processes)),
                };
                Self {
                    exec: Some(exec.command),
                    protocol: Some(protocol),
                    processes,
                    env: Some(exec.env),
                    cwd: exec.cwd,
                    timeout,
                    ..Self::default()
                }
            }
            HandlerConfig::Http(http) => {
                Self { http: Some(http.url), method: Some(http.method), timeout, ..Self::default() }
            }
            HandlerConfig::Nats(nats) => Self { nats: Some(nats.subject), timeout, ..Self::default() },
        }
    }
}

impl<'de> Deserialize<'de> for HandlerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WrittenHandler::deserialize(deserializer)?.read().map_err(D::Error::custom)
    }
}

impl Serialize for HandlerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WrittenHandler::write(self).serialize(serializer)
    }
}
