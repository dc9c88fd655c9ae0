//! Measurement: latency histogram and percentiles ([`latency`], [`percentile`]), time series
//! ([`timeline`]) and live statistics ([`live`]).

pub(crate) mod encoding;
pub(crate) mod interval_log;
pub(crate) mod intervals;
pub mod latency;
pub mod live;
pub mod percentile;
pub mod timeline;
pub(crate) mod wall_clock;
