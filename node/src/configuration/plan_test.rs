//! Differences, refusals and the order of steps.

use super::call::Call;
use super::document::tests::FULL;
use super::plan::Action;
use super::rig::Rig;
use crate::admin::access::AccessRequest;

/// The lines that are shown.
fn lines(rig: &Rig, text: &str, prune: bool) -> Vec<String> {
    let plan = rig.plan(&format!("format = 1\n{text}"), prune).unwrap();
    assert_eq!(plan.steps.is_empty(), plan.differences.is_empty());
    plan.differences.iter().map(ToString::to_string).collect()
}

fn refusal(rig: &Rig, text: &str) -> String {
    let faults = rig.plan(&format!("format = 1\n{text}"), false).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].clone()
}

const STORE: &str = "[[target]]\niqn = \"iqn.2026-11.example:store\"\n";

#[test]
fn the_second_time_nothing_is_to_change() {
    let rig = Rig::of(FULL);
    for prune in [false, true] {
        let plan = rig.plan(FULL, prune).unwrap();
        assert!(
            plan.differences.is_empty() && plan.steps.is_empty() && plan.notes.is_empty(),
            "{plan:?}"
        );
        let export = rig.configuration().to_toml();
        assert!(rig.plan(&export, prune).unwrap().steps.is_empty());
    }
}

#[test]
fn an_extent_on_devices_is_written_and_needs_no_second_word() {
    let text = "format = 1\n[[extent]]\nname = \"db\"\nsize = \"1GiB\"\non_devices = true\n";
    let plan = Rig::new().plan(text, false).unwrap();
    assert_eq!(
        plan.differences[0].to_string(),
        "create extent db: size 1GiB, block_size 512, replicas a+b+c, on_devices true"
    );
    let rig = Rig::of(text);
    let export = rig.configuration().to_toml();
    assert!(export.contains("thin = false\non_devices = true\n"), "{export}");
    for text in [
        text,
        &*export,
        &text.replace("on_devices", "thin").replace("true", "false"),
    ] {
        assert!(rig.plan(text, false).unwrap().steps.is_empty(), "{text}");
    }
}

#[test]
fn a_new_cluster_shows_one_line_for_each_object() {
    let plan = Rig::new().plan(FULL, false).unwrap();
    let lines: Vec<String> = plan.differences.iter().map(ToString::to_string).collect();
    let wanted = [
        "change setting lease-time: 600ms -> 700ms",
        "create iSNS server 192.0.2.5:3205",
        "create extent vm1: size 20GiB, block_size 512, replicas a+b, preferred b, thin false, write_cache true, secondary standby",
        "create extent vm2: size 1536KiB, block_size 4096, replicas a+b+c, preferred none, confirmed_reads true",
        "create CHAP user scout of discovery",
        "create group hosts: initiators iqn.2026-11.example:one iqn.2026-11.example:two, networks 10.1.0.0/16 192.0.2.7/32, read_only true",
        "create CHAP user host of group hosts",
        "create mutual CHAP of group hosts: name the \"target\"",
        "create target iqn.2026-11.example:store: restricted false -> true, max_sessions 0 -> 8, redirect false -> true",
        "create group hosts at iqn.2026-11.example:store",
        "create LUN 7 of iqn.2026-11.example:store for group hosts: extent vm2, read_only true",
        "create LUN 0 of iqn.2026-11.example:store: extent vm1",
        "create LUN 300 of iqn.2026-11.example:store: extent vm2, read_only true",
    ];
    assert_eq!(lines, wanted);
    assert!(plan.differences.iter().all(|one| one.action != Action::Delete));
}

/// Nobody sees at any time what the document does not let him see.
#[test]
fn a_new_target_is_closed_before_it_shows_anything() {
    let plan = Rig::new().plan(FULL, false).unwrap();
    let place = |is: &dyn Fn(&Call) -> bool| plan.steps.iter().position(|step| is(&step.call)).unwrap();
    let closed = place(&|call| {
        let Call::Access(AccessRequest::ChangeTarget { restricted, .. }) = call else {
            return false;
        };
        *restricted == Some(true)
    });
    let secret = place(&|call| matches!(call, Call::Secret(_)));
    let allowed = place(&|call| matches!(call, Call::Access(AccessRequest::Allow { .. })));
    let own = place(&|call| matches!(call, Call::Access(AccessRequest::MapGroupLun { .. })));
    let mapped = place(&|call| matches!(call, Call::MapLun(_)));
    assert!(
        secret < allowed && closed < allowed && allowed < own && own < mapped,
        "{plan:?}"
    );
}

