//! One connection, from its first byte to its last.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use holdfast_types::Mono;

use super::full_feature::{FullFeature, Io};
use super::link::Link;
use super::login::{Login, Outcome, SEGMENT_MAX, Waiting};
use super::{Answer, Event, PortalConfig, TaskError, TaskId, TmfId};
use crate::chap::Challenge;
use crate::directory::Directory;
use crate::error::Fatal;
use crate::frame::{BadFrame, FrameError, FrameLimits, Framer};
use crate::negotiate::{Key, Parameters};
use crate::out::{Outbox, Outgoing, Payload};
use crate::pdu::{Bhs, Frame, LoginRequest, LoginResponse, LoginStatus, Opcode, RejectReason, TaskResult};
use crate::serial::Sn;
use crate::session::Tsih;
use crate::text;

/// Longest Additional Header Segments in bytes that are taken: a CDB of 260 bytes and a bidirectional read length.
const AHS_MAX: usize = 256;
/// Events that may wait for the owner before reading stops.
const EVENTS_MAX: usize = 1024;

/// What a connection is given when it begins.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The initiator's address.
    pub peer: IpAddr,
    /// What is asked of it where it has to authenticate itself.
    pub challenge: Challenge,
}

/// How far the connection is.
#[derive(Debug)]
enum Phase {
    /// Negotiating.
    Login(Box<Login>),
    /// Negotiated; the owner has to decide.
    Waiting(Box<Waiting>),
    /// In a session.
    FullFeature(Box<FullFeature>),
    /// Over, whether by logout, refusal or error.
    Over,
}

/// A target's side of one connection.
///
/// The driver's loop: `receive` what is in the read buffer; act on every event of `poll_event` and on what the rest of the node
/// has answered; write the
/// `outbox`; stop after `is_finished` with an empty outbox. Then wait for bytes (only while `wanted` is not 0, with at least that
/// much room in the buffer),
/// room in the socket, answers, or `poll_timeout`. `receive` must be called again after each of these, also without new bytes.
#[derive(Debug)]
pub struct Connection {
    config: Arc<PortalConfig>,
    directory: Arc<Directory>,
    opened: Mono,
    framer: Framer,
    link: Link,
    events: VecDeque<Event>,
    phase: Phase,
    /// What was left in the read buffer: more than that means that the peer lives.
    unread: usize,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(config: Arc<PortalConfig>, directory: Arc<Directory>, origin: Origin, now: Mono) -> Self {
        let login = Login::new(&config, origin);
        Self {
            config,
            directory,
            opened: now,
            framer: Framer::new(FrameLimits {
                data: SEGMENT_MAX,
                ahs: 0,
            }),
            link: Link::default(),
            events: VecDeque::new(),
            phase: Phase::Login(Box::new(login)),
            unread: 0,
        }
    }

    /// Takes whole PDUs out of the read buffer and acts on them. Stops early where the owner or the peer has to act first.
    ///
    /// # Errors
    /// [`Fatal`]: write what is in the outbox as far as that works at once, then close.
    pub fn receive(&mut self, buffer: &mut BytesMut, now: Mono) -> Result<(), Fatal> {
        let heard = buffer.len() > self.unread;
        if let Phase::FullFeature(session) = &mut self.phase
            && heard
        {
            session.hear(now);
        }
        let result = self.receive_all(buffer, now);
        self.unread = buffer.len();
        if result.is_err() {
            self.phase = Phase::Over;
        }
        result
    }

