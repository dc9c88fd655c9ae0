//! The tests of the whole: the built program run as a user runs it, and the library's public face.

mod cat;
mod download;
mod echo;
mod harness;
mod http_peers;
mod log;
mod resume;
mod retry;
mod serve;
mod tidy;
