//! Takes connections from the system, as many as are permitted.

use std::io::{self, ErrorKind};
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures_lite::future;
use smol::LocalExecutor;
use tracing::{info, warn};

use crate::error_chain::ErrorChain;
use crate::limits::semaphore::Permit;
use crate::limits::shutdown::Shutdown;
use crate::net::listener::accept::AsyncListener;
use crate::net::stream::{Peer, Stream};
use crate::net::tls::TlsServer;
use crate::runtime::Timer;
use crate::serve::admission::Refusal;
use crate::serve::lateness::{Late, Punctual};
use crate::serve::secure;
use crate::serve::session::Session;
use crate::serve::shard::Shared;
use crate::serve::visit::{TRAFFIC, Visit};

/// How long to wait when the system has no descriptor or memory for one more connection.
const PAUSE: Duration = Duration::from_millis(100);

/// What takes the connections of one listening socket.
pub(super) struct Acceptor {
    pub(super) incoming: AsyncListener,
    pub(super) tls: Option<TlsServer>,
    pub(super) shared: Rc<Shared>,
    /// Where connections are served. Not held: it holds this one.
    pub(super) executor: Weak<LocalExecutor<'static>>,
    pub(super) draining: Shutdown,
}

impl Acceptor {
    /// Accepts until the server drains, and then what waits already; then the socket is closed.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, the socket is closed with what waits.
    pub(super) async fn run(self) {
        loop {
            let draining = self.draining.is_shutdown();
            self.accept_waiting().await;
            if draining {
                return;
            }
            let end = async {
                self.draining.wait().await;
                Ok(())
            };
            if let Err(error) = future::or(end, self.incoming.ready()).await {
                self.pause(&error).await;
            }
        }
    }

    async fn accept_waiting(&self) {
        loop {
            let permit = self.shared.permits.acquire().await;
            match self.incoming.try_accept().await {
                Ok(None) => return,
                Ok(Some((stream, peer))) => self.admit(permit, stream, peer),
                // It was over before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    drop(permit);
                    self.pause(&error).await;
                }
            }
            // A burst of connections must not keep those from their turn that are open.
            future::yield_now().await;
        }
    }

    /// Serves a connection, or closes it at once.
    fn admit(&self, permit: Permit, stream: Stream, peer: Peer) {
        let Some(executor) = self.executor.upgrade() else {
            return;
        };
        match self.shared.admission.admit(&peer) {
            Ok(()) => {
                let (visit, number) = Visit::begin(Rc::clone(&self.shared), permit, peer);
                match (self.tls.clone(), Late::new(&self.shared, number)) {
                    (None, None) => {
                        executor
                            .spawn(Session::open(visit, stream, Punctual).run())
                            .detach();
                    }
                    (None, late) => {
                        executor
                            .spawn(Session::open(visit, stream, late).run())
                            .detach();
                    }
                    (Some(tls), late) => {
                        let draining = self.draining.clone();
                        executor
                            .spawn(secure::serve(tls, stream, visit, late, draining))
                            .detach();
                    }
                }
            }
            Err(refusal) => self.refuse(refusal, &peer),
        }
    }

    fn refuse(&self, refusal: Refusal, peer: &Peer) {
        let figures = &self.shared.figures;
        let (counter, why) = match refusal {
            Refusal::Denied => (&figures.denied, "its address may not connect"),
            Refusal::TooMany => (&figures.crowded, "its address has as many as it may"),
        };
        counter.fetch_add(1, Relaxed);
        info!(target: TRAFFIC, %peer, why, "refused");
    }

    async fn pause(&self, error: &io::Error) {
        if self.shared.admission.complaints.allow(Instant::now()) {
            let address = self.incoming.local_addr();
            warn!(%address, error = %ErrorChain(error), "cannot accept connections, trying again");
        }
        Timer::after(PAUSE).await;
    }
}
