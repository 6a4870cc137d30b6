//! The login phase, target side (RFC 7143, 6.3): from the first Login Request to the point where the owner decides.

use std::net::IpAddr;

use holdfast_types::{IscsiName, Isid, NameError};

use super::authenticate::Authenticator;
use super::{Origin, PortalConfig};
use crate::directory::{Directory, Verdict, Way};
use crate::error::Fatal;
use crate::negotiate::{Key, Negotiation, Parameters, Reply};
use crate::pdu::{LoginRequest, LoginResponse, LoginStatus, Stage, TargetNumbers};
use crate::serial::Sn;
use crate::session::{LoginRequested, SessionKind, Tsih};
use crate::text::{self, Assembler, TextError};

/// Longest text of one login request, put together from its PDUs, in bytes.
const TEXT_MAX: usize = 16 << 10;
/// Most Login Requests of one login.
const REQUESTS_MAX: u32 = 32;
/// Longest data segment during login (the default MaxRecvDataSegmentLength holds for both sides; RFC 7143, 13.12).
pub(super) const SEGMENT_MAX: usize = 8192;

/// What comes of a Login Request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Send this and wait for the next request.
    Respond(LoginResponse, Vec<u8>),
    /// The negotiation is through: ask the owner.
    Ask(Box<Waiting>),
    /// Send this and close.
    Refuse(LoginResponse, String),
    /// Close without an answer.
    Drop(Fatal),
}

/// A login that waits for the owner. Its last response is ready but for the TSIH.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: LoginRequested,
    pub(super) parameters: Parameters,
    pub(super) response: LoginResponse,
    pub(super) text: Vec<u8>,
    pub(super) cmd_sn: Sn,
}

/// Why a login is refused.
pub(super) struct Refusal {
    status: LoginStatus,
    reason: String,
}

impl Refusal {
    pub(super) fn new(status: LoginStatus, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
        }
    }

    fn initiator(reason: impl Into<String>) -> Self {
        Self::new(LoginStatus::INITIATOR_ERROR, reason)
    }
}

/// How a request fails: with a refusal, or (I8) without an answer.
pub(super) enum Failure {
    Refuse(Refusal),
    Drop(Fatal),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl From<TextError> for Failure {
    fn from(error: TextError) -> Self {
        Self::Refuse(Refusal::initiator(error.to_string()))
    }
}

/// What must not change from one request of a login to the next (RFC 7143, 11.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fixed {
    isid: Isid,
    tsih: u16,
    itt: u32,
    cid: u16,
    cmd_sn: Sn,
}

impl Fixed {
    const fn of(request: &LoginRequest) -> Self {
        Self {
            isid: request.isid,
            tsih: request.tsih,
            itt: request.itt,
            cid: request.cid,
            cmd_sn: request.numbers.cmd_sn,
        }
    }
}

/// Who logs in, and to what: the keys of the first request.
#[derive(Debug, Clone)]
struct Identity {
    initiator: IscsiName,
    alias: Option<String>,
    kind: SessionKind,
}

/// How far the login is.
#[derive(Debug)]
enum Step {
    /// Nothing but parts of the first text received.
    Start,
    /// The initiator has said who it is.
    Named {
        identity: Identity,
        stage: Stage,
        declared: bool,
        authenticator: Authenticator,
    },
}

/// The login of one connection.
#[derive(Debug)]
pub(super) struct Login {
    origin: Origin,
    step: Step,
    fixed: Option<Fixed>,
    text: Assembler,
    negotiation: Negotiation,
    requests: u32,
    stat_sn: Sn,
}

impl Login {
    pub(super) fn new(config: &PortalConfig, origin: Origin) -> Self {
        Self {
            origin,
            step: Step::Start,
            fixed: None,
            text: Assembler::new(TEXT_MAX),
            negotiation: Negotiation::new(config.offer.clone()),
            requests: 0,
            stat_sn: Sn(0),
        }
    }

    /// The StatSN of the next response.
    pub(super) const fn stat_sn(&self) -> Sn {
        self.stat_sn
    }

