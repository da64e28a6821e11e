//! Which store a configuration means: the `StoreUrl`, how it is written, and the order in which it is chosen.
//!
//! Invariant: a `StoreUrl` names a backend and an address that were checked when it was parsed; it never prints
//! credentials. Choosing is a pure function of the configuration and the state directory.
//!
//! Not here: opening the store, and whether the address answers.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{NaqConfig, text};

/// The schemes of a NATS server's URL.
const NATS_SCHEMES: [&str; 4] = ["nats", "tls", "ws", "wss"];
/// The server that a NATS client tries when nothing else is said; used as an example, never as a silent default.
pub const DEFAULT_NATS_URL: &str = "nats://localhost:4222";
/// The name of the embedded store's file within the user's state directory.
const EMBEDDED_FILE: &str = "naq.db";
/// The longest name of a memory store, in bytes.
const MEMORY_NAME_MAX: usize = 64;

/// Where jobs are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreUrl {
    /// One file, shared by the processes of one machine: `sqlite:///var/lib/naq.db`, `sqlite:jobs.db`.
    Sqlite {
        /// The file, as written: a relative path is relative to the working directory.
        path: PathBuf,
    },
    /// Within this process only, for tests: `memory://`, `memory://NAME`.
    Memory {
        /// Stores of the same name in one process are one store.
        name: String,
    },
    /// NATS JetStream: `nats://host:4222`, also `tls://`, `ws://`, `wss://`, several with commas between them.
    Nats {
        /// At least one.
        servers: Vec<ServerUrl>,
    },
}

/// Why a text is not a store's URL or a server's. It never carries credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} {}", kind.reason())]
pub struct StoreUrlError {
    url: String,
    kind: StoreUrlErrorKind,
}

/// What is wrong with the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreUrlErrorKind {
    /// There is no `scheme:`.
    NoScheme,
    /// The scheme names no store.
    UnknownScheme,
    /// A `sqlite:` URL without a path.
    NoPath,
    /// A `sqlite:` URL with `?parameters`, which belong in `storage`.
    Parameters,
    /// A memory store's name with other characters than `[A-Za-z0-9_-]`, or too long.
    MemoryName,
    /// A server's URL without a host, or with a port that is not one.
    HostOrPort,
}

impl StoreUrlErrorKind {
    fn reason(self) -> &'static str {
        match self {
            Self::NoScheme | Self::UnknownScheme => {
                "is not a store: write sqlite:PATH, sqlite:///ABSOLUTE/PATH, nats://HOST:PORT (also tls://, ws://, \
                 wss://; several with commas) or memory://NAME"
            }
            Self::NoPath => "names no file: write sqlite:PATH or sqlite:///ABSOLUTE/PATH (memory:// keeps nothing)",
            Self::Parameters => "has parameters after `?`: set them under `storage` in the configuration instead",
            Self::MemoryName => "has a name that is not [A-Za-z0-9_-]{0,64}",
            Self::HostOrPort => "has no host or a wrong port: write nats://HOST:PORT",
        }
    }
}

impl StoreUrlError {
    fn new(url: &str, kind: StoreUrlErrorKind) -> Self {
        Self { url: text::redacted(url), kind }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> StoreUrlErrorKind {
        self.kind
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(url: &str) -> Result<Self, StoreUrlError> {
        let url = url.trim();
        let fail = |kind| Err(StoreUrlError::new(url, kind));
        let Some((scheme, rest)) = url.split_once(':') else { return fail(StoreUrlErrorKind::NoScheme) };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        match scheme.to_ascii_lowercase().as_str() {
            "sqlite" if rest.contains('?') => fail(StoreUrlErrorKind::Parameters),
            "sqlite" if rest.is_empty() || rest == ":memory:" => fail(StoreUrlErrorKind::NoPath),
            "sqlite" => Ok(Self::Sqlite { path: PathBuf::from(rest) }),
            "memory" => {
                let valid = rest.len() <= MEMORY_NAME_MAX
                    && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                if valid { Ok(Self::Memory { name: rest.to_owned() }) } else { fail(StoreUrlErrorKind::MemoryName) }
            }
            scheme if NATS_SCHEMES.contains(&scheme) => Ok(Self::Nats { servers: ServerUrl::parse_list(url)? }),
            // `host:4222` and `C:\jobs.db` have a colon, but what stands before it is no scheme.
            _ if !url.contains("://") => fail(StoreUrlErrorKind::NoScheme),
            _ => fail(StoreUrlErrorKind::UnknownScheme),
        }
    }
}

impl fmt::Display for StoreUrl {
    /// The URL without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => write!(f, "sqlite://{}", path.display()),
            Self::Memory { name } => write!(f, "memory://{name}"),
            Self::Nats { servers } => {
                for (n, server) in servers.iter().enumerate() {
                    let comma = if n == 0 { "" } else { "," };
                    write!(f, "{comma}{server}")?;
                }
                Ok(())
            }
        }
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The address of one NATS server: `nats://`, `tls://`, `ws://` or `wss://`, credentials allowed; `host:port` alone
/// means `nats://`. Printed without credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// The whole URL, credentials included, for the one place that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Several addresses with commas between them.
    ///
    /// # Errors
    /// The first address that is not one; also if there is none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, StoreUrlError> {
        let parts = text::split_urls(text);
        if parts.is_empty() {
            return Err(StoreUrlError::new(text, StoreUrlErrorKind::HostOrPort));
        }
        parts.into_iter().map(str::parse).collect()
    }
}

