//! What is fuzzed: whatever reads bytes from an initiator, our own initiator, which reads a target's, and what reads an iSNS server's.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use holdfast_alua::{AccessState, PortGroup, SecondaryAccess};
use holdfast_drill::error::SenseCode;
use holdfast_iscsi::chap::Challenge;
use holdfast_iscsi::directory::{
    Access, Authentication, Chap, Directory, InitiatorGroup, Portal, TargetEntry,
};
use holdfast_iscsi::initiator::{Initiator, Settings};
use holdfast_iscsi::isns::{Answer as IsnsAnswer, HEADER_BYTES, Objects, Registration, body_length};
use holdfast_iscsi::pdu::{Bhs, FINAL, LoginRequest, Numbers, Opcode, Stage, TaskResult};
use holdfast_iscsi::serial::Sn;
use holdfast_iscsi::session::Tsih;
use holdfast_iscsi::target::{Answer, Connection, Event, Origin, PortalConfig};
use holdfast_scsi::reservation::UnitState;
use holdfast_scsi::{
    CopyJob, CopyStep, Counters, LuView, NexusLu, Response, Step, Unit, start, start_absent,
};
use holdfast_types::{
    BlockOp, BlockSize, ExtentId, IscsiName, Isid, Lun, Mono, Nexus, NodeId, OpOutcome, RelativePortId,
    Secret, TpgId, UnixMillis,
};

use super::Target;

const TARGET: &str = "iqn.2026-11.example:disk";
const HOST: &str = "iqn.2026-11.example:host";
/// What a connection may have waiting for its initiator at most: the answers to what it may ask at once, with room.
const OUTBOX_MAX: usize = 64 << 20;
/// Time that passes from one piece of input to the next.
const STEP: std::time::Duration = std::time::Duration::from_millis(100);

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "login",
        words: LOGIN_WORDS,
        run: login,
    },
    Target {
        name: "stream",
        words: LOGIN_WORDS,
        run: stream,
    },
    Target {
        name: "session",
        words: &[],
        run: session,
    },
    Target {
        name: "initiator",
        words: LOGIN_WORDS,
        run: initiator,
    },
    Target {
        name: "isns",
        words: &[],
        run: isns,
    },
    Target {
        name: "command",
        words: &[],
        run: command,
    },
    Target {
        name: "sense",
        words: &[],
        run: sense,
    },
];

const LOGIN_WORDS: &[&[u8]] = &[
    b"InitiatorName=iqn.2026-11.example:host\0",
    b"TargetName=iqn.2026-11.example:disk\0",
    b"TargetName=iqn.2026-11.example:secret\0",
    b"SessionType=Normal\0",
    b"SessionType=Discovery\0",
    b"AuthMethod=CHAP,None\0",
    b"AuthMethod=CHAP\0",
    b"CHAP_A=5,6,7,8\0",
    b"CHAP_N=user\0",
    b"CHAP_R=0x00\0",
    b"CHAP_R=0bAAAA\0",
    b"CHAP_I=1\0",
    b"CHAP_C=0x5a\0",
    b"HeaderDigest=CRC32C\0",
    b"MaxRecvDataSegmentLength=512\0",
    b"FirstBurstLength=512\0",
    b"MaxConnections=8\0",
    b"SendTargets=All\0",
    b"=",
    b"\0",
    b"0x",
];

fn name(text: &str) -> IscsiName {
    text.parse().expect("a fixed name")
}

/// One target that everyone may use, and one that wants CHAP.
fn directory() -> Arc<Directory> {
    let portals = vec![Portal {
        address: ([192, 0, 2, 1], 3260).into(),
        tpg: TpgId(1),
    }];
    let entry = |access| TargetEntry {
        alias: None,
        portals: portals.clone(),
        access,
    };
    let secret = Secret::new(b"correct horse".to_vec()).expect("long enough");
    let group = InitiatorGroup {
        name: "hosts".into(),
        any_initiator: true,
        initiators: [name(HOST)].into(),
        networks: Vec::new(),
        authentication: Authentication::Chap(Arc::new(Chap {
            users: [("user".to_owned(), secret)].into(),
            mutual: None,
        })),
    };
    Arc::new(Directory {
        targets: [
            (name(TARGET), entry(Access::Everyone)),
            (
                name("iqn.2026-11.example:secret"),
                entry(Access::Groups(vec![Arc::new(group)])),
            ),
        ]
        .into(),
        discovery: Authentication::None,
        authoritative: true,
    })
}

