//! A target in memory for tests of the initiator: the protocol object of the real one over TCP, and a row of bytes behind it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use holdfast_iscsi::chap::Challenge;
use holdfast_iscsi::directory::{Directory, Portal, TargetEntry};
use holdfast_iscsi::out::Payload;
use holdfast_iscsi::pdu::{ScsiStatus, TaskResult};
use holdfast_iscsi::session::Tsih;
use holdfast_iscsi::target::{Answer, Command, Connection, Event, Origin, PortalConfig, TaskId};
use holdfast_types::{Mono, TpgId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::initiator::Dial;

/// 1 MiB in blocks of 512 bytes.
pub(super) const DISK_BYTES: usize = 1 << 20;

/// What the target does to some commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// Nothing special.
    Sound,
    /// Tells the first command of each session 06/29/00.
    Attentive,
    /// Never answers a WRITE.
    Deaf,
    /// Sends every login there.
    Elsewhere(SocketAddr),
    /// Sends every login to itself.
    InCircles,
}

struct Served {
    connection: Connection,
    disk: Arc<Mutex<Vec<u8>>>,
    mood: Mood,
    local: SocketAddr,
    attentions: usize,
    waiting: Vec<(TaskId, usize)>,
    began: Instant,
}

/// Starts a target; how to dial it, and its task.
pub(super) async fn target(mood: Mood) -> (Dial, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let name = "iqn.2026-11.example:memory";
    let portals = vec![Portal {
        address,
        tpg: TpgId(1),
    }];
    let entry = TargetEntry {
        portals,
        ..TargetEntry::default()
    };
    let directory = Arc::new(Directory {
        targets: [(name.parse().unwrap(), entry)].into(),
        authoritative: true,
        ..Directory::default()
    });
    let disk = Arc::new(Mutex::new(vec![0; DISK_BYTES]));
    let task = tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let origin = Origin {
                peer: peer.ip(),
                challenge: Challenge::from_random([1; 33]),
            };
            let config = Arc::new(PortalConfig::new(TpgId(1)));
            let served = Served {
                connection: Connection::new(config, Arc::clone(&directory), origin, Mono::ZERO),
                disk: Arc::clone(&disk),
                mood,
                local: address,
                attentions: usize::from(mood == Mood::Attentive),
                waiting: Vec::new(),
                began: Instant::now(),
            };
            tokio::spawn(served.serve(stream));
        }
    });
    let url = format!("iscsi://{address}/{name}/0").parse().unwrap();
    let mut dial = Dial::new(url, "iqn.2026-11.example:drill".parse().unwrap(), 1);
    dial.login_timeout = Duration::from_secs(20);
    dial.command_timeout = Duration::from_secs(20);
    (dial, task)
}

impl Served {
    fn now(&self) -> Mono {
        Mono::ZERO + self.began.elapsed()
    }

    async fn serve(mut self, mut stream: TcpStream) {
        let mut buffer = BytesMut::with_capacity(1 << 20);
        loop {
            let over = self.connection.receive(&mut buffer, self.now()).is_err();
            let mut left = false;
            while let Some(event) = self.connection.poll_event() {
                left |= matches!(event, Event::LoggedOut(_));
                self.act(event);
            }
            while let Some(mut pdu) = self.connection.poll_transmit() {
                while pdu.has_remaining() {
                    if stream.write_buf(&mut pdu).await.is_err() {
                        return;
                    }
                }
            }
            if over || left || !matches!(stream.read_buf(&mut buffer).await, Ok(count) if count > 0) {
                return;
            }
        }
    }

    fn act(&mut self, event: Event) {
        match event {
            Event::Login(_) => match self.mood {
                Mood::Elsewhere(to) => assert!(self.connection.redirect_login(to)),
                Mood::InCircles => assert!(self.connection.redirect_login(self.local)),
                _ => assert!(self.connection.accept_login(Tsih(1), self.now())),
            },
            Event::Command(command) => self.command(&command),
            Event::DataOut { task, data } => {
                let at = self
                    .waiting
                    .iter()
                    .position(|(waiting, _)| *waiting == task)
                    .unwrap();
                let (_, offset) = self.waiting.swap_remove(at);
                self.write(task, offset, &data);
            }
            Event::TaskManagement(request) => {
                self.connection
                    .answer_task_management(request.id, TaskResult::COMPLETE);
            }
            Event::DataLost { task } => self.waiting.retain(|(waiting, _)| *waiting != task),
            Event::LoggedOut(_) => {}
        }
    }

    fn command(&mut self, command: &Command) {
        let cdb = command.cdb.head();
        let lba = u64::from_be_bytes(cdb[2..10].try_into().unwrap());
        let offset = usize::try_from(lba).unwrap().saturating_mul(512);
        let length = command.expected_length as usize;
        if self.attentions > 0 {
            self.attentions -= 1;
            let sense = Bytes::from_static(&[0x72, 0x06, 0x29, 0x00, 0, 0, 0, 0]);
            return self.answer(command.task, Answer::check_condition(sense));
        }
        let is_inside = offset + length <= DISK_BYTES;
        match cdb[0] {
            0x9e => {
                let mut data = vec![0; 32];
                data[..8].copy_from_slice(&(DISK_BYTES as u64 / 512 - 1).to_be_bytes());
                data[8..12].copy_from_slice(&512_u32.to_be_bytes());
                self.answer(command.task, Answer::data(Bytes::from(data)));
            }
            0x88 | 0x8a if !is_inside => {
                let sense = Bytes::from_static(&[0x72, 0x05, 0x21, 0x00, 0, 0, 0, 0]);
                self.answer(command.task, Answer::check_condition(sense));
            }
            0x88 => {
                let data = Bytes::copy_from_slice(&self.disk.lock().unwrap()[offset..offset + length]);
                self.answer(command.task, Answer::data(Payload::from(data)));
            }
            0x8a if self.mood == Mood::Deaf => {}
            0x8a if command.data.len() == length => self.write(command.task, offset, &command.data),
            0x8a => {
                self.waiting.push((command.task, offset));
                self.connection
                    .request_data(command.task, command.expected_length)
                    .unwrap();
            }
            0x00 => self.answer(command.task, Answer::good()),
            _ => self.answer(command.task, Answer::status(ScsiStatus::BUSY)),
        }
    }

    fn write(&mut self, task: TaskId, offset: usize, data: &[u8]) {
        self.disk.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        self.answer(task, Answer::good());
    }

    fn answer(&mut self, task: TaskId, answer: Answer) {
        // A task that was aborted is gone, and that is fine.
        let _ = self.connection.respond(task, answer);
    }
}
