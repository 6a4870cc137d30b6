//! The full feature phase: order of commands, tasks, task management (RFC 7143, 4.2.2.1, 4.2.3 and 11.5).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use holdfast_types::Mono;

use super::keepalive::{Due, Keepalive};
use super::link::Link;
use super::login::Waiting;
use super::task::{BadData, NewTask, Task};
use super::text_exchange::{self, TextExchange};
use super::window::{Place, Window};
use super::{Answer, Command, Event, Limits, ReferencedTask, TaskError, TaskId, TaskManagement, TmfId};
use crate::directory::Directory;
use crate::error::Fatal;
use crate::negotiate::Parameters;
use crate::out::Payload;
use crate::pdu::{
    AsyncEvent, AsyncMessage, Bhs, Cdb, DataOut, Extra, Frame, LogoutReason, LogoutRequest, LogoutResponse,
    LogoutResult, NO_TAG, NopIn, NopOut, Reject, RejectReason, Request, ScsiCommand, TaskFunction,
    TaskRequest, TaskResponse, TaskResult, TextRequest,
};
use crate::serial::{Sn, WideSn};
use crate::session::{LoginRequested, SessionKind};

/// The highest bit of a command's number marks an immediate one.
const IMMEDIATE: u64 = 1 << 63;

/// Sense data of a task whose data was lost: ABORTED COMMAND, PROTOCOL SERVICE CRC ERROR (fixed format; RFC 7143, 11.4.7.2). The
/// initiator or the network
/// lost it, so I8 has nothing against it.
const DATA_LOST: [u8; 18] = [0x70, 0, 0x0b, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x47, 0x05, 0, 0, 0, 0];

/// What a PDU acts on beside the session itself.
pub(super) struct Io<'a> {
    pub(super) link: &'a mut Link,
    pub(super) events: &'a mut VecDeque<Event>,
    pub(super) directory: &'a Directory,
    pub(super) now: Mono,
}

/// A request that waits for its turn, or has it.
#[derive(Debug)]
enum Turn {
    /// A command; its task exists from the PDU's arrival on, so that its data finds it.
    Command(Box<Command>),
    /// Anything else.
    Other(Bhs, Request, Bytes, Mono),
}

/// A session with its only connection.
#[derive(Debug)]
pub(super) struct FullFeature {
    login: LoginRequested,
    pub(super) parameters: Parameters,
    limits: Limits,
    pub(super) window: Window,
    keepalive: Keepalive,
    text: TextExchange,
    tasks: BTreeMap<TaskId, Task>,
    by_itt: HashMap<u32, TaskId>,
    managements: HashMap<TmfId, (u32, bool)>,
    /// Requests that came before their turn, by CmdSN.
    held: BTreeMap<WideSn, Turn>,
    /// Numbers whose commands were aborted before their turn.
    skipped: BTreeSet<WideSn>,
    immediates: usize,
    last_id: u64,
    last_ttt: u32,
    /// The highest ExpStatSN that came.
    expected_status: Option<Sn>,
    pub(super) logged_out: bool,
}

impl FullFeature {
    pub(super) fn new(waiting: &Waiting, limits: &Limits, now: Mono) -> Self {
        Self {
            login: waiting.request.clone(),
            parameters: waiting.parameters.clone(),
            limits: limits.clone(),
            window: Window::new(waiting.cmd_sn, limits.window),
            keepalive: Keepalive::new(now),
            text: TextExchange::new(),
            tasks: BTreeMap::new(),
            by_itt: HashMap::new(),
            managements: HashMap::new(),
            held: BTreeMap::new(),
            skipped: BTreeSet::new(),
            immediates: 0,
            last_id: 0,
            last_ttt: 0,
            expected_status: None,
            logged_out: false,
        }
    }

    pub(super) const fn hear(&mut self, now: Mono) {
        self.keepalive.hear(now);
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.keepalive.deadline(&self.limits)
    }

    pub(super) fn handle_timeout(&mut self, link: &mut Link, now: Mono) -> Result<(), Fatal> {
        match self.keepalive.check(now, &self.limits) {
            Due::Nothing => Ok(()),
            Due::Ping(ttt) => {
                self.nop_in(link, ttt);
                Ok(())
            }
            Due::Dead => Err(Fatal::PeerSilent),
        }
    }

