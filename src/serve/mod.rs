//! An echo server: replies to each message with the message itself.
//!
//! ```no_run
//! use myapp::net::address::Address;
//! use myapp::serve::{Config, Server};
//!
//! # async fn example() -> Result<(), myapp::serve::Error> {
//! let server = Server::bind([Address::loopback(8888)], Config::default()).await?;
//! let summary = server.run(std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

mod acceptor;
mod access;
mod admin;
mod admission;
mod config;
mod connection;
mod context;
mod counter;
mod error;
mod event;
mod fault;
mod framing;
mod handler;
mod handling_time;
mod handshake_timeout;
mod health;
mod hooks;
mod http;
mod listeners;
mod metrics;
mod proxy_protocol;
mod stats;
mod tls;
mod traffic_log;
mod udp;
mod whoami;
mod worker;

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use smol::Timer;

use crate::limits::semaphore::Semaphore;
use crate::limits::shutdown::{self, Shutdown, Trigger};
use crate::net::address::{Address, Endpoint, UnixPath};
use crate::net::listener::Listener;
use crate::net::tls::{Fingerprint, TlsServer};
use crate::runtime::WorkerThread;
use crate::serve::access::AccessControl;
use crate::serve::admin::Admin;
use crate::serve::event::ConnectionObserver;
use crate::serve::handler::Handler;
use crate::serve::health::ProbeResponder;
use crate::serve::hooks::Hooks;
use crate::serve::listeners::{Listeners, WorkerSockets};
use crate::serve::metrics::MetricsSource;
use crate::serve::udp::loop_guard::LoopGuard;
use crate::serve::worker::Worker;

#[doc(inline)]
pub use crate::net::listener::MAX_KEEPALIVE;
pub use crate::net::udp::MAX_DATAGRAM_LEN;
pub use config::{Config, FaultInjection, LossBurst, Mode, ProxyProtocol};
pub use error::Error;
pub use event::ConnectionEvent;
pub use fault::handle::{Faults, InvalidFault};
pub use handler::HandlerStream;
pub use health::Health;
pub use ipnet::IpNet;
pub use listeners::InheritedSocket;
pub use stats::{Datagrams, ServerStats, Summary, TlsFailures};

/// Permissions of the socket of the admin endpoint: only the owner may connect.
const ADMIN_SOCKET_MODE: u32 = 0o600;

/// A bound echo server. Until it runs, connections wait in the kernel's backlog.
#[derive(Debug)]
pub struct Server {
    workers: Vec<WorkerThread<()>>,
    addresses: Vec<Address>,
    tls: Option<TlsServer>,
    metrics: Option<(WorkerThread<()>, Address)>,
    /// Serves until it is dropped.
    _admin: Option<WorkerThread<()>>,
    stats: Arc<ServerStats>,
    faults: Option<Faults>,
    hooks: Arc<Hooks>,
    health: Health,
    shutdown_delay: Duration,
    start_trigger: Trigger,
    stopping_trigger: Trigger,
    shutdown_trigger: Trigger,
}

impl Server {
    /// Binds all `addresses`, [`Config::metrics`] and [`Config::admin`], and starts the worker
    /// threads. A [`SocketAddr`](std::net::SocketAddr) is a TCP address.
    ///
    /// # Errors
    ///
    /// Returns the [`Error`] of the first address that cannot be bound, or of the TLS set-up. No
    /// socket stays open in this case.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all sockets.
    pub async fn bind(
        addresses: impl IntoIterator<Item = impl Into<Address>>,
        config: Config,
    ) -> Result<Self, Error> {
        Self::from_sockets(Vec::new(), addresses, config).await
    }

