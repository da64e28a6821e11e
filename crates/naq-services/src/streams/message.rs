//! Messages as a stream holds them, however they were read: by the API, or delivered to a consumer.
//!
//! Invariant: reading never panics; what a foreign producer wrote into a header is text, and unreadable text is absent.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use naq_models::Timestamp;
use serde::Deserialize;

use super::{ApiError, ApiFailure};

/// One stored message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredMessage {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    /// When the stream took it, by the server's clock.
    pub(crate) time: Timestamp,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}

/// The headers of a message; few, so a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.trim().parse().ok()
    }

    fn parse(block: &[u8]) -> Self {
        let text = String::from_utf8_lossy(block);
        let pairs = text.lines().skip(1).filter_map(|line| line.split_once(':'));
        Self(pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect())
    }
}

impl From<&async_nats::HeaderMap> for Headers {
    fn from(map: &async_nats::HeaderMap) -> Self {
        Self(
            map.iter()
                .filter_map(|(name, values)| Some((name.to_string(), values.first()?.as_str().to_owned())))
                .collect(),
        )
    }
}

/// One header of a delivered message.
pub(crate) fn header<'a>(message: &'a async_nats::Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(|value| value.as_str())
}

/// What the server tells of a delivery, in the subject that acknowledges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// How often it was delivered, this time included.
    pub(crate) delivered: u64,
    pub(crate) stream_seq: u64,
    pub(crate) consumer_seq: u64,
    pub(crate) time: Timestamp,
    /// How many more match the consumer after this one.
    pub(crate) pending: u64,
}

impl Delivery {
    /// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, with or without
    /// domain and account after `ACK` and a token at the end.
    pub(crate) fn parse(reply: &str) -> Option<Self> {
        let ([_, _, delivered, stream_seq, consumer_seq, nanos, pending], is_ack) = place(reply)?;
        if !is_ack {
            return None;
        }
        let nanos: u64 = nanos.parse().ok()?;
        Some(Self {
            delivered: delivered.parse().ok()?,
            stream_seq: stream_seq.parse().ok()?,
            consumer_seq: consumer_seq.parse().ok()?,
            time: Timestamp::from_unix_millis(i64::try_from(nanos / 1_000_000).ok()?)?,
            pending: pending.parse().ok()?,
        })
    }

    /// The stream and the consumer that such a subject names.
    pub(crate) fn origin(reply: &str) -> Option<(&str, &str)> {
        let ([stream, consumer, ..], _) = place(reply)?;
        Some((stream, consumer))
    }
}

/// The tokens of an acknowledgement's subject from the stream's name on, and whether it is one by its first tokens.
fn place(reply: &str) -> Option<([&str; 7], bool)> {
    const LONGEST: usize = 12;
    let (mut tokens, mut count) = ([""; LONGEST], 0);
    for token in reply.splitn(LONGEST, '.') {
        tokens[count] = token;
        count += 1;
    }
    let from = match count {
        ..9 => return None,
        9 => 2,
        _ => 4,
    };
    let place = tokens[from..from + 7].try_into().ok()?;
    Some((place, tokens[0] == "$JS" && tokens[1] == "ACK"))
}

impl StoredMessage {
    /// From a delivery to a consumer; `None` for what is no stored message (a status).
    pub(crate) fn delivered(message: async_nats::Message) -> Option<(Self, Delivery)> {
        if message.status.is_some() {
            return None;
        }
        let delivery = Delivery::parse(message.reply.as_deref()?)?;
        let stored = Self {
            subject: message.subject.to_string(),
            sequence: delivery.stream_seq,
            time: delivery.time,
            headers: message.headers.as_ref().map(Headers::from).unwrap_or_default(),
            payload: message.payload,
        };
        Some((stored, delivery))
    }
}

/// The answer of `STREAM.MSG.GET`.
#[derive(Debug, Deserialize)]
pub(super) struct Got {
    message: GotMessage,
}

#[derive(Debug, Deserialize)]
struct GotMessage {
    subject: String,
    seq: u64,
    time: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hdrs: String,
}

/// No message of that subject, or no stream, is `None`.
pub(super) fn found(answer: Result<Got, ApiFailure>) -> Result<Option<StoredMessage>, ApiFailure> {
    match answer {
        Ok(Got { message }) => message.decode().map(Some),
        Err(failure) if failure.is(ApiError::MESSAGE_NOT_FOUND) || failure.is(ApiError::STREAM_NOT_FOUND) => Ok(None),
        Err(failure) => Err(failure),
    }
}

impl GotMessage {
    fn decode(self) -> Result<StoredMessage, ApiFailure> {
        let bad = |what: &str| ApiFailure::Malformed(serde::de::Error::custom(what));
        let bytes = |text: &str| STANDARD.decode(text).map_err(|_| bad("a message that is not base64"));
        Ok(StoredMessage {
            sequence: self.seq,
            time: self.time.parse().map_err(|_| bad("a message without a time"))?,
            headers: Headers::parse(&bytes(&self.hdrs)?),
            payload: bytes(&self.data)?.into(),
            subject: self.subject,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgement_subjects_of_every_server() {
        let expected = Delivery {
            delivered: 2,
            stream_seq: 30,
            consumer_seq: 40,
            time: Timestamp::from_unix_millis(1_700_000_000_123).unwrap(),
            pending: 5,
        };
        for subject in [
            "$JS.ACK.naq_queue_a.p2.2.30.40.1700000000123456789.5",
            "$JS.ACK.hub.ABCDE.naq_queue_a.p2.2.30.40.1700000000123456789.5.rnd",
            "$JS.ACK._.ABCDE.naq_queue_a.p2.2.30.40.1700000000123456789.5",
        ] {
            assert_eq!(Delivery::parse(subject), Some(expected), "{subject}");
            assert_eq!(Delivery::origin(subject), Some(("naq_queue_a", "p2")), "{subject}");
        }
        for subject in ["", "$JS.ACK", "_INBOX.x.y", "$JS.ACK.s.c.x.30.40.50.5", "$JS.ACK.s.c.1.2.3.4"] {
            assert_eq!(Delivery::parse(subject), None, "{subject}");
        }
    }

    #[test]
    fn header_blocks() {
        let headers = Headers::parse(b"NATS/1.0\r\nNaq-Run: 3\r\nnaq-kind:a: b\r\n\r\n");
        assert_eq!(headers.number::<u32>("Naq-Run"), Some(3));
        assert_eq!(headers.get("Naq-Kind"), Some("a: b"));
        assert_eq!(headers.get("Naq-Gen"), None);
    }
}
