//! Logins as initiators in use send them, and logins that go wrong.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_types::{IscsiName, Isid, Mono, TpgId};

use super::login_client::{Answer, Client, F, NAMES, O, S};
use crate::directory::Access;
use crate::error::Fatal;
use crate::negotiate::Parameters;
use crate::pair::{directory, group, initiator_name, origin};
use crate::pdu::{Bhs, LoginStatus, Opcode, Stage};
use crate::session::{SessionKind, Tsih};
use crate::target::{Connection, DigestPolicy, Event, PortalConfig};

#[test]
fn linux_open_iscsi_logs_in() {
    let mut client = Client::usual();
    client.expect(
        S,
        Some(O),
        "InitiatorName=iqn.2026-11.example:host
         InitiatorAlias=host
         TargetName=iqn.2026-11.example:disk
         SessionType=Normal
         AuthMethod=None",
        "TargetPortalGroupTag=1
         AuthMethod=None",
    );
    client.expect(
        O,
        Some(F),
        "HeaderDigest=None
         DataDigest=None
         DefaultTime2Wait=2
         DefaultTime2Retain=0
         IFMarker=No
         OFMarker=No
         ErrorRecoveryLevel=0
         InitialR2T=No
         ImmediateData=Yes
         MaxBurstLength=16776192
         FirstBurstLength=262144
         MaxOutstandingR2T=1
         MaxConnections=1
         DataPDUInOrder=Yes
         DataSequenceInOrder=Yes
         MaxRecvDataSegmentLength=262144",
        "HeaderDigest=None
         DataDigest=None
         DefaultTime2Wait=2
         DefaultTime2Retain=0
         IFMarker=No
         OFMarker=No
         ErrorRecoveryLevel=0
         InitialR2T=No
         ImmediateData=Yes
         MaxBurstLength=1048576
         MaxOutstandingR2T=1
         MaxConnections=1
         DataPDUInOrder=Yes
         DataSequenceInOrder=Yes
         FirstBurstLength=262144
         MaxRecvDataSegmentLength=262144",
    );
    let parameters = client.parameters();
    assert_eq!(parameters.send_max, 262_144);
    assert!(!parameters.initial_r2t && parameters.immediate_data);
}

/// libiscsi (its tools and QEMU) names itself again in the operational stage.
#[test]
fn libiscsi_and_qemu_log_in() {
    let mut client = Client::usual();
    client.expect(
        S,
        Some(O),
        "InitiatorName=iqn.2026-11.example:host
         InitiatorAlias=disk
         TargetName=iqn.2026-11.example:disk
         SessionType=Normal
         AuthMethod=None",
        "TargetPortalGroupTag=1
         AuthMethod=None",
    );
    client.expect(
        O,
        Some(F),
        "InitiatorName=iqn.2026-11.example:host
         HeaderDigest=None,CRC32C
         DataDigest=None,CRC32C
         InitialR2T=No
         ImmediateData=Yes
         MaxBurstLength=262144
         FirstBurstLength=262144
         MaxRecvDataSegmentLength=262144
         DataPDUInOrder=Yes
         DefaultTime2Wait=2
         DefaultTime2Retain=0
         IFMarker=No
         OFMarker=No
         MaxConnections=1
         MaxOutstandingR2T=1
         ErrorRecoveryLevel=0
         DataSequenceInOrder=Yes",
        "HeaderDigest=None
         DataDigest=None
         InitialR2T=No
         ImmediateData=Yes
         MaxBurstLength=262144
         DataPDUInOrder=Yes
         DefaultTime2Wait=2
         DefaultTime2Retain=0
         IFMarker=No
         OFMarker=No
         MaxConnections=1
         MaxOutstandingR2T=1
         ErrorRecoveryLevel=0
         DataSequenceInOrder=Yes
         FirstBurstLength=262144
         MaxRecvDataSegmentLength=262144",
    );
}

