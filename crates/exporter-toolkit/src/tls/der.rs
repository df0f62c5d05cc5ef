//! Two extensions of a certificate that rustls does not return: the subject alternative names and the extended key usage.
//!
//! Everything else is rustls' job. It has verified the certificate's signature before this is called, except for client
//! authentication types that accept any certificate, so every input must be expected.

use std::net::{Ipv4Addr, Ipv6Addr};

const OBJECT_ID: u8 = 0x06;
/// `[3] EXPLICIT Extensions` of a `TBSCertificate` (RFC 5280, 4.1).
const EXTENSIONS: u8 = 0xa3;

const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const ANY_EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// The names in a `GeneralName` (RFC 5280, 4.2.1.6).
const RFC822_NAME: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const IP_ADDRESS: u8 = 0x87;

/// One DER value: its tag and its content.
type Element<'a> = (u8, &'a [u8]);

/// Returns the DNS names, mail addresses, URIs and IP addresses of a certificate, as Go writes them. `None` if the certificate
/// is malformed.
pub(super) fn subject_alternative_names(certificate: &[u8]) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for (tag, content) in extension(certificate, SUBJECT_ALTERNATIVE_NAME)? {
        match tag {
            RFC822_NAME | DNS_NAME | URI => found.push(String::from_utf8(content.to_vec()).ok()?),
            IP_ADDRESS => found.push(ip_address(content)?),
            _ => {}
        }
    }
    Some(found)
}

/// Returns whether the extended key usage of a certificate, if it has one, includes client authentication. `None` if the
/// certificate is malformed.
pub(super) fn allows_client_auth(certificate: &[u8]) -> Option<bool> {
    let allowed = [CLIENT_AUTH, ANY_EXTENDED_KEY_USAGE];
    let usages = extension(certificate, EXTENDED_KEY_USAGE)?;
    Some(usages.is_empty() || usages.iter().any(|(_, usage)| allowed.contains(usage)))
}

fn ip_address(bytes: &[u8]) -> Option<String> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).to_string());
    }
    let bytes = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(bytes).to_canonical().to_string())
}

/// Returns the elements of the sequence in the extension `id`, none if the certificate does not have the extension.
fn extension<'a>(certificate: &'a [u8], id: &[u8]) -> Option<Vec<Element<'a>>> {
    let (_, to_be_signed) = *elements(only(certificate)?)?.first()?;
    let fields = elements(to_be_signed)?;
    let Some((_, extensions)) = fields.iter().find(|(tag, _)| *tag == EXTENSIONS) else {
        return Some(Vec::new());
    };
    for (_, extension) in elements(only(extensions)?)? {
        // An optional boolean, `critical`, is between the identifier and the value.
        let fields = elements(extension)?;
        if fields.first()? == &(OBJECT_ID, id) {
            let (_, value) = *fields.last()?;
            return elements(only(value)?);
        }
    }
    Some(Vec::new())
}

/// Returns the content of the one element that `input` consists of.
fn only(input: &[u8]) -> Option<&[u8]> {
    match elements(input)?.as_slice() {
        [(_, content)] => Some(content),
        _ => None,
    }
}

/// Splits `input` into its elements.
fn elements(mut input: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut elements = Vec::new();
    while let Some((tag, rest)) = input.split_first() {
        let (first, rest) = rest.split_first()?;
        // Up to 127 the byte is the length itself, above it says how many bytes of length follow.
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let add = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
                (length.iter().fold(0, add), rest)
            }
            _ => return None,
        };
        let content;
        (content, input) = rest.split_at_checked(length)?;
        elements.push((*tag, content));
    }
    Some(elements)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};

    use super::*;

    #[test]
    fn malformed_certificates_are_refused_without_a_panic() {
        let long = "a".repeat(300);
        let mut params = CertificateParams::new([long.clone()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        assert_eq!(subject_alternative_names(&der), Some(vec![long]));
        for length in 0..der.len() {
            assert_eq!(subject_alternative_names(&der[..length]), None, "{length}");
        }
        for index in 0..der.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = der.clone();
                changed[index] = value;
                let _ = subject_alternative_names(&changed);
                let _ = allows_client_auth(&changed);
            }
        }
    }
}
