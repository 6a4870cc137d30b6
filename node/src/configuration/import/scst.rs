//! SCST: `scst.conf`, as scstadmin writes it.

use super::super::document::{Extent, Grant, Group, LunOf, Size, Target};
use super::{Imported, words};

/// Blocks within blocks at most: there are four in such files.
const DEPTH_MAX: usize = 16;

/// A line, and what stands in braces behind it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Entry {
    words: Vec<String>,
    inner: Vec<Entry>,
}

impl Entry {
    fn is(&self, keyword: &str) -> bool {
        self.words
            .first()
            .is_some_and(|word| word.eq_ignore_ascii_case(keyword))
    }

    fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    fn all<'a>(&'a self, keyword: &str) -> impl Iterator<Item = &'a Entry> {
        self.inner.iter().filter(move |entry| entry.is(keyword))
    }

    /// The value of an attribute.
    fn value(&self, name: &str) -> Option<&str> {
        self.all(name)
            .next()
            .map(|entry| entry.word(1))
            .filter(|value| !value.is_empty())
    }

    fn is_on(&self, name: &str) -> bool {
        self.value(name) == Some("1")
    }

    /// CHAP names: the first word of each value, which the password follows.
    fn users(&self, name: &str) -> Vec<&str> {
        let users = self
            .all(name)
            .map(|entry| entry.word(1).split_whitespace().next().unwrap_or(""));
        users.filter(|user| !user.is_empty()).collect()
    }
}

/// Words of a line, quotes taken away; what is behind a `#` is a comment.
fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            '#' if !quoted && !begun => break,
            c if c.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if quoted {
        return Err("a quote is not closed");
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

/// The whole file as one entry.
fn parse(text: &str) -> Result<Entry, String> {
    let fault = |number: usize, why: &str| format!("this is no scst.conf: line {number}: {why}");
    let mut open = vec![Entry::default()];
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = split(line).map_err(|why| fault(number, why))?;
        match words.last().map(String::as_str) {
            None => {}
            Some("}") if words.len() == 1 => {
                let closed = open.pop().unwrap_or_default();
                let outer = open
                    .last_mut()
                    .ok_or_else(|| fault(number, "a brace is closed that is not open"))?;
                outer.inner.push(closed);
            }
            Some("{") => {
                words.pop();
                if open.len() >= DEPTH_MAX {
                    return Err(fault(number, "too many braces are open"));
                }
                open.push(Entry {
                    words,
                    inner: Vec::new(),
                });
            }
            Some(_) => {
                let entry = Entry {
                    words,
                    inner: Vec::new(),
                };
                open.last_mut()
                    .ok_or_else(|| fault(number, "nothing is open"))?
                    .inner
                    .push(entry);
            }
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some(file), true) => Ok(file),
        _ => Err("this is no scst.conf: a brace is not closed at its end".to_owned()),
    }
}

/// Reads an `scst.conf`.
///
/// # Errors
/// One line: it is none.
pub(crate) fn scst(text: &str) -> Result<Imported, String> {
    let file = parse(text)?;
    let mut made = Imported::new();
    // Device, extent, read-only.
    let mut devices: Vec<(String, String, bool)> = Vec::new();
    for handler in file.all("HANDLER") {
        for device in handler.all("DEVICE") {
            let name = extent(&mut made, handler.word(1), device);
            devices.push((device.word(1).to_owned(), name, device.is_on("read_only")));
        }
    }
    for driver in file.all("TARGET_DRIVER") {
        if driver.word(1) != "iscsi" {
            made.note(format!(
                "target driver {} is left out: it is not iscsi",
                driver.word(1)
            ));
            continue;
        }
        made.configuration.discovery.users = driver
            .users("IncomingUser")
            .into_iter()
            .map(words::chap)
            .collect();
        made.configuration.discovery.mutual =
            driver.users("OutgoingUser").first().map(|name| words::chap(name));
        for saved in driver.all("TARGET") {
            target(&mut made, saved, &devices);
        }
    }
    if file.all("DEVICE_GROUP").next().is_some() {
        made.note("device groups (ALUA) are left out: every extent has the states that its primary gives it");
    }
    if devices.is_empty() && made.configuration.targets.is_empty() {
        return Err(
            "this is no scst.conf, or an empty one: it has neither devices nor iscsi targets".to_owned(),
        );
    }
    made.note(
        "other attributes of devices and targets have no counterpart: sessions negotiate what they need",
    );
    made.configuration.sort();
    Ok(made)
}