/// QEMU names itself after the virtual machine, whatever that is called, and again in the operational stage; upper case is the same name.
#[test]
fn names_of_initiators_are_taken_as_they_are_in_use() {
    let names =
        |name: &str| format!("InitiatorName={name}\nTargetName=iqn.2026-11.example:disk\nSessionType=Normal");
    let given = "iqn.2008-11.org.linux-kvm:My_VM(2)";
    let mut client = Client::usual();
    client.accept = false;
    client.expect(
        S,
        Some(O),
        &format!("{}\nAuthMethod=None", names(given)),
        "TargetPortalGroupTag=1\nAuthMethod=None",
    );
    let again = format!("InitiatorName={}", given.to_uppercase());
    assert_eq!(client.say(O, Some(F), &again), None);
    let Some(Event::Login(login)) = client.connection.poll_event() else {
        panic!("no login");
    };
    assert_eq!(login.initiator.as_str(), "iqn.2008-11.org.linux-kvm:my_vm(2)");
    // Another name later on is still another one.
    let mut client = Client::usual();
    client.say(S, Some(O), &names(given)).unwrap();
    let other = "InitiatorName=iqn.2008-11.org.linux-kvm:My_VM(3)";
    client.refused(O, Some(F), other, LoginStatus::INITIATOR_ERROR);
    for bad in ["iqn.a b", "iqn.a,b", "iqn.\"a", "iqn.", "vm_1", "iqn.a\u{7f}"] {
        Client::usual().refused(S, Some(O), &names(bad), LoginStatus::INITIATOR_ERROR);
    }
    // Targets' names stay strict.
    let target = "InitiatorName=iqn.2026-11.example:host\nTargetName=iqn.2026-11.example:my_disk";
    Client::usual().refused(S, Some(O), target, LoginStatus::INITIATOR_ERROR);
}

/// vSphere's software initiator offers CHAP besides None, and data digests.
#[test]
fn esxi_logs_in() {
    let mut client = Client::usual();
    client.expect(
        S,
        Some(O),
        "InitiatorName=iqn.2026-11.example:host
         TargetName=iqn.2026-11.example:disk
         SessionType=Normal
         AuthMethod=CHAP,None",
        "TargetPortalGroupTag=1
         AuthMethod=None",
    );
    client.expect(
        O,
        Some(F),
        "HeaderDigest=CRC32C,None
         DataDigest=CRC32C,None
         MaxRecvDataSegmentLength=131072
         DefaultTime2Wait=0
         DefaultTime2Retain=0
         InitialR2T=Yes
         ImmediateData=Yes
         MaxBurstLength=262144
         FirstBurstLength=262144
         MaxOutstandingR2T=1
         ErrorRecoveryLevel=0",
        "HeaderDigest=CRC32C
         DataDigest=CRC32C
         DefaultTime2Wait=2
         DefaultTime2Retain=0
         InitialR2T=Yes
         ImmediateData=Yes
         MaxBurstLength=262144
         MaxOutstandingR2T=1
         ErrorRecoveryLevel=0
         FirstBurstLength=262144
         MaxRecvDataSegmentLength=262144",
    );
    let parameters = client.parameters();
    assert!(parameters.digests.header && parameters.digests.data);
}

/// Windows asks for ErrorRecoveryLevel 2, several connections and obsolete markers, and gets the least of each.
#[test]
fn windows_logs_in() {
    let mut client = Client::usual();
    client.expect(
        S,
        Some(O),
        "InitiatorName=iqn.2026-11.example:host
         SessionType=Normal
         TargetName=iqn.2026-11.example:disk
         AuthMethod=None",
        "TargetPortalGroupTag=1
         AuthMethod=None",
    );
    client.expect(
        O,
        Some(F),
        "MaxConnections=8
         InitialR2T=No
         ImmediateData=Yes
         MaxRecvDataSegmentLength=65536
         MaxBurstLength=262144
         FirstBurstLength=65536
         DefaultTime2Wait=0
         DefaultTime2Retain=60
         MaxOutstandingR2T=16
         DataPDUInOrder=No
         DataSequenceInOrder=No
         ErrorRecoveryLevel=2
         HeaderDigest=None,CRC32C
         DataDigest=None,CRC32C
         OFMarkInt=1~65535
         X-com.example.unknown=1",
        "X-com.example.unknown=NotUnderstood
         MaxConnections=1
         InitialR2T=No
         ImmediateData=Yes
         MaxBurstLength=262144
         DefaultTime2Wait=2
         DefaultTime2Retain=0
         MaxOutstandingR2T=4
         DataPDUInOrder=Yes
         DataSequenceInOrder=Yes
         ErrorRecoveryLevel=0
         HeaderDigest=None
         DataDigest=None
         OFMarkInt=Reject
         FirstBurstLength=65536
         MaxRecvDataSegmentLength=262144",
    );
}

