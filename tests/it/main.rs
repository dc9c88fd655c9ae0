//! The tests of the whole: the built program run as a user runs it, and the library's public face.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod harness;
mod log;
mod serve;
