//! One thread of a server: its sockets, its connections, and what they share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future;
use smol::LocalExecutor;
use tracing::error;

use crate::error_chain::ErrorChain;
use crate::limits::semaphore::Semaphore;
use crate::limits::shutdown::{self, Shutdown};
use crate::limits::timeout::race;
use crate::net::listener::accept::AsyncListener;
use crate::net::udp::UdpServerSocket;
use crate::runtime::{Timer, mark_all_readable};
use crate::serve::accept::Acceptor;
use crate::serve::admission::Admission;
use crate::serve::config::{Config, Faults, Mode};
use crate::serve::connections::Connections;
use crate::serve::datagram::Answerer;
use crate::serve::doors::{Door, Sockets};
use crate::serve::guard::Guard;
use crate::serve::modes::Framing;
use crate::serve::stats::{Figures, Traffic};

/// The buffer that all connections of a thread read into. More bytes at once were measured to be
/// slower, as they no longer fit into the processor's cache.
const BUFFER: usize = 64 << 10;

/// Tasks that are run in a row before sockets and the deadline are looked at.
const TASKS: usize = 200;

/// What a thread is given to serve.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) sockets: Sockets,
    pub(super) config: Config,
    pub(super) figures: Arc<Figures>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) admission: Arc<Admission>,
    pub(super) guard: Arc<Guard>,
    pub(super) permits: Semaphore,
    pub(super) stop: Shutdown,
}

/// What all connections of a thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) framing: Framing,
    /// The longest datagram that is answered.
    pub(super) udp_max: usize,
    /// With faults, answers are made before they wait: they get this prefix, and none when they
    /// are written.
    pub(super) faults: Option<(Faults, Vec<u8>)>,
    pub(super) figures: Arc<Figures>,
    /// Of this thread alone.
    pub(super) traffic: Arc<Traffic>,
    pub(super) admission: Arc<Admission>,
    /// For connections.
    pub(super) permits: Semaphore,
    pub(super) connections: Connections,
    pub(super) buffer: RefCell<Box<[u8]>>,
    started: Instant,
}

impl Shard {
    /// Serves until the stop, then drains.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, all connections are cut at once.
    pub(super) async fn run(self) {
        let Self {
            sockets,
            config,
            figures,
            traffic,
            admission,
            guard,
            permits,
            stop,
        } = self;
        let shared = Rc::new(Shared::new(&config, figures, traffic, admission, permits));
        let executor = Rc::new(LocalExecutor::new());
        let (drainer, draining) = shutdown::channel();
        for Door { listener, tls } in sockets.doors {
            let address = listener.local_addr().clone();
            let incoming = match AsyncListener::new(listener) {
                Ok(incoming) => incoming,
                Err(error) => {
                    error!(%address, error = %ErrorChain(&error), "cannot wait for connections");
                    continue;
                }
            };
            let acceptor = Acceptor {
                incoming,
                tls,
                shared: Rc::clone(&shared),
                executor: Rc::downgrade(&executor),
                draining: draining.clone(),
            };
            executor.spawn(acceptor.run()).detach();
        }
        for bound in sockets.datagrams {
            let address = bound.local_addr();
            let socket = match UdpServerSocket::new(bound) {
                Ok(socket) => socket,
                Err(error) => {
                    error!(%address, error = %ErrorChain(&error), "cannot wait for datagrams");
                    continue;
                }
            };
            let (guard, draining) = (Arc::clone(&guard), draining.clone());
            let answerer = Answerer::new(socket, Rc::clone(&shared), guard, draining);
            executor.spawn(answerer.run()).detach();
        }
        let sweeper = config
            .idle_timeout
            .map(|limit| executor.spawn(sweep(Rc::clone(&shared), limit)));
        let stopped = stop.clone();
        // The stop has to wake somebody.
        executor.spawn(async move { stopped.wait().await }).detach();
        work(&executor, || stop.is_shutdown()).await;
        drop(sweeper);
        // What has come until now is answered or accepted, even if nobody has been told of it yet.
        mark_all_readable();
        shared.connections.drain();
        drainer.trigger();
        // What has not ended in time is cut, with the executor that holds it.
        let _ = race(
            Timer::after(config.drain),
            work(&executor, || executor.is_empty()),
        )
        .await;
    }
}

/// Runs tasks until there is nothing more to do. (To be stolen by other threads, of which there are
/// none, `LocalExecutor::run` would move each through a second queue.)
async fn work(executor: &LocalExecutor<'_>, is_done: impl Fn() -> bool) {
    while !is_done() {
        for _ in 0..TASKS {
            if is_done() {
                return;
            }
            // A tick that may have to wait costs more, even if it need not.
            if !executor.try_tick() {
                executor.tick().await;
            }
        }
        future::yield_now().await;
    }
}

impl Shared {
    pub(super) fn new(
        config: &Config,
        figures: Arc<Figures>,
        traffic: Arc<Traffic>,
        admission: Arc<Admission>,
        permits: Semaphore,
    ) -> Self {
        let buffer = match config.mode {
            Mode::Chunk => config.chunk.get().min(BUFFER),
            Mode::Line | Mode::Discard => BUFFER,
        };
        let mut framing = Framing::new(config);
        let faults = config
            .faults
            .clone()
            .filter(|_| config.mode != Mode::Discard);
        Self {
            faults: faults.map(|faults| (faults, framing.take_prefix())),
            framing,
            udp_max: config.udp_max,
            figures,
            traffic,
            admission,
            permits,
            connections: Connections::new(
                config.max_partial / config.threads,
                config.idle_timeout.is_some(),
            ),
            buffer: RefCell::new(vec![0; buffer].into()),
            started: Instant::now(),
        }
    }

    /// Milliseconds since the start; after 49 days they begin anew.
    pub(super) fn milliseconds(&self) -> u32 {
        self.started.elapsed().as_millis() as u32
    }
}

/// Calls those that have been silent for `limit`, at most a quarter of it late, with one timer
/// for all: then a message costs no more than noting the tick in which it came. To look at 10,000
/// connections eight times a second takes a thousandth of a core.
async fn sweep(shared: Rc<Shared>, limit: Duration) {
    let period = (limit / 8).clamp(Duration::from_millis(10), Duration::from_secs(1));
    // Few ticks make the number of each connection's last one small.
    let period = period.max(limit / 10_000);
    let ticks = limit.as_nanos().div_ceil(period.as_nanos()) + 1;
    let ticks = u16::try_from(ticks).unwrap_or(u16::MAX);
    loop {
        Timer::after(period).await;
        shared.connections.tick(ticks);
    }
}
