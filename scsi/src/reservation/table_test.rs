//! Every service action, against SPC-4, 5.12 and 6.16.

use holdfast_types::{Isid, Nexus, TpgId};

use super::*;
use crate::{Response, Sense};

pub(super) fn nexus(host: u8) -> Nexus {
    Nexus {
        initiator: format!("iqn.2026-11.example:host{host}").parse().unwrap(),
        isid: Isid([host; 6]),
        target: "iqn.2026-11.example:disk".parse().unwrap(),
        tpg: TpgId(1),
    }
}

/// A parameter list.
pub(super) fn list(key: u64, new_key: u64, flags: u8) -> Vec<u8> {
    let mut data = vec![0; 24];
    data[..8].copy_from_slice(&key.to_be_bytes());
    data[8..16].copy_from_slice(&new_key.to_be_bytes());
    data[20] = flags;
    data
}

pub(super) struct Rig {
    pub(super) state: UnitState,
    pub(super) ports: Vec<TpgId>,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self {
            state: UnitState::default(),
            ports: vec![TpgId(1), TpgId(2)],
        }
    }

    pub(super) fn try_out(
        &mut self,
        by: &Nexus,
        action: u8,
        kind: u8,
        data: &[u8],
    ) -> Result<UnitOutcome, Sense> {
        let out = read(action, kind, data)?;
        Ok(self.state.apply(by, &UnitChange::Persistent(out), &self.ports))
    }

    pub(super) fn out(&mut self, host: u8, action: u8, kind: u8, key: u64, new_key: u64) -> UnitOutcome {
        self.try_out(&nexus(host), action, kind, &list(key, new_key, 0))
            .unwrap()
    }

    /// Registers hosts, each under its number as key.
    pub(super) fn register(&mut self, hosts: &[u8]) {
        for host in hosts {
            assert_eq!(self.out(*host, 0, 0, 0, u64::from(*host)), UnitOutcome::Good);
        }
    }

    fn keys(&self) -> Vec<u64> {
        let registrations = self.state.reservations.registrations();
        registrations.iter().map(|one| one.key).collect()
    }

    fn held(&self) -> Option<(u8, u64)> {
        let held = self.state.reservations.held()?;
        Some((held.kind.code(), self.state.reservations.held_key()?))
    }

    /// What a host has to hear that is newer than `since`: preempted registrations, preempted reservations, released ones.
    fn told(&self, host: u8, since: holdfast_types::UnitVersion) -> (bool, bool, bool) {
        let notices = self.state.notices(&nexus(host));
        (
            notices.registrations_preempted > since,
            notices.reservations_preempted > since,
            notices.reservations_released > since,
        )
    }
}

const GOOD: UnitOutcome = UnitOutcome::Good;
const CONFLICT: UnitOutcome = UnitOutcome::Conflict;
const QUIET: (bool, bool, bool) = (false, false, false);

#[test]
fn register_changes_and_takes_back() {
    let mut rig = Rig::new();
    assert_eq!(
        rig.out(1, 0, 0, 7, 1),
        CONFLICT,
        "who is not registered has no key"
    );
    assert_eq!(rig.out(1, 0, 0, 0, 0), GOOD);
    assert_eq!((rig.keys(), rig.state.reservations.generation()), (vec![], 0));
    assert_eq!(rig.out(1, 0, 0, 0, 1), GOOD);
    assert_eq!(rig.out(1, 0, 0, 0, 5), CONFLICT, "the own key must be named");
    assert_eq!(rig.out(1, 0, 0, 1, 5), GOOD);
    assert_eq!(rig.out(1, 6, 0, 99, 6), GOOD, "the key is ignored");
    assert_eq!((rig.keys(), rig.state.reservations.generation()), (vec![6], 3));
    assert_eq!(rig.out(1, 0, 0, 6, 0), GOOD);
    assert_eq!((rig.keys(), rig.state.reservations.generation()), (vec![], 4));
    assert_eq!(rig.out(1, 6, 0, 0, 0), GOOD, "nothing to take back");
}

#[test]
fn i12_a_refused_action_changes_nothing() {
    let mut rig = Rig::new();
    rig.register(&[1, 2]);
    assert_eq!(rig.out(1, 1, 5, 1, 0), GOOD);
    let before = rig.state.clone();
    let refused = [
        (2, 1, 5, 2, 0, CONFLICT),
        (1, 1, 6, 1, 0, CONFLICT),
        (1, 1, 2, 1, 0, UnitOutcome::InvalidCdb { byte: 2 }),
        (1, 2, 6, 1, 0, UnitOutcome::InvalidRelease),
        (1, 2, 5, 2, 0, CONFLICT),
        (3, 3, 0, 0, 0, CONFLICT),
        (2, 4, 5, 2, 77, CONFLICT),
        (2, 4, 5, 2, 0, UnitOutcome::InvalidParameter { byte: 8 }),
        (2, 4, 9, 2, 1, UnitOutcome::InvalidCdb { byte: 2 }),
        (2, 4, 5, 1, 1, CONFLICT),
    ];
    for (host, action, kind, key, new_key, wanted) in refused {
        assert_eq!(
            rig.out(host, action, kind, key, new_key),
            wanted,
            "{host} {action} {kind} {key}"
        );
        assert_eq!(rig.state, before);
    }
}

