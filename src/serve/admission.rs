//! Admission of accepted connections, and start of their tasks.

use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use smol::LocalExecutor;
use tracing::{field, info};

use crate::error_chain::ErrorChain;
use crate::limits::semaphore::Permit;
use crate::limits::shutdown::Shutdown;
use crate::limits::timeout::race;
use crate::net::proxy_protocol::Announced;
use crate::net::stream::{Peer, Stream};
use crate::net::tls::TlsServer;
use crate::runtime::Timer;
use crate::serve::access::Refusal;
use crate::serve::connection::Connection;
use crate::serve::connection::guard::ConnectionGuard;
use crate::serve::context::WorkerContext;
use crate::serve::fault::handle::WorkerFaults;
use crate::serve::fault::stream::{FaultPolicy, InjectedFaults, NoFaults, WhoamiReplies};
use crate::serve::handler::Handler;
use crate::serve::proxy_protocol;
use crate::serve::tls;
use crate::serve::traffic_log::TRAFFIC;
use crate::serve::whoami::Whoami;

/// Admission of the connections of one listening socket.
#[derive(Clone)]
pub(super) struct Admission {
    pub(super) tls: Option<TlsServer>,
    /// Serves the connections instead of the echo.
    pub(super) handler: Option<Handler>,
    pub(super) context: Rc<WorkerContext>,
    /// Weak, because the executor owns the tasks: a strong reference would be a cycle.
    pub(super) executor: Weak<LocalExecutor<'static>>,
    pub(super) draining: Shutdown,
}

impl Admission {
    /// Serves a connection, or closes it if access control refuses it. One from a proxy is
    /// judged by its header.
    pub(super) fn admit(&self, permit: Permit, stream: Stream, peer: Peer) {
        if !self.context.access.expects_header(&peer) {
            return self.start(permit, stream, peer, None);
        }
        if let Some(executor) = self.executor.upgrade() {
            let admission = self.clone();
            executor
                .spawn(admission.receive_header(permit, stream, peer))
                .detach();
        }
    }

    async fn receive_header(self, permit: Permit, mut stream: Stream, peer: Peer) {
        match proxy_protocol::receive(&mut stream, &self.draining).await {
            Ok(announced) => self.start(permit, stream, peer, announced),
            Err(error) => {
                let stats = &self.context.stats;
                stats.refused_proxy_header.fetch_add(1, Relaxed);
                let error = ErrorChain(&error);
                info!(target: TRAFFIC, %peer, reason = "proxy_header", %error, "refused");
            }
        }
    }

    /// Starts the task of a connection, unless access control refuses the announced client, or
    /// the peer if there is none.
    fn start(&self, permit: Permit, stream: Stream, peer: Peer, announced: Option<Announced>) {
        let Some(executor) = self.executor.upgrade() else {
            return;
        };
        let (peer, proxy) = match &announced {
            Some(Announced::Ip { source, .. }) => ((*source).into(), Some(peer)),
            // A path in another machine's file system is no address to judge by.
            Some(Announced::Unix { .. }) | None => (peer, None),
        };
        if let Err(refusal) = self.context.access.admit(&peer) {
            return self.refuse(refusal, &peer);
        }
        let shown_proxy = proxy.as_ref().map(field::display);
        info!(target: TRAFFIC, %peer, proxy = shown_proxy, "opened");
        let (guard, number) = ConnectionGuard::new(Rc::clone(&self.context), permit, peer);
        if let Some(handler) = self.handler.clone() {
            let draining = self.draining.clone();
            let served = handler.serve(stream, self.tls.clone(), guard, number, draining);
            executor.spawn(served).detach();
        } else if self.context.is_whoami {
            let peer = proxy.as_ref().unwrap_or(&guard.peer);
            let whoami = Whoami::of_connection(number, &stream, peer, announced.as_ref());
            let replies = WhoamiReplies {
                faults: InjectedFaults::new(number),
                whoami: Box::new(whoami),
            };
            self.spawn_faulty(&executor, stream, guard, replies);
        } else if self.context.faults.is_some() {
            self.spawn_faulty(&executor, stream, guard, InjectedFaults::new(number));
        } else if let Some(server) = self.tls.clone() {
            let draining = self.draining.clone();
            let served = tls::serve(server, stream, guard, NoFaults, draining);
            executor.spawn(served).detach();
        } else {
            let served = Connection::new(guard, stream, NoFaults).run();
            executor.spawn(served).detach();
        }
    }

    /// Serves a connection that may have faults, or replies other than its messages.
    fn spawn_faulty<F: FaultPolicy>(
        &self,
        executor: &LocalExecutor<'static>,
        stream: Stream,
        guard: ConnectionGuard,
        faults: F,
    ) {
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
}
