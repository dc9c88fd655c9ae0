//! 6.5.1 Three concurrent downloads with surf, copied to files in chunks of 1,024 bytes.
//!
//! `cargo run --example 6-5-1-downloads`

use async_fs::File;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use myapp::download::http::{ClientConfig, Transport};
use surf::Client;

#[path = "support/server.rs"]
mod server;
#[path = "support/temp_dir.rs"]
mod temp_dir;

async fn download_file(client: Client, url: String, dest: &str) -> surf::Result<()> {
    let mut response = client.get(url).await?;
    let status = response.status();
    if !status.is_success() {
        return Err(surf::Error::from_str(status, status.canonical_reason()));
    }
    let mut file = File::create(dest).await?;
    let mut chunk = [0; 1024];
    while let len @ 1.. = response.read(&mut chunk).await? {
        file.write_all(&chunk[..len]).await?;
    }
    file.close().await?;
    println!("Archivo {dest} descargado.");
    Ok(())
}

fn main() -> surf::Result<()> {
    let _dir = temp_dir::TempDir::enter()?;
    smol::block_on(async {
        let server = server::start().await?;
        let client = Client::with_http_client(Transport::new(ClientConfig::default())?);
        let tasks = ["file1.jpg", "file2.jpg", "file3.jpg"].map(|dest| {
            let url = format!("{server}/{dest}");
            smol::spawn(download_file(client.clone(), url, dest))
        });
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
}
