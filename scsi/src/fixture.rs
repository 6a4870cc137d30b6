//! A unit to try commands on: 1000 blocks of 512 bytes behind two port groups, the second of which takes the commands.

use bytes::Bytes;
use holdfast_alua::{AccessState, PortGroup, SecondaryAccess};
use holdfast_types::{
    BlockSize, ExtentId, IscsiName, Isid, Lun, Nexus, NodeId, RelativePortId, TpgId, UnixMillis,
};

use crate::reservation::UnitState;
use crate::{Counters, LuView, NexusLu, Response, Step, Storage, Unit, start};

pub(crate) const BLOCKS: u64 = 1000;

/// Extents behind the three units, the first of which takes the commands; the last has blocks of 4096 bytes.
pub(crate) const EXTENT: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
pub(crate) const OTHER: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6678;
pub(crate) const LARGE: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6679;

const fn unit(extent: u128, block_size: BlockSize) -> Unit {
    Unit {
        extent: ExtentId::from_u128(extent),
        blocks: BLOCKS,
        block_size,
        write_protected: false,
    }
}

/// What a view borrows.
pub(crate) struct Fixture {
    pub(crate) target: IscsiName,
    pub(crate) luns: Vec<Lun>,
    pub(crate) units: Vec<Unit>,
    pub(crate) groups: Vec<PortGroup>,
    pub(crate) nexus: NexusLu,
    pub(crate) who: Nexus,
    pub(crate) unit: UnitState,
}

impl Fixture {
    /// Two groups; commands come through the second, active/non-optimized. No unit attention is pending.
    pub(crate) fn new() -> Self {
        let group = |id: u16, state, preferred| PortGroup {
            id: TpgId(id),
            state,
            preferred,
            ports: vec![RelativePortId(id)],
            node: NodeId(u64::from(id)),
        };
        let mut nexus = NexusLu::new(Counters::default());
        nexus.take();
        Self {
            target: "iqn.2026-11.example:disk".parse().unwrap(),
            luns: [0, 1, 300].map(|lun| Lun::try_from(lun).unwrap()).to_vec(),
            units: vec![
                unit(EXTENT, BlockSize::B512),
                unit(OTHER, BlockSize::B512),
                unit(LARGE, BlockSize::B4096),
            ],
            groups: vec![
                group(1, AccessState::ActiveOptimized, true),
                group(2, AccessState::ActiveNonOptimized, false),
            ],
            nexus,
            who: Nexus {
                initiator: "iqn.2026-11.example:host".parse().unwrap(),
                isid: Isid([1; 6]),
                target: "iqn.2026-11.example:disk".parse().unwrap(),
                tpg: TpgId(2),
            },
            unit: UnitState::default(),
        }
    }

    /// The same with the commands' group in `state`.
    pub(crate) fn in_state(state: AccessState) -> Self {
        let mut fixture = Self::new();
        fixture.groups[1].state = state;
        fixture
    }

    pub(crate) fn view(&self) -> LuView<'_> {
        LuView {
            extent: ExtentId::from_u128(EXTENT),
            blocks: BLOCKS,
            block_size: BlockSize::B512,
            target: &self.target,
            lun: Lun::ZERO,
            luns: &self.luns,
            units: &self.units,
            groups: &self.groups,
            secondary: SecondaryAccess::NonOptimized,
            port: TpgId(2),
            thin: true,
            write_protected: false,
            write_back: false,
            nexus: &self.who,
            unit: &self.unit,
            calendar: UnixMillis(0),
            counters: Counters::default(),
        }
    }

    /// Starts a command on a view that is changed first.
    pub(crate) fn start_on(
        &mut self,
        cdb: &[u8],
        data_out: u32,
        change: impl FnOnce(&mut LuView<'_>),
    ) -> Step {
        let mut nexus = self.nexus;
        let mut view = self.view();
        change(&mut view);
        let step = start(cdb, &view, &mut nexus, data_out);
        self.nexus = nexus;
        step
    }

    /// Starts a command that announces no data.
    pub(crate) fn start(&mut self, cdb: &[u8]) -> Step {
        self.start_on(cdb, 0, |_| {})
    }

    /// Runs a command with its data up to storage or the answer. All of the data is announced.
    pub(crate) fn run(&mut self, cdb: &[u8], data: &[u8]) -> Step {
        self.run_on(cdb, data, |_| {})
    }

    /// The same on a view that is changed first.
    pub(crate) fn run_on(&mut self, cdb: &[u8], data: &[u8], change: impl Fn(&mut LuView<'_>)) -> Step {
        let announced = u32::try_from(data.len()).unwrap();
        match self.start_on(cdb, announced, &change) {
            Step::NeedData { bytes, then } => {
                let mut view = self.view();
                change(&mut view);
                then.with_data(&view, Bytes::copy_from_slice(&data[..bytes as usize]))
            }
            step => step,
        }
    }

    /// Data of a command that ends in GOOD.
    pub(crate) fn data(&mut self, cdb: &[u8]) -> Bytes {
        let response = done(self.start(cdb));
        assert_eq!(response.sense, None, "{cdb:02x?}");
        response.data
    }

    /// The sense of a command that ends at once; empty for GOOD.
    pub(crate) fn sense(&mut self, cdb: &[u8]) -> String {
        sense(self.start(cdb))
    }
}

/// The answer of a command that ended.
pub(crate) fn done(step: Step) -> Response {
    match step {
        Step::Done(response) => response,
        other => panic!("not done: {other:?}"),
    }
}

/// The sense of a command that ended, as `05/24/00`; empty for GOOD.
pub(crate) fn sense(step: Step) -> String {
    done(step)
        .sense
        .map_or_else(String::new, |sense| sense.to_string())
}

/// The operation of a command that went to storage, checked against the unit.
pub(crate) fn storage(step: Step) -> Storage {
    match step {
        Step::Storage(storage) => {
            assert!(storage.op.check(BLOCKS, BlockSize::B512), "{storage:?}");
            storage
        }
        other => panic!("not for storage: {other:?}"),
    }
}
