//! The tests of the whole: the built program run as a user runs it, and the library's public face.

// The helpers of tests are tests too, which clippy.toml does not see.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cat;
mod harness;
mod log;