#[test]
fn the_security_stage_can_be_skipped() {
    let mut client = Client::usual();
    client.expect(
        O,
        Some(F),
        NAMES,
        "TargetPortalGroupTag=1\nMaxRecvDataSegmentLength=262144",
    );
    // And the operational one: then the defaults hold, ours of 8192 bytes among them.
    let mut client = Client::usual();
    client.expect(S, Some(F), NAMES, "TargetPortalGroupTag=1");
    assert_eq!(client.parameters(), Parameters::default());
}

#[test]
fn an_initiator_may_take_its_time() {
    let mut client = Client::usual();
    client.expect(S, None, NAMES, "TargetPortalGroupTag=1");
    client.expect(S, None, "AuthMethod=None", "AuthMethod=None");
    client.expect(S, Some(O), "", "");
    client.expect(
        O,
        None,
        "MaxBurstLength=4096",
        "MaxBurstLength=4096\nMaxRecvDataSegmentLength=262144",
    );
    client.expect(O, None, "FirstBurstLength=8192", "FirstBurstLength=4096");
    client.expect(O, Some(F), "", "");
    assert_eq!(client.parameters().first_burst_length, 4096);
}

#[test]
fn text_may_go_on_in_the_next_request() {
    let mut client = Client::usual();
    client.request.more = true;
    let text: String = NAMES
        .lines()
        .map(str::trim)
        .flat_map(|line| [line, "\0"])
        .collect();
    let (first, second) = text.split_at(40);
    client.request.current = O;
    client.request.next = O;
    let answer = client.send(client.request.emit(), Bytes::from(first.to_owned()));
    let empty = Answer {
        status: LoginStatus::SUCCESS,
        transit: None,
        keys: vec![],
    };
    assert_eq!(answer, Some(empty));
    client.request.more = false;
    client.request.transit = true;
    client.request.next = F;
    let answer = client.send(client.request.emit(), Bytes::from(second.to_owned()));
    assert_eq!(answer.map(|answer| answer.transit), Some(Some(F)));
}

#[test]
fn discovery_logs_in_without_a_target() {
    let mut client = Client::usual();
    client.accept = false;
    client.say(
        O,
        Some(F),
        "InitiatorName=iqn.2026-11.example:host\nSessionType=Discovery",
    );
    let Some(Event::Login(login)) = client.connection.poll_event() else {
        panic!("{:?}", client.fatal);
    };
    assert_eq!(login.kind, SessionKind::Discovery);
    assert!(client.connection.accept_login(Tsih(9), Mono::ZERO));
    let answer = client.answer().unwrap();
    assert_eq!(
        answer.keys,
        ["MaxRecvDataSegmentLength=262144"],
        "no portal group tag"
    );
}

#[test]
fn wrong_logins_get_the_right_status() {
    let missing = LoginStatus::MISSING_PARAMETER;
    let bad = LoginStatus::INITIATOR_ERROR;
    let cases: &[(Stage, Option<Stage>, &str, LoginStatus)] = &[
        (S, Some(O), "SessionType=Normal", missing),
        (S, Some(O), "InitiatorName=iqn.2026-11.example:host", missing),
        (S, Some(O), "InitiatorName=host\nSessionType=Discovery", bad),
        (
            S,
            Some(O),
            "InitiatorName=iqn.2026-11.example:host\nSessionType=Odd",
            LoginStatus::SESSION_TYPE,
        ),
        (
            S,
            Some(O),
            "InitiatorName=iqn.2026-11.example:host\nTargetName=iqn.2026-11.example:other",
            LoginStatus::NOT_FOUND,
        ),
        (S, Some(O), "no text", bad),
        (S, Some(S), NAMES, bad),
        (O, Some(O), NAMES, bad),
        (O, Some(S), NAMES, bad),
        (F, None, NAMES, bad),
        (O, Some(Stage(2)), NAMES, bad),
    ];
    for (current, next, keys, status) in cases {
        Client::usual().refused(*current, *next, keys, *status);
    }
}

