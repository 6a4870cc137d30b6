use super::*;

fn login(isid: u8, cid: u16, tsih: Option<Tsih>) -> LoginRequested {
    LoginRequested {
        initiator: "iqn.2026-11.example:host".parse().unwrap(),
        initiator_alias: None,
        isid: Isid([0x80, 0, 0, 0, 0, isid]),
        kind: SessionKind::Normal {
            target: "iqn.2026-11.example:disk".parse().unwrap(),
        },
        tpg: TpgId(1),
        tsih,
        cid,
        peer: "192.0.2.200".parse().unwrap(),
        group: None,
        user: None,
    }
}

fn admitted(admission: Admission) -> (SessionSerial, Tsih) {
    match admission {
        Admission::New { session, tsih } | Admission::Reinstate { session, tsih, .. } => (session, tsih),
        other => panic!("not admitted: {other:?}"),
    }
}

#[test]
fn the_same_nexus_again_is_a_reinstatement() {
    let mut table = SessionTable::new();
    let (first, _) = admitted(table.begin(&login(1, 0, None)));
    let admission = table.begin(&login(1, 0, None));
    assert!(
        matches!(admission, Admission::Reinstate { old, session, .. } if old == first && session > first)
    );
    let (second, _) = admitted(admission);
    // The old session ends late; the nexus stays with the new one.
    table.end(first);
    let nexus = login(1, 0, None).nexus().unwrap();
    assert_eq!(table.of_nexus(&nexus), Some(second));
    assert_eq!(table.nexus(second), Some(&nexus));
    table.end(second);
    assert!(table.is_empty() && table.of_nexus(&nexus).is_none());
}

#[test]
fn a_login_that_is_not_through_yet_is_replaced_too() {
    let mut table = SessionTable::new();
    let (first, _) = admitted(table.begin(&login(1, 0, None)));
    let (second, _) = admitted(table.begin(&login(1, 0, None)));
    assert!(matches!(table.begin(&login(1, 0, None)), Admission::Reinstate { old, .. } if old == second));
    table.end(first);
    assert_eq!(table.len(), 2);
}

#[test]
fn other_isids_and_portal_groups_are_other_sessions() {
    let mut table = SessionTable::new();
    admitted(table.begin(&login(1, 0, None)));
    assert!(matches!(table.begin(&login(2, 0, None)), Admission::New { .. }));
    let mut elsewhere = login(1, 0, None);
    elsewhere.tpg = TpgId(2);
    assert!(matches!(table.begin(&elsewhere), Admission::New { .. }));
}

#[test]
fn discovery_sessions_replace_nobody() {
    let mut table = SessionTable::new();
    let mut discovery = login(1, 0, None);
    discovery.kind = SessionKind::Discovery;
    assert!(matches!(table.begin(&discovery), Admission::New { .. }));
    assert!(matches!(table.begin(&discovery), Admission::New { .. }));
}

#[test]
fn a_second_connection_is_refused_and_an_unknown_session_named() {
    let mut table = SessionTable::new();
    let (session, tsih) = admitted(table.begin(&login(1, 0, None)));
    let refuse = Admission::Refuse;
    assert_eq!(
        table.begin(&login(1, 1, Some(tsih))),
        refuse(LoginStatus::TOO_MANY_CONNECTIONS)
    );
    assert_eq!(
        table.begin(&login(1, 0, Some(tsih))),
        refuse(LoginStatus::CANNOT_INCLUDE)
    );
    assert_eq!(
        table.begin(&login(2, 0, Some(tsih))),
        refuse(LoginStatus::NO_SUCH_SESSION)
    );
    table.end(session);
    assert_eq!(
        table.begin(&login(1, 1, Some(tsih))),
        refuse(LoginStatus::NO_SUCH_SESSION)
    );
}

#[test]
fn serials_never_come_back_and_tsihs_only_when_free() {
    let mut table = SessionTable::new();
    let (kept, kept_tsih) = admitted(table.begin(&login(1, 0, None)));
    let mut last = kept;
    for _ in 0..70_000 {
        let (session, tsih) = admitted(table.begin(&login(2, 0, None)));
        assert!(session > last && tsih != kept_tsih && tsih.0 != 0);
        last = session;
        table.end(session);
    }
    assert_eq!(table.len(), 1);
}

#[test]
fn a_full_table_says_so() {
    let mut table = SessionTable::new();
    for number in 0..u32::from(u16::MAX) {
        let mut login = login(0, 0, None);
        login.isid.0[2..].copy_from_slice(&number.to_be_bytes());
        admitted(table.begin(&login));
    }
    assert_eq!(table.begin(&login(1, 0, None)), Admission::Full);
}
