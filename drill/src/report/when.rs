//! Time of day, for people.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment as `2026-11-30 00:20:31.123 UTC`. One before 1970 is told as its beginning.
pub fn utc(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, of_day) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // The Gregorian calendar, in years that begin with March, so that the odd day comes last.
    let from_march = days + 719_468;
    let era = from_march / 146_097;
    let of_era = from_march % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months = (5 * of_year + 2) / 153;
    let day = of_year - (153 * months + 2) / 5 + 1;
    let month = if months < 10 { months + 3 } else { months - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:03} UTC",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        let at = |seconds: u64| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00.000 UTC");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59.000 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00.000 UTC");
        assert_eq!(at(951_868_800), "2000-03-01 00:00:00.000 UTC");
        assert_eq!(at(1_798_761_599), "2026-12-31 23:59:59.000 UTC");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00.000 UTC");
        let precise = UNIX_EPOCH + Duration::from_millis(1_798_761_599_042);
        assert!(utc(precise).ends_with("23:59:59.042 UTC"));
    }
}
