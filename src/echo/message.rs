//! Messages and replies as bytes: a line each, with its end.

use memchr::memchr;

use crate::echo::error::EchoError;

/// The most bytes that a message or a reply may have, its `\n` counted: 16 MiB.
pub const LONGEST: usize = 16 << 20;

/// A message as it is sent: its last byte is its only `\n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

/// A text that is no [`Message`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A line end inside: the server would answer it as two messages.
    #[error("a line end inside, at offset {0}")]
    LineEnd(usize),
    /// More than [`LONGEST`] bytes.
    #[error("longer than {LONGEST} bytes")]
    TooLong,
}

impl Message {
    /// Makes a message of a text by adding its line end.
    ///
    /// # Errors
    ///
    /// [`MessageError`] when the text holds a `\n`, or is too long.
    pub fn new(text: impl Into<Vec<u8>>) -> Result<Self, MessageError> {
        let mut bytes = text.into();
        if let Some(at) = memchr(b'\n', &bytes) {
            return Err(MessageError::LineEnd(at));
        }
        if bytes.len() >= LONGEST {
            return Err(MessageError::TooLong);
        }
        bytes.push(b'\n');
        Ok(Self(bytes))
    }

    /// The bytes that are sent, with the `\n`.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes without the `\n`.
    pub fn text(&self) -> &[u8] {
        without_end(&self.0)
    }

    /// Where a reply first differs from this message, counted from 0; nowhere if it is the same.
    pub fn difference(&self, reply: &[u8]) -> Option<usize> {
        let same = self.0.iter().zip(reply).take_while(|(a, b)| a == b).count();
        (same < self.0.len() || same < reply.len()).then_some(same)
    }
}

/// What came back for a message.
#[derive(Debug)]
pub struct Reply {
    /// The reply with its `\n`; or as much of it as came before it failed.
    pub bytes: Vec<u8>,
    /// Whether the reply is whole and, where that was asked, the same as its message.
    pub outcome: Result<(), EchoError>,
}

/// A line without its `\n`, if it has one.
pub fn without_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

/// What has come from the server and is not yet taken as a reply.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    /// So many bytes at the start hold no `\n`.
    searched: usize,
}

impl Inbox {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the next line with its end, if it is whole.
    pub(crate) fn take_line(&mut self) -> Option<Vec<u8>> {
        let Some(at) = memchr(b'\n', &self.bytes[self.searched..]) else {
            self.searched = self.bytes.len();
            return None;
        };
        let rest = self.bytes.split_off(self.searched + at + 1);
        self.searched = 0;
        Some(std::mem::replace(&mut self.bytes, rest))
    }

    /// Takes all there is.
    pub(crate) fn take_all(&mut self) -> Vec<u8> {
        std::mem::take(self).bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_with_its_only_line_end() {
        assert_eq!(Message::new("hola").unwrap().bytes(), b"hola\n");
        assert_eq!(Message::new("hola").unwrap().text(), b"hola");
        assert_eq!(Message::new("").unwrap().bytes(), b"\n");
        assert_eq!(
            Message::new(b"\x00\xff\r".as_slice()).unwrap().bytes(),
            b"\x00\xff\r\n"
        );
    }

    #[test]
    fn a_text_that_is_no_single_line_is_refused() {
        assert_eq!(Message::new("a\nb"), Err(MessageError::LineEnd(1)));
        assert_eq!(Message::new("a\n"), Err(MessageError::LineEnd(1)));
        assert!(Message::new(vec![b'x'; LONGEST - 1]).is_ok());
        assert_eq!(
            Message::new(vec![b'x'; LONGEST]),
            Err(MessageError::TooLong)
        );
    }

    #[track_caller]
    fn differs(message: &str, reply: &str, at: Option<usize>) {
        assert_eq!(
            Message::new(message).unwrap().difference(reply.as_bytes()),
            at
        );
    }

    #[test]
    fn the_first_difference_is_found() {
        differs("hola", "hola\n", None);
        differs("hola", "hOla\n", Some(1));
        differs("hola", "hola", Some(4));
        differs("hola", "hola!\n", Some(4));
        differs("hola", "hola\n\n", Some(5));
        differs("hola", "", Some(0));
    }

    #[test]
    fn lines_are_taken_one_by_one_however_the_bytes_come() {
        let mut inbox = Inbox::default();
        for (bytes, line) in [
            ("ho", None),
            ("la", None),
            ("\nadi", Some("hola\n")),
            ("ós\n\nx", Some("adiós\n")),
            ("", Some("\n")),
            ("y", None),
        ] {
            inbox.add(bytes.as_bytes());
            assert_eq!(
                inbox.take_line().as_deref(),
                line.map(str::as_bytes),
                "{bytes:?}"
            );
        }
        assert_eq!((inbox.len(), inbox.take_all()), (2, b"xy".to_vec()));
        assert_eq!((inbox.len(), inbox.take_line()), (0, None));
    }
}