    /// Acts on one Login Request.
    pub(super) fn receive(
        &mut self,
        request: &LoginRequest,
        data: &[u8],
        config: &PortalConfig,
        directory: &Directory,
    ) -> Outcome {
        if self.requests == 0 {
            // The target may choose its first StatSN; taking the initiator's expectation is what it hopes for.
            self.stat_sn = request.numbers.exp_stat_sn;
        }
        self.requests += 1;
        let outcome = match self.act(request, data, config, directory) {
            Ok(outcome) => outcome,
            Err(Failure::Drop(fatal)) => return Outcome::Drop(fatal),
            Err(Failure::Refuse(refusal)) => {
                let response = LoginResponse {
                    status: refusal.status,
                    ..self.response(request)
                };
                Outcome::Refuse(response, refusal.reason)
            }
        };
        self.stat_sn = self.stat_sn.next();
        outcome
    }

    fn act(
        &mut self,
        request: &LoginRequest,
        data: &[u8],
        config: &PortalConfig,
        directory: &Directory,
    ) -> Result<Outcome, Failure> {
        self.check(request)?;
        self.text.push(data)?;
        if request.more {
            // An empty response asks for the rest (RFC 7143, 6.2).
            return Ok(Outcome::Respond(self.response(request), Vec::new()));
        }
        let pairs = self.text.finish()?;
        let mut text = Vec::new();
        self.name(request, &pairs, config, directory, &mut text)?;
        self.negotiate(request, &pairs, &mut text)?;
        if text.len() > SEGMENT_MAX {
            return Err(Refusal::initiator("too many keys to be answered").into());
        }
        self.transit(request, text, config)
    }

    /// The rules that hold for every request.
    fn check(&mut self, request: &LoginRequest) -> Result<(), Refusal> {
        if self.requests > REQUESTS_MAX {
            return Err(Refusal::initiator("too many login requests"));
        }
        if request.version_min > 0 {
            let reason = format!("version {} or later wanted", request.version_min);
            return Err(Refusal::new(LoginStatus::UNSUPPORTED_VERSION, reason));
        }
        let fixed = Fixed::of(request);
        if *self.fixed.get_or_insert(fixed) != fixed {
            return Err(Refusal::initiator("login requests of different sessions"));
        }
        if request.more && request.transit {
            return Err(Refusal::initiator("T bit with C bit"));
        }
        let stage_fits = match &self.step {
            Step::Start => matches!(request.current, Stage::SECURITY | Stage::OPERATIONAL),
            Step::Named { stage, .. } => request.current == *stage,
        };
        if !stage_fits {
            return Err(Refusal::initiator(format!(
                "request of stage {}",
                request.current
            )));
        }
        let next_fits = match request.next {
            Stage::OPERATIONAL => request.current == Stage::SECURITY,
            Stage::FULL_FEATURE => true,
            _ => false,
        };
        if request.transit && !next_fits {
            return Err(Refusal::initiator(format!(
                "transit from {} to {}",
                request.current, request.next
            )));
        }
        Ok(())
    }

    /// Names in the first request (RFC 7143, 6.3: InitiatorName, SessionType, TargetName); later ones may only repeat them.
    fn name(
        &mut self,
        request: &LoginRequest,
        pairs: &[(String, String)],
        config: &PortalConfig,
        directory: &Directory,
        text: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        match &self.step {
            Step::Start => {
                let identity = Identity::read(pairs)?;
                let ways = identity.judge(self.origin.peer, config, directory)?;
                if matches!(identity.kind, SessionKind::Normal { .. }) {
                    // Has to be in the first response of a normal session (13.9).
                    let tag = config.tpg.value().to_string();
                    text::put(text, Key::TargetPortalGroupTag.name(), &tag);
                }
                self.step = Step::Named {
                    identity,
                    stage: request.current,
                    declared: false,
                    authenticator: Authenticator::new(ways, self.origin.challenge.clone()),
                };
                Ok(())
            }
            Step::Named { identity, .. } => Ok(identity.check_repeats(pairs)?),
        }
    }

