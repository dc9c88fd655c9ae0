//! HTTP client: an error status, a refused connection and a timeout are different values.
//!
//! `cargo run --example library-http-client`

use std::error::Error;
use std::time::Duration;

use async_net::TcpListener;
use futures_lite::AsyncReadExt;
use myapp::download::http::{Client, ClientConfig, HttpError};
use myapp::error_chain::ErrorChain;
use url::Url;

#[path = "support/server.rs"]
mod server;

fn main() -> Result<(), Box<dyn Error>> {
    let idle_timeout = Duration::from_millis(500);
    let client = Client::new(ClientConfig {
        idle_timeout,
        ..ClientConfig::default()
    })?;
    myapp::runtime::block_on(async {
        let server = server::start().await?;
        // The listener is dropped, so that connections to its port are refused.
        let closed = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let paths = ["page", "404", "lento"].map(|path| format!("{server}/{path}"));
        for url in paths.into_iter().chain([format!("http://{closed}/")]) {
            match fetch(&client, &url.parse()?).await {
                Ok((200, text)) => println!("{url}: {} characters", text.chars().count()),
                Ok((status, _)) => println!("{url}: HTTP status {status}"),
                Err(HttpError::TimedOut { limit, .. }) => println!("{url}: silent for {limit:?}"),
                Err(HttpError::Connect(error)) => println!("{url}: {}", ErrorChain(&error)),
                Err(error) => println!("{url}: {error}"),
            }
        }
        Ok(())
    })
}

async fn fetch(client: &Client, url: &Url) -> Result<(u16, String), HttpError> {
    let mut response = client.get(url, &[]).await?;
    let mut body = String::new();
    response
        .read_to_string(&mut body)
        .await
        .map_err(HttpError::from_io)?;
    Ok((response.status(), body))
}