#[test]
fn chap_alone_is_refused_as_authentication_failure() {
    let mut client = Client::usual();
    client.say(S, None, NAMES);
    client.refused(S, Some(O), "AuthMethod=CHAP", LoginStatus::AUTHENTICATION_FAILED);
}

#[test]
fn who_may_not_enter_is_told_so() {
    let mut directory = directory();
    for entry in directory.targets.values_mut() {
        let other: IscsiName = "iqn.2026-11.example:other".parse().unwrap();
        entry.access = Access::Groups(vec![group(other)]);
    }
    let mut client = Client::new(PortalConfig::new(TpgId(1)), directory.clone());
    client.refused(S, Some(O), NAMES, LoginStatus::NOT_ALLOWED);
    for entry in directory.targets.values_mut() {
        entry.access = Access::Groups(vec![group(initiator_name())]);
    }
    let mut client = Client::new(PortalConfig::new(TpgId(1)), directory);
    client.expect(S, Some(O), NAMES, "TargetPortalGroupTag=1");
}

/// I8: a node that has not caught up does not call a target missing; it closes.
#[test]
fn i8_a_target_that_may_exist_is_not_called_missing() {
    let mut directory = directory();
    directory.authoritative = false;
    let mut client = Client::new(PortalConfig::new(TpgId(1)), directory.clone());
    let other = "InitiatorName=iqn.2026-11.example:host\nTargetName=iqn.2026-11.example:other";
    assert_eq!(client.say(S, Some(O), other), None, "no answer");
    assert!(matches!(client.fatal, Some(Fatal::TargetUnknown(_))));
    // Nor one that this portal group is not known to have.
    let mut client = Client::new(PortalConfig::new(TpgId(9)), directory);
    assert_eq!(client.say(S, Some(O), NAMES), None);
}

#[test]
fn the_rules_of_the_phase_are_kept() {
    let bad = LoginStatus::INITIATOR_ERROR;
    let mut client = Client::usual();
    client.request.version_min = 1;
    client.refused(S, Some(O), NAMES, LoginStatus::UNSUPPORTED_VERSION);
    let mut client = Client::usual();
    client.say(S, Some(O), NAMES);
    client.refused(S, Some(O), "", bad);
    let mut client = Client::usual();
    client.say(S, Some(O), NAMES);
    client.request.isid = Isid([1; 6]);
    client.refused(O, Some(F), "", bad);
    let mut client = Client::usual();
    client.say(S, Some(O), NAMES);
    client.refused(O, Some(F), "TargetName=iqn.2026-11.example:other", bad);
    let mut client = Client::usual();
    client.say(S, Some(O), NAMES);
    client.refused(O, Some(F), "AuthMethod=None", bad);
    let mut client = Client::usual();
    client.say(S, Some(O), NAMES);
    client.say(O, None, "MaxBurstLength=4096");
    client.refused(O, Some(F), "MaxBurstLength=8192", bad);
    let mut client = Client::usual();
    client.request.more = true;
    client.refused(S, Some(O), NAMES, bad);
}

#[test]
fn required_digests_are_insisted_on() {
    let mut config = PortalConfig::new(TpgId(1));
    config.offer.header_digest = DigestPolicy::Always;
    let mut client = Client::new(config.clone(), directory());
    client.say(S, Some(O), NAMES);
    client.refused(O, Some(F), "HeaderDigest=None", LoginStatus::INITIATOR_ERROR);
    let mut client = Client::new(config, directory());
    client.refused(O, Some(F), NAMES, LoginStatus::INITIATOR_ERROR);
}

#[test]
fn endless_logins_end() {
    let mut client = Client::usual();
    for _ in 0..32 {
        assert!(client.say(S, None, NAMES).is_some());
    }
    client.refused(S, None, NAMES, LoginStatus::INITIATOR_ERROR);
    // Text that never ends.
    let mut client = Client::usual();
    client.request.more = true;
    let junk = Bytes::from(vec![b'a'; 8000]);
    for _ in 0..2 {
        let answer = client.send(client.request.emit(), junk.clone());
        assert_eq!(answer.map(|answer| answer.status), Some(LoginStatus::SUCCESS));
    }
    let answer = client.send(client.request.emit(), junk);
    assert_eq!(
        answer.map(|answer| answer.status),
        Some(LoginStatus::INITIATOR_ERROR)
    );
    // Keys whose answers would be larger than the initiator can take.
    let many: String = (0..250)
        .map(|number| format!("{number}{}=\n", "k".repeat(28)))
        .collect();
    let mut client = Client::usual();
    client.say(S, Some(O), NAMES);
    client.refused(O, Some(F), &many, LoginStatus::INITIATOR_ERROR);
}

