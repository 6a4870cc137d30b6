//! Text Requests in the full feature phase (RFC 7143, 11.10): SendTargets and what else may be asked.

use bytes::Bytes;
use holdfast_types::IscsiName;

use super::link::Link;
use super::task::next_ttt;
use super::window::Window;
use crate::directory::{Directory, TargetEntry};
use crate::negotiate::{Key, Parameters, number};
use crate::pdu::{NO_TAG, TextRequest, TextResponse};
use crate::session::{LoginRequested, SessionKind};
use crate::text::{self, Assembler, TextError};

/// Longest text request in bytes, put together from its PDUs.
const REQUEST_MAX: usize = 16 << 10;
/// Most of an answer that goes into one PDU, in bytes, whatever the initiator can take.
const SEGMENT_MAX: usize = 256 << 10;

/// The text negotiation of a session: one at a time.
#[derive(Debug)]
pub(super) struct TextExchange {
    request: Assembler,
    answer: Bytes,
    /// Tags of the negotiation under way.
    current: Option<(u32, u32)>,
    ttt: u32,
}

/// A Text Request that the protocol does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TextProblem {
    #[error("{0}")]
    Text(#[from] TextError),
    #[error("text request that goes on from no response")]
    Tag,
    #[error("F bit with C bit")]
    Flags,
}

impl TextProblem {
    /// For [`crate::error::Fatal::Protocol`].
    pub(super) const fn problem(self) -> &'static str {
        match self {
            Self::Text(TextError::TooLong(_) | TextError::TooMany) => "text is too long",
            Self::Text(_) => "text cannot be read",
            Self::Tag => "text request that goes on from no response",
            Self::Flags => "F bit with C bit",
        }
    }
}

impl TextExchange {
    pub(super) const fn new() -> Self {
        Self {
            request: Assembler::new(REQUEST_MAX),
            answer: Bytes::new(),
            current: None,
            ttt: 0,
        }
    }

    /// Answers one Text Request.
    pub(super) fn receive(
        &mut self,
        pdu: &TextRequest,
        data: &[u8],
        login: &LoginRequested,
        directory: &Directory,
        parameters: &mut Parameters,
    ) -> Result<(TextResponse, Bytes), TextProblem> {
        if pdu.last && pdu.more {
            return Err(TextProblem::Flags);
        }
        if pdu.ttt == NO_TAG {
            // A new negotiation; what was left of an older one is void (11.10.4).
            *self = Self {
                ttt: self.ttt,
                ..Self::new()
            };
        } else if self.current != Some((pdu.itt, pdu.ttt)) {
            return Err(TextProblem::Tag);
        }
        self.request.push(data)?;
        if !pdu.more {
            let pairs = self.request.finish()?;
            let mut answer = self.answer.to_vec();
            for (key, value) in &pairs {
                reply(&mut answer, key, value, login, directory, parameters);
            }
            self.answer = answer.into();
        }
        let segment_max = usize::try_from(parameters.send_max)
            .unwrap_or(SEGMENT_MAX)
            .min(SEGMENT_MAX);
        let segment = if pdu.more {
            Bytes::new()
        } else {
            self.answer.split_to(segment_max.min(self.answer.len()))
        };
        let more = !pdu.more && !self.answer.is_empty();
        let last = pdu.last && !more;
        self.ttt = next_ttt(self.ttt);
        self.current = (!last).then_some((pdu.itt, self.ttt));
        let response = TextResponse {
            last,
            more,
            lun: 0,
            itt: pdu.itt,
            ttt: if last { NO_TAG } else { self.ttt },
            numbers: crate::pdu::TargetNumbers::default(),
        };
        Ok((response, segment))
    }
}

/// Sends a response with its numbers.
pub(super) fn send(link: &mut Link, window: &Window, mut response: TextResponse, segment: Bytes) {
    response.numbers = link.take(window);
    link.send_unasked(response.emit(), segment.into());
}

/// Answers one key. Only SendTargets (13.3) and MaxRecvDataSegmentLength (13.12) belong here.
fn reply(
    answer: &mut Vec<u8>,
    key: &str,
    value: &str,
    login: &LoginRequested,
    directory: &Directory,
    parameters: &mut Parameters,
) {
    match Key::from_name(key) {
        Some(Key::SendTargets) => send_targets(answer, value, login, directory),
        Some(Key::MaxRecvDataSegmentLength) => match number(value) {
            Some(length @ 512..=0x00ff_ffff) => parameters.send_max = length,
            _ => text::put(answer, key, "Reject"),
        },
        Some(_) => text::put(answer, key, "Reject"),
        None => text::put(answer, key, "NotUnderstood"),
    }
}

/// SendTargets (RFC 7143, appendix on SendTargets): `All` in discovery sessions, a name, or nothing, which means the session's own target.
fn send_targets(answer: &mut Vec<u8>, value: &str, login: &LoginRequested, directory: &Directory) {
    let one = |answer: &mut Vec<u8>, wanted: &IscsiName| {
        directory
            .visible(&login.initiator, login.peer)
            .filter(|(name, _)| *name == wanted)
            .for_each(|(name, entry)| put_target(answer, name, entry));
    };
    match (value, &login.kind) {
        ("All", SessionKind::Discovery) => directory
            .visible(&login.initiator, login.peer)
            .for_each(|(name, entry)| put_target(answer, name, entry)),
        ("", SessionKind::Normal { target }) => one(answer, target),
        ("All", SessionKind::Normal { .. }) | ("", SessionKind::Discovery) => {
            text::put(answer, Key::SendTargets.name(), "Reject");
        }
        (name, kind) => match (name.parse::<IscsiName>(), kind) {
            (Ok(name), SessionKind::Discovery) => one(answer, &name),
            (Ok(name), SessionKind::Normal { target }) if name == *target => one(answer, target),
            _ => text::put(answer, Key::SendTargets.name(), "Reject"),
        },
    }
}

/// The portals of all nodes, so that an initiator that reached one of them finds the others.
fn put_target(answer: &mut Vec<u8>, name: &IscsiName, entry: &TargetEntry) {
    text::put(answer, Key::TargetName.name(), name.as_str());
    for portal in &entry.portals {
        // IPv6 addresses print in brackets, as 13.8 wants them.
        let address = format!("{},{}", portal.address, portal.tpg.value());
        text::put(answer, Key::TargetAddress.name(), &address);
    }
}
