//! A fingerprint of a run: every event goes into it, in order.
//!
//! Two runs of one seed must have the same fingerprint. If they do not, something read a clock, an address or a hashed
//! order, and no failing seed can be trusted to fail again. Each word of an event passes through a bijection of the
//! state, so two runs that have diverged keep different fingerprints while they record the same events.

use crate::random::mix64;
use ringfort_core::time::Moment;
use std::hash::{Hash, Hasher};

/// The order-sensitive hash of the events recorded so far.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Trace {
    state: u64,
    events: u64,
}

impl Trace {
    /// Records that `event` happened at `at`.
    pub fn record(&mut self, at: Moment, event: impl Hash) {
        self.events += 1;
        let mut absorber = Absorber(self.state);
        (self.events, at).hash(&mut absorber);
        event.hash(&mut absorber);
        self.state = absorber.0;
    }

    pub fn fingerprint(&self) -> u64 {
        self.state
    }

    /// How many events were recorded.
    pub fn events(&self) -> u64 {
        self.events
    }
}

/// A hasher that is the same in every build and on every machine.
#[derive(Default)]
pub struct Absorber(u64);

impl Absorber {
    fn absorb(&mut self, word: u64) {
        // The rotation and the constant ensure that zeros change the state too.
        self.0 = mix64(self.0.rotate_left(1) ^ word.wrapping_add(0x9e37_79b9_7f4a_7c15));
    }
}

impl Hasher for Absorber {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.absorb(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.absorb(word);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(events: &[(u64, &str)]) -> u64 {
        let mut trace = Trace::default();
        for (at, event) in events {
            trace.record(Moment(*at), event);
        }
        assert_eq!(trace.events(), events.len() as u64);
        trace.fingerprint()
    }

    #[test]
    fn order_time_and_content_count() {
        let base = fingerprint(&[(1, "send"), (2, "receive")]);
        assert_eq!(base, fingerprint(&[(1, "send"), (2, "receive")]));
        assert_ne!(base, fingerprint(&[(2, "receive"), (1, "send")]));
        assert_ne!(base, fingerprint(&[(1, "send"), (3, "receive")]));
        assert_ne!(base, fingerprint(&[(1, "send"), (2, "receivf")]));
        assert_ne!(base, fingerprint(&[(1, "send")]));
        assert_ne!(fingerprint(&[]), fingerprint(&[(0, "")]));
    }

    #[test]
    fn differing_once_is_differing_for_good() {
        let tail: Vec<_> = (2..1000).map(|at| (at, "same")).collect();
        let with = |first| fingerprint(&[&[(1, first)], &tail[..]].concat());
        assert_ne!(with("a"), with("b"));
    }
}
