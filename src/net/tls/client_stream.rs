//! TLS stream of a client, on rustls' unbuffered interface.
//!
//! Many records are received with one call. [`poll_read_with`](TlsStream::poll_read_with) lends
//! their plaintext, so that a long body reaches its file without being collected in a buffer first.

use std::fmt;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite, future};
use rustls::ClientConfig;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, WriteTraffic,
};

/// Initial length of the buffer of received records.
const MIN_RECEIVE_LEN: usize = 4 << 10;

/// Maximum length of that buffer, which grows while reads fill it. The longest handshake message
/// that rustls accepts, 64 KiB, fits in.
const MAX_RECEIVE_LEN: usize = 128 << 10;

/// Maximum number of bytes that one write encrypts.
const MAX_WRITE_LEN: usize = 64 << 10;

/// Maximum length of the plaintext of one record (RFC 8446 section 5.1).
const MAX_PLAINTEXT_LEN: usize = 16 << 10;

/// Upper bound of the bytes that encryption adds to one record (RFC 8446 section 5.2), including
/// its header.
const MAX_RECORD_OVERHEAD: usize = 5 + 256;

/// TLS stream of a client.
pub(crate) struct TlsStream<S> {
    transport: S,
    session: UnbufferedClientConnection,
    /// Received records; those in `received[start..end]` are not processed.
    received: Vec<u8>,
    start: usize,
    end: usize,
    /// Plaintext beyond what a reader asked for, from `plaintext_start` on.
    plaintext: Vec<u8>,
    plaintext_start: usize,
    /// Records to be sent, from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    has_received_close: bool,
    has_sent_close: bool,
    /// Error of the session, which processes no record after it: the bad record would be read again.
    error: Option<rustls::Error>,
}

