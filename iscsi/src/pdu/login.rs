//! Login and Logout (RFC 7143, 11.12 to 11.15).

use holdfast_types::Isid;

use super::header::wire_number;
use super::text::CONTINUE;
use super::{Bhs, FINAL, Numbers, Opcode, TargetNumbers};

wire_number! {
    /// A stage of the login phase (CSG and NSG; RFC 7143, 11.12.3). Two bits.
    Stage(u8) {
        /// SecurityNegotiation.
        SECURITY = 0, "security negotiation";
        /// LoginOperationalNegotiation.
        OPERATIONAL = 1, "operational negotiation";
        /// FullFeaturePhase.
        FULL_FEATURE = 3, "full feature phase";
    }
}

wire_number! {
    /// How a login went: Status-Class in the high, Status-Detail in the low byte (RFC 7143, 11.13.5).
    LoginStatus(u16) {
        /// Success.
        SUCCESS = 0x0000, "success";
        /// The target has moved for a while; TargetAddress says where.
        MOVED_TEMPORARILY = 0x0101, "target moved temporarily";
        /// The target has moved for good; TargetAddress says where.
        MOVED_PERMANENTLY = 0x0102, "target moved permanently";
        /// An initiator error of no other kind.
        INITIATOR_ERROR = 0x0200, "initiator error";
        /// Authentication failed, or there is no common way to authenticate.
        AUTHENTICATION_FAILED = 0x0201, "authentication failure";
        /// The initiator may not use this target.
        NOT_ALLOWED = 0x0202, "authorization failure";
        /// The target does not exist here. Never sent for our own trouble (I8).
        NOT_FOUND = 0x0203, "target not found";
        /// The target was removed. Never sent (I8).
        REMOVED = 0x0204, "target removed";
        /// No common protocol version.
        UNSUPPORTED_VERSION = 0x0205, "unsupported version";
        /// Too many connections in the session.
        TOO_MANY_CONNECTIONS = 0x0206, "too many connections";
        /// A parameter is missing (a name).
        MISSING_PARAMETER = 0x0207, "missing parameter";
        /// This connection cannot be part of the session.
        CANNOT_INCLUDE = 0x0208, "cannot include in session";
        /// The session type is not supported.
        SESSION_TYPE = 0x0209, "session type not supported";
        /// There is no session of that TSIH.
        NO_SUCH_SESSION = 0x020a, "session does not exist";
        /// A request that has no place in a login.
        INVALID_DURING_LOGIN = 0x020b, "invalid during login";
        /// Target error. Never sent (I8).
        TARGET_ERROR = 0x0300, "target error";
        /// Service unavailable. Never sent (I8).
        SERVICE_UNAVAILABLE = 0x0301, "service unavailable";
        /// Out of resources. Never sent (I8).
        OUT_OF_RESOURCES = 0x0302, "out of resources";
    }
}

fn stage_flags(transit: bool, more: bool, current: Stage, next: Stage) -> u8 {
    (if transit { FINAL } else { 0 })
        | (if more { CONTINUE } else { 0 })
        | ((current.0 & 0x03) << 2)
        | (next.0 & 0x03)
}

fn isid_of(bhs: &Bhs) -> Isid {
    let mut isid = [0; 6];
    isid.copy_from_slice(&bhs.0[8..14]);
    Isid(isid)
}

/// Login Request (RFC 7143, 11.12). Always immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginRequest {
    /// The T bit: ready to go on to `next`.
    pub transit: bool,
    /// The C bit: the text goes on in the next PDU.
    pub more: bool,
    /// CSG: the stage that this belongs to.
    pub current: Stage,
    /// NSG: the stage to go to; means nothing without the T bit.
    pub next: Stage,
    /// Highest version supported.
    pub version_max: u8,
    /// Lowest version supported.
    pub version_min: u8,
    /// The initiator's part of the session id.
    pub isid: Isid,
    /// The target's part, 0 for a new session.
    pub tsih: u16,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Connection id.
    pub cid: u16,
    /// CmdSN and ExpStatSN.
    pub numbers: Numbers,
}

