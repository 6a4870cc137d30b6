//! What is wrong with a document, as far as it can be seen without a cluster. Names are brought into the form in which they are kept.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use holdfast_raft::model::{SettingKey, check_chap_name, check_name};
use holdfast_types::{EXTENT_BYTES_MAX, EXTENT_BYTES_MIN, IscsiName, LUNS_MAX, Lun, Network};

use super::document::{ChapName, Configuration, Extent, Grant, Group, LunOf, NOBODY, Size, Target};

/// Highest LUN.
const LUN_MAX: u32 = Lun::MAX.value() as u32;

/// Faults, each with what it is about in front.
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, place: &str, fault: impl std::fmt::Display) {
        self.0.push(format!("{place}: {fault}"));
    }

    /// Names of one kind within one place, each once.
    fn unique<'a>(&mut self, place: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name) {
                self.add(place, format!("'{name}' is there twice"));
            }
        }
    }

    /// Brings a list into its order.
    fn list(&mut self, place: &str, list: &mut [String], read: impl Fn(&str) -> Result<String, String>) {
        for text in list.iter_mut() {
            match read(text) {
                Ok(name) => *text = name,
                Err(why) => self.add(place, why),
            }
        }
        list.sort();
        self.unique(place, list.iter().map(String::as_str));
    }
}

/// Everything that is wrong.
pub(super) fn check(document: &mut Configuration) -> Vec<String> {
    let mut faults = Faults(Vec::new());
    for (key, value) in &mut document.settings {
        let read = SettingKey::named(key).and_then(|key| Ok(key.print(key.parse(value)?)));
        match read {
            Ok(text) => *value = text,
            Err(why) => faults.add("settings", why),
        }
    }
    for isns in &mut document.isns {
        match isns.server.parse::<SocketAddr>() {
            Ok(address) if !address.ip().is_unspecified() && address.port() != 0 => {
                isns.server = address.to_string();
            }
            _ => faults.add(
                "isns",
                format!(
                    "server = '{}': it is ADDRESS:PORT, as 192.0.2.5:3205",
                    isns.server
                ),
            ),
        }
    }
    faults.unique("isns", document.isns.iter().map(|isns| isns.server.as_str()));
    let discovery = &document.discovery;
    chap(
        &mut faults,
        "discovery",
        &discovery.users,
        discovery.mutual.as_ref(),
    );
    for one in &mut document.groups {
        group(&mut faults, one);
    }
    for one in &mut document.extents {
        extent(&mut faults, one);
    }
    for one in &mut document.targets {
        target(&mut faults, one);
    }
    faults.unique("group", document.groups.iter().map(|group| group.name.as_str()));
    faults.unique(
        "extent",
        document.extents.iter().map(|extent| extent.name.as_str()),
    );
    faults.unique(
        "target",
        document.targets.iter().map(|target| target.iqn.as_str()),
    );
    faults.0
}

fn chap(faults: &mut Faults, place: &str, users: &[ChapName], mutual: Option<&ChapName>) {
    for user in users.iter().chain(mutual) {
        let name = &user.name;
        if let Err(refusal) = check_chap_name(name) {
            faults.add(place, format!("name = '{}': {refusal}", name.escape_debug()));
        }
        if user.secret_file.as_deref() == Some("") {
            faults.add(place, format!("user '{name}': secret_file names no file"));
        }
    }
    faults.unique(
        &format!("{place}: user"),
        users.iter().map(|user| user.name.as_str()),
    );
}

fn group(faults: &mut Faults, group: &mut Group) {
    if let Err(refusal) = check_name(&group.name) {
        faults.add("group", format!("name = {refusal}"));
    }
    let place = format!("group {}", group.name);
    if let Some(list) = &mut group.initiators {
        faults.list(&format!("{place}: initiators"), list, |text| {
            let name = IscsiName::of_initiator(text).map_err(|error| format!("'{text}': {error}"))?;
            Ok(name.to_string())
        });
    }
    if let Some(list) = &mut group.networks {
        faults.list(&format!("{place}: networks"), list, |text| {
            let network: Network = text.parse().map_err(|error| format!("{error}"))?;
            Ok(network.to_string())
        });
    }
    chap(faults, &place, &group.users, group.mutual.as_ref());
}

fn extent(faults: &mut Faults, extent: &mut Extent) {
    if let Err(refusal) = check_name(&extent.name) {
        faults.add("extent", format!("name = {refusal}"));
    }
    let place = format!("extent {}", extent.name);
    if let Some(size) = extent.size
        && !(EXTENT_BYTES_MIN..=EXTENT_BYTES_MAX).contains(&size.0)
    {
        let (min, max) = (Size(EXTENT_BYTES_MIN), Size(EXTENT_BYTES_MAX));
        faults.add(&place, format!("size = {size}: an extent has {min} to {max}"));
    }
    if let Some(block) = extent.block_size
        && block != 512
        && block != 4096
    {
        faults.add(
            &place,
            format!("block_size = {block}: a logical block has 512 or 4096 bytes"),
        );
    }
    let Some(replicas) = &mut extent.replicas else {
        return;
    };
    if replicas.is_empty() {
        faults.add(&place, "replicas = []: an extent needs at least one replica");
    }
    faults.list(
        &format!("{place}: replicas"),
        replicas,
        |text| Ok(text.to_owned()),
    );
    if let Some(preferred) = &extent.preferred
        && preferred != NOBODY
        && !replicas.contains(preferred)
    {
        faults.add(
            &place,
            format!("preferred = '{preferred}': it is one of replicas, or '{NOBODY}'"),
        );
    }
}

fn target(faults: &mut Faults, target: &mut Target) {
    let place = format!("target {}", target.iqn);
    match target.iqn.parse::<IscsiName>() {
        Ok(name) => target.iqn = name.to_string(),
        Err(error) => faults.add(&place, format!("iqn: {error}")),
    }
    luns(faults, &place, &target.luns);
    for grant in &target.groups {
        let place = format!("{place}: group {}", grant.name);
        own_luns(faults, &place, grant);
        luns(faults, &place, &grant.luns);
    }
    faults.unique(
        &format!("{place}: group"),
        target.groups.iter().map(|group| group.name.as_str()),
    );
}

fn own_luns(faults: &mut Faults, place: &str, grant: &Grant) {
    if grant.own_luns == Some(false) && !grant.luns.is_empty() {
        faults.add(
            place,
            "own_luns = false: the group has LUNs of its own here; leave the key out, or the LUNs",
        );
    }
}

fn luns(faults: &mut Faults, place: &str, luns: &[LunOf]) {
    let (mut numbers, mut extents) = (BTreeSet::new(), BTreeSet::new());
    for LunOf { lun, extent, .. } in luns {
        if *lun > LUN_MAX {
            faults.add(
                place,
                format!("lun = {lun}: a LUN is a number from 0 to {LUN_MAX}"),
            );
        }
        if !numbers.insert(*lun) {
            faults.add(place, format!("lun = {lun} is there twice"));
        }
        if !extents.insert(extent) {
            faults.add(
                place,
                format!("extent = '{extent}' is there twice: it has one LUN in a map"),
            );
        }
    }
    if luns.len() > LUNS_MAX {
        faults.add(
            place,
            format!("{} LUNs: a map has at most {LUNS_MAX}", luns.len()),
        );
    }
}
