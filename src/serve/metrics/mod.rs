//! Metrics endpoint for Prometheus.

pub(super) mod http;
mod prometheus;
