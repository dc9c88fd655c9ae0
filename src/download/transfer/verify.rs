//! Verification of files by their checksums.

use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};
use url::Url;

use super::attempt::foreign::continue_file;
use super::attempt::metadata::check_server_digest;
use super::output::Output;
use super::resume::{OVERLAP_LEN, Validators};
use crate::checksum::{Checksum, digest_file, hex};
use crate::download::config::OnConflict;
use crate::download::context::Context;
use crate::download::error::Error;
use crate::download::store::foreign::ForeignFile;
use crate::download::store::part::Part;
use crate::download::store::resume_state::ResumeState;
use crate::download::store::server_digest::ServerDigest;
use crate::download::store::sink::FileSink;
use crate::error_chain::ErrorChain;
use crate::escape::Escaped;

/// Verifies an existing file with the checksum, if one is given. A file that is to be kept in any
/// case must match. Otherwise the first file of the name or one of its numbers that matches is
/// kept. If there is none, the download continues a file of another program or uses the next free
/// path.
pub(super) async fn verify_existing(
    context: &Context,
    url: &Url,
    output: Output,
    checksum: Option<&Checksum>,
) -> Result<Output, Error> {
    let Some(checksum) = checksum else {
        return Ok(output);
    };
    let mut output = output;
    while let Output::Existing { path, requested } = output {
        match existing_mismatch(&path, checksum).await? {
            None => return Ok(Output::Existing { path, requested }),
            Some(mismatch) if context.config.output.on_conflict == OnConflict::Skip => {
                return Err(mismatch);
            }
            Some(mismatch) => warn_of_mismatch(&path, &mismatch),
        }
        output = Output::allocate(context, requested, url)?;
    }
    let Output::Part(part) = &output else {
        return Ok(output);
    };
    let Some(file) = part.foreign() else {
        return Ok(output);
    };
    let mut next = Some(file.path.clone());
    while let Some(path) = next {
        let Some(mismatch) = existing_mismatch(&path, checksum).await? else {
            let requested = path.clone();
            return Ok(Output::Existing { path, requested });
        };
        warn_of_mismatch(&path, &mismatch);
        next = part.next_existing();
    }
    continue_unverified(context, url, part, file, checksum).await?;
    Ok(output)
}

/// Returns the error of an existing file that does not match the checksum.
async fn existing_mismatch(path: &Path, checksum: &Checksum) -> Result<Option<Error>, Error> {
    let found = file_digest(path, checksum).await?;
    let is_match = checksum.matches(&found);
    Ok((!is_match).then(|| checksum_mismatch(checksum, &found)))
}

fn warn_of_mismatch(path: &Path, mismatch: &Error) {
    let cause = ErrorChain(mismatch);
    let path = Escaped(path.as_os_str().as_encoded_bytes()).to_string();
    warn!(path, "existing file differs: {cause}");
}

/// Starts a part with the bytes of an existing file of another program. It may be truncated; the
/// checksum decides at the end.
async fn continue_unverified(
    context: &Context,
    url: &Url,
    part: &Part,
    file: &ForeignFile,
    checksum: &Checksum,
) -> Result<(), Error> {
    // A shorter file is requested from its start, and so is a compressed one.
    if file.len <= OVERLAP_LEN || context.config.compressed {
        return Ok(());
    }
    let Ok(open) = file.open() else {
        return Ok(());
    };
    let mut state = ResumeState::new(url, url, Validators::default());
    state.required_checksum = Some(checksum.to_text());
    let bytes = file.len;
    let path = Escaped(file.path.as_os_str().as_encoded_bytes()).to_string();
    info!(path, bytes, "continuing the existing file");
    continue_file(&part.sink(), Arc::new(open), state).await
}

/// Computes the digest of a file on the blocking pool.
pub(super) async fn file_digest(path: &Path, checksum: &Checksum) -> Result<Vec<u8>, Error> {
    let algorithm = checksum.algorithm();
    let read = path.to_owned();
    let digest = smol::unblock(move || digest_file(&read, algorithm)).await;
    digest.map_err(|error| Error::file("read", path, error))
}

fn checksum_mismatch(checksum: &Checksum, found: &[u8]) -> Error {
    Error::ChecksumMismatch {
        algorithm: checksum.algorithm(),
        expected: checksum.hex(),
        found: hex(found),
    }
}

/// Compares the digest of the file with the expected one. Bytes of an earlier run are read again.
pub(super) async fn verify(sink: &Arc<FileSink>, checksum: &Checksum) -> Result<(), Error> {
    match digest(sink).await? {
        Some(digest) if !checksum.matches(&digest) => Err(checksum_mismatch(checksum, &digest)),
        _ => Ok(()),
    }
}

/// Compares the digest of the file with the one that its server sent.
pub(super) async fn verify_server_digest(
    sink: &Arc<FileSink>,
    expected: &ServerDigest,
    url: &Url,
) -> Result<(), Error> {
    let checksum = expected.checksum();
    if !sink.has_digest() {
        // The bytes of a stream cannot be read again.
        if !sink.is_file() {
            return Ok(());
        }
        sink.set_digest(Some(checksum.algorithm()));
    }
    let Some(found) = digest(sink).await? else {
        return Ok(());
    };
    check_server_digest(sink, expected, &found, url)
}

/// Returns the digest of the file, if enabled.
async fn digest(sink: &Arc<FileSink>) -> Result<Option<Vec<u8>>, Error> {
    let read = Arc::clone(sink);
    smol::unblock(move || read.take_digest())
        .await
        .map_err(|error| sink.write_error(error))
}
