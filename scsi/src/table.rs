//! The one table of commands. Dispatch, admission, write protection and REPORT SUPPORTED OPERATION CODES read nothing else.

use holdfast_alua::CommandClass;
use holdfast_alua::CommandClass::{Identify, Manage, Medium};

use crate::cdb::Cdb;
use crate::reservation::Conflict;
use crate::unit::{
    block, copy, identify, inquiry, log, mode, provision, report, reserve, sanitize, supported, timestamp,
};
use crate::{LuView, NexusLu, Sense, Step};

/// A command on its way: CDB, unit, and how many bytes the initiator announced to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) cdb: Cdb<'a>,
    pub(crate) view: &'a LuView<'a>,
    pub(crate) data_out: u32,
}

/// Carries a command out as far as it goes without data or storage. `Err` is CHECK CONDITION.
pub(crate) type Handler = fn(&Call<'_>, &mut NexusLu) -> Result<Step, Sense>;

/// A command.
#[derive(Debug)]
pub(crate) struct Command {
    /// As the standards write it.
    pub(crate) name: &'static str,
    pub(crate) opcode: u8,
    /// Bits 4 to 0 of byte 1, for operation codes that have service actions.
    pub(crate) action: Option<u8>,
    /// What it needs from the way to the unit.
    pub(crate) class: CommandClass,
    /// May change the medium, so that write protection refuses it.
    pub(crate) writes: bool,
    /// Carried out although a unit attention is pending (SAM-5, 5.14).
    pub(crate) passes_attention: bool,
    /// Carried out although a SANITIZE is under way or has failed (SBC-4, 4.11.2).
    pub(crate) during_sanitize: bool,
    /// What a reservation of another nexus means for it (P1).
    pub(crate) conflict: Conflict,
    /// CDB usage data (SPC-4, one_command parameter data): operation code, service action, and a one in every bit that is looked at.
    /// Its length is the CDB's.
    pub(crate) usage: &'static [u8],
    /// Recommended command timeout in seconds; 0 where none is said.
    pub(crate) seconds: u32,
    pub(crate) run: Handler,
}

const fn command(name: &'static str, class: CommandClass, usage: &'static [u8], run: Handler) -> Command {
    Command {
        name,
        opcode: usage[0],
        action: None,
        class,
        writes: false,
        passes_attention: false,
        during_sanitize: matches!(class, Identify),
        conflict: match class {
            Identify | CommandClass::SetGroups => Conflict::Never,
            Manage => Conflict::Legacy,
            Medium => Conflict::Write,
        },
        usage,
        seconds: 30,
        run,
    }
}

impl Command {
    /// Has a service action: the one in its usage data.
    const fn with_action(mut self) -> Self {
        self.action = Some(self.usage[1] & 0x1f);
        self
    }

    const fn writing(mut self) -> Self {
        self.writes = true;
        self
    }

    const fn passing_attention(mut self) -> Self {
        self.passes_attention = true;
        self
    }

    /// Takes as long as the unit is large: no time to give it is said.
    const fn open_ended(mut self) -> Self {
        self.seconds = 0;
        self
    }

    const fn during_sanitize(mut self) -> Self {
        self.during_sanitize = true;
        self
    }

    /// What a reservation of another nexus means, where it is not what its class says.
    const fn reserved(mut self, conflict: Conflict) -> Self {
        self.conflict = conflict;
        self
    }

    /// The same for one CDB: starting the medium and allowing its removal are let through (SBC-3, 4.17).
    pub(crate) fn conflict_of(&self, cdb: Cdb<'_>) -> Conflict {
        match self.opcode {
            0x1b if cdb.bit(4, 0) && cdb.byte(4) >> 4 == 0 => Conflict::Legacy,
            0x1e if cdb.byte(4) & 3 == 0 => Conflict::Legacy,
            _ => self.conflict,
        }
    }

    /// Answered from memory, never behind data.
    const fn quick(mut self) -> Self {
        self.seconds = 10;
        self
    }

    /// Whether it is the command that a CDB names.
    fn matches(&self, opcode: u8, action: u8) -> bool {
        self.opcode == opcode && self.action.is_none_or(|own| own == action)
    }
}

const FF: u8 = 0xff;

/// Every command, by operation code and service action. One row each; the fourth column is the CDB usage data.
#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    command("TEST UNIT READY", Medium, &[0x00, 0, 0, 0, 0, 4], report::test_unit_ready).quick().reserved(Conflict::Legacy),
    command("REQUEST SENSE", Identify, &[0x03, 0x01, 0, 0, FF, 4], report::request_sense).passing_attention().quick(),
    command("READ(6)", Medium, &[0x08, 0x1f, FF, FF, FF, 4], block::read).reserved(Conflict::Read),
    command("WRITE(6)", Medium, &[0x0a, 0x1f, FF, FF, FF, 4], block::write).writing(),
    command("INQUIRY", Identify, &[0x12, 0x01, FF, FF, FF, 4], inquiry::inquiry).passing_attention().quick(),
    command("MODE SELECT(6)", Manage, &[0x15, 0x11, 0, 0, FF, 4], mode::select_6).quick().reserved(Conflict::Write),
    command("RESERVE(6)", Manage, &[0x16, 0x10, 0, 0, 0, 4], reserve::reserve).reserved(Conflict::Own).quick(),
    command("RELEASE(6)", Manage, &[0x17, 0x10, 0, 0, 0, 4], reserve::release).reserved(Conflict::Own).quick(),
    command("MODE SENSE(6)", Manage, &[0x1a, 0x08, FF, FF, FF, 4], mode::sense_6).quick().reserved(Conflict::Write),
    command("START STOP UNIT", Medium, &[0x1b, 0, 0, 0x0f, 0xf3, 4], report::start_stop_unit).quick(),
    command("PREVENT ALLOW MEDIUM REMOVAL", Medium, &[0x1e, 0, 0, 0, 0x03, 4], report::prevent_allow).quick(),
    command("READ CAPACITY(10)", Manage, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 4], report::read_capacity_10).quick(),
    command("READ(10)", Medium, &[0x28, 0xf8, FF, FF, FF, FF, 0, FF, FF, 4], block::read).reserved(Conflict::Read),
    command("WRITE(10)", Medium, &[0x2a, 0xf8, FF, FF, FF, FF, 0, FF, FF, 4], block::write).writing(),
    command("WRITE AND VERIFY(10)", Medium, &[0x2e, 0xf6, FF, FF, FF, FF, 0, FF, FF, 4], block::write_and_verify).writing(),
    command("VERIFY(10)", Medium, &[0x2f, 0xf6, FF, FF, FF, FF, 0, FF, FF, 4], block::verify).reserved(Conflict::Read),
    command("PRE-FETCH(10)", Medium, &[0x34, 0, FF, FF, FF, FF, 0, FF, FF, 4], block::pre_fetch).reserved(Conflict::Read),
    command("SYNCHRONIZE CACHE(10)", Medium, &[0x35, 0, FF, FF, FF, FF, 0, FF, FF, 4], block::synchronize_cache),
    command("READ DEFECT DATA(10)", Medium, &[0x37, 0, 0x1f, 0, 0, 0, 0, FF, FF, 4], report::read_defect_data_10)
        .quick().reserved(Conflict::Read),
    command("WRITE SAME(10)", Medium, &[0x41, 0xfe, FF, FF, FF, FF, 0, FF, FF, 4], provision::write_same).writing(),
    command("UNMAP", Medium, &[0x42, 0x01, 0, 0, 0, 0, 0, FF, FF, 4], provision::unmap).writing(),
    command("SANITIZE, OVERWRITE", Medium, &sanitize_usage(0x01), sanitize::overwrite).with_action().writing().open_ended(),
    command("SANITIZE, BLOCK ERASE", Medium, &sanitize_usage(0x02), sanitize::block_erase).with_action().writing().open_ended(),
    command("SANITIZE, EXIT FAILURE MODE", Medium, &sanitize_usage(0x1f), sanitize::exit_failure_mode).with_action().quick(),
    command("LOG SENSE", Manage, &[0x4d, 0x01, 0x3f, FF, 0, FF, FF, FF, FF, 4], log::sense).quick().during_sanitize(),
    command("MODE SELECT(10)", Manage, &[0x55, 0x11, 0, 0, 0, 0, 0, FF, FF, 4], mode::select_10).quick().reserved(Conflict::Write),
    command("RESERVE(10)", Manage, &[0x56, 0x13, 0, 0, 0, 0, 0, 0, 0, 4], reserve::reserve).reserved(Conflict::Own).quick(),
    command("RELEASE(10)", Manage, &[0x57, 0x13, 0, 0, 0, 0, 0, 0, 0, 4], reserve::release).reserved(Conflict::Own).quick(),
    command("MODE SENSE(10)", Manage, &[0x5a, 0x18, FF, FF, 0, 0, 0, FF, FF, 4], mode::sense_10).quick().reserved(Conflict::Write),
    command("PERSISTENT RESERVE IN, READ KEYS", Manage, &persistent_in(0), reserve::persistent_in)
        .with_action().reserved(Conflict::Own).quick(),
    command("PERSISTENT RESERVE IN, READ RESERVATION", Manage, &persistent_in(1), reserve::persistent_in)
        .with_action().reserved(Conflict::Own).quick(),
    command("PERSISTENT RESERVE IN, REPORT CAPABILITIES", Manage, &persistent_in(2), reserve::persistent_in)
        .with_action().reserved(Conflict::Own).quick(),
    command("PERSISTENT RESERVE IN, READ FULL STATUS", Manage, &persistent_in(3), reserve::persistent_in)
        .with_action().reserved(Conflict::Own).quick(),
    command("PERSISTENT RESERVE OUT, REGISTER", Manage, &persistent_out(0), reserve::persistent_out)
        .with_action().reserved(Conflict::Own).quick(),
    command("PERSISTENT RESERVE OUT, RESERVE", Manage, &persistent_out(1), reserve::persistent_out)
        .with_action().reserved(Conflict::Own).quick(),
    command("PERSISTENT RESERVE OUT, RELEASE", Manage, &persistent_out(2), reserve::persistent_out)
        .with_action().reserved(Conflict::Own).quick(),
    command("PERSISTENT RESERVE OUT, CLEAR", Manage, &persistent_out(3), reserve::persistent_out)
        .with_action().reserved(Conflict::Own).quick(),
    command("PERSISTENT RESERVE OUT, PREEMPT", Manage, &persistent_out(4), reserve::persistent_out)
        .with_action().reserved(Conflict::Own).quick(),
    command("PERSISTENT RESERVE OUT, PREEMPT AND ABORT", Manage, &persistent_out(5), reserve::persistent_out)
        .with_action().reserved(Conflict::Own).quick(),
    command("PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", Manage, &persistent_out(6), reserve::persistent_out)
        .with_action().reserved(Conflict::Own).quick(),
    command("PERSISTENT RESERVE OUT, REGISTER AND MOVE", Manage, &persistent_out(7), reserve::persistent_out)
        .with_action().reserved(Conflict::Own).quick(),
    command("EXTENDED COPY(LID1)", Medium, &third_party(0x83, 0x00, 0), copy::extended_copy_1).with_action(),
    command("EXTENDED COPY(LID4)", Medium, &third_party(0x83, 0x01, 0), copy::extended_copy_4).with_action(),
    command("RECEIVE COPY STATUS(LID1)", Medium, &COPY_STATUS_1, copy::copy_status_1).with_action().quick(),
    command("RECEIVE COPY OPERATING PARAMETERS", Medium, &third_party(0x84, 0x03, 0), copy::operating_parameters)
        .with_action().quick(),
    command("RECEIVE COPY STATUS(LID4)", Medium, &third_party(0x84, 0x05, FF), copy::copy_status_4).with_action().quick(),
    command("READ(16)", Medium, &usage_16(0x88, 0xf8), block::read).reserved(Conflict::Read),
    command("COMPARE AND WRITE", Medium, &COMPARE_AND_WRITE, block::compare_and_write).writing(),
    command("WRITE(16)", Medium, &usage_16(0x8a, 0xf8), block::write).writing(),
    command("ORWRITE(16)", Medium, &usage_16(0x8b, 0xf8), block::or_write).writing(),
    command("WRITE AND VERIFY(16)", Medium, &usage_16(0x8e, 0xf6), block::write_and_verify).writing(),
    command("VERIFY(16)", Medium, &usage_16(0x8f, 0xf6), block::verify).reserved(Conflict::Read),
    command("PRE-FETCH(16)", Medium, &usage_16(0x90, 0), block::pre_fetch).reserved(Conflict::Read),
    command("SYNCHRONIZE CACHE(16)", Medium, &usage_16(0x91, 0), block::synchronize_cache),
    command("WRITE SAME(16)", Medium, &usage_16(0x93, 0xff), provision::write_same).writing(),
    command("WRITE ATOMIC(16)", Medium, &WRITE_ATOMIC, block::write_atomic).writing(),
    command("READ CAPACITY(16)", Manage, &READ_CAPACITY_16, report::read_capacity_16).with_action().quick(),
    command("GET LBA STATUS(16)", Medium, &GET_LBA_STATUS_16, provision::get_lba_status).with_action().quick().reserved(Conflict::Read),
    command("REPORT LUNS", Identify, &[0xa0, 0, FF, 0, 0, 0, FF, FF, FF, FF, 0, 4], report::report_luns).passing_attention().quick(),
    command("REPORT IDENTIFYING INFORMATION", Medium, &identifying(0xa3, 0x05), identify::report)
        .with_action().quick().reserved(Conflict::Legacy),
    command("REPORT TARGET PORT GROUPS", Identify, &maintenance_in(0xea, [0; 4]), report::report_target_port_groups)
        .with_action().quick(),
    command("REPORT SUPPORTED OPERATION CODES", Manage, &maintenance_in(0x0c, [0x87, FF, FF, FF]), supported::operation_codes)
        .with_action().quick().during_sanitize(),
    command("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", Manage, &maintenance_in(0x0d, [0x80, 0, 0, 0]), supported::task_management)
        .with_action().quick().during_sanitize(),
    command("REPORT TIMESTAMP", Medium, &maintenance_in(0x0f, [0; 4]), timestamp::report)
        .with_action().quick().reserved(Conflict::Legacy),
    command("SET IDENTIFYING INFORMATION", Medium, &identifying(0xa4, 0x06), identify::set).with_action().quick(),
    command("SET TIMESTAMP", Medium, &SET_TIMESTAMP, timestamp::set).with_action().quick(),
    command("READ(12)", Medium, &usage_12(0xa8, 0xf8), block::read).reserved(Conflict::Read),
    command("WRITE(12)", Medium, &usage_12(0xaa, 0xf8), block::write).writing(),
    command("WRITE AND VERIFY(12)", Medium, &usage_12(0xae, 0xf6), block::write_and_verify).writing(),
    command("VERIFY(12)", Medium, &usage_12(0xaf, 0xf6), block::verify).reserved(Conflict::Read),
    command("READ DEFECT DATA(12)", Medium, &READ_DEFECT_DATA_12, report::read_defect_data_12).quick().reserved(Conflict::Read),
];

