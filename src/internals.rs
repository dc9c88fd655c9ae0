//! Parts of the library that the program, the fuzzer and the benchmarks use. Any version may change
//! or remove them.

#[cfg(any(feature = "cat", feature = "download"))]
pub use crate::atomic_file::AtomicFile;
#[cfg(feature = "download")]
pub use crate::download::http::error::redact_query;
#[cfg(feature = "echo")]
pub use crate::echo::message::trim_newline;
pub use crate::escape::{Escaped, MAX_CHARS};
pub use crate::limits::timeout::race;
#[cfg(feature = "echo")]
pub use crate::measure::encoding::DecodeError;
pub use crate::runtime::start::start;
#[cfg(feature = "download")]
pub use crate::speed::Speed;

/// Parsers of HTTP.
#[cfg(feature = "download")]
pub mod http {
    pub use crate::download::http::chunked::ChunkedDecoder;
    pub use crate::download::http::response_head::{MAX_HEADERS, find_end};
}

/// Interval logs.
#[cfg(feature = "echo")]
pub mod interval_log {
    pub use crate::measure::interval_log::{IntervalLogWriter, LoggedTimes, ReadLogError};
    pub use crate::measure::intervals::Interval;
}

/// The file-descriptor limit.
pub mod nofile {
    pub use crate::limits::nofile::{
        FDS_PER_WORKER, available, available_after, preallocate_fd_table, raise_limit,
    };
}

/// Headers of proxies.
#[cfg(any(feature = "download", feature = "echo", feature = "serve"))]
pub mod proxy_protocol {
    pub use crate::net::proxy_protocol::{Announced, Header, HeaderError, MAX_HEADER_LEN, parse};
}
