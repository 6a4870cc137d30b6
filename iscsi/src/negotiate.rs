//! Operational keys (RFC 7143, section 13).

use crate::frame::Digests;

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
