//! Order of commands, windows and task management.

use bytes::Bytes;
use holdfast_types::TpgId;

use crate::initiator::Event as User;
use crate::pair::{Pair, by_hand, read, send, settings};
use crate::pdu::{Bhs, NO_TAG, RejectReason, TaskFunction, TaskRequest, TaskResult};
use crate::serial::Sn;
use crate::target::{Answer, Event, PortalConfig, ReferencedTask, TaskManagement};

fn management(pair: &mut Pair) -> TaskManagement {
    match pair.owner.pop_front() {
        Some(Event::TaskManagement(request)) => request,
        other => panic!("no task management but {other:?}"),
    }
}

#[test]
fn stale_and_future_cmd_sns_are_ignored_without_a_word() {
    let mut pair = Pair::usual(20);
    let next = pair.initiator.next_numbers().cmd_sn;
    pair.sent.clear();
    for wrong in [next.add(u32::MAX), next.add(128), next.add(1 << 31)] {
        let bhs = by_hand(&pair, 900, wrong).emit();
        send(&mut pair, bhs);
    }
    assert!(pair.owner.is_empty() && pair.sent.is_empty());
    assert_eq!(pair.fatal, None);
    let bhs = by_hand(&pair, 901, next).emit();
    send(&mut pair, bhs);
    assert_eq!(pair.command().cmd_sn & 0xffff_ffff, u64::from(next.0));
}

#[test]
fn commands_that_overtake_wait_for_their_turn() {
    let mut pair = Pair::usual(21);
    let next = pair.initiator.next_numbers().cmd_sn;
    for (itt, ahead) in [(802, 2), (801, 1), (899, 1)] {
        let bhs = by_hand(&pair, itt, next.add(ahead)).emit();
        send(&mut pair, bhs);
        assert!(pair.owner.is_empty());
    }
    assert_eq!(pair.target.tasks().count(), 0, "not the owner's yet");
    let bhs = by_hand(&pair, 800, next).emit();
    send(&mut pair, bhs);
    let numbers: Vec<u64> = (0..3).map(|_| pair.command().cmd_sn).collect();
    assert!(numbers.is_sorted() && numbers[2] - numbers[0] == 2);
    assert!(pair.owner.is_empty(), "the doubled number was dropped");
    assert_eq!(pair.target.tasks().count(), 3);
}

#[test]
fn numbers_go_on_over_the_wrap() {
    let mut settings = settings();
    settings.cmd_sn = Sn(0xffff_fffe);
    let mut pair = Pair::logged_in(PortalConfig::new(TpgId(1)), settings, 22);
    let mut numbers = Vec::new();
    for _ in 0..5 {
        pair.initiator.command(read(0, 1));
        pair.run();
        let command = pair.command();
        numbers.push(command.cmd_sn);
        pair.answer(command.task, Answer::data(Bytes::from(vec![0; 512])));
        pair.result();
    }
    assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{numbers:x?}");
    assert_eq!(numbers[4] & 0xffff_ffff, 2);
}

#[test]
fn the_window_bounds_what_is_outstanding() {
    let mut config = PortalConfig::new(TpgId(1));
    config.limits.window = 4;
    let mut pair = Pair::logged_in(config, settings(), 23);
    for _ in 0..10 {
        pair.initiator.command(read(0, 1));
    }
    pair.run();
    assert_eq!((pair.owner.len(), pair.initiator.outstanding()), (4, 10));
    // Every answer lets one more in.
    for done in 1..=10 {
        let command = pair.command();
        pair.answer(command.task, Answer::good());
        pair.result();
        assert_eq!(pair.owner.len(), 4.min(10 - done));
    }
    pair.target.set_window(1);
    for _ in 0..8 {
        pair.initiator.command(read(0, 1));
    }
    pair.run();
    assert_eq!(pair.owner.len(), 4, "what was told cannot be taken back");
    for left in [3, 2, 1, 1, 1] {
        let command = pair.command();
        pair.answer(command.task, Answer::good());
        pair.result();
        assert_eq!(pair.owner.len(), left);
    }
}