impl LoginRequest {
    /// Reads a header of this opcode.
    pub fn parse(bhs: &Bhs) -> Self {
        let flags = bhs.flags();
        Self {
            transit: flags & FINAL != 0,
            more: flags & CONTINUE != 0,
            current: Stage(flags >> 2 & 0x03),
            next: Stage(flags & 0x03),
            version_max: bhs.u8(2),
            version_min: bhs.u8(3),
            isid: isid_of(bhs),
            tsih: bhs.u16(14),
            itt: bhs.itt(),
            cid: bhs.u16(20),
            numbers: Numbers::parse(bhs),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let flags = stage_flags(self.transit, self.more, self.current, self.next);
        let mut bhs = Bhs::new(Opcode::LOGIN_REQUEST, flags)
            .with_immediate(true)
            .put_u8(2, self.version_max)
            .put_u8(3, self.version_min)
            .put_u16(14, self.tsih)
            .put_u32(16, self.itt)
            .put_u16(20, self.cid);
        bhs.0[8..14].copy_from_slice(&self.isid.0);
        self.numbers.emit(bhs)
    }
}

/// Login Response (RFC 7143, 11.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginResponse {
    /// The T bit: the next stage begins.
    pub transit: bool,
    /// The C bit: the text goes on in the next PDU.
    pub more: bool,
    /// CSG.
    pub current: Stage,
    /// NSG; means nothing without the T bit.
    pub next: Stage,
    /// Highest version supported.
    pub version_max: u8,
    /// The version in use.
    pub version_active: u8,
    /// The initiator's part of the session id, as requested.
    pub isid: Isid,
    /// The target's part: set in the final response of a new session.
    pub tsih: u16,
    /// Initiator Task Tag.
    pub itt: u32,
    /// StatSN, ExpCmdSN, MaxCmdSN; mean nothing unless the status is success.
    pub numbers: TargetNumbers,
    /// How the login goes.
    pub status: LoginStatus,
}

impl LoginResponse {
    /// Reads a header of this opcode.
    pub fn parse(bhs: &Bhs) -> Self {
        let flags = bhs.flags();
        Self {
            transit: flags & FINAL != 0,
            more: flags & CONTINUE != 0,
            current: Stage(flags >> 2 & 0x03),
            next: Stage(flags & 0x03),
            version_max: bhs.u8(2),
            version_active: bhs.u8(3),
            isid: isid_of(bhs),
            tsih: bhs.u16(14),
            itt: bhs.itt(),
            numbers: TargetNumbers::parse(bhs),
            status: LoginStatus(bhs.u16(36)),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let flags = stage_flags(self.transit, self.more, self.current, self.next);
        let mut bhs = Bhs::new(Opcode::LOGIN_RESPONSE, flags)
            .put_u8(2, self.version_max)
            .put_u8(3, self.version_active)
            .put_u16(14, self.tsih)
            .put_u32(16, self.itt);
        bhs.0[8..14].copy_from_slice(&self.isid.0);
        self.numbers.emit(bhs).put_u16(36, self.status.0)
    }
}

wire_number! {
    /// What a logout closes (RFC 7143, 11.14.1). Seven bits.
    LogoutReason(u8) {
        /// Close the session.
        SESSION = 0, "close the session";
        /// Close the connection of the CID.
        CONNECTION = 1, "close the connection";
        /// Remove the connection for recovery.
        RECOVERY = 2, "remove the connection for recovery";
    }
}

wire_number! {
    /// How a logout went (RFC 7143, 11.15.1).
    LogoutResult(u8) {
        /// Closed.
        CLOSED = 0, "closed";
        /// There is no connection of that CID.
        NO_SUCH_CID = 1, "CID not found";
        /// Connection recovery is not supported.
        RECOVERY_NOT_SUPPORTED = 2, "connection recovery is not supported";
        /// Cleanup failed.
        CLEANUP_FAILED = 3, "cleanup failed";
    }
}

/// Logout Request (RFC 7143, 11.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutRequest {
    /// The I bit.
    pub immediate: bool,
    /// What is to be closed.
    pub reason: LogoutReason,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Connection id, unless the session is closed.
    pub cid: u16,
    /// CmdSN and ExpStatSN.
    pub numbers: Numbers,
}

impl LogoutRequest {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            immediate: bhs.immediate(),
            reason: LogoutReason(bhs.flags() & 0x7f),
            itt: bhs.itt(),
            cid: bhs.u16(20),
            numbers: Numbers::parse(bhs),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::LOGOUT_REQUEST, FINAL | (self.reason.0 & 0x7f))
            .with_immediate(self.immediate)
            .put_u32(16, self.itt)
            .put_u16(20, self.cid);
        self.numbers.emit(bhs)
    }
}

/// Logout Response (RFC 7143, 11.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutResponse {
    /// How it went.
    pub result: LogoutResult,
    /// Initiator Task Tag of the request.
    pub itt: u32,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: TargetNumbers,
    /// Seconds to wait before reconnecting.
    pub time2wait: u16,
    /// Seconds, after waiting, for which tasks are kept.
    pub time2retain: u16,
}

impl LogoutResponse {
    /// Reads a header of this opcode.
    pub const fn parse(bhs: &Bhs) -> Self {
        Self {
            result: LogoutResult(bhs.u8(2)),
            itt: bhs.itt(),
            numbers: TargetNumbers::parse(bhs),
            time2wait: bhs.u16(40),
            time2retain: bhs.u16(42),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::LOGOUT_RESPONSE, FINAL)
            .put_u8(2, self.result.0)
            .put_u32(16, self.itt);
        self.numbers
            .emit(bhs)
            .put_u16(40, self.time2wait)
            .put_u16(42, self.time2retain)
    }
}
