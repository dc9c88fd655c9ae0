//! 6.5.2 Server that reads at most 100 bytes at once and replies "Dijiste: …", with three clients.
//!
//! `cargo run --example 6-5-2-reply-server`

use std::io;
use std::net::{Shutdown, SocketAddr};

use async_net::{TcpListener, TcpStream};
use futures_lite::prelude::*;

async fn handle_client((mut stream, addr): (TcpStream, SocketAddr)) -> io::Result<()> {
    println!("Nueva conexión: {addr}");
    let mut buffer = [0; 100];
    // One read is not one message: TCP may split a message or join two.
    while let len @ 1.. = stream.read(&mut buffer).await? {
        let message = String::from_utf8_lossy(&buffer[..len]);
        println!("Recibido de {addr}: {message}");
        let reply = format!("Dijiste: {message}\n");
        stream.write_all(reply.as_bytes()).await?;
    }
    println!("Conexión cerrada: {addr}");
    Ok(())
}

async fn client(server: SocketAddr, message: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(message.as_bytes()).await?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    print!("{reply}");
    Ok(())
}

fn main() -> io::Result<()> {
    smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = listener.local_addr()?;
        println!("Servidor iniciado en {server}");
        let clients = ["Hola", "¿Cómo estás?", "Adiós"].map(|text| client(server, text));
        let mut tasks = Vec::from(clients.map(smol::spawn));
        for _ in 0..tasks.len() {
            tasks.push(smol::spawn(handle_client(listener.accept().await?)));
        }
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
}
