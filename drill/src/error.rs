//! What a command can come to, other than GOOD.

use std::fmt;
use std::io;

/// Sense key, additional sense code and qualifier (SPC-5, 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SenseCode {
    /// Sense key, 0 to 15.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
}

impl SenseCode {
    /// 06/2A/06: the port groups' states changed.
    pub const GROUP_STATE_CHANGED: Self = Self::new(0x06, 0x2a, 0x06);
    /// 06/29/00: power on, reset, or a new nexus.
    pub const RESET: Self = Self::new(0x06, 0x29, 0x00);
    /// 02/04/0A: the port group is in transition; the command may be sent again.
    pub const TRANSITION: Self = Self::new(0x02, 0x04, 0x0a);
    /// 02/04/0B: the port group is on standby; another path may serve.
    pub const STANDBY: Self = Self::new(0x02, 0x04, 0x0b);
    /// 02/04/0C: the port group is unavailable; another path may serve.
    pub const UNAVAILABLE: Self = Self::new(0x02, 0x04, 0x0c);

    /// 07/27/07: a thin unit's write found no space.
    pub const SPACE_ALLOCATION_FAILED: Self = Self::new(0x07, 0x27, 0x07);
    /// 0E/1D/00: COMPARE AND WRITE or VERIFY found something else.
    pub const MISCOMPARE: Self = Self::new(0x0e, 0x1d, 0x00);

    /// From its three parts.
    pub const fn new(key: u8, asc: u8, ascq: u8) -> Self {
        Self { key, asc, ascq }
    }

    /// What it says, in words, for the codes that failovers bring about.
    pub const fn words(self) -> Option<&'static str> {
        let words = match (self.key, self.asc, self.ascq) {
            (0x06, 0x2a, 0x06) => "the port groups' states changed",
            (0x06, 0x29, 0x07) => "the nexus was lost",
            (0x06, 0x29, _) => "power on, reset or a new nexus",
            (0x06, 0x2f, _) => "commands were cleared by another initiator",
            (0x06, 0x3f, 0x0e) => "the LUNs have changed",
            (0x02, 0x04, 0x0a) => "the port group is in transition",
            (0x02, 0x04, 0x0b) => "the port group is on standby",
            (0x02, 0x04, 0x0c) => "the port group is unavailable",
            (0x02, 0x04, 0x01) => "the unit becomes ready",
            (0x03, ..) => "medium error",
            (0x04, ..) => "hardware error",
            (0x0b, ..) => "aborted command",
            (0x05, 0x25, _) => "no such logical unit",
            (0x0e, ..) => "miscompare",
            _ => return None,
        };
        Some(words)
    }

    /// UNIT ATTENTION: it was told, and the command may be sent again at once.
    pub const fn is_unit_attention(self) -> bool {
        self.key == 0x06
    }

    /// Reads fixed or descriptor format, current or deferred (SPC-5, 4.4.2 and 4.4.3); `None` for anything else.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let byte = |at: usize| data.get(at).copied();
        match byte(0)? & 0x7f {
            0x70 | 0x71 => Some(Self::new(
                byte(2)? & 0xf,
                byte(12).unwrap_or(0),
                byte(13).unwrap_or(0),
            )),
            0x72 | 0x73 => Some(Self::new(byte(1)? & 0xf, byte(2)?, byte(3)?)),
            _ => None,
        }
    }
}

impl fmt::Display for SenseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X}/{:02X}/{:02X}", self.key, self.asc, self.ascq)
    }
}

