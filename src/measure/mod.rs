//! Measurement: latency histogram and percentiles ([`latency`]), time series ([`timeline`]), live
//! statistics ([`live`]).

pub mod latency;
pub mod live;
pub mod timeline;
