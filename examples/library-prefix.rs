//! Server that reads at most 100 bytes at once and puts "You said: " before each of these chunks.
//! On the command line: `myapp serve --mode chunk --chunk 100 --prefix 'You said: '`.
//!
//! `cargo run --example library-prefix`

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
        let server = Server::bind([Address::loopback(0)], config).await?;
        let address = server.local_addrs()[0].socket_addr().ok_or("not a path")?;
        let (trigger, shutdown) = shutdown::channel();
        let client = async {
            println!("{}", exchange(address, &"long ".repeat(30)).await?);
            trigger.trigger();
            Ok(())
        };
        let serving = async { Ok::<_, Box<dyn Error>>(server.run(shutdown.wait()).await) };
        let (summary, ()) = future::try_zip(serving, client).await?;
        println!("{} chunks", summary.messages);
        Ok(())
    })
}

async fn exchange(address: SocketAddr, message: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(message.as_bytes()).await?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok(reply)
}
