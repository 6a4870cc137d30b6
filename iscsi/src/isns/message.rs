//! iSNS messages, as far as a target needs them (RFC 4171, 5 and 6).

use std::net::{IpAddr, SocketAddr};

use holdfast_types::{IscsiName, TpgId};

/// Bytes of a header (RFC 4171, 5.1).
pub const HEADER_BYTES: usize = 12;
/// iSNSP version.
const VERSION: u16 = 1;
/// What is set in the function of an answer.
const ANSWER: u16 = 0x8000;
/// Message bodies are no longer: their length has 16 bits and is a multiple of 4.
const BODY_MAX: usize = 65_532;

// Flags (RFC 4171, 5.1.4): from a client; replaces; the last and the first PDU of its message.
const FROM_CLIENT: u16 = 0x8000;
const REPLACE: u16 = 0x1000;
const LAST: u16 = 0x0800;
const FIRST: u16 = 0x0400;

/// What a message asks for (RFC 4171, 4.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Function {
    /// DevAttrReg.
    Register = 1,
    /// DevDereg.
    Deregister = 4,
}

// Attributes (RFC 4171, 6.1).
const DELIMITER: u32 = 0;
const ENTITY: u32 = 1;
const ENTITY_PROTOCOL: u32 = 2;
const REGISTRATION_PERIOD: u32 = 6;
const PORTAL_ADDRESS: u32 = 16;
const PORTAL_PORT: u32 = 17;
const ISCSI_NAME: u32 = 32;
const ISCSI_NODE_TYPE: u32 = 33;
const GROUP_PORTAL_ADDRESS: u32 = 49;
const GROUP_PORTAL_PORT: u32 = 50;
const GROUP_TAG: u32 = 51;

/// Entity Protocol: iSCSI (6.2.2).
const PROTOCOL_ISCSI: u32 = 2;
/// iSCSI Node Type: a target (6.4.2).
const NODE_TARGET: u32 = 1;

/// A message that is being put together.
#[derive(Debug)]
pub(super) struct Message {
    function: Function,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// Registers within an entity. `source` is a target of ours; with `replace` the entity is registered anew, and all that it held is
    /// gone.
    pub(super) fn register(source: &IscsiName, entity: &str, replace: bool) -> Self {
        let flags = if replace { REPLACE } else { 0 };
        let mut message = Self::new(Function::Register, flags, source);
        message.put_text(ENTITY, entity);
        message.put(DELIMITER, &[]);
        // The key has to be among the operating attributes, too (5.6.5.1).
        message.put_text(ENTITY, entity);
        message
    }

    /// Takes out of the server what is named behind it.
    pub(super) fn deregister(source: &IscsiName) -> Self {
        let mut message = Self::new(Function::Deregister, 0, source);
        message.put(DELIMITER, &[]);
        message
    }

    fn new(function: Function, flags: u16, source: &IscsiName) -> Self {
        let mut message = Self {
            function,
            flags,
            body: Vec::new(),
        };
        message.put_text(ISCSI_NAME, source.as_str());
        message
    }

    /// What the entity is, and the seconds after which it may be forgotten unless it is heard of again.
    pub(super) fn put_entity_facts(&mut self, period: u32) {
        self.put_number(ENTITY_PROTOCOL, PROTOCOL_ISCSI);
        self.put_number(REGISTRATION_PERIOD, period);
    }

    /// The entity itself, to be taken out.
    pub(super) fn put_entity(&mut self, entity: &str) {
        self.put_text(ENTITY, entity);
    }

    /// A portal, or its name.
    pub(super) fn put_portal(&mut self, portal: SocketAddr) {
        self.put_address(PORTAL_ADDRESS, portal.ip());
        self.put_number(PORTAL_PORT, portal.port().into());
    }

    /// A target's name.
    pub(super) fn put_name(&mut self, target: &IscsiName) {
        self.put_text(ISCSI_NAME, target.as_str());
    }