    fn receive_all(&mut self, buffer: &mut BytesMut, now: Mono) -> Result<(), Fatal> {
        while self.may_receive() {
            let frame = match self.framer.next(buffer) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(bad) => return Err(self.bad_frame(&bad, now)),
            };
            self.act(frame, now)?;
        }
        Ok(())
    }

    fn may_receive(&self) -> bool {
        match self.phase {
            Phase::Login(_) => true,
            Phase::FullFeature(_) => self.events.len() < EVENTS_MAX && !self.link.is_choked(),
            Phase::Waiting(_) | Phase::Over => false,
        }
    }

    /// A data digest error is rejected before the connection ends (RFC 7143, 7.8); a header that cannot be trusted is not.
    fn bad_frame(&mut self, bad: &BadFrame, now: Mono) -> Fatal {
        if let (Phase::FullFeature(session), Some(bhs), FrameError::DataDigest { .. }) =
            (&mut self.phase, &bad.bhs, bad.error)
        {
            let mut io = Io {
                link: &mut self.link,
                events: &mut self.events,
                directory: &self.directory,
                now,
            };
            session.reject(bhs, RejectReason::DATA_DIGEST, &mut io);
        }
        bad.error.into()
    }

    fn act(&mut self, frame: Frame, now: Mono) -> Result<(), Fatal> {
        match &mut self.phase {
            Phase::Login(_) => self.login(&frame.bhs, &frame.data),
            Phase::FullFeature(session) => {
                let mut io = Io {
                    link: &mut self.link,
                    events: &mut self.events,
                    directory: &self.directory,
                    now,
                };
                session.receive(frame, &mut io)?;
                if session.logged_out {
                    self.phase = Phase::Over;
                }
                Ok(())
            }
            Phase::Waiting(_) | Phase::Over => Err(Fatal::Over),
        }
    }

    fn login(&mut self, bhs: &Bhs, data: &[u8]) -> Result<(), Fatal> {
        let Phase::Login(login) = &mut self.phase else {
            return Err(Fatal::Over);
        };
        if bhs.opcode() != Opcode::LOGIN_REQUEST {
            // RFC 7143, 6.3: nothing but logins; who speaks something else is not answered.
            return Err(Fatal::Protocol {
                opcode: bhs.opcode(),
                problem: "before the login",
            });
        }
        let request = LoginRequest::parse(bhs);
        match login.receive(&request, data, &self.config, &self.directory) {
            Outcome::Respond(response, text) => {
                self.send_login(&response, text);
                Ok(())
            }
            Outcome::Ask(waiting) => {
                self.link.stat_sn = login.stat_sn();
                self.events.push_back(Event::Login(waiting.request.clone()));
                self.phase = Phase::Waiting(waiting);
                Ok(())
            }
            Outcome::Refuse(response, reason) => {
                self.send_login(&response, Vec::new());
                Err(Fatal::LoginRefused {
                    status: response.status,
                    reason,
                })
            }
            Outcome::Drop(fatal) => Err(fatal),
        }
    }

    /// Login Responses carry no digests (RFC 7143, 13.1: they start with the full feature phase).
    fn send_login(&mut self, response: &LoginResponse, text: Vec<u8>) {
        self.link
            .send(response.emit(), Payload::from(bytes::Bytes::from(text)));
    }

    /// How many bytes the read buffer must hold, those in it included, before `receive` can do anything. 0: do not read now.
    pub fn wanted(&self, buffer: &BytesMut) -> usize {
        if self.may_receive() {
            self.framer.needs(buffer)
        } else {
            0
        }
    }

    /// What has happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is to be written, as one [`bytes::Buf`] for vectored writes.
    pub const fn outbox(&mut self) -> &mut Outbox {
        &mut self.link.outbox
    }

    /// The next PDU to be written, for owners that keep their own queue.
    pub fn poll_transmit(&mut self) -> Option<Outgoing> {
        self.link.outbox.pop()
    }

    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Login(_) | Phase::Waiting(_) => Some(self.opened + self.config.limits.login_timeout),
            Phase::FullFeature(session) => session.deadline(),
            Phase::Over => None,
        }
    }

    /// Ends logins that take too long, pings silent initiators, and gives dead ones up. Calling it early does nothing.
    ///
    /// # Errors
    /// [`Fatal`], as for `receive`.
    pub fn handle_timeout(&mut self, now: Mono) -> Result<(), Fatal> {
        let result = match &mut self.phase {
            Phase::Login(_) | Phase::Waiting(_) if now >= self.opened + self.config.limits.login_timeout => {
                Err(Fatal::LoginTimeout)
            }
            Phase::FullFeature(session) => session.handle_timeout(&mut self.link, now),
            Phase::Login(_) | Phase::Waiting(_) | Phase::Over => Ok(()),
        };
        if result.is_err() {
            self.phase = Phase::Over;
        }
        result
    }

    /// Lets a login in (after a reinstated session's tasks are gone; RFC 7143, 6.3.5). Digests and lengths that were negotiated
    /// hold from here on.
    /// False where no login waits.
    pub fn accept_login(&mut self, tsih: Tsih, now: Mono) -> bool {
        let Phase::Waiting(waiting) = &self.phase else {
            return false;
        };
        let session = FullFeature::new(waiting, &self.config.limits, now);
        let mut response = waiting.response;
        response.tsih = tsih.0;
        // From the last response on the window counts.
        response.numbers.exp_cmd_sn = session.window.exp_cmd_sn();
        response.numbers.max_cmd_sn = session.window.max_cmd_sn();
        let text = waiting.text.clone();
        self.send_login(&response, text);
        let parameters = &session.parameters;
        self.link.digests = parameters.digests;
        self.framer.set(
            parameters.digests,
            FrameLimits {
                data: usize::try_from(parameters.receive_max).unwrap_or(SEGMENT_MAX),
                ahs: AHS_MAX,
            },
        );
        self.phase = Phase::FullFeature(Box::new(session));
        true
    }

    /// Refuses a login; the connection is finished. False where no login waits.
    pub fn refuse_login(&mut self, status: LoginStatus) -> bool {
        self.end_login(status, Vec::new())
    }

    /// Sends a login to another portal for now (status 0101; RFC 7143, 11.13.5); the connection is finished. False where no login waits.
    pub fn redirect_login(&mut self, to: SocketAddr) -> bool {
        let mut text = Vec::new();
        // IPv6 addresses print in brackets; a redirection names no portal group (13.8).
        text::put(&mut text, Key::TargetAddress.name(), &to.to_string());
        self.end_login(LoginStatus::MOVED_TEMPORARILY, text)
    }

    fn end_login(&mut self, status: LoginStatus, text: Vec<u8>) -> bool {
        let Phase::Waiting(waiting) = &self.phase else {
            return false;
        };
        let response = LoginResponse {
            transit: false,
            status,
            ..waiting.response
        };
        self.send_login(&response, text);
        self.phase = Phase::Over;
        true
    }

    /// Asks for a write's data: `length` bytes from the start, which comes as [`Event::DataOut`]. Only now a buffer is allocated.
    ///
    /// # Errors
    /// [`TaskError`].
    pub fn request_data(&mut self, task: TaskId, length: u32) -> Result<(), TaskError> {
        match &mut self.phase {
            Phase::FullFeature(session) => {
                session.request_data(task, length, &mut self.link, &mut self.events)
            }
            _ => Err(TaskError::Gone),
        }
    }

    /// Ends a task.
    ///
    /// # Errors
    /// [`TaskError::Gone`] where it was aborted meanwhile, or the session is over.
    pub fn respond(&mut self, task: TaskId, answer: Answer) -> Result<(), TaskError> {
        match &mut self.phase {
            Phase::FullFeature(session) => session.respond(task, answer, &mut self.link),
            _ => Err(TaskError::Gone),
        }
    }

    /// Drops a task without a response, and data that still comes for it: no event names it from here on. False where it is gone already.
    pub fn abort(&mut self, task: TaskId) -> bool {
        self.events
            .retain(|event| !matches!(event, Event::DataOut { task: id, .. } if *id == task));
        match &mut self.phase {
            Phase::FullFeature(session) => session.abort(task, &mut self.link),
            _ => false,
        }
    }

    /// Answers a task management request. False where it is gone.
    pub fn answer_task_management(&mut self, id: TmfId, result: TaskResult) -> bool {
        match &mut self.phase {
            Phase::FullFeature(session) => session.answer_task_management(id, result, &mut self.link),
            _ => false,
        }
    }

    /// StatSN of the next response (RFC 7143, 11.4.8): what was answered so far has lower ones.
    pub const fn next_status(&self) -> Sn {
        self.link.stat_sn
    }

    /// The status that the initiator expects next (ExpStatSN; RFC 7143, 11.2.2.1), so that it has all before it: the highest one that it has
    /// named. `None` outside the full feature phase, and until it has named one there.
    pub fn expected_status(&self) -> Option<Sn> {
        match &self.phase {
            Phase::FullFeature(session) => session.expected_status(),
            _ => None,
        }
    }

    /// The tasks that wait for an answer, oldest first: LUN field, and when the command was received.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, u64, Mono)> {
        let session = match &self.phase {
            Phase::FullFeature(session) => Some(session),
            _ => None,
        };
        session.into_iter().flat_map(|session| session.tasks())
    }

    /// How many commands may be outstanding from now on (flow control), at most 65,536. MaxCmdSN never goes back, so a smaller
    /// window takes hold as
    /// commands end. Does nothing before the full feature phase.
    pub fn set_window(&mut self, commands: u32) {
        if let Phase::FullFeature(session) = &mut self.phase {
            session.set_window(commands, &mut self.link);
        }
    }

    /// From now on discovery and logins are answered from this one.
    pub fn set_directory(&mut self, directory: Arc<Directory>) {
        self.directory = directory;
    }

    /// Asks the initiator to log out within `seconds` (Asynchronous Message, event 1; RFC 7143, 11.9.1). Does nothing before the
    /// full feature phase.
    pub fn request_logout(&mut self, seconds: u16) {
        if let Phase::FullFeature(session) = &mut self.phase {
            session.request_logout(seconds, &mut self.link);
        }
    }

    /// Tells the initiator that its session ends here (Asynchronous Message, event 3), as the last thing before the connection is
    /// closed. Does nothing before the full feature phase.
    pub fn announce_end(&mut self) {
        if let Phase::FullFeature(session) = &mut self.phase {
            session.announce_end(&mut self.link);
        }
    }

    /// What was negotiated, once in the full feature phase.
    pub fn parameters(&self) -> Option<&Parameters> {
        match &self.phase {
            Phase::FullFeature(session) => Some(&session.parameters),
            _ => None,
        }
    }

    /// Whether the connection is to be closed once the outbox is empty.
    pub const fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }
}
