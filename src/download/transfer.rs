//! One file, from its URL to its final name.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_lite::io::{copy, sink};
use tracing::{debug, warn};
use url::Url;

use crate::download::body::{Body, CopyError};
use crate::download::config::Config;
use crate::download::error::DownloadError;
use crate::download::http::{Client, HttpError, Login, Response, shown};
use crate::download::naming;
use crate::download::part::{Names, Part, failed};
use crate::download::plan::{Item, Target};
use crate::download::progress::Event;
use crate::download::redirect::{Route, is_redirect};
use crate::download::report::Saved;
use crate::escape::Escaped;
use crate::limits::deadline::within;

/// The rest of an answer that nobody wants is read, so that its connection can be used again,
/// if it is no longer than this and comes that soon.
const DRAINED: (u64, Duration) = (16 * 1024, Duration::from_millis(100));

/// What all transfers of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) client: Client,
    pub(super) names: Names,
}

/// Where the bytes go, open before the first request: what cannot be written is not asked for.
enum Output {
    Part(Part),
    Writer(Box<dyn Write + Send>),
}

impl Shared {
    /// Fetches one file, and tells how it goes on.
    pub(super) async fn fetch(
        &self,
        item: Item,
        tell: impl Fn(Event<'_>),
    ) -> Result<Saved, DownloadError> {
        let start = Instant::now();
        let Item { url, login, target } = item;
        let output = self.open(&url, target).await?;
        tell(Event::Started { url: &url, path: output.target().as_deref() });
        let response = self.request(&url, login).await?;
        let length = response.length();
        tell(Event::Answered { length });
        let body = Body::new(response, |position| tell(Event::Received { position }));
        let (path, bytes) = match output {
            Output::Part(part) => {
                let unwritten = |error| failed("write", part.path(), error);
                let saved = body.save(length, part.file()).await;
                let bytes = saved.map_err(|error| explain(error, unwritten))?;
                (Some(part.finish()?), bytes)
            }
            Output::Writer(writer) => {
                let unwritten = |source| DownloadError::Sink { source };
                let sent = body.send(writer).await;
                (None, sent.map_err(|error| explain(error, unwritten))?)
            }
        };
        Ok(Saved { url, path, bytes, elapsed: start.elapsed() })
    }

    /// Opens what the bytes go to.
    async fn open(&self, url: &Url, target: Target) -> Result<Output, DownloadError> {
        let dir = &self.config.dir;
        match target {
            Target::Named => self.names.claim(dir.join(naming::from_url(url))).map(Output::Part),
            Target::File(path) => self.open_file(dir.join(path)).await,
            Target::Sink(writer) => Ok(Output::Writer(writer)),
        }
    }

    async fn open_file(&self, path: PathBuf) -> Result<Output, DownloadError> {
        match fs::metadata(&path) {
            Ok(data) if data.is_dir() => {
                Err(failed("create", &path, io::ErrorKind::IsADirectory.into()))
            }
            Ok(data) if !data.is_file() => {
                // Opening a FIFO waits for its reader.
                let writer = path.clone();
                let open = smol::unblock(move || OpenOptions::new().write(true).open(writer));
                let file = open.await.map_err(|error| failed("open", &path, error))?;
                Ok(Output::Writer(Box::new(file)))
            }
            Err(_) if path.file_name().is_none() => {
                Err(failed("create", &path, io::ErrorKind::InvalidFilename.into()))
            }
            _ => self.names.claim(path).map(Output::Part),
        }
    }

    /// Asks for `url`, follows redirects, and returns an answer whose body is the file.
    async fn request(&self, url: &Url, login: Option<Login>) -> Result<Response, DownloadError> {
        let mut route = Route::new(url.clone(), login, &self.config);
        loop {
            let response = self.client.get(route.url(), route.headers()).await?;
            if !is_redirect(response.status()) {
                return accept(response, &route).await;
            }
            route.follow(response.header("location"), &self.config)?;
            debug!(to = %shown(route.url()), "redirected");
            drain(response).await;
        }
    }
}

impl Output {
    fn target(&self) -> Option<PathBuf> {
        match self {
            Self::Part(part) => Some(part.target()),
            Self::Writer(_) => None,
        }
    }
}

/// Lets through what answers a plain GET with a file (RFC 9110 section 15.3).
async fn accept(response: Response, route: &Route) -> Result<Response, DownloadError> {
    match response.status() {
        status @ 400.. => {
            drain(response).await;
            let url = route.is_redirected().then(|| shown(route.url()));
            Err(DownloadError::Status { status, url })
        }
        // A part would be taken for the whole.
        206 => Err(DownloadError::Unasked { status: 206 }),
        200..300 => {
            warn_of_encoding(&response, route.url());
            Ok(response)
        }
        status => Err(DownloadError::Unasked { status }),
    }
}

/// The bytes are saved as they come: that they are compressed, although nobody asked for it,
/// should surprise nobody later.
fn warn_of_encoding(response: &Response, url: &Url) {
    let encoding = response.header("content-encoding").unwrap_or_default();
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity") {
        warn!(url = %shown(url), encoding = %Escaped(encoding), "saved as it came, still encoded");
    }
}

async fn drain(response: Response) {
    let (longest, limit) = DRAINED;
    if response.length().is_some_and(|length| length <= longest) {
        // If it does not come, the connection is closed: that is all.
        let _ = within(Some(limit), copy(response, sink())).await;
    }
}

fn explain(error: CopyError, unwritten: impl FnOnce(io::Error) -> DownloadError) -> DownloadError {
    match error {
        CopyError::Read(error) => HttpError::from_io(error).into(),
        CopyError::Write(error) => unwritten(error),
    }
}
