//! Data of a JSON report from which it can be merged exactly, and reading it.

use std::collections::BTreeMap;
use std::iter;
use std::time::Duration;

use myapp::echo::{LoadReport, Mismatch, Phase};
use myapp::internals::DecodeError;
use myapp::internals::interval_log::{LoggedTimes, ReadLogError};
use myapp::measure::timeline::{Bucket, Timeline};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::summary::{PhaseErrors, Summary};

/// Version of the format. Other versions are not read.
const VERSION: u64 = 1;

/// Maximum value of a counter, so that sums cannot overflow and other programs read it exactly.
const MAX_COUNT: u64 = 1 << 53;

/// Data for merging, beside the counters of a report.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MergeData {
    version: u64,
    runs: Vec<String>,
    rate_sum: f64,
    sender_slept: bool,
    first_errors: BTreeMap<String, String>,
    timeline: TimelineData,
    /// Encoded histograms.
    connect: String,
    /// `None` in an interval log, whose intervals have them.
    response: Option<String>,
    service: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TimelineData {
    /// In seconds.
    width: f64,
    buckets: Vec<BucketData>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct BucketData {
    #[serde(skip_serializing_if = "is_zero")]
    failed: u64,
    #[serde(skip_serializing_if = "is_zero")]
    lost: u64,
    #[serde(skip_serializing_if = "is_zero")]
    unsent: u64,
    #[serde(skip_serializing_if = "is_zero")]
    reconnects: u64,
    /// In nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    downtime: u64,
    #[serde(skip_serializing_if = "is_zero")]
    unanswered: u64,
    /// Encoded histogram.
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde requires")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl MergeData {
    /// Returns the data of a summary, without response and service times.
    pub(super) fn of(summary: &Summary) -> Self {
        let report = &summary.report;
        let first = |(phase, errors): (&Phase, &PhaseErrors)| {
            (phase.name().to_owned(), errors.first.clone())
        };
        let buckets = report.timeline.buckets().iter().map(BucketData::of);
        Self {
            version: VERSION,
            runs: summary.runs.clone(),
            rate_sum: summary.rate_sum,
            sender_slept: report.sender_slept,
            first_errors: summary.errors.iter().map(first).collect(),
            timeline: TimelineData {
                width: report.timeline.width().as_secs_f64(),
                buckets: buckets.collect(),
            },
            connect: report.connect.encode(),
            response: None,
            service: None,
        }
    }

    /// Adds response and service times.
    pub(super) fn with_times(self, report: &LoadReport) -> Self {
        Self {
            response: Some(report.response.encode()),
            service: Some(report.service.encode()),
            ..self
        }
    }
}

impl BucketData {
    fn of(bucket: &Bucket) -> Self {
        let unanswered = bucket.unanswered_count();
        let has_times = bucket.count() + unanswered > 0;
        Self {
            failed: bucket.failed,
            lost: bucket.lost,
            unsent: bucket.unsent,
            reconnects: bucket.reconnects,
            downtime: u64::try_from(bucket.downtime.as_nanos()).unwrap_or(u64::MAX),
            unanswered,
            times: has_times.then(|| bucket.encode_times()),
        }
    }

    fn into_bucket(self) -> Result<Bucket, ReadError> {
        let mut bucket = Bucket::default();
        bucket.failed = limited(self.failed)?;
        bucket.lost = limited(self.lost)?;
        bucket.unsent = limited(self.unsent)?;
        bucket.reconnects = limited(self.reconnects)?;
        bucket.downtime = Duration::from_nanos(self.downtime);
        if let Some(times) = &self.times {
            bucket
                .merge_encoded(times, limited(self.unanswered)?)
                .map_err(|source| ReadError::Histogram("timeline", source))?;
        }
        Ok(bucket)
    }
}

/// Counters and parameters of a report.
#[derive(Debug, Deserialize)]
struct LoadData {
    address: String,
    connections: u64,
    in_flight: u64,
    size: Option<u64>,
    start: Option<String>,
    elapsed: f64,
    due: u64,
    sent: u64,
    answered: u64,
    mismatched: u64,
    timeouts: u64,
    failed: u64,
    unsent: u64,
    late_sends: u64,
    reconnects: u64,
    given_up: u64,
    rate_requested: Option<f64>,
    bytes_rate: f64,
    errors: BTreeMap<String, u64>,
    mismatches: BTreeMap<String, u64>,
    lost: u64,
    duplicates: u64,
    late_replies: u64,
    receive_drops: u64,
    out_of_order: u64,
    sender_cpu: f64,
    merge: MergeData,
}

/// Error of reading a report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("not a report of 'myapp echo'")]
    NotAReport,
    #[error("the report of a ping; only loads can be merged")]
    Ping,
    #[error("a report without data for merging, of an older version")]
    NoMergeData,
    #[error("format {0} of another version; this version reads format {VERSION}")]
    OtherVersion(u64),
    #[error("incomplete or damaged")]
    Json(#[from] serde_json::Error),
    #[error("damaged {0} times")]
    Histogram(&'static str, #[source] DecodeError),
    #[error("damaged: {0} is invalid")]
    Invalid(&'static str),
    #[error(
        "incomplete: {response} response and {service} service times of {due} messages, \
         {answered} of them answered"
    )]
    MissingTimes {
        response: u64,
        service: u64,
        due: u64,
        answered: u64,
    },
    #[error(transparent)]
    Log(#[from] ReadLogError),
}

/// Reads the reports of a file: JSON objects, or an interval log.
pub(crate) fn read_file(
    content: &[u8],
) -> Box<dyn Iterator<Item = Result<Summary, ReadError>> + '_> {
    match content.trim_ascii_start().first() {
        Some(b'{') => {
            let reports = serde_json::Deserializer::from_slice(content).into_iter();
            Box::new(reports.map(|report| read(report?, LoadReport::default())))
        }
        Some(b'#') => Box::new(iter::once(read_log(content))),
        _ => Box::new(iter::once(Err(ReadError::NotAReport))),
    }
}

/// Reads an interval log, whose last line is a report without response and service times.
fn read_log(content: &[u8]) -> Result<Summary, ReadError> {
    let (LoggedTimes { response, service }, report) = LoggedTimes::read(content)?;
    let mut times = LoadReport::default();
    times.response = response;
    times.service = service;
    read(serde_json::from_str(report)?, times)
}

/// Reads a report. `times` has the response and service times that are not part of it.
fn read(report: Value, times: LoadReport) -> Result<Summary, ReadError> {
    match report["kind"].as_str() {
        Some("load") => {}
        Some("ping") => return Err(ReadError::Ping),
        _ => return Err(ReadError::NotAReport),
    }
    match report["merge"]["version"].as_u64() {
        Some(VERSION) => {}
        Some(other) => return Err(ReadError::OtherVersion(other)),
        None => return Err(ReadError::NoMergeData),
    }
    let data: LoadData = serde_json::from_value(report)?;
    let mut report = times;
    data.read_times(&mut report)?;
    data.read_counters(&mut report)?;
    let response = report.response.count();
    let service = report.service.count();
    if service != report.answered || !(report.sent..=report.due()).contains(&response) {
        return Err(ReadError::MissingTimes {
            response,
            service,
            due: report.due(),
            answered: report.answered,
        });
    }
    data.into_summary(report)
}

/// Returns a counter, if it is in its range.
fn limited(count: u64) -> Result<u64, ReadError> {
    if count > MAX_COUNT {
        return Err(ReadError::Invalid("a counter"));
    }
    Ok(count)
}

/// Returns a finite number of at least zero.
fn positive(number: f64, name: &'static str) -> Result<f64, ReadError> {
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        Err(ReadError::Invalid(name))
    }
}

