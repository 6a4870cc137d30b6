//! A small initiator without I/O, for tests, drills and benchmarks. It can also send what no initiator should.

mod chap;
mod command;
mod event;
mod redirect;
mod settings;

pub use chap::ChapLogin;
pub use event::{Event, InitiatorError, ScsiRequest, ScsiResult, Tag};
pub use redirect::Redirect;
pub use settings::Settings;

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::frame::{FrameLimits, Framer};
use crate::negotiate::{Key, Parameters, number};
use crate::out::{Outbox, Outgoing, Payload};
use crate::pdu::{
    Bhs, Frame, LoginRequest, LoginResponse, LoginStatus, LogoutReason, LogoutRequest, NO_TAG, NopIn, NopOut,
    Numbers, Response, Stage, TargetNumbers, TaskFunction, TaskRequest, TextRequest, TextResponse,
};
use crate::serial::Sn;
use crate::text::{self, Assembler};

use chap::Next;
use command::{Pdu, Pending};

/// Longest text answer in bytes that is put together.
const TEXT_MAX: usize = 4 << 20;

/// How far the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Login(Stage),
    FullFeature,
    Over,
}

/// An initiator's side of one connection.
///
/// The driver's loop is that of [`crate::target::Connection`], without timeouts: `receive`, `poll_event`, write the `outbox`,
/// wait for `wanted` bytes.
/// Requests may be made at any queue depth from [`Event::LoggedIn`] on; those that the command window has no room for wait here.
#[derive(Debug)]
pub struct Initiator {
    settings: Settings,
    parameters: Parameters,
    phase: Phase,
    framer: Framer,
    outbox: Outbox,
    events: VecDeque<Event>,
    login_keys: Vec<(String, String)>,
    cmd_sn: Sn,
    max_cmd_sn: Sn,
    exp_stat_sn: Sn,
    last_tag: u32,
    waiting: VecDeque<(Tag, ScsiRequest)>,
    pending: HashMap<u32, Pending>,
    text: Assembler,
    text_tag: Option<Tag>,
}

impl Initiator {
    /// Starts to log in: the first Login Request is in the outbox.
    pub fn new(settings: Settings) -> Self {
        let stage = if settings.auth_method.is_some() {
            Stage::SECURITY
        } else {
            Stage::OPERATIONAL
        };
        let mut initiator = Self {
            parameters: Parameters::default(),
            phase: Phase::Login(stage),
            framer: Framer::new(FrameLimits {
                data: 1 << 16,
                ahs: 0,
            }),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            login_keys: Vec::new(),
            cmd_sn: settings.cmd_sn,
            max_cmd_sn: settings.cmd_sn,
            exp_stat_sn: Sn(0),
            last_tag: 0,
            waiting: VecDeque::new(),
            pending: HashMap::new(),
            text: Assembler::new(TEXT_MAX),
            text_tag: None,
            settings,
        };
        initiator.login(stage, true);
        initiator
    }

    fn login(&mut self, stage: Stage, first: bool) {
        let mut text = Vec::new();
        if first {
            text::put(&mut text, "InitiatorName", self.settings.name.as_str());
            match &self.settings.target {
                Some(target) => {
                    text::put(&mut text, "SessionType", "Normal");
                    text::put(&mut text, "TargetName", target.as_str());
                }
                None => text::put(&mut text, "SessionType", "Discovery"),
            }
        }
        let next = match (stage, &self.settings.auth_method) {
            (Stage::SECURITY, Some(method)) => {
                text::put(&mut text, "AuthMethod", method);
                // With CHAP there is more to say before the next stage.
                self.settings.chap.is_none().then_some(Stage::OPERATIONAL)
            }
            _ => {
                text.extend_from_slice(&text::emit(&self.settings.keys));
                self.declare();
                Some(Stage::FULL_FEATURE)
            }
        };
        self.login_request(stage, next, text);
    }

    fn login_request(&mut self, stage: Stage, next: Option<Stage>, text: Vec<u8>) {
        let request = LoginRequest {
            transit: next.is_some(),
            more: false,
            current: stage,
            next: next.unwrap_or(stage),
            version_max: 0,
            version_min: 0,
            isid: self.settings.isid,
            tsih: self.settings.tsih,
            itt: 0,
            cid: self.settings.cid,
            numbers: self.numbers(),
        };
        self.send((request.emit(), Vec::new(), Bytes::from(text).into()));
    }

