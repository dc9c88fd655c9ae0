use super::*;

const OLD: &str = "Sun, 06 Nov 1994 08:00:00 GMT";
const LATER: &str = "Sun, 06 Nov 1994 08:01:00 GMT";

fn response(status: u16, fields: &[(&str, &'static str)]) -> ResponseMeta {
    let field = |name: &str| {
        let found = fields.iter().find(|(field, _)| *field == name);
        found.map(|(_, value)| value.as_bytes())
    };
    let length =
        field("content-length").map(|length| std::str::from_utf8(length).unwrap().parse().unwrap());
    ResponseMeta::new(status, length, field)
}

fn known(fields: &[(&str, &'static str)]) -> Validators {
    response(200, fields).validators
}

/// Asserts the action for a file of 100 bytes with the ETag `"a"`, of which 40 are present.
#[track_caller]
fn assert_classified(status: u16, fields: &[(&str, &'static str)], action: Action) {
    let known = known(&[("content-length", "100"), ("etag", "\"a\"")]);
    let request = plan(Some(&known), 40, ResumeProof::Validator);
    assert_eq!(
        request,
        RangeRequest::From {
            offset: 40,
            if_range: Some("\"a\"".to_owned())
        }
    );
    let response = response(status, fields);
    assert_eq!(
        classify(Some(&known), 40, &request, &response),
        action,
        "{status} {fields:?}"
    );
}

#[test]
fn if_range_is_a_strong_etag_or_an_old_date() {
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
        assert_eq!(known(fields).if_range(), condition, "{fields:?}");
    }
}

#[test]
fn overlap_resumes_only_within_a_run() {
    let known = known(&[]);
    assert_eq!(
        plan(Some(&known), OVERLAP_LEN, ResumeProof::Overlap),
        RangeRequest::Full
    );
    let rest = RangeRequest::From {
        offset: 7,
        if_range: None,
    };
    assert_eq!(
        plan(Some(&known), OVERLAP_LEN + 7, ResumeProof::Overlap),
        rest.clone()
    );
    assert_eq!(
        plan(Some(&known), OVERLAP_LEN + 7, ResumeProof::Validator),
        RangeRequest::Full
    );
    assert_eq!(
        plan(Some(&known), OVERLAP_LEN + 7, ResumeProof::Checksum),
        rest
    );
    assert_eq!(
        plan(Some(&known), 0, ResumeProof::Overlap),
        RangeRequest::Full
    );
    assert_eq!(plan(None, 1, ResumeProof::Overlap), RangeRequest::Full);
}

#[test]
fn weak_etag_needs_a_date_and_a_longer_overlap() {
    let weak = ("etag", "W/\"a\"");
    let length = ("content-length", "100000");
    let settled = [weak, length, ("last-modified", OLD), ("date", LATER)];
    let rest = RangeRequest::From {
        offset: 7,
        if_range: None,
    };
    let have = LONG_OVERLAP_LEN + 7;
    for proof in [ResumeProof::Validator, ResumeProof::Overlap] {
        let known = |fields| plan(Some(&known(fields)), have, proof);
        assert_eq!(known(&settled), rest);
        assert_eq!(known(&settled[..3]), RangeRequest::Full);
        let recent = [weak, ("last-modified", LATER), ("date", LATER)];
        assert_eq!(known(&recent), RangeRequest::Full);
    }
    let known = known(&settled);
    let full = RangeRequest::Full;
    assert_eq!(plan(Some(&known), have - 7, ResumeProof::Validator), full);
    assert_eq!(plan(Some(&known), have, ResumeProof::Condition), full);
    let classified = |fields: &[(&str, &'static str)]| {
        classify(Some(&known), have, &rest, &response(206, fields))
    };
    let range = ("content-range", "bytes 7-99999/100000");
    let date = ("last-modified", OLD);
    let append = Action::Append {
        count: 99_993,
        total: Some(100_000),
    };
    assert_eq!(classified(&[range, weak, date]), append);
    for (fields, mismatch) in [
        ([range, ("etag", "\"a\""), date], Mismatch::Etag),
        ([range, weak, ("last-modified", LATER)], Mismatch::Date),
        ([range, weak, ("x", "no date")], Mismatch::Date),
        (
            [("content-range", "bytes 7-99999/*"), weak, date],
            Mismatch::Total,
        ),
    ] {
        assert_eq!(classified(&fields), Action::Restart(mismatch), "{fields:?}");
    }
}

const ETAG: (&str, &str) = ("etag", "\"a\"");

#[test]
fn partial_response_of_the_same_version_is_appended() {
    for (range, other, count) in [
        ("bytes 40-99/100", None, 60),
        ("bytes 40-99/*", None, 60),
        ("bytes 40-49/100", None, 10),
        ("bytes 40-99/100", Some(("content-length", "60")), 60),
        (
            "bytes 40-99/100",
            Some(("content-encoding", "Identity")),
            60,
        ),
    ] {
        let mut fields = vec![("content-range", range), ETAG];
        fields.extend(other);
        let total = Some(100);
        assert_classified(206, &fields, Action::Append { count, total });
    }
}

#[test]
fn partial_response_must_match_the_file() {
    let range = ("content-range", "bytes 40-99/100");
    let multipart = ("content-type", "Multipart/Byteranges; boundary=x");
    for (fields, mismatch) in [
        (
            &[range, ETAG, ("content-length", "61")][..],
            Mismatch::Length,
        ),
        (&[ETAG], Mismatch::NoRange),
        (&[range, ETAG, multipart], Mismatch::NoRange),
        (&[range, ("etag", "\"b\"")], Mismatch::Etag),
        (&[range], Mismatch::Etag),
        (
            &[range, ETAG, ("content-encoding", "gzip")],
            Mismatch::Encoding,
        ),
    ] {
        assert_classified(206, fields, Action::Restart(mismatch));
    }
    for (range, mismatch) in [
        ("bytes 39-99/100", Mismatch::Start),
        ("bytes 0-99/100", Mismatch::Start),
        ("bytes 40-99/101", Mismatch::Total),
        ("bytes 40-100/*", Mismatch::Total),
        ("lines 40-99/100", Mismatch::NoRange),
        ("bytes */100", Mismatch::NoRange),
    ] {
        let fields = [("content-range", range), ETAG];
        assert_classified(206, &fields, Action::Restart(mismatch));
    }
}

/// Regression: such a part was once appended to one of the older version. The server ignores
/// `If-Range`.
#[test]
fn partial_response_of_another_date_restarts() {
    let range = ("content-range", "bytes 40-99/100");
    let length = ("content-length", "100");
    let append = Action::Append {
        count: 60,
        total: Some(100),
    };
    let over = Action::Restart(Mismatch::Date);
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
        let request = RangeRequest::From {
            offset: 40,
            if_range: None,
        };
        let etag = validators
            .iter()
            .filter(|(name, _)| *name == "etag")
            .copied();
        let fields: Vec<_> = etag.chain([range, ("last-modified", now)]).collect();
        assert_eq!(
            classify(Some(&known), 40, &request, &response(206, &fields)),
            action,
            "{fields:?}"
        );
    }
}

#[test]
fn full_response_replaces_or_retries() {
    assert_classified(200, &[("etag", "\"b\"")], Action::Replace { changed: true });
    assert_classified(200, &[], Action::Replace { changed: true });
    assert_classified(200, &[("etag", "\"a\"")], Action::RetryUnconditional);
    let known = known(&[("etag", "\"a\"")]);
    let again = RangeRequest::From {
        offset: 40,
        if_range: None,
    };
    let same = response(200, &[("etag", "\"a\"")]);
    assert_eq!(classify(Some(&known), 40, &again, &same), Action::Rewind);
}

#[test]
fn full_response_with_a_date_replaces() {
    let known = known(&[("last-modified", OLD), ("date", LATER)]);
    let request = plan(Some(&known), 40, ResumeProof::Validator);
    for (modified, changed) in [(OLD, false), (LATER, true)] {
        let response = response(200, &[("last-modified", modified)]);
        assert_eq!(
            classify(Some(&known), 40, &request, &response),
            Action::Replace { changed }
        );
    }
}

#[test]
fn unsatisfiable_range_completes_only_the_same_file() {
    let known = known(&[("content-length", "40"), ("etag", "\"a\"")]);
    let unknown = Validators {
        total: None,
        ..known.clone()
    };
    let request = RangeRequest::From {
        offset: 40,
        if_range: None,
    };
    let over = Action::Restart(Mismatch::Surplus);
    for (known, fields, action) in [
        (
            &known,
            &[("content-range", "bytes */40")][..],
            Action::Complete,
        ),
        (
            &known,
            &[("content-range", "bytes */40"), ("etag", "\"a\"")],
            Action::Complete,
        ),
        (
            &unknown,
            &[("content-range", "bytes */40"), ("etag", "\"a\"")],
            Action::Complete,
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
            classify(Some(known), 40, &request, &response(416, fields)),
            action,
            "{fields:?}"
        );
    }
}

#[test]
fn full_request_accepts_a_206_of_all_bytes() {
    for (range, length, is_accepted) in [
        ("bytes 0-9/10", "10", true),
        ("bytes 0-9/10", "9", false),
        ("bytes 0-8/10", "9", false),
        ("bytes 1-9/10", "9", false),
        ("bytes 0-9/*", "10", false),
        ("bytes */10", "10", false),
    ] {
        let fields = [("content-range", range), ("content-length", length)];
        let action = classify(None, 0, &RangeRequest::Full, &response(206, &fields));
        let begin = Action::Replace { changed: false };
        let wanted = if is_accepted { begin } else { Action::Reject };
        assert_eq!(action, wanted, "{range} {length}");
    }
}

#[test]
fn full_request_accepts_only_a_complete_file() {
    let begin = Action::Replace { changed: false };
    for (status, action) in [
        (200, begin.clone()),
        (203, begin),
        (202, Action::Reject),
        (204, Action::Reject),
        (205, Action::Reject),
        (206, Action::Reject),
        (304, Action::Reject),
        (404, Action::Reject),
        (416, Action::Reject),
    ] {
        assert_eq!(
            classify(None, 0, &RangeRequest::Full, &response(status, &[])),
            action,
            "{status}"
        );
    }
    for status in [202, 204, 205] {
        assert_classified(status, &[ETAG], Action::Reject);
    }
    assert_classified(404, &[], Action::Reject);
    assert_classified(304, &[], Action::Reject);
}

#[test]
fn media_type_has_no_parameters_and_is_in_lower_case() {
    for (value, found) in [
        ("text/html", Some("text/html")),
        (" Text/HTML ; charset=utf-8", Some("text/html")),
        ("application/vnd.a+zip;q", Some("application/vnd.a+zip")),
        ("text", None),
        ("text/", None),
        ("/html", None),
        ("a b/c", None),
        ("a/b/c", None),
        ("a/\u{1b}", None),
        ("", None),
    ] {
        assert_eq!(media_type(value.as_bytes()).as_deref(), found, "{value:?}");
    }
    assert_eq!(
        media_type(format!("a/{}", "b".repeat(128)).as_bytes()),
        None
    );
}

#[test]
fn partial_response_of_another_media_type_needs_an_equal_etag() {
    let zip = ("content-type", "application/zip");
    let html = ("content-type", "text/html");
    let range = ("content-range", "bytes 40-99/100");
    let request = RangeRequest::From {
        offset: 40,
        if_range: None,
    };
    for (etag, other, is_accepted) in [
        (("etag", "\"a\""), html, true),
        (("etag", "W/\"a\""), html, false),
        (("etag", ""), html, false),
        (("etag", ""), zip, true),
        (("etag", ""), ("x", "y"), true),
    ] {
        let known = known(&[("content-length", "100"), etag, zip]);
        let response = response(206, &[range, etag, other]);
        let action = classify(Some(&known), 40, &request, &response);
        let is_append = matches!(action, Action::Append { .. });
        assert_eq!(is_append, is_accepted, "{etag:?} {other:?} {action:?}");
    }
}
