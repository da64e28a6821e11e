//! [`Revisions`]: what lies under one subject of a stream that keeps replaced messages.
//!
//! Invariant: a message is removed by its sequence, and those that it replaced before it. A server remembers what was
//! removed by sequence, also if it is killed; of a message that was replaced it only knows that a later one is there. Where
//! replaced messages went by themselves and then the last one was removed, a killed server brings the replaced one back
//! (2.9 and 2.15), and the replicas of a cluster differ from then on.

use async_nats::HeaderMap;

use super::{EXPECTED_LAST_SUBJECT_SEQUENCE, StoredMessage};

/// In a message: the sequences of those that it replaced and that may still be there.
const REPLACES: &str = "Naq-Replaces";

/// The messages of one subject that may be in a stream, by sequence; the present one last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Revisions(Vec<u64>);

impl Revisions {
    /// How many a stream keeps of a subject. One that is replaced more often than that within the two minutes after which
    /// the server has written its state may come back.
    pub(crate) const KEPT: usize = 8;

    pub(crate) fn of(message: &StoredMessage) -> Self {
        let replaced = message.headers.get(REPLACES).unwrap_or_default();
        let replaced = replaced.split(' ').filter_map(|sequence| sequence.parse().ok());
        Self(replaced.chain([message.sequence]).collect())
    }

    /// The present one; 0 if there is none.
    pub(crate) fn last(&self) -> u64 {
        self.0.last().copied().unwrap_or(0)
    }

    /// Those beneath it.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied().take(self.0.len().saturating_sub(1))
    }

    /// The same after one more was stored.
    #[must_use]
    pub(crate) fn and(mut self, sequence: u64) -> Self {
        self.0.push(sequence);
        self.0.drain(..self.0.len().saturating_sub(Self::KEPT));
        self
    }

    /// Makes a message the next revision, refused if this is not the state of its subject any more.
    pub(crate) fn expect(&self, headers: &mut HeaderMap) {
        headers.insert(EXPECTED_LAST_SUBJECT_SEQUENCE, self.last().to_string().as_str());
        // The oldest goes by itself when the next comes.
        let kept = &self.0[self.0.len().saturating_sub(Self::KEPT - 1)..];
        if !kept.is_empty() {
            let text = kept.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
            headers.insert(REPLACES, text.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use naq_models::Timestamp;

    use super::*;

    fn stored(sequence: u64, headers: &HeaderMap) -> StoredMessage {
        StoredMessage {
            subject: "s".to_owned(),
            sequence,
            time: Timestamp::EPOCH,
            headers: headers.into(),
            payload: bytes::Bytes::new(),
        }
    }

    #[test]
    fn a_message_names_what_lies_under_it() {
        let mut revisions = Revisions::default();
        let mut seen = Vec::new();
        for sequence in (10..200).step_by(10) {
            let mut headers = HeaderMap::new();
            revisions.expect(&mut headers);
            let expected = headers.get(EXPECTED_LAST_SUBJECT_SEQUENCE).map(ToString::to_string);
            assert_eq!(expected, Some(seen.last().copied().unwrap_or(0).to_string()));
            seen.push(sequence);
            let kept = &seen[seen.len().saturating_sub(Revisions::KEPT)..];
            let read = Revisions::of(&stored(sequence, &headers));
            assert_eq!(read.0, kept);
            assert_eq!(revisions.and(sequence), read);
            revisions = read;
        }
    }

    #[test]
    fn what_others_wrote_into_the_header_is_passed_over() {
        let mut headers = HeaderMap::new();
        headers.insert(REPLACES, "x 3  -1 4");
        assert_eq!(Revisions::of(&stored(9, &headers)).0, [3, 4, 9]);
    }
}
