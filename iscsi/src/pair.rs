//! An initiator and a target connection driven against each other in memory, with bytes cut into random chunks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use holdfast_types::{IscsiName, Mono, TpgId};

use crate::chap::Challenge;
use crate::directory::{Authentication, Directory, InitiatorGroup, Portal, TargetEntry};
use crate::error::Fatal;
use crate::initiator::{self, Initiator, InitiatorError, ScsiRequest, ScsiResult, Settings, Tag};
use crate::pdu::{Bhs, Cdb, Direction, ScsiCommand, TaskAttribute};
use crate::serial::Sn;
use crate::session::{LoginRequested, Tsih};
use crate::target::{Answer, Command, Connection, Event, Origin, PortalConfig, TaskId};

pub(crate) const BLOCK: u32 = 512;

/// A small random generator (xorshift64*), so that a seed says all.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// From HOLDFAST_SEED where given. The seed is printed and shown where the test fails.
    pub(crate) fn new(seed: u64) -> Self {
        let given = std::env::var("HOLDFAST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or(seed).max(1);
        eprintln!("HOLDFAST_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        usize::try_from(value).unwrap() % bound.max(1)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Bytes {
        (0..len)
            .map(|_| u8::try_from(self.below(256)).unwrap())
            .collect::<Vec<_>>()
            .into()
    }
}

pub(crate) fn target_name() -> IscsiName {
    "iqn.2026-11.example:disk".parse().unwrap()
}

pub(crate) fn initiator_name() -> IscsiName {
    "iqn.2026-11.example:host".parse().unwrap()
}

pub(crate) fn directory() -> Directory {
    let portal = |address: &str, tpg| Portal {
        address: address.parse().unwrap(),
        tpg: TpgId(tpg),
    };
    let entry = TargetEntry {
        portals: vec![
            portal("192.0.2.1:3260", 1),
            portal("[2001:db8::1]:3260", 1),
            portal("192.0.2.2:3260", 2),
        ],
        ..TargetEntry::default()
    };
    Directory {
        targets: [(target_name(), entry)].into(),
        discovery: Authentication::None,
        authoritative: true,
    }
}

/// Where connections of tests come from, and their challenge.
pub(crate) fn origin() -> Origin {
    Origin {
        peer: "192.0.2.200".parse().unwrap(),
        challenge: Challenge::from_random([0x5a; 33]),
    }
}

/// A group of one initiator that need not prove anything.
pub(crate) fn group(initiator: IscsiName) -> Arc<InitiatorGroup> {
    Arc::new(InitiatorGroup {
        name: "hosts".into(),
        any_initiator: false,
        initiators: [initiator].into(),
        networks: Vec::new(),
        authentication: Authentication::None,
    })
}

pub(crate) fn settings() -> Settings {
    Settings::new(initiator_name(), Some(target_name()))
}

pub(crate) struct Pair {
    pub(crate) initiator: Initiator,
    pub(crate) target: Connection,
    pub(crate) now: Mono,
    pub(crate) random: Random,
    pub(crate) fatal: Option<Fatal>,
    pub(crate) initiator_error: Option<InitiatorError>,
    /// What the target's owner has not taken yet.
    pub(crate) owner: VecDeque<Event>,
    /// What the initiator's owner has not taken yet.
    pub(crate) user: VecDeque<initiator::Event>,
    /// Headers that the target has sent, oldest first.
    pub(crate) sent: Vec<Bhs>,
    to_target: BytesMut,
    to_initiator: BytesMut,
}

impl Pair {
    /// Not logged in.
    pub(crate) fn new(config: PortalConfig, settings: Settings, seed: u64) -> Self {
        let now = Mono::from_nanos(1_000_000_000);
        Self {
            initiator: Initiator::new(settings),
            target: Connection::new(Arc::new(config), Arc::new(directory()), origin(), now),
            now,
            random: Random::new(seed),
            fatal: None,
            initiator_error: None,
            owner: VecDeque::new(),
            user: VecDeque::new(),
            sent: Vec::new(),
            to_target: BytesMut::new(),
            to_initiator: BytesMut::new(),
        }
    }

    /// Logged in with these.
    pub(crate) fn logged_in(config: PortalConfig, settings: Settings, seed: u64) -> Self {
        let mut pair = Self::new(config, settings, seed);
        pair.run();
        pair.accept();
        assert!(
            matches!(
                pair.user.pop_front(),
                Some(initiator::Event::LoggedIn { tsih: 7, .. })
            ),
            "logged in"
        );
        pair
    }

    pub(crate) fn usual(seed: u64) -> Self {
        Self::logged_in(PortalConfig::new(TpgId(1)), settings(), seed)
    }

    /// The owner accepts the login that must wait.
    pub(crate) fn accept(&mut self) -> LoginRequested {
        let Some(Event::Login(login)) = self.owner.pop_front() else {
            panic!("no login waits; {:?}", self.fatal);
        };
        assert!(self.target.accept_login(Tsih(7), self.now));
        self.run();
        login
    }

    /// Moves bytes to and fro in random chunks until nothing moves any more.
    pub(crate) fn run(&mut self) {
        loop {
            let moved = self.initiator_to_target() | self.target_to_initiator();
            while let Some(event) = self.target.poll_event() {
                self.owner.push_back(event);
            }
            while let Some(event) = self.initiator.poll_event() {
                self.user.push_back(event);
            }
            if !moved {
                return;
            }
        }
    }

    /// Moves one chunk to the target.
    pub(crate) fn run_once(&mut self) {
        self.initiator_to_target();
    }

    /// Moves all that the target has sent to the initiator.
    pub(crate) fn receive_at_initiator(&mut self) {
        while self.target_to_initiator() {}
    }

    fn chunk(random: &mut Random, from: &mut impl Buf, to: &mut BytesMut) -> bool {
        // Small chunks at times, so that headers are cut too.
        let most = if random.below(3) == 0 { 60 } else { 100_000 };
        let len = (random.below(most) + 1).min(from.remaining());
        to.extend_from_slice(&from.copy_to_bytes(len));
        len > 0
    }

    fn initiator_to_target(&mut self) -> bool {
        if self.fatal.is_some() {
            return false;
        }
        let room = self.target.wanted(&self.to_target);
        let moved = room > 0 && Self::chunk(&mut self.random, self.initiator.outbox(), &mut self.to_target);
        let before = self.to_target.len();
        if let Err(fatal) = self.target.receive(&mut self.to_target, self.now) {
            self.fatal = Some(fatal);
        }
        moved || before != self.to_target.len()
    }

    fn target_to_initiator(&mut self) -> bool {
        while let Some(mut pdu) = self.target.poll_transmit() {
            let bytes = pdu.copy_to_bytes(pdu.remaining());
            self.sent.push(Bhs(*bytes.first_chunk().unwrap()));
            self.to_initiator.extend_from_slice(&bytes);
        }
        if self.initiator_error.is_some() {
            return false;
        }
        let before = self.to_initiator.len();
        if let Err(error) = self.initiator.receive(&mut self.to_initiator) {
            self.initiator_error = Some(error);
        }
        before != self.to_initiator.len()
    }

    /// Time passes on the target's side.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        if let Err(fatal) = self.target.handle_timeout(self.now) {
            self.fatal = Some(fatal);
        }
    }

    /// The next event of the target's owner, which must be a command.
    pub(crate) fn command(&mut self) -> Command {
        match self.owner.pop_front() {
            Some(Event::Command(command)) => command,
            other => panic!("no command but {other:?}; {:?}", self.fatal),
        }
    }

    pub(crate) fn answer(&mut self, task: TaskId, answer: Answer) {
        self.target.respond(task, answer).unwrap();
        self.run();
    }

    /// The next event of the initiator's user, which must be a command's end.
    pub(crate) fn result(&mut self) -> (Tag, ScsiResult) {
        match self.user.pop_front() {
            Some(initiator::Event::Command(tag, result)) => (tag, result),
            other => panic!(
                "no result but {other:?}; {:?} {:?}",
                self.fatal, self.initiator_error
            ),
        }
    }

    /// Serves READ(10) and WRITE(10) on a disk in memory until nothing is left to be done.
    pub(crate) fn serve(&mut self, disk: &mut [u8]) {
        let mut writes: Vec<(TaskId, usize)> = Vec::new();
        loop {
            self.run();
            let Some(event) = self.owner.pop_front() else {
                return;
            };
            match event {
                Event::Command(command) => {
                    let (at, len) = extent(&command.cdb);
                    match command.direction {
                        Direction::Read => {
                            // In pieces, as a store would give them.
                            let pieces: Vec<Bytes> = disk[at..at + len]
                                .chunks(5000)
                                .map(Bytes::copy_from_slice)
                                .collect();
                            self.target.respond(command.task, Answer::data(pieces)).unwrap();
                        }
                        _ if command.data.len() == len => {
                            disk[at..at + len].copy_from_slice(&command.data);
                            self.target.respond(command.task, Answer::good()).unwrap();
                        }
                        _ => {
                            writes.push((command.task, at));
                            let len = u32::try_from(len).unwrap();
                            self.target.request_data(command.task, len).unwrap();
                        }
                    }
                }
                Event::DataOut { task, data } => {
                    let index = writes.iter().position(|(id, _)| *id == task).unwrap();
                    let (_, at) = writes.swap_remove(index);
                    disk[at..at + data.len()].copy_from_slice(&data);
                    self.target.respond(task, Answer::good()).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Offset and length in bytes of a READ(10) or WRITE(10).
fn extent(cdb: &Cdb) -> (usize, usize) {
    let cdb = cdb.as_bytes();
    let lba = u32::from_be_bytes([cdb[2], cdb[3], cdb[4], cdb[5]]);
    let blocks = u16::from_be_bytes([cdb[7], cdb[8]]);
    let at = usize::try_from(lba * BLOCK).unwrap();
    (at, usize::from(blocks) * 512)
}

pub(crate) fn cdb(opcode: u8, lba: u32, blocks: u16) -> Cdb {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    Cdb::new(&cdb).unwrap()
}

pub(crate) fn read(lba: u32, blocks: u16) -> ScsiRequest {
    ScsiRequest::read(0, cdb(0x28, lba, blocks), u32::from(blocks) * BLOCK)
}

pub(crate) fn write(lba: u32, data: Bytes) -> ScsiRequest {
    let blocks = u16::try_from(data.len() / 512).unwrap();
    ScsiRequest::write(0, cdb(0x2a, lba, blocks), data)
}

/// A READ(10) of one block made by hand.
pub(crate) fn by_hand(pair: &Pair, itt: u32, cmd_sn: Sn) -> ScsiCommand {
    let mut numbers = pair.initiator.next_numbers();
    numbers.cmd_sn = cmd_sn;
    ScsiCommand {
        immediate: false,
        last: true,
        direction: Direction::Read,
        attribute: TaskAttribute::SIMPLE,
        lun: 0,
        itt,
        expected_length: 512,
        numbers,
        cdb: cdb(0x28, 0, 1).head(),
    }
}

pub(crate) fn send(pair: &mut Pair, bhs: Bhs) {
    pair.initiator.pdu(bhs, Bytes::new());
    pair.run();
}
