//! Whether and when a transfer that failed is tried again.

use std::time::{Duration, UNIX_EPOCH};

use httpdate::parse_http_date;

use crate::download::config::Config;
use crate::limits::backoff::Backoff;

/// No delay between two tries is longer, unless the server asks for it.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// A server that asks for a longer wait is not waited for, whatever is allowed.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// What follows on a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Another try, after this wait.
    Again(Duration),
    /// The failure is final.
    Final,
    /// Another try would be due after `wait`, but only `left` is left.
    TooLate { wait: Duration, left: Duration },
}

/// The tries of one transfer.
#[derive(Debug)]
pub(crate) struct Tries {
    left: u32,
    backoff: Backoff,
    limit: Option<Duration>,
}

impl Tries {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            left: config.retries,
            backoff: Backoff::new(config.retry_delay, LONGEST_DELAY.max(config.retry_delay)),
            limit: config.retry_time,
        }
    }

    /// Decides after a failure that is transient or not, `elapsed` after the transfer's start;
    /// `asked` is how long the server wants to be left alone.
    pub(crate) fn after_failure(
        &mut self,
        is_transient: bool,
        asked: Option<Duration>,
        elapsed: Duration,
    ) -> Verdict {
        if !is_transient || self.left == 0 {
            return Verdict::Final;
        }
        self.left -= 1;
        let wait = self
            .backoff
            .next_delay()
            .max(asked.unwrap_or(Duration::ZERO));
        let allowed = self
            .limit
            .map_or(LONGEST_WAIT, |limit| limit.saturating_sub(elapsed));
        let left = allowed.min(LONGEST_WAIT);
        if wait > left {
            Verdict::TooLate { wait, left }
        } else {
            Verdict::Again(wait)
        }
    }
}

/// Whether an answer of this status may well be another a little later (RFC 9110 section 15.5.9,
/// 15.6; RFC 8470 section 5.2; RFC 6585 section 4).
pub(crate) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// How long a server wants to be left alone (RFC 9110 section 10.2.3): a number of seconds, or a
/// date. A date is measured against that of the answer: clocks differ. `None` for nonsense, and
/// for a date without one to compare it with.
pub(crate) fn retry_after(value: &[u8], date: Option<&[u8]>) -> Option<Duration> {
    let value = std::str::from_utf8(value).ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = seconds(value)?;
    let now = seconds(std::str::from_utf8(date?).ok()?)?;
    Some(Duration::from_secs(until.saturating_sub(now)))
}

/// The seconds since 1970 of a date in one of the three forms of RFC 9110 section 5.6.7.
pub(crate) fn seconds(date: &str) -> Option<u64> {
    let moment = parse_http_date(date.trim()).ok()?;
    Some(moment.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn tries(retries: u32, limit: Option<Duration>) -> Tries {
        Tries::new(&Config {
            retries,
            retry_time: limit,
            ..Config::default()
        })
    }

    #[test]
    fn there_are_as_many_tries_as_asked_for() {
        let mut tries = tries(2, None);
        for _ in 0..2 {
            let verdict = tries.after_failure(true, None, SECOND);
            assert!(matches!(verdict, Verdict::Again(_)), "{verdict:?}");
        }
        assert_eq!(tries.after_failure(true, None, SECOND), Verdict::Final);
    }

    #[test]
    fn what_will_not_change_is_final() {
        assert_eq!(
            tries(2, None).after_failure(false, Some(SECOND), SECOND),
            Verdict::Final
        );
    }

    #[test]
    fn a_server_is_left_alone_for_as_long_as_it_asks_at_least() {
        let verdict = tries(1, None).after_failure(true, Some(90 * SECOND), SECOND);
        assert_eq!(verdict, Verdict::Again(90 * SECOND));
    }

    #[test]
    fn a_try_that_comes_too_late_is_not_waited_for() {
        let (wait, limit) = (9 * SECOND, Some(10 * SECOND));
        let verdict = |elapsed| tries(1, limit).after_failure(true, Some(wait), elapsed);
        assert_eq!(verdict(SECOND), Verdict::Again(wait));
        assert_eq!(
            verdict(2 * SECOND),
            Verdict::TooLate {
                wait,
                left: 8 * SECOND
            }
        );
        assert_eq!(
            verdict(20 * SECOND),
            Verdict::TooLate {
                wait,
                left: Duration::ZERO
            }
        );
        let verdict = tries(1, None).after_failure(true, Some(Duration::MAX), SECOND);
        assert_eq!(
            verdict,
            Verdict::TooLate {
                wait: Duration::MAX,
                left: LONGEST_WAIT
            }
        );
    }

    #[test]
    fn the_statuses_that_pass_are_these() {
        let transient: Vec<_> = (100..=999).filter(|status| is_transient(*status)).collect();
        assert_eq!(transient, [408, 425, 429, 500, 502, 503, 504]);
    }

    #[test]
    fn retry_after_is_a_number_or_a_date_and_nonsense_is_none() {
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
            let asked = retry_after(value.as_bytes(), date.map(str::as_bytes));
            assert_eq!(asked, seconds.map(Duration::from_secs), "{value:?}");
        }
        assert_eq!(retry_after(b"\xff", None), None);
    }

    #[test]
    fn whatever_a_server_asks_for_is_read_or_left() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..10_000 {
            let length = random.usize(..40);
            let value: Vec<u8> = (0..length)
                .map(|_| *random.choice(b"0123456789 ,:GMTSunNov-\xff").unwrap_or(&0))
                .collect();
            let asked = retry_after(&value, Some(DATE.as_bytes()));
            let text = String::from_utf8_lossy(&value);
            let is_number = text
                .trim()
                .parse::<u64>()
                .ok()
                .filter(|_| !text.contains(['+', '-']));
            if let Some(number) = is_number {
                assert_eq!(
                    asked,
                    Some(Duration::from_secs(number)),
                    "seed {seed}: {text:?}"
                );
            }
        }
    }
}
