//! Addresses as users write them: the only parser for them, in nodes and in clients.
//!
//! With a port, an IPv6 address needs brackets (RFC 3986, section 3.2.2): in `::1:50051` the end of the address is
//! ambiguous. Without a port, the brackets are optional.

use std::net::{IpAddr, Ipv6Addr};

/// Why a text is not an address, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("give host:port")]
    NoPort,
    #[error("{0:?} is not a port: give host:port, with a port from 1 to 65535")]
    BadPort(String),
    #[error("an IPv6 address needs brackets: write {0}")]
    NoBrackets(String),
    #[error("{0:?} is not a host: give a name or an IP address")]
    Host(String),
    #[error("give a host name or an IP address, without a port")]
    Port,
    #[error(
        "{0} stands for all addresses of a machine, and others can't dial it: give the address at which they reach it"
    )]
    Everywhere(IpAddr),
    #[error("give an IP address of this machine, such as 127.0.0.1 or [::1], without a port")]
    NoIp,
}

/// Checks an address to dial, `host:port`.
///
/// # Errors
/// What is wrong with it; for an IPv6 address without brackets, how to write it.
pub fn check_address(text: &str) -> Result<(), AddressError> {
    let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
    if text.parse::<Ipv6Addr>().is_ok() && !host.parse::<Ipv6Addr>().is_ok_and(|_| port.parse::<u16>().is_ok()) {
        return Err(AddressError::NoBrackets(format!("[{text}]:PORT")));
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(AddressError::NoBrackets(format!("[{host}]:{port}")));
    }
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(AddressError::BadPort(port.to_owned()));
    }
    parse_host(host).map(drop).map_err(|_| AddressError::Host(host.to_owned()))
}

/// Reads the host that a node tells others to dial.
///
/// # Errors
/// As [`parse_host`], and for an unspecified address (0.0.0.0 or `::`).
pub fn parse_advertised(text: &str) -> Result<String, AddressError> {
    let host = parse_host(text)?;
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(AddressError::Everywhere(ip)),
        _ => Ok(host),
    }
}

/// Reads a host: a name or an IP address. An IPv6 address may have brackets, which are removed.
///
/// # Errors
/// The text is not a host.
pub fn parse_host(text: &str) -> Result<String, AddressError> {
    let host = without_brackets(text);
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_ipv4() && host != text => Err(AddressError::Host(text.to_owned())),
        Ok(_) => Ok(host.to_owned()),
        Err(_) if text.contains(':') => Err(AddressError::Port),
        Err(_) => {
            let is_part_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            match !text.is_empty() && text.chars().all(is_part_of_name) {
                true => Ok(text.to_owned()),
                false => Err(AddressError::Host(text.to_owned())),
            }
        }
    }
}

/// Reads an IP address to listen on. An IPv6 address may have brackets.
///
/// # Errors
/// [`AddressError::NoIp`].
pub fn parse_ip(text: &str) -> Result<IpAddr, AddressError> {
    without_brackets(text).parse().map_err(|_| AddressError::NoIp)
}

fn without_brackets(text: &str) -> &str {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["node1:50051", "10.0.0.1:1", "[::1]:50051", "[fe80::1]:65535", "a_b.svc-1.local:80"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in ["", "node1", ":1", "node1:", "node1:0", "node1:port", "node1:65536", "a b:1", "h:1/path", "a/b:1"] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
        let told = |text: &str| check_address(text).unwrap_err().to_string();
        assert_eq!(told("node1:65536"), "\"65536\" is not a port: give host:port, with a port from 1 to 65535");
        assert!(told(":1").contains("is not a host"));
        assert!(check_address("http://node1:1").is_err());
        assert!(check_address("[10.0.0.1]:1").is_err());
    }

    #[test]
    fn an_ipv6_address_without_brackets_is_told_how_to_get_them() {
        let told = |text: &str| check_address(text).unwrap_err().to_string();
        assert!(told("::1:50051").ends_with("write [::1]:50051"), "{}", told("::1:50051"));
        assert!(told("fe80::1:2:50051").ends_with("write [fe80::1:2]:50051"));
        assert!(told("::1").contains("brackets"));
        assert!(told("1:2:3:4:5:6:7:8").contains("brackets"));
        assert!(told("1:2:3:4:5:6:7:8:50051").ends_with("write [1:2:3:4:5:6:7:8]:50051"));
    }

    #[test]
    fn hosts_stand_alone() {
        for (text, host) in [("node1", "node1"), ("10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("[::1]", "::1")] {
            assert_eq!(parse_host(text), Ok(host.to_owned()));
        }
        for bad in ["", "node1:50051", "[::1]:1", "http://node1", "a b", "[10.0.0.1]"] {
            assert!(parse_host(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_advertised("[::1]"), Ok("::1".to_owned()));
        for everywhere in ["0.0.0.0", "::", "[::]"] {
            assert!(matches!(parse_advertised(everywhere), Err(AddressError::Everywhere(_))), "{everywhere}");
        }
        assert_eq!(parse_ip("[::1]"), Ok(IpAddr::from(Ipv6Addr::LOCALHOST)));
        assert_eq!(parse_ip("::"), Ok(IpAddr::from(Ipv6Addr::UNSPECIFIED)));
        for bad in ["node1", "127.0.0.1:1", "[::1]:1", ""] {
            assert_eq!(parse_ip(bad), Err(AddressError::NoIp), "{bad}");
        }
    }
}
