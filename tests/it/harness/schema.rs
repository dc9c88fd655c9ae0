//! Checks JSON against a schema, as far as the schemas here use the language.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// Reads one JSON document and fails unless it is as `schemas/NAME.json` says.
#[track_caller]
pub fn json(name: &str, text: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schemas/{name}.json"));
    let schema = fs::read_to_string(path).expect("read the schema");
    let schema: Value = serde_json::from_str(&schema).expect("parse the schema");
    let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    check(&schema, &schema, &value, "");
    value
}

#[track_caller]
fn check(root: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name
            .strip_prefix('#')
            .expect("a reference inside the schema");
        return check(root, root.pointer(pointer).expect("its target"), value, at);
    }
    if let Some(kinds) = schema["oneOf"].as_array() {
        let names = |kind: &Value, name| kind["properties"][name]["const"] == value[name];
        let is_meant = |kind: &&Value| names(kind, "event") && names(kind, "kind");
        let kind = kinds.iter().find(is_meant);
        return check(
            root,
            kind.unwrap_or_else(|| panic!("{at}: no such kind: {value}")),
            value,
            at,
        );
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    assert!(
        types.iter().any(|expected| is(expected, value)),
        "{at}: {value} is none of {types:?}"
    );
    match value {
        Value::Object(fields) => check_fields(root, schema, fields, at),
        Value::Array(items) => {
            items
                .iter()
                .for_each(|item| check(root, &schema["items"], item, at));
        }
        _ => {}
    }
}

#[track_caller]
fn check_fields(root: &Value, schema: &Value, fields: &Map<String, Value>, at: &str) {
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(
            fields.contains_key(name.as_str().unwrap()),
            "{at}: {name} is missing"
        );
    }
    let others = &schema["additionalProperties"];
    assert!(
        *others == Value::Bool(false) || others.is_object(),
        "{at}: a schema here lists all fields, or says what others are"
    );
    for (name, value) in fields {
        let schema = schema["properties"].get(name).unwrap_or(others);
        assert!(schema.is_object(), "{at}: {name} is not in the schema");
        check(root, schema, value, &format!("{at}/{name}"));
    }
}

fn is(expected: &Value, value: &Value) -> bool {
    match expected.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other}: a type that is not known here"),
    }
}
