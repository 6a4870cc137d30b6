//! Known bad traces, as scripts whose times the seed draws: walks by chance alone miss the deep ones. Each is the trace of a hole that an
//! earlier wording of the protocol had.

use std::collections::{BTreeMap, VecDeque};

use holdfast_raft::model::{AdminCommand, Command};
use holdfast_replication::core::api::{Note, RoleName};

use super::rng::Rng;
use super::voters::{Change, Membership};
use super::{Ev, MS, Node, Res, World, glue, place, plays};

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Chance alone.
    None,
    /// Power goes right when a write was answered (A1, J1).
    CrashAtDone,
    /// The primary dies and is back at once, its epoch not replaced yet (A1).
    RestartedPrimary,
    /// A replica dies in the middle of its resync (A2).
    CrashInResync,
    /// Power goes everywhere just after a replica came back in sync (A2).
    PowerAfterGrowth,
    /// The new epoch is committed after the suspicion was cleared (A3).
    LateNewEpoch,
    /// The reports of one suspicion are still known when the next one comes (A3).
    SecondSuspicion,
    /// A suspect is cleared before it applies that it lost its epoch (A4).
    ClearedLaggard,
    /// The same, and its successor cannot reach it over the data plane (A4).
    ClearedUnlinked,
    /// A voter restarts while its promise runs (A5).
    ForgetfulVoter,
    /// A voter restarts behind the suspicion that it had applied (A5).
    RolledBackVoter,
    /// The suspect has applied its suspicion; another voter has not (A6).
    OwnSuspicion,
    /// Acknowledgements of heartbeats come late (A6).
    LateAcknowledgements,
    /// One voter's promise runs out long before another's.
    EarlyReport,
    /// Clocks at the edges of what is trusted, and a cluster that decides at once (A6).
    DriftAtBound,
    /// A growth is proposed, the newcomer is cut off, the primary hears no outcome, and dies (A7).
    CutAtGrowth,
    /// The primary is lost while its changes of the in-sync set are late (A7).
    LateShrink,
    /// The primary is lost with records on their way (A8).
    LostWithTail,
    /// The primary is cut off from the cluster state and from its successor, not from the third (E4).
    OldPrimaryReturns,
    /// The primary is cut off from everybody but its initiators (W3).
    Isolated,
    /// A node that forwards is stopped, or its link stalls, with commands on their way (A10).
    ForwarderStopped,
    /// One link is cut, from a healthy cluster (A11).
    OneLinkCut,
    /// Switchovers whose entries are late (A13).
    LateSwitchover,
    /// The primary that handed back does not hear of its successor, over the log or a link.
    SwitchoverUnheard,
    /// The primary dies after it handed back (A1, A13).
    SwitchoverAndRestart,
    /// An extent falls idle right after a write (A16).
    IdleAfterWrite,
    /// Comparing is slow, and writes go to what is compared (A17).
    WritesInResync,
    /// A flush fails, later the power does (A18).
    FlushFails,
    /// The primary is stopped, and the disk of the one who may take over from it is damaged.
    DamagedOnePromoted,
    /// A voter is replaced while the primary hears it alone (A20).
    VoterReplaced,
    /// The lease time gets shorter while the primary is cut off, and the voters that had promised start anew.
    LeaseShortened,
    /// The same, but the primary learns of it, only it is not answered any more.
    LeaseShortenedUnanswered,
    /// The lease time gets longer right behind a suspicion, and the voters find their applied state between the two.
    LeaseLengthened,
    /// The primary, whose clock is slow, is cut off from its successor and hears a third replica that knows nothing of that one (W4).
    StaleConfirmation,
    /// Two of three are lost for good, or cut off; the third goes on alone, and they come back as they were (T1, T2).
    Takeover,
    /// The same, by a node whose replica was put out of the set, which it has not applied yet (T2).
    StaleTakeover,
    /// A replica loses answered writes with its memory, its leaving is late, and the primary is cut off (W5).
    ForgetfulReplica,
    /// No disk takes what is written, initiators flush, and power goes everywhere (W5).
    FlushedAndLost,
}