#[test]
fn values_are_shown_old_and_new() {
    let rig = Rig::of(FULL);
    let extent = "[[extent]]\nname = \"vm1\"\nsize = \"30GiB\"\nreplicas = [\"a\", \"c\"]\nsecondary = \"non-optimized\"\n\
                  write_cache = false";
    assert_eq!(
        lines(&rig, extent, false),
        [
            "change extent vm1: size 20GiB -> 30GiB, replicas a+b -> a+c, preferred b -> none, secondary standby -> non-optimized, \
             write_cache true -> false"
        ]
    );
    let group = "[[group]]\nname = \"hosts\"\ninitiators = [\"iqn.2026-11.example:one\", \"iqn.2026-11.example:three\"]\nread_only = false";
    assert_eq!(
        lines(&rig, group, false),
        [
            "change group hosts: initiators -iqn.2026-11.example:two +iqn.2026-11.example:three, read_only true -> false"
        ]
    );
    let target = format!(
        "{STORE}restricted = false\nmax_sessions = 0\n[[target.lun]]\nlun = 300\nextent = \"vm2\"\nread_only = false"
    );
    assert_eq!(
        lines(&rig, &target, false),
        [
            "change target iqn.2026-11.example:store: restricted true -> false, max_sessions 8 -> 0",
            "change LUN 300 of iqn.2026-11.example:store: read_only true -> false",
        ]
    );
    let shares = format!("{STORE}[[target.group]]\nname = \"hosts\"\nown_luns = false");
    assert_eq!(
        lines(&rig, &shares, false),
        ["change group hosts at iqn.2026-11.example:store: own_luns true -> false"]
    );
}

#[test]
fn what_is_not_in_the_document_stays_unless_it_is_pruned() {
    let rig = Rig::of(FULL);
    let plan = rig.plan("format = 1", false).unwrap();
    assert!(plan.steps.is_empty(), "{plan:?}");
    assert_eq!(plan.notes.len(), 5, "{:?}", plan.notes);
    let mut rig = Rig::of(FULL);
    let plan = rig.plan("format = 1", true).unwrap();
    let shown: Vec<String> = plan.differences.iter().map(ToString::to_string).collect();
    let wanted = [
        "change setting lease-time: 700ms -> 600ms",
        "delete iSNS server 192.0.2.5:3205",
        "delete CHAP user scout of discovery",
        "delete group hosts",
        "delete LUN 0 of iqn.2026-11.example:store: extent vm1",
        "delete LUN 300 of iqn.2026-11.example:store: extent vm2",
        "delete target iqn.2026-11.example:store",
    ];
    assert_eq!(shown, wanted);
    assert_eq!(plan.notes.len(), 1);
    assert!(
        plan.notes[0].contains("extent vm1, vm2; --prune deletes no extent"),
        "{:?}",
        plan.notes
    );
    rig.carry_out(&plan);
    assert_eq!(rig.state.extents.len(), 2, "data is never pruned");
    assert!(rig.state.targets.is_empty() && rig.state.access.groups.is_empty());
    assert!(rig.plan("format = 1", true).unwrap().steps.is_empty());
}