#[test]
fn reserve_and_release_of_every_type() {
    for kind in ReservationType::ALL {
        let mut rig = Rig::new();
        rig.register(&[1, 2, 3]);
        let code = kind.code();
        assert_eq!(rig.out(1, 1, code, 1, 0), GOOD);
        assert_eq!(rig.out(1, 1, code, 1, 0), GOOD, "again");
        let all = kind.all_registrants();
        assert_eq!(rig.held(), Some((code, if all { 0 } else { 1 })));
        assert_eq!(rig.out(2, 1, code, 2, 0), if all { GOOD } else { CONFLICT });
        let since = rig.state.version;
        assert_eq!(rig.out(2, 2, code, 2, 0), GOOD);
        assert_eq!(rig.held().is_none(), all, "only a holder releases");
        let releaser = if all { 2 } else { 1 };
        assert_eq!(rig.out(1, 2, code, 1, 0), GOOD);
        assert_eq!(rig.held(), None);
        for host in [1, 2, 3] {
            let told = kind.for_registrants() && host != releaser;
            assert_eq!(rig.told(host, since), (false, false, told), "{kind:?} {host}");
        }
        assert_eq!(rig.state.reservations.generation(), 3, "neither of them counts");
    }
}

#[test]
fn the_reservation_goes_with_its_last_holder() {
    for kind in ReservationType::ALL {
        let mut rig = Rig::new();
        rig.register(&[1, 2]);
        assert_eq!(rig.out(1, 1, kind.code(), 1, 0), GOOD);
        let since = rig.state.version;
        assert_eq!(rig.out(1, 0, 0, 1, 0), GOOD);
        assert_eq!(rig.held().is_some(), kind.all_registrants(), "{kind:?}");
        let told = kind.for_registrants() && !kind.all_registrants();
        assert_eq!(rig.told(2, since), (false, false, told), "{kind:?}");
        assert_eq!(rig.out(2, 0, 0, 2, 0), GOOD);
        assert_eq!(rig.held(), None);
    }
}

#[test]
fn clear_takes_all_and_tells_everybody_else() {
    let mut rig = Rig::new();
    rig.register(&[1, 2, 3]);
    assert_eq!(rig.out(1, 1, 1, 1, 0), GOOD);
    let since = rig.state.version;
    assert_eq!(rig.out(2, 3, 0, 2, 0), GOOD);
    assert_eq!(
        (rig.keys(), rig.held(), rig.state.reservations.generation()),
        (vec![], None, 4)
    );
    assert_eq!(rig.told(1, since), (false, true, false));
    assert_eq!(rig.told(2, since), QUIET);
    assert_eq!(rig.told(3, since), (false, true, false));
}

#[test]
fn preempt_of_the_holder_takes_its_place() {
    let mut rig = Rig::new();
    rig.register(&[1, 2, 3]);
    assert_eq!(rig.out(1, 1, 5, 1, 0), GOOD);
    let since = rig.state.version;
    assert_eq!(rig.out(2, 4, 5, 2, 1), GOOD);
    assert_eq!((rig.keys(), rig.held()), (vec![2, 3], Some((5, 2))));
    assert_eq!(rig.told(1, since), (true, false, false));
    assert_eq!(rig.told(3, since), QUIET, "the type is the same");
    let since = rig.state.version;
    assert_eq!(rig.out(3, 5, 6, 3, 2), GOOD);
    assert_eq!((rig.keys(), rig.held()), (vec![3], Some((6, 3))));
    assert_eq!(rig.told(2, since), (true, false, false));
    assert!(rig.state.notices(&nexus(2)).tasks_aborted > since);
    assert_eq!(
        rig.state.notices(&nexus(1)).tasks_aborted,
        holdfast_types::UnitVersion(0)
    );
    // The holder preempts itself to change the type.
    rig.register(&[4]);
    let since = rig.state.version;
    assert_eq!(rig.out(3, 4, 1, 3, 3), GOOD);
    assert_eq!((rig.keys(), rig.held()), (vec![3, 4], Some((1, 3))));
    assert_eq!(rig.told(4, since), (false, false, true));
}

