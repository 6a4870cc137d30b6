//! Peers that do not keep the rules; pings, text, logout.

use std::time::Duration;

use bytes::Bytes;
use holdfast_types::{Mono, TpgId};

use crate::error::Fatal;
use crate::initiator::{Event as User, ScsiRequest, Settings};
use crate::pair::{Pair, by_hand, cdb, group, initiator_name, read, send, settings, target_name, write};
use crate::pdu::{
    Bhs, DataOut, Direction, LogoutReason, LogoutResult, NO_TAG, NopIn, NopOut, Opcode, R2t, RejectReason,
    ScsiCommand, Snack, TargetNumbers,
};
use crate::serial::Sn;
use crate::target::{Answer, Event, PortalConfig};

/// The connection is lost, after a Reject for this reason.
fn rejected(pair: &mut Pair, reason: RejectReason) {
    assert!(
        matches!(pair.fatal, Some(Fatal::Protocol { .. })),
        "{:?}",
        pair.fatal
    );
    match pair.user.pop_back() {
        Some(User::Rejected(reject, header)) => {
            assert_eq!(reject.reason, reason);
            assert_eq!(header.len(), 48);
        }
        other => panic!("no Reject but {other:?}"),
    }
    assert!(pair.target.is_finished());
}

#[test]
fn a_task_tag_in_use_is_refused() {
    let mut pair = Pair::usual(31);
    let next = pair.initiator.next_numbers().cmd_sn;
    for sn in [next, next.next()] {
        let bhs = by_hand(&pair, 500, sn).emit();
        send(&mut pair, bhs);
    }
    rejected(&mut pair, RejectReason::TASK_IN_PROGRESS);
}

/// A WRITE(10) of 8 KiB whose data the owner has asked for; gives the R2T.
fn asked(pair: &mut Pair) -> R2t {
    let next = pair.initiator.next_numbers().cmd_sn;
    let mut command = by_hand(pair, 400, next);
    command.direction = Direction::Write;
    command.expected_length = 8192;
    pair.initiator.pdu(command.emit(), Bytes::new());
    // The initiator would complain about an R2T for a command that it does not know.
    while pair.owner.is_empty() {
        pair.run_once();
        pair.owner.extend(pair.target.poll_event());
    }
    let command = pair.command();
    pair.target.request_data(command.task, 8192).unwrap();
    let mut pdu = pair.target.poll_transmit().unwrap();
    let bytes = bytes::Buf::copy_to_bytes(&mut pdu, 48);
    R2t::parse(&Bhs(*bytes.first_chunk().unwrap()))
}

fn data_out(r2t: &R2t, data_sn: u32, offset: u32, last: bool) -> DataOut {
    DataOut {
        last,
        lun: 0,
        itt: r2t.itt,
        ttt: r2t.ttt,
        exp_stat_sn: Sn(0),
        data_sn,
        offset,
    }
}

#[test]
fn data_that_does_not_fit_its_request_is_refused() {
    let part = Bytes::from(vec![1; 4096]);
    let whole = Bytes::from(vec![1; 8192]);
    let more = Bytes::from(vec![1; 8196]);
    let cases: &[(&str, u32, u32, bool, &Bytes)] = &[
        ("wrong offset", 0, 4096, false, &part),
        ("too much", 0, 0, true, &more),
        ("too little", 0, 0, true, &part),
    ];
    for (what, data_sn, offset, last, data) in cases {
        let mut pair = Pair::usual(32);
        let r2t = asked(&mut pair);
        let bhs = data_out(&r2t, *data_sn, *offset, *last).emit();
        pair.initiator.pdu(bhs, (*data).clone());
        pair.run();
        assert!(pair.fatal.is_some(), "{what}");
        rejected(&mut pair, RejectReason::PROTOCOL_ERROR);
    }
    let mut pair = Pair::usual(33);
    let mut r2t = asked(&mut pair);
    r2t.ttt += 1;
    pair.initiator
        .pdu(data_out(&r2t, 0, 0, true).emit(), whole.clone());
    pair.run();
    rejected(&mut pair, RejectReason::PROTOCOL_ERROR);
    // And the right way.
    let mut pair = Pair::usual(34);
    let r2t = asked(&mut pair);
    pair.initiator
        .pdu(data_out(&r2t, 0, 0, true).emit(), whole.clone());
    pair.run();
    assert!(matches!(pair.owner.pop_front(), Some(Event::DataOut { data, .. }) if data == whole));
}