impl FromStr for ServerUrl {
    type Err = StoreUrlError;

    fn from_str(url: &str) -> Result<Self, StoreUrlError> {
        let url = url.trim();
        let (scheme, rest) = match url.split_once("://") {
            // The old name of the scheme.
            Some(("nats-tls", rest)) => ("tls", rest),
            Some((scheme, rest)) => (scheme, rest),
            None => ("nats", url),
        };
        if !NATS_SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) {
            return Err(StoreUrlError::new(url, StoreUrlErrorKind::UnknownScheme));
        }
        let after_credentials = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let authority = after_credentials.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or("not a port"))),
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let port_is_valid = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
        if host.is_empty() || host.contains(char::is_whitespace) || !port_is_valid {
            return Err(StoreUrlError::new(url, StoreUrlErrorKind::HostOrPort));
        }
        Ok(Self(format!("{}://{rest}", scheme.to_ascii_lowercase())))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text::redacted(&self.0))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&text::redacted(&self.0), f)
    }
}

impl Serialize for ServerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServerUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The store of a configuration and why it is that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreChoice {
    /// Where jobs are kept.
    pub url: StoreUrl,
    /// Which setting said so.
    pub chosen_by: ChosenBy,
}

/// The setting that decided on the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChosenBy {
    /// `storage.url` (also `--url` and `NAQ_URL`).
    StorageUrl,
    /// `nats.servers` (also `NAQ_NATS_URL`).
    NatsServers,
    /// Nothing: the embedded file in the user's state directory.
    Default,
}

impl fmt::Display for StoreChoice {
    /// One line for the user, without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chosen_by {
            ChosenBy::StorageUrl | ChosenBy::NatsServers => write!(f, "{}", self.url),
            ChosenBy::Default => {
                write!(
                    f,
                    "{} (the embedded store, as nothing else is configured: --url, NAQ_URL or storage.url)",
                    self.url
                )
            }
        }
    }
}

/// Nothing names a store, and there is no state directory for the embedded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no store is configured, and neither XDG_STATE_HOME nor HOME says where to keep the embedded one; set NAQ_URL or storage.url"
)]
pub struct NoStateDirectory;

/// Chooses the store: `storage.url`, else `nats.servers`, else the embedded file below `state_directory`.
///
/// # Errors
/// If it comes to the embedded file and there is no state directory.
pub fn choose_store(config: &NaqConfig, state_directory: Option<&Path>) -> Result<StoreChoice, NoStateDirectory> {
    if let Some(url) = &config.storage.url {
        return Ok(StoreChoice { url: url.clone(), chosen_by: ChosenBy::StorageUrl });
    }
    if !config.nats.servers.is_empty() {
        let servers = config.nats.servers.clone();
        return Ok(StoreChoice { url: StoreUrl::Nats { servers }, chosen_by: ChosenBy::NatsServers });
    }
    let path = state_directory.ok_or(NoStateDirectory)?.join(EMBEDDED_FILE);
    Ok(StoreChoice { url: StoreUrl::Sqlite { path }, chosen_by: ChosenBy::Default })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(path: &str) -> StoreUrl {
        StoreUrl::Sqlite { path: path.into() }
    }

    #[test]
    fn stores_are_read_as_written() {
        for (url, store) in [
            ("sqlite:///var/naq.db", sqlite("/var/naq.db")),
            ("sqlite:/var/naq.db", sqlite("/var/naq.db")),
            ("sqlite:jobs.db", sqlite("jobs.db")),
            ("sqlite://jobs.db", sqlite("jobs.db")),
            ("sqlite:C:\\naq.db", sqlite("C:\\naq.db")),
            ("memory://", StoreUrl::Memory { name: String::new() }),
            ("memory://a-1", StoreUrl::Memory { name: "a-1".into() }),
        ] {
            assert_eq!(url.parse(), Ok(store), "{url}");
        }
        for (url, servers) in [
            ("nats://a:4222", vec!["nats://a:4222"]),
            ("nats://a:4222,b:4223", vec!["nats://a:4222", "nats://b:4223"]),
            ("tls://[::1]:4222", vec!["tls://[::1]:4222"]),
            ("wss://u:p@h/path", vec!["wss://u:p@h/path"]),
        ] {
            let Ok(StoreUrl::Nats { servers: read }) = url.parse() else { panic!("{url}") };
            assert_eq!(read.iter().map(ServerUrl::expose).collect::<Vec<_>>(), servers);
        }
    }

    #[test]
    fn what_is_no_store_is_refused_with_its_reason() {
        use StoreUrlErrorKind::*;
        for (url, kind) in [
            ("", NoScheme),
            ("jobs.db", NoScheme),
            ("host:4222", NoScheme),
            ("redis://h", UnknownScheme),
            ("sqlite:", NoPath),
            ("sqlite::memory:", NoPath),
            ("sqlite://a.db?mode=rwc", Parameters),
            ("memory://a b", MemoryName),
            ("nats://", HostOrPort),
            ("nats://h:99999", HostOrPort),
            ("nats://u:p@:4222", HostOrPort),
            ("nats://a,redis://b", UnknownScheme),
        ] {
            assert_eq!(url.parse::<StoreUrl>().map_err(|e| e.kind()), Err(kind), "{url}");
        }
        let error = "redis://me:hunter2@h".parse::<StoreUrl>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
