//! A scan over all shards: each is asked by itself, and the answers are merged in the order of the keys.
//!
//! Each shard's part is linearizable, but the parts are not read at one point in time.
//!
//! A page is bounded and the keys are spread evenly over the shards, so if every shard returned a full page, most of it
//! would be thrown away. Shards are therefore asked [`SHARDS_AT_ONCE`] at a time, and only for keys that may still be
//! on the page: once it is full, for keys up to its last one. That bound gets lower with each answer, so a page of
//! large values collects about five pages in total instead of one from every shard. [`SCANS_AT_ONCE`] scans run at a
//! time; the others wait until their deadline.

use super::Service;
use crate::execute::ExecuteError;
use bytes::Bytes;
use ringfort_core::kv::{Record, Scan, ScanPage};
use ringfort_core::limits::MAX_SCAN_BYTES;
use ringfort_core::request::{Reply, Request};
use ringfort_core::types::ShardId;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, timeout_at};

/// Scans that collect a page at the same time on one node; others wait, and are refused as overload at their deadline.
pub(super) const SCANS_AT_ONCE: usize = 4;

/// Shards on other nodes that one scan asks at the same time.
const SHARDS_AT_ONCE: usize = 4;

/// The most that all scans of a node hold: for each the page, an answer that is merged into it, and the answers under
/// way.
const COLLECTED_BYTES: usize = SCANS_AT_ONCE * (2 + SHARDS_AT_ONCE) * MAX_SCAN_BYTES;

const _: () = assert!(COLLECTED_BYTES <= 64 << 20);

/// A page up to this size is asked of every shard as a whole, so that it is filled wherever the keys are.
const WHOLE_PAGE_ENTRIES: usize = 256;

/// The entries that the query selects, at most as many as it allows and [`MAX_SCAN_BYTES`] of them.
pub(super) async fn scan(service: &Service, scan: Scan, deadline: Instant) -> Result<ScanPage, ExecuteError> {
    let Ok(turn) = timeout_at(deadline, service.scans.acquire()).await else { return Err(ExecuteError::TooManyScans) };
    let _turn = turn.expect("the semaphore is never closed");
    let shards = service.routing.shards();
    let mut merged = Merged::new(scan.limit, MAX_SCAN_BYTES);
    let scan = part_of(scan, shards.get() as usize);
    let mut asked = JoinSet::new();
    for shard in shards.ids() {
        let request = Request::part(shard, merged.narrowed(scan.clone()))?;
        match service.executor.read_here(&request) {
            Some(reply) => {
                merged.add(page_of(shard, reply)?);
                // Other tasks need this thread, for example to send heartbeats.
                yield_now().await;
            }
            None => {
                if asked.len() == SHARDS_AT_ONCE {
                    merged.add(next_of(&mut asked).await?);
                }
                let request = Request::part(shard, merged.narrowed(scan.clone()))?;
                let executor = service.executor.clone();
                asked.spawn(async move { page_of(shard, executor.execute(request, deadline).await?.reply) });
            }
        }
    }
    while !asked.is_empty() {
        merged.add(next_of(&mut asked).await?);
    }
    Ok(merged.page)
}

type Part = Result<ScanPage, ExecuteError>;

