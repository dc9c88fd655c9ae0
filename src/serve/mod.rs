//! An echo server: answers each message with itself.
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

mod accept;
mod admission;
mod config;
mod connections;
mod datagram;
mod doors;
mod error;
mod exporter;
mod faults;
mod guard;
mod held;
mod late_datagrams;
mod lateness;
mod metrics;
mod modes;
mod secure;
mod session;
mod shard;
mod stats;
mod visit;

use std::future::Future;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::semaphore::Semaphore;
use crate::limits::shutdown::{self, Trigger};
use crate::net::address::{Address, Endpoint};
use crate::net::listener::Listener;
use crate::net::tls::{Fingerprint, TlsServer};
use crate::runtime::WorkerThread;
use crate::serve::admission::Admission;
use crate::serve::doors::Doors;
use crate::serve::guard::Guard;
use crate::serve::shard::Shard;

pub use crate::net::udp::MAX_DATAGRAM_LEN as LONGEST_DATAGRAM;
pub use config::{Config, Faults, Mode};
pub use error::Error;
pub use ipnet::IpNet;
pub use stats::{Datagrams, Figures, Summary, TlsFailures};

/// An echo server whose sockets listen, not yet run: connections wait in the system's backlog.
#[derive(Debug)]
pub struct Server {
    workers: Vec<WorkerThread<()>>,
    addresses: Vec<Address>,
    fingerprint: Option<Fingerprint>,
    exporter: Option<(WorkerThread<()>, Address)>,
    figures: Arc<Figures>,
    starter: Trigger,
    stopper: Trigger,
}

impl Server {
    /// Listens on all `addresses` and on [`Config::metrics`], and starts the threads that will
    /// serve.
    ///
    /// # Errors
    ///
    /// [`Error`] of the first address that cannot be had, or of what else is missing; nothing
    /// listens then.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, nothing listens.
    pub async fn bind(addresses: &[Address], config: Config) -> Result<Self, Error> {
        Self::bind_with(Vec::new(), addresses, config).await
    }

    /// As [`bind`](Self::bind), and serves `sockets` too, which are bound already: they listen
    /// over TCP or as Unix sockets, or take datagrams over UDP. They come first.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind); also where one of `sockets` is for something else.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, nothing listens.
    pub async fn bind_with(
        sockets: Vec<OwnedFd>,
        addresses: &[Address],
        config: Config,
    ) -> Result<Self, Error> {
        let tls = match config.tls.clone() {
            Some(tls) => Some(TlsServer::load(tls).await?),
            None => None,
        };
        let mut doors = Doors::new(config.threads);
        for socket in sockets {
            doors.adopt(socket, &config)?;
        }
        for address in addresses {
            doors.open(address, &config, tls.as_ref()).await?;
        }
        let figures = Arc::new(Figures::new(config.threads));
        let exporter = match &config.metrics {
            Some(address) => Some(start_exporter(address, &figures).await?),
            None => None,
        };
        let admission = Arc::new(Admission::new(&config));
        let permits = Semaphore::new(config.max_connections.unwrap_or_else(|| doors.room()));
        let (starter, started) = shutdown::channel();
        let (stopper, stop) = shutdown::channel();
        let busy_poll = config.busy_poll;
        let guard = Arc::new(Guard::new(&doors.addresses));
        let start = |(sockets, traffic)| {
            let (config, figures) = (config.clone(), Arc::clone(&figures));
            let (permits, stop) = (permits.clone(), stop.clone());
            let (admission, guard) = (Arc::clone(&admission), Arc::clone(&guard));
            let shard = Shard {
                sockets,
                config,
                figures,
                traffic,
                admission,
                guard,
                permits,
                stop,
            };
            let started = started.clone();
            WorkerThread::start("serve", busy_poll, || async move {
                started.wait().await;
                shard.run().await;
            })
        };
        let shards = doors.shards.into_iter().zip(figures.traffic());
        let workers = shards.map(start).collect::<Result<_, _>>();
        let workers = workers.map_err(Error::Thread)?;
        let (addresses, fingerprint) = (doors.addresses, tls.map(|tls| tls.fingerprint()));
        Ok(Self {
            workers,
            addresses,
            fingerprint,
            exporter,
            figures,
            starter,
            stopper,
        })
    }

    /// The addresses that are listened on, in the order in which they were given, with the ports
    /// that the system chose where 0 was asked.
    pub fn local_addrs(&self) -> &[Address] {
        &self.addresses
    }

    /// That of the certificate that is shown to those who come over TLS.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// The address of [`Config::metrics`], with the port that the system chose where 0 was asked.
    /// It is answered on until [`run`](Self::run) has ended.
    pub fn metrics_addr(&self) -> Option<&Address> {
        self.exporter.as_ref().map(|(_, address)| address)
    }

    /// The counters of this server, to be read while it runs and afterwards.
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    /// Serves until `stop` is done, then drains: takes the connections that wait already, closes
    /// the listening sockets, answers what has been received, and closes each connection. What
    /// has not ended after [`Config::drain`] is cut.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, all connections are cut at once.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Summary {
        self.starter.trigger();
        stop.await;
        self.stopper.trigger();
        for worker in self.workers {
            worker.finish().await;
        }
        self.figures.summary()
    }
}

/// Starts the thread that tells the figures, and returns where it listens.
async fn start_exporter(
    endpoint: &Endpoint,
    figures: &Arc<Figures>,
) -> Result<(WorkerThread<()>, Address), Error> {
    let listeners = Listener::bind(endpoint, NonZeroUsize::MIN).await;
    let mut listeners = listeners.map_err(Error::Metrics)?;
    let listener = listeners.remove(0);
    let (local, figures) = (listener.local_addr().clone(), Arc::clone(figures));
    let worker = WorkerThread::start("metrics", Duration::ZERO, || {
        exporter::export(listener, figures)
    });
    Ok((worker.map_err(Error::Thread)?, local))
}