#[test]
fn preempt_of_registrations_leaves_the_reservation() {
    let mut rig = Rig::new();
    rig.register(&[1, 2, 3]);
    assert_eq!(rig.out(3, 0, 0, 3, 2), GOOD, "two under one key");
    assert_eq!(rig.out(1, 1, 1, 1, 0), GOOD);
    let since = rig.state.version;
    assert_eq!(rig.out(1, 4, 1, 1, 2), GOOD);
    assert_eq!((rig.keys(), rig.held()), (vec![1], Some((1, 1))));
    assert_eq!(
        (rig.told(2, since), rig.told(3, since)),
        ((true, false, false), (true, false, false))
    );
    // Without a reservation it is about registrations alone.
    let mut rig = Rig::new();
    rig.register(&[1, 2]);
    assert_eq!(rig.out(1, 4, 5, 1, 0), UnitOutcome::InvalidParameter { byte: 8 });
    assert_eq!(rig.out(1, 4, 5, 1, 2), GOOD);
    assert_eq!((rig.keys(), rig.held()), (vec![1], None));
}

#[test]
fn preempt_of_all_registrants() {
    for kind in [7, 8] {
        let mut rig = Rig::new();
        rig.register(&[1, 2, 3]);
        assert_eq!(rig.out(1, 1, kind, 1, 0), GOOD);
        assert_eq!(rig.out(2, 4, kind, 2, 3), GOOD, "one of them");
        assert_eq!((rig.keys(), rig.held()), (vec![1, 2], Some((kind, 0))));
        assert_eq!(rig.out(2, 4, 1, 2, 0), GOOD, "key 0: all of them");
        assert_eq!((rig.keys(), rig.held()), (vec![2], Some((1, 2))));
        assert!(rig.told(1, holdfast_types::UnitVersion(0)).0);
    }
}

#[test]
fn register_and_move() {
    let mut rig = Rig::new();
    rig.register(&[1, 2]);
    let to = nexus(9);
    let id = transport::write(&to.initiator, to.isid);
    let mut data = list(1, 9, 0);
    data[17] = 0x02;
    data[18..20].copy_from_slice(&[0, 2]);
    data[23] = u8::try_from(id.len()).unwrap();
    data.extend_from_slice(&id);
    let by = nexus(1);
    assert_eq!(rig.try_out(&by, 7, 0, &data), Ok(CONFLICT), "it holds nothing");
    assert_eq!(rig.out(1, 1, 5, 1, 0), GOOD);
    let mut no_port = data.clone();
    no_port[19] = 7;
    assert_eq!(
        rig.try_out(&by, 7, 0, &no_port),
        Ok(UnitOutcome::InvalidParameter { byte: 18 })
    );
    assert_eq!(
        rig.try_out(&by, 7, 0, &data[..60]),
        Err(Sense::PARAMETER_LIST_LENGTH)
    );
    assert_eq!(rig.try_out(&by, 7, 0, &data), Ok(GOOD));
    assert_eq!((rig.keys(), rig.held()), (vec![2, 9], Some((5, 9))));
    let moved = Nexus {
        tpg: TpgId(2),
        ..nexus(9)
    };
    assert!(rig.state.reservations.holds(&moved) && !rig.state.reservations.holds(&nexus(9)));
    assert_eq!(rig.state.reservations.generation(), 3);
}

#[test]
fn spec_i_pt_and_all_tg_pt_register_more_than_one_nexus() {
    let mut rig = Rig::new();
    let other = nexus(4);
    let id = transport::write(&other.initiator, other.isid);
    let mut data = list(0, 1, 0x08 | 0x04 | 0x01);
    data.extend_from_slice(&u32::try_from(id.len()).unwrap().to_be_bytes());
    data.extend_from_slice(&id);
    assert_eq!(rig.try_out(&nexus(1), 0, 0, &data), Ok(GOOD));
    let all = rig.state.reservations.registrations();
    let who: Vec<_> = all
        .iter()
        .map(|one| (one.nexus.isid.0[0], one.nexus.tpg.0, one.key))
        .collect();
    assert_eq!(who, [(1, 1, 1), (1, 2, 1), (4, 1, 1), (4, 2, 1)]);
    assert!(rig.state.reservations.aptpl());
    assert_eq!(rig.state.reservations.generation(), 1);
    data[..8].copy_from_slice(&1_u64.to_be_bytes());
    assert_eq!(
        rig.try_out(&nexus(1), 0, 0, &data),
        Ok(UnitOutcome::InvalidCdb { byte: 1 })
    );
    assert_eq!(
        rig.try_out(&nexus(1), 6, 0, &data),
        Err(Sense::parameter_byte(20))
    );
}