    /// Answers all other keys.
    fn negotiate(
        &mut self,
        request: &LoginRequest,
        pairs: &[(String, String)],
        text: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let (mut security, mut operational) = (Vec::new(), Vec::new());
        for (name, value) in pairs {
            match Key::from_name(name) {
                Some(Key::InitiatorName | Key::InitiatorAlias | Key::TargetName | Key::SessionType) => {}
                Some(
                    key @ (Key::AuthMethod
                    | Key::ChapAlgorithm
                    | Key::ChapIdentifier
                    | Key::ChapChallenge
                    | Key::ChapName
                    | Key::ChapResponse),
                ) => security.push((key, value.as_str())),
                Some(key) => operational.push((key, value.as_str())),
                None => put_reply(text, name, Reply::not_understood())?,
            }
        }
        self.authenticate(request, &security, text)?;
        let replies = self
            .negotiation
            .answer(&operational)
            .map_err(|twice| Refusal::initiator(twice.to_string()))?;
        for (key, reply) in replies {
            put_reply(text, key.name(), reply)?;
        }
        if let Step::Named { declared, .. } = &mut self.step
            && request.current == Stage::OPERATIONAL
            && !*declared
        {
            *declared = true;
            let length = self.negotiation.declare().to_string();
            text::put(text, Key::MaxRecvDataSegmentLength.name(), &length);
        }
        Ok(())
    }

    /// What belongs to the security stage. Whoever skips that stage has proven nothing.
    fn authenticate(
        &mut self,
        request: &LoginRequest,
        keys: &[(Key, &str)],
        text: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let Step::Named { authenticator, .. } = &mut self.step else {
            return Ok(());
        };
        if request.current == Stage::SECURITY {
            return authenticator.answer(keys, text);
        }
        if let Some((key, _)) = keys.first() {
            let reason = format!("{} outside of security negotiation", key.name());
            return Err(Refusal::initiator(reason).into());
        }
        authenticator.leave().map(drop)
    }

    /// Answers, and goes on to the next stage where both sides are ready: this one is, unless an authentication is under way.
    fn transit(
        &mut self,
        request: &LoginRequest,
        text: Vec<u8>,
        config: &PortalConfig,
    ) -> Result<Outcome, Failure> {
        let mut response = self.response(request);
        let Step::Named {
            identity,
            stage,
            authenticator,
            ..
        } = &mut self.step
        else {
            return Err(Refusal::initiator("login without a name").into());
        };
        if !request.transit || !authenticator.leave()? {
            return Ok(Outcome::Respond(response, text));
        }
        response.transit = true;
        response.next = request.next;
        if request.next != Stage::FULL_FEATURE {
            *stage = request.next;
            return Ok(Outcome::Respond(response, text));
        }
        let entered = authenticator.entered();
        let parameters = self.negotiation.finish().map_err(Refusal::initiator)?;
        Ok(Outcome::Ask(Box::new(Waiting {
            request: LoginRequested {
                initiator: identity.initiator.clone(),
                initiator_alias: identity.alias.clone(),
                isid: request.isid,
                kind: identity.kind.clone(),
                tpg: config.tpg,
                tsih: (request.tsih != 0).then_some(Tsih(request.tsih)),
                cid: request.cid,
                peer: self.origin.peer,
                group: entered.and_then(|entered| entered.group.clone()),
                user: entered.and_then(|entered| entered.user.clone()),
            },
            parameters,
            response,
            text,
            cmd_sn: request.numbers.cmd_sn,
        })))
    }

    /// A response without T bit and text. MaxCmdSN equals ExpCmdSN: one request at a time.
    const fn response(&self, request: &LoginRequest) -> LoginResponse {
        LoginResponse {
            transit: false,
            more: false,
            current: request.current,
            next: Stage(0),
            version_max: 0,
            version_active: 0,
            isid: request.isid,
            tsih: request.tsih,
            itt: request.itt,
            numbers: TargetNumbers {
                stat_sn: self.stat_sn,
                exp_cmd_sn: request.numbers.cmd_sn,
                max_cmd_sn: request.numbers.cmd_sn,
            },
            status: LoginStatus::SUCCESS,
        }
    }
}

