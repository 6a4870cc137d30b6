//! REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS (SPC-4), out of the table that dispatches.

use crate::table::{COMMANDS, Call, Command, entries};
use crate::{NexusLu, Response, Sense, Step};

/// SUPPORT: 001b, the command is not there.
const NOT_SUPPORTED: u8 = 1;
/// SUPPORT: 011b, as the standard has it.
const SUPPORTED: u8 = 3;

/// REPORT SUPPORTED OPERATION CODES.
pub(crate) fn operation_codes(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let timeouts = call.cdb.bit(2, 7);
    let opcode = call.cdb.byte(3);
    let action = call.cdb.number(4, 2);
    let has_actions = entries(opcode).any(|command| command.action.is_some());
    let with_action = || entries(opcode).find(|command| command.action.map(u64::from) == Some(action));
    let data = match call.cdb.byte(2) & 7 {
        0 => all_commands(timeouts),
        1 if has_actions => return Err(Sense::cdb_bit(2, 2)),
        1 => one_command(entries(opcode).next(), timeouts),
        2 if entries(opcode).next().is_some() && !has_actions => return Err(Sense::cdb_bit(2, 2)),
        2 => one_command(with_action(), timeouts),
        3 if has_actions => one_command(with_action(), timeouts),
        3 => one_command(entries(opcode).next().filter(|_| action == 0), timeouts),
        _ => return Err(Sense::cdb_bit(2, 2)),
    };
    Ok(Step::Done(Response::data(data, call.cdb.length(6, 4))))
}

/// The all_commands parameter data: a descriptor of 8 bytes for each, 20 with its timeouts.
fn all_commands(timeouts: bool) -> Vec<u8> {
    let mut data = vec![0; 4];
    for command in COMMANDS {
        let flags = u8::from(timeouts) << 1 | u8::from(command.action.is_some());
        let [high, low] = length(command);
        data.extend_from_slice(&[
            command.opcode,
            0,
            0,
            command.action.unwrap_or(0),
            0,
            flags,
            high,
            low,
        ]);
        if timeouts {
            data.extend_from_slice(&timeouts_descriptor(command));
        }
    }
    let length = u32::try_from(data.len() - 4).unwrap_or(u32::MAX);
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

/// The one_command parameter data.
fn one_command(command: Option<&Command>, timeouts: bool) -> Vec<u8> {
    let Some(command) = command else {
        return vec![0, NOT_SUPPORTED, 0, 0];
    };
    let [high, low] = length(command);
    let mut data = vec![0, u8::from(timeouts) << 7 | SUPPORTED, high, low];
    data.extend_from_slice(command.usage);
    if timeouts {
        data.extend_from_slice(&timeouts_descriptor(command));
    }
    data
}

/// The command timeouts descriptor (SPC-4): no nominal time, and the recommended one.
fn timeouts_descriptor(command: &Command) -> [u8; 12] {
    let mut descriptor = [0; 12];
    descriptor[1] = 10;
    descriptor[8..].copy_from_slice(&command.seconds.to_be_bytes());
    descriptor
}

fn length(command: &Command) -> [u8; 2] {
    u16::try_from(command.usage.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes()
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: ABORT TASK (ATS) and LOGICAL UNIT RESET (LURS).
pub(crate) fn task_management(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    // REPD asks for the extended data: 16 bytes, of which the first four are the same but for the length and no timeouts are given.
    let mut data = vec![0x88, 0, 0, 0];
    if call.cdb.bit(2, 7) {
        data[3] = 12;
        data.resize(16, 0);
    }
    Ok(Step::Done(Response::data(data, call.cdb.length(6, 4))))
}

#[cfg(test)]
#[path = "supported_test.rs"]
mod tests;
