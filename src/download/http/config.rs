//! Client configuration.

use std::time::Duration;

use super::authentication::PasswordScheme;
use super::proxy::Proxies;
use crate::net::resolver::ResolverConfig;
use crate::net::tls::TlsConfig;

/// Configuration of a [`Client`](super::Client).
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Time limit for name resolution, connect and TLS handshake together. Default: 10 s.
    pub connect_timeout: Duration,
    /// Longest time without a byte, in the head and in the body. Default: 30 s.
    pub idle_timeout: Duration,
    /// `User-Agent` header; empty sends none. Default: `myapp/` and the version.
    pub user_agent: String,
    /// TLS trust and client certificate. Default: the system's root certificates, and no client
    /// certificate.
    pub tls: TlsConfig,
    /// Proxies that requests go through. Default: none.
    pub proxies: Proxies,
    /// Use of the passwords of HTTP proxies. A request with a body is authenticated by Basic only.
    /// Default: [`PasswordScheme::BasicFirst`].
    pub proxy_passwords: PasswordScheme,
    /// TLS trust and client certificate for `https` proxies. Default: as for `tls`.
    pub proxy_tls: TlsConfig,
    /// Name resolution. Default: the system resolver.
    pub resolver: ResolverConfig,
    /// Maximum number of idle connections kept per origin. A `Downloader` sets it to the larger of
    /// its jobs and its connections per file. Default: 8.
    pub max_idle_per_origin: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            user_agent: concat!("myapp/", env!("CARGO_PKG_VERSION")).into(),
            tls: TlsConfig::default(),
            proxies: Proxies::default(),
            proxy_passwords: PasswordScheme::default(),
            proxy_tls: TlsConfig::default(),
            resolver: ResolverConfig::default(),
            max_idle_per_origin: 8,
        }
    }
}
