//! Identifiers and positions: who, which, and how far.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not the identifier it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {wanted}")]
pub struct ParseIdError {
    text: String,
    wanted: &'static str,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number itself, for wire and disk formats.
            pub const fn value(self) -> $inner {
                self.0
            }

            /// The next one.
            ///
            /// # Panics
            /// Never in practice: these counters start near zero, and 2^64 steps do not happen (16-bit ones are
            /// never stepped).
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number! {
    /// A cluster member (data node or witness). Given once by the cluster, never used again after the member has left.
    NodeId(u64)
}
number! {
    /// The reign of one primary over one extent (I2). 0 means that the extent never had a primary.
    Epoch(u64)
}
number! {
    /// The place of a record in an extent's replication log. Consecutive, and it goes on over epochs; 0 is the empty log.
    Lsn(u64)
}
number! {
    /// Version of an extent's in-sync set: raised by every entry that changes primary or set (E2).
    InSyncVersion(u64)
}
number! {
    /// One run of a node's process. Drawn at random at start; an epoch names its primary's incarnation (E1).
    Incarnation(u64)
}
number! {
    /// Counts how often suspicions of a node were cleared (L4). Heartbeats and forwards carry it (L1, F1).
    LeaseGeneration(u64)
}
number! {
    /// A suspicion's id: the Raft log index of the entry that raised it (L3).
    SuspicionId(u64)
}
number! {
    /// Revision of the committed cluster state: the Raft log index of the newest entry that is applied.
    Revision(u64)
}
number! {
    /// Version of a logical unit's committed state (reservations, mode parameters, resets). Raised by every change of it, so a command that
    /// was admitted under an older one is told apart (P1, I13).
    UnitVersion(u64)
}
number! {
    /// Target port group id, which is also the iSCSI target portal group tag (TPGT) of a node's home set of portals. 1 to 65535.
    TpgId(u16)
}
number! {
    /// Relative target port identifier (SPC-5, 3.1.121). 1 to 65535; here equal to the TPGT of the port.
    RelativePortId(u16)
}

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(u128);

        impl $name {
            /// From the 128 bits of a UUID (any version: they are random here).
            pub const fn from_u128(bits: u128) -> Self {
                Self(bits)
            }

            /// The 128 bits.
            pub const fn as_u128(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let b = self.0;
                write!(
                    f,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    b >> 96,
                    (b >> 80) & 0xffff,
                    (b >> 64) & 0xffff,
                    (b >> 48) & 0xffff,
                    b & 0xffff_ffff_ffff
                )
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            /// Takes 32 hexadecimal digits, hyphens anywhere between them.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let error = || ParseIdError {
                    text: text.chars().take(64).collect(),
                    wanted: $wanted,
                };
                let digits: String = text.chars().filter(|c| *c != '-').collect();
                if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(error());
                }
                u128::from_str_radix(&digits, 16).map(Self).map_err(|_| error())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
    };
}

uuid! {
    /// An extent's id: a UUID, never used again. The NAA name and the serial number that initiators see come from it.
    ExtentId, "an extent id (a UUID)"
}
uuid! {
    /// The id of a block device that was given to a node: a UUID, drawn anew each time, so that it names one device and one gift of it.
    DeviceId, "a device id (a UUID)"
}

impl ExtentId {
    /// Big-endian bytes, as journals and messages carry them.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From big-endian bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// A position in an extent's replication log. (epoch, lsn) is never given twice (I2); order is by epoch, then lsn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LogPos {
    /// The epoch in which the record was made.
    pub epoch: Epoch,
    /// The record's place.
    pub lsn: Lsn,
}

impl LogPos {
    /// The position before the first record.
    pub const EMPTY: Self = Self {
        epoch: Epoch(0),
        lsn: Lsn(0),
    };

    /// The position `lsn` of `epoch`.
    pub const fn new(epoch: Epoch, lsn: Lsn) -> Self {
        Self { epoch, lsn }
    }
}

impl fmt::Display for LogPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.lsn)
    }
}

/// One iSCSI session of one run of one node: unlike (initiator, ISID), never used again (F1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionInstance {
    /// The node that the initiator is logged in to.
    pub node: NodeId,
    /// That node's run.
    pub incarnation: Incarnation,
    /// Counts the sessions of the run.
    pub serial: u64,
}

/// The name of a command across nodes: (session instance, CmdSN) (F1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandName {
    /// The session that it came in on.
    pub session: SessionInstance,
    /// Its command sequence number (RFC 7143, 4.2.2.1), widened by the wraps of the session, so that it is never used again either.
    pub cmd_sn: u64,
}

impl CommandName {
    /// The name of the `n`th operation of a command that needs several of them: different from that of every command and of every other
    /// part. The session would have to send 2^48 commands before the two met.
    #[must_use]
    pub const fn part(self, n: u16) -> Self {
        Self {
            cmd_sn: self.cmd_sn | (n as u64) << 48,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extent_id_reads_what_it_prints() {
        let id = ExtentId::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(id.to_string(), "01234567-89ab-cdef-0011-223344556677");
        assert_eq!(id.to_string().parse::<ExtentId>(), Ok(id));
        assert_eq!(ExtentId::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn extent_id_refuses_other_text() {
        for bad in [
            "",
            "0123",
            "0123456789abcdef001122334455667g",
            "+123456789abcdef0011223344556677",
        ] {
            assert!(bad.parse::<ExtentId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn positions_order_by_epoch_first() {
        assert!(LogPos::new(Epoch(2), Lsn(5)) > LogPos::new(Epoch(1), Lsn(9)));
        assert!(LogPos::new(Epoch(2), Lsn(5)) < LogPos::new(Epoch(2), Lsn(6)));
        assert!(LogPos::EMPTY < LogPos::new(Epoch(1), Lsn(1)));
    }
}
