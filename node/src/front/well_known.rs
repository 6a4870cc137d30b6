//! Commands to the REPORT LUNS well-known unit, which every target has.

use holdfast_iscsi::target::Command;
use holdfast_scsi::{NexusLu, REPORT_LUNS_UNIT, Status, start_well_known};

use super::session::{REPORT_LUNS, Session, map_of};
use super::state::FrontState;

impl Session {
    /// Answers a command to it. False if that is for another unit.
    pub(super) fn well_known(&mut self, state: &FrontState, command: &Command) -> bool {
        if command.lun != REPORT_LUNS_UNIT {
            return false;
        }
        let Some(session) = &mut self.logged_in else {
            return false;
        };
        let Some(unit) = map_of(&session.login).and_then(|map| state.well_known(map, self.port)) else {
            return false;
        };
        let present = unit.counters();
        let cdb = command.cdb.as_bytes();
        let nexus = session.well_known.get_or_insert_with(|| NexusLu::new(present));
        let response = start_well_known(cdb, &unit, nexus);
        if cdb.first() == Some(&REPORT_LUNS) && response.status == Status::Good {
            // What was read here is no news through other units.
            session
                .units
                .values_mut()
                .for_each(|unit| unit.luns_reported(present));
        }
        self.respond(command.task, response);
        true
    }
}
