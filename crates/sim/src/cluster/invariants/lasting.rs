//! How long something has held without a break, as far as anybody looked.

use ringfort_core::time::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// Looks that are further apart than this tell nothing of the time in between: the node crashed, or stood still.
const BREAK: Duration = Duration::from_millis(200);

/// Since when it has held, and when that was last seen, for each of several things.
pub struct Lasting<K> {
    known: BTreeMap<K, (Moment, Moment)>,
}

impl<K: Ord> Lasting<K> {
    /// Notes whether it holds of `key` at `now`, and returns for how long it has.
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
