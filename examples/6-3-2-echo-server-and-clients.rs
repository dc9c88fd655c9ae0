//! 6.3.2 Echo server, one task per connection, and three clients at once.
//!
//! `cargo run --example 6-3-2-echo-server-and-clients`

use std::{io, net::SocketAddr};

use async_net::{TcpListener, TcpStream};
use futures_lite::{io::BufReader, prelude::*};

async fn handle_client((mut stream, addr): (TcpStream, SocketAddr)) -> io::Result<()> {
    println!("Nueva conexión: {addr}");
    let mut lines = BufReader::new(stream.clone()).lines();
    while let Some(line) = lines.next().await.transpose()? {
        println!("Recibido de {addr}: {line}");
        stream.write_all((line + "\n").as_bytes()).await?;
    }
    println!("Conexión cerrada: {addr}");
    Ok(())
}

async fn echo_client(server: SocketAddr, message: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    println!("Enviando: {message}");
    stream.write_all(format!("{message}\n").as_bytes()).await?;
    let mut reply = String::new();
    BufReader::new(&mut stream).read_line(&mut reply).await?;
    println!("Recibido: {}\nCerrando conexión", reply.trim_end());
    stream.close().await
}

fn main() -> io::Result<()> {
    let messages = [
        "¡Hola, servidor!",
        "¿Cómo estás?",
        "¡La asincronía es genial!",
    ];
    smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = listener.local_addr()?;
        println!("Servidor iniciado en {server}");
        let mut tasks = Vec::from(messages.map(|text| smol::spawn(echo_client(server, text))));
        for _ in messages {
            tasks.push(smol::spawn(handle_client(listener.accept().await?)));
        }
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
}
