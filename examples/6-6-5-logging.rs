//! 6.6.5 Logging instead of printing: levels, and two destinations that select their own.
//!
//! `cargo run --example 6-6-5-logging`

use std::fs::{self, File};

use myapp::download::http::{ClientConfig, Transport};
use surf::Client;
use tracing::{debug, error, info};
use tracing_subscriber::{filter::LevelFilter, fmt, prelude::*};

#[path = "support/server.rs"]
mod server;
#[path = "support/temp_dir.rs"]
mod temp_dir;

async fn fetch(client: &Client, url: &str) -> surf::Result<()> {
    debug!("Solicitando {url}");
    let mut response = client.get(url).await?;
    let status = response.status();
    if !status.is_success() {
        return Err(surf::Error::from_str(status, status.canonical_reason()));
    }
    let text = response.body_string().await?;
    info!("Descargado {url} con {} caracteres", text.chars().count());
    Ok(())
}

fn main() -> surf::Result<()> {
    let _dir = temp_dir::TempDir::enter()?;
    let log = File::create("registro.log")?;
    let format = fmt::format().with_ansi(false).without_time();
    let file = fmt::layer().event_format(format.clone()).with_writer(log);
    let console = fmt::layer().event_format(format.with_target(false));
    tracing_subscriber::registry()
        .with(file.with_filter(LevelFilter::DEBUG))
        .with(console.with_filter(LevelFilter::INFO))
        .init();
    smol::block_on(async {
        let server = server::start().await?;
        let client = Client::with_http_client(Transport::new(ClientConfig::default())?);
        for url in [server.clone(), format!("{server}/404")] {
            if let Err(error) = fetch(&client, &url).await {
                error!("Error al obtener {url}: {error}");
            }
        }
        println!("registro.log:\n{}", fs::read_to_string("registro.log")?);
        Ok(())
    })
}
