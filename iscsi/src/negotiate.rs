//! Negotiation of keys (RFC 7143, 6.2 and section 13), the acceptor's side, and what it came to.
//!
//! Every key of section 13 is known, with its limits. What the other side sends is answered with a value, `Reject` (the value
//! makes no sense for the
//! key), `NotUnderstood` (the key is not known), or not at all (declarations).

use crate::frame::Digests;
use crate::target::{DigestPolicy, Offer};

/// Bounds of the lengths that are negotiated, in bytes (RFC 7143, 13.12 to 13.14).
const LENGTHS: std::ops::RangeInclusive<u32> = 512..=0x00ff_ffff;

/// What the negotiation came to. Lengths in bytes, times in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// HeaderDigest and DataDigest.
    pub digests: Digests,
    /// Our MaxRecvDataSegmentLength: what the peer may send.
    pub receive_max: u32,
    /// The peer's MaxRecvDataSegmentLength: what we may send.
    pub send_max: u32,
    /// MaxBurstLength.
    pub max_burst_length: u32,
    /// FirstBurstLength.
    pub first_burst_length: u32,
    /// InitialR2T.
    pub initial_r2t: bool,
    /// ImmediateData.
    pub immediate_data: bool,
    /// MaxOutstandingR2T.
    pub max_outstanding_r2t: u32,
    /// DefaultTime2Wait.
    pub time2wait: u16,
    /// DefaultTime2Retain.
    pub time2retain: u16,
}

impl Default for Parameters {
    /// The defaults of RFC 7143, section 13.
    fn default() -> Self {
        Self {
            digests: Digests::default(),
            receive_max: 8192,
            send_max: 8192,
            max_burst_length: 262_144,
            first_burst_length: 65_536,
            initial_r2t: true,
            immediate_data: true,
            max_outstanding_r2t: 1,
            time2wait: 2,
            time2retain: 20,
        }
    }
}

impl Parameters {
    /// Takes a result in, as the side that offered hears it: the acceptor's answer is the value in force, and its
    /// MaxRecvDataSegmentLength is what may
    /// be sent to it. Answers that are no values, and keys without a parameter, change nothing.
    pub fn take_answer(&mut self, key: &str, value: &str) {
        let Some(key) = Key::from_name(key) else { return };
        let length = || number(value).filter(|length| LENGTHS.contains(length));
        match key {
            Key::HeaderDigest => self.digests.header = value == "CRC32C",
            Key::DataDigest => self.digests.data = value == "CRC32C",
            Key::MaxRecvDataSegmentLength => self.send_max = length().unwrap_or(self.send_max),
            Key::MaxBurstLength => self.max_burst_length = length().unwrap_or(self.max_burst_length),
            Key::FirstBurstLength => self.first_burst_length = length().unwrap_or(self.first_burst_length),
            Key::InitialR2T => self.initial_r2t = boolean(value).unwrap_or(self.initial_r2t),
            Key::ImmediateData => self.immediate_data = boolean(value).unwrap_or(self.immediate_data),
            Key::MaxOutstandingR2T => {
                self.max_outstanding_r2t = number(value).unwrap_or(self.max_outstanding_r2t).max(1);
            }
            _ => {}
        }
    }
}

