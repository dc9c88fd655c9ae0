//! Files on disk: names, partial files, resume state and checksums.

pub(crate) mod checksum;
pub(crate) mod content_disposition;
mod encoded_word;
pub(crate) mod existing;
pub(crate) mod file_version;
pub(crate) mod filename;
pub(crate) mod foreign;
pub(crate) mod marker;
pub(crate) mod names;
pub(crate) mod part;
pub(crate) mod part_file;
pub(crate) mod range_set;
pub(crate) mod resume_state;
pub(crate) mod server_digest;
pub(crate) mod sink;
pub(crate) mod tmpfile;
mod used_paths;