    /// A NOP-In of our own takes no StatSN (RFC 7143, 11.19.2).
    fn nop_in(&self, link: &mut Link, ttt: u32) {
        let pdu = NopIn {
            lun: 0,
            itt: NO_TAG,
            ttt,
            numbers: link.peek(&self.window),
        };
        link.send(pdu.emit(), Payload::default());
    }

    pub(super) const fn expected_status(&self) -> Option<Sn> {
        self.expected_status
    }

    /// ExpStatSN has the same place in all that initiators send. One for a status that was not sent yet acknowledges nothing.
    fn note_status(&mut self, expected: Sn, next: Sn) {
        let newer = self.expected_status.is_none_or(|known| known.is_before(expected));
        if newer && !next.is_before(expected) {
            self.expected_status = Some(expected);
        }
    }

    /// Acts on one PDU.
    pub(super) fn receive(&mut self, frame: Frame, io: &mut Io<'_>) -> Result<(), Fatal> {
        let bhs = frame.bhs;
        self.note_status(Sn(bhs.u32(28)), io.link.stat_sn);
        let Some(request) = Request::parse(&bhs) else {
            return Err(self.protocol_error(&bhs, RejectReason::NOT_SUPPORTED, "unknown opcode", io));
        };
        let cmd_sn = match &request {
            Request::DataOut(pdu) => return self.data_out(&bhs, pdu, frame.data, io),
            Request::Snack(_) => {
                // ErrorRecoveryLevel 0 knows no SNACK (RFC 7143, 11.16).
                self.reject(&bhs, RejectReason::SNACK, io);
                return Ok(());
            }
            Request::Login(_) => {
                return Err(self.protocol_error(
                    &bhs,
                    RejectReason::PROTOCOL_ERROR,
                    "login after the login",
                    io,
                ));
            }
            // The answer to a ping of ours; `hear` has noted it. It takes no CmdSN.
            Request::NopOut(pdu) if pdu.itt == NO_TAG => return Ok(()),
            Request::NopOut(pdu) => pdu.numbers.cmd_sn,
            Request::Command(pdu) => pdu.numbers.cmd_sn,
            Request::Task(pdu) => pdu.numbers.cmd_sn,
            Request::Text(pdu) => pdu.numbers.cmd_sn,
            Request::Logout(pdu) => pdu.numbers.cmd_sn,
        };
        if bhs.immediate() {
            return self.immediate(&bhs, request, &frame, io);
        }
        match self.window.place(cmd_sn) {
            Place::Outside => Ok(()),
            Place::Ahead(sn) if self.held.contains_key(&sn) || self.skipped.contains(&sn) => Ok(()),
            Place::Ahead(sn) => {
                let turn = self.prepare(&bhs, request, &frame, io)?;
                self.held.insert(sn, turn);
                Ok(())
            }
            Place::Next => {
                let turn = self.prepare(&bhs, request, &frame, io)?;
                self.take_turn(turn, io)?;
                self.go_on(io)
            }
        }
    }

    /// Immediate requests do not wait and take no number; how many may be outstanding has its own bound (RFC 7143, 4.2.2.1).
    fn immediate(
        &mut self,
        bhs: &Bhs,
        request: Request,
        frame: &Frame,
        io: &mut Io<'_>,
    ) -> Result<(), Fatal> {
        let lasting = matches!(request, Request::Command(_) | Request::Task(_));
        if lasting && self.immediates >= self.limits.immediate_max {
            self.reject(bhs, RejectReason::TOO_MANY_IMMEDIATE, io);
            return Ok(());
        }
        match self.prepare(bhs, request, frame, io)? {
            Turn::Command(mut command) => {
                self.immediates += 1;
                command.cmd_sn = IMMEDIATE | command.task.0;
                io.events.push_back(Event::Command(*command));
                Ok(())
            }
            Turn::Other(bhs, request, data, received) => {
                self.immediates += usize::from(lasting);
                self.act(&bhs, &request, data, received, io)?;
                self.go_on(io)
            }
        }
    }