    /// A target with the portals that it has, and their groups (5.6.5.1: PGT behind the node, and the portals that it holds for).
    pub(super) fn put_target<'a>(
        &mut self,
        target: &IscsiName,
        portals: impl Iterator<Item = (&'a SocketAddr, &'a TpgId)>,
    ) {
        self.put_name(target);
        self.put_number(ISCSI_NODE_TYPE, NODE_TARGET);
        for (portal, group) in portals {
            self.put_number(GROUP_TAG, group.value().into());
            self.put_address(GROUP_PORTAL_ADDRESS, portal.ip());
            self.put_number(GROUP_PORTAL_PORT, portal.port().into());
        }
    }

    /// How long it is so far, in bytes, without its header.
    pub(super) const fn len(&self) -> usize {
        self.body.len()
    }

    /// The message as it is sent: in one PDU. `None` where it is too long for that.
    pub(super) fn emit(self, transaction: u16) -> Option<Vec<u8>> {
        let length = u16::try_from(self.body.len())
            .ok()
            .filter(|length| usize::from(*length) <= BODY_MAX)?;
        let flags = FROM_CLIENT | FIRST | LAST | self.flags;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.body.len());
        for field in [VERSION, self.function as u16, length, flags, transaction, 0] {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
        bytes.extend_from_slice(&self.body);
        Some(bytes)
    }

    pub(super) const fn function(&self) -> Function {
        self.function
    }

    fn put(&mut self, tag: u32, value: &[u8]) {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.body.extend_from_slice(&tag.to_be_bytes());
        self.body.extend_from_slice(&length.to_be_bytes());
        self.body.extend_from_slice(value);
    }

    fn put_number(&mut self, tag: u32, value: u32) {
        self.put(tag, &value.to_be_bytes());
    }

    /// Texts end with a zero byte, and with more of them at a multiple of 4; all of it counts as its length (5.4).
    fn put_text(&mut self, tag: u32, text: &str) {
        let mut value = text.as_bytes().to_vec();
        value.resize((value.len() / 4 + 1) * 4, 0);
        self.put(tag, &value);
    }

    /// Addresses have 16 bytes, IPv4 ones mapped into IPv6 (6.3.1).
    fn put_address(&mut self, tag: u32, address: IpAddr) {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        self.put(tag, &address.octets());
    }
}

/// Why what a server said is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Fewer bytes than the message has.
    #[error("the answer is cut short")]
    Short,
    /// Another version of the protocol.
    #[error("the answer is of version {0}")]
    Version(u16),
    /// It does not say how the request went.
    #[error("the answer has no status")]
    NoStatus,
}

/// How many bytes follow this header.
///
/// # Errors
/// [`AnswerError`]: it is not a header that makes sense.
pub fn body_length(header: &[u8; HEADER_BYTES]) -> Result<usize, AnswerError> {
    let version = field(header, 0).ok_or(AnswerError::Short)?;
    if version != VERSION {
        return Err(AnswerError::Version(version));
    }
    field(header, 4).map(usize::from).ok_or(AnswerError::Short)
}

fn field(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// What a server said: the first PDU of its answer, which has all that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The function that it answers, with the bit that makes it an answer.
    pub function: u16,
    /// The transaction that it answers.
    pub transaction: u16,
    /// 0, or what went wrong (RFC 4171, 5.4.1).
    pub status: u32,
    /// Seconds after which the server forgets the entity unless it hears of it; 0 for never. `None` where it does not say.
    pub period: Option<u32>,
}

impl Answer {
    /// Reads a PDU, header and all. Attributes that are cut short end the reading: a longer answer goes on in the next PDU, which nobody
    /// needs.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, AnswerError> {
        let (header, rest) = bytes.split_first_chunk().ok_or(AnswerError::Short)?;
        let body = rest.get(..body_length(header)?).ok_or(AnswerError::Short)?;
        let status = word(body, 0).ok_or(AnswerError::NoStatus)?;
        Ok(Self {
            function: field(header, 2).ok_or(AnswerError::Short)?,
            transaction: field(header, 8).ok_or(AnswerError::Short)?,
            status,
            period: attributes(&body[4..]).find_map(|(tag, value)| {
                let is_period = tag == REGISTRATION_PERIOD && value.len() == 4;
                word(value, 0).filter(|_| is_period)
            }),
        })
    }

    /// Whether it is the answer to that request.
    pub(super) const fn is_to(&self, function: Function, transaction: u16) -> bool {
        self.function == ANSWER | function as u16 && self.transaction == transaction
    }

    /// What a status other than 0 means, for people.
    pub(super) const fn meaning(status: u32) -> &'static str {
        match status {
            2 => "message format error",
            3 => "invalid registration",
            6 => "source unknown",
            7 => "source absent",
            8 => "source unauthorized",
            9 => "no such entry",
            10 => "version not supported",
            11 => "internal error",
            12 => "busy",
            13 => "option not understood",
            14 => "invalid update",
            15 => "message not supported",
            22 => "invalid deregistration",
            23 => "registration feature not supported",
            _ => "an error",
        }
    }
}

