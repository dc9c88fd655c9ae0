//! A server that says what it was told: it reads at most 100 bytes at once and puts
//! "You said: " before each piece. Three clients talk to it side by side.
//!
//! ```text
//! cargo run --example said-server
//! ```
//!
//! The same from the command line: `myapp serve --mode chunk --chunk 100 --prefix 'You said: '`.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::net::{Shutdown, SocketAddr};
use std::num::NonZeroUsize;

use futures_lite::future;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use myapp::limits::shutdown;
use myapp::net::address::Address;
use myapp::serve::{Config, Mode, Server};
use smol::net::TcpStream;

fn main() -> Result<(), Box<dyn Error>> {
    let config = Config {
        mode: Mode::Chunk,
        chunk: NonZeroUsize::new(100).ok_or("a chunk has at least one byte")?,
        prefix: b"You said: ".into(),
        ..Config::default()
    };
    myapp::runtime::block_on(async {
        let server = Server::bind(&[Address::loopback(0)], config).await?;
        let address = server.local_addrs()[0].socket_addr().ok_or("not a path")?;
        let (stopper, stop) = shutdown::channel();
        let clients = async {
            let long = "so long that it comes in two pieces; ".repeat(4);
            let (first, second) = (say(address, "¡Hola, servidor!"), say(address, "Hello."));
            let both = future::try_zip(first, second);
            future::try_zip(both, say(address, &long)).await?;
            stopper.trigger();
            Ok::<_, Box<dyn Error>>(())
        };
        let serving = async { Ok(server.run(stop.wait()).await) };
        let (summary, ()) = future::try_zip(serving, clients).await?;
        println!(
            "{} clients, {} pieces",
            summary.connections, summary.messages
        );
        Ok(())
    })
}

/// Says one thing, ends its side of the conversation, and prints all that comes back.
async fn say(address: SocketAddr, message: &str) -> Result<(), Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(message.as_bytes()).await?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    println!("{reply}");
    Ok(())
}