    /// What this side declares about itself.
    fn declare(&mut self) {
        let name = Key::MaxRecvDataSegmentLength.name();
        let declared = self.settings.keys.iter().find(|(key, _)| key == name);
        if let Some(length) = declared.and_then(|(_, value)| number(value)) {
            self.parameters.receive_max = length;
        }
    }

    const fn numbers(&self) -> Numbers {
        Numbers {
            cmd_sn: self.cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
        }
    }

    fn send(&mut self, (bhs, ahs, data): Pdu) {
        let digests = match self.phase {
            Phase::FullFeature => self.parameters.digests,
            _ => crate::frame::Digests::default(),
        };
        self.outbox.push(Outgoing::new(bhs, &ahs, data, digests));
    }

    /// Takes whole PDUs out of the read buffer and acts on them.
    ///
    /// # Errors
    /// [`InitiatorError`]: the connection is lost.
    pub fn receive(&mut self, buffer: &mut BytesMut) -> Result<(), InitiatorError> {
        while self.phase != Phase::Over {
            match self.framer.next(buffer).map_err(|bad| bad.error)? {
                Some(frame) => self.act(frame)?,
                None => break,
            }
        }
        Ok(())
    }

    fn act(&mut self, frame: Frame) -> Result<(), InitiatorError> {
        let response = Response::parse(&frame.bhs).ok_or(InitiatorError::Protocol("unknown opcode"))?;
        match (response, self.phase) {
            (Response::Login(pdu), Phase::Login(stage)) => self.login_response(&pdu, stage, &frame.data),
            (_, Phase::FullFeature) => self.full_feature(response, &frame),
            _ => Err(InitiatorError::Protocol("not what the phase allows")),
        }
    }

    fn login_response(
        &mut self,
        pdu: &LoginResponse,
        stage: Stage,
        data: &[u8],
    ) -> Result<(), InitiatorError> {
        if pdu.status != LoginStatus::SUCCESS {
            self.phase = Phase::Over;
            let redirect = Redirect::read(pdu.status, data);
            self.events
                .push_back(redirect.map_or(Event::LoginRefused(pdu.status), Event::LoginRedirected));
            return Ok(());
        }
        self.exp_stat_sn = pdu.numbers.stat_sn.next();
        let keys = text::parse(data).map_err(|_| InitiatorError::Protocol("login text"))?;
        for (key, value) in &keys {
            self.parameters.take_answer(key, value);
        }
        let step = match &self.settings.chap {
            Some(chap) if stage == Stage::SECURITY && !pdu.transit => Some(chap.step(&keys)?),
            _ => None,
        };
        self.login_keys.extend(keys);
        if let Some(step) = step {
            match step {
                Next::Stay(text) => self.login_request(stage, None, text),
                Next::Leave(text) => self.login_request(stage, Some(Stage::OPERATIONAL), text),
            }
            return Ok(());
        }
        let chap = self.settings.chap.as_ref();
        if stage == Stage::SECURITY && chap.is_some_and(|chap| !chap.is_satisfied(&self.login_keys)) {
            return Err(InitiatorError::Protocol("target has not proven itself"));
        }
        match (pdu.transit, pdu.next) {
            (true, Stage::FULL_FEATURE) => {
                self.max_cmd_sn = pdu.numbers.max_cmd_sn;
                self.phase = Phase::FullFeature;
                let limits = FrameLimits {
                    data: usize::try_from(self.parameters.receive_max).unwrap_or(usize::MAX),
                    ahs: 0,
                };
                self.framer.set(self.parameters.digests, limits);
                self.events.push_back(Event::LoggedIn {
                    tsih: pdu.tsih,
                    keys: std::mem::take(&mut self.login_keys),
                });
            }
            (true, next) if next != stage => {
                self.phase = Phase::Login(next);
                self.login(next, false);
            }
            _ => return Err(InitiatorError::Protocol("target does not go on with the login")),
        }
        Ok(())
    }

