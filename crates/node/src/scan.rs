//! A scan over all shards: each is asked by itself, and the answers are merged in the order of the keys.
//!
//! Each shard's part is linearizable; all of them together are not one point in time. A shard that has more to give than
//! fits its part bounds the page: what comes after the last key it gave is left for the next page.

use crate::execute::ExecuteError;
use crate::shell::Shell;
use bytes::Bytes;
use ringfort_core::limits::{MAX_SCAN_BYTES, MAX_SCAN_ENTRIES};
use ringfort_core::machine::{Record, ScanPage};
use ringfort_core::replica::{Query, QueryReply, Reply};
use ringfort_core::types::ShardId;
use ringfort_core::worker::Request;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A page up to this size is asked of every shard as a whole, so that it is filled wherever the keys are.
const WHOLE_PAGE_ENTRIES: usize = 256;

/// The entries that the query selects, at most as many as it allows and [`MAX_SCAN_BYTES`] of them.
pub async fn scan(shell: &Arc<Shell>, query: Query, deadline: Instant) -> Result<ScanPage, ExecuteError> {
    let limit = match &query {
        Query::Scan { limit, .. } => *limit,
        Query::Get { .. } => MAX_SCAN_ENTRIES,
    };
    let shards = shell.routing.topology().shards;
    let request = Request::Read(part_of(query, shards.get() as usize));
    let mut pages = Vec::new();
    let mut asked = JoinSet::new();
    for shard in shards.ids() {
        match shell.read_here(shard, &request) {
            Some(reply) => pages.push(page_of(shard, reply)?),
            None => {
                let (shell, request) = (shell.clone(), request.clone());
                asked.spawn(async move { page_of(shard, shell.execute(shard, request, deadline).await?.reply) });
            }
        }
    }
    for page in asked.join_all().await {
        pages.push(page?);
    }
    Ok(merge(pages, limit, MAX_SCAN_BYTES))
}

/// What each shard is asked for. Of a large page, twice its even share: hashing spreads keys over the shards, so that
/// this fills most of the page, and all shards together do not read it as many times as there are shards.
fn part_of(query: Query, shards: usize) -> Query {
    match query {
        Query::Scan { prefix, start_after, limit } if limit > WHOLE_PAGE_ENTRIES => {
            let limit = (2 * limit / shards).clamp(WHOLE_PAGE_ENTRIES, limit);
            Query::Scan { prefix, start_after, limit }
        }
        query => query,
    }
}

fn page_of(shard: ShardId, reply: Reply) -> Result<ScanPage, ExecuteError> {
    match reply {
        Reply::Query(QueryReply::Scan(page)) => Ok(page),
        // From a node that understood something else.
        _ => Err(ExecuteError::Unknown { shard }),
    }
}

fn merge(pages: Vec<ScanPage>, limit: usize, max_bytes: usize) -> ScanPage {
    let last_of = |page: &ScanPage| page.entries.last().map(|(key, _)| key.clone());
    let bound = pages.iter().filter(|page| page.more).filter_map(last_of).min();
    let mut more = pages.iter().any(|page| page.more);
    let mut all: Vec<(Bytes, Record)> = pages.into_iter().flat_map(|page| page.entries).collect();
    all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let mut bytes = 0;
    let mut entries = Vec::with_capacity(limit.min(all.len()));
    for (key, record) in all {
        bytes += key.len() + record.value.len();
        let is_beyond = bound.as_ref().is_some_and(|bound| key > *bound);
        if is_beyond || entries.len() == limit || (bytes > max_bytes && !entries.is_empty()) {
            more = true;
            break;
        }
        entries.push((key, record));
    }
    ScanPage { entries, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: &[&str], more: bool) -> ScanPage {
        let record = |key: &&str| {
            let record = Record { value: "1234".into(), version: 1, create_revision: 1, modify_revision: 1 };
            (Bytes::copy_from_slice(key.as_bytes()), record)
        };
        ScanPage { entries: keys.iter().map(record).collect(), more }
    }

    #[test]
    fn pages_are_merged_in_the_order_of_their_keys() {
        assert_eq!(
            merge(vec![page(&["b", "d"], false), page(&["a", "c"], false)], 10, 100),
            page(&["a", "b", "c", "d"], false)
        );
        assert_eq!(merge(vec![page(&["b", "d"], false), page(&["a", "c"], false)], 2, 100), page(&["a", "b"], true));
        assert_eq!(merge(vec![page(&["b", "d"], false), page(&["a", "c"], false)], 10, 10), page(&["a", "b"], true));
        assert_eq!(
            merge(vec![page(&["a"], false)], 10, 0),
            page(&["a"], false),
            "the first is given whatever its size"
        );
    }

    #[test]
    fn small_pages_are_asked_of_every_shard_and_large_ones_in_parts() {
        let part = |limit, shards| {
            let query = Query::Scan { prefix: Bytes::new(), start_after: None, limit };
            let Query::Scan { limit, .. } = part_of(query, shards) else { panic!("a scan stays one") };
            limit
        };
        assert_eq!((part(5, 64), part(256, 64), part(300, 64)), (5, 256, 256));
        assert_eq!((part(10_000, 64), part(10_000, 2), part(10_000, 1)), (312, 10_000, 10_000));
    }

    #[test]
    fn nothing_is_skipped_that_a_shard_held_back() {
        assert_eq!(
            merge(vec![page(&["a", "b"], true), page(&["a1", "z"], false)], 10, 100),
            page(&["a", "a1", "b"], true)
        );
    }
}
