//! Faults as JSON: durations in seconds, sizes in bytes, rates per second.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::serve::config::{FaultInjection, LossBurst};

/// Returns all fields; `null` for an optional one without a value.
pub(super) fn to_json(faults: &FaultInjection) -> Map<String, Value> {
    let seconds = |duration: Duration| duration.as_secs_f64();
    let loss_burst = faults.loss_burst.map(|burst| {
        json!({
            "begin": burst.begin,
            "end": burst.end,
            "loss_in_burst": burst.loss_in_burst,
            "loss_otherwise": burst.loss_otherwise,
        })
    });
    let fields = [
        ("delay", json!(seconds(faults.delay))),
        ("jitter", json!(seconds(faults.jitter))),
        ("drop_rate", json!(faults.drop_rate)),
        ("loss_burst", json!(loss_burst)),
        ("corrupt_rate", json!(faults.corrupt_rate)),
        ("duplicate_rate", json!(faults.duplicate_rate)),
        ("reorder_rate", json!(faults.reorder_rate)),
        ("close_rate", json!(faults.close_rate)),
        ("close_after", json!(faults.close_after.map(seconds))),
        ("reset_after", json!(faults.reset_after)),
        ("accept_delay", json!(seconds(faults.accept_delay))),
        ("bandwidth", json!(faults.bandwidth)),
        ("slice", json!(faults.slice)),
        ("seed", json!(faults.seed)),
    ];
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// Sets the fields of `faults` that a JSON object has, and none if one of them is invalid; `null`
/// sets the default (RFC 7396).
pub(super) fn merge(faults: &FaultInjection, object: &[u8]) -> Result<FaultInjection, String> {
    let object: Map<String, Value> =
        serde_json::from_slice(object).map_err(|error| format!("not a JSON object: {error}"))?;
    let mut merged = faults.clone();
    for (name, value) in &object {
        let set = set_field(&mut merged, name, value);
        set.map_err(|expected| format!("{name}: {expected}"))?;
    }
    Ok(merged)
}

type Expected = &'static str;

fn set_field(faults: &mut FaultInjection, name: &str, value: &Value) -> Result<(), Expected> {
    match name {
        "delay" => set(&mut faults.delay, value, seconds),
        "jitter" => set(&mut faults.jitter, value, seconds),
        "drop_rate" => set(&mut faults.drop_rate, value, share),
        "loss_burst" => set(&mut faults.loss_burst, value, some(loss_burst)),
        "corrupt_rate" => set(&mut faults.corrupt_rate, value, share),
        "duplicate_rate" => set(&mut faults.duplicate_rate, value, share),
        "reorder_rate" => set(&mut faults.reorder_rate, value, share),
        "close_rate" => set(&mut faults.close_rate, value, share),
        "close_after" => set(&mut faults.close_after, value, some(seconds)),
        "reset_after" => set(&mut faults.reset_after, value, some(positive)),
        "accept_delay" => set(&mut faults.accept_delay, value, seconds),
        "bandwidth" => set(&mut faults.bandwidth, value, some(positive)),
        "slice" => set(&mut faults.slice, value, some(size)),
        "seed" => set(&mut faults.seed, value, seed),
        _ => Err("no such field"),
    }
}

/// Sets a field to a value, or to its default if that is `null`.
fn set<T: Default>(
    field: &mut T,
    value: &Value,
    parse: impl FnOnce(&Value) -> Result<T, Expected>,
) -> Result<(), Expected> {
    *field = match value {
        Value::Null => T::default(),
        value => parse(value)?,
    };
    Ok(())
}

/// Returns the parser of an optional field.
fn some<T>(
    parse: fn(&Value) -> Result<T, Expected>,
) -> impl FnOnce(&Value) -> Result<Option<T>, Expected> {
    move |value| parse(value).map(Some)
}

fn seconds(value: &Value) -> Result<Duration, Expected> {
    let seconds = value.as_f64().map(Duration::try_from_secs_f64);
    seconds
        .and_then(Result::ok)
        .ok_or("not a number of seconds from 0")
}

fn share(value: &Value) -> Result<f64, Expected> {
    let share = value.as_f64();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or("not a share from 0 to 1")
}

fn positive(value: &Value) -> Result<NonZeroU64, Expected> {
    let number = value.as_u64().and_then(NonZeroU64::new);
    number.ok_or("not a whole number above 0")
}

fn size(value: &Value) -> Result<NonZeroUsize, Expected> {
    positive(value)?.try_into().map_err(|_| "too large")
}

fn seed(value: &Value) -> Result<u64, Expected> {
    value.as_u64().ok_or("not a whole number from 0")
}

fn loss_burst(value: &Value) -> Result<LossBurst, Expected> {
    let parse = || {
        let object = value.as_object()?;
        let mut burst = LossBurst::new(share(object.get("begin")?).ok()?);
        for (name, value) in object {
            let field = match name.as_str() {
                "begin" => &mut burst.begin,
                "end" => &mut burst.end,
                "loss_in_burst" => &mut burst.loss_in_burst,
                "loss_otherwise" => &mut burst.loss_otherwise,
                _ => return None,
            };
            *field = share(value).ok()?;
        }
        Some(burst)
    };
    parse().ok_or("not an object of the shares begin, end, loss_in_burst and loss_otherwise")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> FaultInjection {
        FaultInjection {
            delay: Duration::from_millis(1500),
            jitter: Duration::from_millis(250),
            drop_rate: 0.125,
            loss_burst: Some(LossBurst {
                begin: 0.25,
                end: 0.5,
                loss_in_burst: 0.75,
                loss_otherwise: 0.0625,
            }),
            corrupt_rate: 0.25,
            duplicate_rate: 0.375,
            reorder_rate: 0.5,
            close_rate: 0.625,
            close_after: Some(Duration::from_secs(7)),
            reset_after: NonZeroU64::new(u64::MAX),
            accept_delay: Duration::from_secs(3),
            bandwidth: NonZeroU64::new(1000),
            slice: NonZeroUsize::new(5),
            seed: u64::MAX,
        }
    }

    fn bytes(faults: &FaultInjection) -> Vec<u8> {
        serde_json::to_vec(&to_json(faults)).unwrap()
    }

    #[test]
    fn json_and_faults_are_equivalent() {
        for faults in [all(), FaultInjection::default()] {
            for start in [all(), FaultInjection::default()] {
                assert_eq!(merge(&start, &bytes(&faults)), Ok(faults.clone()));
            }
        }
    }

    #[test]
    fn other_fields_stay_and_null_is_the_default() {
        let object = br#"{"delay": 2, "slice": null, "close_rate": null}"#;
        let expected = FaultInjection {
            delay: Duration::from_secs(2),
            slice: None,
            close_rate: 0.0,
            ..all()
        };
        assert_eq!(merge(&all(), object), Ok(expected));
        let burst = merge(&all(), br#"{"loss_burst": {"begin": 0.5}}"#).unwrap();
        assert_eq!(burst.loss_burst, Some(LossBurst::new(0.5)));
    }

    #[test]
    fn invalid_values_name_their_field() {
        let burst = "not an object of the shares begin, end, loss_in_burst and loss_otherwise";
        for (field, value, cause) in [
            ("delay", "-1", "not a number of seconds from 0"),
            ("delay", "1e300", "not a number of seconds from 0"),
            ("jitter", "\"1s\"", "not a number of seconds from 0"),
            ("close_after", "[]", "not a number of seconds from 0"),
            ("accept_delay", "true", "not a number of seconds from 0"),
            ("drop_rate", "1.5", "not a share from 0 to 1"),
            ("corrupt_rate", "\"5%\"", "not a share from 0 to 1"),
            ("duplicate_rate", "-0.1", "not a share from 0 to 1"),
            ("reorder_rate", "{}", "not a share from 0 to 1"),
            ("close_rate", "2", "not a share from 0 to 1"),
            ("reset_after", "0", "not a whole number above 0"),
            ("bandwidth", "1.5", "not a whole number above 0"),
            ("slice", "-1", "not a whole number above 0"),
            ("seed", "-1", "not a whole number from 0"),
            ("loss_burst", "0.1", burst),
            ("loss_burst", "{}", burst),
            ("loss_burst", "{\"begin\": 0.1, \"more\": 0}", burst),
            ("loss_burst", "{\"begin\": 0.1, \"end\": 2}", burst),
            ("drop-rate", "0.1", "no such field"),
        ] {
            let object = format!("{{\"seed\": 1, \"{field}\": {value}}}");
            let error = merge(&all(), object.as_bytes()).unwrap_err();
            assert_eq!(error, format!("{field}: {cause}"));
        }
        for text in ["", "{", "[]", "1", "{\"delay\": 1} x", "\u{ff}"] {
            let error = merge(&all(), text.as_bytes()).unwrap_err();
            assert!(error.starts_with("not a JSON object: "), "{text}: {error}");
        }
    }
}