    /// Turns a PDU into what waits for its turn. A command's task begins here.
    fn prepare(
        &mut self,
        bhs: &Bhs,
        request: Request,
        frame: &Frame,
        io: &mut Io<'_>,
    ) -> Result<Turn, Fatal> {
        match request {
            Request::Command(pdu) => self.command(bhs, &pdu, frame, io),
            Request::Task(_) if matches!(self.login.kind, SessionKind::Discovery) => {
                let problem = "not in a discovery session";
                Err(self.protocol_error(bhs, RejectReason::PROTOCOL_ERROR, problem, io))
            }
            other => Ok(Turn::Other(*bhs, other, frame.data.clone(), io.now)),
        }
    }

    fn command(
        &mut self,
        bhs: &Bhs,
        pdu: &ScsiCommand,
        frame: &Frame,
        io: &mut Io<'_>,
    ) -> Result<Turn, Fatal> {
        let invalid = RejectReason::INVALID_FIELD;
        if matches!(self.login.kind, SessionKind::Discovery) {
            let problem = "not in a discovery session";
            return Err(self.protocol_error(bhs, RejectReason::PROTOCOL_ERROR, problem, io));
        }
        if pdu.itt == NO_TAG {
            return Err(self.protocol_error(bhs, invalid, "without a task tag", io));
        }
        if self.by_itt.contains_key(&pdu.itt) {
            let problem = "the task tag is in use";
            return Err(self.protocol_error(bhs, RejectReason::TASK_IN_PROGRESS, problem, io));
        }
        let extra = Extra::parse(&frame.ahs);
        let cdb = extra.as_ref().ok().and_then(|extra| whole_cdb(pdu, extra));
        let (Ok(extra), Some(cdb)) = (extra, cdb) else {
            return Err(self.protocol_error(bhs, invalid, "bad additional header segments", io));
        };
        let new = NewTask {
            itt: pdu.itt,
            lun: pdu.lun,
            immediate: pdu.immediate,
            received: io.now,
            direction: pdu.direction,
            expected: pdu.expected_length,
            last: pdu.last,
            data: frame.data.clone(),
        };
        let task = match Task::new(new, &self.parameters) {
            Ok(task) => task,
            Err(problem) => {
                return Err(self.protocol_error(bhs, RejectReason::PROTOCOL_ERROR, problem, io));
            }
        };
        let id = TaskId(self.next_id());
        self.tasks.insert(id, task);
        self.by_itt.insert(pdu.itt, id);
        Ok(Turn::Command(Box::new(Command {
            task: id,
            lun: pdu.lun,
            cdb,
            attribute: pdu.attribute,
            direction: pdu.direction,
            expected_length: pdu.expected_length,
            read_length: extra.read_length.unwrap_or(0),
            data: frame.data.clone(),
            cmd_sn: 0,
            immediate: pdu.immediate,
            received: io.now,
        })))
    }

    const fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A request whose CmdSN is ExpCmdSN.
    fn take_turn(&mut self, turn: Turn, io: &mut Io<'_>) -> Result<(), Fatal> {
        match turn {
            Turn::Command(mut command) => {
                self.window.begin();
                command.cmd_sn = self.window.advance().0;
                io.events.push_back(Event::Command(*command));
                Ok(())
            }
            Turn::Other(bhs, request, data, received) => {
                if matches!(request, Request::Task(_)) {
                    self.window.begin();
                }
                self.window.advance();
                self.act(&bhs, &request, data, received, io)
            }
        }
    }

