//! When a call must be answered.

use std::time::Duration;
use tokio::time::Instant;

/// For callers that set no timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time that is reserved for the answer's way back, so that a caller whose call fails still gets the error
/// before its own timeout. Generous, because callers and nodes may run on busy machines, where threads wait for their
/// turn.
const LONGEST_WAY_BACK: Duration = Duration::from_secs(1);

/// One part in this many of the caller's timeout is reserved for the answer's way back.
const WAY_BACK_PART: u32 = 5;

/// The deadline of a call that arrives now with this timeout. It leaves time for the answer to reach the caller.
pub fn deadline(timeout: Option<Duration>) -> Instant {
    let timeout = timeout.unwrap_or(DEFAULT_TIMEOUT);
    let now = Instant::now();
    let way_back = (timeout / WAY_BACK_PART).min(LONGEST_WAY_BACK);
    now.checked_add(timeout - way_back).unwrap_or(now + DEFAULT_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_leaves_in_time() {
        for (timeout_ms, answered_ms) in [(100, 80), (1000, 800), (5000, 4000), (60_000, 59_000)] {
            let (before, answered) = (Instant::now(), Duration::from_millis(answered_ms));
            let deadline = deadline(Some(Duration::from_millis(timeout_ms)));
            assert!(deadline >= before + answered && deadline <= Instant::now() + answered, "{timeout_ms} ms");
        }
        let soon = Instant::now() + DEFAULT_TIMEOUT;
        assert!(deadline(None) <= soon && deadline(Some(Duration::MAX)) <= soon + DEFAULT_TIMEOUT);
    }
}