/// RFC 7143, 7.9: a gap in DataSN ends the task, not the connection.
#[test]
fn lost_data_ends_its_task_only() {
    for unsolicited in [true, false] {
        let mut pair = Pair::usual(51);
        let data = pair.random.bytes(8192);
        let mut settings = settings().with_key("ImmediateData", "No");
        settings.unsolicited = unsolicited;
        let mut config = PortalConfig::new(TpgId(1));
        config.offer.max_recv_data_segment_length = 4096;
        pair = Pair::logged_in(config, settings, 51);
        let tag = pair.initiator.command(write(0, data));
        if !unsolicited {
            while pair.owner.is_empty() {
                pair.run_once();
                pair.owner.extend(pair.target.poll_event());
            }
            let command = pair.command();
            pair.target.request_data(command.task, 8192).unwrap();
            pair.receive_at_initiator();
        }
        // The first of the two Data-Outs goes missing.
        let mut pdus: Vec<_> = std::iter::from_fn(|| pair.initiator.outbox().pop()).collect();
        let lost = pdus.len() - 2;
        pdus.remove(lost);
        for pdu in pdus {
            pair.initiator.outbox().push(pdu);
        }
        pair.run();
        let (got, result) = pair.result();
        assert_eq!(
            (got, result.status),
            (tag, crate::pdu::ScsiStatus::CHECK_CONDITION)
        );
        assert_eq!(
            (result.sense[2], result.sense[12], result.sense[13]),
            (0x0b, 0x47, 0x05)
        );
        assert!(matches!(pair.owner.pop_back(), Some(Event::DataLost { .. })));
        assert_eq!((pair.fatal.clone(), pair.target.tasks().count()), (None, 0));
    }
}

#[test]
fn data_for_no_task_is_thrown_away() {
    let mut pair = Pair::usual(35);
    let r2t = R2t {
        lun: 0,
        itt: 12345,
        ttt: 77,
        numbers: TargetNumbers::default(),
        r2t_sn: 0,
        offset: 0,
        length: 4,
    };
    pair.initiator
        .pdu(data_out(&r2t, 0, 0, true).emit(), Bytes::from_static(b"data"));
    pair.run();
    assert!(pair.fatal.is_none() && pair.owner.is_empty());
}

#[test]
fn data_beyond_what_was_negotiated_is_refused() {
    // Immediate data although there shall be none; more than FirstBurstLength; with a READ; announced against InitialR2T.
    let no_immediate = settings().with_key("ImmediateData", "No");
    let short_burst = settings().with_key("FirstBurstLength", "512");
    let r2t_first = settings().with_key("InitialR2T", "Yes");
    type Change = fn(&mut ScsiCommand);
    let cases: [(Settings, usize, Change); 5] = [
        (no_immediate, 512, |_| {}),
        (short_burst, 1024, |_| {}),
        (settings(), 512, |command| command.direction = Direction::Read),
        (settings(), 8196, |_| {}),
        (r2t_first, 0, |command| command.last = false),
    ];
    for (number, (settings, len, change)) in cases.into_iter().enumerate() {
        let mut pair = Pair::logged_in(PortalConfig::new(TpgId(1)), settings, 36);
        let next = pair.initiator.next_numbers().cmd_sn;
        let mut command = by_hand(&pair, 400, next);
        command.direction = Direction::Write;
        command.expected_length = 8192;
        change(&mut command);
        pair.initiator.pdu(command.emit(), Bytes::from(vec![1; len]));
        pair.run();
        assert!(pair.fatal.is_some(), "case {number}");
        rejected(&mut pair, RejectReason::PROTOCOL_ERROR);
    }
}

#[test]
fn unsolicited_data_is_bounded_and_in_order() {
    let cases: [(&str, u32, u32, usize); 2] = [("offset", 0, 4, 512), ("length", 0, 0, 8196)];
    for (what, data_sn, offset, len) in cases {
        let mut pair = Pair::usual(37);
        let next = pair.initiator.next_numbers().cmd_sn;
        let mut command = by_hand(&pair, 400, next);
        command.direction = Direction::Write;
        command.expected_length = 8192;
        command.last = false;
        send(&mut pair, command.emit());
        let pdu = DataOut {
            last: false,
            lun: 0,
            itt: 400,
            ttt: NO_TAG,
            exp_stat_sn: Sn(0),
            data_sn,
            offset,
        };
        pair.initiator.pdu(pdu.emit(), Bytes::from(vec![1; len]));
        pair.run();
        assert!(pair.fatal.is_some(), "{what}");
        rejected(&mut pair, RejectReason::PROTOCOL_ERROR);
    }
}

