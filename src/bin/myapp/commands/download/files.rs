//! File options: existing files, partial downloads, names and durability.

use clap::Args;
use myapp::download::{Config, Limits, NameSource, OnConflict, OutputPolicy};
use myapp::units::parse_size;

#[derive(Debug, Args)]
#[command(next_help_heading = "Files")]
pub(super) struct FileOptions {
    /// Resume partial downloads, skip completed files
    #[arg(short = 'c', long = "continue")]
    resume: bool,
    /// Skip a file whose name is taken
    #[arg(long, visible_alias = "skip-existing", overrides_with = "overwrite")]
    no_clobber: bool,
    /// Atomically replace an existing file once the download is complete
    #[arg(long)]
    overwrite: bool,
    /// Like --overwrite, but copy the complete file into the existing one, such as a mount point
    #[arg(long, conflicts_with = "no_clobber")]
    in_place: bool,
    /// Replace an existing file only if it changed on the server; implies --remote-time
    #[arg(short = 'N', long, overrides_with_all = ["no_clobber", "overwrite"])]
    timestamping: bool,
    /// Use the server's file name, sanitized, else that of the final URL
    #[arg(short = 'J', long)]
    content_disposition: bool,
    /// Use the file name of the final URL after redirects, sanitized
    #[arg(long)]
    trust_server_names: bool,
    /// Request gzip, deflate, br or zstd and decompress; not resumable
    #[arg(long, help_heading = "Transfers")]
    compressed: bool,
    /// Set the modification time from Last-Modified
    #[arg(long)]
    remote_time: bool,
    /// fsync before renaming to the final name
    #[arg(long)]
    fsync: bool,
    /// Maximum file size; larger files fail
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_filesize: Option<u64>,
}

impl FileOptions {
    /// Returns whether bodies are decoded, so that parts cannot be resumed.
    pub(super) fn compressed(&self) -> bool {
        self.compressed
    }

    pub(super) fn apply(&self, config: Config) -> Config {
        let on_conflict = if self.no_clobber {
            OnConflict::Skip
        } else if self.timestamping {
            OnConflict::IfModified
        } else if self.overwrite || self.in_place {
            OnConflict::Overwrite
        } else {
            config.output.on_conflict
        };
        let name_source = if self.content_disposition {
            NameSource::ContentDisposition
        } else if self.trust_server_names {
            NameSource::FinalUrl
        } else {
            config.output.name_source
        };
        Config {
            output: OutputPolicy {
                on_conflict,
                in_place: self.in_place,
                resume: self.resume,
                remote_time: self.remote_time,
                name_source,
                fsync: self.fsync,
                ..config.output
            },
            limits: Limits {
                max_size: self.max_filesize,
                ..config.limits
            },
            compressed: self.compressed,
            ..config
        }
    }
}
