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
mod config;
mod connections;
mod error;
mod modes;
mod session;
mod stats;

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smol::{LocalExecutor, Timer};

use crate::limits::deadline::within;
use crate::limits::descriptors;
use crate::limits::permits::Permits;
use crate::limits::stop;
use crate::net::address::Address;
use crate::net::listener::Listener;
use crate::serve::accept::Acceptor;
use crate::serve::connections::Connections;
use crate::serve::modes::Framing;

pub use config::{Config, Mode};
pub use error::Error;
pub use stats::{Figures, Summary};

/// The buffer that all connections of a thread read into. More bytes at once were measured to be
/// slower, as they no longer fit into the processor's cache.
const BUFFER: usize = 64 << 10;

/// An echo server whose sockets listen, not yet run.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    config: Config,
    figures: Arc<Figures>,
}

/// What all connections of a thread share.
#[derive(Debug)]
struct Shared {
    framing: Framing,
    figures: Arc<Figures>,
    connections: Connections,
    buffer: RefCell<Box<[u8]>>,
}

impl Server {
    /// Listens on all `addresses`.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] of the first address that cannot be had; nothing listens then.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, nothing listens.
    pub async fn bind(addresses: &[Address], config: Config) -> Result<Self, Error> {
        let mut listeners = Vec::new();
        for address in addresses {
            listeners.push(Listener::bind(address).await?);
        }
        Ok(Self { listeners, config, figures: Arc::new(Figures::new()) })
    }

    /// The addresses that are listened on, in the order in which they were given, with the ports
    /// that the system chose where 0 was asked.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(Listener::local_addr).collect()
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
        let Self { listeners, config, figures } = self;
        let shared = Rc::new(Shared::new(&config, &figures));
        let permits = Permits::new(config.max_connections.unwrap_or_else(descriptors::room));
        let (stopper, stopped) = stop::stop();
        let executor = Rc::new(LocalExecutor::new());
        for listener in listeners {
            let acceptor = Acceptor {
                listener,
                shared: Rc::clone(&shared),
                permits: permits.clone(),
                executor: Rc::downgrade(&executor),
                stop: stopped.clone(),
            };
            executor.spawn(acceptor.run()).detach();
        }
        let sweeper =
            config.idle_timeout.map(|limit| executor.spawn(sweep(Rc::clone(&shared), limit)));
        executor.run(stop).await;
        drop(sweeper);
        stopper.stop();
        shared.connections.drain();
        let rest = async {
            while !executor.is_empty() {
                executor.tick().await;
            }
        };
        // What has not ended in time is cut, with the executor that holds it.
        let _ = within(Some(config.drain), rest).await;
        drop(executor);
        figures.summary()
    }
}

impl Shared {
    fn new(config: &Config, figures: &Arc<Figures>) -> Self {
        let buffer = match config.mode {
            Mode::Chunk => config.chunk.get().min(BUFFER),
            Mode::Line | Mode::Discard => BUFFER,
        };
        Self {
            framing: Framing::new(config),
            figures: Arc::clone(figures),
            connections: Connections::new(config.max_partial),
            buffer: RefCell::new(vec![0; buffer].into()),
        }
    }
}

/// Calls those that have been silent for `limit`, at most a quarter of it late, with one timer
/// for all.
async fn sweep(shared: Rc<Shared>, limit: Duration) {
    let period = (limit / 8).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let ticks = limit.as_nanos().div_ceil(period.as_nanos()) + 1;
    let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
    loop {
        Timer::after(period).await;
        shared.connections.tick(ticks);
    }
}
