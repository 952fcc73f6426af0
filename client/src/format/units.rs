//! Times, ages and sizes in Docker's words (`2 hours ago`, `124MB`, RFC 3339).

/// Nanoseconds in a second.
const NS_PER_S: i64 = 1_000_000_000;

/// What Docker prints for a time that never was.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// Now, in nanoseconds since the epoch.
pub fn now_ns() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A length of time in words, coarse as Docker's.
pub fn duration(ns: i64) -> String {
    let seconds = (ns / NS_PER_S).max(0);
    let minutes = seconds / 60;
    // Docker rounds hours to the nearest whole one.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// The same with `ago`.
pub fn ago(then_ns: i64, now_ns: i64) -> String {
    format!("{} ago", duration(now_ns.saturating_sub(then_ns)))
}

/// Bytes in decimal units with three significant digits.
pub fn size(bytes: i64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes.max(0) as f64;
    let mut unit = 0;
    // 999.5 would be rounded to 1000 below.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text}{}", UNITS.get(unit).copied().unwrap_or_default())
}

/// A moment in UTC.
struct Moment {
    date: (i64, i64, i64),
    time: (i64, i64, i64),
    nanos: i64,
}

impl Moment {
    /// Days to date: Howard Hinnant's `civil_from_days`, proleptic Gregorian.
    fn at(ns: i64) -> Moment {
        let (seconds, nanos) = (ns.div_euclid(NS_PER_S), ns.rem_euclid(NS_PER_S));
        let (days, in_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Moment {
            date: (year, month, day),
            time: (in_day / 3600, in_day / 60 % 60, in_day % 60),
            nanos,
        }
    }
}

/// RFC 3339 with nanoseconds, as Go prints it: no trailing zeroes.
pub fn rfc3339(ns: i64) -> String {
    let Moment {
        date: (y, mo, d),
        time: (h, mi, s),
        nanos,
    } = Moment::at(ns);
    let mut text = format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}");
    if nanos != 0 {
        text.push_str(format!(".{nanos:09}").trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// As `docker ps` shows a creation time in JSON.
pub fn created_at(ns: i64) -> String {
    let Moment {
        date: (y, mo, d),
        time: (h, mi, s),
        ..
    } = Moment::at(ns);
    format!("{y:04}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02} +0000 UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_use_dockers_words() {
        for (seconds, words) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86_400, "13 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(duration(seconds * NS_PER_S), words, "{seconds}");
        }
        assert_eq!(ago(0, 2 * 3600 * NS_PER_S), "2 hours ago");
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1500, "1.5kB"),
            (7_800_000, "7.8MB"),
            (124_400_000, "124MB"),
            (999_600, "1MB"),
            (9_999_000, "10MB"),
            (1_234_567_890, "1.23GB"),
            (-1, "0B"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(
            rfc3339(1_709_164_800 * NS_PER_S + 500_000_000),
            "2024-02-29T00:00:00.5Z"
        );
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(
            created_at(1_700_000_000 * NS_PER_S),
            "2023-11-14 22:13:20 +0000 UTC"
        );
    }
}
