//! Plaintext alerts of a client before the handshake has keys.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite};

// Record types (RFC 8446 section 5.1, RFC 5246 section 6.2.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;

/// The alert that ends a connection (RFC 8446 section 6.1).
const CLOSE_NOTIFY: u8 = 0;

/// Stream that ends at a plaintext `close_notify`.
///
/// rustls ignores it before there are keys, because anyone on the path could have sent it. But
/// anyone on the path could close the connection as well, and a client that closes would occupy its
/// slot until the timeout.
#[derive(Debug)]
pub(crate) struct PlaintextAlertWatch<S> {
    stream: S,
    records: Records,
}

/// State of the record parser.
#[derive(Debug, Default)]
struct Records {
    /// The record header, and an alert after it.
    head: [u8; 7],
    known: usize,
    /// The rest of the record.
    left: usize,
    stage: Stage,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Plaintext,
    /// The following records are encrypted.
    Encrypted,
    Closed,
}

impl<S> PlaintextAlertWatch<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            records: Records::default(),
        }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl Records {
    /// Parses `bytes` and returns the number of bytes up to the end of the stream.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while self.stage == Stage::Plaintext && at < bytes.len() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len() - at);
                self.left -= skipped;
                at += skipped;
            } else {
                self.head[self.known] = bytes[at];
                self.known += 1;
                at += 1;
                self.judge();
            }
        }
        if self.stage == Stage::Closed {
            at
        } else {
            bytes.len()
        }
    }

    fn judge(&mut self) {
        match (self.known, self.head) {
            // An alert this short is plaintext.
            (5, [ALERT, _, _, 0, 2, ..]) => {}
            (5, [CHANGE_CIPHER_SPEC | APPLICATION_DATA, ..]) => self.stage = Stage::Encrypted,
            (5, [_, _, _, high, low, ..]) => {
                (self.known, self.left) = (0, u16::from_be_bytes([high, low]).into());
            }
            (7, [.., CLOSE_NOTIFY]) => self.stage = Stage::Closed,
            (7, _) => self.known = 0,
            _ => {}
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PlaintextAlertWatch<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.records.stage == Stage::Closed {
            return Poll::Ready(Ok(0));
        }
        let count = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(Ok(self.records.follow(&buffer[..count])))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PlaintextAlertWatch<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &[u8] = &[22, 3, 1, 0, 4, 21, 0, 2, 0];
    const WARNING: &[u8] = &[ALERT, 3, 3, 0, 2, 1, 90];
    const CLOSE: &[u8] = &[ALERT, 3, 3, 0, 2, 1, CLOSE_NOTIFY];
    const KEYS: &[u8] = &[CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1];

    /// Follows records in pieces of each size: the last of them comes through or not.
    #[track_caller]
    fn ends(records: &[&[u8]], ends: bool) {
        let all = records.concat();
        let before = records[..records.len() - 1].concat();
        let through = if ends { before.len() } else { all.len() };
        for size in 1..=all.len() {
            let mut records = Records::default();
            let followed: usize = all.chunks(size).map(|piece| records.follow(piece)).sum();
            assert_eq!(followed, through, "{size} bytes at a time");
        }
    }

    #[test]
    fn close_notify_in_the_clear_is_an_end() {
        ends(&[CLOSE, b"more"], true);
        ends(&[HELLO, CLOSE, b"more"], true);
        ends(&[WARNING, HELLO, CLOSE, HELLO], true);
        ends(&[HELLO, WARNING, HELLO], false);
        ends(&[b"GET / HTTP/1.1\r\n\r\n"], false);
    }

    #[test]
    fn encrypted_alert_is_ignored() {
        ends(&[HELLO, KEYS, CLOSE, b"more"], false);
        ends(
            &[HELLO, &[APPLICATION_DATA, 3, 3, 0, 1, 1], CLOSE, b"more"],
            false,
        );
    }
}
