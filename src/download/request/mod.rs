//! Requests: header fields, credentials, redirects and sending.

#[cfg(feature = "cookies")]
pub(crate) mod cookies;
#[cfg(not(feature = "cookies"))]
#[path = "cookies_disabled.rs"]
pub(crate) mod cookies;
pub(crate) mod credentials;
pub(crate) mod headers;
pub(crate) mod netrc;
pub(crate) mod redirect;
pub(crate) mod send;
pub(crate) mod status;