/// A connection with an owner that answers everything at once, and its memory of what was answered.
struct Served {
    connection: Connection,
    buffer: BytesMut,
    now: Mono,
    seen: DefaultHasher,
}

impl Served {
    fn new() -> Self {
        let origin = Origin {
            peer: [192, 0, 2, 200].into(),
            challenge: Challenge::from_random([0x5a; 33]),
        };
        let config = Arc::new(PortalConfig::new(TpgId(1)));
        Self {
            connection: Connection::new(config, directory(), origin, Mono::ZERO),
            buffer: BytesMut::new(),
            now: Mono::ZERO,
            seen: DefaultHasher::new(),
        }
    }

    /// Gives it bytes, acts on what comes of them, and looks at the answers. False at the end of the connection.
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        self.now = self.now + STEP;
        loop {
            let before = self.buffer.len();
            let result = self.connection.receive(&mut self.buffer, self.now);
            let acted = self.act();
            self.listen();
            if let Err(fatal) = result {
                std::mem::discriminant(&fatal).hash(&mut self.seen);
                return false;
            }
            if self.connection.is_finished() {
                return false;
            }
            if !acted && self.buffer.len() == before {
                return true;
            }
        }
    }

    fn act(&mut self) -> bool {
        let mut acted = false;
        while let Some(event) = self.connection.poll_event() {
            acted = true;
            std::mem::discriminant(&event).hash(&mut self.seen);
            match event {
                Event::Login(_) => drop(self.connection.accept_login(Tsih(1), self.now)),
                Event::Command(command) => {
                    let answer = match command.cdb.as_bytes().first() {
                        // As a read, a write that wants its data, one that is left open, and one that fails.
                        Some(0x28) => Answer::data(Bytes::from(vec![7; 4096])),
                        Some(0x2a) => {
                            let wanted = command.expected_length.min(1 << 20);
                            if self.connection.request_data(command.task, wanted).is_ok() {
                                continue;
                            }
                            Answer::good()
                        }
                        Some(0x00) => continue,
                        _ => Answer::check_condition(Bytes::from_static(&[0x70; 18])),
                    };
                    let _ = self.connection.respond(command.task, answer);
                }
                Event::DataOut { task, .. } => drop(self.connection.respond(task, Answer::good())),
                Event::TaskManagement(request) => {
                    let result = TaskResult::COMPLETE;
                    self.connection.answer_task_management(request.id, result);
                }
                Event::DataLost { .. } | Event::LoggedOut(_) => {}
            }
        }
        acted
    }

    fn listen(&mut self) {
        assert!(self.connection.outbox().bytes() < OUTBOX_MAX, "the outbox grows");
        while let Some(mut pdu) = self.connection.poll_transmit() {
            let bytes = pdu.copy_to_bytes(pdu.remaining());
            // Opcode, flags, and the status or reason of what has one.
            bytes[..4].hash(&mut self.seen);
            if bytes[0] & 0x3f == 0x23 {
                bytes[36..38].hash(&mut self.seen);
            }
        }
    }

    fn signature(mut self) -> u64 {
        // Time goes on: logins run out, pings are sent, dead peers are dropped.
        for _ in 0..4 {
            let Some(at) = self.connection.poll_timeout() else {
                break;
            };
            if self.connection.handle_timeout(at).is_err() {
                break;
            }
            self.listen();
        }
        self.seen.finish()
    }
}

fn pdu(mut bhs: Bhs, data: &[u8]) -> Vec<u8> {
    bhs.set_lengths(0, data.len());
    let padding = data.len().next_multiple_of(4) - data.len();
    [&bhs.0[..], data, &[0; 4][..padding]].concat()
}

fn login_pdu(current: u8, next: u8, more: bool, transit: bool, text: &[u8]) -> Vec<u8> {
    let request = LoginRequest {
        transit,
        more,
        current: Stage(current),
        next: Stage(next),
        version_max: 0,
        version_min: 0,
        isid: Isid([0x80, 0, 0, 0, 0, 1]),
        tsih: 0,
        itt: 1,
        cid: 0,
        numbers: Numbers {
            cmd_sn: Sn(1),
            exp_stat_sn: Sn(0),
        },
    };
    pdu(request.emit(), text)
}

