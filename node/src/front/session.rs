//! One connection's brain: what came in becomes SCSI, SCSI becomes storage operations, outcomes become answers. No I/O here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_iscsi::directory::{Directory, GroupName};
use holdfast_iscsi::pdu::{Direction, LoginStatus, ScsiStatus};
use holdfast_iscsi::session::{Admission, LoginRequested, SessionKind, SessionSerial, Tsih};
use holdfast_iscsi::target::{Answer, Command, Connection, Event, TaskId};
use holdfast_replication::core::api::{AbortScope, OpId, Request};
use holdfast_scsi::{
    Finished, LuView, NexusLu, Response, Status, Step, UnitAttention, finish, start, start_absent,
};
use holdfast_types::{
    CommandName, ExtentId, HOLD_LIMIT, InitiatorTag, LeaseGeneration, Lun, Mono, Nexus, NexusTag, OpOutcome,
    Origin, SessionInstance, TpgId, UnitVersion,
};

use super::Front;
use super::access;
use super::registry::{ConnectionId, Inbound, UnitFunction};
use super::senses::Senses;
use super::shares::{Turn, cost_of};
use super::state::{FrontState, Map};
use super::statuses::Statuses;
use super::tasks::{Began, Copying, Stage, Tasks, Then};
use super::tmf::{CONFIRMED_WITHIN, Tmfs};
use crate::metrics::Meter;
use crate::status::SessionStatus;

/// Most operations of one connection that storage has at a time; more wait here, in order.
const IN_STORAGE_MAX: usize = 256;

/// Operation code of REPORT LUNS (SPC-4).
pub(super) const REPORT_LUNS: u8 = 0xa0;

/// The connection is to be reset, without another answer; for the log, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MustReset(pub(super) &'static str);

/// Who is logged in.
#[derive(Debug)]
pub(super) struct LoggedIn {
    pub(super) instance: SessionInstance,
    /// What it came in with: who, to what, as a member of which group.
    pub(super) login: LoginRequested,
    /// `None` in a discovery session.
    nexus: Option<(Nexus, NexusTag)>,
    pub(super) units: HashMap<Lun, NexusLu>,
    /// The same of the REPORT LUNS well-known unit, once a command was sent to it.
    pub(super) well_known: Option<NexusLu>,
    /// What its commands cost.
    meter: Arc<Meter>,
    /// What commands of all sessions cost, by extent.
    meters: HashMap<ExtentId, Arc<Meter>>,
    /// For each unit, the newest reset or CLEAR TASK SET that this session's tasks have gone with.
    pub(super) cleared: HashMap<ExtentId, (UnitVersion, u64)>,
    statuses: Statuses,
    pub(super) senses: Senses,
    initiator: InitiatorTag,
    /// The initiator was asked to log out, because it is to log in elsewhere.
    pub(super) asked_away: bool,
}

/// Bytes that the initiator means to send.
const fn data_out(command: &Command) -> u32 {
    match command.direction {
        Direction::Write | Direction::Both => command.expected_length,
        _ => 0,
    }
}

/// The LUN map that a session sees; `None` for a discovery session.
pub(super) fn map_of(login: &LoginRequested) -> Option<Map<'_>> {
    match &login.kind {
        SessionKind::Normal { target } => Some(Map {
            target,
            group: login.group.as_ref(),
        }),
        SessionKind::Discovery => None,
    }
}

/// A login that waits for the end of the session that it takes the place of.
#[derive(Debug)]
struct Reinstating {
    old: SessionSerial,
    tsih: Tsih,
    since: Mono,
}

