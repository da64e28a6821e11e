//! Small value types that settings are written in: closed words, secrets and URLs.
//!
//! Invariant: a [`Secret`] and the credentials in a [`Url`] leave this crate only through `expose()`; `Debug`,
//! `Display` and `Serialize` never carry them. Parse errors of secrets do not repeat the text.
//!
//! Not here: which setting has which type (see `sections`), and reading files (see `load`).

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What is printed in place of a secret.
pub(crate) const REDACTED: &str = "***";

/// A closed set of words that a setting may hold, read without regard to case, written in lower case.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal $(| $other:literal)*),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every word, in lower case.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word as it is written in a configuration file.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::text::UnknownWord;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text.trim().to_ascii_lowercase().as_str() {
                    $($word $(| $other)* => Ok(Self::$variant),)+
                    _ => Err($crate::text::UnknownWord { word: text.to_owned(), known: Self::WORDS }),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::text::closed(deserializer, Self::WORDS)
            }
        }
    };
}
pub(crate) use words;

/// Reads one of a closed set of words, without regard to case.
pub(crate) fn closed<'de, D: Deserializer<'de>, T: std::str::FromStr>(
    deserializer: D,
    words: &'static [&'static str],
) -> Result<T, D::Error> {
    let Word(text) = Deserialize::deserialize(deserializer)?;
    text.trim().to_ascii_lowercase().parse().map_err(|_| de::Error::unknown_variant(&text, words))
}

/// A word that is not in the set that its setting allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not one of {}", known.join(", "))]
pub struct UnknownWord {
    pub(crate) word: String,
    pub(crate) known: &'static [&'static str],
}

/// A word as a file may write it: YAML and TOML read a bare `true` as a boolean.
pub(crate) struct Word(pub(crate) String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Word;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Word, E> {
                Ok(Word(text.to_owned()))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Word, E> {
                Ok(Word(value.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Reads a setting that is written as a whole number or as a text; `number` says what a number means, if anything.
pub(crate) fn number_or_text<'de, D: Deserializer<'de>, T: std::str::FromStr>(
    deserializer: D,
    expected: &'static str,
    number: fn(u64) -> Option<T>,
) -> Result<T, D::Error> {
    struct Visitor<T> {
        expected: &'static str,
        number: fn(u64) -> Option<T>,
    }
    impl<T: std::str::FromStr> de::Visitor<'_> for Visitor<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
            (self.number)(value).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
            let read = u64::try_from(value).ok().and_then(self.number);
            read.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(value), &self))
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_any(Visitor { expected, number })
}

/// A password, token or key seed. It is compared and cloned like a string, and printed as `***`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a text that must never be printed.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself, for the one place that has to send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    /// Writes `***`: a printed configuration is for reading, not for loading again.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// A URL whose user, password and query are not printed. It is not checked here; the setting that holds it says what it accepts.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// Keeps the text as it is.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole URL, credentials included, for the one place that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&redacted(&self.0))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&redacted(&self.0), f)
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&redacted(&self.0))
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// The same text with the credentials and the query of every URL in it (a comma separates several) replaced by `***`.
///
/// A password may itself hold `/`, `@` or `,`, so everything between the scheme and the *last* `@` of a URL goes. Paths
/// of `sqlite:` and `memory:` URLs hold no credentials and stay.
#[must_use]
pub fn redacted(text: &str) -> String {
    let mut shown = Vec::new();
    let mut in_query = false;
    for url in split_urls(text) {
        // A comma may stand in a query, too.
        in_query &= !url.contains("://");
        if !in_query {
            shown.push(redacted_one(url));
            in_query = url.contains("://") && url.contains('?');
        }
    }
    shown.join(",")
}

fn redacted_one(url: &str) -> String {
    if url.starts_with("sqlite:") || url.starts_with("memory:") {
        return url.to_owned();
    }
    let scheme_end = url.find("://").map(|at| at + 3);
    let (scheme, rest) = url.split_at(scheme_end.unwrap_or(0));
    let (rest, query) = match rest.split_once('?') {
        // Either of a query, or of a password that holds a question mark: nobody can tell.
        Some((_, query)) if query.contains('@') && scheme_end.is_some() => return format!("{scheme}{REDACTED}"),
        Some((rest, _)) if scheme_end.is_some() => (rest, format!("?{REDACTED}")),
        _ => (rest, String::new()),
    };
    match rest.rfind('@') {
        Some(at) => format!("{scheme}{REDACTED}{}{query}", &rest[at..]),
        None => format!("{scheme}{rest}{query}"),
    }
}

/// Cuts a comma-separated list of URLs. A comma inside a password does not cut: a part that still awaits its `@` takes
/// the next part with it if that one has an `@` and no scheme of its own.
pub(crate) fn split_urls(text: &str) -> Vec<&str> {
    let mut cuts = vec![0];
    let commas: Vec<usize> = text.match_indices(',').map(|(at, _)| at).collect();
    for (n, &comma) in commas.iter().enumerate() {
        let end = commas.get(n + 1).copied().unwrap_or(text.len());
        let start = cuts.last().copied().unwrap_or(0);
        let next = &text[comma + 1..end];
        let inside_password = !next.contains("://")
            && text[start..comma].contains("://")
            && !text[start..comma].contains('@')
            && text[comma + 1..].split("://").next().is_some_and(|rest| rest.contains('@'));
        if !inside_password {
            cuts.push(comma + 1);
        }
    }
    let ends = cuts.iter().skip(1).map(|cut| cut - 1).chain([text.len()]);
    cuts.iter().zip(ends).map(|(&start, end)| text[start..end].trim()).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_survive_redaction() {
        for (url, shown) in [
            ("nats://user:pw@host:4222", "nats://***@host:4222"),
            ("nats://token@host", "nats://***@host"),
            ("nats://u:p/w@x@host:1,tls://v:q@b", "nats://***@host:1,tls://***@b"),
            ("nats://u:p,w@host:1", "nats://***@host:1"),
            ("u:p@host", "***@host"),
            ("nats://a:4222, nats://b:4222", "nats://a:4222,nats://b:4222"),
            ("https://u:p@h/x?key=k", "https://***@h/x?***"),
            ("https://h/x?keys=k,l,m", "https://h/x?***"),
            ("https://a?k=1,https://b?k=2", "https://a?***,https://b?***"),
            ("https://h/x?mail=me@there&key=k", "https://***"),
            ("nats://u:p?w@host:1,nats://b", "nats://***,nats://b"),
            ("what is this?", "what is this?"),
            ("sqlite:///home/me@work/jobs.db", "sqlite:///home/me@work/jobs.db"),
        ] {
            assert_eq!(redacted(url), shown);
        }
        assert_eq!(format!("{:?} {0}", Url::new("nats://u:p@h")), "\"nats://***@h\" nats://***@h");
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }
}
