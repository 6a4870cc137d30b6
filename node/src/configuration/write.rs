//! The document as text: by hand, for the sake of its comments and of diffs that are easy to read.

use std::fmt::Write;

use super::document::{ChapName, Configuration, Extent, Grant, Group, LunOf, Target};

const HEAD: &str = "\
# The configuration of a Holdfast cluster: 'holdfast export' wrote it, 'holdfast apply FILE' carries it out.
# What each key means: docs/configuration.md. CHAP secrets are not in it, and neither is data.
";

/// Behind each CHAP name.
const NO_SECRET: &str = "# its secret stays in the cluster; for another one: secret_file = \"FILE\"";

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Writing to a string cannot fail.
macro_rules! put {
    ($text:expr, $($arguments:tt)*) => {{
        let _ = writeln!($text, $($arguments)*);
    }};
}

/// A key and its value where it is given.
fn key(text: &mut String, indent: &str, name: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        put!(text, "{indent}{name} = {}", value.to_string());
    }
}

/// A list, on one line while that is short.
fn list(text: &mut String, name: &str, list: Option<&Vec<String>>) {
    let Some(list) = list else { return };
    let items: Vec<String> = list.iter().map(|item| quoted(item)).collect();
    let short = items.iter().map(|item| item.len() + 2).sum::<usize>() < 100;
    if short && (items.len() < 2 || name == "replicas") {
        put!(text, "{name} = [{}]", items.join(", "));
        return;
    }
    put!(text, "{name} = [");
    for item in items {
        put!(text, "  {item},");
    }
    put!(text, "]");
}

impl Configuration {
    /// The text of which [`super::read`] makes the same.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = String::new();
        put!(text, "format = {}\n{}", self.format, HEAD.trim_end());
        if !self.settings.is_empty() {
            put!(text, "\n[settings]");
            for (name, value) in &self.settings {
                put!(text, "{name} = {}", quoted(value));
            }
        }
        for isns in &self.isns {
            put!(text, "\n[[isns]]\nserver = {}", quoted(&isns.server));
        }
        chap(
            &mut text,
            "discovery",
            &self.discovery.users,
            self.discovery.mutual.as_ref(),
        );
        for one in &self.groups {
            group(&mut text, one);
        }
        for one in &self.extents {
            extent(&mut text, one);
        }
        for one in &self.targets {
            target(&mut text, one);
        }
        text
    }
}

fn chap(text: &mut String, place: &str, users: &[ChapName], mutual: Option<&ChapName>) {
    let mut one = |head: String, user: &ChapName| {
        let name = quoted(&user.name);
        match user.secret_file.as_deref().map(quoted) {
            None => put!(text, "\n  {head}\n  name = {name}  {NO_SECRET}"),
            Some(file) => put!(text, "\n  {head}\n  name = {name}\n  secret_file = {file}"),
        }
    };
    for user in users {
        one(format!("[[{place}.user]]"), user);
    }
    if let Some(mutual) = mutual {
        one(format!("[{place}.mutual]"), mutual);
    }
}

fn group(text: &mut String, group: &Group) {
    put!(text, "\n[[group]]\nname = {}", quoted(&group.name));
    key(text, "", "any_initiator", group.any_initiator);
    list(text, "initiators", group.initiators.as_ref());
    list(text, "networks", group.networks.as_ref());
    key(text, "", "read_only", group.read_only);
    chap(text, "group", &group.users, group.mutual.as_ref());
}

fn extent(text: &mut String, extent: &Extent) {
    put!(text, "\n[[extent]]\nname = {}", quoted(&extent.name));
    key(
        text,
        "",
        "size",
        extent.size.map(|size| quoted(&size.to_string())),
    );
    key(text, "", "block_size", extent.block_size);
    list(text, "replicas", extent.replicas.as_ref());
    key(text, "", "preferred", extent.preferred.as_deref().map(quoted));
    let secondary = extent.secondary.map(|secondary| quoted(&secondary.to_string()));
    key(text, "", "secondary", secondary);
    key(text, "", "thin", extent.thin);
    key(text, "", "on_devices", extent.on_devices);
    key(text, "", "confirmed_reads", extent.confirmed_reads);
    key(text, "", "write_cache", extent.write_cache);
}

fn target(text: &mut String, target: &Target) {
    put!(text, "\n[[target]]\niqn = {}", quoted(&target.iqn));
    key(text, "", "restricted", target.restricted);
    key(text, "", "max_sessions", target.max_sessions);
    key(text, "", "redirect", target.redirect);
    luns(text, "  ", "target.lun", &target.luns);
    for Grant {
        name,
        own_luns,
        luns: own,
    } in &target.groups
    {
        put!(text, "\n  [[target.group]]\n  name = {}", quoted(name));
        key(text, "  ", "own_luns", *own_luns);
        luns(text, "    ", "target.group.lun", own);
    }
}

fn luns(text: &mut String, indent: &str, place: &str, luns: &[LunOf]) {
    for LunOf {
        lun,
        extent,
        read_only,
    } in luns
    {
        put!(
            text,
            "\n{indent}[[{place}]]\n{indent}lun = {lun}\n{indent}extent = {}",
            quoted(extent)
        );
        key(text, indent, "read_only", *read_only);
    }
}