#[test]
fn what_has_no_place_in_the_phase_is_refused() {
    for (bhs, reason) in [
        (Bhs::new(Opcode(0x1c), 0x80), RejectReason::NOT_SUPPORTED),
        (
            Bhs::new(Opcode::LOGIN_REQUEST, 0x87),
            RejectReason::PROTOCOL_ERROR,
        ),
        (Bhs::new(Opcode::NOP_IN, 0x80), RejectReason::NOT_SUPPORTED),
    ] {
        let mut pair = Pair::usual(38);
        send(&mut pair, bhs);
        rejected(&mut pair, reason);
    }
    let mut pair = Pair::usual(39);
    let snack = Snack {
        kind: 0,
        lun: 0,
        itt: 1,
        tag: NO_TAG,
        exp_stat_sn: Sn(0),
        begin: 0,
        length: 0,
    };
    send(&mut pair, snack.emit());
    assert!(
        matches!(pair.user.pop_front(), Some(User::Rejected(reject, _)) if reject.reason == RejectReason::SNACK)
    );
    assert_eq!(pair.fatal, None, "a SNACK alone is no reason to part");
}

#[test]
fn pings_come_back_with_their_data() {
    let mut pair = Pair::usual(40);
    for len in [0, 1, 300, 100_000] {
        let data = pair.random.bytes(len);
        let tag = pair.initiator.ping(data.clone());
        pair.run();
        assert_eq!(pair.user.pop_front(), Some(User::Pong(tag, data)));
    }
    // In order too, taking a CmdSN.
    let numbers = pair.initiator.next_numbers();
    let ping = NopOut {
        immediate: false,
        lun: 0,
        itt: 333,
        ttt: NO_TAG,
        numbers,
    };
    pair.initiator.skip_cmd_sn(1);
    send(&mut pair, ping.emit());
    assert!(matches!(pair.user.pop_front(), Some(User::Pong(..))));
    pair.initiator.command(read(0, 1));
    pair.run();
    pair.command();
}

#[test]
fn who_asks_without_listening_waits() {
    let mut pair = Pair::usual(41);
    for _ in 0..1000 {
        pair.initiator.ping(Bytes::from_static(b"hello"));
    }
    // Only what goes to the target moves.
    for _ in 0..1000 {
        pair.run_once();
    }
    assert!(pair.target.outbox().pdus() <= 64);
    pair.run();
    assert_eq!(pair.user.len(), 1000, "nothing is lost once it listens");
}

#[test]
fn silent_initiators_are_pinged_and_dead_ones_dropped() {
    let mut pair = Pair::usual(42);
    let started = pair.now;
    assert_eq!(pair.target.poll_timeout(), Some(started + Duration::from_secs(5)));
    pair.wait(Duration::from_secs(5));
    pair.sent.clear();
    pair.run();
    let ping = NopIn::parse(&pair.sent[0]);
    assert!(ping.itt == NO_TAG && ping.ttt != NO_TAG);
    // It has answered, so the next ping is due later.
    assert_eq!(
        pair.target.poll_timeout(),
        Some(pair.now + Duration::from_secs(5))
    );
    pair.wait(Duration::from_secs(5));
    assert_eq!(pair.fatal, None);
    // Nobody moves bytes now.
    pair.wait(Duration::from_millis(89_999));
    assert_eq!(pair.fatal, None);
    pair.wait(Duration::from_millis(1));
    assert_eq!(pair.fatal, Some(Fatal::PeerSilent));
    assert!(pair.target.is_finished());
}

#[test]
fn discovery_shows_every_portal_of_both_nodes() {
    let mut settings = Settings::new(initiator_name(), None);
    for (key, value) in [("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")] {
        settings = settings.with_key(key, value);
    }
    let mut pair = Pair::logged_in(PortalConfig::new(TpgId(1)), settings, 43);
    let pair_of = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let whole = vec![
        pair_of("TargetName", "iqn.2026-11.example:disk"),
        pair_of("TargetAddress", "192.0.2.1:3260,1"),
        pair_of("TargetAddress", "[2001:db8::1]:3260,1"),
        pair_of("TargetAddress", "192.0.2.2:3260,2"),
    ];
    let cases = [
        ("All", whole.clone()),
        ("iqn.2026-11.example:disk", whole),
        ("iqn.2026-11.example:other", vec![]),
        ("", vec![pair_of("SendTargets", "Reject")]),
    ];
    for (asked, wanted) in cases {
        let tag = pair.initiator.text(&[("SendTargets", asked)]);
        pair.run();
        assert_eq!(pair.user.pop_front(), Some(User::Text(tag, wanted)), "{asked}");
    }
    // Nothing but discovery there.
    pair.initiator.command(read(0, 1));
    pair.run();
    rejected(&mut pair, RejectReason::PROTOCOL_ERROR);
}

