//! Listen addresses, and the sockets that are bound to them or inherited from systemd.

use std::{
    fmt,
    io::{self, ErrorKind},
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
        if text.parse::<u16>().is_ok() {
            return Err(format!("is a bare port, write \":{text}\""));
        }
        parse(text).ok_or_else(|| {
            "is not an address, write it such as \":9100\", \"localhost:9100\" or \"[::1]:9100\"".to_owned()
        })
    }
}

fn parse(text: &str) -> Option<ListenAddress> {
    let (host, port) = text.rsplit_once(':')?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| is_number)?;
    let ipv6 = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let is_valid = match ipv6 {
        Some(ipv6) => {
            let (address, zone) = ipv6.split_once('%').unwrap_or((ipv6, "0"));
            address.parse::<Ipv6Addr>().is_ok() && is_name(zone)
        }
        None => host.is_empty() || is_name(host),
    };
    let host = ipv6.unwrap_or(host);
    let host = (!host.is_empty()).then(|| host.to_owned());
    is_valid.then_some(ListenAddress { host, port })
}

fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

/// Listens on `address`: without a host on all interfaces, and for a name on each of its addresses that this machine has.
pub async fn bind(address: &ListenAddress) -> io::Result<Vec<TcpListener>> {
    let Some(host) = &address.host else {
        let listener = listen((Ipv6Addr::UNSPECIFIED, address.port).into());
        let listener = listener.or_else(|error| match error.kind() {
            ErrorKind::AddrInUse | ErrorKind::PermissionDenied => Err(error),
            // This machine has no IPv6.
            _ => listen((Ipv4Addr::UNSPECIFIED, address.port).into()),
        });
        return Ok(vec![listener?]);
    };
    let mut listeners = Vec::new();
    let mut absent = Ok(());
    for resolved in lookup_host((host.as_str(), address.port)).await? {
        match listen(resolved) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => absent = Err(error),
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() {
        absent?;
    }
    Ok(listeners)
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
        let message = "no socket activation file descriptors found: start the service by a systemd socket unit, or leave the \
            flag out and set the listen address";
        return Err(message.to_owned());
    }
    let count = sockets.len();
    let take = |index| {
        let socket = sockets.take_tcp_listener(index)?;
        let socket = socket.ok_or(ErrorKind::NotFound)?;
        if !SockRef::from(&socket).is_listener()? {
            let message = "the socket is a connection, not a listener";
            return Err(io::Error::other(message));
        }
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    };
    let listeners: io::Result<Vec<_>> = (0..count).map(take).collect();
    listeners.map_err(|error| {
        format!(
            "{error}: in the socket unit, set Accept=no, and set ListenStream to a port, or to an IP address and a port"
        )
    })
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
        for text in [
            "::1",
            "::1:9090",
            "a:b:1",
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
            assert!(error(text).contains("\"[::1]:9100\""), "{text:?}");
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
