//! One thread of a server: its sockets, its connections, and what they share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smol::{LocalExecutor, Timer};
use tracing::error;

use crate::limits::deadline::within;
use crate::limits::permits::Permits;
use crate::limits::stop::Stop;
use crate::net::listener::Listener;
use crate::net::stream::Incoming;
use crate::serve::accept::Acceptor;
use crate::serve::config::{Config, Mode};
use crate::serve::connections::Connections;
use crate::serve::modes::Framing;
use crate::serve::stats::Figures;

/// The buffer that all connections of a thread read into. More bytes at once were measured to be
/// slower, as they no longer fit into the processor's cache.
const BUFFER: usize = 64 << 10;

/// What a thread is given to serve.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) listeners: Vec<Listener>,
    pub(super) config: Config,
    pub(super) figures: Arc<Figures>,
    pub(super) permits: Permits,
    pub(super) stop: Stop,
}

/// What all connections of a thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) framing: Framing,
    pub(super) figures: Arc<Figures>,
    pub(super) connections: Connections,
    pub(super) buffer: RefCell<Box<[u8]>>,
}

impl Shard {
    /// Serves until the stop, then drains.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, all connections are cut at once.
    pub(super) async fn run(self) {
        let Self { listeners, config, figures, permits, stop } = self;
        let shared = Rc::new(Shared::new(&config, figures));
        let executor = Rc::new(LocalExecutor::new());
        for listener in listeners {
            let address = listener.local_addr();
            let incoming = match Incoming::new(listener) {
                Ok(incoming) => incoming,
                Err(error) => {
                    error!(%address, %error, "cannot wait for connections");
                    continue;
                }
            };
            let acceptor = Acceptor {
                incoming,
                shared: Rc::clone(&shared),
                permits: permits.clone(),
                executor: Rc::downgrade(&executor),
                stop: stop.clone(),
            };
            executor.spawn(acceptor.run()).detach();
        }
        let sweeper =
            config.idle_timeout.map(|limit| executor.spawn(sweep(Rc::clone(&shared), limit)));
        // A task of its own: what is run by the executor itself is asked at every wake.
        let stopped = executor.spawn(async move { stop.stopped().await });
        executor.run(stopped).await;
        drop(sweeper);
        shared.connections.drain();
        let rest = async {
            while !executor.is_empty() {
                executor.tick().await;
            }
        };
        // What has not ended in time is cut, with the executor that holds it.
        let _ = within(Some(config.drain), rest).await;
    }
}

impl Shared {
    fn new(config: &Config, figures: Arc<Figures>) -> Self {
        let buffer = match config.mode {
            Mode::Chunk => config.chunk.get().min(BUFFER),
            Mode::Line | Mode::Discard => BUFFER,
        };
        Self {
            framing: Framing::new(config),
            figures,
            connections: Connections::new(config.max_partial / config.threads),
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
