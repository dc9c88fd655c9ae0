//! Echo client: three messages at once, the replies in the order of the messages.
//!
//! `cargo run --example library-echo`

use std::error::Error;

use futures_lite::{future, stream};
use myapp::echo::{self, Message, Reply, Target};
use myapp::limits::shutdown;
use myapp::net::address::Address;
use myapp::serve::{self, Server};

fn main() -> Result<(), Box<dyn Error>> {
    myapp::runtime::block_on(async {
        let config = serve::Config::default();
        let server = Server::bind([Address::loopback(0)], config).await?;
        let address = server.local_addrs()[0].clone();
        let (trigger, shutdown) = shutdown::channel();
        let client = async {
            let sent = send(address).await;
            trigger.trigger();
            sent
        };
        future::zip(client, server.run(shutdown.wait())).await.0
    })
}

async fn send(address: Address) -> Result<(), Box<dyn Error>> {
    let target = Target {
        address,
        ..Target::default()
    };
    let config = echo::Config {
        target,
        ..echo::Config::default()
    };
    let messages = [
        Message::new("first")?,
        Message::new("second")?,
        Message::new("third")?,
    ];
    let print = async |number: u64, reply: Reply| {
        match reply.outcome {
            Ok(()) => print!("{number}: {}", String::from_utf8_lossy(&reply.bytes)),
            Err(error) => println!("{number}: {error}"),
        }
        Ok(())
    };
    echo::run(stream::iter(messages), &config, print).await
}
