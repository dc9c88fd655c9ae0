//! Measurement: latency histogram and percentiles ([`latency`], [`percentile`]), time series
//! ([`timeline`]), live statistics ([`live`]) with the times of each second ([`intervals`]), and
//! histograms as text ([`encoding`], [`interval_log`]).

pub mod encoding;
pub mod interval_log;
pub mod intervals;
pub mod latency;
pub mod live;
pub mod percentile;
pub mod timeline;
pub(crate) mod wall_clock;
