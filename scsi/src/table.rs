//! The one table of commands. Dispatch, admission, write protection and REPORT SUPPORTED OPERATION CODES read nothing else.

use holdfast_alua::CommandClass;
use holdfast_alua::CommandClass::{Identify, Manage, Medium};

use crate::cdb::Cdb;
use crate::unit::{block, inquiry, mode, provision, report, supported};
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
    pub(crate) opcode: u8,
    /// Bits 4 to 0 of byte 1, for operation codes that have service actions.
    pub(crate) action: Option<u8>,
    /// What it needs from the way to the unit.
    pub(crate) class: CommandClass,
    /// May change the medium, so that write protection refuses it.
    pub(crate) writes: bool,
    /// Carried out although a unit attention is pending (SAM-5, 5.14.1).
    pub(crate) passes_attention: bool,
    /// CDB usage data (SPC-4, 6.31.3): operation code, service action, and a one in every bit that is looked at. Its length is the CDB's.
    pub(crate) usage: &'static [u8],
    /// Recommended command timeout in seconds.
    pub(crate) seconds: u32,
    pub(crate) run: Handler,
}

const fn command(class: CommandClass, usage: &'static [u8], run: Handler) -> Command {
    Command {
        opcode: usage[0],
        action: None,
        class,
        writes: false,
        passes_attention: false,
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

/// Every command, by operation code and service action.
pub(crate) const COMMANDS: &[Command] = &[
    // TEST UNIT READY
    command(Medium, &[0x00, 0, 0, 0, 0, 0x04], report::test_unit_ready).quick(),
    // REQUEST SENSE
    command(Identify, &[0x03, 0x01, 0, 0, 0xff, 0x04], report::request_sense)
        .passing_attention()
        .quick(),
    // READ(6), WRITE(6)
    command(Medium, &[0x08, 0x1f, 0xff, 0xff, 0xff, 0x04], block::read),
    command(Medium, &[0x0a, 0x1f, 0xff, 0xff, 0xff, 0x04], block::write).writing(),
    // INQUIRY
    command(Identify, &[0x12, 0x01, 0xff, 0xff, 0xff, 0x04], inquiry::inquiry)
        .passing_attention()
        .quick(),
    // MODE SELECT(6), MODE SENSE(6)
    command(Manage, &[0x15, 0x11, 0, 0, 0xff, 0x04], mode::select_6).quick(),
    command(Manage, &[0x1a, 0x08, 0xff, 0xff, 0xff, 0x04], mode::sense_6).quick(),
    // START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL
    command(
        Medium,
        &[0x1b, 0x01, 0, 0x0f, 0xf7, 0x04],
        report::start_stop_unit,
    )
    .quick(),
    command(Medium, &[0x1e, 0, 0, 0, 0x03, 0x04], report::prevent_allow).quick(),
    // READ CAPACITY(10)
    command(
        Manage,
        &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0x04],
        report::read_capacity_10,
    )
    .quick(),
    // READ(10), WRITE(10), WRITE AND VERIFY(10), VERIFY(10)
    command(
        Medium,
        &[0x28, 0xf8, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04],
        block::read,
    ),
    command(
        Medium,
        &[0x2a, 0xf8, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04],
        block::write,
    )
    .writing(),
    command(
        Medium,
        &[0x2e, 0xf6, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04],
        block::write_and_verify,
    )
    .writing(),
    command(
        Medium,
        &[0x2f, 0xf6, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04],
        block::verify,
    ),
    // PRE-FETCH(10), SYNCHRONIZE CACHE(10)
    command(
        Medium,
        &[0x34, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04],
        block::pre_fetch,
    ),
    command(
        Medium,
        &[0x35, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04],
        block::synchronize_cache,
    ),
    // WRITE SAME(10), UNMAP
    command(
        Medium,
        &[0x41, 0xfe, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04],
        provision::write_same,
    )
    .writing(),
    command(
        Medium,
        &[0x42, 0x01, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04],
        provision::unmap,
    )
    .writing(),
    // MODE SELECT(10), MODE SENSE(10)
    command(
        Manage,
        &[0x55, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04],
        mode::select_10,
    )
    .quick(),
    command(
        Manage,
        &[0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0x04],
        mode::sense_10,
    )
    .quick(),
    // READ(16), COMPARE AND WRITE, WRITE(16), WRITE AND VERIFY(16), VERIFY(16)
    command(Medium, &READ_WRITE_16[0], block::read),
    command(
        Medium,
        &[
            0x89, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0, 0x04,
        ],
        block::compare_and_write,
    )
    .writing(),
    command(Medium, &READ_WRITE_16[1], block::write).writing(),
    command(Medium, &READ_WRITE_16[2], block::write_and_verify).writing(),
    command(Medium, &READ_WRITE_16[3], block::verify),
    // PRE-FETCH(16), SYNCHRONIZE CACHE(16), WRITE SAME(16)
    command(Medium, &READ_WRITE_16[4], block::pre_fetch),
    command(Medium, &READ_WRITE_16[5], block::synchronize_cache),
    command(Medium, &READ_WRITE_16[6], provision::write_same).writing(),
    // READ CAPACITY(16)
    command(
        Manage,
        &[
            0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04,
        ],
        report::read_capacity_16,
    )
    .with_action()
    .quick(),
    // REPORT LUNS
    command(
        Identify,
        &[0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04],
        report::report_luns,
    )
    .passing_attention()
    .quick(),
    // REPORT TARGET PORT GROUPS
    command(
        Identify,
        &[0xa3, 0xea, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04],
        report::report_target_port_groups,
    )
    .with_action()
    .quick(),
    // REPORT SUPPORTED OPERATION CODES, REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
    command(
        Manage,
        &[
            0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04,
        ],
        supported::operation_codes,
    )
    .with_action()
    .quick(),
    command(
        Manage,
        &[0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04],
        supported::task_management,
    )
    .with_action()
    .quick(),
    // READ(12), WRITE(12), WRITE AND VERIFY(12), VERIFY(12)
    command(Medium, &READ_WRITE_12[0], block::read),
    command(Medium, &READ_WRITE_12[1], block::write).writing(),
    command(Medium, &READ_WRITE_12[2], block::write_and_verify).writing(),
    command(Medium, &READ_WRITE_12[3], block::verify),
];

const fn usage_12(opcode: u8, flags: u8) -> [u8; 12] {
    [
        opcode, flags, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04,
    ]
}

const fn usage_16(opcode: u8, flags: u8) -> [u8; 16] {
    [
        opcode, flags, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04,
    ]
}

const READ_WRITE_12: [[u8; 12]; 4] = [
    usage_12(0xa8, 0xf8),
    usage_12(0xaa, 0xf8),
    usage_12(0xae, 0xf6),
    usage_12(0xaf, 0xf6),
];

const READ_WRITE_16: [[u8; 16]; 7] = [
    usage_16(0x88, 0xf8),
    usage_16(0x8a, 0xf8),
    usage_16(0x8e, 0xf6),
    usage_16(0x8f, 0xf6),
    usage_16(0x90, 0),
    usage_16(0x91, 0),
    usage_16(0x93, 0xff),
];

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
