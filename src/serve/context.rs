//! State that all connections and sockets of one worker share.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use crate::limits::semaphore::Semaphore;
use crate::serve::access::AccessControl;
use crate::serve::config::{Config, Mode};
use crate::serve::connection::table::ConnectionTable;
use crate::serve::event::ConnectionObserver;
use crate::serve::fault::handle::{Faults, WorkerFaults};
use crate::serve::framing::Framing;
use crate::serve::handling_time::Sampler;
use crate::serve::stats::{ServerStats, Traffic};

/// Length of the buffer that all connections of a worker read into. Longer reads were measured to
/// be slower, because the data no longer fits into the processor's cache.
const READ_BUFFER_LEN: usize = 64 << 10;

/// Length of this buffer in [`Mode::Whoami`]: the reply to an empty line has hundreds of bytes, and
/// the replies to one read are kept until the peer accepts them.
const WHOAMI_READ_BUFFER_LEN: usize = 512;

/// State that all connections and sockets of one worker share.
#[derive(Debug)]
pub(super) struct WorkerContext {
    pub(super) framing: Framing,
    /// Whether the replies describe the connection ([`Mode::Whoami`]).
    pub(super) is_whoami: bool,
    /// Maximum length of a datagram that gets a reply.
    pub(super) max_datagram: usize,
    /// Faults to inject, if the server may have any.
    pub(super) faults: Option<WorkerFaults>,
    pub(super) stats: Arc<ServerStats>,
    /// Counters of this worker alone.
    pub(super) traffic: Arc<Traffic>,
    pub(super) access: Arc<AccessControl>,
    /// Permits for connections.
    pub(super) permits: Semaphore,
    pub(super) connections: ConnectionTable,
    /// Receives the events of connections.
    pub(super) observer: Option<ConnectionObserver>,
    pub(super) buffer: RefCell<Box<[u8]>>,
    /// Selects the reads whose handling time is measured, for the metrics endpoint.
    pub(super) sampler: Sampler,
    started: Instant,
}

impl WorkerContext {
    pub(super) fn new(
        config: &Config,
        stats: Arc<ServerStats>,
        traffic: Arc<Traffic>,
        access: Arc<AccessControl>,
        permits: Semaphore,
        faults: Option<Faults>,
    ) -> Self {
        let buffer_len = match config.mode {
            Mode::Chunk => config.chunk.get().min(READ_BUFFER_LEN),
            Mode::Line | Mode::Discard => READ_BUFFER_LEN,
            Mode::Whoami => WHOAMI_READ_BUFFER_LEN,
        };
        let framing = Framing::new(config);
        let faults = if framing.replies() {
            faults.map(WorkerFaults::new)
        } else {
            None
        };
        Self {
            faults,
            framing,
            is_whoami: config.mode == Mode::Whoami,
            max_datagram: config.max_datagram,
            stats,
            traffic,
            access,
            permits,
            connections: ConnectionTable::new(
                config.max_buffered_bytes / config.threads,
                config.idle_timeout.is_some(),
            ),
            observer: None,
            buffer: RefCell::new(vec![0; buffer_len].into()),
            sampler: Sampler::new(config.metrics.is_some()),
            started: Instant::now(),
        }
    }

    /// Returns the milliseconds since the start of the worker; they wrap around after 49 days.
    pub(super) fn milliseconds(&self) -> u32 {
        self.started.elapsed().as_millis() as u32
    }
}
