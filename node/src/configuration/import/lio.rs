//! LIO: `saveconfig.json`, as targetcli writes it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::super::document::{Extent, Grant, Group, LunOf, Size, Target};
use super::{Imported, words};

#[derive(Debug, Deserialize)]
struct Saved {
    #[serde(default)]
    storage_objects: Vec<StorageObject>,
    #[serde(default)]
    targets: Vec<SavedTarget>,
}

#[derive(Debug, Deserialize)]
struct StorageObject {
    name: String,
    #[serde(default)]
    plugin: String,
    #[serde(default)]
    dev: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    readonly: bool,
    #[serde(default)]
    write_back: bool,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Debug, Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    block_size: Option<u32>,
    #[serde(default)]
    authentication: Option<i64>,
    #[serde(default)]
    generate_node_acls: Option<i64>,
    #[serde(default)]
    demo_mode_write_protect: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct SavedTarget {
    #[serde(default)]
    fabric: String,
    wwn: String,
    #[serde(default)]
    tpgs: Vec<Tpg>,
}

#[derive(Debug, Default, Deserialize)]
struct Tpg {
    #[serde(default)]
    tag: u64,
    #[serde(default)]
    enable: Option<bool>,
    #[serde(default)]
    attributes: Attributes,
    #[serde(default)]
    chap_userid: Option<String>,
    #[serde(default)]
    chap_mutual_userid: Option<String>,
    #[serde(default)]
    luns: Vec<SavedLun>,
    #[serde(default)]
    node_acls: Vec<NodeAcl>,
    #[serde(default)]
    portals: Vec<Portal>,
}

#[derive(Debug, Deserialize)]
struct SavedLun {
    index: u32,
    storage_object: String,
}

#[derive(Debug, Deserialize)]
struct NodeAcl {
    node_wwn: String,
    #[serde(default)]
    chap_userid: Option<String>,
    #[serde(default)]
    chap_mutual_userid: Option<String>,
    #[serde(default)]
    mapped_luns: Vec<MappedLun>,
}

#[derive(Debug, Deserialize)]
struct MappedLun {
    index: u32,
    tpg_lun: u32,
    #[serde(default)]
    write_protect: bool,
}

#[derive(Debug, Deserialize)]
struct Portal {
    #[serde(default)]
    ip_address: String,
    #[serde(default)]
    port: u32,
}

/// `/backstores/PLUGIN/NAME` and the extent that stands for it.
type Extents = BTreeMap<String, String>;

/// What initiators of a target have in common: their map (`None`: the target's) and who they prove to be.
type Alike = (Option<Vec<(u32, String, bool)>>, Option<String>, Option<String>);

/// Reads a `saveconfig.json`.
///
/// # Errors
/// One line: it is none.
pub(crate) fn lio(text: &str) -> Result<Imported, String> {
    let saved: Saved = serde_json::from_str(text)
        // The text of the error could quote a password.
        .map_err(|error| {
            format!(
                "this is no saveconfig.json of LIO: line {}, column {}",
                error.line(),
                error.column()
            )
        })?;
    if saved.storage_objects.is_empty() && saved.targets.is_empty() {
        return Err(
            "this is no saveconfig.json of LIO, or an empty one: it has neither storage_objects nor targets"
                .to_owned(),
        );
    }
    let mut made = Imported::new();
    let mut extents = Extents::new();
    let mut read_only = BTreeSet::new();
    for object in &saved.storage_objects {
        let name = extent(&mut made, object);
        if object.readonly {
            read_only.insert(name.clone());
        }
        extents.insert(format!("/backstores/{}/{}", object.plugin, object.name), name);
    }
    for target in saved.targets {
        if target.fabric != "iscsi" {
            made.note(format!(
                "target {} is left out: its fabric is {}, not iscsi",
                target.wwn, target.fabric
            ));
            continue;
        }
        self::target(&mut made, target, &extents, &read_only);
    }
    made.note(
        "parameters and attributes of portal groups have no counterpart: sessions negotiate what they need",
    );
    made.configuration.sort();
    Ok(made)
}

fn extent(made: &mut Imported, object: &StorageObject) -> String {
    let name = made.extent_name(&object.name);
    let place = object.dev.as_deref().unwrap_or("nowhere");
    match object.plugin.as_str() {
        "block" | "fileio" => made.note(format!(
            "extent {name}: the data is in {place}; copy it from there once the extent is made"
        )),
        plugin => made.note(format!(
            "extent {name}: a backstore of the kind {plugin} has no counterpart: a replicated extent instead"
        )),
    }
    if object.size.is_none() {
        made.note(format!("extent {name}: its size is not in the file; add size = \"…\", which 'blockdev --getsize64 {place}' tells"));
    }
    if object.write_back {
        made.note(format!(
            "extent {name}: write_back is not taken over; write_cache = true does the like"
        ));
    }
    let block_size = object.attributes.block_size.filter(|size| *size == 4096);
    made.configuration.extents.push(Extent {
        name: name.clone(),
        size: object.size.map(Size),
        block_size: Some(block_size.unwrap_or(512)),
        ..Extent::default()
    });
    name
}

fn target(made: &mut Imported, saved: SavedTarget, extents: &Extents, read_only: &BTreeSet<String>) {
    let iqn = saved.wwn.to_lowercase();
    let mut target = Target {
        iqn: iqn.clone(),
        restricted: Some(true),
        ..Target::default()
    };
    let mut tpgs = saved.tpgs.into_iter();
    let Some(tpg) = tpgs.next() else {
        made.note(format!("target {iqn} has no portal group, so nobody may use it"));
        made.configuration.targets.push(target);
        return;
    };
    for other in tpgs {
        made.note(format!(
            "target {iqn}: portal group {} is left out; there is one for each node, and all show the same",
            other.tag
        ));
    }
    for portal in &tpg.portals {
        made.note(format!(
            "target {iqn}: portal {}:{} has no counterpart: every target is shown by all portals of node.toml",
            portal.ip_address, portal.port
        ));
    }
    if tpg.enable == Some(false) {
        made.note(format!(
            "target {iqn}: it was disabled there; here it is shown once it is applied"
        ));
    }
    for lun in &tpg.luns {
        match extents.get(&lun.storage_object) {
            Some(extent) => target.luns.push(LunOf {
                lun: lun.index,
                extent: extent.clone(),
                read_only: Some(read_only.contains(extent)),
            }),
            None => made.note(format!(
                "target {iqn}: LUN {} is left out: {} is not in the file",
                lun.index, lun.storage_object
            )),
        }
    }
    groups(made, &tpg, &mut target);
    made.configuration.targets.push(target);
}

/// What an ACL says, as far as groups have it too.
fn alike(tpg: &Tpg, acl: &NodeAcl, target: &Target) -> Alike {
    let mut own = Vec::new();
    for mapped in &acl.mapped_luns {
        if let Some(lun) = target.luns.iter().find(|lun| lun.lun == mapped.tpg_lun) {
            own.push((
                mapped.index,
                lun.extent.clone(),
                mapped.write_protect || lun.read_only == Some(true),
            ));
        }
    }
    own.sort();
    let mut all: Vec<_> = target
        .luns
        .iter()
        .map(|lun| (lun.lun, lun.extent.clone(), lun.read_only == Some(true)))
        .collect();
    all.sort();
    let asks = tpg.attributes.authentication != Some(0);
    let user = acl.chap_userid.clone().filter(|user| asks && !user.is_empty());
    let mutual = acl
        .chap_mutual_userid
        .clone()
        .filter(|name| user.is_some() && !name.is_empty());
    ((own != all).then_some(own), user, mutual)
}

fn groups(made: &mut Imported, tpg: &Tpg, target: &mut Target) {
    let iqn = target.iqn.clone();
    let stem = words::tail(&iqn).to_owned();
    let mut hosts: BTreeMap<Alike, Vec<String>> = BTreeMap::new();
    for acl in &tpg.node_acls {
        let initiator = acl.node_wwn.to_lowercase();
        hosts.entry(alike(tpg, acl, target)).or_default().push(initiator);
    }
    for ((own, user, mutual), mut initiators) in hosts {
        initiators.sort();
        initiators.dedup();
        let name = made.group(
            &stem,
            members(Some(initiators), user.as_deref(), mutual.as_deref()),
        );
        if own.as_ref().is_some_and(Vec::is_empty) {
            made.note(format!(
                "target {iqn}: group {name} saw no LUN there, and is not allowed to use it"
            ));
            continue;
        }
        let lun = |(lun, extent, read_only)| LunOf {
            lun,
            extent,
            read_only: Some(read_only),
        };
        target.groups.push(Grant {
            name,
            own_luns: Some(own.is_some()),
            luns: own.into_iter().flatten().map(lun).collect(),
        });
    }
    if tpg.attributes.generate_node_acls.unwrap_or(0) == 1 {
        demo_mode(made, tpg, target);
    }
}

/// Demo mode: whoever has no ACL comes in, too.
fn demo_mode(made: &mut Imported, tpg: &Tpg, target: &mut Target) {
    let iqn = target.iqn.clone();
    let protected = tpg.attributes.demo_mode_write_protect.unwrap_or(1) == 1;
    let user = tpg
        .chap_userid
        .as_deref()
        .filter(|user| tpg.attributes.authentication == Some(1) && !user.is_empty());
    if !target.groups.is_empty() {
        made.note(format!(
            "target {iqn}: initiators without an ACL of their own came in, too (generate_node_acls); here they do not: add those to a group"
        ));
        return;
    }
    if user.is_none() {
        target.restricted = Some(false);
        if protected {
            target.luns.iter_mut().for_each(|lun| lun.read_only = Some(true));
            made.note(format!(
                "target {iqn}: demo_mode_write_protect lets everyone read only: so are its LUNs here"
            ));
        }
        made.note(format!(
            "target {iqn} is open to every initiator, as it was (generate_node_acls)"
        ));
        return;
    }
    let mutual = tpg
        .chap_mutual_userid
        .as_deref()
        .filter(|name| user.is_some() && !name.is_empty());
    let group = Group {
        any_initiator: Some(true),
        read_only: Some(protected),
        ..members(None, user, mutual)
    };
    let name = made.group(&format!("{}-any", words::tail(&iqn)), group);
    target.groups.push(Grant {
        name,
        own_luns: Some(false),
        luns: Vec::new(),
    });
}

fn members(initiators: Option<Vec<String>>, user: Option<&str>, mutual: Option<&str>) -> Group {
    Group {
        initiators,
        users: user.map(words::chap).into_iter().collect(),
        mutual: mutual.map(words::chap),
        ..Group::default()
    }
}

#[cfg(test)]
#[path = "lio_test.rs"]
mod tests;
