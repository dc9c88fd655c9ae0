//! What the tests share: a folder of their own, the program run in it, a running server, a peer
//! for clients.

pub mod http;
pub mod peer;
pub mod program;
pub mod schema;
pub mod serve;

pub use peer::Peer;
pub use program::{Folder, Program, Ran, Running, myapp};
pub use serve::Server;
