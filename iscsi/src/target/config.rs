//! How a portal behaves.

use std::time::Duration;

use holdfast_types::TpgId;

/// Settings of a portal, shared by its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortalConfig {
    /// The portal group that the portal is part of.
    pub tpg: TpgId,
    /// What is negotiated.
    pub offer: Offer,
    /// Limits and times.
    pub limits: Limits,
}

impl PortalConfig {
    /// Defaults for a portal of this group.
    pub fn new(tpg: TpgId) -> Self {
        Self {
            tpg,
            offer: Offer::default(),
            limits: Limits::default(),
        }
    }
}

/// Whether a digest is used, where the initiator leaves a choice (RFC 7143, 13.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DigestPolicy {
    /// The initiator's first choice.
    #[default]
    AsInitiatorPrefers,
    /// Never.
    Never,
    /// CRC32C or no login.
    Always,
}

/// This side's part of the negotiation. Where it has an upper bound the lower of both sides' values is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// HeaderDigest.
    pub header_digest: DigestPolicy,
    /// DataDigest.
    pub data_digest: DigestPolicy,
    /// MaxRecvDataSegmentLength that this side declares, in bytes: 512 to 2^24 - 1.
    pub max_recv_data_segment_length: u32,
    /// MaxBurstLength in bytes: 512 to 2^24 - 1.
    pub max_burst_length: u32,
    /// FirstBurstLength in bytes: 512 to 2^24 - 1, at most MaxBurstLength.
    pub first_burst_length: u32,
    /// InitialR2T: true wants R2T before any unsolicited Data-Out.
    pub initial_r2t: bool,
    /// ImmediateData: false refuses data in command PDUs.
    pub immediate_data: bool,
    /// MaxOutstandingR2T: 1 to 65535.
    pub max_outstanding_r2t: u16,
    /// DefaultTime2Wait in seconds: 0 to 3600.
    pub default_time2wait: u16,
    /// DefaultTime2Retain in seconds: 0 to 3600.
    pub default_time2retain: u16,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            header_digest: DigestPolicy::default(),
            data_digest: DigestPolicy::default(),
            max_recv_data_segment_length: 256 << 10,
            max_burst_length: 1 << 20,
            first_burst_length: 256 << 10,
            initial_r2t: false,
            immediate_data: true,
            max_outstanding_r2t: 4,
            default_time2wait: 2,
            default_time2retain: 0,
        }
    }
}

/// Bounds on what one connection may cost, and times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Commands that may be outstanding: MaxCmdSN never runs further ahead.
    pub window: u32,
    /// Immediate commands and task management requests that may be outstanding; more are rejected (reason 06).
    pub immediate_max: usize,
    /// From the connection's begin to the end of its login.
    pub login_timeout: Duration,
    /// Silence after which the initiator is pinged. Zero switches pings off.
    pub ping_after: Duration,
    /// Silence after a ping for which the initiator counts as dead.
    pub ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: 128,
            immediate_max: 32,
            login_timeout: Duration::from_secs(15),
            ping_after: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(90),
        }
    }
}
