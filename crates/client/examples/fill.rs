//! Fills a cluster with keys of 16 bytes, to measure how much memory they take.
//!
//! `cargo run --release -p ringfort-client --example fill -- ENDPOINTS KEYS VALUE_BYTES IN_FLIGHT`

use ringfort_client::Client;
use std::env;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [endpoints, keys, value_bytes, in_flight] = &arguments[..] else {
        return Err("give ENDPOINTS KEYS VALUE_BYTES IN_FLIGHT, such as 127.0.0.1:50051 1000000 128 256".into());
    };
    let client = Client::connect(endpoints.split(','))?;
    let (keys, value) = (keys.parse::<u64>()?, vec![7; value_bytes.parse()?]);
    let (next, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut writers = JoinSet::new();
    for _ in 0..in_flight.parse::<usize>()? {
        let (client, value, next) = (client.clone(), bytes::Bytes::from(value.clone()), next.clone());
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= keys {
                    return Ok::<(), ringfort_client::Error>(());
                }
                client.put(format!("{number:016x}"), value.clone()).await?;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    println!("{keys} keys in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}