#[test]
fn i12_bad_parameter_lists() {
    let mut rig = Rig::new();
    let by = nexus(1);
    assert_eq!(
        rig.try_out(&by, 0, 0, &list(0, 1, 0)[..20]),
        Err(Sense::PARAMETER_LIST_LENGTH)
    );
    assert_eq!(
        rig.try_out(&by, 0, 0, &[list(0, 1, 0), vec![0; 4]].concat()),
        Err(Sense::PARAMETER_LIST_LENGTH)
    );
    assert_eq!(
        rig.try_out(&by, 0, 0, &list(0, 1, 8)),
        Err(Sense::PARAMETER_LIST_LENGTH)
    );
    assert_eq!(rig.try_out(&by, 8, 0, &list(0, 1, 0)), Err(Sense::cdb_bit(1, 4)));
    assert_eq!(
        rig.try_out(&by, 1, 0x15, &list(0, 1, 0)),
        Err(Sense::cdb_bit(2, 7))
    );
    assert_eq!(rig.state, UnitState::default());
}

/// Rows are types, columns: who is not registered reads and writes, who is registered (not the holder) reads and writes.
#[test]
fn p1_conflict_matrix() {
    let matrix = [
        (1, [true, false, true, false]),
        (3, [false, false, false, false]),
        (5, [true, false, true, true]),
        (6, [false, false, true, true]),
        (7, [true, false, true, true]),
        (8, [false, false, true, true]),
    ];
    for (kind, [stranger_reads, stranger_writes, other_reads, other_writes]) in matrix {
        let mut rig = Rig::new();
        rig.register(&[1, 2]);
        assert_eq!(rig.out(1, 1, kind, 1, 0), GOOD);
        let rule = rig.state.rule();
        for (host, reads, writes) in [
            (1, true, true),
            (2, other_reads, other_writes),
            (3, stranger_reads, stranger_writes),
        ] {
            let by = nexus(host);
            let holder = rule.holders.contains(&by.tag());
            assert_eq!(
                holder || rule.others_read,
                reads,
                "type {kind}, host {host} reads"
            );
            assert_eq!(
                holder || rule.others_write,
                writes,
                "type {kind}, host {host} writes"
            );
            assert_eq!(rig.state.refuses(Conflict::Read, &by), !reads);
            assert_eq!(rig.state.refuses(Conflict::Write, &by), !writes);
            assert!(!rig.state.refuses(Conflict::Legacy, &by) && !rig.state.refuses(Conflict::Never, &by));
        }
    }
}

fn data(rig: &Rig, action: PersistentIn) -> Vec<u8> {
    let Response { data, sense, .. } = action.answer(&rig.state, 4096);
    assert_eq!(sense, None);
    data.to_vec()
}

#[test]
fn golden_persistent_reserve_in() {
    let mut rig = Rig::new();
    assert_eq!(data(&rig, PersistentIn::ReadKeys), [0; 8]);
    assert_eq!(data(&rig, PersistentIn::ReadReservation), [0; 8]);
    assert_eq!(
        data(&rig, PersistentIn::ReportCapabilities),
        [0, 8, 0x1d, 0x80, 0xea, 1, 0, 0]
    );
    rig.register(&[1, 2]);
    assert_eq!(rig.out(2, 1, 5, 2, 0), GOOD);
    let keys = [
        0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2,
    ];
    assert_eq!(data(&rig, PersistentIn::ReadKeys), keys);
    let held = [
        0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 5, 0, 0,
    ];
    assert_eq!(data(&rig, PersistentIn::ReadReservation), held);
    let full = data(&rig, PersistentIn::ReadFullStatus);
    let id = transport::write(&nexus(1).initiator, nexus(1).isid);
    assert_eq!(full.len(), 8 + 2 * (24 + id.len()));
    let second = &full[8 + 24 + id.len()..];
    assert_eq!(
        second[..24],
        [
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            2,
            0,
            0,
            0,
            0,
            1,
            5,
            0,
            0,
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            u8::try_from(id.len()).unwrap()
        ]
    );
    assert_eq!(full[8..32][12..14], [0, 0], "the other one holds nothing");
    assert_eq!(full[32..32 + id.len()], id);
}

#[test]
fn all_registrants_show_no_key() {
    let mut rig = Rig::new();
    rig.register(&[1, 2]);
    assert_eq!(rig.out(1, 1, 8, 1, 0), GOOD);
    assert_eq!(
        data(&rig, PersistentIn::ReadReservation)[8..],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]
    );
    let full = data(&rig, PersistentIn::ReadFullStatus);
    assert_eq!((full[8 + 12], full[8 + 13]), (1, 8));
}
