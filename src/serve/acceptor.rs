//! Accept loop of one listening socket.

use std::future::Future;
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
use crate::limits::timeout::race;
use crate::net::listener::accept::AsyncListener;
use crate::net::stream::{Peer, Stream};
use crate::net::tls::TlsServer;
use crate::runtime::Timer;
use crate::serve::access::Refusal;
use crate::serve::connection::Connection;
use crate::serve::connection::guard::ConnectionGuard;
use crate::serve::context::WorkerContext;
use crate::serve::fault::handle::WorkerFaults;
use crate::serve::fault::stream::{InjectedFaults, NoFaults};
use crate::serve::tls;
use crate::serve::traffic_log::TRAFFIC;

/// Delay after a failed accept, for example without a free descriptor.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Accept loop of one listening socket.
pub(super) struct Acceptor {
    pub(super) incoming: AsyncListener,
    pub(super) tls: Option<TlsServer>,
    pub(super) context: Rc<WorkerContext>,
    /// Weak, because the executor owns this task: a strong reference would be a cycle.
    pub(super) executor: Weak<LocalExecutor<'static>>,
    pub(super) draining: Shutdown,
}

impl Acceptor {
    /// Accepts until the server drains, then empties the backlog and closes the socket.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket and drops its backlog.
    pub(super) async fn run(self) {
        loop {
            let draining = self.draining.is_shutdown();
            self.accept_backlog().await;
            if draining {
                return;
            }
            let drained = async {
                self.draining.wait().await;
                Ok(())
            };
            if let Err(error) = future::or(drained, self.incoming.ready()).await {
                self.back_off(&error).await;
            }
        }
    }

    async fn accept_backlog(&self) {
        loop {
            let permit = self.context.permits.acquire().await;
            match self.incoming.try_accept().await {
                Ok(None) => return,
                Ok(Some((stream, peer))) => self.admit(permit, stream, peer),
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

    /// Serves a connection, or closes it if access control refuses it.
    fn admit(&self, permit: Permit, stream: Stream, peer: Peer) {
        let Some(executor) = self.executor.upgrade() else {
            return;
        };
        if let Err(refusal) = self.context.access.admit(&peer) {
            return self.refuse(refusal, &peer);
        }
        let (guard, number) = ConnectionGuard::new(Rc::clone(&self.context), permit, peer);
        if self.context.faults.is_some() {
            self.spawn_faulty(&executor, stream, guard, number);
        } else if let Some(server) = self.tls.clone() {
            let draining = self.draining.clone();
            let served = tls::serve(server, stream, guard, NoFaults, draining);
            executor.spawn(served).detach();
        } else {
            let served = Connection::new(guard, stream, NoFaults).run();
            executor.spawn(served).detach();
        }
    }

    /// Serves a connection with faults.
    fn spawn_faulty(
        &self,
        executor: &LocalExecutor<'static>,
        stream: Stream,
        guard: ConnectionGuard,
        number: u64,
    ) {
        let faults = InjectedFaults::new(number);
        let draining = self.draining.clone();
        if let Some(server) = self.tls.clone() {
            let served = tls::serve(server, stream, guard, faults, draining);
            self.spawn_delayed(executor, served);
        } else {
            self.spawn_delayed(executor, Connection::new(guard, stream, faults).run());
        }
    }

    /// Starts a task after the accept delay, or when the server drains.
    fn spawn_delayed(
        &self,
        executor: &LocalExecutor<'static>,
        served: impl Future<Output = ()> + 'static,
    ) {
        let faults = self.context.faults.as_ref().and_then(WorkerFaults::active);
        let delay = faults.map_or(Duration::ZERO, |faults| faults.accept_delay);
        if delay.is_zero() {
            return executor.spawn(served).detach();
        }
        let draining = self.draining.clone();
        let delayed = async move {
            // A timeout is the normal case.
            let _ = race(Timer::after(delay), draining.wait()).await;
            served.await;
        };
        executor.spawn(delayed).detach();
    }

    fn refuse(&self, refusal: Refusal, peer: &Peer) {
        let stats = &self.context.stats;
        let (counter, reason) = match refusal {
            Refusal::Acl => (&stats.refused_acl, "acl"),
            Refusal::MaxPerIp => (&stats.refused_max_per_ip, "max_per_ip"),
        };
        counter.fetch_add(1, Relaxed);
        info!(target: TRAFFIC, %peer, reason, "refused");
    }

    async fn back_off(&self, error: &io::Error) {
        if self.context.access.accept_error_log.allow(Instant::now()) {
            let address = self.incoming.local_addr();
            warn!(%address, error = %ErrorChain(error), "accept failed, retrying");
        }
        Timer::after(ACCEPT_RETRY_DELAY).await;
    }
}
