//! Logging: the library emits `tracing` events; the program selects, formats and writes them.
//!
//! `cargo run --example library-logging`

use std::error::Error;
use std::net::Shutdown;

use futures_lite::future;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use myapp::limits::shutdown;
use myapp::net::address::Address;
use myapp::serve::{Config, Server};
use smol::net::TcpStream;
use tracing::info;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::{fmt, prelude::*};

fn main() -> Result<(), Box<dyn Error>> {
    // Events with a `text` contain what a peer has sent.
    let has_no_text = filter_fn(|event| event.fields().field("text").is_none());
    let lines = fmt::layer().json().with_writer(std::io::stdout);
    tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(lines.with_filter(has_no_text))
        .init();
    myapp::runtime::block_on(async {
        let server = Server::bind([Address::loopback(0)], Config::default()).await?;
        let address = server.local_addrs()[0].socket_addr().ok_or("not a path")?;
        info!(%address, "listening");
        let (trigger, shutdown) = shutdown::channel();
        let client = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all("¡Hola, servidor!\n".as_bytes()).await?;
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_string(&mut String::new()).await?;
            trigger.trigger();
            Ok(())
        };
        let serving = async { Ok::<_, Box<dyn Error>>(server.run(shutdown.wait()).await) };
        let (summary, ()) = future::try_zip(serving, client).await?;
        info!(
            connections = summary.connections,
            messages = summary.messages,
            "stopped"
        );
        Ok(())
    })
}
