//! Sends three messages at once to an echo server in the same program, and prints the replies in
//! the order of the messages, although the server takes its time with the first.
//!
//! Run it with `cargo run --example echo-clients`.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::Duration;

use async_net::{TcpListener, TcpStream};
use futures_lite::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use futures_lite::{future, stream};
use myapp::echo::{self, Config, Message, Reply, Target};
use myapp::net::address::Address;
use myapp::runtime;
use smol::Timer;

fn main() -> Result<(), Box<dyn Error>> {
    runtime::block_on(async {
        // Port 0: the system chooses one that is free.
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = Address::loopback(listener.local_addr()?.port());
        // The server never ends by itself: the clients' end is the program's.
        future::or(clients(address), serve(listener)).await
    })
}

async fn clients(address: Address) -> Result<(), Box<dyn Error>> {
    let texts = ["¡Hola, servidor!", "¿Cómo estás?", "Adiós"];
    let messages = texts
        .map(Message::new)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let target = Target {
        address,
        ..Target::default()
    };
    let config = Config {
        target,
        ..Config::default()
    };
    let print = async |number: u64, reply: Reply| {
        match reply.outcome {
            Ok(()) => print!("{number}: {}", String::from_utf8_lossy(&reply.bytes)),
            Err(error) => println!("{number}: {error}"),
        }
        Ok::<(), Infallible>(())
    };
    Ok(echo::run(stream::iter(messages), &config, print).await?)
}

async fn serve(listener: TcpListener) -> Result<(), Box<dyn Error>> {
    loop {
        let (stream, _) = listener.accept().await?;
        smol::spawn(answer(stream)).detach();
    }
}

/// Answers each line, the longer it is, the later.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.clone());
    let mut line = String::new();
    while lines.read_line(&mut line).await? > 0 {
        Timer::after(Duration::from_millis(10 * line.len() as u64)).await;
        println!("the server answers {}", line.trim_end());
        stream.write_all(line.as_bytes()).await?;
        line.clear();
    }
    Ok(())
}