impl Identity {
    fn read(pairs: &[(String, String)]) -> Result<Self, Refusal> {
        let find = |key: Key| {
            pairs
                .iter()
                .find(|(name, _)| name == key.name())
                .map(|(_, value)| value.as_str())
        };
        let missing = |key: Key| {
            Refusal::new(
                LoginStatus::MISSING_PARAMETER,
                format!("{} is missing", key.name()),
            )
        };
        let bad = |name: &str, error: NameError| Refusal::initiator(format!("{name:?}: {error}"));
        let name = find(Key::InitiatorName).ok_or_else(|| missing(Key::InitiatorName))?;
        let initiator = IscsiName::of_initiator(name).map_err(|error| bad(name, error))?;
        // Normal is the default (13.21).
        let kind = match find(Key::SessionType).unwrap_or("Normal") {
            "Normal" => {
                let name = find(Key::TargetName).ok_or_else(|| missing(Key::TargetName))?;
                let target = name.parse().map_err(|error| bad(name, error))?;
                SessionKind::Normal { target }
            }
            "Discovery" => SessionKind::Discovery,
            other => {
                return Err(Refusal::new(
                    LoginStatus::SESSION_TYPE,
                    format!("session type '{other}'"),
                ));
            }
        };
        let alias = find(Key::InitiatorAlias).map(str::to_owned);
        let identity = Self {
            initiator,
            alias,
            kind,
        };
        identity.check_repeats(pairs)?;
        Ok(identity)
    }

    /// How the initiator may log in, as far as the directory knows.
    fn judge(&self, peer: IpAddr, config: &PortalConfig, directory: &Directory) -> Result<Vec<Way>, Failure> {
        let SessionKind::Normal { target } = &self.kind else {
            return Ok(vec![directory.discovery_way()]);
        };
        match directory.judge(&self.initiator, peer, target, config.tpg) {
            Verdict::Allowed(ways) => Ok(ways),
            Verdict::Forbidden => Err(Refusal::new(
                LoginStatus::NOT_ALLOWED,
                format!("{} may not use {target}", self.initiator),
            )
            .into()),
            // I8: 0203 is for the initiator's mistake only, and only who knows the whole cluster can call it one.
            Verdict::Missing => Err(Refusal::new(
                LoginStatus::NOT_FOUND,
                format!("there is no target {target} here"),
            )
            .into()),
            Verdict::Unknown => Err(Failure::Drop(Fatal::TargetUnknown(target.clone()))),
        }
    }

    /// Initiators repeat their names in later requests; they may not change them.
    fn check_repeats(&self, pairs: &[(String, String)]) -> Result<(), Refusal> {
        for (name, value) in pairs {
            let same = match (Key::from_name(name), &self.kind) {
                (Some(Key::InitiatorName), _) => {
                    IscsiName::of_initiator(value).ok().as_ref() == Some(&self.initiator)
                }
                (Some(Key::TargetName), SessionKind::Normal { target }) => {
                    value.parse().ok().as_ref() == Some(target)
                }
                (Some(Key::SessionType), SessionKind::Normal { .. }) => value == "Normal",
                (Some(Key::SessionType), SessionKind::Discovery) => value == "Discovery",
                _ => true,
            };
            if !same {
                return Err(Refusal::initiator(format!("{name} given twice")));
            }
        }
        Ok(())
    }
}

fn put_reply(text: &mut Vec<u8>, name: &str, reply: Reply) -> Result<(), Refusal> {
    match reply {
        Reply::Value(value) => {
            text::put(text, name, &value);
            Ok(())
        }
        Reply::Silence => Ok(()),
        Reply::Impossible(reason) => Err(Refusal::initiator(reason)),
    }
}
