//! The timeout that a caller sets for its call.

use crate::service;
use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// When a call must be answered.
pub fn deadline(metadata: &MetadataMap) -> Instant {
    service::deadline(metadata.get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?)))
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
}