    fn full_feature(&mut self, response: Response, frame: &Frame) -> Result<(), InitiatorError> {
        let data = frame.data.clone();
        match response {
            Response::NopIn(pdu) => self.nop_in(&pdu, data),
            Response::Command(pdu) => {
                self.status(pdu.numbers);
                let pending = self.pending.remove(&pdu.itt).ok_or(UNKNOWN)?;
                let result = pending.finish(&pdu, &data)?;
                self.events.push_back(Event::Command(Tag(pdu.itt), result));
            }
            Response::DataIn(pdu) => {
                let pending = self.pending.get_mut(&pdu.itt).ok_or(UNKNOWN)?;
                pending.data_in(&pdu, &data)?;
                match pdu.status {
                    Some((status, residual)) => {
                        self.status(pdu.numbers);
                        let pending = self.pending.remove(&pdu.itt).ok_or(UNKNOWN)?;
                        let result = pending.collapsed(status, residual);
                        self.events.push_back(Event::Command(Tag(pdu.itt), result));
                    }
                    None => self.window(pdu.numbers),
                }
            }
            Response::R2t(pdu) => {
                self.window(pdu.numbers);
                let pending = self.pending.get(&pdu.itt).ok_or(UNKNOWN)?;
                let pdus = pending.r2t(&pdu, &self.parameters, self.numbers())?;
                pdus.into_iter().for_each(|pdu| self.send(pdu));
            }
            Response::Task(pdu) => {
                self.status(pdu.numbers);
                self.events
                    .push_back(Event::TaskManagement(Tag(pdu.itt), pdu.result));
            }
            Response::Text(pdu) => return self.text_response(&pdu, &data),
            Response::Logout(pdu) => {
                self.status(pdu.numbers);
                self.events.push_back(Event::LoggedOut(Tag(pdu.itt), pdu.result));
            }
            Response::Async(pdu) => {
                self.status(pdu.numbers);
                self.events.push_back(Event::Async(pdu));
            }
            Response::Reject(pdu) => {
                self.status(pdu.numbers);
                self.events.push_back(Event::Rejected(pdu, data));
            }
            Response::Login(_) => return Err(InitiatorError::Protocol("login after the login")),
        }
        Ok(())
    }

    /// A PDU that takes a StatSN.
    fn status(&mut self, numbers: TargetNumbers) {
        if !numbers.stat_sn.is_before(self.exp_stat_sn) {
            self.exp_stat_sn = numbers.stat_sn.next();
        }
        self.window(numbers);
    }

    /// MaxCmdSN may have moved: send what waits. An older one than known, or one before ExpCmdSN - 1, is ignored (RFC 7143, 4.2.2.1).
    fn window(&mut self, numbers: TargetNumbers) {
        let sane = !numbers.max_cmd_sn.next().is_before(numbers.exp_cmd_sn);
        if sane && numbers.max_cmd_sn.is_after(self.max_cmd_sn) {
            self.max_cmd_sn = numbers.max_cmd_sn;
        }
        while !self.cmd_sn.is_after(self.max_cmd_sn) {
            match self.waiting.pop_front() {
                Some((tag, request)) => self.start(tag, request),
                None => break,
            }
        }
    }

    fn nop_in(&mut self, pdu: &NopIn, data: Bytes) {
        if pdu.itt == NO_TAG {
            self.window(pdu.numbers);
        } else {
            self.status(pdu.numbers);
            self.events.push_back(Event::Pong(Tag(pdu.itt), data));
        }
        if pdu.ttt != NO_TAG {
            let answer = NopOut {
                immediate: true,
                lun: pdu.lun,
                itt: NO_TAG,
                ttt: pdu.ttt,
                numbers: self.numbers(),
            };
            self.send((answer.emit(), Vec::new(), Payload::default()));
        }
    }

    fn text_response(&mut self, pdu: &TextResponse, data: &[u8]) -> Result<(), InitiatorError> {
        self.status(pdu.numbers);
        let tag = self.text_tag.filter(|tag| tag.0 == pdu.itt).ok_or(UNKNOWN)?;
        let unreadable = |_| InitiatorError::Protocol("text that cannot be read");
        self.text.push(data).map_err(unreadable)?;
        if pdu.last {
            let keys = text::parse_many(&self.text.take()).map_err(unreadable)?;
            self.text_tag = None;
            self.events.push_back(Event::Text(tag, keys));
        } else {
            self.text_request(tag, pdu.ttt, Bytes::new());
        }
        Ok(())
    }

    /// How many bytes the read buffer must hold before `receive` can do anything. 0: do not read.
    pub fn wanted(&self, buffer: &BytesMut) -> usize {
        if self.phase == Phase::Over {
            0
        } else {
            self.framer.needs(buffer)
        }
    }

    /// What has happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is to be written.
    pub const fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn tag(&mut self) -> Tag {
        self.last_tag = self.last_tag.wrapping_add(1);
        if self.last_tag == NO_TAG {
            self.last_tag = 1;
        }
        Tag(self.last_tag)
    }