/// A connection with its session.
pub(super) struct Session {
    pub(super) front: Arc<Front>,
    pub(super) id: ConnectionId,
    pub(super) iscsi: Connection,
    /// The lease generation that the connection belongs to (L7).
    pub(super) generation: LeaseGeneration,
    pub(super) port: TpgId,
    /// The two ends, for people.
    pub(super) ends: (String, String),
    pub(super) logged_in: Option<LoggedIn>,
    reinstating: Option<Reinstating>,
    pub(super) tasks: Tasks,
    pub(super) tmfs: Tmfs,
    next_op: u32,
    /// The newest state that commands were started with.
    seen: Option<Arc<FrontState>>,
    pub(super) closing: bool,
}

impl Session {
    /// A connection that was just accepted, by a portal of group `port`.
    pub(super) fn new(
        front: Arc<Front>,
        id: ConnectionId,
        iscsi: Connection,
        port: TpgId,
        ends: (String, String),
    ) -> Self {
        let generation = front.lease.generation();
        let shares = front.registry.shares();
        Self {
            front,
            id,
            iscsi,
            generation,
            port,
            ends,
            logged_in: None,
            reinstating: None,
            tasks: Tasks::new(shares),
            tmfs: Tmfs::default(),
            next_op: 0,
            seen: None,
            closing: false,
        }
    }

    /// Whether it may go on at all (L7).
    pub(super) fn stands(&self, now: Mono) -> Result<(), MustReset> {
        if self.front.connection_stands(self.generation, now) {
            Ok(())
        } else {
            Err(MustReset(
                "its lease generation is over, or this node was stopped for a while",
            ))
        }
    }

    /// Acts on everything that the protocol engine has to tell.
    pub(super) fn act(&mut self, now: Mono) -> Result<(), MustReset> {
        if let (Some(expected), Some(session)) = (self.iscsi.expected_status(), &mut self.logged_in) {
            session.statuses.acknowledged(expected, &*self.front.backend);
        }
        while let Some(event) = self.iscsi.poll_event() {
            match event {
                Event::Login(login) => self.log_in(&login, now),
                Event::Command(command) => self.arrive(command, now)?,
                Event::DataOut { task, data } => self.data_out(task, data, now)?,
                Event::DataLost { task } => drop(self.tasks.take(task)),
                Event::TaskManagement(request) => self.task_management(request, now),
                Event::LoggedOut(_) => self.abort_all(),
            }
        }
        self.start_queued(now)
    }

    /// A command has come: it is started, waits for the session's share, or is one too many.
    fn arrive(&mut self, command: Command, now: Mono) -> Result<(), MustReset> {
        match self.tasks.turn(&command, now) {
            Turn::Now => {
                let state = self.newest_state();
                return self.start(&state, command, now);
            }
            Turn::Wait => self.tasks.put(command.task, Stage::Queued(Box::new(command))),
            Turn::Full => self.respond(command.task, Response::task_set_full()),
            Turn::Busy => self.respond(command.task, Response::busy()),
        }
        Ok(())
    }

    /// Starts commands that waited for the session's share, as far as there is room now.
    fn start_queued(&mut self, now: Mono) -> Result<(), MustReset> {
        while let Some(command) = self.tasks.take_queued(now) {
            self.stands(now)?;
            let state = self.newest_state();
            self.start(&state, command, now)?;
        }
        Ok(())
    }

    /// Acts on what the rest of the node says.
    pub(super) fn inbound(&mut self, message: Inbound, now: Mono) -> Result<(), MustReset> {
        match message {
            Inbound::Completed(op, outcome) => {
                self.completed(op, outcome, now)?;
                self.start_queued(now)
            }
            Inbound::EndUnit {
                extent,
                function,
                token,
            } => {
                let ended = self.abort_unit(extent);
                let ops: HashSet<OpId> = self.tasks.ops_on(extent).collect();
                if function == UnitFunction::ClearTaskSet && (ended || !ops.is_empty()) {
                    self.raise(extent, UnitAttention::CommandsCleared);
                }
                self.tmfs.hold_token(ops, token);
                self.start_queued(now)
            }
            Inbound::Unit(op, answer) => {
                self.cluster_answered(op, answer, now)?;
                self.start_queued(now)
            }
            Inbound::OthersReset(id) => {
                let over = self.tmfs.others_done(id);
                self.answer_functions(over);
                self.start_held(now)
            }
            Inbound::Reset(why) => Err(MustReset(why)),
            Inbound::AskLogout(seconds) => {
                self.iscsi.request_logout(seconds);
                Ok(())
            }
            Inbound::Close => {
                if !self.closing {
                    self.iscsi.announce_end();
                }
                self.closing = true;
                Ok(())
            }
        }
    }

