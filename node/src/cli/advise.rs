//! `holdfast advise`: what to set on the hosts that use the cluster. The settings themselves are files in `deploy/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use super::{Out, block_on};
use crate::admin::{AdminAddress, AdminClient};
use crate::status::{SessionStatus, StatusDocument};

/// What kind of initiator a host runs, by what its name begins with: each maker has a naming authority of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Linux,
    Vsphere,
    Windows,
    /// Its settings are its user's matter: QEMU, iPXE, libiscsi's tools, and names that were given by hand.
    Other,
}

const NAMES: [(&str, Kind); 8] = [
    ("iqn.1993-08.org.debian:", Kind::Linux),
    ("iqn.2004-10.com.ubuntu:", Kind::Linux),
    ("iqn.1994-05.com.redhat:", Kind::Linux),
    ("iqn.1996-04.de.suse:", Kind::Linux),
    ("iqn.1988-12.com.oracle:", Kind::Linux),
    ("iqn.2016-04.com.open-iscsi:", Kind::Linux),
    ("iqn.1998-01.com.vmware:", Kind::Vsphere),
    ("iqn.1991-05.com.microsoft:", Kind::Windows),
];

/// A file for a host, as it is shipped.
#[derive(Debug, Clone, Copy, Serialize)]
struct Setting {
    /// Where it goes, or how it is used.
    place: &'static str,
    text: &'static str,
}

const LINUX: [Setting; 2] = [
    Setting {
        place: "/etc/multipath/conf.d/holdfast.conf, then: systemctl reload multipathd",
        text: include_str!("../../../deploy/multipath.conf"),
    },
    Setting {
        place: "into /etc/iscsi/iscsid.conf, then discover again: records keep what it said when they were made",
        text: include_str!("../../../deploy/iscsid.conf"),
    },
];
const VSPHERE: [Setting; 1] = [Setting {
    place: "in the host's shell",
    text: include_str!("../../../deploy/esxi.sh"),
}];
const WINDOWS: [Setting; 1] = [Setting {
    place: "in PowerShell, as administrator",
    text: include_str!("../../../deploy/windows.ps1"),
}];

const UNKNOWN: &str = "Nothing is known about these. Give a path up later than 3 s after it fell silent, and keep commands for as\n\
                       long as both nodes take to restart.\n";

/// Seconds between two looks of multipathd at a path, where its configuration says nothing else.
const POLLING_INTERVAL: u64 = 5;

impl Kind {
    fn of(initiator: &str) -> Self {
        let mut names = NAMES.iter();
        names
            .find(|(start, _)| initiator.starts_with(start))
            .map_or(Self::Other, |(_, kind)| *kind)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Linux => "Linux (open-iscsi, dm-multipath)",
            Self::Vsphere => "VMware vSphere",
            Self::Windows => "Windows Server (MPIO)",
            Self::Other => "others",
        }
    }

    const fn settings(self) -> &'static [Setting] {
        match self {
            Self::Linux => &LINUX,
            Self::Vsphere => &VSPHERE,
            Self::Windows => &WINDOWS,
            Self::Other => &[],
        }
    }
}

/// What is told about one kind of host.
#[derive(Debug, Serialize)]
struct Advice {
    kind: Kind,
    /// Names of such hosts with a session on the node that was asked.
    initiators: BTreeSet<String>,
    settings: &'static [Setting],
}

/// What `holdfast advise` prints.
#[derive(Debug, Serialize)]
struct AdviseDocument {
    /// The node whose sessions were looked at.
    answered_by: String,
    /// How long a Linux host with these settings keeps commands while it has no path, in seconds.
    linux_queues_seconds: u64,
    advice: Vec<Advice>,
}

/// `no_path_retry` of the shipped file, times the checker's interval.
fn linux_queues_seconds() -> u64 {
    let mut lines = LINUX[0].text.lines().map(str::trim);
    let retries = lines.find_map(|line| line.strip_prefix("no_path_retry"));
    let retries: u64 = retries
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or_default();
    retries * POLLING_INTERVAL
}

/// Advice for the kinds of hosts that have sessions; without any, for all kinds.
fn advise_for(sessions: &[SessionStatus]) -> Vec<Advice> {
    let mut hosts: BTreeMap<Kind, BTreeSet<String>> = BTreeMap::new();
    for session in sessions.iter().filter(|session| session.target.is_some()) {
        hosts
            .entry(Kind::of(&session.initiator))
            .or_default()
            .insert(session.initiator.clone());
    }
    if hosts.is_empty() {
        hosts = [Kind::Linux, Kind::Vsphere, Kind::Windows]
            .map(|kind| (kind, BTreeSet::new()))
            .into();
    }
    let advice = hosts.into_iter().map(|(kind, initiators)| Advice {
        kind,
        initiators,
        settings: kind.settings(),
    });
    advice.collect()
}

fn text(document: &AdviseDocument) -> String {
    let mut text = String::new();
    for advice in &document.advice {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "## {}", advice.kind.name());
        for initiator in &advice.initiators {
            let _ = writeln!(text, "logged in at {}: {initiator}", document.answered_by);
        }
        if advice.settings.is_empty() {
            text.push_str(UNKNOWN);
        }
        for setting in advice.settings {
            let _ = writeln!(text, "\n# ---- {}\n{}", setting.place, setting.text.trim_end());
        }
        if advice.kind == Kind::Linux {
            let _ = writeln!(
                text,
                "\nSo a Linux host without a path keeps commands for {} s: no_path_retry times polling_interval ({POLLING_INTERVAL} s).",
                document.linux_queues_seconds
            );
        }
        text.push('\n');
    }
    text
}

/// `holdfast advise`
pub(super) fn run(admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let status: StatusDocument = block_on(async { AdminClient::connect(admin).await?.status().await })?;
    let document = AdviseDocument {
        answered_by: status.answered_by.clone(),
        linux_queues_seconds: linux_queues_seconds(),
        advice: advise_for(&status.sessions),
    };
    out.answer(&document, &text(&document))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(initiator: &str, target: Option<&str>) -> SessionStatus {
        SessionStatus {
            id: 1,
            initiator: initiator.to_owned(),
            target: target.map(str::to_owned),
            portal: String::new(),
            peer: String::new(),
            node: "a".to_owned(),
            group: None,
            user: None,
        }
    }

    #[test]
    fn hosts_are_known_by_their_names_and_a_discovery_is_none() {
        let target = Some("iqn.2026-11.io.holdfast:demo");
        let sessions = [
            session("iqn.1993-08.org.debian:01:abc", target),
            session("iqn.1993-08.org.debian:01:abc", target),
            session("iqn.1998-01.com.vmware:esx2-1234", target),
            session("iqn.1991-05.com.microsoft:sql1", None),
        ];
        let advice = advise_for(&sessions);
        let kinds: Vec<(Kind, usize)> = advice.iter().map(|a| (a.kind, a.initiators.len())).collect();
        assert_eq!(kinds, [(Kind::Linux, 1), (Kind::Vsphere, 1)]);
    }

    #[test]
    fn without_sessions_every_kind_is_told() {
        assert_eq!(advise_for(&[]).len(), 3);
    }

    #[test]
    fn the_shipped_files_say_what_is_computed_from_them() {
        assert_eq!(linux_queues_seconds(), 300);
        // Above the hold limit, as the file itself says.
        assert!(LINUX[0].text.contains("fast_io_fail_tmo     5"));
    }
}