/// Result of processing received records.
enum Step {
    /// Records were processed.
    Progress,
    /// The handshake is complete, and the next record is incomplete.
    Established,
    /// The handshake requires more input.
    Handshaking,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Performs the handshake.
    ///
    /// # Errors
    ///
    /// An error of the transport, or a [`rustls::Error`] inside of an [`io::Error`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the transport is closed.
    pub(super) async fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        transport: S,
    ) -> io::Result<Self> {
        let session = UnbufferedClientConnection::new(config, name).map_err(invalid_data)?;
        let mut stream = Self {
            transport,
            session,
            received: vec![0; MIN_RECEIVE_LEN],
            start: 0,
            end: 0,
            plaintext: Vec::new(),
            plaintext_start: 0,
            outgoing: Vec::new(),
            sent: 0,
            has_received_close: false,
            has_sent_close: false,
            error: None,
        };
        future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let step = self.process(0, |_| {}, |_, _| Ok(()));
            if step.is_err() {
                self.try_flush(cx);
            }
            match step.map_err(invalid_data)? {
                Step::Progress => {}
                Step::Established => return self.poll_send(cx),
                Step::Handshaking => {
                    ready!(self.poll_send(cx))?;
                    if self.has_received_close || ready!(self.poll_receive(cx))? == 0 {
                        return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }

    /// Passes the plaintext that has arrived to `deliver`, in one or more slices of at most `limit`
    /// bytes in total. Returns their length; 0 is the end of the stream.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect); `UnexpectedEof` if the transport ends without `close_notify`
    /// (RFC 8446 section 6.1).
    pub(crate) fn poll_read_with(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
        mut deliver: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let left = &self.plaintext[self.plaintext_start..];
        if !left.is_empty() || limit == 0 {
            let count = left.len().min(limit);
            deliver(&left[..count]);
            self.plaintext_start += count;
            return Poll::Ready(Ok(count));
        }
        self.plaintext.clear();
        self.plaintext_start = 0;
        loop {
            let delivered = self.process_available(limit, &mut deliver);
            // The peer may wait for an alert, or for the refusal of a renegotiation.
            self.try_flush(cx);
            let delivered = delivered?;
            if delivered > 0 || self.has_received_close {
                return Poll::Ready(Ok(delivered));
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Processes complete records until `limit` bytes are delivered or none is left.
    fn process_available(
        &mut self,
        limit: usize,
        deliver: &mut impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        let mut delivered = 0;
        while delivered < limit {
            let wanted = limit - delivered;
            let deliver = |bytes: &[u8]| {
                delivered += bytes.len();
                deliver(bytes);
            };
            match self.process(wanted, deliver, |_, _| Ok(())) {
                Ok(Step::Progress) => {}
                Ok(Step::Established | Step::Handshaking) => break,
                // The next call returns the error.
                Err(_) if delivered > 0 => break,
                Err(error) => return Err(invalid_data(error)),
            }
        }
        Ok(delivered)
    }

    /// Processes the next record. Up to `limit` bytes of its plaintext are delivered, the rest is
    /// kept. Calls `write` once the session can encrypt.
    fn process(
        &mut self,
        limit: usize,
        mut deliver: impl FnMut(&[u8]),
        write: impl FnOnce(
            &mut WriteTraffic<'_, ClientConnectionData>,
            &mut Vec<u8>,
        ) -> Result<(), rustls::Error>,
    ) -> Result<Step, rustls::Error> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let records = &mut self.received[self.start..self.end];
        let status = self.session.process_tls_records(records);
        let mut processed = status.discard;
        let result = match status.state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut delivered = 0;
                let mut result = Ok(Step::Progress);
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            processed += record.discard;
                            let count = record.payload.len().min(limit - delivered);
                            let (wanted, rest) = record.payload.split_at(count);
                            if !wanted.is_empty() {
                                deliver(wanted);
                            }
                            delivered += count;
                            self.plaintext.extend_from_slice(rest);
                        }
                        Err(error) => result = Err(error),
                    }
                }
                result
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                append(&mut self.outgoing, 0, |free| data.encode(free)).map(|()| Step::Progress)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // It keeps its place in the outgoing buffer.
                data.done();
                Ok(Step::Progress)
            }
            Ok(ConnectionState::PeerClosed) => {
                self.has_received_close = true;
                Ok(Step::Progress)
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                write(&mut traffic, &mut self.outgoing).map(|()| Step::Established)
            }
            Ok(ConnectionState::Closed) => Ok(Step::Established),
            Ok(_) => Ok(Step::Handshaking),
            Err(error) => Err(error),
        };
        self.start += processed;
        if let Err(error) = &result {
            self.error = Some(error.clone());
            self.queue_alert();
        }
        result
    }

    /// Queues the alert that tells the peer about an error.
    fn queue_alert(&mut self) {
        let records = &mut self.received[self.start..self.end];
        let status = self.session.process_tls_records(records);
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state {
            // Without it the peer learns less about the error, which is reported here anyway.
            let _ = append(&mut self.outgoing, 0, |free| data.encode(free));
        }
    }

    /// Receives more records; returns 0 at the end of the transport's stream.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.start > 0 {
            // Less than a record, as all complete ones are processed.
            self.received.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.received.len() && !self.grow() {
            let error = io::Error::new(ErrorKind::InvalidData, "handshake message is too long");
            return Poll::Ready(Err(error));
        }
        let free = &mut self.received[self.end..];
        let count = ready!(Pin::new(&mut self.transport).poll_read(cx, free))?;
        self.end += count;
        if self.end == self.received.len() {
            // More is waiting.
            self.grow();
        }
        Poll::Ready(Ok(count))
    }

    /// Doubles the buffer of received records. Returns `false` if it has its maximum length.
    fn grow(&mut self) -> bool {
        let len = self.received.len();
        if len < MAX_RECEIVE_LEN {
            self.received.resize(2 * len, 0);
        }
        len < MAX_RECEIVE_LEN
    }

    /// Sends queued records as far as the transport accepts them. An error of the connection is one
    /// of the next read too.
    fn try_flush(&mut self, cx: &mut Context<'_>) {
        if !self.outgoing.is_empty() {
            let _ = self.poll_send(cx);
        }
    }

    /// Sends all queued records.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let queued = &self.outgoing[self.sent..];
            match ready!(Pin::new(&mut self.transport).poll_write(cx, queued))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    /// Queues what `write` encrypts.
    fn encrypt(
        &mut self,
        mut write: impl FnMut(
            &mut WriteTraffic<'_, ClientConnectionData>,
            &mut Vec<u8>,
        ) -> Result<(), rustls::Error>,
    ) -> io::Result<()> {
        loop {
            match self.process(0, |_| {}, &mut write).map_err(invalid_data)? {
                Step::Progress => {}
                Step::Established => return Ok(()),
                Step::Handshaking => return Err(ErrorKind::NotConnected.into()),
            }
        }
    }
}

