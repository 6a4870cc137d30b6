//! The task that owns one connection: moves bytes between the socket and the protocol object, and answers to their senders.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use holdfast_iscsi::initiator::{Event, Initiator, ScsiRequest, ScsiResult, Settings, Tag};
use holdfast_iscsi::pdu::{LogoutReason, TaskFunction, TaskResult};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;

/// Segments of one vectored write; the kernel takes up to 1024.
const SEGMENTS_MAX: usize = 64;
/// Room that each read from the socket has at least.
const READ_BYTES: usize = 256 << 10;
/// Requests taken before the socket gets its turn.
const REQUESTS_AT_ONCE: usize = 64;

/// What a session's handle asks its task for.
#[derive(Debug)]
pub(super) enum Request {
    /// A SCSI command; its tag may be wanted before its end.
    Command(
        ScsiRequest,
        Option<oneshot::Sender<Tag>>,
        oneshot::Sender<ScsiResult>,
    ),
    /// A task management function on a LUN field, and the task it means.
    Task(TaskFunction, u64, Option<Tag>, oneshot::Sender<TaskResult>),
    /// A NOP-Out.
    Ping(oneshot::Sender<()>),
    /// A text request.
    Text(Vec<(String, String)>, oneshot::Sender<Vec<(String, String)>>),
    /// A logout.
    Logout(LogoutReason, oneshot::Sender<()>),
}

/// Who waits for what.
#[derive(Debug)]
enum Waiting {
    Command(oneshot::Sender<ScsiResult>),
    Task(oneshot::Sender<TaskResult>),
    Ping(oneshot::Sender<()>),
    Text(oneshot::Sender<Vec<(String, String)>>),
    Logout(oneshot::Sender<()>),
}

struct Driver {
    stream: TcpStream,
    initiator: Initiator,
    buffer: BytesMut,
    waiting: HashMap<Tag, Waiting>,
    login: Option<oneshot::Sender<Result<(), Error>>>,
}

/// Runs a connection until it ends or all handles are gone. Whoever still waits then learns it from the dropped channel.
pub(super) async fn drive(
    stream: TcpStream,
    settings: Settings,
    mut inbox: mpsc::Receiver<Request>,
    ready: oneshot::Sender<Result<(), Error>>,
) {
    let mut driver = Driver {
        stream,
        initiator: Initiator::new(settings),
        buffer: BytesMut::with_capacity(READ_BYTES),
        waiting: HashMap::new(),
        login: Some(ready),
    };
    if let Err(error) = driver.run(&mut inbox).await {
        tracing::debug!(%error, "session ended");
        if let Some(login) = driver.login.take() {
            // Nobody waits for the login any more when this fails.
            let _ = login.send(Err(error));
        }
    }
}

impl Driver {
    async fn run(&mut self, inbox: &mut mpsc::Receiver<Request>) -> Result<(), Error> {
        loop {
            for _ in 0..REQUESTS_AT_ONCE {
                match inbox.try_recv() {
                    Ok(request) => self.send(request),
                    Err(_) => break,
                }
            }
            let wrote = self.write().map_err(lost)?;
            let read = self.read()?;
            if wrote || read {
                // A busy connection does not starve the other tasks of its thread.
                tokio::task::yield_now().await;
                continue;
            }
            let interest = if self.initiator.outbox().is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            tokio::select! {
                request = inbox.recv() => match request {
                    Some(request) => self.send(request),
                    None => return Ok(()),
                },
                ready = self.stream.ready(interest) => {
                    ready.map_err(lost)?;
                }
            }
        }
    }

    fn send(&mut self, request: Request) {
        let (tag, waiting) = match request {
            Request::Command(command, tagged, reply) => {
                let tag = self.initiator.command(command);
                if let Some(tagged) = tagged {
                    let _ = tagged.send(tag);
                }
                (tag, Waiting::Command(reply))
            }
            Request::Task(function, lun, task, reply) => (
                self.initiator.task_management(function, lun, task),
                Waiting::Task(reply),
            ),
            Request::Ping(reply) => (
                self.initiator.ping(Bytes::from_static(b"ping")),
                Waiting::Ping(reply),
            ),
            Request::Text(keys, reply) => {
                let keys: Vec<(&str, &str)> = keys
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str()))
                    .collect();
                (self.initiator.text(&keys), Waiting::Text(reply))
            }
            Request::Logout(reason, reply) => (self.initiator.logout(reason), Waiting::Logout(reply)),
        };
        self.waiting.insert(tag, waiting);
    }

    /// Writes what the socket takes; whether that was anything.
    fn write(&mut self) -> io::Result<bool> {
        let mut any = false;
        let outbox = self.initiator.outbox();
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SEGMENTS_MAX];
            let used = outbox.chunks_vectored(&mut slices);
            match self.stream.try_write_vectored(&slices[..used]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    outbox.advance(count);
                    any = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(any)
    }

    /// Reads once what is there and acts on it; whether that was anything.
    fn read(&mut self) -> Result<bool, Error> {
        let wanted = self
            .initiator
            .wanted(&self.buffer)
            .saturating_sub(self.buffer.len());
        self.buffer.reserve(wanted.max(READ_BYTES));
        match self.stream.try_read_buf(&mut self.buffer) {
            Ok(0) => Err(Error::Lost("the target closed the connection".to_owned())),
            Ok(_) => {
                let outcome = self.initiator.receive(&mut self.buffer);
                // What came before the fault counts.
                while let Some(event) = self.initiator.poll_event() {
                    self.tell(event)?;
                }
                outcome.map_err(|error| Error::Protocol(error.to_string()))?;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(lost(error)),
        }
    }

    /// Answers to whoever waits; it does not matter when that one has gone away.
    fn tell(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::LoggedIn { .. } => {
                if let Some(login) = self.login.take() {
                    let _ = login.send(Ok(()));
                }
            }
            Event::LoginRefused(status) => {
                let [class, detail] = status.0.to_be_bytes();
                return Err(Error::LoginRefused { class, detail });
            }
            Event::LoginRedirected(to) => return Err(Error::Redirected(to)),
            Event::Command(tag, result) => {
                if let Some(Waiting::Command(reply)) = self.waiting.remove(&tag) {
                    let _ = reply.send(result);
                }
            }
            Event::TaskManagement(tag, result) => {
                if let Some(Waiting::Task(reply)) = self.waiting.remove(&tag) {
                    let _ = reply.send(result);
                }
            }
            Event::Pong(tag, _) => {
                if let Some(Waiting::Ping(reply)) = self.waiting.remove(&tag) {
                    let _ = reply.send(());
                }
            }
            Event::Text(tag, keys) => {
                if let Some(Waiting::Text(reply)) = self.waiting.remove(&tag) {
                    let _ = reply.send(keys);
                }
            }
            Event::LoggedOut(tag, _) => {
                if let Some(Waiting::Logout(reply)) = self.waiting.remove(&tag) {
                    let _ = reply.send(());
                }
                return Err(Error::Lost("logged out".to_owned()));
            }
            Event::Async(message) => {
                return Err(Error::Lost(format!("the target asks to leave: {message:?}")));
            }
            // At ErrorRecoveryLevel 0 a rejected PDU costs the connection: the numbers do not fit any more.
            Event::Rejected(reject, _) => return Err(Error::Rejected(reject.reason.0)),
        }
        Ok(())
    }
}

fn lost(error: io::Error) -> Error {
    Error::Lost(error.to_string())
}