#[test]
fn what_cannot_be_changed_in_place_is_refused_by_name() {
    let rig = Rig::of(FULL);
    let vm1 = |line: &str| format!("[[extent]]\nname = \"vm1\"\n{line}");
    let lun =
        |number: u32, extent: &str| format!("{STORE}[[target.lun]]\nlun = {number}\nextent = \"{extent}\"");
    let grant = |line: &str| format!("{STORE}[[target.group]]\nname = \"{line}");
    let cases = [
        (vm1("size = \"10GiB\""), "extent vm1: size = 10GiB: it has 20GiB, and an extent only grows"),
        (vm1("block_size = 4096"), "extent vm1: block_size = 4096: it has 512, which never changes"),
        (vm1("thin = true"), "extent vm1: thin = true: it was made with false, which never changes"),
        (vm1("on_devices = true"), "extent vm1: on_devices = true: it was made with false, which never changes"),
        (
            "[[extent]]\nname = \"new\"\nsize = \"1GiB\"\nthin = true\non_devices = true".to_owned(),
            "extent new: thin = true: an extent on devices has all of its space",
        ),
        (vm1("replicas = [\"a\", \"d\"]"), "extent vm1: replicas: there is no node 'd'; the data nodes are a, b, c"),
        (vm1("replicas = [\"w\"]"), "extent vm1: replicas: node 'w' is a witness, and holds no data"),
        (vm1("preferred = \"c\""), "extent vm1: preferred = 'c': it is one of a, b, or 'none'"),
        (vm1("size = \"21474836992\""), ""),
        (
            "[[extent]]\nname = \"vm2\"\nsize = \"2097664\"".to_owned(),
            "extent vm2: size = 2097664: it is a multiple of the block size, 4096 bytes",
        ),
        ("[[extent]]\nname = \"new\"".to_owned(), "extent new: size is missing"),
        (lun(0, "vm2"), "target iqn.2026-11.example:store: lun 0: extent = 'vm2': it stands for vm1"),
        (lun(5, "vm1"), "target iqn.2026-11.example:store: lun 5: extent 'vm1' is LUN 0 of this map already"),
        (lun(5, "vm9"), "target iqn.2026-11.example:store: lun 5: there is no extent 'vm9'"),
        (grant("others\""), "target iqn.2026-11.example:store: group others: there is no such group"),
        (
            "[[discovery.user]]\nname = \"new\"".to_owned(),
            "CHAP user new of discovery: secret_file is missing",
        ),
        (
            "[[group]]\nname = \"hosts\"\n[group.mutual]\nname = \"other\"".to_owned(),
            "mutual CHAP of group hosts: secret_file is missing",
        ),
        (
            "[[group]]\nname = \"g\"\n[[target]]\niqn = \"iqn.2026-11.e:new\"\n[[target.group]]\nname = \"g\"\nown_luns = true".to_owned(),
            "target iqn.2026-11.e:new, group g: own_luns = true without LUNs",
        ),
    ];
    for (text, wanted) in cases {
        if wanted.is_empty() {
            assert_eq!(lines(&rig, &text, false).len(), 1, "{text}");
        } else {
            let fault = refusal(&rig, &text);
            assert!(fault.starts_with(wanted), "{text}: {fault}");
        }
    }
    let kept = format!("format = 1\n{}", grant("hosts\""));
    let fault = rig.plan(&kept, true).unwrap_err().join("; ");
    assert!(
        fault.contains("group hosts: the group itself is not in the document"),
        "{fault}"
    );
}

/// An extent has one place in a map: it moves where the old one is deleted first.
#[test]
fn an_extent_moves_to_another_lun_with_prune() {
    let mut rig = Rig::of(FULL);
    let text = format!(
        "format = 1\n[[group]]\nname = \"hosts\"\n{STORE}[[target.lun]]\nlun = 5\nextent = \"vm1\"\n"
    );
    let plan = rig.plan(&text, true).unwrap();
    rig.carry_out(&plan);
    assert!(rig.plan(&text, true).unwrap().steps.is_empty());
    let target = &rig.configuration().targets[0];
    assert_eq!((target.luns.len(), target.luns[0].lun), (1, 5));
    assert!(
        target.groups.is_empty() && target.restricted == Some(true),
        "no target opens by itself"
    );
}

#[test]
fn an_open_target_with_groups_is_open_in_the_end() {
    let text = format!(
        "format = 1\n[[group]]\nname = \"g\"\n{STORE}restricted = false\n[[target.group]]\nname = \"g\""
    );
    let rig = Rig::of(&text);
    assert_eq!(rig.configuration().targets[0].restricted, Some(false));
    assert!(rig.plan(&text, false).unwrap().steps.is_empty());
}
