//! A closed loop of puts and gets, to see what a cluster does.
//!
//!     cargo run --release -p ringfort-client --example load -- [--gets] ENDPOINT[,ENDPOINT...] [IN_FLIGHT] [SECONDS]

use hdrhistogram::Histogram;
use ringfort_client::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 128;
const MAX_LATENCY_US: u64 = 60_000_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let gets = arguments.first().is_some_and(|first| first == "--gets");
    arguments.drain(..usize::from(gets));
    let endpoints = arguments.first().map_or("127.0.0.1:50051", String::as_str);
    let in_flight: u64 = arguments.get(1).map_or(Ok(256), |text| text.parse())?;
    let seconds: u64 = arguments.get(2).map_or(Ok(10), |text| text.parse())?;
    let client = Arc::new(Client::connect(endpoints.split(','))?);
    client.put("warm-up", "1").await?;

    let (start, next, failed) = (Instant::now(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, next, failed) = (client.clone(), next.clone(), failed.clone());
            tokio::spawn(async move {
                let mut latencies = Histogram::<u64>::new_with_max(MAX_LATENCY_US, 3).expect("bounds that fit");
                while start.elapsed() < Duration::from_secs(seconds) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let key = format!("load {:011}", number.wrapping_mul(0x9e37_79b9) % KEYS);
                    let began = Instant::now();
                    let outcome = match gets {
                        true => client.get(key).await.map(drop),
                        false => client.put(key, vec![number as u8; VALUE_BYTES]).await.map(drop),
                    };
                    match outcome {
                        Ok(()) => latencies.saturating_record(began.elapsed().as_micros() as u64),
                        Err(_) => _ = failed.fetch_add(1, Ordering::Relaxed),
                    }
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Histogram::<u64>::new_with_max(MAX_LATENCY_US, 3)?;
    for task in tasks {
        latencies.add(task.await?)?;
    }
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "{} {}/s with {in_flight} in flight; p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; {} failed",
        (latencies.len() as f64 / start.elapsed().as_secs_f64()).round(),
        if gets { "gets" } else { "puts" },
        at(0.5),
        at(0.99),
        at(1.0),
        failed.load(Ordering::Relaxed)
    );
    Ok(())
}