const SET_TIMESTAMP: [u8; 12] = [0xa4, 0x0f, 0, 0, 0, 0, FF, FF, FF, FF, 0, 4];
const COMPARE_AND_WRITE: [u8; 16] = [0x89, 0xf8, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0, 0, FF, 0, 4];
const COPY_STATUS_1: [u8; 16] = [0x84, 0, FF, 0, 0, 0, 0, 0, 0, 0, FF, FF, FF, FF, 0, 4];
const WRITE_ATOMIC: [u8; 16] = [0x9c, 0xf8, FF, FF, FF, FF, FF, FF, FF, FF, 0, 0, FF, FF, 0, 4];
const READ_DEFECT_DATA_12: [u8; 12] = [0xb7, 0x1f, FF, FF, FF, FF, FF, FF, FF, FF, 0, 4];
const READ_CAPACITY_16: [u8; 16] = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, FF, FF, FF, FF, 0, 4];
const GET_LBA_STATUS_16: [u8; 16] = [0x9e, 0x12, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 4];

/// READ, WRITE and their like of 12 bytes; `flags` are the bits of byte 1.
const fn usage_12(opcode: u8, flags: u8) -> [u8; 12] {
    [opcode, flags, FF, FF, FF, FF, FF, FF, FF, FF, 0, 4]
}

