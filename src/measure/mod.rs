//! Latencies and their percentiles ([`latency`]).

pub mod latency;
