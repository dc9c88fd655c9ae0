//! Metrics endpoint for Prometheus, and health checks.

pub(super) mod http;
mod process;
mod prometheus;

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::net::tls::TlsServer;
use crate::serve::health::Health;
use crate::serve::stats::ServerStats;

/// Sources of the metrics.
#[derive(Debug, Clone)]
pub(super) struct MetricsSource {
    pub(super) stats: Arc<ServerStats>,
    pub(super) health: Health,
    pub(super) tls: Option<TlsServer>,
    pub(super) max_connections: NonZeroUsize,
}