#[test]
fn a_normal_session_may_ask_for_its_own_target() {
    let mut pair = Pair::usual(44);
    for (asked, answers) in [
        ("", 4),
        ("iqn.2026-11.example:disk", 4),
        ("All", 1),
        ("iqn.2026-11.example:other", 1),
    ] {
        let tag = pair.initiator.text(&[("SendTargets", asked)]);
        pair.run();
        let Some(User::Text(got, keys)) = pair.user.pop_front() else {
            panic!("no text");
        };
        assert_eq!((got, keys.len()), (tag, answers), "{asked}: {keys:?}");
        assert_eq!(answers == 1, keys[0].1 == "Reject");
    }
    let tag = pair
        .initiator
        .text(&[("X-unknown", "1"), ("MaxBurstLength", "1024")]);
    pair.run();
    let keys = vec![
        ("X-unknown".to_owned(), "NotUnderstood".to_owned()),
        ("MaxBurstLength".to_owned(), "Reject".to_owned()),
    ];
    assert_eq!(pair.user.pop_front(), Some(User::Text(tag, keys)));
}

#[test]
fn long_answers_are_split_and_only_what_is_allowed_is_shown() {
    use crate::directory::{Access, Directory, TargetEntry};
    let mut directory = Directory {
        authoritative: true,
        ..crate::pair::directory()
    };
    let template = directory.targets[&target_name()].clone();
    for number in 0..200 {
        let name = format!("iqn.2026-11.example:disk{number}").parse().unwrap();
        let access = if number % 2 == 0 {
            Access::Everyone
        } else {
            Access::Groups(vec![group(target_name())])
        };
        directory.targets.insert(
            name,
            TargetEntry {
                access,
                ..template.clone()
            },
        );
    }
    let settings = Settings::new(initiator_name(), None).with_key("MaxRecvDataSegmentLength", "512");
    let mut pair = Pair::logged_in(PortalConfig::new(TpgId(1)), settings, 45);
    pair.target.set_directory(directory.into());
    let tag = pair.initiator.text(&[("SendTargets", "All")]);
    pair.run();
    let Some(User::Text(got, keys)) = pair.user.pop_front() else {
        panic!("no text; {:?} {:?}", pair.fatal, pair.initiator_error);
    };
    assert_eq!((got, keys.len()), (tag, 101 * 4));
    assert!(
        pair.sent
            .iter()
            .filter(|bhs| bhs.opcode() == Opcode::TEXT_RESPONSE)
            .count()
            > 10
    );
}

#[test]
fn logout_ends_the_session() {
    let mut pair = Pair::usual(46);
    pair.initiator.command(read(0, 1));
    pair.run();
    let command = pair.command();
    let tag = pair.initiator.logout(LogoutReason::SESSION);
    pair.run();
    assert_eq!(
        pair.user.pop_front(),
        Some(User::LoggedOut(tag, LogoutResult::CLOSED))
    );
    assert_eq!(
        pair.owner.pop_front(),
        Some(Event::LoggedOut(LogoutReason::SESSION))
    );
    assert!(pair.target.is_finished() && pair.target.poll_timeout().is_none());
    assert!(pair.target.respond(command.task, Answer::good()).is_err());
    // Other ways to log out that do not fit one connection.
    let mut pair = Pair::usual(47);
    let tag = pair.initiator.logout(LogoutReason::RECOVERY);
    pair.run();
    assert_eq!(
        pair.user.pop_front(),
        Some(User::LoggedOut(tag, LogoutResult::RECOVERY_NOT_SUPPORTED))
    );
    assert!(!pair.target.is_finished());
    pair.initiator.logout(LogoutReason::CONNECTION);
    pair.run();
    assert!(pair.target.is_finished());
}

#[test]
fn the_target_can_ask_for_a_logout() {
    let mut pair = Pair::usual(48);
    pair.target.request_logout(10);
    pair.run();
    let Some(User::Async(message)) = pair.user.pop_front() else {
        panic!("no message");
    };
    assert_eq!(message.event, crate::pdu::AsyncEvent::LOGOUT_REQUESTED);
    assert_eq!(message.parameters[2], 10);
}