#[test]
fn a_closed_window_that_opens_is_told_without_being_asked() {
    let mut config = PortalConfig::new(TpgId(1));
    config.limits.window = 0;
    let mut pair = Pair::logged_in(config, settings(), 24);
    pair.initiator.command(read(0, 1));
    pair.run();
    assert!(pair.owner.is_empty());
    pair.target.set_window(8);
    pair.run();
    let command = pair.command();
    // Likewise when the only task is aborted.
    pair.target.set_window(1);
    for _ in 0..9 {
        pair.initiator.command(read(0, 1));
    }
    pair.run();
    let mut tasks = vec![command.task];
    while let Some(Event::Command(command)) = pair.owner.pop_front() {
        tasks.push(command.task);
    }
    assert_eq!(tasks.len(), 8);
    for task in tasks {
        assert!(pair.target.abort(task));
        assert!(!pair.target.abort(task));
    }
    pair.run();
    assert_eq!(pair.owner.len(), 1);
}

#[test]
fn immediate_commands_overtake_and_are_bounded() {
    let mut config = PortalConfig::new(TpgId(1));
    config.limits.window = 0;
    config.limits.immediate_max = 2;
    let mut pair = Pair::logged_in(config, settings(), 25);
    for _ in 0..3 {
        let mut request = read(0, 1);
        request.immediate = true;
        pair.initiator.command(request);
    }
    pair.run();
    let (first, second) = (pair.command(), pair.command());
    assert!(first.immediate && first.cmd_sn != second.cmd_sn && first.cmd_sn >> 63 == 1);
    assert!(
        matches!(pair.user.pop_front(), Some(User::Rejected(reject, _)) if reject.reason == RejectReason::TOO_MANY_IMMEDIATE)
    );
    assert_eq!(pair.fatal, None);
    pair.answer(first.task, Answer::data(Bytes::from(vec![0; 512])));
    pair.result();
    let mut request = read(0, 1);
    request.immediate = true;
    pair.initiator.command(request);
    pair.run();
    pair.command();
}

#[test]
fn abort_task_finds_its_task() {
    let mut pair = Pair::usual(26);
    let tag = pair.initiator.command(read(0, 1));
    pair.run();
    let command = pair.command();
    let abort = pair
        .initiator
        .task_management(TaskFunction::ABORT_TASK, 0, Some(tag));
    pair.run();
    let request = management(&mut pair);
    assert_eq!(request.function, TaskFunction::ABORT_TASK);
    assert_eq!(request.referenced, Some(ReferencedTask::Known(command.task)));
    assert!(pair.target.abort(command.task));
    assert!(
        pair.target
            .answer_task_management(request.id, TaskResult::COMPLETE)
    );
    assert!(
        !pair
            .target
            .answer_task_management(request.id, TaskResult::COMPLETE),
        "answered once"
    );
    pair.run();
    assert_eq!(
        pair.user.pop_front(),
        Some(User::TaskManagement(abort, TaskResult::COMPLETE))
    );
    // Now it is gone; so is one on another logical unit.
    pair.initiator
        .task_management(TaskFunction::ABORT_TASK, 0, Some(tag));
    pair.run();
    assert_eq!(management(&mut pair).referenced, Some(ReferencedTask::Gone));
    let tag = pair.initiator.command(read(0, 1));
    pair.initiator
        .task_management(TaskFunction::ABORT_TASK, 1 << 48, Some(tag));
    pair.run();
    pair.command();
    assert_eq!(management(&mut pair).referenced, Some(ReferencedTask::Gone));
}

#[test]
fn no_data_comes_for_a_task_that_was_aborted() {
    let mut pair = Pair::usual(52);
    let data = pair.random.bytes(4096);
    let tag = pair.initiator.command(crate::pair::write(0, data));
    pair.initiator
        .task_management(TaskFunction::ABORT_TASK, 0, Some(tag));
    pair.run();
    let command = pair.command();
    // The data is there at once, its event behind that of the abort.
    pair.target.request_data(command.task, 4096).unwrap();
    let request = management(&mut pair);
    assert_eq!(request.referenced, Some(ReferencedTask::Known(command.task)));
    assert!(pair.target.abort(command.task));
    assert_eq!(pair.target.poll_event(), None);
}

