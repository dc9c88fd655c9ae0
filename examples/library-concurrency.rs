//! Limited concurrency: ten requests, three at a time. A slot is acquired before a job starts.
//!
//! `cargo run --example library-concurrency`

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering::SeqCst;

use futures_lite::{AsyncReadExt, stream};
use myapp::download::http::{Client, ClientConfig, HttpError};
use myapp::limits::semaphore::for_each_concurrent;
use url::Url;

#[path = "support/server.rs"]
mod server;

fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::new(ClientConfig::default())?;
    let jobs = NonZeroUsize::new(3).ok_or("three is not zero")?;
    myapp::runtime::block_on(async {
        let url: Url = server::start().await?.parse()?;
        let requests = stream::iter(1..=10);
        for_each_concurrent(jobs, requests, async |number| {
            match fetch(&client, &url).await {
                Ok(len) => println!("{number}: {len} bytes"),
                Err(error) => println!("{number}: {error}"),
            }
        })
        .await;
        println!("at most {} at once", server::MAX_ACTIVE.load(SeqCst));
        Ok(())
    })
}

async fn fetch(client: &Client, url: &Url) -> Result<usize, HttpError> {
    let mut response = client.get(url, &[]).await?;
    let mut body = Vec::new();
    response
        .read_to_end(&mut body)
        .await
        .map_err(HttpError::from_io)
}