impl Scenario {
    /// Those that play something.
    pub const ALL: &'static [Self] = &[
        Self::CrashAtDone,
        Self::RestartedPrimary,
        Self::CrashInResync,
        Self::PowerAfterGrowth,
        Self::LateNewEpoch,
        Self::SecondSuspicion,
        Self::ClearedLaggard,
        Self::ClearedUnlinked,
        Self::ForgetfulVoter,
        Self::RolledBackVoter,
        Self::OwnSuspicion,
        Self::LateAcknowledgements,
        Self::EarlyReport,
        Self::DriftAtBound,
        Self::CutAtGrowth,
        Self::LateShrink,
        Self::LostWithTail,
        Self::OldPrimaryReturns,
        Self::Isolated,
        Self::ForwarderStopped,
        Self::OneLinkCut,
        Self::LateSwitchover,
        Self::SwitchoverUnheard,
        Self::SwitchoverAndRestart,
        Self::IdleAfterWrite,
        Self::WritesInResync,
        Self::FlushFails,
        Self::DamagedOnePromoted,
        Self::VoterReplaced,
        Self::LeaseShortened,
        Self::LeaseShortenedUnanswered,
        Self::LeaseLengthened,
        Self::StaleConfirmation,
        Self::Takeover,
        Self::StaleTakeover,
    ];

    /// Those at the end of the list are not drawn: some seeds are theirs.
    const DRAWN: usize = Self::ALL.len() - 2;
    /// Every so many seeds, and which of them.
    const TAKEOVER_EVERY: u64 = 25;
    const TAKEOVER_AT: u64 = 20;

    /// Those that need write-back.
    pub const CACHED: &'static [Self] = &[Self::ForgetfulReplica, Self::FlushedAndLost];

    /// By the name that it is printed with.
    pub fn named(name: &str) -> Option<Self> {
        let all = Self::ALL.iter().chain(Self::CACHED).chain([&Self::None]);
        all.copied().find(|one| format!("{one:?}") == name)
    }

    /// Those of write-back are drawn beside the others, so that every other seed is what it was before there was any.
    pub(super) fn draw(seed: u64, rng: &mut Rng) -> Self {
        if seed % Self::TAKEOVER_EVERY == Self::TAKEOVER_AT {
            return rng.pick(&[Self::Takeover, Self::StaleTakeover]);
        }
        let drawn = if rng.chance(55) {
            Self::None
        } else {
            rng.pick(&Self::ALL[..Self::DRAWN])
        };
        let mut beside = Rng::new(seed ^ 0x5735_5735);
        if beside.chance(4) {
            beside.pick(Self::CACHED)
        } else {
            drawn
        }
    }

    /// Whether it has one node go on alone.
    pub(super) fn takes_over(self) -> bool {
        matches!(self, Self::Takeover | Self::StaleTakeover)
    }

    /// By so many seconds.
    pub(super) fn takes_longer(self) -> u64 {
        if self.takes_over() { 9 } else { 0 }
    }

    /// The first extent has write-back.
    pub(super) fn is_cached(self) -> bool {
        Self::CACHED.contains(&self)
    }

    pub(super) fn wants_trio(self) -> bool {
        matches!(
            self,
            Self::LateNewEpoch
                | Self::SecondSuspicion
                | Self::ClearedLaggard
                | Self::ClearedUnlinked
                | Self::ForgetfulVoter
                | Self::RolledBackVoter
                | Self::OwnSuspicion
                | Self::LateAcknowledgements
                | Self::EarlyReport
                | Self::DriftAtBound
                | Self::Isolated
                | Self::OneLinkCut
                | Self::DamagedOnePromoted
                | Self::VoterReplaced
                | Self::LeaseShortened
                | Self::LeaseShortenedUnanswered
                | Self::LeaseLengthened
                | Self::Takeover
                | Self::StaleTakeover
                | Self::ForgetfulReplica
                | Self::FlushedAndLost
        )
    }

    pub(super) fn wants_three_replicas(self) -> bool {
        matches!(self, Self::OldPrimaryReturns | Self::StaleConfirmation)
    }

    /// It is about clocks that run off by more than the bound.
    pub(super) fn is_of_lies(self) -> bool {
        self == Self::StaleConfirmation
    }

    /// Whether clocks may run off by more than the bound.
    pub(super) fn takes_lies(self) -> bool {
        !matches!(self, Self::OneLinkCut | Self::DriftAtBound) && !self.takes_over()
    }

    /// Whether other trouble may come on top.
    pub(super) fn takes_trouble(self) -> bool {
        !matches!(self, Self::OneLinkCut | Self::DriftAtBound | Self::IdleAfterWrite) && !self.takes_over()
    }

    /// Whether the operator may change voters and the lease time on top.
    pub(super) fn takes_changes(self) -> bool {
        let own = matches!(
            self,
            Self::VoterReplaced
                | Self::LeaseShortened
                | Self::LeaseShortenedUnanswered
                | Self::LeaseLengthened
        );
        self.takes_trouble() && !own
    }

    /// Everything that the cluster decides is decided at once.
    pub(super) fn is_brisk(self) -> bool {
        self == Self::DriftAtBound
    }
}

