//! Latencies and their percentiles ([`latency`]), over time ([`timeline`]), and while they come
//! ([`live`]).

pub mod latency;
pub mod live;
pub mod timeline;
