//! Messages and replies: one line each, including its `\n`.

use memchr::memchr;

use crate::echo::error::Error;

/// Maximum length of a message or a reply in bytes, including its `\n`: 16 MiB.
pub const MAX_MESSAGE_LEN: usize = 16 << 20;

/// A message as sent: its last byte is its only `\n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

/// Reason why a text is not a valid [`Message`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The text contains a line end, so the server would treat it as two messages.
    #[error("line end at offset {0}")]
    LineEnd(usize),
    /// The message has more than [`MAX_MESSAGE_LEN`] bytes.
    #[error("longer than {MAX_MESSAGE_LEN} bytes")]
    TooLong,
}

impl Message {
    /// Creates a message from a text by appending a line end.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if the text contains a `\n` or is too long.
    pub fn new(text: impl Into<Vec<u8>>) -> Result<Self, MessageError> {
        let mut bytes = text.into();
        if let Some(offset) = memchr(b'\n', &bytes) {
            return Err(MessageError::LineEnd(offset));
        }
        if bytes.len() >= MAX_MESSAGE_LEN {
            return Err(MessageError::TooLong);
        }
        bytes.push(b'\n');
        Ok(Self(bytes))
    }

    /// Returns the bytes to send, including the `\n`.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the bytes without the `\n`.
    pub fn text(&self) -> &[u8] {
        trim_newline(&self.0)
    }

    /// Returns the offset at which a reply first differs from this message.
    pub(crate) fn first_mismatch(&self, reply: &[u8]) -> Option<usize> {
        let same = self.0.iter().zip(reply).take_while(|(a, b)| a == b).count();
        (same < self.0.len() || same < reply.len()).then_some(same)
    }

    /// Returns whether a reply is the error line of `myapp serve` that rejects this message as too
    /// long.
    pub(crate) fn is_rejected_by(&self, reply: &[u8]) -> bool {
        let limit = reply.strip_prefix(b"error: line longer than ".as_slice());
        let limit = limit.and_then(|rest| rest.strip_suffix(b" bytes\n"));
        let limit = limit.and_then(|limit| str::from_utf8(limit).ok());
        let limit = limit.and_then(|limit| limit.parse::<usize>().ok());
        limit.is_some_and(|limit| self.0.len() > limit)
    }
}

/// Result of one message.
#[derive(Debug)]
pub struct Reply {
    /// The reply including its `\n`, or the part received before a failure.
    pub bytes: Vec<u8>,
    /// Whether the reply is complete and, if verified, equal to its message.
    pub outcome: Result<(), Error>,
    /// Number of late and duplicate datagrams that had arrived before the message was sent, and were
    /// discarded. UDP only.
    pub discarded: u64,
}

/// Removes the `\n` at the end of a line, if there is one.
pub fn trim_newline(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

/// Buffer of received bytes from which complete lines are taken.
#[derive(Debug, Default)]
pub(crate) struct LineBuffer {
    bytes: Vec<u8>,
    /// Length of the prefix known to contain no `\n`.
    searched: usize,
}

impl LineBuffer {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Removes and returns the next line including its end, if it is complete.
    pub(crate) fn take_line(&mut self) -> Option<Vec<u8>> {
        let Some(offset) = memchr(b'\n', &self.bytes[self.searched..]) else {
            self.searched = self.bytes.len();
            return None;
        };
        let rest = self.bytes.split_off(self.searched + offset + 1);
        self.searched = 0;
        Some(std::mem::replace(&mut self.bytes, rest))
    }

    /// Removes and returns all bytes.
    pub(crate) fn take_all(&mut self) -> Vec<u8> {
        std::mem::take(self).bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ends_with_its_only_line_end() {
        assert_eq!(Message::new("hola").unwrap().bytes(), b"hola\n");
        assert_eq!(Message::new("hola").unwrap().text(), b"hola");
        assert_eq!(Message::new("").unwrap().bytes(), b"\n");
        assert_eq!(
            Message::new(b"\x00\xff\r".as_slice()).unwrap().bytes(),
            b"\x00\xff\r\n"
        );
    }

    #[test]
    fn multi_line_or_long_text_is_rejected() {
        assert_eq!(Message::new("a\nb"), Err(MessageError::LineEnd(1)));
        assert_eq!(Message::new("a\n"), Err(MessageError::LineEnd(1)));
        assert!(Message::new(vec![b'x'; MAX_MESSAGE_LEN - 1]).is_ok());
        assert_eq!(
            Message::new(vec![b'x'; MAX_MESSAGE_LEN]),
            Err(MessageError::TooLong)
        );
    }

    #[track_caller]
    fn differs(message: &str, reply: &str, at: Option<usize>) {
        assert_eq!(
            Message::new(message)
                .unwrap()
                .first_mismatch(reply.as_bytes()),
            at
        );
    }

    #[test]
    fn first_mismatch_is_found() {
        differs("hola", "hola\n", None);
        differs("hola", "hOla\n", Some(1));
        differs("hola", "hola", Some(4));
        differs("hola", "hola!\n", Some(4));
        differs("hola", "hola\n\n", Some(5));
        differs("hola", "", Some(0));
    }

    #[test]
    fn error_line_rejects_only_longer_messages() {
        let error = "error: line longer than 40 bytes\n";
        let long = Message::new("x".repeat(40)).unwrap();
        assert!(long.is_rejected_by(error.as_bytes()));
        // The echo of a message with the same text.
        let same = Message::new(trim_newline(error.as_bytes())).unwrap();
        assert!(!same.is_rejected_by(error.as_bytes()));
        for other in [
            "error: line longer than 41 bytes\n",
            "error: line longer than +1 byte\n",
        ] {
            assert!(!long.is_rejected_by(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn lines_are_split_regardless_of_chunking() {
        let mut buffer = LineBuffer::default();
        for (bytes, line) in [
            ("ho", None),
            ("la", None),
            ("\nadi", Some("hola\n")),
            ("ós\n\nx", Some("adiós\n")),
            ("", Some("\n")),
            ("y", None),
        ] {
            buffer.add(bytes.as_bytes());
            assert_eq!(
                buffer.take_line().as_deref(),
                line.map(str::as_bytes),
                "{bytes:?}"
            );
        }
        assert_eq!((buffer.len(), buffer.take_all()), (2, b"xy".to_vec()));
        assert_eq!((buffer.len(), buffer.take_line()), (0, None));
    }
}