/// The same of 16 bytes.
const fn usage_16(opcode: u8, flags: u8) -> [u8; 16] {
    [
        opcode, flags, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, 0, 4,
    ]
}

/// PERSISTENT RESERVE IN: service action and allocation length.
const fn persistent_in(action: u8) -> [u8; 10] {
    [0x5e, action, 0, 0, 0, 0, 0, FF, FF, 4]
}

/// PERSISTENT RESERVE OUT: service action, scope and type, parameter list length.
const fn persistent_out(action: u8) -> [u8; 10] {
    [0x5f, action, FF, 0, 0, FF, FF, FF, FF, 4]
}

/// SANITIZE: IMMED, AUSE and the service action, and a parameter list length.
const fn sanitize_usage(action: u8) -> [u8; 10] {
    [0x48, 0xa0 | action, 0, 0, 0, 0, 0, FF, FF, 4]
}

/// EXTENDED COPY and RECEIVE COPY RESULTS: a list identifier of four bytes where there is one, and a length.
const fn third_party(opcode: u8, action: u8, list: u8) -> [u8; 16] {
    [
        opcode, action, list, list, list, list, 0, 0, 0, 0, FF, FF, FF, FF, 0, 4,
    ]
}

/// MAINTENANCE IN: `action` with the bits above it, bytes 2 to 5, and an allocation length.
const fn maintenance_in(action: u8, middle: [u8; 4]) -> [u8; 12] {
    [
        0xa3, action, middle[0], middle[1], middle[2], middle[3], FF, FF, FF, FF, 0, 4,
    ]
}

