//! 6.6.2 A request fails by its status, an unknown host or a timeout; the others continue.
//!
//! `cargo run --example 6-6-2-errors-and-timeouts`

use std::time::Duration;

use futures_lite::future;
use smol::Timer;
use surf::Client;

#[path = "support/client.rs"]
mod client;
#[path = "support/server.rs"]
mod server;

async fn get(client: &Client, url: &str) -> surf::Result<String> {
    let mut response = client.get(url).await?;
    let status = response.status();
    if !status.is_success() {
        return Err(surf::Error::from_str(status, status.canonical_reason()));
    }
    response.body_string().await
}

async fn fetch(client: &Client, url: &str) {
    let response = async { Some(get(client, url).await) };
    // The first to be ready wins; the other future is dropped, and with it the request.
    let timeout = async {
        Timer::after(Duration::from_millis(500)).await;
        None
    };
    match future::or(response, timeout).await {
        Some(Ok(text)) => println!("{}", text.chars().take(100).collect::<String>()),
        Some(Err(error)) => println!("Error al obtener {url}: {error}"),
        None => println!("Tiempo de espera agotado al obtener {url}"),
    }
}

fn main() -> surf::Result<()> {
    smol::block_on(async {
        let server = server::start().await?;
        let client = Client::with_http_client(client::transport_without_dns()?);
        for path in ["", "/404", "/lento"] {
            fetch(&client, &format!("{server}{path}")).await;
        }
        fetch(&client, "http://www.urlinexistente.invalid").await;
        Ok(())
    })
}
