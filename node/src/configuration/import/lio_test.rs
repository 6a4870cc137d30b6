use super::super::super::read;
use super::*;

/// As targetcli writes it, shortened.
const SAVED: &str = r#"{
  "fabric_modules": [],
  "storage_objects": [
    {"aio": false, "alua_tpgs": [], "attributes": {"block_size": 4096, "emulate_tpu": 0}, "dev": "/dev/vg0/VM 1",
     "name": "VM 1", "plugin": "block", "readonly": false, "write_back": false, "wwn": "1d2e"},
    {"dev": "/srv/vm2.img", "name": "vm2", "plugin": "fileio", "size": 10737418240, "write_back": true},
    {"dev": "/srv/iso.img", "name": "vm-1", "plugin": "fileio", "readonly": true, "size": 1048576}
  ],
  "targets": [
    {"fabric": "iscsi", "wwn": "iqn.2003-01.org.linux-iscsi.Store:sn.1", "tpgs": [
      {"tag": 1, "enable": true, "attributes": {"authentication": 1, "generate_node_acls": 0},
       "luns": [{"index": 0, "storage_object": "/backstores/block/VM 1", "alias": "x"},
                {"index": 1, "storage_object": "/backstores/fileio/vm2"},
                {"index": 2, "storage_object": "/backstores/fileio/vm-1"},
                {"index": 3, "storage_object": "/backstores/fileio/gone"}],
       "node_acls": [
         {"node_wwn": "iqn.1998-01.com.vmware:esx2", "chap_userid": "esx", "chap_password": "correct-horse",
          "mapped_luns": [{"index": 0, "tpg_lun": 0, "write_protect": false}, {"index": 1, "tpg_lun": 1}, {"index": 2, "tpg_lun": 2}]},
         {"node_wwn": "iqn.1998-01.com.vmware:esx1", "chap_userid": "esx", "chap_password": "correct-horse",
          "mapped_luns": [{"index": 0, "tpg_lun": 0}, {"index": 1, "tpg_lun": 1}, {"index": 2, "tpg_lun": 2}]},
         {"node_wwn": "iqn.1994-05.com.redhat:backup", "chap_userid": "bk", "chap_password": "correct-horse",
          "chap_mutual_userid": "store", "chap_mutual_password": "another-secret",
          "mapped_luns": [{"index": 7, "tpg_lun": 1, "write_protect": true}]}],
       "portals": [{"ip_address": "0.0.0.0", "iser": false, "offload": false, "port": 3260}]}]},
    {"fabric": "iscsi", "wwn": "iqn.2003-01.org.linux-iscsi.store:open", "tpgs": [
      {"tag": 1, "enable": true, "attributes": {"authentication": 0, "generate_node_acls": 1, "demo_mode_write_protect": 0},
       "luns": [{"index": 0, "storage_object": "/backstores/fileio/vm2"}], "node_acls": [], "portals": []}]},
    {"fabric": "vhost", "wwn": "naa.500140512345678", "tpgs": []}
  ]
}"#;

#[test]
fn a_saveconfig_becomes_a_document() {
    let made = lio(SAVED).unwrap();
    let text = made.text("saveconfig.json");
    let document = read(&text).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"));
    let names: Vec<&str> = document
        .extents
        .iter()
        .map(|extent| extent.name.as_str())
        .collect();
    assert_eq!(names, ["vm-1", "vm-1-2", "vm2"]);
    let block = &document.extents[0];
    assert_eq!(
        (block.size, block.block_size),
        (None, Some(4096)),
        "a block device's size is not in the file"
    );
    let groups: Vec<(usize, &str)> = document
        .groups
        .iter()
        .map(|group| {
            (
                group.initiators.as_ref().map_or(0, Vec::len),
                group.users[0].name.as_str(),
            )
        })
        .collect();
    assert_eq!(
        groups,
        [(2, "esx"), (1, "bk")],
        "who is treated alike is one group"
    );
    let [open, store] = &document.targets[..] else {
        panic!("{text}")
    };
    assert_eq!((store.luns.len(), store.restricted), (3, Some(true)));
    assert_eq!(store.luns[2].read_only, Some(true), "a read-only backstore");
    assert_eq!(store.groups[0].own_luns, Some(false));
    let own = &store.groups[1].luns[0];
    assert_eq!(
        (own.lun, own.extent.as_str(), own.read_only),
        (7, "vm2", Some(true))
    );
    assert_eq!(
        (open.restricted, open.luns[0].read_only),
        (Some(false), Some(false))
    );
    for secret in ["correct-horse", "another-secret"] {
        assert!(!text.contains(secret), "{text}");
    }
    for note in [
        "extent vm-1: the data is in /dev/vg0/VM 1",
        "extent vm-1: its size is not in the file",
        "extent vm2: write_back is not taken over",
        "LUN 3 is left out: /backstores/fileio/gone",
        "portal 0.0.0.0:3260 has no counterpart",
        "target naa.500140512345678 is left out: its fabric is vhost",
    ] {
        assert!(
            text.contains(&format!("# - {note}")) || text.contains(note),
            "{note}\n{text}"
        );
    }
    assert!(
        text.starts_with("format = 1\n# Made of saveconfig.json."),
        "{text}"
    );
}

#[test]
fn demo_mode_keeps_its_write_protection() {
    let saved = |attributes: &str, user: &str| {
        format!(
            r#"{{"storage_objects": [{{"name": "d", "plugin": "fileio", "size": 1048576}}],
                "targets": [{{"fabric": "iscsi", "wwn": "iqn.2003-01.org.x:d", "tpgs": [{{"attributes": {{{attributes}}}, {user}
                "luns": [{{"index": 0, "storage_object": "/backstores/fileio/d"}}]}}]}}]}}"#
        )
    };
    let open = lio(&saved(r#""generate_node_acls": 1"#, ""))
        .unwrap()
        .configuration;
    assert_eq!(
        (open.targets[0].restricted, open.targets[0].luns[0].read_only),
        (Some(false), Some(true))
    );
    let attributes = r#""generate_node_acls": 1, "authentication": 1, "demo_mode_write_protect": 0"#;
    let asked = lio(&saved(attributes, r#""chap_userid": "u","#))
        .unwrap()
        .configuration;
    assert_eq!(asked.targets[0].restricted, Some(true));
    let group = &asked.groups[0];
    assert_eq!(
        (group.any_initiator, group.read_only, group.users.len()),
        (Some(true), Some(false), 1)
    );
}

#[test]
fn what_is_none_is_refused_without_showing_what_it_holds() {
    for text in [
        "",
        "{",
        "[]",
        "{}",
        "{\"targets\": 5}",
        "{\"storage_objects\": [{\"name\": 1}]}",
    ] {
        assert!(
            lio(text)
                .unwrap_err()
                .starts_with("this is no saveconfig.json of LIO"),
            "{text}"
        );
    }
    let fault =
        lio("{\"targets\": [{\"wwn\": \"x\", \"tpgs\": [{\"tag\": \"correct-horse\"}]}]}").unwrap_err();
    assert!(!fault.contains("horse"), "{fault}");
}
