use proptest::prelude::*;

use super::*;

#[test]
fn good_names_pass_in_lower_case() {
    for good in [
        "iqn.1993-08.org.debian:01:abc",
        "iqn.2026-11.example",
        "iqn.2001-04.com.example:storage:diskarrays-sn-a8675309",
        "eui.02004567a425678d",
        "naa.52004567ba64678d",
        "naa.62004567ba64678d0123456789abcdef",
    ] {
        assert_eq!(good.parse::<IscsiName>().unwrap().as_str(), good);
    }
    assert_eq!(
        "IQN.2026-11.Example:A".parse::<IscsiName>().unwrap().as_str(),
        "iqn.2026-11.example:a"
    );
}

#[test]
fn bad_names_say_why() {
    let cases = [
        ("", NameError::Length(0)),
        ("disk", NameError::Type),
        ("iqn.2026-13.example", NameError::Iqn),
        ("iqn.2026-11.", NameError::Iqn),
        ("iqn.2026-11.a..b", NameError::Iqn),
        ("iqn.2026-1", NameError::Iqn),
        ("iqn.2026-11.example:a b", NameError::Character(' ')),
        ("iqn.2026-11.example_x", NameError::Character('_')),
        ("eui.123", NameError::Digits),
        ("naa.zzzz4567ba64678d", NameError::Digits),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<IscsiName>(), Err(error), "{text}");
    }
    assert_eq!("i".repeat(224).parse::<IscsiName>(), Err(NameError::Length(224)));
}

#[test]
fn initiators_names_as_they_are_in_use() {
    for (given, kept) in [
        ("iqn.1993-08.org.debian:01:abc", "iqn.1993-08.org.debian:01:abc"),
        ("iqn.2008-11.org.linux-kvm", "iqn.2008-11.org.linux-kvm"),
        (
            "iqn.2008-11.org.linux-kvm:My_VM(2)",
            "iqn.2008-11.org.linux-kvm:my_vm(2)",
        ),
        (
            "iqn.1991-05.com.microsoft:HOST_1.corp",
            "iqn.1991-05.com.microsoft:host_1.corp",
        ),
        (
            "iqn.1998-01.com.vmware:esx/07#a+b@c=d",
            "iqn.1998-01.com.vmware:esx/07#a+b@c=d",
        ),
        ("iqn.host", "iqn.host"),
        ("IQN.2008-11.org.linux-kvm:A", "iqn.2008-11.org.linux-kvm:a"),
        ("eui.02004567A425678D", "eui.02004567a425678d"),
        ("naa.x", "naa.x"),
    ] {
        assert_eq!(IscsiName::of_initiator(given).unwrap().as_str(), kept);
    }
}

#[test]
fn what_is_no_initiators_name_says_why() {
    let cases = [
        ("", NameError::Length(0)),
        ("host", NameError::Type),
        ("iq", NameError::Type),
        ("iqn", NameError::Type),
        ("iqn:host", NameError::Type),
        ("iqn.", NameError::Empty),
        ("eui.", NameError::Empty),
        ("iqn.a b", NameError::InitiatorCharacter(' ')),
        ("iqn.a\tb", NameError::InitiatorCharacter('\t')),
        ("iqn.a\n", NameError::InitiatorCharacter('\n')),
        ("iqn.a\0", NameError::InitiatorCharacter('\0')),
        ("iqn.\x7f", NameError::InitiatorCharacter('\x7f')),
        ("iqn.a,i,0x1", NameError::InitiatorCharacter(',')),
        ("iqn.\"a", NameError::InitiatorCharacter('"')),
        ("iqn.'a", NameError::InitiatorCharacter('\'')),
        ("iqn.`a", NameError::InitiatorCharacter('`')),
        ("iqn.a\u{202e}b", NameError::InitiatorCharacter('\u{202e}')),
        ("\u{e9}\u{e9}\u{e9}\u{e9}", NameError::Type),
    ];
    for (text, error) in cases {
        assert_eq!(IscsiName::of_initiator(text), Err(error), "{text:?}");
    }
    // What cannot be seen is not written into a log as it is.
    assert!(!NameError::InitiatorCharacter('\n').to_string().contains('\n'));
    assert_eq!(
        IscsiName::of_initiator(&format!("iqn.{}", "_".repeat(219)))
            .unwrap()
            .as_str()
            .len(),
        223
    );
    assert_eq!(
        IscsiName::of_initiator(&format!("iqn.{}", "_".repeat(220))),
        Err(NameError::Length(224))
    );
}

#[test]
fn a_name_that_grows_in_lower_case_is_measured_afterwards() {
    // U+023A takes two bytes, its lower case three.
    let text = format!("iqn.2026-11.example:{}", "\u{23a}".repeat(101));
    assert_eq!(text.len(), 222);
    assert_eq!(text.parse::<IscsiName>(), Err(NameError::Length(323)));
    assert_eq!(IscsiName::of_initiator(&text), Err(NameError::Length(323)));
}

proptest! {
    #[test]
    fn every_strict_name_is_an_initiators_name_and_reads_back(text in "(iqn\\.20[0-9]{2}-0[1-9]\\.)?[a-zA-Z0-9.:_\u{23a}é ,'-]{0,40}") {
        let initiator = IscsiName::of_initiator(&text);
        if let Ok(strict) = text.parse::<IscsiName>() {
            prop_assert_eq!(initiator.as_ref(), Ok(&strict));
        }
        if let Ok(name) = initiator {
            prop_assert_eq!(&IscsiName::of_initiator(name.as_str()).unwrap(), &name);
            prop_assert!(name.as_str().len() <= 223);
        }
    }
}

#[test]
fn a_nexus_reads_back_with_the_initiators_name_and_a_strict_target() {
    let nexus = Nexus {
        initiator: IscsiName::of_initiator("iqn.2008-11.org.linux-kvm:my_vm").unwrap(),
        isid: Isid([0, 2, 0x3d, 1, 0, 0]),
        target: "iqn.2026-11.example:disk".parse().unwrap(),
        tpg: crate::TpgId(1),
    };
    let text = serde_json::to_string(&nexus).unwrap();
    assert_eq!(serde_json::from_str::<Nexus>(&text).unwrap(), nexus);
    assert!(serde_json::from_str::<Nexus>(&text.replace(":disk", ":my_disk")).is_err());
    assert!(serde_json::from_str::<Nexus>(&text.replace("my_vm", "my vm")).is_err());
}
