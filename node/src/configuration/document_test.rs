use super::super::rig::Rig;
use super::*;

/// One of everything.
pub(in crate::configuration) const FULL: &str = r#"
format = 1
[settings]
lease-time = "700ms"
[[isns]]
server = "192.0.2.5:3205"
[[discovery.user]]
name = "scout"
secret_file = "scout"
[[group]]
name = "hosts"
initiators = ["iqn.2026-11.example:Two", "iqn.2026-11.example:one"]
networks = ["10.1.0.0/16", "192.0.2.7"]
read_only = true
[[group.user]]
name = "host"
secret_file = "host"
[group.mutual]
name = "the \"target\""
secret_file = "target"
[[extent]]
name = "vm1"
size = "20GiB"
replicas = ["b", "a"]
preferred = "b"
secondary = "standby"
thin = false
write_cache = true
[[extent]]
name = "vm2"
size = "1536KiB"
block_size = 4096
confirmed_reads = true
preferred = "none"
[[target]]
iqn = "iqn.2026-11.example:store"
max_sessions = 8
redirect = true
[[target.lun]]
lun = 0
extent = "vm1"
[[target.lun]]
lun = 300
extent = "vm2"
read_only = true
[[target.group]]
name = "hosts"
[[target.group.lun]]
lun = 7
extent = "vm2"
read_only = true
"#;

#[test]
fn what_is_written_is_read_back_the_same() {
    let configuration = Rig::of(FULL).configuration();
    let text = configuration.to_toml();
    assert_eq!(read(&text).unwrap(), configuration, "{text}");
    assert_eq!(read(&text).unwrap().to_toml(), text);
    assert!(text.starts_with("format = 1\n"), "{text}");
    assert_eq!(
        text.matches("its secret stays in the cluster").count(),
        3,
        "{text}"
    );
    for line in [
        "size = \"20GiB\"",
        "size = \"1536KiB\"",
        "replicas = [\"a\", \"b\"]",
        "preferred = \"none\"",
        "secondary = \"standby\"",
        "  \"iqn.2026-11.example:two\",",
        "networks = [\n",
        "name = \"host\"",
        "    [[target.group.lun]]",
        "restricted = true",
        "failback-after = \"60s\"",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn an_empty_cluster_has_its_settings_alone() {
    let text = Rig::new().configuration().to_toml();
    assert!(
        text.ends_with("\n[settings]\nfailback-after = \"60s\"\nlease-time = \"600ms\"\n"),
        "{text}"
    );
    assert!(read("format = 1").is_ok());
}

#[test]
fn a_newer_format_is_refused_in_one_line() {
    let faults = read("format = 2\nwhatever = true").unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0].starts_with("format = 2: this release reads format 1"),
        "{faults:?}"
    );
    for text in ["", "[settings]", "format = \"1\"", "format = 0"] {
        assert!(read(text).unwrap_err()[0].starts_with("format"), "{text}");
    }
}

/// Documents below their first line, and how the first word about them begins.
const FAULTS: &[(&str, &str)] = &[
    ("[settings]\nlease-time = \"1s", "line 3"),
    ("extents = []", "line 2, extents: unknown field `extents`"),
    (
        "[[extent]]\nname = \"x\"\nsiez = \"1G\"",
        "line 4, siez: unknown field `siez`",
    ),
    (
        "[[extent]]\nname = \"x\"\nsize = 5",
        "line 4, size: invalid type: integer",
    ),
    (
        "[[extent]]\nname = \"x\"\nsize = \"1X\"",
        "line 4, size: '1X' is not a size",
    ),
    (
        "[[extent]]\nname = \"x\"\nsize = \"1K\"",
        "extent x: size = 1KiB: an extent has 1MiB to 16TiB",
    ),
    ("[[extent]]\nname = \"X\"", "extent: name = 'X' is no name here"),
    (
        "[[extent]]\nname = \"x\"\nblock_size = 520",
        "extent x: block_size = 520",
    ),
    (
        "[[extent]]\nname = \"x\"\nreplicas = []",
        "extent x: replicas = []",
    ),
    (
        "[[extent]]\nname = \"x\"\nreplicas = [\"a\", \"a\"]",
        "extent x: replicas: 'a' is there twice",
    ),
    (
        "[[extent]]\nname = \"x\"\nreplicas = [\"a\"]\npreferred = \"b\"",
        "extent x: preferred = 'b'",
    ),
    (
        "[[extent]]\nname = \"x\"\nsecondary = \"off\"",
        "line 4, secondary: unknown variant",
    ),
    (
        "[[extent]]\nname = \"x\"\n[[extent]]\nname = \"x\"",
        "extent: 'x' is there twice",
    ),
    (
        "[[target]]\niqn = \"iqn.2026\"",
        "target iqn.2026: iqn: an iqn name reads",
    ),
    (
        "[[target]]\niqn = \"iqn.2026-11.e:a\"\n[[target]]\niqn = \"iqn.2026-11.e:A\"",
        "target: 'iqn.2026-11.e:a' is there twice",
    ),
    (
        "[[group]]\nname = \"g\"\ninitiators = [\"me\"]",
        "group g: initiators: 'me': an iSCSI name starts with",
    ),
    (
        "[[group]]\nname = \"g\"\nnetworks = [\"10.1.2.3/16\"]",
        "group g: networks: '10.1.2.3/16' is no network",
    ),
    (
        "[[group]]\nname = \"g\"\n[[group.user]]\nname = \" u\"",
        "group g: name = ' u': a CHAP name",
    ),
    (
        "[[discovery.user]]\nname = \"u\"\n[[discovery.user]]\nname = \"u\"",
        "discovery: user: 'u' is there twice",
    ),
    (
        "[settings]\nlease-time = \"1ms\"",
        "settings: lease-time = 1ms: allowed is 300ms to 5s",
    ),
    (
        "[settings]\nleases = \"1s\"",
        "settings: there is no setting 'leases'",
    ),
    (
        "[[isns]]\nserver = \"192.0.2.5\"",
        "isns: server = '192.0.2.5': it is ADDRESS:PORT",
    ),
];

