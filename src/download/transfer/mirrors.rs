//! The places that one file is to be had from, each asked when the one before it has failed.

use crate::download::config::Config;
use crate::download::input::item::Source;
use crate::download::request::credentials::Scope;
use crate::download::request::headers::{Header, is_secret};

/// One of them.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) source: Source,
    /// The fields for this file alone that are meant for it too.
    pub(crate) headers: Vec<Header>,
}

impl Mirror {
    /// The `mirrors` of `first`. What carries a credential, or names the host, is meant for the
    /// first one's origin, as on the way of a redirect.
    pub(crate) fn all(
        first: &Source,
        mirrors: Vec<Source>,
        headers: &[Header],
        config: &Config,
    ) -> Vec<Self> {
        let trusted = config.credentials.scope == Scope::EveryOrigin;
        let of = |source: Source| {
            let is_same = source.url.origin() == first.url.origin();
            let fits = |name: &str| {
                is_same || (trusted || !is_secret(name)) && !name.eq_ignore_ascii_case("host")
            };
            let headers = headers
                .iter()
                .filter(|header| fits(header.name()))
                .cloned()
                .collect();
            Self { source, headers }
        };
        mirrors.into_iter().map(of).collect()
    }
}
