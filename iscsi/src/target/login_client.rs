//! A peer for tests of logins: it sends Login Requests one by one and looks at each answer.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use holdfast_types::{Isid, Mono, TpgId};

use crate::directory::Directory;
use crate::error::Fatal;
use crate::frame::{Digests, FrameLimits, Framer};
use crate::negotiate::Parameters;
use crate::out::Outgoing;
use crate::pair::{directory, origin};
use crate::pdu::{Bhs, LoginRequest, LoginResponse, LoginStatus, Numbers, Opcode, Stage};
use crate::serial::Sn;
use crate::session::Tsih;
use crate::target::{Connection, PortalConfig};

/// The names of a usual login.
pub(super) const NAMES: &str = "InitiatorName=iqn.2026-11.example:host
    SessionType=Normal
    TargetName=iqn.2026-11.example:disk";

pub(super) const S: Stage = Stage::SECURITY;
pub(super) const O: Stage = Stage::OPERATIONAL;
pub(super) const F: Stage = Stage::FULL_FEATURE;

/// The answer to one Login Request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: LoginStatus,
    pub(super) transit: Option<Stage>,
    pub(super) keys: Vec<String>,
}

pub(super) struct Client {
    pub(super) connection: Connection,
    pub(super) buffer: BytesMut,
    pub(super) request: LoginRequest,
    pub(super) fatal: Option<Fatal>,
    pub(super) accept: bool,
}

impl Client {
    pub(super) fn new(config: PortalConfig, directory: Directory) -> Self {
        Self {
            connection: Connection::new(Arc::new(config), Arc::new(directory), origin(), Mono::ZERO),
            buffer: BytesMut::new(),
            request: LoginRequest {
                transit: false,
                more: false,
                current: S,
                next: S,
                version_max: 0,
                version_min: 0,
                isid: Isid([0x40, 0, 1, 0x37, 0, 0]),
                tsih: 0,
                itt: 5,
                cid: 1,
                numbers: Numbers {
                    cmd_sn: Sn(0xffff_ffff),
                    exp_stat_sn: Sn(0),
                },
            },
            fatal: None,
            accept: true,
        }
    }

    pub(super) fn usual() -> Self {
        Self::new(PortalConfig::new(TpgId(1)), directory())
    }

    /// Sends a request with these keys, one a line; with a next stage the T bit is set.
    pub(super) fn say(&mut self, current: Stage, next: Option<Stage>, keys: &str) -> Option<Answer> {
        self.request.current = current;
        self.request.transit = next.is_some();
        self.request.next = next.unwrap_or(current);
        let text: String = keys
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .flat_map(|line| [line, "\0"])
            .collect();
        self.send(self.request.emit(), text.into())
    }

    pub(super) fn send(&mut self, bhs: Bhs, data: Bytes) -> Option<Answer> {
        let mut pdu = Outgoing::new(bhs, &[], data.into(), Digests::default());
        self.buffer.extend_from_slice(&pdu.copy_to_bytes(pdu.remaining()));
        self.fatal = self.connection.receive(&mut self.buffer, Mono::ZERO).err();
        if self.accept {
            self.connection.accept_login(Tsih(3), Mono::ZERO);
        }
        self.answer()
    }

    pub(super) fn answer(&mut self) -> Option<Answer> {
        let mut pdu = self.connection.poll_transmit()?;
        let mut bytes = BytesMut::from(&pdu.copy_to_bytes(pdu.remaining())[..]);
        let limits = FrameLimits { data: 8192, ahs: 0 };
        let frame = Framer::new(limits).next(&mut bytes).unwrap().unwrap();
        assert_eq!(frame.bhs.opcode(), Opcode::LOGIN_RESPONSE);
        let response = LoginResponse::parse(&frame.bhs);
        assert_eq!(response.isid, self.request.isid);
        assert_eq!(response.itt, self.request.itt);
        // Each response takes a StatSN, and the next request acknowledges it.
        assert_eq!(response.numbers.stat_sn, self.request.numbers.exp_stat_sn);
        self.request.numbers.exp_stat_sn = response.numbers.stat_sn.next();
        let keys = crate::text::parse(&frame.data).unwrap();
        Some(Answer {
            status: response.status,
            transit: response.transit.then_some(response.next),
            keys: keys
                .into_iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
        })
    }

    /// Says it and wants exactly this answer, one key a line.
    pub(super) fn expect(&mut self, current: Stage, next: Option<Stage>, keys: &str, wanted: &str) {
        let answer = self.say(current, next, keys);
        let wanted = Answer {
            status: LoginStatus::SUCCESS,
            transit: next,
            keys: wanted
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
        };
        assert_eq!(answer, Some(wanted), "{:?}", self.fatal);
    }

    pub(super) fn refused(&mut self, current: Stage, next: Option<Stage>, keys: &str, status: LoginStatus) {
        let answer = self.say(current, next, keys);
        assert_eq!(
            answer.map(|answer| (answer.status, answer.transit)),
            Some((status, None))
        );
        assert!(
            matches!(&self.fatal, Some(Fatal::LoginRefused { status: sent, .. }) if *sent == status),
            "{:?}",
            self.fatal
        );
        assert!(self.connection.is_finished());
    }

    pub(super) fn parameters(&self) -> Parameters {
        self.connection.parameters().unwrap().clone()
    }
}
