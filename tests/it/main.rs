//! The tests of the whole: the built program run as a user runs it, and the library's public face.

mod cases;
mod cat;
mod checksum;
mod download;
mod echo;
mod examples;
mod files;
mod harness;
mod http_peers;
mod log;
mod readme;
mod resume;
mod retry;
mod serve;
mod tidy;
