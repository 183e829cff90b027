//! Deletes what a run has written.

use super::progress::Progress;
use ringfort_client::Client;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How many keys are listed, and then deleted, at once.
const KEYS_AT_ONCE: u32 = 500;

#[derive(Debug, thiserror::Error)]
#[error("could not delete all keys that begin with {prefix} ({deleted} are deleted): {source}")]
pub struct CleanupError {
    deleted: u64,
    prefix: String,
    source: ringfort_client::Error,
}

/// How often listing and deleting are attempted, and the pause between attempts.
const ROUNDS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);

/// Deletes all keys with a prefix. Returns how many there were.
///
/// # Errors
/// Not every key could be deleted in [`ROUNDS`] attempts: a cluster that is still overloaded by the benchmark also
/// refuses deletes.
pub async fn delete_all(client: &Client, prefix: &str, progress: &Progress) -> Result<u64, CleanupError> {
    let mut deleted = 0;
    for round in 1.. {
        match delete_once(client, prefix, progress, &mut deleted).await {
            Ok(()) => break,
            Err(source) if round == ROUNDS => {
                return Err(CleanupError { deleted, prefix: prefix.to_owned(), source });
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
    Ok(deleted)
}

/// Lists the keys and tries to delete each.
async fn delete_once(
    client: &Client,
    prefix: &str,
    progress: &Progress,
    deleted: &mut u64,
) -> Result<(), ringfort_client::Error> {
    let (mut failed, mut start_after) = (Ok(()), bytes::Bytes::new());
    loop {
        let page = client.scan_page(prefix.to_owned(), start_after, KEYS_AT_ONCE).await?;
        start_after = page.entries.last().map(|entry| entry.key.clone()).unwrap_or_default();
        let mut deletes = JoinSet::new();
        for entry in page.entries {
            let client = client.clone();
            deletes.spawn(async move { client.delete(entry.key).await });
        }
        while let Some(ended) = deletes.join_next().await {
            match ended.expect("no task panics") {
                Ok(_) => {
                    *deleted += 1;
                    progress.advance();
                }
                Err(error) => failed = Err(error),
            }
        }
        if !page.more {
            return failed;
        }
    }
}
