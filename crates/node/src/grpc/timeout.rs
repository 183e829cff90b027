//! How long a call may take.

use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// For calls that say nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer leaves this much before the caller's time is over, or it would never see why there is none: a fifth of the
/// time, and no more than this. Callers and nodes may be on machines that are busy, where a thread waits for its turn.
const LONGEST_WAY_BACK: Duration = Duration::from_secs(1);

/// Of the caller's time, the part that is the answer's.
const WAY_BACK_PART: u32 = 5;

/// When a call must be answered.
pub fn deadline(metadata: &MetadataMap) -> Instant {
    let timeout = metadata.get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
    let timeout = timeout.unwrap_or(DEFAULT_TIMEOUT);
    let now = Instant::now();
    let way_back = (timeout / WAY_BACK_PART).min(LONGEST_WAY_BACK);
    now.checked_add(timeout - way_back).unwrap_or(now + DEFAULT_TIMEOUT)
}

/// At most eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_units() {
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        for bad in ["", "S", "5", "5s", "999999999S", "-1S", "5ü"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_answer_leaves_in_time() {
        for (timeout, answered_ms) in [("100m", 80), ("1S", 800), ("5S", 4000), ("60S", 59_000)] {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", timeout.parse().unwrap());
            let (before, answered) = (Instant::now(), Duration::from_millis(answered_ms));
            let deadline = deadline(&metadata);
            assert!(deadline >= before + answered && deadline <= Instant::now() + answered, "{timeout}");
        }
    }
}