    /// When something is to be done though nothing comes in.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let held = self.tasks.oldest_held().map(|received| received + HOLD_LIMIT);
        let reinstating = self
            .reinstating
            .is_some()
            .then(|| self.front.now() + Duration::from_millis(5));
        [self.iscsi.poll_timeout(), held, self.tmfs.deadline(), reinstating]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed, or committed state has changed.
    pub(super) fn tick(&mut self, now: Mono) -> Result<(), MustReset> {
        if let Some(Reinstating { old, tsih, since }) = self.reinstating {
            if !self.front.registry.has_session(old) {
                self.reinstating = None;
                self.let_in(tsih, now);
            } else if now.since(since) >= CONFIRMED_WITHIN {
                return Err(MustReset(
                    "the end of the session that it replaces could not be confirmed in time",
                ));
            }
        }
        if self.tmfs.overdue(now) {
            // F2: what cannot be confirmed is not answered.
            return Err(MustReset(
                "a task management function could not be confirmed in time",
            ));
        }
        self.start_held(now)
    }

    /// Whether the initiator may still be here, now that the rules may have changed.
    pub(super) fn is_still_admitted(&self, directory: &Directory) -> bool {
        self.logged_in
            .as_ref()
            .is_none_or(|session| access::is_still_admitted(directory, &session.login, self.port))
    }

    fn log_in(&mut self, login: &LoginRequested, now: Mono) {
        let nexus = match &login.kind {
            SessionKind::Normal { target } => Some(Nexus {
                initiator: login.initiator.clone(),
                isid: login.isid,
                target: target.clone(),
                tpg: self.port,
            }),
            SessionKind::Discovery => None,
        };
        let status = SessionStatus {
            id: 0,
            initiator: login.initiator.to_string(),
            target: nexus.as_ref().map(|nexus| nexus.target.to_string()),
            portal: self.ends.0.clone(),
            peer: self.ends.1.clone(),
            node: self.front.node.to_string(),
            group: login.group.as_ref().map(GroupName::to_string),
            user: login.user.clone(),
        };
        let registry = Arc::clone(&self.front.registry);
        let most = nexus
            .as_ref()
            .and_then(|nexus| self.front.state.borrow().sessions_max(&nexus.target));
        match registry.log_in(self.id, (login, nexus.as_ref()), most, status) {
            Admission::New { session, tsih } => {
                self.begin_session(session, login, nexus);
                self.let_in(tsih, now);
            }
            Admission::Reinstate { old, session, tsih } => {
                self.begin_session(session, login, nexus);
                // The old session's tasks are gone before the new one is answered (RFC 7143, 6.3.5).
                registry.reset_session(old);
                self.reinstating = Some(Reinstating {
                    old,
                    tsih,
                    since: now,
                });
            }
            Admission::Refuse(status) => drop(self.iscsi.refuse_login(status)),
            // Every TSIH is taken: the initiator is one too many here, as with a limit on sessions.
            Admission::Full => drop(self.iscsi.refuse_login(LoginStatus::TOO_MANY_CONNECTIONS)),
        }
    }

