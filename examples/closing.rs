//! A clean end: the server is stopped while a hundred clients have just sent something. It takes
//! no new connections any more, answers every byte that it has received, closes each connection,
//! and tells what it has done.
//!
//! ```text
//! cargo run --example closing
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use futures_lite::future;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use myapp::limits::shutdown;
use myapp::net::address::Address;
use myapp::serve::{Config, Server};
use smol::net::TcpStream;

const CLIENTS: usize = 100;
const MESSAGE: &[u8] = b"a whole line\nand the begin of another";

fn main() -> Result<(), Box<dyn Error>> {
    // What does not end in two seconds would be cut, and counted in the summary.
    let config = Config {
        drain_timeout: Duration::from_secs(2),
        ..Config::default()
    };
    myapp::runtime::block_on(async {
        let server = Server::bind(&[Address::loopback(0)], config).await?;
        let address = server.local_addrs()[0].socket_addr().ok_or("not a path")?;
        let (stopper, stop) = shutdown::channel();
        let clients = async {
            let mut streams = Vec::new();
            for _ in 0..CLIENTS {
                streams.push(connect_and_send(address).await?);
            }
            println!("{CLIENTS} clients have sent; now the server is stopped");
            stopper.trigger();
            let mut answered = 0;
            for mut stream in streams {
                let mut reply = Vec::new();
                stream.read_to_end(&mut reply).await?;
                answered += usize::from(reply == MESSAGE);
            }
            println!("{answered} clients got every byte back, then the end");
            Ok::<_, Box<dyn Error>>(())
        };
        let serving = async { Ok(server.run(stop.wait()).await) };
        let (summary, ()) = future::try_zip(serving, clients).await?;
        println!(
            "{} bytes received, {} sent, {} connections cut, {} open",
            summary.received, summary.sent, summary.aborted_on_shutdown, summary.active
        );
        if let Err(error) = TcpStream::connect(address).await {
            println!("connecting again: {error}");
        }
        Ok(())
    })
}

async fn connect_and_send(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(MESSAGE).await?;
    Ok(stream)
}