fn extent(made: &mut Imported, handler: &str, device: &Entry) -> String {
    let name = made.extent_name(device.word(1));
    let place = device.value("filename").unwrap_or("nowhere");
    if matches!(handler, "vdisk_blockio" | "vdisk_fileio") {
        made.note(format!(
            "extent {name}: the data is in {place}; copy it from there once the extent is made"
        ));
    } else {
        made.note(format!(
            "extent {name}: handler {handler} has no counterpart: a replicated extent instead"
        ));
    }
    let size = device.value("size").and_then(|size| size.parse().ok()).map(Size);
    if size.is_none() {
        made.note(format!(
            "extent {name}: its size is not in the file; add size = \"…\", as 'blockdev --getsize64 {place}' or 'stat -c %s {place}' say"
        ));
    }
    if device.is_on("nv_cache") || device.value("write_through") == Some("0") {
        made.note(format!(
            "extent {name}: its write cache is not taken over; write_cache = true does the like"
        ));
    }
    let block_size = if device.value("blocksize") == Some("4096") {
        4096
    } else {
        512
    };
    made.configuration.extents.push(Extent {
        name: name.clone(),
        size,
        block_size: Some(block_size),
        ..Extent::default()
    });
    name
}

fn luns(made: &mut Imported, iqn: &str, owner: &Entry, devices: &[(String, String, bool)]) -> Vec<LunOf> {
    let mut luns = Vec::new();
    for entry in owner.all("LUN") {
        let (number, device) = (entry.word(1), entry.word(2));
        let known = devices.iter().find(|(name, ..)| name == device);
        match (number.parse(), known) {
            (Ok(lun), Some((_, extent, read_only))) => luns.push(LunOf {
                lun,
                extent: extent.clone(),
                read_only: Some(*read_only || entry.is_on("read_only")),
            }),
            _ => made.note(format!(
                "target {iqn}: LUN {number} is left out: device {device} is not in the file"
            )),
        }
    }
    luns
}

fn target(made: &mut Imported, saved: &Entry, devices: &[(String, String, bool)]) {
    let iqn = saved.word(1).to_lowercase();
    let stem = words::tail(&iqn).to_owned();
    let mut target = Target {
        iqn: iqn.clone(),
        luns: luns(made, &iqn, saved, devices),
        ..Target::default()
    };
    if saved.value("enabled") == Some("0") {
        made.note(format!(
            "target {iqn}: it was disabled there; here it is shown once it is applied"
        ));
    }
    for portal in saved.all("allowed_portal") {
        let portal = portal.word(1);
        made.note(format!("target {iqn}: allowed_portal {portal} has no counterpart: every target is shown by all portals of node.toml"));
    }
    let users: Vec<_> = saved.users("IncomingUser").into_iter().map(words::chap).collect();
    let mutual = saved.users("OutgoingUser").first().map(|name| words::chap(name));
    let chap = || Group {
        users: users.clone(),
        mutual: mutual.clone(),
        ..Group::default()
    };
    for entry in saved.all("GROUP") {
        let own = luns(made, &iqn, entry, devices);
        let mut group = chap();
        initiators(made, &iqn, entry, &mut group);
        let name = made.group(&format!("{stem}-{}", entry.word(1)), group);
        if own.is_empty() {
            made.note(format!(
                "target {iqn}: group {name} saw no LUN there, and is not allowed to use it"
            ));
            continue;
        }
        target.groups.push(Grant {
            name,
            own_luns: Some(true),
            luns: own,
        });
    }
    // LUNs of the target itself are for whoever is in no group.
    let is_open = users.is_empty() && target.groups.is_empty() && !target.luns.is_empty();
    target.restricted = Some(!is_open);
    if is_open {
        made.note(format!("target {iqn} is open to every initiator, as it was"));
    } else if !target.groups.is_empty() && !target.luns.is_empty() {
        made.note(format!(
            "target {iqn}: initiators of no group came in, too, and saw its own LUNs; here they do not: add those to a group"
        ));
    } else if !target.luns.is_empty() {
        let group = Group {
            any_initiator: Some(true),
            ..chap()
        };
        let name = made.group(&format!("{stem}-any"), group);
        target.groups.push(Grant {
            name,
            own_luns: Some(false),
            luns: Vec::new(),
        });
    }
    made.configuration.targets.push(target);
}

fn initiators(made: &mut Imported, iqn: &str, entry: &Entry, group: &mut Group) {
    let mut names = Vec::new();
    for initiator in entry.all("INITIATOR") {
        match initiator.word(1) {
            "*" => group.any_initiator = Some(true),
            name if name.contains(['*', '?', '#', '!']) => made.note(format!(
                "target {iqn}: initiator pattern {name} of group {} is left out: name the initiators",
                entry.word(1)
            )),
            name => names.push(name.to_lowercase()),
        }
    }
    names.sort();
    names.dedup();
    group.initiators = Some(names);
}

#[cfg(test)]
#[path = "scst_test.rs"]
mod tests;