/// REPORT and SET IDENTIFYING INFORMATION: a length, and the type.
const fn identifying(opcode: u8, action: u8) -> [u8; 12] {
    [opcode, action, 0, 0, 0, 0, FF, FF, FF, FF, 0xfe, 4]
}

/// Where each operation code's entries start in [`COMMANDS`]; its length where there are none.
const FIRST: [usize; 256] = {
    let mut first = [COMMANDS.len(); 256];
    let mut at = COMMANDS.len();
    while at > 0 {
        at -= 1;
        first[COMMANDS[at].opcode as usize] = at;
    }
    first
};

/// The entries of one operation code: none, one, or one for each service action.
pub(crate) fn entries(opcode: u8) -> impl Iterator<Item = &'static Command> {
    let first = FIRST[usize::from(opcode)];
    COMMANDS[first..]
        .iter()
        .take_while(move |command| command.opcode == opcode)
}

/// The command that a CDB names.
pub(crate) fn find(cdb: Cdb<'_>) -> Option<&'static Command> {
    entries(cdb.opcode()).find(|command| command.matches(cdb.opcode(), cdb.action()))
}

/// A command that is there, for documents and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandInfo {
    /// As the standards write it.
    pub name: &'static str,
    /// Its operation code.
    pub opcode: u8,
    /// Its service action, where it has one.
    pub action: Option<u8>,
    /// What it needs from the way to the unit.
    pub class: CommandClass,
    /// Whether it may change the medium, so that a unit that is write protected refuses it, whatever else is in the CDB.
    pub writes: bool,
}

impl From<&Command> for CommandInfo {
    fn from(command: &Command) -> Self {
        Self {
            name: command.name,
            opcode: command.opcode,
            action: command.action,
            class: command.class,
            writes: command.writes,
        }
    }
}

/// Every command that a unit carries out.
pub fn commands() -> impl Iterator<Item = CommandInfo> {
    COMMANDS.iter().map(CommandInfo::from)
}

/// The command that a CDB names; `None` where there is no such command.
pub fn command_of(cdb: &[u8]) -> Option<CommandInfo> {
    if cdb.is_empty() {
        return None;
    }
    find(Cdb(cdb)).map(CommandInfo::from)
}
