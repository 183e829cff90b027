//! How long a condition has held without a break, as far as it was observed.

use ringfort_core::time::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// Observations that are further apart than this tell nothing about the time in between: the node crashed or stalled.
const BREAK: Duration = Duration::from_millis(200);

/// For each key, since when the condition has held, and when it was last observed.
pub struct Lasting<K> {
    known: BTreeMap<K, (Moment, Moment)>,
}

impl<K: Ord> Lasting<K> {
    /// Notes whether the condition holds for `key` at `now`, and returns for how long it has held.
    pub fn look(&mut self, key: K, holds: bool, now: Moment) -> Duration {
        if !holds {
            self.known.remove(&key);
            return Duration::ZERO;
        }
        let (since, seen) = self.known.entry(key).or_insert((now, now));
        if *seen + BREAK < now {
            *since = now;
        }
        *seen = now;
        now.saturating_since(*since)
    }
}

impl<K> Default for Lasting<K> {
    fn default() -> Lasting<K> {
        Lasting { known: BTreeMap::new() }
    }
}
