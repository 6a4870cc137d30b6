//! What is configured now, as a node answers it.

use std::collections::BTreeMap;

use super::document::{
    Chap, ChapName, Configuration, Extent, Grant, Group, Isns, LunOf, NOBODY, Size, Target,
};
use crate::config::Role;
use crate::status::{ChapStatus, ExtentStatus, GroupAccess, StatusDocument, TargetStatus};

/// The configuration of a cluster, every key given, and who is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Present {
    /// Names of data nodes.
    pub(super) data_nodes: Vec<String>,
    /// Names of witnesses.
    pub(super) witnesses: Vec<String>,
    /// The value of each setting where nothing is set.
    pub(super) defaults: BTreeMap<String, String>,
    /// In the order in which it is written.
    pub(crate) configuration: Configuration,
}

/// A setting, as far as it matters here.
#[derive(Debug, serde::Deserialize)]
struct Setting {
    key: String,
    value: String,
    default: String,
}

impl Present {
    /// Out of the answers of a node: its status, and its settings.
    ///
    /// # Errors
    /// One line: the node is of another release.
    pub(crate) fn of(status: &StatusDocument, settings: serde_json::Value) -> Result<Self, String> {
        let older = || {
            format!(
                "node {} runs a release that does not tell all that is configured: ask a newer one",
                status.answered_by
            )
        };
        let settings: Vec<Setting> = serde_json::from_value(settings).map_err(|_| older())?;
        let mut configuration = Configuration::empty();
        let mut defaults = BTreeMap::new();
        for Setting { key, value, default } in settings {
            defaults.insert(key.clone(), default);
            configuration.settings.insert(key, value);
        }
        let servers = status.isns.iter().map(|isns| isns.server.to_string());
        configuration.isns = servers.map(|server| Isns { server }).collect();
        configuration.discovery = chap(&status.access.discovery);
        configuration.groups = status.access.groups.iter().map(group).collect();
        let extents: Option<Vec<Extent>> = status.extents.iter().map(extent).collect();
        configuration.extents = extents.ok_or_else(older)?;
        configuration.targets = status.targets.iter().map(target).collect();
        configuration.sort();
        let named = |role: Role| {
            let nodes = status.nodes.iter().filter(|node| node.role == role);
            nodes.map(|node| node.name.clone()).collect()
        };
        Ok(Self {
            data_nodes: named(Role::Data),
            witnesses: named(Role::Witness),
            defaults,
            configuration,
        })
    }
}

impl Configuration {
    /// The order in which it is written: that of names, so that two documents of the same cluster are the same text.
    pub(super) fn sort(&mut self) {
        self.isns.sort();
        self.groups.sort_by(|a, b| a.name.cmp(&b.name));
        self.extents.sort_by(|a, b| a.name.cmp(&b.name));
        self.targets.sort_by(|a, b| a.iqn.cmp(&b.iqn));
        self.discovery.users.sort_by(|a, b| a.name.cmp(&b.name));
        for group in &mut self.groups {
            group.users.sort_by(|a, b| a.name.cmp(&b.name));
        }
        for target in &mut self.targets {
            target.luns.sort_by_key(|lun| lun.lun);
            target.groups.sort_by(|a, b| a.name.cmp(&b.name));
            for grant in &mut target.groups {
                grant.luns.sort_by_key(|lun| lun.lun);
            }
        }
    }
}

fn chap_name(name: &str) -> ChapName {
    ChapName {
        name: name.to_owned(),
        secret_file: None,
    }
}

fn chap(status: &ChapStatus) -> Chap {
    Chap {
        users: status.users.iter().map(|name| chap_name(name)).collect(),
        mutual: status.mutual.as_deref().map(chap_name),
    }
}

fn group(status: &GroupAccess) -> Group {
    let Chap { users, mutual } = chap(&status.chap);
    let mut initiators = status.initiators.clone();
    let mut networks: Vec<String> = status.networks.iter().map(ToString::to_string).collect();
    initiators.sort();
    networks.sort();
    Group {
        name: status.name.clone(),
        any_initiator: Some(status.any_initiator),
        initiators: Some(initiators),
        networks: Some(networks),
        read_only: Some(status.read_only),
        users,
        mutual,
    }
}

/// `None`: the node does not tell all of it.
fn extent(status: &ExtentStatus) -> Option<Extent> {
    // Replicas that are to go are none any more for whoever configures.
    let staying = status.replicas.iter().filter(|replica| !replica.retiring);
    let mut replicas: Vec<String> = staying.map(|replica| replica.node.clone()).collect();
    replicas.sort();
    Some(Extent {
        name: status.name.clone(),
        size: Some(Size(status.size_bytes)),
        block_size: Some(status.block_size),
        replicas: Some(replicas),
        preferred: Some(status.preferred.clone().unwrap_or_else(|| NOBODY.to_owned())),
        secondary: Some(status.secondary?),
        thin: Some(status.thin?),
        on_devices: status.on_devices.then_some(true),
        confirmed_reads: Some(status.confirmed_reads?),
        write_cache: Some(status.write_cache),
    })
}

fn target(status: &TargetStatus) -> Target {
    let access = &status.access;
    let luns = status.luns.iter().map(|lun| LunOf {
        lun: lun.lun.into(),
        extent: lun.extent.clone(),
        read_only: Some(access.read_only.contains(&lun.lun)),
    });
    let groups = access.groups.iter().map(|grant| Grant {
        name: grant.group.clone(),
        own_luns: Some(grant.luns.is_some()),
        luns: grant
            .luns
            .iter()
            .flatten()
            .map(|lun| LunOf {
                lun: lun.lun.into(),
                extent: lun.extent.clone(),
                read_only: Some(lun.read_only),
            })
            .collect(),
    });
    Target {
        iqn: status.iqn.to_string(),
        restricted: Some(!access.open),
        max_sessions: Some(access.sessions_max.unwrap_or(0)),
        redirect: Some(access.redirect),
        luns: luns.collect(),
        groups: groups.collect(),
    }
}
