//! Addresses to listen on, as the Prometheus exporters write them: `:p`, `host:p`, `[::1]:p`.

use std::net::Ipv6Addr;

use super::DEFAULT_PORT;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// A name or an IP address, IPv6 without brackets; `None` = all interfaces, IPv4 and IPv6.
    pub host: Option<String>,
    /// 0 = any free one.
    pub port: u16,
}

/// Reads an address. The error completes a sentence that begins with the address.
pub fn parse_listen_address(text: &str) -> Result<ListenAddress, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("is a bare port, write \":{text}\""));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!(
            "is IPv6 without brackets, write it such as \"[::1]:{DEFAULT_PORT}\""
        ));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!(
            "has no port, write an address such as \":{DEFAULT_PORT}\" or \"127.0.0.1:{DEFAULT_PORT}\""
        ));
    };
    let port = port
        .parse::<u16>()
        .ok()
        .filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or("does not end in a port from 0 to 65535")?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = match (bracketed, host) {
        (Some(inner), _) => {
            let (address, zone) = inner.split_once('%').unwrap_or((inner, "0"));
            if address.parse::<Ipv6Addr>().is_err() || !is_name(zone) {
                return Err("has no IPv6 address between its brackets".to_owned());
            }
            Some(inner.to_owned())
        }
        (None, "") => None,
        (None, host) if host.contains(':') => {
            return Err(format!(
                "holds several colons, write IPv6 as \"[::1]:{port}\""
            ));
        }
        (None, host) if is_name(host) => Some(host.to_owned()),
        (None, _) => return Err("does not begin with a host name or an IP address".to_owned()),
    };
    Ok(ListenAddress { host, port })
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ports_hosts_and_brackets_are_read() {
        for (text, host, port) in [
            (":10420", None, 10420),
            (":0", None, 0),
            ("127.0.0.1:9", Some("127.0.0.1"), 9),
            ("localhost:65535", Some("localhost"), 65535),
            ("[::1]:1", Some("::1"), 1),
            ("[::]:1", Some("::"), 1),
            ("[fe80::1%eth0]:1", Some("fe80::1%eth0"), 1),
        ] {
            let host = host.map(str::to_owned);
            assert_eq!(parse_listen_address(text), Ok(ListenAddress { host, port }));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_advice() {
        let error = |text| parse_listen_address(text).unwrap_err();
        assert_eq!(error("9090"), "is a bare port, write \":9090\"");
        assert!(error("::1").contains("[::1]:10420"));
        assert!(
            error("::1:9090").contains("without brackets"),
            "{}",
            error("::1:9090")
        );
        assert!(error("a:b:1").contains("[::1]:1"));
        for text in [
            "",
            ":",
            "host",
            "host:",
            ":65536",
            ":+1",
            ":-1",
            "[::1]",
            "[]:1",
            "[x]:1",
            "a b:1",
            "http://x:1",
            "/x:1",
            "[::1:1",
            "::1]:1",
            ": 1",
        ] {
            assert!(parse_listen_address(text).is_err(), "{text:?}");
        }
    }
}
