//! An HTTP/1.1 client for downloads: one GET, one answer, its body as it comes.

mod client;
mod error;

pub use client::{Client, ClientConfig, Response};
pub use error::{HttpError, ProtocolError};