macro_rules! keys {
    ($($name:ident = $text:literal,)*) => {
        /// A key that is known here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Key {
            $($name,)*
        }

        impl Key {
            /// The key of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The key's name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// All keys.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

keys! {
    AuthMethod = "AuthMethod",
    HeaderDigest = "HeaderDigest",
    DataDigest = "DataDigest",
    MaxConnections = "MaxConnections",
    SendTargets = "SendTargets",
    TargetName = "TargetName",
    InitiatorName = "InitiatorName",
    TargetAlias = "TargetAlias",
    InitiatorAlias = "InitiatorAlias",
    TargetAddress = "TargetAddress",
    TargetPortalGroupTag = "TargetPortalGroupTag",
    InitialR2T = "InitialR2T",
    ImmediateData = "ImmediateData",
    MaxRecvDataSegmentLength = "MaxRecvDataSegmentLength",
    MaxBurstLength = "MaxBurstLength",
    FirstBurstLength = "FirstBurstLength",
    DefaultTime2Wait = "DefaultTime2Wait",
    DefaultTime2Retain = "DefaultTime2Retain",
    MaxOutstandingR2T = "MaxOutstandingR2T",
    DataPduInOrder = "DataPDUInOrder",
    DataSequenceInOrder = "DataSequenceInOrder",
    ErrorRecoveryLevel = "ErrorRecoveryLevel",
    SessionType = "SessionType",
    TaskReporting = "TaskReporting",
    IscsiProtocolLevel = "iSCSIProtocolLevel",
    IfMarker = "IFMarker",
    OfMarker = "OFMarker",
    IfMarkInt = "IFMarkInt",
    OfMarkInt = "OFMarkInt",
    ChapAlgorithm = "CHAP_A",
    ChapIdentifier = "CHAP_I",
    ChapChallenge = "CHAP_C",
    ChapName = "CHAP_N",
    ChapResponse = "CHAP_R",
}

/// What is said to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// This value.
    Value(String),
    /// Nothing: a declaration.
    Silence,
    /// There is no common value, and this side insists: the login fails.
    Impossible(&'static str),
}

impl Reply {
    fn reject() -> Self {
        Self::Value("Reject".to_owned())
    }

    /// The answer to a key that is not known (RFC 7143, 6.2).
    pub fn not_understood() -> Self {
        Self::Value("NotUnderstood".to_owned())
    }
}

/// A number: decimal, or hexadecimal behind 0x (RFC 7143, 6.1).
pub fn number(value: &str) -> Option<u32> {
    let hex = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((value, 10), |digits| (digits, 16));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// `Yes` or `No`.
pub fn boolean(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

const fn yes_no(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

/// The acceptor's side of operational negotiation.
#[derive(Debug)]
pub struct Negotiation {
    offer: Offer,
    parameters: Parameters,
    answered: Vec<(Key, String)>,
}

/// A key was negotiated twice with different values (RFC 7143, 6.3: at most once in a login).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} is negotiated twice", .0.name())]
pub struct Twice(pub Key);

impl Negotiation {
    /// Starts with the defaults.
    pub fn new(offer: Offer) -> Self {
        Self {
            offer,
            parameters: Parameters::default(),
            answered: Vec::new(),
        }
    }

    /// Answers the operational keys of one text, in any order that they come.
    ///
    /// # Errors
    /// [`Twice`].
    pub fn answer(&mut self, pairs: &[(Key, &str)]) -> Result<Vec<(Key, Reply)>, Twice> {
        let mut replies = Vec::with_capacity(pairs.len());
        // FirstBurstLength may not exceed MaxBurstLength (13.14), so it is settled last.
        let (last, first): (Vec<_>, Vec<_>) =
            pairs.iter().partition(|(key, _)| *key == Key::FirstBurstLength);
        for (key, value) in first.into_iter().chain(last) {
            let before = self.answered.iter().find(|(known, _)| *known == key);
            match before {
                Some((_, same)) if same == value => continue,
                Some(_) => return Err(Twice(key)),
                None => self.answered.push((key, (*value).to_owned())),
            }
            replies.push((key, self.reply(key, value)));
        }
        Ok(replies)
    }

    fn reply(&mut self, key: Key, value: &str) -> Reply {
        match key {
            Key::HeaderDigest => self.digest(value, self.offer.header_digest, |digests| &mut digests.header),
            Key::DataDigest => self.digest(value, self.offer.data_digest, |digests| &mut digests.data),
            Key::MaxRecvDataSegmentLength => self.declare_length(value),
            Key::MaxBurstLength => {
                let ours = self.offer.max_burst_length;
                lower(value, ours, &LENGTHS, &mut self.parameters.max_burst_length)
            }
            Key::FirstBurstLength => {
                let ours = self
                    .offer
                    .first_burst_length
                    .min(self.parameters.max_burst_length);
                lower(value, ours, &LENGTHS, &mut self.parameters.first_burst_length)
            }
            Key::MaxOutstandingR2T => {
                let ours = u32::from(self.offer.max_outstanding_r2t);
                lower(
                    value,
                    ours,
                    &(1..=65_535),
                    &mut self.parameters.max_outstanding_r2t,
                )
            }
            Key::InitialR2T => {
                let ours = self.offer.initial_r2t;
                choose(value, |theirs| ours || theirs, &mut self.parameters.initial_r2t)
            }
            Key::ImmediateData => {
                let ours = self.offer.immediate_data;
                choose(
                    value,
                    |theirs| ours && theirs,
                    &mut self.parameters.immediate_data,
                )
            }
            _ => self.fixed_reply(key, value),
        }
    }

    /// Keys on whose value nothing depends here but the answer.
    fn fixed_reply(&mut self, key: Key, value: &str) -> Reply {
        let mut unused = 0;
        match key {
            Key::MaxConnections => lower(value, 1, &(1..=65_535), &mut unused),
            Key::ErrorRecoveryLevel => lower(value, 0, &(0..=2), &mut unused),
            // Level 1 is RFC 7143 itself (13.24).
            Key::IscsiProtocolLevel => lower(value, 1, &(0..=31), &mut unused),
            Key::DataPduInOrder | Key::DataSequenceInOrder => choose(value, |_| true, &mut true),
            Key::DefaultTime2Wait => match number(value).and_then(|wait| u16::try_from(wait).ok()) {
                Some(theirs @ 0..=3600) => {
                    self.parameters.time2wait = theirs.max(self.offer.default_time2wait);
                    Reply::Value(self.parameters.time2wait.to_string())
                }
                _ => Reply::reject(),
            },
            Key::DefaultTime2Retain => match number(value).and_then(|retain| u16::try_from(retain).ok()) {
                Some(theirs @ 0..=3600) => {
                    self.parameters.time2retain = theirs.min(self.offer.default_time2retain);
                    Reply::Value(self.parameters.time2retain.to_string())
                }
                _ => Reply::reject(),
            },
            // The reporting of RFC 3720 is the default and what a single connection gives anyway (13.23).
            Key::TaskReporting => pick(value, &["RFC3720"]),
            // Markers are gone; "No" and "Reject" are the answers that 13.25 leaves, and no implementation trips over "No".
            Key::IfMarker | Key::OfMarker => Reply::Value("No".to_owned()),
            Key::IfMarkInt | Key::OfMarkInt => Reply::reject(),
            // Sent by the wrong side, or in the wrong phase.
            _ => Reply::reject(),
        }
    }

    fn digest(
        &mut self,
        value: &str,
        policy: DigestPolicy,
        field: impl FnOnce(&mut Digests) -> &mut bool,
    ) -> Reply {
        let reply = match policy {
            DigestPolicy::AsInitiatorPrefers => pick(value, &["CRC32C", "None"]),
            DigestPolicy::Never => pick(value, &["None"]),
            DigestPolicy::Always => pick(value, &["CRC32C"]),
        };
        let on = reply == Reply::Value("CRC32C".to_owned());
        if policy == DigestPolicy::Always && !on {
            return Reply::Impossible("CRC32C digests are required");
        }
        *field(&mut self.parameters.digests) = on;
        reply
    }

    fn declare_length(&mut self, value: &str) -> Reply {
        match number(value).filter(|length| LENGTHS.contains(length)) {
            Some(length) => {
                self.parameters.send_max = length;
                Reply::Silence
            }
            None => Reply::reject(),
        }
    }

    /// Declares our own MaxRecvDataSegmentLength; gives the value.
    pub fn declare(&mut self) -> u32 {
        self.parameters.receive_max = self.offer.max_recv_data_segment_length;
        self.parameters.receive_max
    }

    /// What it came to. A digest that is required but was not negotiated makes it fail.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn finish(&self) -> Result<Parameters, &'static str> {
        let digests = self.parameters.digests;
        if self.offer.header_digest == DigestPolicy::Always && !digests.header
            || self.offer.data_digest == DigestPolicy::Always && !digests.data
        {
            return Err("CRC32C digests are required");
        }
        let mut parameters = self.parameters.clone();
        parameters.first_burst_length = parameters.first_burst_length.min(parameters.max_burst_length);
        Ok(parameters)
    }
}

/// The lower of both sides' numbers.
fn lower(value: &str, ours: u32, range: &std::ops::RangeInclusive<u32>, result: &mut u32) -> Reply {
    match number(value).filter(|theirs| range.contains(theirs)) {
        Some(theirs) => {
            *result = theirs.min(ours);
            Reply::Value(result.to_string())
        }
        None => Reply::reject(),
    }
}

/// A boolean function of both sides' values.
fn choose(value: &str, function: impl FnOnce(bool) -> bool, result: &mut bool) -> Reply {
    match boolean(value) {
        Some(theirs) => {
            *result = function(theirs);
            Reply::Value(yes_no(*result).to_owned())
        }
        None => Reply::reject(),
    }
}

/// The first value of a list that this side supports (RFC 7143, 6.2.1).
pub fn pick(list: &str, supported: &[&str]) -> Reply {
    list.split(',')
        .find(|value| supported.contains(value))
        .map_or_else(Reply::reject, |value| Reply::Value(value.to_owned()))
}

#[cfg(test)]
#[path = "negotiate_test.rs"]
mod tests;
