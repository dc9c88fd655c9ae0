//! Output of a transfer, opened before the first request.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use crate::descriptor;
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
        let path = match target {
            Target::Named => {
                return Self::allocate_or_wait(context, dir.join(filename::from_url(url)), url)
                    .await;
            }
            Target::File(path) => dir.join(path),
            Target::Writer(writer) => {
                return Ok(Self::Writer(Arc::new(FileSink::writer(writer, None))));
            }
        };
        if descriptor::is_stream(&path) {
            Self::open_stream(path).await
        } else if path.file_name().is_none() {
            let error = io::ErrorKind::InvalidFilename.into();
            Err(Error::file("create", &path, error))
        } else if filename::is_reserved(path.file_name().unwrap_or_default()) {
            Err(Error::ReservedName { path })
        } else {
            Self::allocate_or_wait(context, path, url).await
        }
    }

    /// Allocates a path as soon as there are descriptors for it.
    async fn allocate_or_wait(
        context: &Context,
        requested: PathBuf,
        url: &Url,
    ) -> Result<Self, Error> {
        loop {
            match Self::allocate(context, requested.clone(), url) {
                Err(error) if context.descriptors.wait_after(&error).await => {}
                result => return result,
            }
        }
    }

    /// Opens a descriptor, a FIFO or a device.
    async fn open_stream(path: PathBuf) -> Result<Self, Error> {
        let stream = path.clone();
        // Opening a FIFO blocks until it has a reader.
        let open = smol::unblock(move || match descriptor::open(&stream) {
            Some(fd) => fd.map(|fd| (fd, None)),
            None => descriptor::open_special(&stream).map(|fd| (fd, Some(stream))),
        });
        let (fd, special) = open
            .await
            .map_err(|error| Error::file("open", &path, error))?;
        let sink = FileSink::writer(Box::new(File::from(fd)), special);
        Ok(Self::Writer(Arc::new(sink)))
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

    /// Returns the final path, if the output is a file.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Part(part) => Some(part.target()),
            Self::Writer(_) => None,
            Self::Existing { path, .. } => Some(path.clone()),
        }
    }
}

/// Returns the output directory of an item, and its target in there. A target that is a directory, or
/// ends with a slash, is the directory of a file that is named after its URL.
pub(super) fn locate(context: &Context, dir: &Path, target: Target) -> (PathBuf, Target) {
    let dir = context.config.output.dir.join(dir);
    match target {
        Target::File(path) if path.as_os_str().as_encoded_bytes().ends_with(b"/") => {
            (dir.join(path), Target::Named)
        }
        Target::File(path) if !path.as_os_str().is_empty() && dir.join(&path).is_dir() => {
            (dir.join(path), Target::Named)
        }
        target => (dir, target),
    }
}

/// Returns the path that a download would use, and reserves it.
pub(crate) fn plan(context: &Context, item: Item) -> PlannedDownload {
    let url = item.source.url;
    let planned = |url, path, skipped| PlannedDownload { url, path, skipped };
    let requested = match locate(context, &item.dir, item.target) {
        (dir, Target::Named) => dir.join(filename::from_url(&url)),
        (dir, Target::File(path)) => dir.join(path),
        (_, Target::Writer(_)) => return planned(url, None, false),
    };
    if descriptor::is_stream(&requested) {
        return planned(url, Some(requested), false);
    }
    let (path, skipped) = context.paths.plan(requested, &context.config);
    planned(url, Some(path), skipped)
}
