//! Echo server and a client in one program; the client triggers the shutdown.
//!
//! `cargo run --example library-serve`

use std::error::Error;

use futures_lite::future;
use futures_lite::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use myapp::limits::shutdown::{self, Trigger};
use myapp::net::address::Address;
use myapp::serve::{Config, Server};
use smol::net::TcpStream;

fn main() -> Result<(), Box<dyn Error>> {
    myapp::runtime::block_on(async {
        // Port 0: any free port.
        let server = Server::bind([Address::loopback(0)], Config::default()).await?;
        let address = server.local_addrs()[0].to_string();
        println!("listening on {address}");
        let (trigger, shutdown) = shutdown::channel();
        let serving = async { Ok(server.run(shutdown.wait()).await) };
        let (summary, ()) = future::try_zip(serving, client(address, trigger)).await?;
        println!(
            "{} messages on {} connection, {} bytes received, {} sent",
            summary.messages, summary.connections, summary.received, summary.sent
        );
        Ok(())
    })
}

async fn client(address: String, trigger: Trigger) -> Result<(), Box<dyn Error>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    for message in ["first\n", "second\n", "third\n"] {
        stream.get_mut().write_all(message.as_bytes()).await?;
        let mut reply = String::new();
        stream.read_line(&mut reply).await?;
        println!("sent {message:?}, received {reply:?}");
    }
    trigger.trigger();
    Ok(())
}
