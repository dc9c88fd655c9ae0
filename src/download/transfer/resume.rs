//! How a file of which a part is here already is asked for, and what an answer then means
//! (RFC 9110 sections 13.1.5, 14.2, 15.3.7 and 15.5.17).
//!
//! The aim is that bytes of two versions are never put together: a part goes on only where the
//! server proves that it still has the same file. Wherever it does not, the file is fetched anew
//! from its start; nothing fails because of it.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::download::store::content_disposition::file_name;
use crate::download::transfer::content_range::ContentRange;
use crate::download::transfer::retry::seconds;

/// Where a server tells nothing by which a version is known, so many bytes at the end of what is
/// here are asked for once more and compared.
pub(crate) const OVERLAP: u64 = 32 * 1024;

/// A date proves a version only if it was this old when it was told, in seconds: within the
/// resolution of a date there could be two.
const SETTLED: u64 = 60;

/// What the first answer told about the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) total: Option<u64>,
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
    pub(crate) date: Option<String>,
    /// The `Content-Encoding`, if the bytes are encoded.
    pub(crate) encoding: Option<String>,
    /// The name in `Content-Disposition`.
    pub(crate) name: Option<String>,
}

/// What of an answer's head counts here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The length of this body.
    pub(crate) length: Option<u64>,
    pub(crate) known: Known,
    pub(crate) range: Option<ContentRange>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The file from its start.
    Whole,
    /// The rest from a byte on, with the `If-Range` that makes it the whole file should that
    /// have changed.
    Rest { from: u64, if_range: Option<String> },
}

/// What an answer means for the part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// The body is the file from its start; what is here belongs to no file any more.
    Begin { changed: bool },
    /// The body is the same file from its start: what is here stays good.
    Overtake,
    /// The body, at most `count` bytes of it, is what comes from where it was asked for.
    Append { count: u64, total: Option<u64> },
    /// There is nothing more to come.
    Finished,
    /// The same is to be asked once more, without a condition.
    AskPlainly,
    /// The answer cannot be used: the file is to be asked for from its start.
    StartOver(Mismatch),
    /// An error, or no answer to the question.
    Refused,
}

/// Why an answer does not continue a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("the answer does not tell which bytes it holds")]
    NoRange,
    #[error("the answer begins at another byte")]
    Start,
    #[error("the file has another length")]
    Total,
    #[error("the answer holds other bytes than it tells")]
    Length,
    #[error("the file has another ETag")]
    Etag,
    #[error("the file is of another date")]
    Date,
    #[error("the file is encoded in another way")]
    Encoding,
    #[error("nothing is left to be sent, and what is here is not the file")]
    Surplus,
    #[error("what is here differs from what the server has")]
    Overlap,
}

impl Known {
    /// What is known of the bytes once they are unpacked: nothing that would prove to a server
    /// that they are its file, for it has others.
    pub(crate) fn decoded(self) -> Self {
        let Self {
            name,
            last_modified,
            ..
        } = self;
        Self {
            name,
            last_modified,
            ..Self::default()
        }
    }

    /// What is known of the file wherever it comes from: a strong ETag, which promises the same
    /// bytes, but no date. With a checksum (`is_checked`) the length does, and an ETag of another
    /// server is only in the way; `None` where nothing is proven.
    pub(crate) fn elsewhere(self, is_checked: bool) -> Option<Self> {
        if is_checked && self.total.is_some() {
            return Some(Self {
                etag: None,
                date: None,
                ..self
            });
        }
        self.etag.as_deref().is_some_and(is_strong).then_some(self)
    }

