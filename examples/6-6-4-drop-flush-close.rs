//! 6.6.4 `drop`, `flush` and `close`: a drop cannot wait, so it loses what is in the buffer.
//!
//! `cargo run --example 6-6-4-drop-flush-close`

use std::io;

use async_fs::File;
use async_net::{TcpListener, TcpStream};
use futures_lite::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

#[path = "support/temp_dir.rs"]
mod temp_dir;

async fn print_len(step: &str) -> io::Result<()> {
    let len = async_fs::metadata("output.txt").await?.len();
    println!("{step}: {len} bytes en el archivo");
    Ok(())
}

fn main() -> io::Result<()> {
    let _dir = temp_dir::TempDir::enter()?;
    smol::block_on(async {
        let mut file = BufWriter::new(File::create("output.txt").await?);
        file.write_all(b"uno\n").await?;
        drop(file);
        print_len("drop").await?;

        let mut file = BufWriter::new(File::create("output.txt").await?);
        file.write_all(b"uno\n").await?;
        file.flush().await?;
        print_len("flush").await?;
        file.write_all(b"dos\n").await?;
        file.close().await?;
        print_len("close").await?;

        // For a socket, `close` ends one direction: the peer reads the end and can still reply.
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let (mut server, _) = listener.accept().await?;
        client.close().await?;
        let received = server.read(&mut [0; 100]).await?;
        server.write_all(b"respuesta").await?;
        drop(server);
        let mut reply = String::new();
        client.read_to_string(&mut reply).await?;
        println!("close en un socket: {received} bytes, luego {reply:?}");
        Ok(())
    })
}