/// Who plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The primary of the first extent when the play begins.
    Primary,
    /// Another member of its in-sync set.
    Replica,
    /// Another voter.
    Third,
    /// One that is no member when the play begins.
    Spare,
}
use Who::{Primary, Replica, Spare, Third};

/// Something that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    Suspected,
    Cleared,
    NewEpoch,
    Growing,
    Grown,
    Shrunk,
    HandedBack,
    ResyncStarted,
    Serving,
    /// A node gets the log, without a vote yet.
    Learner,
    /// A change of voters is half done.
    Joint,
    /// The lease time is changed, and every voter has applied that.
    LeaseSet,
    LeaseSettled,
}

/// Proposals that may be held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NewEpoch,
    Switchover,
    Sets,
}

pub(super) type Span = (u64, u64);

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Sleep(Span),
    Until(Mark, u64),
    Cut(Who, Who, Span),
    CutBoth(Who, Who, Span),
    Isolate(Who, Span),
    /// No heartbeats between the two.
    Deaf(Who, Who),
    /// None from the first to the second.
    Unheard(Who, Who),
    Slow(Who, Who, u64),
    Heal,
    Pause(Who, Span),
    Crash(Who, bool),
    CrashAll,
    /// The next start finds its applied state so many entries back.
    Back(Who, Span),
    LagApply(Who, Span),
    /// Nothing behind the newest suspicion is applied, up to it all is.
    ApplySuspicionOnly(Who, Span),
    LagViews(Who, Span),
    Hold(Kind, Span, u64),
    Pin(Who),
    Switch(Who),
    Lead(Who),
    BreakLinks(Who),
    /// No link of the data plane between the two.
    Unlink(Who, Who, Span),
    FlushFails(Who),
    /// Its disk answers nothing.
    Hang(Who, Span),
    /// It dies with power, and its disk has lost something that was stable.
    Damage(Who),
    /// The operator sets the lease time.
    Lease(u64),
    /// The spare joins in the place of that node.
    Replace(Who),
    Quiet(Span),
    /// It dies, and stays dead.
    Kill(Who, bool),
    /// It goes on alone, as a new incarnation of the cluster; nothing of that if others have committed what it does not have.
    TakeOver(Who),
    /// It is there again, as it was when it was left behind; the two others that were left behind stay apart, or they would be a majority.
    Return(Who, Who),
    /// Another node joins the one that went on, as one of those does whose directory was emptied.
    Rejoin,
    /// From here on ownership may move once, and everything is served after the failover bound.
    Expect,
    Expected,
}

/// The state of a play.
#[derive(Debug)]
pub(super) struct Script {
    scenario: Scenario,
    steps: VecDeque<Step>,
    cast: [Node; 4],
    /// The newest suspicion's entry.
    suspicion: u64,
    /// When the step under way began, and when it ends.
    since: u64,
    until: Option<u64>,
    marks: BTreeMap<Mark, u64>,
    holds: Vec<(Kind, u64, u64)>,
    epochs: Vec<u64>,
    expect_from: u64,
    pub(super) quiet_until: u64,
    /// When a node took over.
    taken_over: u64,
}

impl Script {
    pub(super) fn new(scenario: Scenario, _: &mut Rng) -> Self {
        Self {
            scenario,
            steps: VecDeque::new(),
            cast: [0, 1, 2, 2],
            suspicion: 0,
            since: 0,
            until: None,
            marks: BTreeMap::new(),
            holds: Vec::new(),
            epochs: Vec::new(),
            expect_from: 0,
            quiet_until: 0,
            taken_over: 0,
        }
    }

    /// When a node took over; 0: none has.
    pub(super) fn taken_over(&self) -> u64 {
        self.taken_over
    }
}

impl World {
    fn actor(&self, who: Who) -> Node {
        self.script.cast[match who {
            Primary => 0,
            Replica => 1,
            Third => 2,
            Spare => 3,
        }]
    }

    /// Who is what now.
    fn cast(&mut self) -> bool {
        let Some(found) = self.agreed.head.extents.get(&glue::extent_id(0)) else {
            return false;
        };
        let Some(primary) = found.primary.map(place) else {
            return false;
        };
        let Some(replica) = found
            .in_sync
            .iter()
            .map(|node| place(*node))
            .find(|node| *node != primary)
        else {
            return false;
        };
        let third = (0..self.hosts.len()).find(|node| *node != primary && *node != replica);
        let third = third.unwrap_or(replica);
        let spare = (0..self.hosts.len()).find(|node| self.plan.nodes[*node].spare);
        self.script.cast = [primary, replica, third, spare.unwrap_or(third)];
        true
    }

