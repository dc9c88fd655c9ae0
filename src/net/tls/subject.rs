//! Subject of a certificate as text.

use x509_parser::asn1_rs::ToDer as _;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, RelativeDistinguishedName};

/// Formats the subject of a DER certificate as in RFC 4514 section 2, the most specific name first.
/// Returns `None` if the certificate cannot be parsed.
pub(super) fn format_subject(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names: Vec<_> = certificate.subject().iter_rdn().map(format_name).collect();
    names.reverse();
    Some(names.join(","))
}

fn format_name(name: &RelativeDistinguishedName<'_>) -> String {
    let attributes: Vec<_> = name.iter().map(format_attribute).collect();
    attributes.join("+")
}

fn format_attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type();
    let dotted = oid.to_id_string();
    let kind = oid2abbrev(oid, oid_registry()).unwrap_or(&dotted);
    let value = match attribute.as_str() {
        Ok(text) => escape(text),
        Err(_) => hex(&attribute.attr_value().to_der_vec().unwrap_or_default()),
    };
    format!("{kind}={value}")
}

/// Escapes a value (RFC 4514 section 2.4).
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for (at, c) in text.char_indices() {
        let is_first = at == 0;
        let is_last = at + c.len_utf8() == text.len();
        match c {
            '\0' => escaped.push_str("\\00"),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => escaped.extend(['\\', c]),
            ' ' if is_first || is_last => escaped.push_str("\\ "),
            '#' if is_first => escaped.push_str("\\#"),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// Formats the DER encoding of a value that is no string.
fn hex(der: &[u8]) -> String {
    let digits = der.iter().map(|byte| format!("{byte:02x}"));
    format!("#{}", digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    #[track_caller]
    fn assert_subject(names: Vec<(DnType, DnValue)>, expected: &str) {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind, value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(format_subject(certificate.der()).as_deref(), Some(expected));
    }

    fn text(value: &str) -> DnValue {
        DnValue::Utf8String(value.to_owned())
    }

    #[test]
    fn most_specific_name_comes_first() {
        let names = vec![
            (
                DnType::CountryName,
                DnValue::PrintableString("ES".try_into().unwrap()),
            ),
            (DnType::OrganizationName, text("Ejemplo ñ")),
            (DnType::CommonName, text("alice")),
        ];
        assert_subject(names, "CN=alice,O=Ejemplo ñ,C=ES");
        assert_subject(vec![], "");
    }

    #[test]
    fn values_are_escaped() {
        for (value, expected) in [
            ("a, O=root", "CN=a\\, O=root"),
            (" x ", "CN=\\ x\\ "),
            (" ", "CN=\\ "),
            ("#1+#2", "CN=\\#1\\+#2"),
            ("\"<>;\\", "CN=\\\"\\<\\>\\;\\\\"),
            ("nul\0", "CN=nul\\00"),
        ] {
            assert_subject(vec![(DnType::CommonName, text(value))], expected);
        }
    }

    #[test]
    fn other_types_and_values_are_numeric() {
        let unknown = DnType::CustomDnType(vec![1, 2, 3, 4]);
        assert_subject(vec![(unknown, text("x"))], "1.2.3.4=x");
        let bmp = DnValue::BmpString("é".try_into().unwrap());
        assert_subject(vec![(DnType::CommonName, bmp)], "CN=#1e0200e9");
    }

    #[test]
    fn malformed_certificate_has_no_subject() {
        assert_eq!(format_subject(b"x"), None);
    }
}
