//! Deletes what a run has written.

use super::progress::Progress;
use ringfort_client::Client;
use tokio::task::JoinSet;

/// Keys that are listed, and then deleted, at once.
const KEYS_AT_ONCE: u32 = 500;

#[derive(Debug, thiserror::Error)]
#[error("after {deleted} keys that begin with {prefix} not all others could be deleted: {source}")]
pub struct CleanupError {
    deleted: u64,
    prefix: String,
    source: ringfort_client::Error,
}

/// Deletes all keys with a prefix. Returns how many there were.
///
/// # Errors
/// Not every key could be deleted. All have been tried, unless they could not even be listed.
pub async fn delete_all(client: &Client, prefix: &str, progress: &Progress) -> Result<u64, CleanupError> {
    let (mut deleted, mut failed, mut start_after) = (0, None, bytes::Bytes::new());
    loop {
        let page = match client.scan_page(prefix.to_owned(), start_after, KEYS_AT_ONCE).await {
            Ok(page) => page,
            Err(source) => return Err(CleanupError { deleted, prefix: prefix.to_owned(), source }),
        };
        start_after = page.entries.last().map(|entry| entry.key.clone()).unwrap_or_default();
        let mut deletes = JoinSet::new();
        for entry in page.entries {
            let client = client.clone();
            deletes.spawn(async move { client.delete(entry.key).await });
        }
        while let Some(ended) = deletes.join_next().await {
            match ended.expect("no task panics") {
                Ok(_) => deleted += 1,
                Err(error) => failed = Some(error),
            }
            progress.advance();
        }
        if !page.more {
            break;
        }
    }
    match failed {
        None => Ok(deleted),
        Some(source) => Err(CleanupError { deleted, prefix: prefix.to_owned(), source }),
    }
}