fn duration(seconds: f64, name: &'static str) -> Result<Duration, ReadError> {
    Duration::try_from_secs_f64(seconds).map_err(|_| ReadError::Invalid(name))
}

/// Parses a start (RFC 3339) to a time since the Unix epoch; zero if it is not known.
fn parse_start(start: Option<&str>) -> Result<Duration, ReadError> {
    let Some(start) = start else {
        return Ok(Duration::ZERO);
    };
    let date = OffsetDateTime::parse(start, &Rfc3339).map_err(|_| ReadError::Invalid("start"))?;
    let nanos = u64::try_from(date.unix_timestamp_nanos());
    nanos
        .map(Duration::from_nanos)
        .map_err(|_| ReadError::Invalid("start"))
}

/// Returns the counts of known names.
fn named<K: Copy + Ord>(
    counts: &BTreeMap<String, u64>,
    all: &[K],
    name: fn(K) -> &'static str,
) -> Result<BTreeMap<K, u64>, ReadError> {
    let known = all.iter().copied();
    let found = known.filter_map(|key| Some((key, *counts.get(name(key))?)));
    found
        .filter(|(_, count)| *count > 0)
        .map(|(key, count)| Ok((key, limited(count)?)))
        .collect()
}

impl LoadData {
    /// Adds the encoded times, and the time series.
    fn read_times(&self, report: &mut LoadReport) -> Result<(), ReadError> {
        let merge = &self.merge;
        for (name, latency, encoded) in [
            ("connect", &mut report.connect, Some(&merge.connect)),
            ("response", &mut report.response, merge.response.as_ref()),
            ("service", &mut report.service, merge.service.as_ref()),
        ] {
            if let Some(encoded) = encoded {
                latency
                    .merge_encoded(encoded)
                    .map_err(|source| ReadError::Histogram(name, source))?;
            }
        }
        Ok(())
    }