impl<S> TlsStream<S> {
    /// Returns the stream below TLS.
    pub(crate) fn transport(&self) -> &S {
        &self.transport
    }

    /// Returns whether everything received has been read.
    pub(crate) fn is_drained(&self) -> bool {
        self.start == self.end && self.plaintext_start == self.plaintext.len()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let limit = into.len();
        let mut filled = 0;
        self.get_mut().poll_read_with(cx, limit, |bytes| {
            into[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        // What one write encrypts is all that is ever queued.
        ready!(stream.poll_send(cx))?;
        let bytes = &bytes[..bytes.len().min(MAX_WRITE_LEN)];
        let records = bytes.len() / MAX_PLAINTEXT_LEN + 1;
        let free_len = bytes.len() + records * MAX_RECORD_OVERHEAD;
        stream.encrypt(|traffic, outgoing| {
            append(outgoing, free_len, |free| traffic.encrypt(bytes, free))
        })?;
        if let Poll::Ready(Err(error)) = stream.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    /// Sends `close_notify` (RFC 8446 section 6.1) and shuts down the transport.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if !stream.has_sent_close {
            stream.has_sent_close = true;
            // A session that has failed sends none.
            let _ = stream.encrypt(|traffic, outgoing| {
                append(outgoing, MAX_RECORD_OVERHEAD, |free| {
                    traffic.queue_close_notify(free)
                })
            });
        }
        ready!(stream.poll_send(cx))?;
        Pin::new(&mut stream.transport).poll_close(cx)
    }
}

impl<S> fmt::Debug for TlsStream<S> {
    /// Omits keys and bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").finish_non_exhaustive()
    }
}

/// Error of encoding into a buffer.
trait BufferError: Sized {
    /// Returns the necessary length if the buffer was too short.
    fn required_len(&self) -> Option<usize>;

    fn into_error(self) -> rustls::Error;
}

impl BufferError for EncodeError {
    fn required_len(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::AlreadyEncoded => None,
        }
    }

    fn into_error(self) -> rustls::Error {
        rustls::Error::General(self.to_string())
    }
}

impl BufferError for EncryptError {
    fn required_len(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::EncryptExhausted => None,
        }
    }

    fn into_error(self) -> rustls::Error {
        rustls::Error::EncryptError
    }
}

/// Appends what `write` writes to a buffer of at least `free_len` bytes.
fn append<E: BufferError>(
    out: &mut Vec<u8>,
    free_len: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), rustls::Error> {
    let len = out.len();
    out.resize(len + free_len, 0);
    let mut written = write(&mut out[len..]);
    if let Err(error) = &written
        && let Some(required_len) = error.required_len()
    {
        out.resize(len + required_len, 0);
        written = write(&mut out[len..]);
    }
    out.truncate(len + *written.as_ref().unwrap_or(&0));
    written.map(drop).map_err(E::into_error)
}

fn invalid_data(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
