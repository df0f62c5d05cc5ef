//! Listen addresses, and the sockets that are bound to them or inherited from systemd.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, lookup_host};

/// The number of connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// An address to listen on, written as the Prometheus exporters do: `:9100`, `localhost:9100` or `[::1]:9100`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// A name or an IP address, IPv6 without brackets. `None` for all interfaces, IPv4 and IPv6.
    pub host: Option<String>,
    /// The port; 0 for any free one.
    pub port: u16,
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => write!(f, ":{}", self.port),
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    /// Reads an address. The error continues a sentence that begins with the address.
    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("is a bare port, write \":{text}\""));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err("is IPv6 without brackets, write it such as \"[::1]:9100\"".to_owned());
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(
                "has no port, write an address such as \":9100\" or \"127.0.0.1:9100\"".to_owned(),
            );
        };
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| is_number);
        let port = port.ok_or("does not end in a port from 0 to 65535")?;
        let host = (!host.is_empty()).then(|| parse_host(host)).transpose()?;
        Ok(Self { host, port })
    }
}

fn parse_host(host: &str) -> Result<String, String> {
    if let Some(inner) = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        let (address, zone) = inner.split_once('%').unwrap_or((inner, "0"));
        return match address.parse::<Ipv6Addr>() {
            Ok(_) if is_name(zone) => Ok(inner.to_owned()),
            _ => Err("has no IPv6 address between its brackets".to_owned()),
        };
    }
    if host.contains(':') {
        return Err("contains several colons, write IPv6 such as \"[::1]:9100\"".to_owned());
    }
    match is_name(host) {
        true => Ok(host.to_owned()),
        false => Err("does not begin with a host name or an IP address".to_owned()),
    }
}

fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

/// Listens on `address`: without a host on all interfaces, and for a name on each of its addresses that this machine has.
pub async fn bind(address: &ListenAddress) -> io::Result<Vec<TcpListener>> {
    let Some(host) = &address.host else {
        let listener = match listen((Ipv6Addr::UNSPECIFIED, address.port).into()) {
            Err(error) if is_without_ipv6(&error) => {
                listen((Ipv4Addr::UNSPECIFIED, address.port).into())
            }
            result => result,
        };
        return Ok(vec![listener?]);
    };
    let mut listeners = Vec::new();
    let mut absent = None;
    for resolved in lookup_host((host.as_str(), address.port)).await? {
        match listen(resolved) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_without_address(&error) => absent = Some(error),
            Err(error) => return Err(error),
        }
    }
    match absent {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}

fn is_without_address(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // "All interfaces" means IPv4 as well; a named IPv6 address does not.
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Takes the sockets that systemd has bound (`--web.systemd-socket`). The error says what to change in the socket unit.
pub fn systemd_listeners(mut sockets: ListenFd) -> Result<Vec<TcpListener>, String> {
    if sockets.len() == 0 {
        return Err(
            "no socket activation file descriptors found: start the service by a systemd socket unit, or leave the flag out \
             and set the listen address"
                .to_owned(),
        );
    }
    let mut listeners = Vec::new();
    for index in 0..sockets.len() {
        let wrong = |error: io::Error| {
            format!(
                "{error}: set ListenStream of the socket unit to a port, or to an IP address and a port"
            )
        };
        let socket = sockets.take_tcp_listener(index).map_err(wrong)?;
        let socket = socket.ok_or("a socket was taken twice")?;
        if !SockRef::from(&socket).is_listener().map_err(wrong)? {
            return Err(
                "the socket is a connection and does not listen: set Accept=no in the socket unit"
                    .to_owned(),
            );
        }
        socket.set_nonblocking(true).map_err(wrong)?;
        listeners.push(TcpListener::from_std(socket).map_err(wrong)?);
    }
    Ok(listeners)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ports_hosts_and_brackets_are_read_and_written() {
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
            let address = ListenAddress { host, port };
            assert_eq!(address.to_string(), text);
            assert_eq!(text.parse(), Ok(address));
        }
    }

    #[test]
    fn invalid_addresses_are_refused_with_advice() {
        let error = |text: &str| text.parse::<ListenAddress>().unwrap_err();
        assert_eq!(error("9090"), "is a bare port, write \":9090\"");
        assert!(error("::1").contains("[::1]:9100"));
        assert!(error("::1:9090").contains("without brackets"));
        assert!(error("a:b:1").contains("[::1]:9100"));
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
            assert!(text.parse::<ListenAddress>().is_err(), "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_name_listens_on_its_addresses_and_a_foreign_address_is_an_error() {
        let bound = bind(&"localhost:0".parse().unwrap()).await.unwrap();
        for listener in bound {
            assert!(listener.local_addr().unwrap().ip().is_loopback());
        }
        assert!(bind(&"192.0.2.1:0".parse().unwrap()).await.is_err());
    }
}
