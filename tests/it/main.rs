//! The tests of the whole: the built program run as a user runs it, and the library's public face.

// A test program has no public face, and whatever fails is to fail the test.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod download;
mod harness;
mod log;