/// Why a command, a login or a task management function came to nothing.
///
/// [`Error::Lost`] and [`Error::Timeout`] leave open whether the command took effect; the others say that it did not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No TCP connection.
    #[error("cannot connect to {portal}: {source}")]
    Connect {
        /// `HOST:PORT`.
        portal: String,
        /// What the system said.
        source: io::Error,
    },
    /// The target refused the login (RFC 7143, 11.13.5).
    #[error("login refused with status {class:02x}{detail:02x}")]
    LoginRefused {
        /// Status class.
        class: u8,
        /// Status detail.
        detail: u8,
    },
    /// The target sent the login elsewhere (RFC 7143, 11.13.5), where this was not followed.
    #[error("the target sends the login to {0}")]
    Redirected(holdfast_iscsi::initiator::Redirect),
    /// CHECK CONDITION.
    #[error("CHECK CONDITION, sense {0}")]
    CheckCondition(SenseCode),
    /// CHECK CONDITION whose sense data cannot be read, or another status (SAM-5, 5.3.1).
    #[error("SCSI status {0:#04x}")]
    Status(u8),
    /// Another iSCSI response than "completed at target" (RFC 7143, 11.4.3).
    #[error("iSCSI response {0:#04x}")]
    Response(u8),
    /// The target answered a PDU with Reject (RFC 7143, 11.17).
    #[error("the target rejected a PDU, reason {0:#04x}")]
    Rejected(u8),
    /// The connection ended before the answer came.
    #[error("connection lost: {0}")]
    Lost(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
    /// The target broke the protocol.
    #[error("the target broke the protocol: {0}")]
    Protocol(String),
    /// The caller asked for something that cannot be sent.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// Whether the command may or may not have taken effect.
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Timeout(_) | Self::Protocol(_))
    }

    /// What it is counted as: the same for the same answer, whatever the portal and the moment.
    pub fn kind(&self) -> String {
        match self {
            Self::Connect { .. } => "no connection".to_owned(),
            Self::LoginRefused { class, detail } => format!("login refused, status {class:02x}{detail:02x}"),
            Self::Redirected(_) => "login sent elsewhere".to_owned(),
            Self::CheckCondition(sense) => match sense.words() {
                Some(words) => format!("sense {sense} ({words})"),
                None => format!("sense {sense}"),
            },
            Self::Status(0x08) => "BUSY".to_owned(),
            Self::Status(0x18) => "RESERVATION CONFLICT".to_owned(),
            Self::Status(0x28) => "TASK SET FULL".to_owned(),
            Self::Status(0x40) => "TASK ABORTED".to_owned(),
            Self::Status(status) => format!("SCSI status {status:#04x}"),
            Self::Response(response) => format!("iSCSI response {response:#04x}"),
            Self::Rejected(reason) => format!("Reject, reason {reason:#04x}"),
            Self::Lost(_) => "connection lost".to_owned(),
            Self::Timeout(_) => "no answer in time".to_owned(),
            Self::Protocol(_) => "protocol broken".to_owned(),
            Self::Usage(_) => "cannot be sent".to_owned(),
        }
    }

    /// The sense code, for CHECK CONDITION.
    pub const fn sense(&self) -> Option<SenseCode> {
        match self {
            Self::CheckCondition(sense) => Some(*sense),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sense_is_read_in_both_formats() {
        let mut fixed = [0; 18];
        fixed[0] = 0x70;
        fixed[2] = 0x06;
        fixed[12] = 0x2a;
        fixed[13] = 0x06;
        assert_eq!(SenseCode::parse(&fixed), Some(SenseCode::GROUP_STATE_CHANGED));
        assert_eq!(
            SenseCode::parse(&[0x72, 0x02, 0x04, 0x0a]),
            Some(SenseCode::TRANSITION)
        );
        assert_eq!(SenseCode::parse(&[0x72, 0x02]), None);
        assert_eq!(SenseCode::parse(&[]), None);
        assert_eq!(SenseCode::parse(&[0; 18]), None);
        assert_eq!(SenseCode::STANDBY.to_string(), "02/04/0B");
    }

    #[test]
    fn the_same_answers_are_of_one_kind() {
        let lost = |text: &str| Error::Lost(text.to_owned()).kind();
        assert_eq!(lost("by one portal"), lost("by another"));
        let sense = Error::CheckCondition(SenseCode::TRANSITION).kind();
        assert_eq!(sense, "sense 02/04/0A (the port group is in transition)");
        assert_ne!(sense, Error::CheckCondition(SenseCode::STANDBY).kind());
        assert_eq!(Error::Status(0x28).kind(), "TASK SET FULL");
        assert_eq!(
            Error::CheckCondition(SenseCode::new(5, 0x24, 0)).kind(),
            "sense 05/24/00"
        );
    }
}
