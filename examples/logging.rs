//! Logging instead of printing. The library prints nothing: it tells what happens as `tracing`
//! events, and the program decides which of them are shown, how and where. Here: those of the
//! server as JSON on stdout, one object a line, and of the messages none.
//!
//! ```text
//! cargo run --example logging
//! ```

use std::error::Error;
use std::net::{Shutdown, SocketAddr};

use futures_lite::future;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use myapp::limits::shutdown;
use myapp::net::address::Address;
use myapp::serve::{Config, Server};
use smol::net::TcpStream;
use tracing::info;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> Result<(), Box<dyn Error>> {
    // Lines about single connections and messages have a target of their own, and each kind of
    // line its own fields: what was received has a `text`.
    let not_a_message = filter_fn(|event| event.fields().field("text").is_none());
    let lines = fmt::layer()
        .with_writer(std::io::stdout)
        .json()
        .flatten_event(true);
    tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(lines.with_filter(not_a_message))
        .init();

    myapp::runtime::block_on(async {
        let server = Server::bind(&[Address::loopback(0)], Config::default()).await?;
        let address = server.local_addrs()[0].socket_addr().ok_or("not a path")?;
        info!(%address, "listening");
        let (stopper, stop) = shutdown::channel();
        let client = async {
            for message in [
                "¡Hola, servidor!\n",
                "bytes that do no harm to a log: \x1b[2J\n",
            ] {
                talk(address, message).await?;
            }
            stopper.trigger();
            Ok::<_, Box<dyn Error>>(())
        };
        let serving = async { Ok(server.run(stop.wait()).await) };
        let (summary, ()) = future::try_zip(serving, client).await?;
        info!(
            connections = summary.connections,
            messages = summary.messages,
            "stopped"
        );
        Ok(())
    })
}

async fn talk(address: SocketAddr, message: &str) -> Result<(), Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(message.as_bytes()).await?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok(())
}
