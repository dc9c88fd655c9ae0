//! Cookies set by servers, in a build without the feature `cookies`: they are ignored.

use url::Url;

/// Empty jar.
#[derive(Debug, Clone, Default)]
pub struct CookieJar(());

impl CookieJar {
    pub(crate) fn store<'a>(&self, _: &Url, _: impl Iterator<Item = &'a [u8]>) {}

    pub(crate) fn field(&self, _: &Url) -> Option<String> {
        None
    }
}
