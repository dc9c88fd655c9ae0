//! Answers those who ask for a server's figures, on a thread of its own beside those that serve.

use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::LocalExecutor;
use tracing::{debug, error};

use crate::error_chain::ErrorChain;
use crate::limits::semaphore::Semaphore;
use crate::limits::timeout::race;
use crate::net::listener::Listener;
use crate::net::listener::accept::AsyncListener;
use crate::net::stream::Stream;
use crate::runtime::Timer;
use crate::serve::metrics::{respond, too_large};
use crate::serve::stats::Figures;

/// Requests that are answered at once; more wait in the system's backlog.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// The longest head of a request.
const LONGEST: usize = 8 << 10;

/// How long a request may take, from being accepted to being closed.
const LIMIT: Duration = Duration::from_secs(5);

/// How long to wait when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is dropped.
pub(super) async fn export(listener: Listener, figures: Arc<Figures>) {
    let address = listener.local_addr().clone();
    let incoming = match AsyncListener::new(listener) {
        Ok(incoming) => incoming,
        Err(error) => {
            return error!(%address, error = %ErrorChain(&error), "cannot wait for connections");
        }
    };
    let (executor, permits) = (LocalExecutor::new(), Semaphore::new(AT_ONCE));
    let accept = async {
        loop {
            let permit = permits.acquire().await;
            let stream = accept(&incoming).await;
            let figures = Arc::clone(&figures);
            let answer = async move {
                let _permit = permit;
                let result = race(Timer::after(LIMIT), answer(stream, &figures)).await;
                if let Err(error) = result.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
                    debug!(error = %ErrorChain(&error), "cannot answer for figures");
                }
            };
            executor.spawn(answer).detach();
        }
    };
    executor.run(accept).await
}

async fn accept(incoming: &AsyncListener) -> Stream {
    loop {
        let waited = match incoming.try_accept().await {
            Ok(Some((stream, _))) => return stream,
            Ok(None) => incoming.ready().await,
            Err(error) => Err(error),
        };
        if let Err(error) = waited {
            debug!(error = %ErrorChain(&error), "cannot accept a connection for figures");
            Timer::after(PAUSE).await;
        }
    }
}

async fn answer(mut stream: Stream, figures: &Figures) -> io::Result<()> {
    let response = match read_head(&mut stream).await? {
        Some(head) => respond(&head, &figures.summary()),
        None => too_large(),
    };
    stream.write_all(response.as_bytes()).await?;
    stream.close().await?;
    // Closing with unread input would send a reset, which can destroy the answer on its way.
    while stream.read(&mut [0; 512]).await? > 0 {}
    Ok(())
}

/// Reads until the empty line behind the head, or the end; `None` if it is too long.
async fn read_head(stream: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while head.len() < LONGEST {
        let count = stream.read(&mut buffer).await?;
        head.extend_from_slice(&buffer[..count]);
        let is_whole = |end: &[u8]| head.windows(end.len()).any(|window| window == end);
        if count == 0 || is_whole(b"\r\n\r\n") || is_whole(b"\n\n") {
            return Ok(Some(head));
        }
    }
    Ok(None)
}
