//! [`ListenAddress`]: where a worker answers metrics and probes.
//!
//! Invariant: a port alone means loopback, so that nothing is open to the network unless an address says so. What is
//! printed reads back as the same address. Looks no names up.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::number_or_text;

/// An address to listen on, written `9464` (loopback), `0.0.0.0:9464`, `[::1]:9464`, or with port 0 for one that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenAddress(pub SocketAddr);

impl ListenAddress {
    /// A port on loopback.
    #[must_use]
    pub fn local(port: u16) -> Self {
        Self((Ipv4Addr::LOCALHOST, port).into())
    }
}

/// Why a text is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address to listen on; write PORT for 127.0.0.1:PORT, or IP:PORT such as 0.0.0.0:9464")]
pub struct ListenAddressError {
    text: String,
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        let trimmed = text.trim();
        let local = trimmed.strip_prefix("localhost:").unwrap_or(trimmed);
        match local.parse::<u16>() {
            // `parse` takes a sign; an address has none.
            Ok(port) if !local.starts_with('+') => Ok(Self::local(port)),
            _ => trimmed.parse().map(Self).map_err(|_| ListenAddressError { text: text.chars().take(100).collect() }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a port (on 127.0.0.1) or an address such as 0.0.0.0:9464";
        number_or_text(deserializer, expected, |port| u16::try_from(port).map(Self::local).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_loopback() {
        for (text, address) in [
            ("9464", "127.0.0.1:9464"),
            ("0", "127.0.0.1:0"),
            ("localhost:80", "127.0.0.1:80"),
            ("0.0.0.0:9464", "0.0.0.0:9464"),
            ("[::1]:9464", "[::1]:9464"),
        ] {
            let read: ListenAddress = text.parse().unwrap();
            assert_eq!(read.to_string(), address);
            assert_eq!(address.parse(), Ok(read));
        }
        for text in ["", "x", ":9464", "70000", "+80", "-1", "127.0.0.1", "example.org:80", "0.0.0.0:"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text} must be refused");
        }
    }
}