/// Login text: each piece is a byte of flags and stages, two of length, and the text of one Login Request.
fn login(input: &[u8]) -> u64 {
    let mut served = Served::new();
    let mut rest = input;
    while let [flags, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (text, after) = after.split_at(length.min(after.len()));
        let request = login_pdu(
            flags & 3,
            flags >> 2 & 3,
            flags & 0x40 != 0,
            flags & 0x80 != 0,
            text,
        );
        if !served.take(&request) {
            break;
        }
        rest = after;
    }
    served.signature()
}

/// Bytes from the first one of a connection on, as they come.
fn stream(input: &[u8]) -> u64 {
    let mut served = Served::new();
    for piece in input.chunks(61) {
        if !served.take(piece) {
            break;
        }
    }
    served.signature()
}

/// Whole PDUs in a session: each piece is a header whose lengths are put right, a byte of data length in units of 16, and the data.
fn session(input: &[u8]) -> u64 {
    let mut served = Served::new();
    let text = format!("InitiatorName={HOST}\0TargetName={TARGET}\0InitialR2T=No\0");
    assert!(served.take(&login_pdu(1, 3, false, true, text.as_bytes())));
    let mut rest = input;
    while let Some((header, after)) = rest.split_first_chunk::<48>() {
        let length = after.first().map_or(0, |length| usize::from(*length) * 16);
        let after = after.get(1..).unwrap_or(&[]);
        let (data, after) = after.split_at(length.min(after.len()));
        if !served.take(&pdu(Bhs(*header), data)) {
            break;
        }
        rest = after;
    }
    served.signature()
}

/// What a target sends to our own initiator. The first byte says whether its login is over.
fn initiator(input: &[u8]) -> u64 {
    let mut seen = DefaultHasher::new();
    let mut initiator = Initiator::new(Settings::new(name(HOST), Some(name(TARGET))));
    let mut buffer = BytesMut::new();
    let (first, rest) = input.split_first().unwrap_or((&0, &[]));
    if first & 1 == 1 {
        let bhs = Bhs::new(Opcode::LOGIN_RESPONSE, FINAL | 0x04 | 0x03).put_u32(16, 0);
        buffer.extend_from_slice(&pdu(bhs, b""));
    }
    for piece in rest.chunks(61) {
        buffer.extend_from_slice(piece);
        let result = initiator.receive(&mut buffer);
        while let Some(event) = initiator.poll_event() {
            std::mem::discriminant(&event).hash(&mut seen);
        }
        let outbox = initiator.outbox();
        assert!(outbox.bytes() < OUTBOX_MAX, "the outbox grows");
        while outbox.pop().is_some() {}
        if let Err(error) = result {
            std::mem::discriminant(&error).hash(&mut seen);
            break;
        }
    }
    seen.finish()
}

/// Carries a copy out on disks of zeros: every operation of it lies within its extent, and it comes to an end.
fn copy(mut job: CopyJob, mut seen: DefaultHasher) -> u64 {
    let mut step = job.begin();
    let mut operations = 0_u32;
    while let CopyStep::Operation { op, .. } = step {
        operations += 1;
        assert!(operations < 10_000, "the copy does not end");
        assert!(op.check(1000, BlockSize::B512), "{op:?}");
        step = job.advance(match op {
            BlockOp::Read { range } => {
                let length = usize::try_from(range.byte_len(BlockSize::B512)).unwrap_or(0);
                OpOutcome::Data(Bytes::from(vec![0; length]))
            }
            _ => OpOutcome::Done,
        });
    }
    operations.hash(&mut seen);
    seen.finish()
}

/// Two port groups; the second one, through which the command comes, in one of four states.
fn port_groups(state: u8) -> [PortGroup; 2] {
    let group = |id: u16, state| PortGroup {
        id: TpgId(id),
        state,
        preferred: id == 1,
        ports: vec![RelativePortId(id)],
        node: NodeId(u64::from(id)),
    };
    let states = [
        AccessState::ActiveOptimized,
        AccessState::ActiveNonOptimized,
        AccessState::Standby,
        AccessState::Transitioning,
    ];
    [
        group(1, AccessState::ActiveOptimized),
        group(2, states[usize::from(state & 3)]),
    ]
}