#[test]
fn half_open_logins_are_dropped() {
    let mut client = Client::usual();
    client.accept = false;
    let timeout = Duration::from_secs(15);
    assert_eq!(client.connection.poll_timeout(), Some(Mono::ZERO + timeout));
    client.say(S, Some(O), NAMES);
    let late = Mono::ZERO + timeout;
    assert_eq!(
        client.connection.handle_timeout(late - Duration::from_millis(1)),
        Ok(())
    );
    assert_eq!(client.connection.handle_timeout(late), Err(Fatal::LoginTimeout));
    assert!(client.connection.is_finished());
    // Also while the owner thinks.
    let mut client = Client::usual();
    client.accept = false;
    client.say(O, Some(F), NAMES);
    assert_eq!(
        client.connection.wanted(&client.buffer),
        0,
        "nothing is read meanwhile"
    );
    assert_eq!(client.connection.handle_timeout(late), Err(Fatal::LoginTimeout));
    assert!(!client.connection.accept_login(Tsih(1), late), "too late");
}

#[test]
fn the_owner_can_refuse() {
    let mut client = Client::usual();
    client.accept = false;
    client.request.tsih = 77;
    client.say(O, Some(F), NAMES);
    let Some(Event::Login(login)) = client.connection.poll_event() else {
        panic!("no login");
    };
    assert_eq!(login.tsih, Some(Tsih(77)));
    assert!(client.connection.refuse_login(LoginStatus::NO_SUCH_SESSION));
    let answer = client.answer().unwrap();
    assert_eq!(
        (answer.status, answer.transit),
        (LoginStatus::NO_SUCH_SESSION, None)
    );
    assert!(client.connection.is_finished());
}

#[test]
fn garbage_and_huge_lengths_cost_the_connection_only() {
    let mut connection = Connection::new(
        Arc::new(PortalConfig::new(TpgId(1))),
        Arc::new(directory()),
        origin(),
        Mono::ZERO,
    );
    let mut buffer = BytesMut::from(&b"GET / HTTP/1.1\r\nHost: example\r\nUser-Agent: something\r\n\r\n"[..]);
    assert!(matches!(
        connection.receive(&mut buffer, Mono::ZERO),
        Err(Fatal::Frame(_))
    ));
    assert!(connection.is_finished() && connection.wanted(&buffer) == 0);
    let mut client = Client::usual();
    let mut bhs = client.request.emit();
    bhs.set_lengths(0, (1 << 24) - 1);
    client.buffer.extend_from_slice(&bhs.0);
    let result = client.connection.receive(&mut client.buffer, Mono::ZERO);
    assert!(matches!(result, Err(Fatal::Frame(_))), "{result:?}");
}

#[test]
fn only_logins_come_first() {
    let mut client = Client::usual();
    assert_eq!(client.send(Bhs::new(Opcode::NOP_OUT, 0x80), Bytes::new()), None);
    assert!(matches!(client.fatal, Some(Fatal::Protocol { .. })));
}

/// Status 0101, and where to go: without a portal group, and with IPv6 in brackets (RFC 7143, 11.13.5 and 13.8).
#[test]
fn a_login_is_sent_elsewhere() {
    for (portal, address) in [
        ("192.0.2.2:3260", "TargetAddress=192.0.2.2:3260"),
        ("[2001:db8::2]:3261", "TargetAddress=[2001:db8::2]:3261"),
    ] {
        let mut client = Client::usual();
        client.accept = false;
        assert!(!client.connection.redirect_login(portal.parse().unwrap()));
        assert_eq!(client.say(S, Some(F), NAMES), None);
        assert!(client.connection.redirect_login(portal.parse().unwrap()));
        let answer = Answer {
            status: LoginStatus::MOVED_TEMPORARILY,
            transit: None,
            keys: vec![address.to_owned()],
        };
        assert_eq!(client.answer(), Some(answer));
        assert!(client.connection.is_finished());
        assert!(!client.connection.accept_login(Tsih(3), Mono::ZERO));
    }
}