    /// Gives everybody a turn who waited for the numbers before.
    fn go_on(&mut self, io: &mut Io<'_>) -> Result<(), Fatal> {
        while !self.logged_out {
            let next = self.window.next();
            if self.skipped.remove(&next) {
                self.window.advance();
            } else if let Some(turn) = self.held.remove(&next) {
                self.take_turn(turn, io)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn act(
        &mut self,
        bhs: &Bhs,
        request: &Request,
        data: Bytes,
        received: Mono,
        io: &mut Io<'_>,
    ) -> Result<(), Fatal> {
        match request {
            Request::NopOut(pdu) => self.ping(pdu, data, io),
            Request::Task(pdu) => self.task_management(pdu, received, io),
            Request::Text(pdu) => return self.text(bhs, pdu, &data, io),
            Request::Logout(pdu) => self.logout(pdu, io),
            // The others never get here: they take no turn, or another way.
            Request::Command(_) | Request::Login(_) | Request::DataOut(_) | Request::Snack(_) => {}
        }
        Ok(())
    }

    /// Echoes as much as the initiator can take (RFC 7143, 11.18).
    fn ping(&self, pdu: &NopOut, mut data: Bytes, io: &mut Io<'_>) {
        data.truncate(usize::try_from(self.parameters.send_max).unwrap_or(usize::MAX));
        let pong = NopIn {
            lun: 0,
            itt: pdu.itt,
            ttt: NO_TAG,
            numbers: io.link.take(&self.window),
        };
        io.link.send_unasked(pong.emit(), data.into());
    }

    fn text(&mut self, bhs: &Bhs, pdu: &TextRequest, data: &[u8], io: &mut Io<'_>) -> Result<(), Fatal> {
        let answer = self
            .text
            .receive(pdu, data, &self.login, io.directory, &mut self.parameters);
        match answer {
            Ok((response, segment)) => {
                text_exchange::send(io.link, &self.window, response, segment);
                Ok(())
            }
            Err(problem) => {
                Err(self.protocol_error(bhs, RejectReason::PROTOCOL_ERROR, problem.problem(), io))
            }
        }
    }

    /// There is one connection, so closing it and closing the session are the same (RFC 7143, 11.14).
    fn logout(&mut self, pdu: &LogoutRequest, io: &mut Io<'_>) {
        let result = match pdu.reason {
            LogoutReason::SESSION => LogoutResult::CLOSED,
            LogoutReason::CONNECTION if pdu.cid == self.login.cid => LogoutResult::CLOSED,
            LogoutReason::CONNECTION => LogoutResult::NO_SUCH_CID,
            LogoutReason::RECOVERY => LogoutResult::RECOVERY_NOT_SUPPORTED,
            _ => LogoutResult::CLEANUP_FAILED,
        };
        let response = LogoutResponse {
            result,
            itt: pdu.itt,
            numbers: io.link.take(&self.window),
            time2wait: self.parameters.time2wait,
            time2retain: self.parameters.time2retain,
        };
        io.link.send_unasked(response.emit(), Payload::default());
        if result == LogoutResult::CLOSED {
            self.tasks.clear();
            self.by_itt.clear();
            self.managements.clear();
            self.held.clear();
            self.logged_out = true;
            io.events.push_back(Event::LoggedOut(pdu.reason));
        }
    }

    fn task_management(&mut self, pdu: &TaskRequest, received: Mono, io: &mut Io<'_>) {
        let id = TmfId(self.next_id());
        self.managements.insert(id, (pdu.itt, pdu.immediate));
        let referenced = match pdu.function {
            TaskFunction::ABORT_TASK | TaskFunction::QUERY_TASK | TaskFunction::TASK_REASSIGN => {
                Some(self.referenced(pdu))
            }
            TaskFunction::ABORT_TASK_SET
            | TaskFunction::CLEAR_TASK_SET
            | TaskFunction::LOGICAL_UNIT_RESET => {
                self.drop_held(pdu, |lun| lun == pdu.lun);
                None
            }
            TaskFunction::TARGET_WARM_RESET
            | TaskFunction::TARGET_COLD_RESET
            | TaskFunction::I_T_NEXUS_RESET => {
                self.drop_held(pdu, |_| true);
                None
            }
            _ => None,
        };
        io.events.push_back(Event::TaskManagement(TaskManagement {
            id,
            function: pdu.function,
            lun: pdu.lun,
            referenced,
            immediate: pdu.immediate,
            received,
        }));
    }

    /// The task that is meant (RFC 7143, 11.6.1): one that was not received, but by its CmdSN still could be, counts as received
    /// and aborted.
    fn referenced(&mut self, pdu: &TaskRequest) -> ReferencedTask {
        let aborts = pdu.function == TaskFunction::ABORT_TASK;
        if let Some(id) = self.by_itt.get(&pdu.referenced).copied() {
            let waits = self.held.iter().find_map(|(sn, turn)| match turn {
                Turn::Command(command) if command.task == id => Some(*sn),
                _ => None,
            });
            return match (waits, self.tasks.get(&id)) {
                (_, Some(task)) if task.lun != pdu.lun => ReferencedTask::Gone,
                (Some(sn), _) => {
                    if aborts {
                        self.skip(sn);
                    }
                    ReferencedTask::NotYetReceived
                }
                _ => ReferencedTask::Known(id),
            };
        }
        match self.window.future(pdu.ref_cmd_sn) {
            Some(sn)
                if aborts && pdu.ref_cmd_sn.is_before(pdu.numbers.cmd_sn) && !self.held.contains_key(&sn) =>
            {
                self.skip(sn);
                ReferencedTask::NotYetReceived
            }
            _ => ReferencedTask::Gone,
        }
    }

    /// Drops commands that a reset reaches before they had their turn.
    fn drop_held(&mut self, pdu: &TaskRequest, reaches: impl Fn(u64) -> bool) {
        let dropped: Vec<WideSn> = self
            .held
            .iter()
            .filter(|(sn, turn)| {
                sn.narrow().is_before(pdu.numbers.cmd_sn)
                    && matches!(turn, Turn::Command(command) if reaches(command.lun))
            })
            .map(|(sn, _)| *sn)
            .collect();
        dropped.into_iter().for_each(|sn| self.skip(sn));
    }

    /// A number whose command never gets a turn.
    fn skip(&mut self, sn: WideSn) {
        if let Some(Turn::Command(command)) = self.held.remove(&sn)
            && let Some(task) = self.tasks.remove(&command.task)
        {
            self.by_itt.remove(&task.itt);
        }
        self.skipped.insert(sn);
    }

    /// Data for a task that is gone (aborted, answered early, never accepted) is thrown away: the initiator could not know yet.
    fn data_out(&mut self, bhs: &Bhs, pdu: &DataOut, data: Bytes, io: &mut Io<'_>) -> Result<(), Fatal> {
        let Some(id) = self.by_itt.get(&pdu.itt).copied() else {
            return Ok(());
        };
        let Some(task) = self.tasks.get_mut(&id) else {
            return Ok(());
        };
        match task.data_out(pdu, data) {
            Ok(Some(data)) => io.events.push_back(Event::DataOut { task: id, data }),
            Ok(None) => task.solicit(io.link, &self.window, &self.parameters, &mut self.last_ttt),
            Err(BadData::Lost) if !self.waits(id) => self.data_lost(id, io),
            Err(BadData::Lost) => {
                let problem = "data was lost before the command had its turn";
                return Err(self.protocol_error(bhs, RejectReason::PROTOCOL_ERROR, problem, io));
            }
            Err(BadData::Wrong(problem)) => {
                return Err(self.protocol_error(bhs, RejectReason::PROTOCOL_ERROR, problem, io));
            }
        }
        Ok(())
    }

    /// Ends a task whose data is not whole. What else comes for it is thrown away.
    fn data_lost(&mut self, id: TaskId, io: &mut Io<'_>) {
        let answer = Answer::check_condition(Bytes::from_static(&DATA_LOST));
        if self.respond(id, answer, io.link).is_ok() {
            io.events.push_back(Event::DataLost { task: id });
        }
    }

    /// Whether this task's command has not had its turn.
    fn waits(&self, id: TaskId) -> bool {
        self.held
            .values()
            .any(|turn| matches!(turn, Turn::Command(command) if command.task == id))
    }

    pub(super) fn request_data(
        &mut self,
        id: TaskId,
        length: u32,
        link: &mut Link,
        events: &mut VecDeque<Event>,
    ) -> Result<(), TaskError> {
        let task = self.tasks.get_mut(&id).ok_or(TaskError::Gone)?;
        match task.request(length)? {
            Some(data) => events.push_back(Event::DataOut { task: id, data }),
            None => task.solicit(link, &self.window, &self.parameters, &mut self.last_ttt),
        }
        Ok(())
    }

    fn remove(&mut self, id: TaskId) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        self.by_itt.remove(&task.itt);
        self.end_outstanding(task.immediate);
        Some(task)
    }

    fn end_outstanding(&mut self, immediate: bool) {
        if immediate {
            self.immediates = self.immediates.saturating_sub(1);
        } else {
            self.window.end();
        }
    }

    pub(super) fn respond(&mut self, id: TaskId, answer: Answer, link: &mut Link) -> Result<(), TaskError> {
        let task = self.remove(id).ok_or(TaskError::Gone)?;
        task.answer(answer, link, &self.window, &self.parameters);
        Ok(())
    }

    pub(super) fn abort(&mut self, id: TaskId, link: &mut Link) -> bool {
        let closed = self.window.is_closed();
        let found = self.remove(id).is_some();
        if closed && !self.window.is_closed() {
            self.nop_in(link, NO_TAG);
        }
        found
    }

    pub(super) fn answer_task_management(&mut self, id: TmfId, result: TaskResult, link: &mut Link) -> bool {
        let Some((itt, immediate)) = self.managements.remove(&id) else {
            return false;
        };
        self.end_outstanding(immediate);
        let response = TaskResponse {
            result,
            itt,
            numbers: link.take(&self.window),
        };
        link.send(response.emit(), Payload::default());
        true
    }

    /// Tasks that had their turn.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (TaskId, u64, Mono)> {
        self.tasks
            .iter()
            .filter(|(id, _)| !self.waits(**id))
            .map(|(id, task)| (*id, task.lun, task.received))
    }

    /// A window that opens is told at once; nothing else may come that could tell it.
    pub(super) fn set_window(&mut self, commands: u32, link: &mut Link) {
        if self.window.resize(commands) {
            self.nop_in(link, NO_TAG);
        }
    }

    pub(super) fn request_logout(&self, seconds: u16, link: &mut Link) {
        self.tell(AsyncEvent::LOGOUT_REQUESTED, [0, 0, seconds], link);
    }

    /// All connections of the session end; a new login may be tried after the default time.
    pub(super) fn announce_end(&self, link: &mut Link) {
        let Parameters {
            time2wait,
            time2retain,
            ..
        } = self.parameters;
        self.tell(AsyncEvent::SESSION_DROP, [0, time2wait, time2retain], link);
    }

    fn tell(&self, event: AsyncEvent, parameters: [u16; 3], link: &mut Link) {
        let message = AsyncMessage {
            lun: 0,
            numbers: link.take(&self.window),
            event,
            vendor: 0,
            parameters,
        };
        link.send(message.emit(), Payload::default());
    }

    /// Sends a Reject (RFC 7143, 11.17) with the header that is rejected.
    pub(super) fn reject(&self, bhs: &Bhs, reason: RejectReason, io: &mut Io<'_>) {
        let reject = Reject {
            reason,
            numbers: io.link.take(&self.window),
            data_sn: 0,
        };
        io.link
            .send_unasked(reject.emit(), Bytes::copy_from_slice(&bhs.0).into());
    }

    /// At ErrorRecoveryLevel 0 a protocol error is the end of the connection; the Reject says why (RFC 7143, 7.7).
    fn protocol_error(
        &self,
        bhs: &Bhs,
        reason: RejectReason,
        problem: &'static str,
        io: &mut Io<'_>,
    ) -> Fatal {
        self.reject(bhs, reason, io);
        Fatal::Protocol {
            opcode: bhs.opcode(),
            problem,
        }
    }
}

/// The CDB of the header and what its extension adds; `None` where it is longer than any can be.
fn whole_cdb(pdu: &ScsiCommand, extra: &Extra) -> Option<Cdb> {
    if extra.cdb_tail.is_empty() {
        return Some(Cdb::Short(pdu.cdb));
    }
    let mut bytes = pdu.cdb.to_vec();
    bytes.extend_from_slice(&extra.cdb_tail);
    Cdb::new(&bytes).ok()
}
