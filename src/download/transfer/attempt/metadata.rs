//! Metadata of responses: the name and the digest of the file.

use tracing::{debug, warn};
use url::Url;

use super::Attempt;
use crate::download::body::decode::{codings, is_name_of_encoded_file};
use crate::download::config::{NameSource, ServerDigests};
use crate::download::error::Error;
use crate::download::event::Event;
use crate::download::http::{Response, redact_url};
use crate::download::request::redirect::RedirectChain;
use crate::download::store::filename;
use crate::download::store::server_digest::ServerDigest;
use crate::download::store::sink::FileSink;
use crate::download::transfer::resume::{ResponseMeta, Validators};

impl<F: Fn(Event<'_>) + Sync> Attempt<'_, F> {
    /// Records a response and returns its metadata.
    pub(super) fn record_response(
        &mut self,
        response: &Response,
        chain: &RedirectChain,
    ) -> ResponseMeta {
        (self.on_event)(Event::ResponseReceived {
            url: chain.url(),
            status: response.status(),
        });
        self.source.server = Some(chain.url().clone());
        self.source.response_time = response.response_time();
        let mut meta = response_meta(response);
        if self.server_digests == ServerDigests::Verify {
            meta.validators.digest =
                ServerDigest::of_response(meta.status, |name| response.headers(name));
        }
        if meta.validators.name.is_none() {
            meta.validators.name = chain.disposition().map(str::to_owned);
        }
        meta
    }

    /// Returns the safe name that the server chose for the file of these validators, by its last
    /// response. URLs that it did not choose are not considered.
    pub(crate) fn server_name(&self, validators: &Validators) -> Option<String> {
        let of_url = || {
            let server = self.source.server.as_ref()?;
            let is_redirected = server != self.url();
            is_redirected
                .then(|| filename::from_server_url(server))
                .flatten()
        };
        match self.request.context.config.output.name_source {
            NameSource::FirstUrl => None,
            NameSource::FinalUrl => of_url(),
            NameSource::ContentDisposition => validators
                .name
                .as_deref()
                .and_then(filename::from_server)
                .or_else(of_url),
        }
    }

    /// Returns whether the coding of a body is that of its file, such as `a.tar.gz`, by the names
    /// of the file.
    pub(super) fn is_encoded_file(
        &self,
        response: &Response,
        chain: &RedirectChain,
        meta: &ResponseMeta,
    ) -> bool {
        let codings = codings(response.headers("content-encoding")).unwrap_or_default();
        let names = [self.url().path(), chain.url().path()];
        let named = meta.validators.name.as_deref();
        let mut names = names.into_iter().chain(named);
        names.any(|name| is_name_of_encoded_file(name, &codings))
    }

    /// Verifies a decoded body. The digest of the server is that of the encoded bytes (RFC 9530
    /// section 2), `found`; but a proxy that encodes a body may leave that of the decoded one.
    pub(super) fn check_decoded_body(
        &self,
        expected: &ServerDigest,
        found: &[u8],
        url: &Url,
    ) -> Result<(), Error> {
        let decoded = self
            .sink
            .take_digest()
            .map_err(|error| self.sink.write_error(error))?;
        match decoded {
            Some(decoded) if expected.mismatch(&decoded).is_none() => Ok(()),
            _ => check_server_digest(&self.sink, expected, found, url),
        }
    }

    /// Records the digest in a response to a range request, unless the file has one.
    pub(super) fn add_digest(&mut self, meta: &ResponseMeta) {
        if let Some(validators) = &mut self.validators
            && validators.digest.is_none()
        {
            validators.digest = meta.validators.digest.clone();
        }
    }
}

/// Compares the digest of a file with the one that its server sent. Bytes that are certainly not
/// those of the file are discarded.
pub(crate) fn check_server_digest(
    sink: &FileSink,
    expected: &ServerDigest,
    found: &[u8],
    url: &Url,
) -> Result<(), Error> {
    let url = redact_url(url);
    match expected.mismatch(found) {
        None => debug!(%url, field = expected.field(), "digest of the server verified"),
        Some(mismatch) if expected.is_binding() => {
            sink.discard();
            return Err(mismatch);
        }
        Some(mismatch) => warn!(%url, "the file may be damaged: {mismatch}"),
    }
    Ok(())
}

/// Extracts the metadata of a response.
pub(super) fn response_meta(response: &Response) -> ResponseMeta {
    ResponseMeta::new(response.status(), response.length(), |name| {
        response.header(name)
    })
}