    /// The play goes on.
    pub(super) fn script(&mut self) -> Res {
        if self.calm || self.script.scenario == Scenario::None {
            return Ok(());
        }
        self.after(2 * MS, Ev::Script);
        if self.script.steps.is_empty() {
            let up = |node: Node| self.hosts[node].process.is_some() || !self.is_member(node);
            let up = (0..self.hosts.len()).all(up);
            if !up || !self.cast() {
                return Ok(());
            }
            self.script.steps = plays::steps(self.script.scenario, &mut self.rng).into();
            self.script.until = None;
            self.count("play");
        }
        while let Some(step) = self.script.steps.front().copied() {
            match self.script.until {
                None => {
                    self.script.since = self.now;
                    let wait = self.play(step)?;
                    self.script.until = Some(self.now + wait);
                }
                Some(until) => {
                    let seen = match step {
                        Step::Until(mark, _) => self
                            .script
                            .marks
                            .get(&mark)
                            .is_some_and(|at| *at >= self.script.since),
                        _ => false,
                    };
                    if !seen && self.now < until {
                        return Ok(());
                    }
                    self.script.steps.pop_front();
                    self.script.until = None;
                }
            }
        }
        Ok(())
    }

    fn span(&mut self, span: Span) -> u64 {
        self.rng.between(span.0 * MS, span.1 * MS)
    }

    /// Does a step; how long to wait for the next.
    fn play(&mut self, step: Step) -> Result<u64, String> {
        self.say(|| format!("play: {step:?}"));
        match step {
            Step::Sleep(span) => return Ok(self.span(span)),
            Step::Until(_, limit) => return Ok(limit * MS),
            Step::Cut(a, b, span) => {
                let time = self.span(span);
                self.cut(self.actor(a), self.actor(b), time);
            }
            Step::CutBoth(a, b, span) => {
                let time = self.span(span);
                self.cut_both(self.actor(a), self.actor(b), time);
            }
            Step::Isolate(who, span) => {
                let time = self.span(span);
                self.isolate(self.actor(who), time);
            }
            Step::Deaf(a, b) => {
                let (a, b) = (self.actor(a), self.actor(b));
                self.net.loss[a][b] = 100;
                self.net.loss[b][a] = 100;
            }
            Step::Unheard(a, b) => {
                let (a, b) = (self.actor(a), self.actor(b));
                self.net.loss[a][b] = 100;
            }
            Step::Slow(a, b, most) => {
                let (a, b) = (self.actor(a), self.actor(b));
                self.net.slow[a][b] = most * MS;
            }
            Step::Heal => self.net.heal(),
            Step::Pause(who, span) => {
                let time = self.span(span);
                self.pause(self.actor(who), time);
            }
            Step::Crash(who, power) => self.crash(self.actor(who), power),
            Step::CrashAll => {
                for node in 0..self.hosts.len() {
                    self.crash(node, true);
                }
            }
            Step::Back(who, (lo, hi)) => {
                let back = self.rng.between(lo, hi);
                let who = self.actor(who);
                self.hosts[who].back = back;
            }
            other => return self.play_more(other),
        }
        Ok(0)
    }

    fn play_more(&mut self, step: Step) -> Result<u64, String> {
        match step {
            Step::LagApply(who, span) => {
                let until = self.now + self.span(span);
                let who = self.actor(who);
                self.hosts[who].apply_after = until;
            }
            Step::ApplySuspicionOnly(who, span) => {
                let until = self.now + self.span(span);
                let who = self.actor(who);
                self.hosts[who].apply_after = 0;
                self.hosts[who].apply_only = (self.script.suspicion, until);
            }
            Step::Lease(value) => self.ask_for(Change::Lease(value))?,
            Step::Replace(who) => {
                let old = self.actor(who);
                let data = self.hosts[old].data;
                self.ask_for(Change::Replace { old, data })?;
            }
            Step::LagViews(who, span) => {
                let until = self.now + self.span(span);
                let who = self.actor(who);
                self.hosts[who].views_after = until;
            }
            Step::Hold(kind, span, time) => {
                let delay = self.span(span);
                self.script.holds.retain(|(held, ..)| *held != kind);
                self.script.holds.push((kind, self.now + time * MS, delay));
            }
            Step::Pin(who) => self.pin_clients(self.actor(who)),
            Step::Switch(to) => self.switch(self.actor(to))?,
            Step::Lead(who) => {
                let to = self.actor(who);
                for node in 0..self.hosts.len() {
                    self.raft(node, |raft, _, _, out| raft.transfer(to, out))?;
                }
            }
            Step::BreakLinks(who) => {
                for (a, b, _) in self.links_of(self.actor(who)) {
                    self.break_link(a, b);
                }
            }
            Step::Unlink(a, b, span) => {
                let time = self.span(span);
                self.unlink(self.actor(a), self.actor(b), time);
            }
            Step::Hang(who, span) => {
                let until = self.now + self.span(span);
                let who = self.actor(who);
                self.hosts[who].disk.hangs = until;
            }
            Step::FlushFails(who) => self.disk_fails(self.actor(who)),
            Step::Damage(who) => self.damage(self.actor(who)),
            Step::Quiet(span) => {
                let time = self.span(span);
                self.script.quiet_until = self.now + time;
                return Ok(time);
            }
            Step::Kill(who, power) => self.kill(self.actor(who), power),
            Step::TakeOver(who) => self.take_over(self.actor(who))?,
            Step::Return(who, other) => self.return_as_it_was(self.actor(who), self.actor(other)),
            Step::Rejoin => self.rejoin(),
            Step::Expect => {
                self.script.epochs = self.epochs();
                self.script.expect_from = self.now;
            }
            Step::Expected => self.as_expected()?,
            _ => {}
        }
        Ok(0)
    }