#[test]
fn every_fault_names_its_field() {
    for (text, wanted) in FAULTS {
        let faults = read(&format!("format = 1\n{text}")).unwrap_err();
        assert!(
            faults.iter().any(|fault| fault.starts_with(*wanted)),
            "{text}: {faults:?}"
        );
        assert!(faults.iter().all(|fault| !fault.contains('\n')), "{faults:?}");
    }
}

#[test]
fn luns_are_numbers_that_are_there_once() {
    let fault = |luns: &str| {
        let text = format!("format = 1\n[[target]]\niqn = \"iqn.2026-11.e:a\"\n{luns}");
        read(&text).unwrap_err().join("; ")
    };
    let lun = |number: u32, extent: &str| format!("[[target.lun]]\nlun = {number}\nextent = \"{extent}\"\n");
    assert!(fault(&lun(16384, "x")).contains("lun = 16384: a LUN is a number from 0 to 16383"));
    assert!(fault(&(lun(1, "x") + &lun(1, "y"))).contains("lun = 1 is there twice"));
    assert!(fault(&(lun(1, "x") + &lun(2, "x"))).contains("extent = 'x' is there twice"));
    let own =
        "[[target.group]]\nname = \"g\"\nown_luns = false\n[[target.group.lun]]\nlun = 1\nextent = \"x\"";
    assert!(fault(own).contains("group g: own_luns = false"));
}

#[test]
fn a_secret_that_is_written_into_the_document_is_not_shown() {
    let text = "format = 1\n[[discovery.user]]\nname = \"u\"\nsecret = \"correct horse\"";
    let faults = read(text).unwrap_err();
    assert!(faults[0].contains("unknown field `secret`"), "{faults:?}");
    assert!(!faults[0].contains("horse"), "{faults:?}");
}

#[test]
fn many_faults_are_told_in_part() {
    let extents: String = (0..50)
        .map(|n| format!("[[extent]]\nname = \"X{n}\"\n"))
        .collect();
    let faults = read(&format!("format = 1\n{extents}")).unwrap_err();
    assert_eq!(faults.len(), FAULTS_MAX + 1);
    assert_eq!(faults[FAULTS_MAX], "and 30 more");
}

#[test]
fn sizes_are_written_exactly() {
    for (bytes, text) in [
        (1 << 30, "1GiB"),
        ((1 << 30) + 512, "1073742336"),
        (3 << 19, "1536KiB"),
        (5 << 40, "5TiB"),
    ] {
        assert_eq!(Size(bytes).to_string(), text);
        assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes);
    }
}

/// The page shows a document that can be read, and tells of every key.
#[test]
fn the_page_tells_of_every_key() {
    let page = include_str!("../../../docs/configuration.md");
    let (_, rest) = page.split_once("```toml\n").unwrap();
    let (text, table) = rest.split_once("```\n").unwrap();
    let document = read(text).unwrap();
    let whole = Rig::of(FULL).configuration();
    for configuration in [&document, &whole] {
        let json = serde_json::to_value(configuration).unwrap();
        let lists = ["group", "extent", "target", "isns"].map(|list| &json[list][0]);
        let keys = lists
            .iter()
            .filter_map(|object| object.as_object())
            .flat_map(|object| object.keys());
        for key in keys {
            assert!(table.contains(&format!(".{key}`")), "{key} is not in the table");
        }
    }
}
