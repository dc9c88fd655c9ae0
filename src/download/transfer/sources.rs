//! Where the connections of one file ask: its source, and the mirrors that serve it at the same
//! time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use url::Url;

use crate::download::host_limits::Place;
use crate::download::request::send::Asking;
use crate::download::transfer::mirrors::Mirror;
use crate::download::transfer::resume::{Known, is_strong};

/// The source, which is the first, and its mirrors.
pub(crate) struct Origins<'a>(Vec<Origin<'a>>);

/// One of them.
pub(crate) struct Origin<'a> {
    pub(crate) asking: Asking<'a>,
    /// What its answers must fit.
    known: Mutex<Known>,
    /// Whose connections are counted.
    server: &'a Url,
    /// Whether nobody is to ask it any more.
    is_dropped: AtomicBool,
}

impl<'a> Origins<'a> {
    /// The source that is asked, whose answer came from `server` and made the file `known`, and
    /// those of its mirrors whose bytes can be told to be of the same version: by its strong
    /// ETag, or `is_checked`, by its length and the checksum of the file.
    pub(crate) fn new(
        asking: Asking<'a>,
        server: &'a Url,
        known: &Known,
        mirrors: &'a [Mirror],
        is_checked: bool,
    ) -> Self {
        // While one connection waits, the others work.
        let asking = Asking {
            slot: None,
            ..asking
        };
        let first = Origin::new(asking, server, known.clone());
        let elsewhere = known.clone().elsewhere(is_checked);
        let mirrors = elsewhere.iter().flat_map(|known| {
            mirrors.iter().map(|Mirror { source, headers }| {
                Origin::new(
                    Asking {
                        source,
                        headers,
                        ..asking
                    },
                    &source.url,
                    known.clone(),
                )
            })
        });
        Self([first].into_iter().chain(mirrors).collect())
    }

    pub(crate) fn get(&self, number: usize) -> &Origin<'a> {
        &self.0[number]
    }

    /// The next after this one, in turn, that may have one more connection; this one itself where
    /// no other may.
    pub(crate) fn next(&self, after: usize) -> Option<(usize, Place)> {
        self.look(after, self.0.len())
    }

    /// The next after this one that may have one more connection.
    pub(crate) fn another(&self, after: usize) -> Option<(usize, Place)> {
        self.look(after, self.0.len() - 1)
    }

    fn look(&self, after: usize, steps: usize) -> Option<(usize, Place)> {
        (1..=steps)
            .map(|step| (after + step) % self.0.len())
            .find_map(|number| {
                let Origin {
                    asking,
                    server,
                    is_dropped,
                    ..
                } = &self.0[number];
                let place = || asking.shared.hosts.spare(server);
                (!is_dropped.load(Ordering::Relaxed))
                    .then(place)?
                    .map(|place| (number, place))
            })
    }

    /// Nobody is to ask this one any more.
    pub(crate) fn drop(&self, number: usize) {
        self.0[number].is_dropped.store(true, Ordering::Relaxed);
    }

    /// Whether none is left to be asked.
    pub(crate) fn are_dropped(&self) -> bool {
        self.0
            .iter()
            .all(|origin| origin.is_dropped.load(Ordering::Relaxed))
    }
}

impl<'a> Origin<'a> {
    fn new(asking: Asking<'a>, server: &'a Url, known: Known) -> Self {
        Self {
            asking,
            known: Mutex::new(known),
            server,
            is_dropped: AtomicBool::new(false),
        }
    }

    /// What its next answer must fit.
    pub(crate) fn known(&self) -> Known {
        self.lock().clone()
    }

    /// An answer of its own has come: from now on it is held to that version.
    pub(crate) fn learn(&self, answer: Known) {
        let mut known = self.lock();
        if known.condition().is_none() {
            known.etag = answer.etag.filter(|etag| is_strong(etag));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