    fn begin_session(&mut self, session: SessionSerial, login: &LoginRequested, nexus: Option<Nexus>) {
        let instance = SessionInstance {
            node: self.front.node,
            incarnation: self.front.incarnation,
            serial: session.0,
        };
        self.logged_in = Some(LoggedIn {
            instance,
            login: login.clone(),
            nexus: nexus.map(|nexus| {
                let tag = nexus.tag();
                (nexus, tag)
            }),
            units: HashMap::new(),
            well_known: None,
            meter: self.front.registry.traffic().initiator(login.initiator.as_str()),
            meters: HashMap::new(),
            cleared: HashMap::new(),
            statuses: Statuses::default(),
            senses: Senses::default(),
            initiator: InitiatorTag::of(&login.initiator),
            asked_away: false,
        });
    }

    /// Starts a command, for the first time or again after it was held.
    fn start(&mut self, state: &FrontState, command: Command, now: Mono) -> Result<(), MustReset> {
        if self.well_known(state, &command) {
            return Ok(());
        }
        self.start_on_unit(state, command, now)
    }

    fn start_on_unit(&mut self, state: &FrontState, command: Command, now: Mono) -> Result<(), MustReset> {
        // The protocol engine lets no command through in a discovery session.
        let nobody = MustReset("a command without a session");
        let LoggedIn {
            instance,
            login,
            nexus,
            units,
            well_known,
            cleared,
            initiator,
            ..
        } = self.logged_in.as_mut().ok_or(nobody)?;
        let (map, (nexus_of_session, tag)) = map_of(login).zip(nexus.as_ref()).ok_or(nobody)?;
        let lun = Lun::from_field(command.lun).ok();
        let Some(mut view) = lun.and_then(|lun| state.view(nexus_of_session, map.group, lun)) else {
            let response = start_absent(command.cdb.as_bytes(), state.luns(map));
            self.respond(command.task, response);
            return Ok(());
        };
        view.calendar = Front::calendar();
        let nexus = units
            .entry(view.lun)
            .or_insert_with(|| NexusLu::new(view.counters));
        cleared
            .entry(view.extent)
            .or_insert((view.unit.cleared, view.unit.resets));
        let resetting = self.tmfs.resets(view.extent);
        if resetting && now.since(command.received) >= HOLD_LIMIT {
            return Err(MustReset("a reset of the unit took too long"));
        }
        let waits = resetting || self.front.is_releasing(&view, &command, now);
        if waits || self.tasks.in_storage() >= IN_STORAGE_MAX {
            self.tasks.put(command.task, Stage::Held(Box::new(command)));
            return Ok(());
        }
        let name = CommandName {
            session: *instance,
            cmd_sn: command.cmd_sn,
        };
        let context = Context {
            lun: view.lun,
            extent: view.extent,
            origin: Origin {
                nexus: *tag,
                admitted: view.unit.version,
                initiator: *initiator,
            },
            name,
            received: command.received,
            cost: cost_of(command.cdb.as_bytes(), command.expected_length),
        };
        let reports_luns = command.cdb.as_bytes().first() == Some(&REPORT_LUNS);
        let (task, data, expected) = (command.task, command.data.clone(), command.expected_length);
        let step = match start(command.cdb.as_bytes(), &view, nexus, data_out(&command)) {
            Step::Hold => {
                if now.since(command.received) >= HOLD_LIMIT {
                    return self.held_too_long(task, now);
                }
                self.tasks.put(task, Stage::Held(Box::new(command)));
                return Ok(());
            }
            // All of it came with the command, and all of it is wanted. Where less is, the protocol engine has to know for the residual.
            Step::NeedData { bytes, then } if bytes == expected && data.len() == bytes as usize => {
                then.with_data(&view, data)
            }
            step => step,
        };
        if reports_luns && matches!(&step, Step::Done(response) if response.status == Status::Good) {
            // The list is the target's: who has read it through one unit need not hear of it through another.
            let all = units.values_mut().chain(well_known);
            all.for_each(|unit| unit.luns_reported(view.counters));
        }
        self.next(task, step, context, now)
    }