#[test]
fn damaged_data_is_rejected_and_ends_the_connection() {
    let settings = settings()
        .with_key("DataDigest", "CRC32C")
        .with_key("HeaderDigest", "CRC32C");
    let mut pair = Pair::logged_in(PortalConfig::new(TpgId(1)), settings, 49);
    let data = pair.random.bytes(512);
    pair.initiator.command(write(0, data));
    let mut pdu = pair.initiator.outbox().pop().unwrap();
    let len = bytes::Buf::remaining(&pdu);
    let mut bytes = bytes::Buf::copy_to_bytes(&mut pdu, len).to_vec();
    bytes[100] ^= 1;
    pair.initiator.raw(bytes.into());
    pair.run();
    assert!(matches!(pair.fatal, Some(Fatal::Frame(_))));
    assert!(
        matches!(pair.user.pop_front(), Some(User::Rejected(reject, _)) if reject.reason == RejectReason::DATA_DIGEST)
    );
    assert!(pair.owner.is_empty());
}

/// Whatever comes in after a login: PDUs with random fields, and plain noise. Nothing panics, and what is kept stays small.
#[test]
fn noise_never_panics() {
    for seed in 1..400 {
        let mut pair = Pair::usual(seed);
        for _ in 0..30 {
            if pair.fatal.is_some() {
                break;
            }
            let mut bhs = Bhs([0; 48]);
            bhs.0.copy_from_slice(&pair.random.bytes(48));
            let opcodes = [0, 1, 2, 4, 5, 6, 0x10, 0x41, 0x42, 0x44];
            bhs.0[0] = opcodes[pair.random.below(opcodes.len())];
            let next = pair.initiator.next_numbers().cmd_sn;
            if bhs.opcode() != Opcode::DATA_OUT && pair.random.below(4) > 0 {
                bhs = bhs.put_u32(24, next.add(u32::try_from(pair.random.below(3)).unwrap()).0);
                bhs = bhs.put_u32(16, u32::try_from(pair.random.below(4)).unwrap());
                pair.initiator.skip_cmd_sn(1);
            }
            let len = pair.random.below(64);
            let data = pair.random.bytes(len);
            pair.initiator.pdu(bhs, data);
            pair.run();
            while let Some(event) = pair.owner.pop_front() {
                if let Event::Command(command) = event {
                    let _ = pair
                        .target
                        .request_data(command.task, command.expected_length.min(4096));
                    if pair.random.below(2) == 0 {
                        let _ = pair
                            .target
                            .respond(command.task, Answer::data(Bytes::from(vec![0; 700])));
                    }
                }
            }
        }
        let noise = pair.random.bytes(300);
        pair.initiator.raw(noise);
        pair.run();
    }
}

/// The same towards the initiator.
#[test]
fn noise_never_panics_at_the_initiator() {
    for seed in 1..400 {
        let mut pair = Pair::usual(seed);
        for _ in 0..3 {
            pair.initiator.command(read(0, 4));
            let data = pair.random.bytes(2048);
            pair.initiator
                .command(ScsiRequest::write(0, cdb(0x2a, 0, 4), data));
        }
        pair.run();
        let mut buffer = bytes::BytesMut::new();
        for _ in 0..20 {
            let mut bhs = Bhs([0; 48]);
            bhs.0.copy_from_slice(&pair.random.bytes(48));
            let opcodes = [0x20, 0x21, 0x22, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3f];
            bhs.0[0] = opcodes[pair.random.below(opcodes.len())];
            bhs = bhs.put_u32(16, u32::try_from(pair.random.below(8)).unwrap());
            let len = pair.random.below(64);
            let data = pair.random.bytes(len);
            let mut pdu = crate::out::Outgoing::new(bhs, &[], data.into(), crate::frame::Digests::default());
            let len = bytes::Buf::remaining(&pdu);
            buffer.extend_from_slice(&bytes::Buf::copy_to_bytes(&mut pdu, len));
            if pair.initiator.receive(&mut buffer).is_err() {
                break;
            }
        }
    }
}

#[test]
fn time_of_arrival_is_kept_for_the_hold_limit() {
    // W1: a command's age counts from its receipt, whatever happens to its data.
    let mut pair = Pair::usual(50);
    pair.now = Mono::from_nanos(5_000_000_000);
    pair.initiator.command(read(0, 1));
    pair.run();
    let command = pair.command();
    assert_eq!(command.received, Mono::from_nanos(5_000_000_000));
    assert_eq!(
        pair.target.tasks().collect::<Vec<_>>(),
        [(command.task, 0, command.received)]
    );
}