    /// When the file changed last.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        httpdate::parse_http_date(self.last_modified.as_deref()?).ok()
    }

    /// What proves the version of the file to its server. A weak ETag does not: it may stay the
    /// same when bytes change (RFC 9110 section 8.8.1).
    pub(crate) fn condition(&self) -> Option<&str> {
        match (&self.etag, &self.last_modified) {
            (Some(etag), _) => Some(etag.as_str()).filter(|etag| is_strong(etag)),
            (None, Some(modified)) => {
                let (then, told) = (seconds(modified)?, seconds(self.date.as_deref()?)?);
                (told.checked_sub(then)? >= SETTLED).then_some(modified)
            }
            (None, None) => None,
        }
    }
}

impl Answer {
    /// Takes what counts from an answer's head.
    pub(crate) fn new<'a>(
        status: u16,
        length: Option<u64>,
        field: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Self {
        // What is no text could not be sent back as it came.
        let text = |name| Some(std::str::from_utf8(field(name)?).ok()?.to_owned());
        let encoding = text("content-encoding").map(|coding| coding.to_ascii_lowercase());
        let known = Known {
            total: length,
            etag: text("etag").filter(|etag| !etag.is_empty()),
            last_modified: text("last-modified"),
            date: text("date"),
            name: field("content-disposition").and_then(file_name),
            encoding: encoding.filter(|coding| !matches!(coding.as_str(), "" | "identity")),
        };
        // Several parts in one answer have their ranges inside the body (RFC 9110 section 14.6).
        let is_multipart = field("content-type").is_some_and(|kind| {
            kind.get(..10)
                .is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
        });
        let range = field("content-range").filter(|_| !is_multipart);
        Self {
            status,
            length,
            known,
            range: range.and_then(ContentRange::parse),
        }
    }
}

/// What to ask for, with `have` bytes here that came from what is `known`. `in_run`: they came in
/// this run, so it is at least the same server that answered a moment ago.
pub(crate) fn ask(known: Option<&Known>, have: u64, in_run: bool) -> Ask {
    let Some(known) = known.filter(|_| have > 0) else {
        return Ask::Whole;
    };
    match known.condition() {
        Some(condition) => Ask::Rest {
            from: have,
            if_range: Some(condition.to_owned()),
        },
        None if in_run && have > OVERLAP => Ask::Rest {
            from: have - OVERLAP,
            if_range: None,
        },
        None => Ask::Whole,
    }
}

/// What `answer` to `ask` means, where `have` bytes of what is `known` are here.
pub(crate) fn judge(known: Option<&Known>, have: u64, ask: &Ask, answer: &Answer) -> Action {
    let (Ask::Rest { from, if_range }, Some(known)) = (ask, known) else {
        return match answer.status {
            // A part that was not asked for would be taken for the whole.
            200..=205 | 207..=299 => Action::Begin { changed: false },
            _ => Action::Refused,
        };
    };
    match answer.status {
        206 => match continues(known, *from, answer) {
            Ok((count, total)) => Action::Append { count, total },
            Err(mismatch) => Action::StartOver(mismatch),
        },
        200..300 => whole(known, if_range.is_some(), &answer.known),
        416 => nothing_left(known, have, answer),
        _ => Action::Refused,
    }
}

/// Checks a 206; tells how many bytes it holds, and the length of the whole file.
fn continues(known: &Known, from: u64, answer: &Answer) -> Result<(u64, Option<u64>), Mismatch> {
    let Some(ContentRange::Part { first, last, total }) = answer.range else {
        return Err(Mismatch::NoRange);
    };
    let count = last - first + 1;
    if first != from {
        return Err(Mismatch::Start);
    }
    if let Some(whole) = known.total
        && (total.is_some_and(|total| total != whole) || last >= whole)
    {
        return Err(Mismatch::Total);
    }
    if answer.length.is_some_and(|length| length != count) {
        return Err(Mismatch::Length);
    }
    if known.etag.is_some() && known.etag != answer.known.etag {
        return Err(Mismatch::Etag);
    }
    // Many servers do not look at If-Range; a 206 need not tell the date (RFC 9110 section 15.3.7).
    let is_certain = known.etag.as_deref().is_some_and(is_strong);
    let dates = known
        .last_modified
        .as_ref()
        .zip(answer.known.last_modified.as_ref());
    if !is_certain && dates.is_some_and(|(before, now)| before != now) {
        return Err(Mismatch::Date);
    }
    if known.encoding != answer.known.encoding {
        return Err(Mismatch::Encoding);
    }
    Ok((count, known.total.or(total)))
}

