//! Output of a transfer, opened before the first request.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use crate::download::context::Context;
use crate::download::error::Error;
use crate::download::input::item::{Item, PlannedDownload, Target};
use crate::download::store::filename;
use crate::download::store::names::Allocation;
use crate::download::store::part::Part;
use crate::download::store::sink::FileSink;

/// Output of a transfer. It is opened first, so that nothing is requested that cannot be written.
pub(crate) enum Output {
    Part(Part),
    Writer(Arc<FileSink>),
    /// The file exists and is kept.
    Existing {
        path: PathBuf,
        /// Path that was requested, of which the other may be a number.
        requested: PathBuf,
    },
}

impl Output {
    /// Opens the output of an item.
    pub(crate) async fn open(
        context: &Context,
        url: &Url,
        dir: &Path,
        target: Target,
    ) -> Result<Self, Error> {
        let dir = context.config.output.dir.join(dir);
        match target {
            Target::Named => Self::allocate(context, dir.join(filename::from_url(url)), url),
            Target::File(path) => Self::open_path(context, dir.join(path), url).await,
            Target::Writer(writer) => Ok(Self::Writer(Arc::new(FileSink::writer(writer)))),
        }
    }

    /// Allocates a path for a download that requests `requested`.
    pub(super) fn allocate(
        context: &Context,
        requested: PathBuf,
        url: &Url,
    ) -> Result<Self, Error> {
        let allocation = context.paths.allocate(&requested, url, &context.config)?;
        Ok(match allocation {
            Allocation::Part(part) => Self::Part(part),
            Allocation::Existing(path) => Self::Existing { path, requested },
        })
    }

    async fn open_path(context: &Context, path: PathBuf, url: &Url) -> Result<Self, Error> {
        let invalid = |kind: io::ErrorKind| Err(Error::file("create", &path, kind.into()));
        match fs::metadata(&path) {
            Ok(data) if data.is_dir() => invalid(io::ErrorKind::IsADirectory),
            Ok(data) if !data.is_file() => {
                // Opening a FIFO blocks until it has a reader.
                let writer = path.clone();
                let open = smol::unblock(move || OpenOptions::new().write(true).open(writer));
                let file = open
                    .await
                    .map_err(|error| Error::file("open", &path, error))?;
                Ok(Self::Writer(Arc::new(FileSink::writer(Box::new(file)))))
            }
            Err(_) if path.file_name().is_none() => invalid(io::ErrorKind::InvalidFilename),
            _ if filename::is_reserved(path.file_name().unwrap_or_default()) => {
                Err(Error::ReservedName { path })
            }
            _ => Self::allocate(context, path, url),
        }
    }

    /// Returns the final path, if the output is a file.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Part(part) => Some(part.target()),
            Self::Writer(_) => None,
            Self::Existing { path, .. } => Some(path.clone()),
        }
    }
}

/// Returns the path that a download would use, and reserves it.
pub(crate) fn plan(context: &Context, item: Item) -> PlannedDownload {
    let url = item.source.url;
    let dir = context.config.output.dir.join(item.dir);
    let planned = |url, path, skipped| PlannedDownload { url, path, skipped };
    let requested = match item.target {
        Target::Named => dir.join(filename::from_url(&url)),
        Target::File(path) => dir.join(path),
        Target::Writer(_) => return planned(url, None, false),
    };
    let is_special = |data: fs::Metadata| !data.is_file() && !data.is_dir();
    if fs::metadata(&requested).is_ok_and(is_special) {
        return planned(url, Some(requested), false);
    }
    let (path, skipped) = context.paths.plan(requested, &context.config);
    planned(url, Some(path), skipped)
}
