//! What the tests share: a folder of their own, the program run in it, a peer for it.

pub mod peer;
pub mod program;
pub mod schema;

pub use peer::Peer;
pub use program::{Folder, Program, Ran, myapp};
