//! Graceful shutdown: bytes that the server has received are echoed before it returns.
//!
//! `cargo run --example library-shutdown`

use std::error::Error;
use std::time::Duration;

use futures_lite::future;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use myapp::limits::shutdown;
use myapp::net::address::Address;
use myapp::serve::{Config, Server};
use smol::net::TcpStream;

const CLIENTS: usize = 100;
const MESSAGE: &[u8] = b"a complete line\nand an incomplete one";

fn main() -> Result<(), Box<dyn Error>> {
    // Connections that are still open after two seconds are aborted and counted.
    let config = Config {
        drain_timeout: Duration::from_secs(2),
        ..Config::default()
    };
    myapp::runtime::block_on(async {
        let server = Server::bind([Address::loopback(0)], config).await?;
        let address = server.local_addrs()[0].socket_addr().ok_or("not a path")?;
        let (trigger, shutdown) = shutdown::channel();
        let clients = async {
            let mut streams = Vec::new();
            for _ in 0..CLIENTS {
                let mut stream = TcpStream::connect(address).await?;
                stream.write_all(MESSAGE).await?;
                streams.push(stream);
            }
            trigger.trigger();
            let mut complete = 0;
            for mut stream in streams {
                let mut reply = Vec::new();
                stream.read_to_end(&mut reply).await?;
                complete += usize::from(reply == MESSAGE);
            }
            Ok(complete)
        };
        let serving = async { Ok::<_, Box<dyn Error>>(server.run(shutdown.wait()).await) };
        let (summary, complete) = future::try_zip(serving, clients).await?;
        println!("{complete} of {CLIENTS} replies complete");
        println!("{} connections aborted", summary.aborted_on_shutdown);
        Ok(())
    })
}
