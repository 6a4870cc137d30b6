//! Where a target sends a login instead (RFC 7143, 11.13.5 and 13.8).

use std::fmt;
use std::net::Ipv6Addr;

use crate::negotiate::{Key, number};
use crate::pdu::LoginStatus;
use crate::text;

/// The port of a portal whose address names none (RFC 7143, 13.8).
const PORT: u16 = 3260;
/// Longest name of a host in bytes (RFC 1035, 2.3.4).
const HOST_MAX: usize = 255;

/// The portal at which the login is to be made. Prints as `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Whether it is so for good, or for this login alone.
    pub permanent: bool,
    /// Name or address, IPv6 addresses without their brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Redirect {
    /// Out of the last response of a login; `None` where that redirects nowhere.
    pub(super) fn read(status: LoginStatus, data: &[u8]) -> Option<Self> {
        let permanent = match status {
            LoginStatus::MOVED_TEMPORARILY => false,
            LoginStatus::MOVED_PERMANENTLY => true,
            _ => return None,
        };
        let keys = text::parse(data).ok()?;
        let (_, address) = keys.iter().find(|(key, _)| key == Key::TargetAddress.name())?;
        let (host, port) = split(address)?;
        Some(Self {
            permanent,
            host: host.to_owned(),
            port,
        })
    }
}

/// `HOST[:PORT][,GROUP]`. The group has no place in a redirection, and is let pass.
fn split(address: &str) -> Option<(&str, u16)> {
    let address = address.split_once(',').map_or(address, |(address, _)| address);
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, port)
        }
        None => address.split_at(address.find(':').unwrap_or(address.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => number(port).and_then(|port| u16::try_from(port).ok())?,
        None if port.is_empty() => PORT,
        None => return None,
    };
    ((1..=HOST_MAX).contains(&host.len()) && port > 0).then_some((host, port))
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: LoginStatus, address: &str) -> Option<String> {
        let text = text::emit(&[("TargetAddress", address)]);
        Redirect::read(status, &text).map(|to| format!("{to} {}", to.permanent))
    }

    #[test]
    fn addresses_are_read_with_and_without_port_and_group() {
        let for_now = |address| read(LoginStatus::MOVED_TEMPORARILY, address);
        for (address, read) in [
            ("192.0.2.2:3261", "192.0.2.2:3261 false"),
            ("192.0.2.2", "192.0.2.2:3260 false"),
            ("192.0.2.2:3261,2", "192.0.2.2:3261 false"),
            ("store.example,2", "store.example:3260 false"),
            ("[2001:db8::2]:3261", "[2001:db8::2]:3261 false"),
            ("[2001:db8::2]", "[2001:db8::2]:3260 false"),
        ] {
            assert_eq!(for_now(address).as_deref(), Some(read), "{address}");
        }
        let long = "h".repeat(256);
        for bad in [
            "", ":3260", "a:0", "a:65536", "a:b", "[::1", "[a]:1", "[::1]x", &long,
        ] {
            assert_eq!(for_now(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_a_status_of_that_class_redirects() {
        let address = "192.0.2.2:3261";
        let good = read(LoginStatus::MOVED_PERMANENTLY, address);
        assert_eq!(good.as_deref(), Some("192.0.2.2:3261 true"));
        assert_eq!(read(LoginStatus::NOT_FOUND, address), None);
        assert_eq!(
            Redirect::read(LoginStatus::MOVED_TEMPORARILY, b"TargetAddress"),
            None
        );
        assert_eq!(Redirect::read(LoginStatus::MOVED_TEMPORARILY, b""), None);
    }
}
