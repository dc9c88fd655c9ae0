//! An echo server: replies to each message with the message itself.
//!
//! ```no_run
//! use myapp::net::address::Address;
//! use myapp::serve::{Config, Server};
//!
//! # async fn example() -> Result<(), myapp::serve::Error> {
//! let server = Server::bind(&[Address::loopback(8888)], Config::default()).await?;
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
mod error;
mod fault;
mod framing;
mod handshake_timeout;
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
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::semaphore::Semaphore;
use crate::limits::shutdown::{self, Shutdown, Trigger};
use crate::net::address::{Address, Endpoint, UnixPath};
use crate::net::listener::Listener;
use crate::net::tls::{Fingerprint, TlsServer};
use crate::runtime::WorkerThread;
use crate::serve::access::AccessControl;
use crate::serve::admin::Admin;
use crate::serve::listeners::Listeners;
use crate::serve::udp::loop_guard::LoopGuard;
use crate::serve::worker::Worker;

pub use crate::net::udp::MAX_DATAGRAM_LEN;
pub use config::{Config, FaultInjection, LossBurst, Mode, ProxyProtocol};
pub use error::Error;
pub use fault::handle::{Faults, InvalidFault};
pub use ipnet::IpNet;
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
    start_trigger: Trigger,
    shutdown_trigger: Trigger,
}

impl Server {
    /// Binds all `addresses`, [`Config::metrics`] and [`Config::admin`], and starts the worker threads.
    ///
    /// # Errors
    ///
    /// Returns the [`Error`] of the first address that cannot be bound, or of the TLS set-up. No
    /// socket stays open in this case.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all sockets.
    pub async fn bind(addresses: &[Address], config: Config) -> Result<Self, Error> {
        Self::from_sockets(Vec::new(), addresses, config).await
    }

    /// Like [`bind`](Self::bind), but also serves inherited `sockets`: listening TCP or Unix
    /// sockets, or bound UDP sockets. They precede `addresses` in
    /// [`local_addrs`](Self::local_addrs).
    ///
    /// # Errors
    ///
    /// The errors of [`bind`](Self::bind), and an error for a socket of another type.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all sockets.
    pub async fn from_sockets(
        sockets: Vec<OwnedFd>,
        addresses: &[Address],
        config: Config,
    ) -> Result<Self, Error> {
        let tls = match config.tls.clone() {
            Some(tls) => Some(TlsServer::load(tls).await?),
            None => None,
        };
        let mut listeners = Listeners::new(config.threads);
        for socket in sockets {
            listeners.adopt(socket, &config)?;
        }
        for address in addresses {
            listeners.bind(address, &config, tls.as_ref()).await?;
        }
        let stats = Arc::new(ServerStats::new(config.threads));
        let faults = match &config.fault_injection {
            Some(faults) => Some(faults.clone()),
            // The endpoint can add faults later.
            None => config.admin.is_some().then(FaultInjection::default),
        };
        let faults = faults.map(|faults| Faults::new(faults, Arc::clone(&stats)));
        let faults = faults.transpose()?;
        let admin = match (&config.admin, &faults) {
            (Some(path), Some(faults)) => Some(start_admin(path, faults)?),
            _ => None,
        };
        let metrics = match &config.metrics {
            Some(endpoint) => Some(start_metrics(endpoint, &stats).await?),
            None => None,
        };
        let addresses = listeners.addresses.clone();
        let (start_trigger, started) = shutdown::channel();
        let (shutdown_trigger, shutdown) = shutdown::channel();
        Ok(Self {
            workers: start_workers(
                listeners,
                &config,
                &stats,
                faults.as_ref(),
                &started,
                &shutdown,
            )?,
            addresses,
            tls,
            metrics,
            _admin: admin,
            stats,
            faults,
            start_trigger,
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

    /// Serves until `shutdown` completes, then drains: accepts the connections in the backlog,
    /// closes the listening sockets, replies to what has been received, and closes each
    /// connection. Connections still open after [`Config::drain_timeout`] are aborted.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts all connections.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Summary {
        self.start_trigger.trigger();
        shutdown.await;
        self.shutdown_trigger.trigger();
        for worker in self.workers {
            worker.finish().await;
        }
        self.stats.summary()
    }
}

/// Starts a thread for each worker. They serve once `started` is triggered.
fn start_workers(
    listeners: Listeners,
    config: &Config,
    stats: &Arc<ServerStats>,
    faults: Option<&Faults>,
    started: &Shutdown,
    shutdown: &Shutdown,
) -> Result<Vec<WorkerThread<()>>, Error> {
    let access = Arc::new(AccessControl::new(config));
    let available = || listeners.available_connections();
    let permits = Semaphore::new(config.max_connections.unwrap_or_else(available));
    let loop_guard = Arc::new(LoopGuard::new(&listeners.addresses));
    let workers = listeners.workers.into_iter().zip(stats.traffic());
    let threads = workers.map(|(sockets, traffic)| {
        let worker = Worker {
            sockets,
            config: config.clone(),
            stats: Arc::clone(stats),
            traffic,
            access: Arc::clone(&access),
            loop_guard: Arc::clone(&loop_guard),
            permits: permits.clone(),
            faults: faults.cloned(),
            shutdown: shutdown.clone(),
        };
        let started = started.clone();
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
    stats: &Arc<ServerStats>,
) -> Result<(WorkerThread<()>, Address), Error> {
    let listeners = Listener::bind(endpoint, NonZeroUsize::MIN).await;
    let mut listeners = listeners.map_err(Error::Metrics)?;
    let listener = listeners.remove(0);
    let address = listener.local_addr().clone();
    let stats = Arc::clone(stats);
    let worker = WorkerThread::start("metrics", Duration::ZERO, || {
        metrics::http::serve(listener, stats)
    });
    Ok((worker.map_err(Error::Thread)?, address))
}

/// Starts the thread of the admin endpoint.
fn start_admin(path: &UnixPath, faults: &Faults) -> Result<WorkerThread<()>, Error> {
    let listeners = Listener::bind_unix(path, ADMIN_SOCKET_MODE, NonZeroUsize::MIN);
    let listener = listeners.map_err(Error::Admin)?.remove(0);
    let admin = Admin {
        faults: faults.clone(),
    };
    let worker = WorkerThread::start("admin", Duration::ZERO, || {
        let respond = async move |request| admin.respond(&request);
        http::serve("admin", listener, respond)
    });
    worker.map_err(Error::Thread)
}
