//! TLS handshake of accepted connections.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_lite::AsyncWrite as _;

use crate::error_chain::ErrorChain;
use crate::limits::shutdown::Shutdown;
use crate::limits::timeout::race;
use crate::net::stream::Stream;
use crate::net::tls::{AcceptError, AcceptedStream, TlsServer};
use crate::serve::connection::Connection;
use crate::serve::connection::guard::{ConnectionGuard, Counts};
use crate::serve::connection::linger::drain_input;
use crate::serve::fault::stream::FaultPolicy;
use crate::serve::handshake_timeout::handshake_timeout;
use crate::serve::whoami::Whoami;

/// Time limit of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Performs the handshake and serves the connection.
///
/// # Cancel safety
///
/// Dropping the future aborts the connection.
pub(super) async fn serve<F: FaultPolicy>(
    tls: TlsServer,
    stream: Stream,
    guard: ConnectionGuard,
    mut faults: F,
    draining: Shutdown,
) {
    // Boxed, so that the state of the handshake takes no memory in each open connection.
    let accepted = Box::pin(accept(&tls, stream, guard, faults.whoami(), draining)).await;
    if let Some((stream, guard)) = accepted {
        Connection::new(guard, stream, faults).run().await;
    }
}

/// Performs the handshake. If it fails, counts and logs that, and returns `None`.
///
/// # Cancel safety
///
/// Dropping the future aborts the connection.
pub(super) async fn accept(
    tls: &TlsServer,
    stream: Stream,
    guard: ConnectionGuard,
    whoami: Option<&mut Whoami>,
    draining: Shutdown,
) -> Option<(Box<AcceptedStream<Stream>>, ConnectionGuard)> {
    match handshake(tls, stream, whoami, draining).await {
        Ok(stream) => Some((stream, guard)),
        Err(failure) => {
            reject(failure, guard).await;
            None
        }
    }
}

/// A failed handshake.
enum Failure {
    Timeout,
    Rejected(AcceptError, Stream),
}

async fn handshake(
    tls: &TlsServer,
    stream: Stream,
    whoami: Option<&mut Whoami>,
    draining: Shutdown,
) -> Result<Box<AcceptedStream<Stream>>, Failure> {
    let accept = async {
        let accepted = match whoami {
            None => tls.accept(stream).await,
            Some(whoami) => {
                let described = tls.accept_described(stream).await;
                described.map(|(stream, session)| {
                    whoami.set_tls(session);
                    stream
                })
            }
        };
        accepted
            .map(Box::new)
            .map_err(|(error, stream)| Failure::Rejected(error, stream))
    };
    let timeout = handshake_timeout(HANDSHAKE_TIMEOUT, &draining);
    race(timeout, accept).await.unwrap_or(Err(Failure::Timeout))
}

/// Counts and logs a failed handshake, and closes so that the client receives the alert.
async fn reject(failure: Failure, guard: ConnectionGuard) {
    let stats = &guard.context.stats;
    let (counter, reason, stream) = match failure {
        Failure::Timeout => (
            &stats.tls.handshake_timeouts,
            "TLS handshake timeout".into(),
            None,
        ),
        Failure::Rejected(error, stream) => {
            let counter = match &error {
                AcceptError::NotTls => &stats.tls.not_tls,
                AcceptError::NoCertificate | AcceptError::BadCertificate { .. } => {
                    &stats.tls.client_cert_rejected
                }
                _ => &stats.tls.handshake_errors,
            };
            (counter, ErrorChain(&error).to_string(), Some(stream))
        }
    };
    counter.fetch_add(1, Relaxed);
    stats.failed.fetch_add(1, Relaxed);
    guard.report_closed(Counts::default(), &reason);
    if let Some(mut stream) = stream {
        // The connection has failed already: a second error is not reported.
        let _: io::Result<()> = poll_fn(|cx| Pin::new(&mut stream).poll_close(cx)).await;
        drain_input(&mut stream, &guard.context).await;
    }
}