    /// Goes on with a command's next step.
    fn next(&mut self, task: TaskId, step: Step, context: Context, now: Mono) -> Result<(), MustReset> {
        let Context {
            lun,
            extent,
            origin,
            name,
            received,
            cost,
        } = context;
        match step {
            Step::Done(response) => self.respond(task, response),
            Step::NeedData { bytes, then } => {
                self.tasks.put(
                    task,
                    Stage::AwaitingData {
                        lun,
                        extent,
                        pending: then,
                        name,
                        received,
                        admitted: origin.admitted,
                        cost,
                    },
                );
                if self.iscsi.request_data(task, bytes).is_err() {
                    self.tasks.take(task);
                }
            }
            Step::Unit(request) => self.ask_cluster(task, (lun, extent), received, request),
            Step::Storage(storage) => {
                let request = Request {
                    name,
                    received,
                    generation: self.generation,
                    origin,
                    op: storage.op,
                };
                return self.submit(task, extent, Then::Finish(storage.finish), cost, request, now);
            }
            Step::Copy(job) => {
                let copying = Copying {
                    job,
                    unit: extent,
                    lun,
                    origin,
                    name,
                    received,
                    parts: 0,
                };
                return self.begin_copy(task, Box::new(copying), now);
            }
            Step::Hold => return self.held_too_long(task, now),
        }
        Ok(())
    }

    /// Gives storage an operation of a task.
    pub(super) fn submit(
        &mut self,
        task: TaskId,
        extent: ExtentId,
        then: Then,
        cost: u64,
        request: Request,
        now: Mono,
    ) -> Result<(), MustReset> {
        let op = self.new_op();
        let began = Began::new(&request, &then, now);
        self.tasks.is_here(now);
        if let (Some(_), Some(session)) = (began.compares, &mut self.logged_in) {
            session.statuses.sent(extent);
        }
        self.tasks.put(
            task,
            Stage::Storage {
                op,
                extent,
                then,
                cost,
                began,
            },
        );
        match self.front.backend.submit(extent, op, request) {
            Some(outcome) => self.completed(op, outcome, now),
            None => Ok(()),
        }
    }

    /// All data of a write is there.
    fn data_out(&mut self, task: TaskId, data: bytes::Bytes, now: Mono) -> Result<(), MustReset> {
        let Some(Stage::AwaitingData {
            lun,
            extent,
            pending,
            name,
            received,
            admitted,
            cost,
        }) = self.tasks.take(task)
        else {
            return Ok(());
        };
        let session = self.logged_in.as_ref();
        let whose = session.and_then(|session| Some((session.nexus.clone()?, session.initiator)));
        let Some(((by, tag), initiator)) = whose else {
            return Ok(());
        };
        let state = Arc::clone(&self.front.state.borrow());
        let group = self.group();
        let view = state.view(&by, group.as_ref(), lun);
        let Some(view) = view.filter(|view| view.extent == extent && view.unit.cleared <= admitted) else {
            // The unit was reset or taken away meanwhile: the task went with it.
            self.iscsi.abort(task);
            return Ok(());
        };
        let calendar = Front::calendar();
        let step = pending.with_data(&LuView { calendar, ..view }, data);
        let context = Context {
            lun,
            extent,
            origin: Origin {
                nexus: tag,
                admitted,
                initiator,
            },
            name,
            received,
            cost,
        };
        self.next(task, step, context, now)
    }

    pub(super) fn respond(&mut self, task: TaskId, response: Response) {
        if let Some(sense) = &response.sense {
            self.record(sense);
        }
        let status = ScsiStatus(response.status.code());
        let sense = response
            .sense
            .map(|sense| sense.to_bytes().into())
            .unwrap_or_default();
        let moved = (response.data_out_wanted > 0).then_some(response.data_out_wanted);
        let moved = moved
            .or_else(|| (status == ScsiStatus::CHECK_CONDITION && response.data.is_empty()).then_some(0));
        let answer = Answer {
            status,
            sense,
            data: response.data.into(),
            moved,
        };
        // An aborted task needs no answer.
        let _ = self.iscsi.respond(task, answer);
    }

