//! `iscsi://` addresses as libiscsi, QEMU and fio write them.

use std::fmt;
use std::str::FromStr;

use holdfast_types::{IscsiName, Lun, Secret};

/// Port that IANA gave to iSCSI targets (RFC 7143, 4.2.7.2).
pub const ISCSI_PORT: u16 = 3260;

/// One logical unit behind one portal: `iscsi://[USER%SECRET@]HOST[:PORT]/TARGET/LUN`. Prints without user and secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IscsiUrl {
    /// Name or address, IPv6 addresses without their brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// CHAP user and secret, written `USER%SECRET@` before the host.
    pub chap: Option<(String, Secret)>,
    /// The target.
    pub target: IscsiName,
    /// The logical unit.
    pub lun: Lun,
}

/// Why a text is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no iSCSI address ({why}); one reads iscsi://HOST[:PORT]/TARGET/LUN")]
pub struct UrlError {
    text: String,
    why: String,
}

impl IscsiUrl {
    /// `HOST:PORT`, as the standard library resolves it.
    pub fn portal(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for IscsiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "iscsi://{}/{}/{}", self.portal(), self.target, self.lun)
    }
}

impl FromStr for IscsiUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|why| UrlError {
            text: without_secret(text).chars().take(300).collect(),
            why,
        })
    }
}

/// The text as an error may show it.
fn without_secret(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}…{}", &text[..scheme + 3], &text[at..]),
        (None, Some(at)) => format!("…{}", &text[at..]),
        _ => text.to_owned(),
    }
}

fn parse(text: &str) -> Result<IscsiUrl, String> {
    let rest = text
        .strip_prefix("iscsi://")
        .ok_or("it does not start with iscsi://")?;
    let mut parts = rest.split('/');
    let portal = parts.next().unwrap_or("");
    let (chap, portal) = match portal.rsplit_once('@') {
        Some((chap, portal)) => (Some(split_chap(chap)?), portal),
        None => (None, portal),
    };
    let (host, port) = split_portal(portal)?;
    let target = parts.next().ok_or("the target's name is missing")?;
    let target = target.parse().map_err(|error| format!("{error}"))?;
    let lun = parts.next().ok_or("the LUN is missing")?;
    let number: u16 = lun.parse().map_err(|_| format!("'{lun}' is no LUN"))?;
    let lun = Lun::try_from(number).map_err(|error| error.to_string())?;
    if parts.next().is_some() {
        return Err("there is something behind the LUN".to_owned());
    }
    Ok(IscsiUrl {
        host,
        port,
        chap,
        target,
        lun,
    })
}

/// A user's name has no '%'; the secret may.
fn split_chap(chap: &str) -> Result<(String, Secret), String> {
    let (user, secret) = chap
        .split_once('%')
        .filter(|(user, _)| !user.is_empty())
        .ok_or("before '@' there has to be USER%SECRET")?;
    let secret = Secret::new(secret.as_bytes().to_vec()).map_err(|error| error.to_string())?;
    Ok((user.to_owned(), secret))
}

fn split_portal(portal: &str) -> Result<(String, u16), String> {
    let (host, port) = match portal.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("a ']' is missing")?;
            (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
        }
        None => match portal.split_once(':') {
            Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
            None => (portal, Some("")),
        },
    };
    let port = match port.ok_or("the port is not a number")? {
        "" => ISCSI_PORT,
        digits => digits.parse().map_err(|_| format!("'{digits}' is no port"))?,
    };
    if host.is_empty() || port == 0 {
        return Err("host and port must not be empty or 0".to_owned());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        let cases = [
            (
                "iscsi://127.0.0.1:3260/iqn.2026-11.example:a/0",
                "127.0.0.1",
                3260,
                0,
            ),
            ("iscsi://[::1]:3261/iqn.2026-11.example:a/7", "::1", 3261, 7),
            ("iscsi://host/iqn.2026-11.example:a/16383", "host", 3260, 16383),
        ];
        for (text, host, port, lun) in cases {
            let url: IscsiUrl = text.parse().unwrap();
            assert_eq!((url.host.as_str(), url.port, url.lun.value()), (host, port, lun));
            assert_eq!(url.to_string().parse::<IscsiUrl>().unwrap(), url);
        }
    }

    #[test]
    fn a_secret_is_taken_and_never_shown() {
        let url: IscsiUrl = "iscsi://user%correct%horse@bat@host/iqn.2026-11.example:a/0"
            .parse()
            .unwrap();
        let (user, secret) = url.chap.clone().unwrap();
        assert_eq!(
            (user.as_str(), secret.expose()),
            ("user", &b"correct%horse@bat"[..])
        );
        assert_eq!(url.host, "host");
        for bad in [
            "iscsi://user%correct horse@a",
            "iscsi://user%correct horse@",
            "user%correct horse@a",
        ] {
            let error = bad.parse::<IscsiUrl>().unwrap_err();
            let shown = format!("{url} {url:?} {error} {error:?}");
            assert!(!shown.contains("horse"), "{shown}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        let cases = [
            ("http://a/iqn.2026-11.example:a/0", "does not start"),
            ("iscsi://a", "target's name is missing"),
            ("iscsi://a/iqn.2026-11.example:a", "LUN is missing"),
            ("iscsi://a/disk/0", "starts with iqn."),
            ("iscsi://a/iqn.2026-11.example:a/x", "no LUN"),
            ("iscsi://a/iqn.2026-11.example:a/16384", "16383"),
            ("iscsi://a/iqn.2026-11.example:a/0/1", "behind the LUN"),
            ("iscsi://a:0/iqn.2026-11.example:a/0", "must not be"),
            ("iscsi://a:99999/iqn.2026-11.example:a/0", "no port"),
            ("iscsi://[::1/iqn.2026-11.example:a/0", "']'"),
            ("iscsi:///iqn.2026-11.example:a/0", "must not be"),
            ("iscsi://u%short@a/iqn.2026-11.example:a/0", "12 to 255"),
            ("iscsi://user@a/iqn.2026-11.example:a/0", "USER%SECRET"),
            ("iscsi://%correct horse@a/iqn.2026-11.example:a/0", "USER%SECRET"),
        ];
        for (text, why) in cases {
            let error = text.parse::<IscsiUrl>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
