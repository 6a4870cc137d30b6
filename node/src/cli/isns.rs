//! `holdfast isns`: which iSNS servers are told of the targets.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use clap::Subcommand;
use holdfast_iscsi::isns::ISNS_PORT;
use holdfast_proto::admin::IsnsServer;
use holdfast_proto::admin::change_request::Change;

use super::{Out, block_on};
use crate::admin::{AdminAddress, AdminClient};
use crate::status::IsnsStatus;

/// `ADDRESS[:PORT]`, IPv6 addresses in brackets where there is a port.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerAddress(SocketAddr);

impl FromStr for ServerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, ISNS_PORT));
        let address = text.parse().or(alone);
        address.map(Self).map_err(|_| {
            format!("'{text}' is no address of an iSNS server: write 192.0.2.5, or 192.0.2.5:{ISNS_PORT}")
        })
    }
}

/// `holdfast isns …`
#[derive(Debug, Subcommand)]
pub(super) enum IsnsCommand {
    /// Tell an iSNS server of all targets and portals from now on.
    Create {
        /// Its address; the port is 3205 unless it is given.
        server: ServerAddress,
    },
    /// Take everything out of an iSNS server, and tell it nothing any more.
    Delete {
        /// Its address.
        server: ServerAddress,
    },
    /// List the iSNS servers, and whether they know.
    List,
}

/// `holdfast isns …`
pub(super) fn run(command: IsnsCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let (server, told) = match command {
        IsnsCommand::Create { server } => (server, true),
        IsnsCommand::Delete { server } => (server, false),
        IsnsCommand::List => {
            let status = block_on(async { AdminClient::connect(admin).await?.status().await })?;
            return out.answer(&status.isns, &list_text(&status.isns, &status.answered_by));
        }
    };
    let change = IsnsServer {
        server: server.0.to_string(),
        told,
    };
    super::objects::change(Change::IsnsServer(change), admin, out)
}

fn list_text(servers: &[IsnsStatus], here: &str) -> String {
    if servers.is_empty() {
        return "No iSNS server is told of the targets.".to_owned();
    }
    let mut text = format!("{:<24} {:<10} {}", "SERVER", "TOLD BY", "STATE");
    for server in servers {
        let by = server.told_by.as_deref().unwrap_or("nobody");
        let state = match (server.registered, &server.error) {
            (_, Some(error)) => error.clone(),
            (Some(true), None) => "registered".to_owned(),
            (Some(false), None) => "not registered yet".to_owned(),
            (None, None) if by == here => "not registered yet".to_owned(),
            (None, None) => format!("ask {by}"),
        };
        text.push_str(&format!("\n{:<24} {by:<10} {state}", server.server.to_string()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_port() {
        let read = |text: &str| text.parse::<ServerAddress>().map(|address| address.0.to_string());
        assert_eq!(read("192.0.2.5").unwrap(), "192.0.2.5:3205");
        assert_eq!(read("192.0.2.5:33205").unwrap(), "192.0.2.5:33205");
        assert_eq!(read("2001:db8::5").unwrap(), "[2001:db8::5]:3205");
        assert_eq!(read("[2001:db8::5]:1").unwrap(), "[2001:db8::5]:1");
        assert!(read("isns.example").unwrap_err().contains("192.0.2.5"));
    }

    #[test]
    fn servers_in_words() {
        let server = |registered, error: Option<&str>| IsnsStatus {
            server: "192.0.2.5:3205".parse().unwrap(),
            told_by: Some("a".to_owned()),
            registered,
            error: error.map(str::to_owned),
        };
        let text = |server: IsnsStatus, here: &str| list_text(&[server], here);
        assert!(text(server(Some(true), None), "a").ends_with("a          registered"));
        assert!(text(server(None, None), "b").ends_with("ask a"));
        assert!(text(server(None, None), "a").ends_with("not registered yet"));
        assert!(text(server(Some(false), Some("refused")), "a").ends_with("refused"));
        assert_eq!(list_text(&[], "a"), "No iSNS server is told of the targets.");
    }
}
