//! Accept loop of one listening socket.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use futures_lite::future;
use tracing::warn;

use crate::error_chain::ErrorChain;
use crate::net::listener::accept::AsyncListener;
use crate::runtime::Timer;
use crate::serve::admission::Admission;

/// Delay after a failed accept, for example without a free descriptor.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Accept loop of one listening socket.
pub(super) struct Acceptor {
    pub(super) incoming: AsyncListener,
    pub(super) admission: Admission,
}

impl Acceptor {
    /// Accepts until the server drains, then empties the backlog and closes the socket.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket and drops its backlog.
    pub(super) async fn run(self) {
        let draining = &self.admission.draining;
        loop {
            let is_draining = draining.is_shutdown();
            self.accept_backlog().await;
            if is_draining {
                return;
            }
            let drained = async {
                draining.wait().await;
                Ok(())
            };
            if let Err(error) = future::or(drained, self.incoming.ready()).await {
                self.back_off(&error).await;
            }
        }
    }

    async fn accept_backlog(&self) {
        let context = &self.admission.context;
        loop {
            let permit = context.permits.acquire().await;
            match self.incoming.try_accept().await {
                Ok(None) => return,
                Ok(Some((stream, peer))) => self.admission.admit(permit, stream, peer),
                // The client closed before the accept.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    drop(permit);
                    self.back_off(&error).await;
                }
            }
            // A burst of new connections must not starve the open ones.
            future::yield_now().await;
        }
    }

    async fn back_off(&self, error: &io::Error) {
        let access = &self.admission.context.access;
        if access.accept_error_log.allow(Instant::now()) {
            let address = self.incoming.local_addr();
            warn!(%address, error = %ErrorChain(error), "accept failed, retrying");
        }
        Timer::after(ACCEPT_RETRY_DELAY).await;
    }
}