/// Tags and values, as far as they are whole.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, length) = (word(bytes, 0)?, word(bytes, 4)?);
        let end = usize::try_from(length).ok()?.checked_add(8)?;
        let value = bytes.get(8..end)?;
        bytes = &bytes[end..];
        Some((tag, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> IscsiName {
        "iqn.2026-11.example:disk".parse().unwrap()
    }

    fn answer(function: u16, status: u32, attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + attributes.len()).unwrap();
        let mut bytes = Vec::new();
        for field in [1, function, length, 0x4c00, 7, 0] {
            bytes.extend_from_slice(&u16::to_be_bytes(field));
        }
        bytes.extend_from_slice(&status.to_be_bytes());
        bytes.extend_from_slice(attributes);
        bytes
    }

    /// Byte for byte, as RFC 4171 lays it out.
    #[test]
    fn a_registration_is_written_as_the_rfc_has_it() {
        let mut message = Message::register(&name(), "cluster", true);
        message.put_entity_facts(300);
        let portal = "192.0.2.1:3260".parse().unwrap();
        message.put_portal(portal);
        message.put_target(&name(), [(&portal, &TpgId(2))].into_iter());
        let length = message.len();
        let bytes = message.emit(9).unwrap();
        assert_eq!(bytes.len(), HEADER_BYTES + length);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(bytes[..4], [0, 1, 0, 1]);
        assert_eq!(bytes[6..12], [0x9c, 0, 0, 9, 0, 0]);
        let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
        let name = b"iqn.2026-11.example:disk\0\0\0\0".to_vec();
        let entity = b"cluster\0".to_vec();
        let number = |number: u32| number.to_be_bytes().to_vec();
        let wanted = [
            (32, name.clone()),
            (1, entity.clone()),
            (0, Vec::new()),
            (1, entity),
            (2, number(2)),
            (6, number(300)),
            (16, address.to_vec()),
            (17, number(3260)),
            (32, name),
            (33, number(1)),
            (51, number(2)),
            (49, address.to_vec()),
            (50, number(3260)),
        ];
        let sent: Vec<(u32, Vec<u8>)> = attributes(&bytes[HEADER_BYTES..])
            .map(|(tag, value)| (tag, value.to_vec()))
            .collect();
        assert_eq!(sent, wanted);
    }

    #[test]
    fn what_does_not_fit_into_a_pdu_is_not_sent() {
        let mut message = Message::deregister(&name());
        while message.len() <= BODY_MAX {
            message.put_name(&name());
        }
        assert_eq!(message.emit(1), None);
    }

    #[test]
    fn answers_are_read_as_far_as_they_go() {
        let period = [0, 0, 0, 6, 0, 0, 0, 4, 0, 0, 2, 88];
        let entity = [0, 0, 0, 1, 0, 0, 0, 4, b'a', b'b', b'c', 0];
        let whole = answer(0x8001, 0, &[&entity[..], &period].concat());
        let read = Answer::parse(&whole).unwrap();
        assert!(read.is_to(Function::Register, 7));
        assert!(!read.is_to(Function::Register, 8) && !read.is_to(Function::Deregister, 7));
        assert_eq!((read.status, read.period), (0, Some(600)));
        let error = Answer::parse(&answer(0x8001, 3, &[])).unwrap();
        assert_eq!((error.status, error.period), (3, None));
        // An attribute of more bytes than there are ends the reading.
        let cut = answer(0x8001, 0, &[&[0, 0, 0, 1, 0, 0, 0, 200][..], &period].concat());
        assert_eq!(Answer::parse(&cut).unwrap().period, None);
        let huge = answer(0x8001, 0, &[0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(Answer::parse(&huge).unwrap().period, None);
        for cut in 0..whole.len() {
            assert!(Answer::parse(&whole[..cut]).is_err(), "{cut}");
        }
        let mut old = whole;
        old[1] = 2;
        assert_eq!(Answer::parse(&old), Err(AnswerError::Version(2)));
        let mut empty = answer(0x8001, 0, &[]);
        empty[5] = 0;
        assert_eq!(Answer::parse(&empty), Err(AnswerError::NoStatus));
    }
}
