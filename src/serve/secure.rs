//! Connections inside TLS: the handshake, and what comes of it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_lite::{AsyncWrite as _, future};
use tracing::info;

use crate::limits::shutdown::Shutdown;
use crate::net::stream::Stream;
use crate::net::tls::{AcceptError, AcceptedStream, TlsServer};
use crate::runtime::Timer;
use crate::serve::lateness::Late;
use crate::serve::session::Session;
use crate::serve::visit::{TRAFFIC, Visit, drop_rest};

/// How long a client may take for the handshake.
const LIMIT: Duration = Duration::from_secs(10);

/// How much longer it may take when the server stops.
const DRAIN: Duration = Duration::from_secs(1);

/// Shakes hands with who has connected, and serves the connection.
///
/// # Cancel safety
///
/// When this is dropped halfway, the connection is cut.
pub(super) async fn serve(
    tls: TlsServer,
    stream: Stream,
    visit: Visit,
    late: Option<Box<Late>>,
    draining: Shutdown,
) {
    // In boxes, so that what is needed for a moment takes no memory in all that are open.
    match Box::pin(shake_hands(&tls, stream, draining)).await {
        Ok(stream) => Session::open(visit, stream, late).run().await,
        Err(failure) => Box::pin(give_up(failure, visit)).await,
    }
}

/// Why there is no session.
enum Failure {
    Late,
    Refused(AcceptError, Stream),
}

async fn shake_hands(
    tls: &TlsServer,
    stream: Stream,
    draining: Shutdown,
) -> Result<Box<AcceptedStream<Stream>>, Failure> {
    let accepting = async {
        let accepted = tls.accept(stream).await;
        accepted
            .map(Box::new)
            .map_err(|(error, stream)| Failure::Refused(error, stream))
    };
    let late = async {
        let stopped = async {
            draining.wait().await;
            Timer::after(DRAIN).await;
        };
        let limit = async {
            Timer::after(LIMIT).await;
        };
        future::or(stopped, limit).await;
        Err(Failure::Late)
    };
    future::or(accepting, late).await
}

/// Counts and logs a handshake that failed, and closes so that the client learns why.
async fn give_up(failure: Failure, visit: Visit) {
    let figures = &visit.shared.figures;
    let (counter, why, stream) = match failure {
        Failure::Late => (
            &figures.tls.timed_out,
            "the handshake took too long".into(),
            None,
        ),
        Failure::Refused(error, stream) => {
            let counter = match &error {
                AcceptError::NotTls => &figures.tls.not_tls,
                AcceptError::NoCertificate | AcceptError::BadCertificate { .. } => {
                    &figures.tls.unknown_client
                }
                _ => &figures.tls.other,
            };
            (counter, told(&error), Some(stream))
        }
    };
    counter.fetch_add(1, Relaxed);
    figures.failed.fetch_add(1, Relaxed);
    let (peer, seconds) = (&visit.peer, visit.seconds());
    info!(target: TRAFFIC, %peer, seconds, why, "closed");
    if let Some(mut stream) = stream {
        // It has failed already: nothing more can be said.
        let _: io::Result<()> = poll_fn(|cx| Pin::new(&mut stream).poll_close(cx)).await;
        drop_rest(&mut stream, &visit.shared).await;
    }
}

/// An error with its causes, on a line.
fn told(error: &AcceptError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
