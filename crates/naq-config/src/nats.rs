//! The section `nats`: servers, credentials, encryption, and how many copies streams have.
//!
//! Invariant: credentials are secrets or files; which of them go together is checked by `relations`.
//!
//! Not here: connecting.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{serde_forms, store::ServerUrl, text::Secret};

/// `nats`: servers, connection, and what the streams look like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// Servers of one cluster. Setting any chooses NATS as the store unless `storage.url` says otherwise.
    #[serde(deserialize_with = "serde_forms::server_list::deserialize")]
    pub servers: Vec<ServerUrl>,
    /// The name that the server shows for the connection.
    pub client_name: String,
    /// Attempts to reconnect before giving up; `None` never gives up.
    #[serde(with = "serde_forms::limit")]
    pub max_reconnect_attempts: Option<u32>,
    /// Pause between two attempts to reconnect.
    #[serde(with = "serde_forms::duration")]
    pub reconnect_time_wait: Duration,
    /// Longest wait for a connection to one server.
    #[serde(with = "serde_forms::duration")]
    pub connection_timeout: Duration,
    /// Longest wait for subscriptions to empty when a connection is closed.
    #[serde(with = "serde_forms::duration")]
    pub drain_timeout: Duration,
    /// Longest wait for buffered publishes to leave.
    #[serde(with = "serde_forms::duration")]
    pub flush_timeout: Duration,
    /// How often the connection is probed.
    #[serde(with = "serde_forms::duration")]
    pub ping_interval: Duration,
    /// Copies of each stream in the cluster, 1 to 5.
    pub replicas: u8,
    /// Credentials.
    pub auth: NatsAuthConfig,
    /// Encryption.
    pub tls: NatsTlsConfig,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            client_name: "naq".to_owned(),
            max_reconnect_attempts: None,
            reconnect_time_wait: Duration::from_secs(2),
            connection_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            flush_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(20),
            replicas: 1,
            auth: NatsAuthConfig::default(),
            tls: NatsTlsConfig::default(),
        }
    }
}

/// `nats.auth`: at most one of user and password, token, nkey seed, credentials file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsAuthConfig {
    /// User name, together with `password`.
    pub user: Option<String>,
    /// Password of `user`.
    pub password: Option<Secret>,
    /// A token.
    pub token: Option<Secret>,
    /// The seed of an nkey (`SU…`).
    pub nkey_seed: Option<Secret>,
    /// A `.creds` file with a JWT and its nkey.
    pub credentials_file: Option<PathBuf>,
}

/// `nats.tls`: encryption of the connection.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsTlsConfig {
    /// Refuse a connection without TLS, whatever the URL's scheme says.
    pub enabled: bool,
    /// Start with the TLS handshake instead of after the server's greeting.
    pub first: bool,
    /// Certificates (PEM) of authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate (PEM), together with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The key (PEM) of `cert_file`.
    pub key_file: Option<PathBuf>,
}
