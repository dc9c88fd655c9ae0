//! 6.6.3 Ten requests, at most three at once: each holds a permit of a semaphore.
//!
//! `cargo run --example 6-6-3-semaphore`

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use myapp::download::http::{ClientConfig, Transport};
use smol::lock::Semaphore;
use surf::Client;

#[path = "support/server.rs"]
mod server;

async fn fetch(client: Client, url: String, semaphore: Arc<Semaphore>) -> surf::Result<String> {
    // Released on drop, also if the request fails or the task is cancelled.
    let _permit = semaphore.acquire().await;
    client.get(url).recv_string().await
}

fn main() -> surf::Result<()> {
    smol::block_on(async {
        let server = server::start().await?;
        let client = Client::with_http_client(Transport::new(ClientConfig::default())?);
        let semaphore = Arc::new(Semaphore::new(3));
        let tasks = [(); 10]
            .map(|()| smol::spawn(fetch(client.clone(), server.clone(), semaphore.clone())));
        let mut results = Vec::new();
        for task in tasks {
            results.push(task.await?);
        }
        println!("Recibidas {} respuestas.", results.len());
        let max = server::MAX_ACTIVE.load(SeqCst);
        println!("Máximo {max} simultáneamente");
        Ok(())
    })
}