    pub(super) fn script_taken_over(&mut self) {
        self.script.taken_over = self.now;
    }

    fn epochs(&self) -> Vec<u64> {
        self.agreed
            .head
            .extents
            .values()
            .map(|found| found.epoch.0)
            .collect()
    }

    /// L6: with one link cut everything is served, and ownership has moved at most once.
    fn as_expected(&self) -> Res {
        for (extent, (before, now)) in self.script.epochs.iter().zip(self.epochs()).enumerate() {
            if now > before + 1 {
                return Err(format!(
                    "L6: with one link cut, ownership of x{extent} moved from epoch {before} to {now}"
                ));
            }
        }
        self.served_since(self.now.saturating_sub(4000 * MS))
            .map_err(|what| format!("L6: with one link cut: {what}"))
    }

    /// How long a play holds a proposal back.
    pub(super) fn script_holds(&mut self, command: &Command) -> u64 {
        let kind = match command {
            Command::NewEpoch { .. } => Kind::NewEpoch,
            Command::Switchover { .. } => Kind::Switchover,
            Command::Shrink { .. } | Command::Grow { .. } | Command::GrowVoid { .. } => Kind::Sets,
            _ => return 0,
        };
        let now = self.now;
        let calm = self.calm;
        let held = self
            .script
            .holds
            .iter()
            .find(|(held, until, _)| *held == kind && *until > now && !calm);
        held.map_or(0, |(_, _, delay)| *delay)
    }

    fn mark(&mut self, mark: Mark) {
        self.script.marks.insert(mark, self.now);
    }

    pub(super) fn script_commit(&mut self, index: u64, command: &Command) {
        match command {
            Command::Suspect { .. } => {
                self.script.suspicion = index;
                self.mark(Mark::Suspected);
            }
            Command::Admin(AdminCommand::SetSetting { .. }) => self.mark(Mark::LeaseSet),
            Command::Admin(AdminCommand::LeaseSettled { .. }) => self.mark(Mark::LeaseSettled),
            Command::ClearSuspect { .. } => self.mark(Mark::Cleared),
            Command::NewEpoch { .. } => self.mark(Mark::NewEpoch),
            _ => {}
        }
    }

    pub(super) fn script_members(&mut self, members: &Membership) {
        if !members.learners.is_empty() {
            self.mark(Mark::Learner);
        }
        if members.is_joint() {
            self.mark(Mark::Joint);
        }
        self.count("members changed");
    }

    pub(super) fn script_note(&mut self, _: Node, extent: usize, note: &Note) {
        if extent != 0 {
            return;
        }
        match note {
            Note::Growing { .. } => self.mark(Mark::Growing),
            Note::Grown { .. } => self.mark(Mark::Grown),
            Note::Shrunk { .. } => self.mark(Mark::Shrunk),
            Note::ResyncStarted { .. } => self.mark(Mark::ResyncStarted),
            Note::Role {
                role: RoleName::HandedBack,
                ..
            } => self.mark(Mark::HandedBack),
            Note::Role {
                role: RoleName::Primary,
                ..
            } => self.mark(Mark::Serving),
            _ => {}
        }
    }

    /// A write was answered.
    pub(super) fn script_done(&mut self, node: Node) {
        if self.script.scenario == Scenario::CrashAtDone && !self.calm && self.rng.one_in(200) {
            self.after(1, Ev::Crash(node, true));
        }
    }
}
