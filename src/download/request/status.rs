//! Meaning of response statuses, and `Retry-After`.

use std::time::{Duration, UNIX_EPOCH};

use httpdate::parse_http_date;

/// Returns whether a response of this status redirects a GET (RFC 9110 section 15.4).
pub(crate) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Returns whether a retry may get another status (RFC 9110 sections 15.3.3, 15.5.9 and 15.6, RFC
/// 4918 section 11.3, RFC 6585 section 4, RFC 8470 section 5.2). Content delivery networks use
/// 509, 520 to 530 and 598 for errors between them and the origin server. 403 and 413 are
/// temporary only if `Retry-After` says so.
pub(crate) fn is_transient(status: u16, has_retry_after: bool) -> bool {
    match status {
        202 | 408 | 423 | 425 | 429 | 500 | 502 | 503 | 504 | 509 | 520..=530 | 598 => true,
        403 | 413 => has_retry_after,
        _ => false,
    }
}

/// Parses `Retry-After` (RFC 9110 section 10.2.3): a number of seconds, or an HTTP date. A date is
/// compared with the `Date` of the response, because the clocks may differ. Returns `None` for an
/// invalid value, and for a date if the response has none.
pub(crate) fn retry_after(value: &[u8], date: Option<&[u8]>) -> Option<Duration> {
    let value = std::str::from_utf8(value).ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = unix_seconds(value)?;
    let now = unix_seconds(std::str::from_utf8(date?).ok()?)?;
    Some(Duration::from_secs(until.saturating_sub(now)))
}

/// Returns the seconds since 1970 of an HTTP date in one of the three forms of RFC 9110 section
/// 5.6.7.
pub(crate) fn unix_seconds(date: &str) -> Option<u64> {
    let time = parse_http_date(date.trim()).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn transient_statuses_are_exactly_these() {
        let list = |has_retry_after| -> Vec<_> {
            (100..=999)
                .filter(|status| is_transient(*status, has_retry_after))
                .collect()
        };
        assert_eq!(
            list(false),
            [
                202, 408, 423, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524, 525,
                526, 527, 528, 529, 530, 598
            ]
        );
        let added: Vec<_> = list(true)
            .into_iter()
            .filter(|status| !is_transient(*status, false))
            .collect();
        assert_eq!(added, [403, 413]);
    }

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        let later = "Sun, 06 Nov 1994 08:50:37 GMT";
        for (value, date, seconds) in [
            ("0", None, Some(0)),
            ("120", None, Some(120)),
            (" 7 ", None, Some(7)),
            ("99999999999999999999999", None, Some(u64::MAX)),
            (later, Some(DATE), Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(DATE), Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(DATE), Some(60)),
            (DATE, Some(later), Some(0)),
            (later, None, None),
            (later, Some("yesterday"), None),
            ("", None, None),
            ("-1", None, None),
            ("1.5", None, None),
            ("soon", Some(DATE), None),
        ] {
            let delay = retry_after(value.as_bytes(), date.map(str::as_bytes));
            assert_eq!(delay, seconds.map(Duration::from_secs), "{value:?}");
        }
        assert_eq!(retry_after(b"\xff", None), None);
    }

    #[test]
    fn random_retry_after_values_do_not_panic() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..10_000 {
            let length = random.usize(..40);
            let value: Vec<u8> = (0..length)
                .map(|_| *random.choice(b"0123456789 ,:GMTSunNov-\xff").unwrap_or(&0))
                .collect();
            let delay = retry_after(&value, Some(DATE.as_bytes()));
            let text = String::from_utf8_lossy(&value);
            if text.contains(['+', '-']) {
                continue;
            }
            if let Ok(number) = text.trim().parse::<u64>() {
                let expected = Some(Duration::from_secs(number));
                assert_eq!(delay, expected, "seed {seed}: {text:?}");
            }
        }
    }
}