fn abort_of(pair: &Pair, itt: u32, referenced: u32, ref_cmd_sn: Sn, cmd_sn: Sn) -> Bhs {
    let mut numbers = pair.initiator.next_numbers();
    numbers.cmd_sn = cmd_sn;
    TaskRequest {
        immediate: true,
        function: TaskFunction::ABORT_TASK,
        lun: 0,
        itt,
        referenced,
        numbers,
        ref_cmd_sn,
        exp_data_sn: 0,
    }
    .emit()
}

/// RFC 7143, 11.6.1: a command that is missing counts as received and aborted, and the ones behind it get their turn.
#[test]
fn aborting_a_command_that_never_came_fills_its_place() {
    let mut pair = Pair::usual(27);
    let next = pair.initiator.next_numbers().cmd_sn;
    let behind = by_hand(&pair, 701, next.next()).emit();
    send(&mut pair, behind);
    assert!(pair.owner.is_empty());
    let abort = abort_of(&pair, 750, 700, next, next.add(2));
    send(&mut pair, abort);
    assert_eq!(
        management(&mut pair).referenced,
        Some(ReferencedTask::NotYetReceived)
    );
    assert_eq!(pair.command().cmd_sn & 0xffff_ffff, u64::from(next.next().0));
    // If it comes after all it is stale.
    let late = by_hand(&pair, 700, next).emit();
    send(&mut pair, late);
    assert!(pair.owner.is_empty());
}

#[test]
fn aborting_a_command_that_waits_for_its_turn_takes_it_out() {
    let mut pair = Pair::usual(28);
    let next = pair.initiator.next_numbers().cmd_sn;
    let waiting = by_hand(&pair, 701, next.next()).emit();
    send(&mut pair, waiting);
    let abort = abort_of(&pair, 750, 701, next.next(), next.add(2));
    send(&mut pair, abort);
    assert_eq!(
        management(&mut pair).referenced,
        Some(ReferencedTask::NotYetReceived)
    );
    for (itt, cmd_sn) in [(700, next), (702, next.add(2))] {
        let bhs = by_hand(&pair, itt, cmd_sn).emit();
        send(&mut pair, bhs);
    }
    let numbers = (pair.command().cmd_sn, pair.command().cmd_sn);
    assert_eq!(numbers.1 - numbers.0, 2);
}

#[test]
fn resets_reach_commands_before_their_turn_and_their_unit_only() {
    let mut pair = Pair::usual(29);
    let next = pair.initiator.next_numbers().cmd_sn;
    for (itt, ahead, lun) in [(601, 1, 0), (602, 2, 1 << 48), (603, 3, 0)] {
        let mut command = by_hand(&pair, itt, next.add(ahead));
        command.lun = lun;
        send(&mut pair, command.emit());
    }
    // The reset comes before number 3.
    let reset = TaskRequest {
        immediate: true,
        function: TaskFunction::LOGICAL_UNIT_RESET,
        lun: 0,
        itt: 650,
        referenced: NO_TAG,
        numbers: crate::pdu::Numbers {
            cmd_sn: next.add(3),
            exp_stat_sn: Sn(0),
        },
        ref_cmd_sn: Sn(0),
        exp_data_sn: 0,
    };
    send(&mut pair, reset.emit());
    assert_eq!(management(&mut pair).referenced, None);
    let first = by_hand(&pair, 600, next).emit();
    send(&mut pair, first);
    let base = pair.command().cmd_sn;
    let rest: Vec<_> = (0..2)
        .map(|_| pair.command())
        .map(|command| (command.cmd_sn - base, command.lun))
        .collect();
    assert_eq!(rest, [(2, 1 << 48), (3, 0)]);
}

#[test]
fn unknown_functions_reach_the_owner_with_their_number() {
    let mut pair = Pair::usual(30);
    let tag = pair.initiator.task_management(TaskFunction(99), 0, None);
    pair.run();
    let request = management(&mut pair);
    assert_eq!(request.function, TaskFunction(99));
    pair.target
        .answer_task_management(request.id, TaskResult::NOT_SUPPORTED);
    pair.run();
    assert_eq!(
        pair.user.pop_front(),
        Some(User::TaskManagement(tag, TaskResult::NOT_SUPPORTED))
    );
}