    /// Like [`bind`](Self::bind), but also serves inherited `sockets`: listening TCP or Unix
    /// sockets, or bound UDP sockets. They precede `addresses` in
    /// [`local_addrs`](Self::local_addrs).
    ///
    /// # Errors
    ///
    /// The errors of [`bind`](Self::bind), and an error for a socket of another type, or of TLS
    /// without TCP.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all sockets.
    pub async fn from_sockets(
        sockets: Vec<InheritedSocket>,
        addresses: impl IntoIterator<Item = impl Into<Address>>,
        config: Config,
    ) -> Result<Self, Error> {
        let tls = match config.tls.clone() {
            Some(tls) => Some(TlsServer::load(tls).await?),
            None => None,
        };
        let listeners = open_listeners(sockets, addresses, &config, tls.as_ref()).await?;
        let stats = Arc::new(ServerStats::new(config.threads));
        let faults = start_faults(&config, &stats)?;
        let admin = match (&config.admin, &faults) {
            (Some(path), Some(faults)) => Some(start_admin(path, faults, &stats)?),
            _ => None,
        };
        let (start_trigger, started) = shutdown::channel();
        let (stopping_trigger, stopping) = shutdown::channel();
        let (shutdown_trigger, shutdown) = shutdown::channel();
        let (health, responders) = Health::new(config.threads.get(), started.clone(), stopping);
        let max_connections = config
            .max_connections
            .unwrap_or_else(|| listeners.available_connections());
        let metrics = match &config.metrics {
            Some(endpoint) => {
                let source = MetricsSource {
                    stats: Arc::clone(&stats),
                    health: health.clone(),
                    tls: tls.clone(),
                    max_connections,
                };
                Some(start_metrics(endpoint, source).await?)
            }
            None => None,
        };
        let shared = Shared {
            stats: Arc::clone(&stats),
            access: Arc::new(AccessControl::new(&config)),
            loop_guard: Arc::new(LoopGuard::new(&listeners.addresses)),
            permits: Semaphore::new(max_connections),
            faults: faults.clone(),
            hooks: Arc::default(),
            started,
            shutdown,
        };
        Ok(Self {
            addresses: listeners.addresses,
            workers: start_workers(listeners.workers, responders, &config, &shared)?,
            tls,
            metrics,
            _admin: admin,
            stats,
            faults,
            hooks: shared.hooks,
            health,
            shutdown_delay: config.shutdown_delay,
            start_trigger,
            stopping_trigger,
            shutdown_trigger,
        })
    }

    /// Returns the bound addresses in the order in which they were given. Port 0 is replaced by
    /// the port that the kernel has chosen.
    pub fn local_addrs(&self) -> &[Address] {
        &self.addresses
    }

    /// Returns the fingerprint of the certificate that the server presents over TLS.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.tls.as_ref().map(TlsServer::fingerprint)
    }

    /// Returns the TLS part of the server, through which its files can be
    /// [reloaded](TlsServer::reload) while it runs.
    pub fn tls(&self) -> Option<&TlsServer> {
        self.tls.as_ref()
    }

    /// Returns the bound address of [`Config::metrics`]. It is served until [`run`](Self::run)
    /// has ended.
    pub fn metrics_addr(&self) -> Option<&Address> {
        self.metrics.as_ref().map(|(_, address)| address)
    }

    /// Returns the handle through which the faults can be changed while the server runs. `None`
    /// without [`Config::fault_injection`] and [`Config::admin`].
    pub fn faults(&self) -> Option<&Faults> {
        self.faults.as_ref()
    }

    /// Returns the counters of this server, readable while it runs and afterwards.
    pub fn stats(&self) -> Arc<ServerStats> {
        Arc::clone(&self.stats)
    }

    /// Returns the health of this server.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Calls `observer` for each connection that is opened, and when it is closed. It runs on the
    /// thread that serves the connection and must not block. Only the first observer is kept.
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// use myapp::net::address::Address;
    /// use myapp::serve::{Config, ConnectionEvent, Server};
    ///
    /// # async fn example() -> Result<(), myapp::serve::Error> {
    /// let (sender, events) = mpsc::channel();
    /// let server = Server::bind([Address::loopback(0)], Config::default()).await?;
    /// let server = server.with_observer(move |event| {
    ///     // Fails if the receiver is gone.
    ///     let _ = sender.send(event);
    /// });
    /// server.run(async {}).await;
    /// for event in events {
    ///     if let ConnectionEvent::Closed { peer, received, .. } = event {
    ///         println!("{peer:?}: {received} bytes");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// # myapp::runtime::block_on(example()).unwrap();
    /// ```
    pub fn with_observer(self, observer: impl Fn(ConnectionEvent) + Send + Sync + 'static) -> Self {
        let _ = self.hooks.observer.set(ConnectionObserver::new(observer));
        self
    }

    /// Serves until `shutdown` completes, and for [`Config::shutdown_delay`] after that, then
    /// drains: accepts the connections in the backlog, closes the listening sockets, replies to
    /// what has been received, and closes each connection. Connections still open after
    /// [`Config::drain_timeout`] are aborted.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts all connections.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Summary {
        self.start_trigger.trigger();
        shutdown.await;
        self.stopping_trigger.trigger();
        if !self.shutdown_delay.is_zero() {
            Timer::after(self.shutdown_delay).await;
        }
        self.shutdown_trigger.trigger();
        for worker in self.workers {
            worker.finish().await;
        }
        self.stats.summary()
    }

    /// Like [`run`](Self::run), but each connection over TCP, TLS or a Unix socket is served by
    /// `handler` instead of the echo, for example to test a client against a server that stalls or
    /// lies. Limits, access control, TLS and the idle timeout apply; mode and fault injection do
    /// not. UDP is echoed as configured.
    ///
    /// ```no_run
    /// use futures_lite::AsyncWriteExt as _;
    /// use myapp::net::address::Address;
    /// use myapp::serve::{Config, Server};
    ///
    /// # async fn example() -> Result<(), myapp::serve::Error> {
    /// let server = Server::bind([Address::loopback(0)], Config::default()).await?;
    /// let greet = async |mut stream: myapp::serve::HandlerStream| {
    ///     // A failed write means that the client is gone.
    ///     let _ = stream.write_all(b"hello\n").await;
    /// };
    /// server.run_with(greet, std::future::pending()).await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts all connections.
    pub async fn run_with<H>(self, handler: H, shutdown: impl Future<Output = ()>) -> Summary
    where
        H: AsyncFn(HandlerStream) + Send + Sync + 'static,
    {
        // Set only here, and `self` is consumed.
        let _ = self.hooks.handler.set(Handler::new(handler));
        self.run(shutdown).await
    }
}