/// What the whole file means where its rest was asked for.
fn whole(known: &Known, was_conditional: bool, answer: &Known) -> Action {
    if known.etag != answer.etag
        || known.etag.is_none() && known.last_modified != answer.last_modified
    {
        return Action::Begin { changed: true };
    }
    match &known.etag {
        // Some servers take their own ETag for another's in If-Range, and only there.
        Some(etag) if is_strong(etag) && was_conditional => Action::AskPlainly,
        Some(etag) if is_strong(etag) && known.encoding == answer.encoding => Action::Overtake,
        _ => Action::Begin { changed: false },
    }
}

/// What it means that no byte is left from where it was asked for.
fn nothing_left(known: &Known, have: u64, answer: &Answer) -> Action {
    let is_same = match &answer.known.etag {
        Some(etag) => known.etag.as_ref() == Some(etag),
        None => known.total == Some(have),
    };
    match answer.range {
        Some(ContentRange::None { total }) if total == have && is_same => Action::Finished,
        _ => Action::StartOver(Mismatch::Surplus),
    }
}

/// Whether an ETag promises the same bytes (RFC 9110 section 8.8.3).
pub(crate) fn is_strong(etag: &str) -> bool {
    etag.len() >= 2 && etag.starts_with('"') && etag.ends_with('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "Sun, 06 Nov 1994 08:00:00 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:01:00 GMT";

    fn answer(status: u16, fields: &[(&str, &'static str)]) -> Answer {
        let field = |name: &str| {
            let found = fields.iter().find(|(field, _)| *field == name);
            found.map(|(_, value)| value.as_bytes())
        };
        let length = field("content-length")
            .map(|length| std::str::from_utf8(length).unwrap().parse().unwrap());
        Answer::new(status, length, field)
    }

    fn known(fields: &[(&str, &'static str)]) -> Known {
        answer(200, fields).known
    }

    /// A file of 100 bytes with the ETag `"a"`, of which 40 bytes are here.
    #[track_caller]
    fn means(status: u16, fields: &[(&str, &'static str)], action: Action) {
        let known = known(&[("content-length", "100"), ("etag", "\"a\"")]);
        let ask = ask(Some(&known), 40, false);
        assert_eq!(
            ask,
            Ask::Rest {
                from: 40,
                if_range: Some("\"a\"".to_owned())
            }
        );
        let answer = answer(status, fields);
        assert_eq!(
            judge(Some(&known), 40, &ask, &answer),
            action,
            "{status} {fields:?}"
        );
    }

    #[test]
    fn a_condition_is_a_strong_etag_or_a_settled_date() {
        for (fields, condition) in [
            (&[("etag", "\"a\"")][..], Some("\"a\"")),
            (&[("etag", "\"\"")], Some("\"\"")),
            (&[("etag", "W/\"a\"")], None),
            (&[("etag", "a")], None),
            (&[("etag", "\"")], None),
            (&[("last-modified", OLD), ("date", LATER)], Some(OLD)),
            (
                &[
                    ("last-modified", OLD),
                    ("date", "Sun, 06 Nov 1994 08:00:59 GMT"),
                ],
                None,
            ),
            (&[("last-modified", LATER), ("date", OLD)], None),
            (&[("last-modified", OLD)], None),
            (&[("last-modified", "yesterday"), ("date", LATER)], None),
            (
                &[("etag", "W/\"a\""), ("last-modified", OLD), ("date", LATER)],
                None,
            ),
            (&[], None),
        ] {
            assert_eq!(known(fields).condition(), condition, "{fields:?}");
        }
    }

    #[test]
    fn without_a_condition_a_part_goes_on_within_a_run_alone() {
        let known = known(&[]);
        assert_eq!(ask(Some(&known), OVERLAP, true), Ask::Whole);
        let rest = Ask::Rest {
            from: 7,
            if_range: None,
        };
        assert_eq!(ask(Some(&known), OVERLAP + 7, true), rest);
        assert_eq!(ask(Some(&known), OVERLAP + 7, false), Ask::Whole);
        assert_eq!(ask(Some(&known), 0, true), Ask::Whole);
        assert_eq!(ask(None, 1, true), Ask::Whole);
    }

    #[test]
    fn a_206_counts_only_if_everything_fits() {
        let etag = ("etag", "\"a\"");
        let append = |count| Action::Append {
            count,
            total: Some(100),
        };
        let mismatch = Action::StartOver;
        for (fields, action) in [
            (
                &[("content-range", "bytes 40-99/100"), etag][..],
                append(60),
            ),
            (&[("content-range", "bytes 40-99/*"), etag], append(60)),
            (&[("content-range", "bytes 40-49/100"), etag], append(10)),
            (
                &[
                    ("content-range", "bytes 40-99/100"),
                    etag,
                    ("content-length", "60"),
                ],
                append(60),
            ),
            (
                &[
                    ("content-range", "bytes 40-99/100"),
                    etag,
                    ("content-length", "61"),
                ],
                mismatch(Mismatch::Length),
            ),
            (
                &[("content-range", "bytes 39-99/100"), etag],
                mismatch(Mismatch::Start),
            ),
            (
                &[("content-range", "bytes 0-99/100"), etag],
                mismatch(Mismatch::Start),
            ),
            (
                &[("content-range", "bytes 40-99/101"), etag],
                mismatch(Mismatch::Total),
            ),
            (
                &[("content-range", "bytes 40-100/*"), etag],
                mismatch(Mismatch::Total),
            ),
            (
                &[("content-range", "lines 40-99/100"), etag],
                mismatch(Mismatch::NoRange),
            ),
            (
                &[("content-range", "bytes */100"), etag],
                mismatch(Mismatch::NoRange),
            ),
            (&[etag], mismatch(Mismatch::NoRange)),
            (
                &[
                    ("content-range", "bytes 40-99/100"),
                    etag,
                    ("content-type", "Multipart/Byteranges; boundary=x"),
                ],
                mismatch(Mismatch::NoRange),
            ),
            (
                &[("content-range", "bytes 40-99/100"), ("etag", "\"b\"")],
                mismatch(Mismatch::Etag),
            ),
            (
                &[("content-range", "bytes 40-99/100")],
                mismatch(Mismatch::Etag),
            ),
            (
                &[
                    ("content-range", "bytes 40-99/100"),
                    etag,
                    ("content-encoding", "gzip"),
                ],
                mismatch(Mismatch::Encoding),
            ),
            (
                &[
                    ("content-range", "bytes 40-99/100"),
                    etag,
                    ("content-encoding", "Identity"),
                ],
                append(60),
            ),
        ] {
            means(206, fields, action);
        }
    }

    /// Once such a part was put behind that of the older version.
    #[test]
    fn a_206_of_another_date_does_not_go_on_though_the_server_ignores_if_range() {
        let range = ("content-range", "bytes 40-99/100");
        let length = ("content-length", "100");
        let (append, over) = (
            Action::Append {
                count: 60,
                total: Some(100),
            },
            Action::StartOver(Mismatch::Date),
        );
        for (validators, now, action) in [
            (
                &[("last-modified", OLD), ("date", LATER)][..],
                LATER,
                over.clone(),
            ),
            (&[("last-modified", OLD), ("etag", "W/\"a\"")], LATER, over),
            (
                &[("last-modified", OLD), ("date", LATER)],
                OLD,
                append.clone(),
            ),
            (
                &[("last-modified", OLD), ("etag", "\"a\"")],
                LATER,
                append.clone(),
            ),
            (&[], LATER, append),
        ] {
            let known = known(&[&[length], validators].concat());
            let ask = Ask::Rest {
                from: 40,
                if_range: None,
            };
            let etag = validators
                .iter()
                .filter(|(name, _)| *name == "etag")
                .copied();
            let fields: Vec<_> = etag.chain([range, ("last-modified", now)]).collect();
            assert_eq!(
                judge(Some(&known), 40, &ask, &answer(206, &fields)),
                action,
                "{fields:?}"
            );
        }
    }

    #[test]
    fn a_200_to_a_range_is_another_file_or_is_asked_about_once_more() {
        means(200, &[("etag", "\"b\"")], Action::Begin { changed: true });
        means(200, &[], Action::Begin { changed: true });
        means(200, &[("etag", "\"a\"")], Action::AskPlainly);
        let known = known(&[("etag", "\"a\"")]);
        let again = Ask::Rest {
            from: 40,
            if_range: None,
        };
        let same = answer(200, &[("etag", "\"a\"")]);
        assert_eq!(judge(Some(&known), 40, &again, &same), Action::Overtake);
    }

    #[test]
    fn a_200_to_a_range_with_a_date_begins_again() {
        let known = known(&[("last-modified", OLD), ("date", LATER)]);
        let ask = ask(Some(&known), 40, false);
        for (modified, changed) in [(OLD, false), (LATER, true)] {
            let answer = answer(200, &[("last-modified", modified)]);
            assert_eq!(
                judge(Some(&known), 40, &ask, &answer),
                Action::Begin { changed }
            );
        }
    }

    #[test]
    fn a_416_is_the_end_only_of_the_same_file_of_that_length() {
        let known = known(&[("content-length", "40"), ("etag", "\"a\"")]);
        let unknown = Known {
            total: None,
            ..known.clone()
        };
        let ask = Ask::Rest {
            from: 40,
            if_range: None,
        };
        let over = Action::StartOver(Mismatch::Surplus);
        for (known, fields, action) in [
            (
                &known,
                &[("content-range", "bytes */40")][..],
                Action::Finished,
            ),
            (
                &known,
                &[("content-range", "bytes */40"), ("etag", "\"a\"")],
                Action::Finished,
            ),
            (
                &unknown,
                &[("content-range", "bytes */40"), ("etag", "\"a\"")],
                Action::Finished,
            ),
            (&unknown, &[("content-range", "bytes */40")], over.clone()),
            (
                &known,
                &[("content-range", "bytes */40"), ("etag", "\"b\"")],
                over.clone(),
            ),
            (&known, &[("content-range", "bytes */39")], over.clone()),
            (&known, &[("content-range", "bytes */41")], over.clone()),
            (&known, &[], over.clone()),
        ] {
            assert_eq!(
                judge(Some(known), 40, &ask, &answer(416, fields)),
                action,
                "{fields:?}"
            );
        }
    }

    #[test]
    fn without_a_part_only_a_whole_file_is_one() {
        let begin = Action::Begin { changed: false };
        for (status, action) in [
            (200, begin.clone()),
            (203, begin),
            (206, Action::Refused),
            (304, Action::Refused),
            (404, Action::Refused),
            (416, Action::Refused),
        ] {
            assert_eq!(
                judge(None, 0, &Ask::Whole, &answer(status, &[])),
                action,
                "{status}"
            );
        }
        means(404, &[], Action::Refused);
        means(304, &[], Action::Refused);
    }

    /// A server that is honest about its bytes, and moody about everything else.
    struct Moody {
        random: fastrand::Rng,
        version: usize,
        lengths: Vec<u64>,
    }

    impl Moody {
        /// The head, the version and where in it the body begins; the body goes to the end told.
        fn answer(&mut self, ask: &Ask) -> (Answer, usize, u64) {
            if self.version + 1 < self.lengths.len() && self.random.u8(..4) == 0 {
                self.version += 1;
            }
            let (version, total) = (self.version, self.lengths[self.version]);
            let etag = format!("\"{version}\"");
            let known = Known {
                total: Some(total),
                etag: self.random.u8(..8).ne(&0).then_some(etag.clone()),
                ..Known::default()
            };
            let whole = Answer {
                status: 200,
                length: Some(total),
                known,
                range: None,
            };
            let Ask::Rest { from, if_range } = ask else {
                return (whole, version, 0);
            };
            let holds = if_range.as_ref().is_none_or(|condition| *condition == etag);
            if !holds || self.random.u8(..4) == 0 {
                return (whole, version, 0);
            }
            if *from >= total {
                let range = Some(ContentRange::None { total });
                return (
                    Answer {
                        status: 416,
                        length: None,
                        range,
                        ..whole
                    },
                    version,
                    0,
                );
            }
            let first = if self.random.u8(..4) == 0 {
                self.random.u64(..total)
            } else {
                *from
            };
            let last = self.random.u64(first..total);
            let told = self.random.bool().then_some(total);
            let range = Some(ContentRange::Part {
                first,
                last,
                total: told,
            });
            (
                Answer {
                    status: 206,
                    length: None,
                    range,
                    ..whole
                },
                version,
                first,
            )
        }
    }

    /// Fetches a file with cuts at any byte; every byte is written as `(version, place)`.
    fn fetch(seed: u64) -> Option<(Vec<(usize, u64)>, Known)> {
        let mut random = fastrand::Rng::with_seed(seed);
        let lengths = (0..3).map(|_| random.u64(1..60)).collect();
        let mut server = Moody {
            random: random.fork(),
            version: 0,
            lengths,
        };
        let (mut part, mut known) = (Vec::new(), None::<Known>);
        let mut question = None;
        for _ in 0..200 {
            let have = part.len() as u64;
            let asked = question
                .take()
                .unwrap_or_else(|| ask(known.as_ref(), have, false));
            let (answer, version, first) = server.answer(&asked);
            let mut at = 0;
            let end = match judge(known.as_ref(), have, &asked, &answer) {
                Action::Begin { .. } => {
                    part.clear();
                    known = Some(answer.known.clone());
                    answer.known.total
                }
                Action::Overtake => answer.known.total,
                Action::Append { count, total } => {
                    at = have;
                    known.as_mut().unwrap().total = total;
                    Some(have + count)
                }
                Action::Finished => return Some((part, known?)),
                Action::AskPlainly => {
                    question = Some(Ask::Rest {
                        from: have,
                        if_range: None,
                    });
                    continue;
                }
                Action::StartOver(_) => {
                    question = Some(Ask::Whole);
                    continue;
                }
                Action::Refused => continue,
            };
            let end = end.unwrap();
            let until = if random.bool() {
                end
            } else {
                random.u64(at..=end)
            };
            for place in at..until {
                let byte = (version, place - at + first);
                match part.get_mut(place as usize) {
                    Some(old) => *old = byte,
                    None => part.push(byte),
                }
            }
            if until == end && known.as_ref()?.total == Some(end) {
                return Some((part, known?));
            }
        }
        None
    }

    #[test]
    fn whatever_the_server_does_two_versions_never_become_one_file() {
        let seed = fastrand::u64(..);
        let mut finished = 0;
        for seed in (0..20_000).map(|round| seed.wrapping_add(round)) {
            let Some((bytes, known)) = fetch(seed) else {
                continue;
            };
            finished += 1;
            let version = bytes[0].0;
            let good = bytes
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == (version, at as u64));
            assert!(
                good && known.total == Some(bytes.len() as u64),
                "seed {seed}: {bytes:?}"
            );
        }
        assert!(finished > 10_000, "only {finished} finished");
    }
}