    fn read_counters(&self, report: &mut LoadReport) -> Result<(), ReadError> {
        report.elapsed = duration(self.elapsed, "elapsed")?;
        for (counter, count) in [
            (&mut report.sent, self.sent),
            (&mut report.answered, self.answered),
            (&mut report.mismatched, self.mismatched),
            (&mut report.timeouts, self.timeouts),
            (&mut report.failed, self.failed),
            (&mut report.unsent, self.unsent),
            (&mut report.late_sends, self.late_sends),
            (&mut report.reconnects, self.reconnects),
            (&mut report.given_up, self.given_up),
            (&mut report.lost, self.lost),
            (&mut report.duplicates, self.duplicates),
            (&mut report.late_replies, self.late_replies),
            (&mut report.receive_drops, self.receive_drops),
            (&mut report.out_of_order, self.out_of_order),
        ] {
            *counter = limited(count)?;
        }
        report.mismatches = named(&self.mismatches, &Mismatch::ALL, Mismatch::name)?;
        report.sender_cpu = positive(self.sender_cpu, "sender_cpu")?;
        report.sender_slept = self.merge.sender_slept;
        if report.due() == self.due {
            Ok(())
        } else {
            Err(ReadError::Invalid("due"))
        }
    }

    fn into_summary(self, mut report: LoadReport) -> Result<Summary, ReadError> {
        let start = parse_start(self.start.as_deref())?;
        let buckets = self.merge.timeline.buckets.into_iter();
        let buckets: Result<Vec<_>, _> = buckets.map(BucketData::into_bucket).collect();
        let width = duration(self.merge.timeline.width, "the width of the timeline")?;
        report.timeline = Timeline::from_buckets(start, width, buckets?)
            .ok_or(ReadError::Invalid("the timeline"))?;
        let errors = named(&self.errors, &Phase::ALL, Phase::name)?;
        let mut first_errors = self.merge.first_errors;
        let errors = errors.into_iter().map(|(phase, count)| {
            let first = first_errors.remove(phase.name()).unwrap_or_default();
            (phase, PhaseErrors { count, first })
        });
        let requested = self.rate_requested;
        let mut summary = Summary {
            runs: self.merge.runs,
            addresses: self.address.split(", ").map(str::to_owned).collect(),
            parameters: String::new(),
            connections: limited(self.connections)?,
            in_flight: limited(self.in_flight)?,
            size: self.size.map(limited).transpose()?,
            bytes_rate: positive(self.bytes_rate, "bytes_rate")?,
            rate_requested: requested
                .map(|rate| positive(rate, "rate_requested"))
                .transpose()?,
            rate_sum: positive(self.merge.rate_sum, "rate_sum")?,
            errors: errors.collect(),
            report,
        };
        summary.parameters = summary.merged_parameters();
        Ok(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;
    use myapp::echo::LoadConfig;
    use myapp::internals::interval_log::{Interval, IntervalLogWriter};
    use myapp::measure::latency::LatencyHistogram;
    use myapp::measure::percentile::PercentileList;

    use super::super::json;

    const MICRO: Duration = Duration::from_micros(1);

    /// A message of a run, with its end since the Unix epoch.
    #[derive(Debug, Clone, Copy)]
    struct Sample {
        at: Duration,
        response: Duration,
        /// `None` without a reply.
        service: Option<Duration>,
    }

    /// Start, length and messages of a run.
    struct Run {
        start: Duration,
        elapsed: Duration,
        samples: Vec<Sample>,
    }

    fn random_run(random: &mut Rng) -> Run {
        let start = Duration::from_nanos(1_764_000_000_000_000_000 + random.u64(..1 << 36));
        let elapsed = random.u32(1..1 << 24) * MICRO;
        let count = random.usize(..2000);
        let samples = (0..count).map(|_| {
            let shift = random.u32(0..40);
            let response = Duration::from_nanos(random.u64(..) >> (24 + shift));
            Sample {
                at: start + elapsed.mul_f64(random.f64()),
                response,
                service: (random.u8(..) > 20).then(|| response.mul_f64(random.f64())),
            }
        });
        let samples = samples.collect();
        Run {
            start,
            elapsed,
            samples,
        }
    }

    /// Returns the report of a run.
    fn summary(run: &Run) -> Summary {
        let mut report = LoadReport::default();
        report.timeline.set_start(run.start);
        report.elapsed = run.elapsed;
        for sample in &run.samples {
            report.sent += 1;
            report.response.record(sample.response);
            let bucket = report.timeline.at(sample.at - run.start);
            if let Some(service) = sample.service {
                report.answered += 1;
                report.service.record(service);
                bucket.answered(sample.response);
            } else {
                report.timeouts += 1;
                bucket.unanswered(sample.response);
            }
        }
        report.connect.record(run.elapsed / 7);
        Summary::of_run(&LoadConfig::default(), report)
    }

    /// Returns the interval log of a run.
    fn log(run: &Run, summary: &Summary) -> Vec<u8> {
        let mut seconds = BTreeMap::<u64, [LatencyHistogram; 2]>::new();
        for sample in &run.samples {
            let [response, service] = seconds.entry(sample.at.as_secs()).or_default();
            response.record(sample.response);
            if let Some(time) = sample.service {
                service.record(time);
            }
        }
        let mut writer = IntervalLogWriter::new(Vec::new());
        for (second, [response, service]) in seconds {
            let interval = Interval {
                start: Duration::from_secs(second).max(run.start),
                length: Duration::from_secs(1),
                response,
                service,
            };
            writer.write(&interval).unwrap();
        }
        writer.finish(&json::without_times(summary)).unwrap()
    }

    fn read_one(content: &[u8]) -> Summary {
        let mut summaries = read_file(content);
        let summary = summaries.next().unwrap().unwrap();
        assert!(summaries.next().is_none());
        summary
    }

    #[test]
    fn merged_runs_equal_one_run_of_all_samples() {
        let seed = fastrand::u64(..);
        let mut random = Rng::with_seed(seed);
        for round in 0..20 {
            let case = format!("seed {seed}, round {round}");
            let runs = [(); 4].map(|()| random_run(&mut random));
            let start = runs.iter().map(|run| run.start).min().unwrap();
            let end = runs.iter().map(|run| run.start + run.elapsed).max();
            let samples = runs.iter().flat_map(|run| run.samples.iter().copied());
            let whole = summary(&Run {
                start,
                elapsed: end.unwrap() - start,
                samples: samples.collect(),
            });
            let files = runs.iter().map(|run| {
                let summary = summary(run);
                if random.bool() {
                    log(run, &summary)
                } else {
                    json::load(&summary, &PercentileList::default()).into_bytes()
                }
            });
            let mut merged = files
                .map(|file| read_one(&file))
                .reduce(|mut sum, next| {
                    sum.merge(next);
                    sum
                })
                .unwrap();
            let report = &mut merged.report;
            assert_eq!(report.response, whole.report.response, "{case}");
            assert_eq!(report.service, whole.report.service, "{case}");
            assert_eq!(report.connect.count(), 4, "{case}");
            let counts = |report: &LoadReport| [report.sent, report.answered, report.timeouts];
            assert_eq!(counts(report), counts(&whole.report), "{case}");
            assert_eq!(report.elapsed, whole.report.elapsed, "{case}");
            // A run without messages at its end has fewer and narrower buckets.
            while report.timeline.width() < whole.report.timeline.width() {
                report.timeline.coarsen();
            }
            assert!(report.timeline == whole.report.timeline, "{case}");
            assert_eq!(merged.connections, 4);
            assert_eq!(merged.runs.len(), 4);
        }
    }

    #[test]
    fn merging_a_merged_report_keeps_all_data() {
        let mut random = Rng::new();
        let [one, other, third] = [(); 3].map(|()| summary(&random_run(&mut random)));
        let texts = [&one, &other, &third].map(|one| json::load(one, &PercentileList::default()));
        let all = |texts: &[&str]| {
            let summaries = texts.iter().map(|text| read_one(text.as_bytes()));
            let merged = summaries.reduce(|mut sum, next| {
                sum.merge(next);
                sum
            });
            json::load(&merged.unwrap(), &PercentileList::default())
        };
        let at_once = all(&[&texts[0], &texts[1], &texts[2]]);
        let in_steps = all(&[&all(&[&texts[0], &texts[1]]), &texts[2]]);
        let fields = |text: &str| {
            let mut value: Value = serde_json::from_str(text).unwrap();
            // Sums of floating-point numbers in another order.
            value["bytes_rate"].take();
            value["merge"]["rate_sum"].take();
            value
        };
        assert_eq!(fields(&at_once), fields(&in_steps));
    }

    #[test]
    fn damaged_report_is_an_error() {
        let run = random_run(&mut Rng::with_seed(1));
        let text = json::load(&summary(&run), &PercentileList::default());
        let valid: Value = serde_json::from_str(&text).unwrap();
        for (pointer, value, message) in [
            (
                "/kind",
                "ping".into(),
                "the report of a ping; only loads can be merged",
            ),
            ("/kind", "other".into(), "not a report of 'myapp echo'"),
            (
                "/merge",
                Value::Null,
                "a report without data for merging, of an older version",
            ),
            (
                "/merge/version",
                2.into(),
                "format 2 of another version; this version reads format 1",
            ),
            ("/merge/response", "HISTF".into(), "damaged response times"),
            (
                "/merge/timeline/width",
                0.3.into(),
                "damaged: the timeline is invalid",
            ),
            ("/elapsed", (-1).into(), "damaged: elapsed is invalid"),
            ("/elapsed", 1e300.into(), "damaged: elapsed is invalid"),
            ("/start", "yesterday".into(), "damaged: start is invalid"),
            (
                "/start",
                "0001-01-01T00:00:00Z".into(),
                "damaged: start is invalid",
            ),
            ("/due", 1.into(), "damaged: due is invalid"),
            ("/lost", u64::MAX.into(), "damaged: a counter is invalid"),
            ("/lost", (-1).into(), "incomplete or damaged"),
            ("/sender_cpu", (-1).into(), "damaged: sender_cpu is invalid"),
        ] {
            let mut report = valid.clone();
            *report.pointer_mut(pointer).unwrap() = value;
            let error = read(report, LoadReport::default()).unwrap_err();
            assert_eq!(error.to_string(), message, "{pointer}");
        }
        let mut report = valid;
        report["merge"]["service"] = Value::Null;
        let error = read(report, LoadReport::default()).unwrap_err().to_string();
        assert!(error.contains(" and 0 service times of "), "{error}");
        for end in (1..text.len() - 1).step_by(97) {
            let error = read_file(&text.as_bytes()[..end]).last().unwrap();
            let error = error.unwrap_err().to_string();
            assert_eq!(error, "incomplete or damaged", "{end}");
        }
    }
}
