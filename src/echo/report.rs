//! What a run comes to.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::time::{Duration, Instant};

use crate::echo::error::{EchoError, Mismatch, Phase};
use crate::measure::latency::LatencyHistogram;
use crate::measure::timeline::Timeline;

/// What a ping comes to.
#[derive(Debug, Clone, Default)]
pub struct PingReport {
    /// The messages that were answered or failed.
    pub sent: u64,
    /// The round-trip time of each that was answered.
    pub times: LatencyHistogram,
    /// How often something went wrong.
    pub errors: BTreeMap<Phase, u64>,
    /// How often what was done to a byte.
    pub mismatches: BTreeMap<Mismatch, u64>,
    /// The replies that came once more, in datagrams.
    pub duplicates: u64,
    /// How long all took.
    pub elapsed: Duration,
}

impl PingReport {
    pub(crate) fn count(&mut self, outcome: &Result<Option<Duration>, EchoError>) {
        self.sent += 1;
        match outcome {
            Ok(Some(time)) => self.times.record(*time),
            // A datagram that was lost is no error.
            Ok(None) => {}
            Err(error) => {
                *self.errors.entry(error.phase()).or_default() += 1;
                count_mismatch(&mut self.mismatches, error);
            }
        }
    }

    /// The share of the messages that were not answered, from 0 to 1.
    pub fn loss(&self) -> f64 {
        match self.sent {
            0 => 0.0,
            sent => (sent - self.times.count()) as f64 / sent as f64,
        }
    }
}

/// To be woken takes up to some ten microseconds: more than a tenth of what is shorter than this.
const SOON: Duration = Duration::from_micros(300);

/// What a load comes to. The warm-up counts for nothing but errors.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// How long was measured.
    pub elapsed: Duration,
    /// The messages that went.
    pub sent: u64,
    /// Those of them that went more than a millisecond after they could have gone.
    pub late: u64,
    /// How long it took to connect.
    pub connect: LatencyHistogram,
    /// From when each message was due until its reply was whole.
    pub response: LatencyHistogram,
    /// From when each message was sent until its reply was whole.
    pub service: LatencyHistogram,
    /// What was answered and what went wrong, over time.
    pub timeline: Timeline,
    /// Those whose reply did not come in time, in a datagram.
    pub lost: u64,
    /// The replies that came once more, in datagrams.
    pub duplicates: u64,
    /// The replies that came behind that of a later message, in datagrams.
    pub reordered: u64,
    /// What went wrong.
    pub errors: BTreeMap<Phase, Failures>,
    /// How often what was done to a byte.
    pub mismatches: BTreeMap<Mismatch, u64>,
    /// The share of their time in which the threads that sent were busy, from 0 to 1.
    pub cpu: f64,
    /// Whether the threads that sent slept while they waited.
    pub(crate) slept: bool,
    pub(crate) last_answer: Option<Instant>,
    /// When the last connection had no more to do.
    pub(crate) ended: Option<Instant>,
}

/// What went wrong in one phase.
#[derive(Debug)]
pub struct Failures {
    /// How often.
    pub count: u64,
    /// The first of them.
    pub first: EchoError,
}

fn count_mismatch(mismatches: &mut BTreeMap<Mismatch, u64>, error: &EchoError) {
    if let Some(mismatch) = error.mismatch() {
        *mismatches.entry(mismatch).or_default() += 1;
    }
}

/// Why figures may not mean what they seem to, and what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Doubt {
    /// The rate that was reached is more than 1 % below the one that was asked.
    Rate {
        /// Messages a second.
        asked: f64,
        /// Messages a second.
        reached: f64,
    },
    /// This share of the messages, more than 1 %, went late through our own doing.
    Late(f64),
    /// The sending thread was busy for this share of its time, more than 90 %.
    Busy(f64),
    /// Half of the replies came so soon that the times are in good part those of our own thread
    /// waking up.
    Asleep,
    /// Fewer than ten messages lie above the percentile.
    Few {
        /// The lowest such percentile.
        percentile: &'static str,
        /// All messages that were answered.
        answered: u64,
        /// How many would do.
        enough: u64,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate { asked, reached } => {
                let missing = 100.0 * (1.0 - reached / asked);
                write!(
                    f,
                    "the rate was not reached: {reached:.1} of {asked} messages a second, "
                )?;
                write!(f, "{missing:.1}% too few; ")?;
                f.write_str(
                    "more --connections or --in-flight help unless the server is at its end",
                )
            }
            Self::Late(share) => {
                let percent = 100.0 * share;
                write!(
                    f,
                    "{percent:.1}% of the messages were sent over 1 ms late by this program: "
                )?;
                f.write_str("more --threads, a lower --rate or an idle machine help")
            }
            Self::Busy(share) => {
                let percent = 100.0 * share;
                write!(f, "this program was busy for {percent:.0}% of the time: ")?;
                f.write_str("the generator was the bottleneck; ")?;
                f.write_str("more --threads, fewer --connections or several machines help")
            }
            Self::Asleep => {
                f.write_str("the times are in good part those of this program waking up: ")?;
                f.write_str("--busy-poll takes that out")
            }
            Self::Few {
                percentile,
                answered,
                enough,
            } => {
                write!(
                    f,
                    "{answered} replies are too few for {percentile} and above, "
                )?;
                write!(
                    f,
                    "{enough} are enough: a longer --duration or a higher -n helps"
                )
            }
        }
    }
}

