//! Sources of one file: the URL of the item and its mirrors.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use url::Url;

use crate::download::config::Config;
use crate::download::host_limits::ConnectionPermit;
use crate::download::input::item::Source;
use crate::download::request::credentials::Scope;
use crate::download::request::headers::{Header, is_secret};
use crate::download::request::send::RequestContext;
use crate::download::transfer::resume::{Validators, is_strong};

/// Alternative source of a file.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) source: Source,
    /// Header fields of the item that may be sent to this mirror.
    pub(crate) headers: Vec<Header>,
}

impl Mirror {
    /// Returns the mirrors of `first` with their header fields. As after a redirect, credentials
    /// and `Host` are only sent to the origin of `first`.
    pub(crate) fn all(
        first: &Source,
        mirrors: Vec<Source>,
        headers: &[Header],
        config: &Config,
    ) -> Vec<Self> {
        let is_trusted = config.credentials.scope == Scope::EveryOrigin;
        let mirror = |source: Source| {
            let is_same_origin = source.url.origin() == first.url.origin();
            let is_allowed = |name: &str| {
                is_same_origin
                    || (is_trusted || !is_secret(name)) && !name.eq_ignore_ascii_case("host")
            };
            let headers = headers
                .iter()
                .filter(|header| is_allowed(header.name()))
                .cloned()
                .collect();
            Self { source, headers }
        };
        mirrors.into_iter().map(mirror).collect()
    }
}

/// Sources that serve segments of one file concurrently. Index 0 is the current source.
pub(crate) struct SourceSet<'a>(Vec<SegmentSource<'a>>);

/// Source of segments.
pub(crate) struct SegmentSource<'a> {
    pub(crate) request: RequestContext<'a>,
    /// Validators that its responses must match.
    validators: Mutex<Validators>,
    /// URL whose host counts the connections.
    server: &'a Url,
    /// Whether the source is no longer used.
    is_removed: AtomicBool,
}

impl<'a> SourceSet<'a> {
    /// Creates the set of the current source, whose response came from `server` with these
    /// validators, and of the mirrors whose bytes are provably of the same version: by a strong
    /// ETag, or if the file `has_checksum`, by its length and that checksum.
    pub(crate) fn new(
        request: RequestContext<'a>,
        server: &'a Url,
        validators: &Validators,
        mirrors: &'a [Mirror],
        has_checksum: bool,
    ) -> Self {
        // A waiting connection keeps the job slot, because the other connections are active.
        let request = RequestContext {
            slot: None,
            ..request
        };
        let first = SegmentSource::new(request, server, validators.clone());
        let for_mirrors = validators.clone().for_other_source(has_checksum);
        let mirrors = for_mirrors.iter().flat_map(|validators| {
            mirrors.iter().map(|Mirror { source, headers }| {
                let request = RequestContext {
                    source,
                    headers,
                    ..request
                };
                SegmentSource::new(request, &source.url, validators.clone())
            })
        });
        Self([first].into_iter().chain(mirrors).collect())
    }

    pub(crate) fn get(&self, index: usize) -> &SegmentSource<'a> {
        &self.0[index]
    }

    /// Returns the next source after `index`, round robin, that has a connection permit
    /// available; `index` itself comes last.
    pub(crate) fn next(&self, index: usize) -> Option<(usize, ConnectionPermit)> {
        self.find(index, self.0.len())
    }

    /// Returns the next source other than `index` that has a connection permit available.
    pub(crate) fn next_other(&self, index: usize) -> Option<(usize, ConnectionPermit)> {
        self.find(index, self.0.len() - 1)
    }

    /// Returns a permit for a connection to the source `index`, if the source is in use and a
    /// permit is available.
    pub(crate) fn try_acquire(&self, index: usize) -> Option<ConnectionPermit> {
        let source = &self.0[index];
        if source.is_removed.load(Ordering::Relaxed) {
            return None;
        }
        source.request.context.hosts.try_acquire(source.server)
    }

    fn find(&self, index: usize, count: usize) -> Option<(usize, ConnectionPermit)> {
        (1..=count)
            .map(|step| (index + step) % self.0.len())
            .find_map(|next| Some((next, self.try_acquire(next)?)))
    }

    /// Removes a source; it is not used again.
    pub(crate) fn remove(&self, index: usize) {
        self.0[index].is_removed.store(true, Ordering::Relaxed);
    }

    /// Returns whether all sources are removed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0
            .iter()
            .all(|source| source.is_removed.load(Ordering::Relaxed))
    }
}

impl<'a> SegmentSource<'a> {
    fn new(request: RequestContext<'a>, server: &'a Url, validators: Validators) -> Self {
        Self {
            request,
            validators: Mutex::new(validators),
            server,
            is_removed: AtomicBool::new(false),
        }
    }

    /// Returns the validators that the next response must match.
    pub(crate) fn validators(&self) -> Validators {
        self.lock().clone()
    }

    /// Pins the source to the version of its first response, if none is pinned.
    pub(crate) fn pin_version(&self, response: Validators) {
        let mut validators = self.lock();
        if validators.if_range().is_none() {
            validators.etag = response.etag.filter(|etag| is_strong(etag));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Validators> {
        self.validators
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
