//! Moments as people read them, in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::DateTime;

/// Seconds since 1970 as a date and time: `2026-11-29 03:04:05 UTC`.
pub fn utc(seconds: u64) -> String {
    text(Duration::from_secs(seconds), "%Y-%m-%d %H:%M:%S UTC")
}

/// The same to the millisecond: `2026-11-30 00:20:31.123 UTC`. A moment before 1970 is told as its beginning.
pub fn utc_to_the_millisecond(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    text(since, "%Y-%m-%d %H:%M:%S%.3f UTC")
}

fn text(since_1970: Duration, format: &str) -> String {
    let seconds = since_1970.as_secs();
    let date = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, since_1970.subsec_nanos()));
    // No calendar goes that far.
    date.map_or_else(
        || format!("{seconds} s after the beginning of 1970"),
        |date| date.format(format).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_civil_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_795_921_445, "2026-11-29 03:04:05 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), text);
        }
        // A peer's figure may be anything.
        assert_eq!(
            utc(u64::MAX),
            "18446744073709551615 s after the beginning of 1970"
        );
    }

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        let at = |seconds: u64| utc_to_the_millisecond(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00.000 UTC");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59.000 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00.000 UTC");
        assert_eq!(at(951_868_800), "2000-03-01 00:00:00.000 UTC");
        assert_eq!(at(1_798_761_599), "2026-12-31 23:59:59.000 UTC");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00.000 UTC");
        let precise = UNIX_EPOCH + Duration::from_millis(1_798_761_599_042);
        assert!(utc_to_the_millisecond(precise).ends_with("23:59:59.042 UTC"));
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(utc_to_the_millisecond(before), at(0));
    }
}