impl LoadReport {
    pub(crate) fn fail(&mut self, error: EchoError) {
        count_mismatch(&mut self.mismatches, &error);
        let entry = self.errors.entry(error.phase());
        entry
            .or_insert(Failures {
                count: 0,
                first: error,
            })
            .count += 1;
    }

    /// Adds what another thread has counted in the same run. How long all took, and how busy the
    /// threads were, is for who knows all of them to say.
    pub(crate) fn merge(&mut self, other: Self) {
        self.sent += other.sent;
        self.late += other.late;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.connect.merge(&other.connect);
        self.response.merge(&other.response);
        self.service.merge(&other.service);
        self.timeline.merge(other.timeline);
        for (phase, failures) in other.errors {
            match self.errors.entry(phase) {
                Entry::Vacant(entry) => _ = entry.insert(failures),
                Entry::Occupied(mut entry) => entry.get_mut().count += failures.count,
            }
        }
        for (kind, count) in other.mismatches {
            *self.mismatches.entry(kind).or_default() += count;
        }
        self.last_answer = self.last_answer.max(other.last_answer);
        self.ended = self.ended.max(other.ended);
    }

    /// The messages that were answered.
    pub fn answered(&self) -> u64 {
        self.response.count()
    }

    /// The messages that were answered a second.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 {
            self.answered() as f64 / seconds
        } else {
            0.0
        }
    }

    /// Whether the times are in good part those of our own thread waking up. One that is busy is
    /// awake already.
    fn is_wake_up(&self) -> bool {
        let figures = self.service.percentiles();
        self.slept && self.cpu <= 0.9 && figures.is_some_and(|figures| figures.p50 < SOON)
    }

    /// What makes the figures doubtful, given the rate that was asked.
    pub fn doubts(&self, asked: Option<f64>) -> Vec<Doubt> {
        let (answered, reached) = (self.answered(), self.rate());
        let late = self.late as f64 / self.sent.max(1) as f64;
        let few = [("p90", 100), ("p99", 1_000), ("p99.9", 10_000)];
        let few = few
            .into_iter()
            .find(|(_, enough)| (1..*enough).contains(&answered));
        [
            asked
                .filter(|asked| reached < 0.99 * asked)
                .map(|asked| Doubt::Rate { asked, reached }),
            (late > 0.01).then_some(Doubt::Late(late)),
            (self.cpu > 0.9 && answered > 0).then_some(Doubt::Busy(self.cpu)),
            self.is_wake_up().then_some(Doubt::Asleep),
            few.map(|(percentile, enough)| Doubt::Few {
                percentile,
                answered,
                enough,
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(answered: u64, seconds: u64) -> LoadReport {
        let elapsed = Duration::from_secs(seconds);
        let mut report = LoadReport {
            sent: answered,
            elapsed,
            ..LoadReport::default()
        };
        (0..answered).for_each(|_| report.response.record(Duration::from_millis(1)));
        report
    }

    #[test]
    fn a_good_run_is_not_doubted() {
        let sound = LoadReport {
            cpu: 0.9,
            late: 100,
            ..report(10_000, 10)
        };
        assert_eq!(sound.doubts(Some(1005.0)), []);
        assert_eq!(sound.doubts(None), []);
    }

    #[test]
    fn each_reason_for_doubt_is_told() {
        let asked = 2000.0;
        let slow = report(10_000, 10).doubts(Some(asked));
        assert_eq!(
            slow,
            [Doubt::Rate {
                asked,
                reached: 1000.0
            }]
        );
        let text = slow[0].to_string();
        assert!(
            text.contains(": 1000.0 of 2000 messages a second, 50.0% too few; more "),
            "{text}"
        );
        let late = LoadReport {
            late: 101,
            ..report(10_000, 10)
        };
        assert_eq!(late.doubts(None), [Doubt::Late(0.0101)]);
        let mut quick = LoadReport {
            slept: true,
            cpu: 0.9,
            ..report(10_000, 10)
        };
        assert_eq!(
            quick.doubts(None),
            [],
            "nothing is known of when it was sent"
        );
        quick.service.record(Duration::from_micros(299));
        assert_eq!(quick.doubts(None), [Doubt::Asleep]);
        quick.slept = false;
        assert_eq!(quick.doubts(None), []);
        let busy = LoadReport {
            cpu: 0.91,
            ..report(10_000, 10)
        };
        assert_eq!(busy.doubts(None), [Doubt::Busy(0.91)]);
    }

    #[test]
    fn each_doubt_tells_what_to_do() {
        for (doubt, help) in [
            (
                Doubt::Rate {
                    asked: 2.0,
                    reached: 1.0,
                },
                "--connections",
            ),
            (Doubt::Late(0.5), "--threads"),
            (Doubt::Busy(0.95), "--threads"),
            (Doubt::Asleep, "--busy-poll"),
            (
                Doubt::Few {
                    percentile: "p99",
                    answered: 100,
                    enough: 1000,
                },
                "--duration",
            ),
        ] {
            assert!(doubt.to_string().contains(help), "{doubt}");
        }
    }

    #[test]
    fn a_percentile_needs_ten_replies_above_it() {
        for (answered, few) in [
            (0, None),
            (99, Some(("p90", 100))),
            (100, Some(("p99", 1000))),
            (9_999, Some(("p99.9", 10_000))),
            (10_000, None),
        ] {
            let doubts = report(answered, 1).doubts(None);
            let few = few.map(|(percentile, enough)| Doubt::Few {
                percentile,
                answered,
                enough,
            });
            assert_eq!(doubts, Vec::from_iter(few));
        }
    }
}
