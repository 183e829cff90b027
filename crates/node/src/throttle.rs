//! A limit in bytes per second, shared by all callers.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Unused bandwidth is not saved up: after an idle time only the first call passes at once.
pub struct Throttle {
    bytes_per_second: Option<u64>,
    free_at: Mutex<Option<Instant>>,
}

impl Throttle {
    /// `None` means no limit.
    pub fn new(bytes_per_second: Option<u64>) -> Throttle {
        Throttle { bytes_per_second, free_at: Mutex::new(None) }
    }

    /// How long the caller must wait before it sends this many bytes.
    pub fn pause(&self, now: Instant, bytes: usize) -> Duration {
        let Some(rate) = self.bytes_per_second else { return Duration::ZERO };
        let takes = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let mut free_at = self.free_at.lock();
        let from = free_at.map_or(now, |free_at| free_at.max(now));
        *free_at = Some(from + takes);
        from - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_at_the_rate_and_are_not_saved_up() {
        let throttle = Throttle::new(Some(1000));
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let pauses = |at: Instant| [(); 3].map(|()| throttle.pause(at, 500));
        assert_eq!(pauses(now), [Duration::ZERO, second / 2, second]);
        assert_eq!(throttle.pause(now + second, 500), second / 2);
        assert_eq!(pauses(now + 60 * second), [Duration::ZERO, second / 2, second]);
        assert_eq!(Throttle::new(None).pause(now, usize::MAX), Duration::ZERO);
    }
}