    fn completed(&mut self, op: OpId, outcome: OpOutcome, now: Mono) -> Result<(), MustReset> {
        let mut answered = false;
        if let Some(ended) = self.tasks.take_op(op) {
            self.measure(ended.extent, ended.began, &outcome, now);
            match ended.then {
                Then::Finish(finish_as) => {
                    let compared = ended.began.compares.filter(|_| outcome == OpOutcome::Done);
                    let finished = finish(finish_as, outcome);
                    answered = matches!(finished, Finished::Response(_));
                    self.end(ended.task, finished)?;
                    if let (Some(name), Some(session)) = (compared, &mut self.logged_in) {
                        let next = self.iscsi.next_status();
                        session.statuses.answered(next, ended.extent, name);
                    }
                }
                Then::Copy(copying) => self.go_on_copying(ended.task, op, copying, outcome, now)?,
            }
        }
        let over = self.tmfs.op_ended(op, answered);
        let restart = !over.is_empty();
        self.answer_functions(over);
        if restart || self.tasks.in_storage() + 1 == IN_STORAGE_MAX {
            return self.start_held(now);
        }
        Ok(())
    }

    /// Counts what an operation has cost, for its extent and its initiator.
    fn measure(&mut self, extent: ExtentId, began: Began, outcome: &OpOutcome, now: Mono) {
        let Some(session) = self.logged_in.as_mut() else {
            return;
        };
        let took = now.since(began.since);
        let of_extent = || self.front.registry.traffic().extent(extent);
        let of_extent = session.meters.entry(extent).or_insert_with(of_extent);
        for meter in [&*of_extent, &session.meter] {
            meter.count(began.operation, began.bytes, took, outcome);
        }
    }

    /// Ends a task as its storage says.
    pub(super) fn end(&mut self, task: TaskId, finished: Finished) -> Result<(), MustReset> {
        match finished {
            Finished::Response(response) => self.respond(task, response),
            Finished::ResetConnection => {
                return Err(MustReset("a command could not be carried out in time"));
            }
            Finished::NoResponse => drop(self.iscsi.abort(task)),
        }
        Ok(())
    }

    /// What this nexus has heard of a unit.
    pub(super) fn unit_of_nexus(&mut self, lun: Lun) -> Option<&mut NexusLu> {
        self.logged_in.as_mut()?.units.get_mut(&lun)
    }

    /// Starts held commands again, in order; gives up those that have waited too long.
    pub(super) fn start_held(&mut self, now: Mono) -> Result<(), MustReset> {
        let state = self.newest_state();
        self.answer_sanitized(&state);
        let held = self.tasks.take_held();
        if held.is_empty() {
            return Ok(());
        }
        // L7: what made them startable may also have ended their generation.
        self.stands(now)?;
        for command in held {
            self.start(&state, command, now)?;
        }
        Ok(())
    }

    /// I8: with quorum and an epoch change under way 02/04/0A, else the connection goes. It has not taken effect and never will.
    fn held_too_long(&mut self, task: TaskId, now: Mono) -> Result<(), MustReset> {
        if !self.front.lease.holds(now) {
            return Err(MustReset("a command was held too long without quorum"));
        }
        self.respond(task, Response::transitioning());
        Ok(())
    }

    /// Aborts what this connection has open: its session is over.
    pub(super) fn abort_all(&mut self) {
        if let Some(session) = &self.logged_in {
            for extent in self.tasks.busy_extents() {
                self.front
                    .backend
                    .abort(extent, AbortScope::Session(session.instance));
            }
        }
    }

    /// Nothing of the session is in storage any more: what its initiator has not acknowledged it never will (W6).
    pub(super) fn statuses_lost(&mut self) {
        if let Some(session) = &mut self.logged_in {
            session.statuses.ended(session.instance, &*self.front.backend);
        }
    }

