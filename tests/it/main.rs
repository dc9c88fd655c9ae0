//! The tests of the whole: the built program run as a user runs it, and the library's public face.

mod cases;
mod cat;
mod checksum;
mod credentials;
mod download;
mod echo;
mod examples;
mod files;
mod harness;
mod http_peers;
mod https;
mod log;
mod proxies;
mod readme;
mod resume;
mod retry;
mod serve;
mod tidy;
