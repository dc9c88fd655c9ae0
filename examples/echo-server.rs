//! An echo server and a small client for it, in one program: the client says a few lines, the
//! server answers each with itself, then the server is stopped and tells what it has done.
//!
//! ```text
//! cargo run --example echo-server
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use futures_lite::future;
use futures_lite::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use myapp::limits::shutdown::{self, Trigger};
use myapp::net::address::Address;
use myapp::serve::{Config, Server};
use smol::net::TcpStream;

fn main() -> Result<(), Box<dyn Error>> {
    myapp::runtime::block_on(async {
        // Port 0: the system chooses a free one.
        let server = Server::bind(&[Address::loopback(0)], Config::default()).await?;
        let address = server.local_addrs()[0].to_string();
        println!("serving on {address}");

        // The server runs until the client lets go of the stopper.
        let (stopper, stop) = shutdown::channel();
        let serving = async { Ok(server.run(stop.wait()).await) };
        let (summary, ()) = future::try_zip(serving, converse(address, stopper)).await?;
        println!(
            "the server answered {} messages on {} connection: {} bytes in, {} bytes out",
            summary.messages, summary.connections, summary.received, summary.sent
        );
        Ok(())
    })
}

/// Says three lines to the server, and stops it when all are answered.
async fn converse(address: String, stopper: Trigger) -> Result<(), Box<dyn Error>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    for message in ["¡Hola, servidor!", "How are you?", "Good bye."] {
        stream
            .get_mut()
            .write_all(format!("{message}\n").as_bytes())
            .await?;
        let mut reply = String::new();
        stream.read_line(&mut reply).await?;
        println!("sent {message:?}, received {:?}", reply.trim_end());
    }
    stopper.trigger();
    Ok(())
}