/// CDBs with their parameter lists: a byte of circumstances, one of the CDB's length, CDB, data.
fn command(input: &[u8]) -> u64 {
    let mut seen = DefaultHasher::new();
    let (circumstances, rest) = input.split_first().unwrap_or((&0, &[]));
    let (length, rest) = rest.split_first().unwrap_or((&16, &[]));
    let (cdb, data) = rest.split_at(usize::from(*length).min(rest.len()).min(260));
    let target = name(TARGET);
    let luns: Vec<Lun> = [0, 1, 300]
        .into_iter()
        .filter_map(|lun| Lun::try_from(lun).ok())
        .collect();
    let groups = port_groups(circumstances >> 4 & 3);
    let who = Nexus {
        initiator: name(TARGET),
        isid: Isid([1; 6]),
        target: name(TARGET),
        tpg: TpgId(2),
    };
    let unit = UnitState::default();
    let units = [0x1234, 0x1235].map(|extent| Unit {
        extent: ExtentId::from_u128(extent),
        blocks: 1000,
        block_size: BlockSize::B512,
        write_protected: circumstances & 2 != 0,
    });
    let view = LuView {
        extent: ExtentId::from_u128(0x1234),
        blocks: 1000,
        block_size: BlockSize::B512,
        target: &target,
        lun: Lun::ZERO,
        luns: &luns,
        units: &units,
        groups: &groups,
        secondary: SecondaryAccess::NonOptimized,
        port: TpgId(2),
        thin: circumstances & 1 == 0,
        write_protected: circumstances & 2 != 0,
        write_back: false,
        nexus: &who,
        unit: &unit,
        calendar: UnixMillis(1_795_000_000_000),
        counters: Counters::default(),
    };
    let mut nexus = NexusLu::new(Counters::default());
    if circumstances & 4 == 0 {
        // Its first unit attention is told.
        let _ = start(&[0; 6], &view, &mut nexus, 0);
    }
    let announced = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let step = match start(cdb, &view, &mut nexus, announced) {
        Step::NeedData { bytes, then } => {
            assert!(bytes <= announced, "more data is wanted than was announced");
            let taken = usize::try_from(bytes).unwrap_or(0);
            then.with_data(&view, Bytes::copy_from_slice(&data[..taken]))
        }
        step => step,
    };
    std::mem::discriminant(&step).hash(&mut seen);
    cdb.first().hash(&mut seen);
    let step = match step {
        Step::Copy(job) => return copy(job, seen),
        step => step,
    };
    if let Step::Done(response) = step {
        judge(&response, &mut seen);
    }
    judge(&start_absent(cdb, &luns), &mut seen);
    seen.finish()
}

/// Sense data that is sent is read back as it was meant, in both formats.
fn judge(response: &Response, seen: &mut DefaultHasher) {
    response.status.code().hash(seen);
    let Some(sense) = &response.sense else { return };
    let read = SenseCode::parse(&sense.fixed());
    assert!(read.is_some() && read == SenseCode::parse(&sense.descriptor()));
    assert!(sense.to_bytes().len() <= 252, "longer than sense data may be");
    read.hash(seen);
}

/// What an iSNS server may answer, one PDU after the other.
fn isns(input: &[u8]) -> u64 {
    let mut seen = DefaultHasher::new();
    let mut registration = Registration::new("cluster".to_owned());
    registration.want(Some(Arc::new(Objects {
        portals: [(([192, 0, 2, 1], 3260).into(), TpgId(1))].into(),
        targets: [name(TARGET)].into(),
    })));
    let (mut rest, mut now) = (input, Mono::ZERO);
    while !rest.is_empty() {
        let length = rest.first_chunk().and_then(|header| body_length(header).ok());
        let end = (HEADER_BYTES + length.unwrap_or(0)).min(rest.len());
        let (pdu, behind) = rest.split_at(end);
        rest = behind;
        registration.poll(now).is_some().hash(&mut seen);
        registration.answered(pdu, now);
        let answer = IsnsAnswer::parse(pdu).map(|answer| (answer.status, answer.period));
        answer.ok().hash(&mut seen);
        std::mem::discriminant(&registration.condition()).hash(&mut seen);
        let due = registration.deadline().expect("there is something to tell");
        assert!(
            due > now && due < now + std::time::Duration::from_secs(300),
            "told again at {due}"
        );
        now = due;
    }
    seen.finish()
}

/// Sense data as a target may send it.
fn sense(input: &[u8]) -> u64 {
    let mut seen = DefaultHasher::new();
    SenseCode::parse(input).map(|code| code.key).hash(&mut seen);
    input.first().hash(&mut seen);
    seen.finish()
}
