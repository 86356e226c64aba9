//! The alternative names in a client's certificate: what it may be known by.
//!
//! rustls checks certificates and hands out no names. This reads one extension of a certificate whose
//! signature was checked before, and gives nothing for whatever it does not understand.

use std::net::IpAddr;

/// 2.5.29.17, `subjectAltName`.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
/// The field of extensions in a certificate.
const EXTENSIONS: u8 = 0xa3;

/// The DNS names, e-mail addresses, URIs and IP addresses of a certificate (DER), in its order.
pub fn subject_names(certificate: &[u8]) -> Vec<String> {
    names(certificate).unwrap_or_default()
}

fn names(certificate: &[u8]) -> Option<Vec<String>> {
    let (whole, _) = expect(certificate, SEQUENCE)?;
    let (mut fields, _) = expect(whole, SEQUENCE)?;
    while !fields.is_empty() {
        let (tag, value, rest) = element(fields)?;
        fields = rest;
        if tag == EXTENSIONS {
            return alternative_names(expect(value, SEQUENCE)?.0);
        }
    }
    None
}

/// Out of a certificate's extensions.
fn alternative_names(mut extensions: &[u8]) -> Option<Vec<String>> {
    while !extensions.is_empty() {
        let (extension, rest) = expect(extensions, SEQUENCE)?;
        extensions = rest;
        let (id, mut fields) = expect(extension, OBJECT_IDENTIFIER)?;
        if id != SUBJECT_ALT_NAME {
            continue;
        }
        // Whether it is critical may stand before the value.
        while !fields.is_empty() {
            let (tag, value, rest) = element(fields)?;
            fields = rest;
            if tag == OCTET_STRING {
                return general_names(expect(value, SEQUENCE)?.0);
            }
        }
    }
    None
}

fn general_names(mut names: &[u8]) -> Option<Vec<String>> {
    let mut out = Vec::new();
    while !names.is_empty() {
        let (tag, value, rest) = element(names)?;
        names = rest;
        match tag {
            // rfc822Name, dNSName, uniformResourceIdentifier: ASCII.
            0x81 | 0x82 | 0x86 if value.is_ascii() => {
                out.push(String::from_utf8_lossy(value).into_owned());
            }
            0x87 => match (<[u8; 4]>::try_from(value), <[u8; 16]>::try_from(value)) {
                (Ok(v4), _) => out.push(IpAddr::from(v4).to_string()),
                (_, Ok(v6)) => out.push(IpAddr::from(v6).to_string()),
                _ => {}
            },
            _ => {}
        }
    }
    Some(out)
}

/// The value of the first element, which has that tag, and what is behind it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, value, rest) = element(bytes)?;
    (found == tag).then_some((value, rest))
}

/// Tag and value of the first element, and what is behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, bytes) = bytes.split_first()?;
    let (length, bytes) = match first {
        0..=0x7f => (usize::from(first), bytes),
        0x81..=0x84 => {
            let (digits, rest) = bytes.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0usize, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (value, rest) = bytes.split_at_checked(length)?;
    Some((tag, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_names_of_garbage_are_none() {
        for bytes in
            [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x05x", b"\x31\x00", b"\x30\x80"]
        {
            assert!(subject_names(bytes).is_empty());
        }
    }

    #[test]
    fn general_names_are_read_in_their_order() {
        let names = b"\x82\x01a\x86\x04x://\x87\x04\x7f\x00\x00\x01\x81\x03a@b\xa4\x02xx\x87\x01x";
        assert_eq!(general_names(names).unwrap(), ["a", "x://", "127.0.0.1", "a@b"]);
    }
}