    /// Sends a SCSI command, or queues it until the window opens.
    pub fn command(&mut self, request: ScsiRequest) -> Tag {
        let tag = self.tag();
        let fits = self.phase == Phase::FullFeature
            && (request.immediate || (self.waiting.is_empty() && !self.cmd_sn.is_after(self.max_cmd_sn)));
        if fits {
            self.start(tag, request);
        } else {
            self.waiting.push_back((tag, request));
        }
        tag
    }

    fn start(&mut self, tag: Tag, request: ScsiRequest) {
        let numbers = self.numbers();
        if !request.immediate {
            self.cmd_sn = self.cmd_sn.next();
        }
        let (pending, pdus) = Pending::start(
            request,
            tag.0,
            numbers,
            &self.parameters,
            self.settings.unsolicited,
        );
        self.pending.insert(tag.0, pending);
        pdus.into_iter().for_each(|pdu| self.send(pdu));
    }

    /// Sends an immediate task management request. RefCmdSN is that of the referenced command while it is pending.
    pub fn task_management(&mut self, function: TaskFunction, lun: u64, referenced: Option<Tag>) -> Tag {
        let ref_cmd_sn = referenced
            .and_then(|tag| self.pending.get(&tag.0))
            .map_or(Sn(0), |pending| pending.cmd_sn);
        let tag = self.tag();
        let request = TaskRequest {
            immediate: true,
            function,
            lun,
            itt: tag.0,
            referenced: referenced.map_or(NO_TAG, |tag| tag.0),
            numbers: self.numbers(),
            ref_cmd_sn,
            exp_data_sn: 0,
        };
        self.send((request.emit(), Vec::new(), Payload::default()));
        tag
    }

    /// Forgets a command, as after an abort: no response is expected any more. False where it is not pending.
    pub fn forget(&mut self, tag: Tag) -> bool {
        self.pending.remove(&tag.0).is_some()
    }

    /// Sends an immediate ping.
    pub fn ping(&mut self, data: Bytes) -> Tag {
        let tag = self.tag();
        let request = NopOut {
            immediate: true,
            lun: 0,
            itt: tag.0,
            ttt: NO_TAG,
            numbers: self.numbers(),
        };
        self.send((request.emit(), Vec::new(), data.into()));
        tag
    }

    /// Sends an immediate text request, e.g. `SendTargets=All`. One at a time.
    pub fn text(&mut self, keys: &[(&str, &str)]) -> Tag {
        let tag = self.tag();
        self.text_tag = Some(tag);
        self.text = Assembler::new(TEXT_MAX);
        self.text_request(tag, NO_TAG, text::emit(keys).into());
        tag
    }

    fn text_request(&mut self, tag: Tag, ttt: u32, data: Bytes) {
        let request = TextRequest {
            immediate: true,
            last: true,
            more: false,
            lun: 0,
            itt: tag.0,
            ttt,
            numbers: self.numbers(),
        };
        self.send((request.emit(), Vec::new(), data.into()));
    }

    /// Logs out.
    pub fn logout(&mut self, reason: LogoutReason) -> Tag {
        let tag = self.tag();
        let request = LogoutRequest {
            immediate: true,
            reason,
            itt: tag.0,
            cid: self.settings.cid,
            numbers: self.numbers(),
        };
        self.send((request.emit(), Vec::new(), Payload::default()));
        tag
    }

    /// Sends a PDU as it is, with lengths, padding and digests.
    pub fn pdu(&mut self, bhs: Bhs, data: Bytes) {
        self.send((bhs, Vec::new(), data.into()));
    }

    /// Sends these bytes as they are.
    pub fn raw(&mut self, bytes: Bytes) {
        self.outbox.push(Outgoing::raw(bytes));
    }

    /// CmdSN of the next command and ExpStatSN, for PDUs made by hand.
    pub const fn next_numbers(&self) -> Numbers {
        self.numbers()
    }

    /// Steps CmdSN, after a command was sent by hand.
    pub const fn skip_cmd_sn(&mut self, by: u32) {
        self.cmd_sn = self.cmd_sn.add(by);
    }

    /// The highest CmdSN that the target takes.
    pub const fn max_cmd_sn(&self) -> Sn {
        self.max_cmd_sn
    }

    /// How many commands wait for their end, those not sent yet included.
    pub fn outstanding(&self) -> usize {
        self.pending.len() + self.waiting.len()
    }

    /// What was negotiated, once in the full feature phase.
    pub fn parameters(&self) -> Option<&Parameters> {
        (self.phase == Phase::FullFeature).then_some(&self.parameters)
    }
}

/// The answer names no request of ours.
const UNKNOWN: InitiatorError = InitiatorError::Protocol("answer to no request");