    /// After the connection's end: its session stays until storage has answered for all that it had, and until the session that it was
    /// to replace is gone, so that whoever replaces this one waits for both (F2). False when nothing is left to wait for.
    pub(super) fn is_ending(&self) -> bool {
        let replaces = self.reinstating.as_ref();
        self.tasks.in_storage() > 0
            || replaces.is_some_and(|replaced| self.front.registry.has_session(replaced.old))
    }

    /// What a session that is ending hears: nothing is answered any more.
    pub(super) fn inbound_at_end(&mut self, message: Inbound) {
        match message {
            Inbound::Completed(op, _) => {
                self.tasks.take_op(op);
                self.tmfs.op_ended(op, false);
            }
            Inbound::Unit(op, _) => {
                self.tasks.take_unit(op);
                self.tmfs.op_ended(op, false);
            }
            Inbound::EndUnit { extent, token, .. } => {
                self.tmfs.hold_token(self.tasks.ops_on(extent).collect(), token);
            }
            Inbound::OthersReset(_) | Inbound::Reset(_) | Inbound::AskLogout(_) | Inbound::Close => {}
        }
    }

    /// Makes a unit attention pending for every LUN of this nexus that shows the extent.
    pub(super) fn raise(&mut self, extent: ExtentId, attention: UnitAttention) {
        let state = Arc::clone(&self.front.state.borrow());
        let Some(LoggedIn {
            login,
            nexus: Some((nexus, _)),
            units,
            ..
        }) = &mut self.logged_in
        else {
            return;
        };
        for (lun, unit) in units {
            let view = state.view(nexus, login.group.as_ref(), *lun);
            if view.is_some_and(|view| view.extent == extent) {
                unit.raise(attention);
            }
        }
    }

    /// The extent behind a LUN of this session's target.
    pub(super) fn extent_of(&self, lun: u64) -> Option<ExtentId> {
        let session = self.logged_in.as_ref()?;
        let (nexus, _) = session.nexus.as_ref()?;
        let state = self.front.state.borrow();
        state
            .view(nexus, session.login.group.as_ref(), Lun::from_field(lun).ok()?)
            .map(|view| view.extent)
    }

    /// The extents behind all LUNs of this session's target.
    pub(super) fn extents(&self) -> Vec<ExtentId> {
        let Some(session) = &self.logged_in else {
            return Vec::new();
        };
        let Some((map, (nexus, _))) = map_of(&session.login).zip(session.nexus.as_ref()) else {
            return Vec::new();
        };
        let state = self.front.state.borrow();
        let luns = state.luns(map).iter();
        luns.filter_map(|lun| state.view(nexus, map.group, *lun).map(|view| view.extent))
            .collect()
    }

    /// The session's nexus; none in a discovery session, or before the login.
    pub(super) fn nexus(&self) -> Option<Nexus> {
        let (nexus, _) = self.logged_in.as_ref()?.nexus.as_ref()?;
        Some(nexus.clone())
    }

    /// The initiator group that the session is a member of.
    pub(super) fn group(&self) -> Option<GroupName> {
        self.logged_in.as_ref()?.login.group.clone()
    }

    /// A handle for the next operation.
    pub(super) fn new_op(&mut self) -> OpId {
        let op = self.id.op(self.next_op);
        self.next_op = self.next_op.wrapping_add(1);
        op
    }

    /// The newest state, after what it says of resets was acted on: every task that is open from here on was admitted under it or is yet
    /// to be.
    pub(super) fn newest_state(&mut self) -> Arc<FrontState> {
        let state = Arc::clone(&self.front.state.borrow());
        if !self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &state)) {
            self.notice_clears(&state);
            self.seen = Some(Arc::clone(&state));
        }
        state
    }
}

/// What a command carries from its start to storage.
struct Context {
    lun: Lun,
    extent: ExtentId,
    origin: Origin,
    name: CommandName,
    received: Mono,
    cost: u64,
}
