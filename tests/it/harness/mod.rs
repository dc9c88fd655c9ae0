//! What the tests share: a folder of their own, the program run in it, a running server.

pub mod http;
pub mod program;

pub use program::{Folder, Program, Ran, myapp};