/// State that all workers share.
struct Shared {
    stats: Arc<ServerStats>,
    access: Arc<AccessControl>,
    loop_guard: Arc<LoopGuard>,
    permits: Semaphore,
    faults: Option<Faults>,
    hooks: Arc<Hooks>,
    started: Shutdown,
    shutdown: Shutdown,
}

/// Starts a thread for each worker. They serve once the server has started.
fn start_workers(
    workers: Vec<WorkerSockets>,
    responders: Vec<ProbeResponder>,
    config: &Config,
    shared: &Shared,
) -> Result<Vec<WorkerThread<()>>, Error> {
    let traffic = shared.stats.traffic();
    let workers = workers.into_iter().zip(responders).zip(traffic);
    let threads = workers.map(|((sockets, responder), traffic)| {
        let worker = Worker {
            sockets,
            config: config.clone(),
            stats: Arc::clone(&shared.stats),
            traffic,
            access: Arc::clone(&shared.access),
            loop_guard: Arc::clone(&shared.loop_guard),
            permits: shared.permits.clone(),
            faults: shared.faults.clone(),
            hooks: Arc::clone(&shared.hooks),
            responder,
            shutdown: shared.shutdown.clone(),
        };
        let started = shared.started.clone();
        WorkerThread::start("serve", config.busy_poll, || async move {
            started.wait().await;
            worker.run().await;
        })
    });
    threads.collect::<Result<_, _>>().map_err(Error::Thread)
}

/// Starts the thread of the metrics endpoint, and returns its bound address.
async fn start_metrics(
    endpoint: &Endpoint,
    source: MetricsSource,
) -> Result<(WorkerThread<()>, Address), Error> {
    let listeners = Listener::bind(endpoint, NonZeroUsize::MIN).await;
    let mut listeners = listeners.map_err(Error::Metrics)?;
    let listener = listeners.remove(0);
    let address = listener.local_addr().clone();
    let worker = WorkerThread::start("metrics", Duration::ZERO, || {
        let respond = async move |request| metrics::http::respond(&source, &request).await;
        http::serve("metrics", listener, respond)
    });
    Ok((worker.map_err(Error::Thread)?, address))
}

/// Takes the sockets and binds the addresses.
async fn open_listeners(
    sockets: Vec<InheritedSocket>,
    addresses: impl IntoIterator<Item = impl Into<Address>>,
    config: &Config,
    tls: Option<&TlsServer>,
) -> Result<Listeners, Error> {
    let mut listeners = Listeners::new(config.threads);
    for socket in sockets {
        listeners.adopt(socket, config, tls)?;
    }
    for address in addresses {
        listeners.bind(&address.into(), config, tls).await?;
    }
    Ok(listeners)
}

/// Returns the faults to inject, if there are any now or the admin endpoint can add some later.
fn start_faults(config: &Config, stats: &Arc<ServerStats>) -> Result<Option<Faults>, InvalidFault> {
    let faults = match &config.fault_injection {
        Some(faults) => faults.clone(),
        None if config.admin.is_some() => FaultInjection::default(),
        None => return Ok(None),
    };
    Faults::new(faults, Arc::clone(stats)).map(Some)
}

/// Starts the thread of the admin endpoint.
fn start_admin(
    path: &UnixPath,
    faults: &Faults,
    stats: &Arc<ServerStats>,
) -> Result<WorkerThread<()>, Error> {
    if path.abstract_name().is_some() {
        return Err(Error::AdminNotPrivate { path: path.clone() });
    }
    let listeners = Listener::bind_unix(path, ADMIN_SOCKET_MODE, NonZeroUsize::MIN);
    let listener = listeners.map_err(Error::Admin)?.remove(0);
    let admin = Admin {
        faults: faults.clone(),
        stats: Arc::clone(stats),
    };
    let worker = WorkerThread::start("admin", Duration::ZERO, || {
        let respond = async move |request| admin.respond(&request);
        http::serve("admin", listener, respond)
    });
    worker.map_err(Error::Thread)
}