async fn next_of(asked: &mut JoinSet<Part>) -> Part {
    let answered = asked.join_next().await.expect("a shard has been asked");
    answered.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// What each shard is asked for. Of a large page, twice its even share: hashing spreads keys over the shards, so that
/// this fills most of the page, and all shards together do not read it as many times as there are shards.
fn part_of(scan: Scan, shards: usize) -> Scan {
    let limit = match scan.limit {
        small if small <= WHOLE_PAGE_ENTRIES => small,
        large => (2 * large / shards).clamp(WHOLE_PAGE_ENTRIES, large),
    };
    Scan { limit, ..scan }
}

fn page_of(shard: ShardId, reply: Reply) -> Result<ScanPage, ExecuteError> {
    // Another operation's reply: the node must have read another request.
    reply.to::<Scan>().ok_or(ExecuteError::Unanswered { shard })
}

/// The page as merged from the answers so far.
///
/// Invariants: the entries are in order and within the limits, and none is above `last` if that is set.
struct Merged {
    limit: usize,
    max_bytes: usize,
    page: ScanPage,
    /// The highest key that the page may have: the last key of a shard's answer that was cut off, or the page's own
    /// last key once it is full.
    last: Option<Bytes>,
}

impl Merged {
    fn new(limit: usize, max_bytes: usize) -> Merged {
        Merged { limit, max_bytes, page: ScanPage { entries: Vec::new(), more: false }, last: None }
    }

    /// Limits a scan to the keys that the page still has room for.
    fn narrowed(&self, scan: Scan) -> Scan {
        Scan { up_to: self.last.clone().or(scan.up_to), ..scan }
    }

    /// Merges one shard's answer.
    fn add(&mut self, part: ScanPage) {
        if part.more
            && let Some((key, _)) = part.entries.last()
        {
            self.end_at(key.clone());
        }
        self.page.more |= part.more;
        let entries = std::mem::take(&mut self.page.entries);
        let mut entries = merge(entries, part.entries);
        let mut bytes = 0;
        let fitting = entries.iter().take(self.limit).take_while(|(key, record)| {
            let is_first = bytes == 0;
            bytes += key.len() + record.value.len();
            let is_within = self.last.as_ref().is_none_or(|last| key <= last);
            is_within && (is_first || bytes <= self.max_bytes)
        });
        let fitting = fitting.count();
        if fitting < entries.len() {
            entries.truncate(fitting);
            self.page.more = true;
            if let Some((key, _)) = entries.last() {
                self.end_at(key.clone());
            }
        }
        self.page.entries = entries;
    }

    fn end_at(&mut self, key: Bytes) {
        if self.last.as_ref().is_none_or(|last| key < *last) {
            self.last = Some(key);
        }
    }
}

/// Merges two sorted lists.
fn merge(one: Vec<(Bytes, Record)>, other: Vec<(Bytes, Record)>) -> Vec<(Bytes, Record)> {
    let mut merged = Vec::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (one.into_iter().peekable(), other.into_iter().peekable());
    loop {
        let takes_one = match (one.peek(), other.peek()) {
            (Some((a, _)), Some((b, _))) => a <= b,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return merged,
        };
        merged.extend(if takes_one { one.next() } else { other.next() });
    }
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

    fn all(parts: Vec<ScanPage>, limit: usize, max_bytes: usize) -> ScanPage {
        let mut merged = Merged::new(limit, max_bytes);
        parts.into_iter().for_each(|part| merged.add(part));
        merged.page
    }

    #[test]
    fn pages_are_merged_in_the_order_of_their_keys() {
        assert_eq!(
            all(vec![page(&["b", "d"], false), page(&["a", "c"], false)], 10, 100),
            page(&["a", "b", "c", "d"], false)
        );
        assert_eq!(all(vec![page(&["b", "d"], false), page(&["a", "c"], false)], 2, 100), page(&["a", "b"], true));
        assert_eq!(all(vec![page(&["b", "d"], false), page(&["a", "c"], false)], 10, 10), page(&["a", "b"], true));
        assert_eq!(all(vec![page(&["a"], false)], 10, 0), page(&["a"], false), "the first is given whatever its size");
    }

    #[test]
    fn small_pages_are_asked_of_every_shard_and_large_ones_in_parts() {
        let part =
            |limit, shards| part_of(Scan { prefix: Bytes::new(), start_after: None, up_to: None, limit }, shards).limit;
        assert_eq!((part(5, 64), part(256, 64), part(300, 64)), (5, 256, 256));
        assert_eq!((part(10_000, 64), part(10_000, 2), part(10_000, 1)), (312, 10_000, 10_000));
    }

    #[test]
    fn nothing_is_skipped_that_a_shard_held_back() {
        assert_eq!(
            all(vec![page(&["a", "b"], true), page(&["a1", "z"], false)], 10, 100),
            page(&["a", "a1", "b"], true)
        );
    }

    #[test]
    fn shards_are_asked_only_for_what_the_page_has_room_for() {
        let asked = |merged: &Merged| {
            merged.narrowed(Scan { prefix: Bytes::new(), start_after: None, up_to: None, limit: 3 }).up_to
        };
        let mut merged = Merged::new(3, 100);
        merged.add(page(&["d", "f"], false));
        assert_eq!(asked(&merged), None, "there is room for any key");
        merged.add(page(&["e", "k", "z"], false));
        assert_eq!(asked(&merged), Some("f".into()), "the page is full");
        merged.add(page(&["a", "b"], true));
        assert_eq!(asked(&merged), Some("b".into()), "that shard has more after it");
        assert_eq!(merged.page, page(&["a", "b"], true));
    }
}
